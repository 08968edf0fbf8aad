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

from tests.oracles import rectified
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


# -------------------------------------------------------------------------------------------------------- rectifiers


def set_to_zero(x: Tensor) -> Tensor:
    x = x.clone()
    x[x < 0] = 0
    return x


RECTIFIERS: dict[str, Function] = {
    "relu": F.relu,
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "in place": lambda x: F.relu(x.clone(), inplace=True),
    "relu_": lambda x: x.clone().relu_(),
    "module": lambda x: nn.ReLU()(x),
    "mask": lambda x: x * (x > 0),
    "mask first": lambda x: (x >= 0) * x,
    "mask of numbers": lambda x: x * (x > 0).float(),
    "mask of its type": lambda x: x * (x > 0).to(x.dtype),
    "type_as": lambda x: x * (x > 0).type_as(x),
    "methods": lambda x: x.mul(x.gt(0)),
    "in place mask": lambda x: x.clone().mul_(x > 0),
    "of data": lambda x: x * (x.data > 0),
    "of detached": lambda x: x * (x.detach() > 0),
    "not below": lambda x: x * ~(x < 0),
    "logical_not": lambda x: x * torch.logical_not(x <= 0),
    "less the negative": lambda x: x - x * (x < 0),
    "sign": lambda x: x * (x.sign() + 1) / 2,
    "heaviside": lambda x: x * torch.heaviside(x.detach(), torch.zeros((), dtype=x.dtype)),
    "where": lambda x: torch.where(x > 0, x, 0),
    "where, of zeros": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "where, swapped": lambda x: torch.where(x < 0, 0.0, x),
    "x.where": lambda x: x.where(x > 0, torch.zeros((), dtype=x.dtype)),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0),
    "masked_fill_": lambda x: x.clone().masked_fill_(x < 0, 0),
    "setitem": set_to_zero,
    "threshold": lambda x: F.threshold(x, 0, 0),
    "clamp": lambda x: x.clamp(min=0),
    "clamp, of zeros": lambda x: torch.clamp(x, torch.zeros(CHANNELS, 1, 1, dtype=x.dtype)),
    "clamp_": lambda x: x.clone().clamp_(0),
    "clip": lambda x: torch.clip(x, 0),
    "clamp_min": lambda x: x.clamp_min(0),
    "less its lower part": lambda x: x - x.clamp(max=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(1, dtype=x.dtype)),
    "max": lambda x: torch.max(x, torch.zeros_like(x)),
    "fmax": lambda x: torch.fmax(x, torch.zeros_like(x)),
    "absolute": lambda x: (x + x.abs()) / 2,
    "half of each": lambda x: 0.5 * x + 0.5 * torch.abs(x),
    "root of the square": lambda x: (x + x.abs()) * 0.5,
    "hardtanh": lambda x: F.hardtanh(x, 0.0, float("inf")),
    "leaky": lambda x: F.leaky_relu(x, 0.0),
}


def steered(function: Function) -> Callable[[str], Function]:
    """The judge of an activation: deconvnet and guided send down what rectifiers do, the gradient autograd's."""
    return lambda rule: function if rule == "gradient" else lambda x: rectified(x, function(x), rule)


@pytest.mark.parametrize("name", RECTIFIERS)
def test_a_relu_is_one_however_it_is_written(name: str) -> None:
    assert_equal_to_autograd(RECTIFIERS[name], steered(F.relu), Certificate(paper=1))


def top_half(x: Tensor) -> Tensor:
    return x * (x >= x.flatten(1).median(1).values.view(-1, 1, 1, 1))


def sorted_channels(x: Tensor) -> Tensor:
    return x.gather(1, x.argsort(1))


def most_active(x: Tensor) -> Tensor:
    return torch.cat([x[i : i + 1, x[i].sum((1, 2)).topk(2).indices] for i in range(len(x))])


# What depends on the picture and has no derivative: masks, indices, whole numbers. Each switches, and is counted.
SWITCHES: dict[str, Function] = {
    "the upper half": top_half,
    "above a threshold": lambda x: x * (x > 0.1),
    "between two": lambda x: x * ((x > -0.2) & (x < 0.2)),
    "of another": lambda x: x * (x.flip(1) > 0),
    "of its mean": lambda x: torch.where(x > x.mean((2, 3), keepdim=True), x, 0),
    "leaky": lambda x: torch.where(x > 0, x, 0.1 * x),
    "sign reversed": lambda x: x.masked_fill(x > 0, 0),
    "negated": lambda x: -torch.minimum(-x, torch.zeros_like(x)),
    "argsort": sorted_channels,
    "topk": most_active,
    "take_along_dim": lambda x: torch.take_along_dim(x, x.argmax(1, keepdim=True), 1),
    "whole numbers": lambda x: x * x.detach().mul(3).int(),
    "bool": lambda x: x * (x + 0.2).int().bool(),
    "of a mask of numbers": lambda x: x * (x > 0.1).double() * 2,
}


@pytest.mark.parametrize("name", SWITCHES)
def test_what_a_mask_or_an_index_switches_is_counted(name: str) -> None:
    assert_equal_to_autograd(SWITCHES[name], lambda rule: SWITCHES[name], Certificate(differentiated=1))
