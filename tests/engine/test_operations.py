"""Every activation function of torch is treated as one, in sites, projections and occlusion sweeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import activation

from tests.engine.occlusion.test_sweep import compare, grid
from tests.networks import seeded
from vizapp.engine.operations import ACTIVATIONS
from vizapp.engine.projection.project import Certificate, project
from vizapp.engine.projection.rules import Deconvnet, Gradient
from vizapp.engine.trace.sites import Unit, kind_of, survey

# Torch's own list, but for what takes several numbers together.
TOGETHER = {"GLU", "MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
LAYERS = sorted(set(activation.__all__) - TOGETHER)
PICTURE = torch.randn(1, 3, 14, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


class Applied(nn.Module):
    """An activation that is no layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return getattr(torch, self.name)(x, 0.1)


def activated(name: str) -> nn.Module:
    """A convolution and the activation of that name; a head, so that squares have something to answer."""
    made = Applied(name) if name.islower() else getattr(activation, name)(*((0.1, -0.2) if name == "Threshold" else ()))
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return seeded(nn.Sequential(nn.Conv2d(3, 4, 3), made, nn.Conv2d(4, 4, 3), *pooled)).double()


@pytest.mark.parametrize("name", [*LAYERS, "clamp", "clip", "clamp_min", "clamp_max"])
def test_each_is_a_site_of_its_kind_gets_the_rectifiers_rule_and_runs_on_windows(name: str) -> None:
    module = activated(name)
    sites = survey(module, PICTURE)
    assert sites[1].kind == "activation"
    (down,) = project(module, PICTURE, [Unit("2", 1, (4, 4))], sites, Deconvnet())
    assert down.certificate == (Certificate(paper=1) if name == "ReLU" else Certificate(extended=1))
    (down,) = project(module, PICTURE, [Unit("2", 1, (4, 4))], sites, Gradient(), seed="one")
    leaf = PICTURE.clone().requires_grad_()
    (expected,) = torch.autograd.grad(module[:3](leaf)[0, 1, 4, 4], leaf)
    torch.testing.assert_close(down.values, expected, rtol=1e-9, atol=1e-12)
    sweep = compare(module, grid((14, 14), (3, 3), 5), PICTURE, torch.zeros_like(PICTURE), 1e-12)
    assert ", up to 3 (not local):" in sweep.facts["evaluation"]  # the pool behind the second convolution


def test_the_table_holds_no_name_that_is_another_kind_of_layer() -> None:
    for name in ACTIVATIONS:
        assert kind_of(name) == kind_of(f"{name}_") == "activation", name
