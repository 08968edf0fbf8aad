"""Networks that compute in several types: signals arrive in each with the derivative that autograd gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from tests.oracles import steered_projections
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.trace.sites import Unit, survey

RULES = ["deconvnet", "guided", "gradient"]
TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SIDE = 16
Body = Callable[["Islands", Tensor], Tensor]


class Islands(nn.Module):
    """Weights of -1, 0 and 1, so that every type computes exactly; `body` decides where each layer computes in which."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        self.body = body
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randint(-1, 2, parameter.shape, generator=generator))

    def layer(self, part: nn.Module, x: Tensor) -> Tensor:
        """The layer in the type of its input."""
        apply = F.linear if isinstance(part, nn.Linear) else F.conv2d
        options = {"padding": part.padding} if isinstance(part, nn.Conv2d) else {}
        return apply(x, part.weight.to(x.dtype), part.bias.to(x.dtype), **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def island(there: Callable[[Tensor], Tensor]) -> Body:
    """A body whose middle is computed in another type; both types meet in a sum, a product and a concatenation."""

    def body(net: Islands, x: Tensor) -> Tensor:
        x = F.relu(net.layer(net.a, x))
        y = F.max_pool2d(F.relu(net.layer(net.b, there(x))), 2)
        y = y + 2 * F.avg_pool2d(x, 2) + torch.cat([y[:, :2], F.max_pool2d(x, 2)[:, 2:]], 1) * y.new_tensor(0.5)
        y = torch.einsum("bchw->bc", F.relu(y)).to(x) / 64
        return net.layer(net.fc, y)

    return body


def autocast(net: Islands, x: Tensor) -> Tensor:
    """Types as autocast chooses them; off for the middle layer."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=x.dtype == torch.float32):
        x = F.max_pool2d(F.relu(net.a(x)), 2)
        with torch.autocast("cpu", enabled=False):
            y = F.relu(net.layer(net.b, x.to(net.a.weight)))
        x = torch.matmul((x + y).flatten(2), x.new_full((64, 1), 1 / 64)).squeeze(2)
        return net.fc(x).float() * 2


BODIES: dict[str, Body] = {
    "float": island(Tensor.float),
    "double": island(Tensor.double),
    "half": island(Tensor.half),
    "bfloat16": island(Tensor.bfloat16),
    "to": island(lambda x: x.to(torch.float64)),
    "to another": island(lambda x: x.to(x.new_zeros(1).double())),
    "type": island(lambda x: x.type(torch.float64)),
    "type_as": island(lambda x: x.type_as(x[0].double())),
    "promoted": island(lambda x: x * torch.ones(1, 1, 1, 1, dtype=torch.float64)),
    "autocast": autocast,
}


def picture(dtype: torch.dtype) -> Tensor:
    return torch.randint(-2, 3, (1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(2)).to(dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("name", BODIES)
def test_signals_pass_between_types(name: str, dtype: torch.dtype) -> None:
    module, batch = Islands(BODIES[name]).to(dtype).eval().requires_grad_(False), picture(dtype)
    sites = survey(module, batch)
    last = sites[-1].name
    for rule in RULES:
        expectations = steered_projections(module, batch, last, [(channel,) for channel in range(3)], rule)
        (down,) = project(module, batch, [Unit(last, c) for c in range(3)], sites, rule_named(rule), seed="one")
        assert down.values.dtype == (torch.float32 if dtype == torch.float16 else dtype)
        assert torch.equal(down.values, torch.stack(expectations).to(down.values)), rule
        assert down.values.any()


@pytest.mark.parametrize("gain", [1e-2, 1.0, 100.0])
@pytest.mark.parametrize("rule", RULES)
def test_small_and_large_signals_of_float16_networks_are_those_of_float64(gain: float, rule: str) -> None:
    """Signals of 1e-8, which float16 rounds to zero, and signals that may not become 4096 times as large."""
    torch.manual_seed(4)
    parts = [
        nn.Conv2d(3, 8, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, bias=False),
    ]
    module = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    for part, scale in zip(parts[::2], (1, gain, gain), strict=True):
        part.weight *= scale  # type: ignore[operator]
    module = module.half()
    batch = picture(torch.float16)
    sites = survey(module, batch)
    (down,) = project(module, batch, [Unit("6", c) for c in range(4)], sites, rule_named(rule), seed="one")
    expectations = steered_projections(module.double(), batch.double(), "6", [(c,) for c in range(4)], rule)
    for found, expected in zip(down.values.double(), expectations, strict=True):
        assert float((found - expected).norm() / expected.norm()) < 0.02
    assert float(expected.abs().max()) < 1e-6 or gain > 0.01


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("name", ["float", "double", "bfloat16", "autocast"])
def test_other_methods_answer_such_networks_too(name: str, dtype: torch.dtype) -> None:
    module = Islands(BODIES[name]).to(dtype)
    network = vizapp.wrap(module, input_size=(3, SIDE, SIDE), categories=["a", "b", "c"], mean=0.0, std=1 / 255)
    photo = np.random.default_rng(0).integers(0, 3, (SIDE, SIDE, 3), dtype=np.uint8)
    unit = vizapp.class_unit(network, 1)
    swept = vizapp.ask("occlusion", network, photo, window=4, stride=4, fill="black")
    covered = network.prepare(photo)
    correct = int(module(covered).argmax())
    covered[:, :, 4:8, 8:12] = 0
    assert swept.arrays["logit"][1, 2] == pytest.approx(float(module(covered)[0, correct]), rel=1e-6)
    for method in ("attribution", "sanity"):
        assert vizapp.ask(method, network, photo, unit=unit).arrays
