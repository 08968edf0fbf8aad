"""A rule of another paper is one class: epsilon-LRP against relevance redistributed with explicit matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vizapp.engine.operations import WEIGHTED
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import Family, Rule
from vizapp.engine.projection.windowed_signal import Signal, scale
from vizapp.engine.trace.recording import Call, Step
from vizapp.engine.trace.sites import Unit, survey


@dataclass(frozen=True)
class EpsilonLRP(Rule):
    """Bach et al. 2015, equation 58: R_j = sum_k a_j w_jk / (z_k + epsilon sign z_k) R_k."""

    epsilon: float = 1e-2

    def keep(self, family: Family, call: Call, output: Any) -> dict[str, Any]:
        return {"a": call.inputs[0].clone(), "z": output.clone()} if call.operation in WEIGHTED else {}

    def rectifier(self, signal: Signal, step: Step) -> Signal:
        return signal

    def linear(self, signal: Signal, step: Step, shapes: list[tuple[int, ...]]) -> list[Signal | None]:
        if step.operation not in WEIGHTED:
            return super().linear(signal, step, shapes)
        z = step.ctx["z"]
        (below,) = super().linear(scale(signal, 1 / (z + self.epsilon * torch.where(z >= 0, 1.0, -1.0))), step, shapes)
        return [None if below is None else scale(below, step.ctx["a"])]


def matrix(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The weights of a linear layer or convolution `[inputs outputs]`, a row per input that is 1 alone."""
    size = int(torch.tensor(shape).prod())
    zero = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
    return torch.stack(
        [layer(one.unflatten(0, shape)[None]).flatten() - zero for one in torch.eye(size, dtype=torch.float64)]
    )


def relevance(layers: list[nn.Module], picture: Tensor, start: Tensor, epsilon: float) -> Tensor:
    """The relevance of the pixels `[C H W]`, layer by layer with whole matrices; `start` is that of the last output."""
    activations = [picture]
    for layer in layers:
        activations.append(layer(activations[-1]))
    relevance = start
    for layer, a, z in zip(reversed(layers), activations[-2::-1], activations[:0:-1], strict=True):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weights, flat = matrix(layer, tuple(a.shape[1:])), z.flatten()
            stabilised = flat + epsilon * torch.where(flat >= 0, 1.0, -1.0)
            relevance = a.flatten() * (weights @ (relevance / stabilised))
    return relevance.view_as(picture[0])


@pytest.mark.parametrize("depth", [3, 6])
def test_epsilon_lrp_is_one_class(depth: int) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [
        nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3),
    ]  # fmt: skip
    layers = [layer.double().requires_grad_(False) for layer in layers[:depth]]
    picture = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    module = nn.Sequential(*layers)
    output = module(picture)[0]
    cells = [None] if depth == 6 else [(0, 0), (1, 2)]  # at the border, and on a window inside
    for cell in cells:
        unit = Unit(str(depth - 1), 1, cell)
        (found,) = project(module, picture, [unit], survey(module, picture), EpsilonLRP())
        start = torch.zeros_like(output)
        start[(1, *(cell or ()))] = output[(1, *(cell or ()))]
        expected = relevance(layers, picture, start.flatten(), EpsilonLRP.epsilon)
        assert expected.abs().max() > 0
        assert (found.values[0] - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_relevance_is_conserved_without_biases() -> None:
    """With epsilon near 0 the pixels' relevance adds up to the unit's activation (Bach et al. 2015, equation 2)."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 2))
    module = module.double().requires_grad_(False)
    module[4].bias.zero_()
    picture = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    (found,) = project(module, picture, [Unit("4", 0)], survey(module, picture), EpsilonLRP(epsilon=1e-12))
    assert float(found.values.sum()) == pytest.approx(float(module(picture)[0, 0]), rel=1e-8)
