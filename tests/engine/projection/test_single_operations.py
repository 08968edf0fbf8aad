"""Projections through single operations, each against float64 autograd of the network itself, steered where a rule says so.

The judge runs two pictures at once (autograd of torch 2.14 is wrong at batch 1 behind some transposes) and shares no code
with the engine: rectifiers send down what their definition says, gates are detached, everything else is autograd's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vizapp.engine.projection.project import Certificate, project
from vizapp.engine.projection.rules import RULES, rule_named
from vizapp.engine.tap import Tap
from vizapp.engine.trace.sites import Unit, survey

Function = Callable[[Tensor], Tensor]
HEIGHT, WIDTH, CHANNELS = 10, 9, 4
PICTURE = torch.randn(1, 3, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers of both signs, the same in each run."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Around(nn.Module):
    """Convolution, one operation, convolution (if the operation gives maps), classes."""

    def __init__(self, operation: Function) -> None:
        super().__init__()
        self.operation = operation
        self.first = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False).double().requires_grad_(False)
        self.last = nn.Conv2d(1, 1, 3, bias=False).requires_grad_(False)  # of as many channels as there are
        self.first.weight.copy_(numbers(CHANNELS, 3, 3, 3, seed=2) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation(self.first(x))
        if x.ndim == 4 and x.shape[2] > 3 < x.shape[3]:
            self.last.weight = nn.Parameter(numbers(CHANNELS, x.shape[1], 3, 3, seed=3) / 3, requires_grad=False)
            x = self.last(x)
        return F.linear(x.flatten(1), numbers(3, x[0].numel(), seed=4) / 9)


def assert_equal_to_autograd(operation: Function, judge: Callable[[str], Function], counts: Certificate) -> None:
    """Three units under three rules: the class, and cells at the border and inside of the last map."""
    module = Around(operation)
    sites = survey(module, PICTURE)
    names = [site.name for site in sites]
    units = [[Unit(names[-1], channel) for channel in range(3)]]
    if "last" in names:
        _, height, width = next(site for site in sites if site.name == "last").shape
        units.append([Unit("last", 1, cell) for cell in ((0, 0), (height // 2, width // 2), (height - 1, 1))])
    for rule in RULES:
        pictures = torch.cat([PICTURE, PICTURE.flip(3)]).requires_grad_()
        for some in units:
            (found,) = project(module, PICTURE, some, sites, rule_named(rule), seed="one")
            with Tap(Around(judge(rule)), {some[0].site}) as tap:
                tap._module(pictures)
            value = tap.kept[some[0].site]
            for place, unit in enumerate(some):
                target = value[(0, unit.channel, *(unit.cell or ()))]
                (expected,) = torch.autograd.grad(target, pictures, retain_graph=True)
                scale = float(expected.abs().max()) or 1.0
                assert float((found.values[place] - expected[0]).abs().max()) <= 1e-6 * scale, (rule, unit)
            if rule == "deconvnet":
                assert found.certificate == counts, some[0].site


# ------------------------------------------------------------------------------------------------------------- gates

Gated = Callable[[Tensor, Tensor], Tensor]  # a map and its gate


def mean_over(*axes: int) -> Function:
    """A gate: the sigmoid of a mean of a convolution over some axes, which stay with size 1."""
    return lambda x: torch.sigmoid(F.conv2d(x, numbers(CHANNELS, CHANNELS, 1, 1, seed=5))).mean(axes, keepdim=True)


GATES: dict[str, tuple[Function, Gated]] = {
    "of channels": (mean_over(2, 3), lambda x, g: x * g),
    "of channels and rows": (mean_over(3), lambda x, g: x * g),
    "of channels and columns": (mean_over(2), lambda x, g: x * g),
    "of rows": (mean_over(1, 3), lambda x, g: g * x),
    "of columns": (mean_over(1, 2), lambda x, g: x * g),
    "of cells": (mean_over(1), lambda x, g: x.mul(g)),
    "of the picture": (mean_over(1, 2, 3), lambda x, g: x * g),
    "channels last": (
        mean_over(2, 3),
        lambda x, g: (x.permute(0, 2, 3, 1) * g.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    ),
    "rows of channels last": (
        mean_over(1, 3),
        lambda x, g: (x.permute(0, 2, 3, 1) * g.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    ),
    "of channels, as an exponential": (lambda x: x.mean((2, 3), keepdim=True).exp(), lambda x, g: x * g),
    "one number": (mean_over(1, 2, 3), lambda x, g: torch.cat([x[i : i + 1] * g[i].sum() for i in range(len(x))])),
    "fewer axes": (mean_over(2, 3), lambda x, g: torch.cat([x[i : i + 1] * g[i] for i in range(len(x))])),
    "more axes": (mean_over(2, 3), lambda x, g: torch.cat([(x[i] * g[i : i + 1]) for i in range(len(x))])),
    "expand": (mean_over(2, 3), lambda x, g: x * g.expand(-1, -1, HEIGHT, WIDTH)),
    "expand_as": (mean_over(3), lambda x, g: x * g.expand_as(x)),
    "broadcast_to": (mean_over(2, 3), lambda x, g: x * torch.broadcast_to(g, x.shape)),
    "repeated": (mean_over(2, 3), lambda x, g: x * g.repeat(1, 1, HEIGHT, WIDTH)),
    "as large": (lambda x: torch.sigmoid(x.flip(1)), lambda x, g: x * g),
    "view_as": (lambda x: torch.sigmoid(x.flip(1)), lambda x, g: x * g.flatten(1).view_as(x)),
    "type_as": (lambda x: torch.sigmoid(x.flip(1)), lambda x, g: x * g.type_as(x)),
    "torch.mul": (mean_over(2, 3), lambda x, g: torch.mul(x, other=g)),
    "torch.multiply": (mean_over(2, 3), torch.multiply),
    "operator.mul": (mean_over(2, 3), operator.mul),
    "in place": (mean_over(2, 3), lambda x, g: x.clone().mul_(g)),
    "einsum": (mean_over(2, 3), lambda x, g: torch.einsum("bchw,bc->bchw", x, g.flatten(1))),
    "einsum, gate first": (mean_over(2, 3), lambda x, g: torch.einsum("bc,bchw->bchw", g.flatten(1), x)),
    "addcmul": (mean_over(2, 3), lambda x, g: torch.addcmul(torch.ones(()).double(), x, g, value=2)),
    "addcmul, of itself": (mean_over(2, 3), lambda x, g: torch.addcmul(x, x, g)),
    "lerp": (mean_over(2, 3), lambda x, g: torch.lerp(x, x.roll(1, 1), g)),
}


def test_gated_linear_units_hold_their_gates() -> None:
    def written_out(x: Tensor, rule: str) -> Tensor:
        a, b = x.chunk(2, 1)
        return a * torch.sigmoid(b if rule == "gradient" else b.detach())

    judge = lambda rule: lambda x: written_out(x, rule)  # noqa: E731
    assert_equal_to_autograd(lambda x: F.glu(x, 1), judge, Certificate(gates=1))


@pytest.mark.parametrize("name", GATES)
def test_gates_are_held(name: str) -> None:
    gate, apply = GATES[name]
    more = Certificate(gates=1)
    assert_equal_to_autograd(
        lambda x: apply(x, gate(x)),
        lambda rule: lambda x: apply(x, gate(x) if rule == "gradient" else gate(x).detach()),
        more,
    )
