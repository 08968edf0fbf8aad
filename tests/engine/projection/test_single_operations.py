"""Projections through single operations, each against float64 autograd of the network itself, steered where a rule says so.

The judge runs two pictures at once (autograd of torch 2.14 is wrong at batch 1 behind some transposes) and shares no code
with the engine: rectifiers send down what their definition says, gates are detached, everything else is autograd's.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.errors import refuses
from tests.oracles import rectified
from vizapp.engine.projection.project import Certificate, Projections, project
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

    def forward(self, x: Tensor, done: bool = False) -> Tensor:
        x = x if done else self.operation(self.first(x))
        if x.ndim == 4 and x.shape[2] > 3 < x.shape[3]:
            self.last.weight = nn.Parameter(numbers(CHANNELS, x.shape[1], 3, 3, seed=3) / 3, requires_grad=False)
            x = self.last(x)
        return F.linear(x.flatten(1), numbers(3, x[0].numel(), seed=4) / 9)


def assert_equal_to_autograd(
    operation: Function, judge: Callable[[str], Function], counts: Certificate, rules: Iterable[str] = RULES
) -> None:
    """Units under three rules: the class, and cells at the border and inside of the last map (not under the gradient)."""
    module = Around(operation)
    sites = survey(module, PICTURE)
    names = [site.name for site in sites]
    units = [[Unit(names[-1], 1)]]
    if any(site.name == "last" and site.layout == "chw" for site in sites):
        _, height, width = next(site for site in sites if site.name == "last").shape
        units.append([Unit("last", 1, cell) for cell in ((0, 0), (height // 2, width // 2), (height - 1, 1))])
    judged: dict[Function, list[Tensor]] = {}
    for rule in rules:
        right = judge(rule)
        if right not in judged:
            judged[right] = [tensor for some in units for tensor in gradients(right, some)]
        expectations = iter(judged[right])
        for some in units[:1] if rule == "gradient" else units:
            (found,) = project(module, PICTURE, some, sites, rule_named(rule), seed="one")
            for unit, values in zip(some, found.values, strict=True):
                expected = next(expectations)
                assert float((values - expected).abs().max()) <= 1e-6 * (float(expected.abs().max()) or 1), (rule, unit)
            if rule == "deconvnet":
                assert found.certificate == counts, some[0].site


def gradients(operation: Function, units: list[Unit]) -> list[Tensor]:
    """Autograd's derivatives of units of one site by the picture, `[3 H W]` each, where `operation` is the network's."""
    module, pictures = Around(operation), torch.cat([PICTURE, PICTURE.flip(3)]).requires_grad_()
    with Tap(module, {units[0].site}) as tap:
        module(pictures)
    targets = [tap.kept[unit.site][(0, unit.channel, *(unit.cell or ()))] for unit in units]
    return [torch.autograd.grad(target, pictures, retain_graph=True)[0][0] for target in targets]


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
    "not squashed": (lambda x: x.mean((2, 3), keepdim=True).exp(), lambda x, g: x * g),
    "not squashed, expanded": (lambda x: x.mean(3, keepdim=True).exp(), lambda x, g: x * g.expand_as(x)),
    "not squashed, repeated": (
        lambda x: x.mean((2, 3), keepdim=True).exp(),
        lambda x, g: x * g.repeat(1, 1, HEIGHT, WIDTH),
    ),
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
    "einsum of an axis of one": (mean_over(1), lambda x, g: torch.einsum("nchw,nohw->nchw", x, g)),
    "einsum of two axes of one": (mean_over(2, 3), lambda x, g: torch.einsum("bchw,bcij->bchw", x, g)),
    "einsum of other axes": (mean_over(2, 3), lambda x, g: torch.einsum("bc...,bc->bc...", x, g.flatten(1))),
    "einsum without an arrow": (
        mean_over(1, 2, 3),
        lambda x, g: torch.einsum("chwb,b", x.movedim(0, 3), g.flatten())[None],
    ),
    "divided by the inverse": (mean_over(2, 3), lambda x, g: x / (1 / g)),
    "divided by a moved inverse": (mean_over(2, 3), lambda x, g: x / g.flatten(1).reciprocal()[:, :, None, None]),
    "diagonal": (mean_over(2, 3), lambda x, g: torch.bmm(torch.diag_embed(g.flatten(1)), x.flatten(2)).view_as(x)),
    "diagonal on the right": (mean_over(1, 2), lambda x, g: x @ torch.diag_embed(g[:, 0])),
    "matrix product": (mean_over(1, 2, 3), lambda x, g: (x.view(len(x), -1, 1) @ g[:, 0]).view_as(x)),
    "convolution in groups": (
        mean_over(2, 3),
        lambda x, g: F.conv2d(x.view(1, -1, HEIGHT, WIDTH), g.view(-1, 1, 1, 1), groups=CHANNELS * len(x)).view_as(x),
    ),
    "tensordot": (
        mean_over(1, 2, 3),
        lambda x, g: torch.cat(
            [torch.tensordot(y[..., None], w[0], 1)[None, ..., 0] for y, w in zip(x, g, strict=True)]
        ),
    ),
    "not squashed, by einsum": (lambda x: x.mean((2, 3)).exp(), lambda x, g: torch.einsum("bchw,bc->bchw", x, g)),
    "a sigmoid by hand": (lambda x: 1 / (1 + torch.exp(-x.flip(1))), lambda x, g: x * g),
    "a sigmoid by tanh": (lambda x: 0.5 * torch.tanh(x.flip(1) / 2) + 0.5, lambda x, g: x * g),
}


def test_gated_linear_units_hold_their_gates() -> None:
    def written_out(x: Tensor, rule: str) -> Tensor:
        a, b = x.chunk(2, 1)
        return a * torch.sigmoid(b if rule == "gradient" else b.detach())

    judge = lambda rule: lambda x: written_out(x, rule)  # noqa: E731
    assert_equal_to_autograd(lambda x: F.glu(x, 1), judge, Certificate(gates=1))


def test_features_of_a_sigmoid_are_no_gates() -> None:
    """The convolution of a sigmoid's map, gated by another sigmoid as large: the gate is held."""
    weight = numbers(CHANNELS, CHANNELS, 1, 1, seed=5)

    def gated(x: Tensor, rule: str = "") -> Tensor:
        features = torch.sigmoid(x)
        features = F.conv2d(rectified(x, features, rule) if rule in {"deconvnet", "guided"} else features, weight)
        gate = torch.sigmoid(features.flip(1))
        return features * (gate.detach() if rule in {"deconvnet", "guided"} else gate)

    assert_equal_to_autograd(gated, lambda rule: lambda x: gated(x, rule), Certificate(extended=1, gates=1))


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
    "prelu": lambda x: F.prelu(x, torch.zeros(CHANNELS, dtype=x.dtype)),
    "negated clamp": lambda x: -(-x).clamp(max=0),
    "negated minimum": lambda x: -torch.minimum(-x, torch.zeros_like(x)),
    "plus the negated": lambda x: x + F.relu(-x),
    "twice halved": lambda x: (2 * F.relu(x) + 2 * x.clamp(0)) / 4,
    "amax of a stack": lambda x: torch.stack([x, torch.zeros_like(x)]).amax(0),
    "max of a stack": lambda x: torch.stack([torch.zeros_like(x), x], 2).max(2).values,
    "clamped sign": lambda x: x.sign().clamp(0) * x,
    "einsum": lambda x: torch.einsum("bchw,bchw->bchw", x, (x > 0).to(x.dtype)),
    "addcmul": lambda x: torch.addcmul(torch.zeros_like(x), x, (x > 0).to(x.dtype)),
    "clamp of a clamp": lambda x: x.clamp(min=-1).clamp(min=0),
}


def steered(function: Function) -> Callable[[str], Function]:
    """The judge of an activation: deconvnet and guided send down what rectifiers do, the gradient autograd's."""
    return lambda rule: function if rule == "gradient" else lambda x: rectified(x, function(x), rule)


@pytest.mark.parametrize("name", RECTIFIERS)
def test_a_relu_is_one_however_it_is_written(name: str) -> None:
    assert_equal_to_autograd(RECTIFIERS[name], steered(F.relu), Certificate(paper=1))


NEGATED: dict[str, Function] = {  # min(x, 0), the ReLU between two negations
    "of relu": lambda x: -F.relu(-x),
    "clamp": lambda x: x.clamp(max=0),
    "minimum": lambda x: torch.minimum(x, torch.zeros(1, dtype=x.dtype)),
    "less the upper part": lambda x: x - F.relu(x),
    "mask": lambda x: x * (x < 0),
    "masked_fill": lambda x: x.masked_fill(x > 0, 0),
    "where": lambda x: torch.where(x > 0, 0, x),
    "absolute": lambda x: (x - x.abs()) / 2,
    "stack": lambda x: torch.stack([x, torch.zeros_like(x)]).amin(0),
    "hardtanh": lambda x: F.hardtanh(x, -float("inf"), 0.0),
}


@pytest.mark.parametrize("name", NEGATED)
def test_a_negated_relu_is_one_between_two_negations(name: str) -> None:
    judge: Callable[[str], Function] = lambda rule: lambda x: -steered(F.relu)(rule)(-x)  # noqa: E731
    assert_equal_to_autograd(NEGATED[name], judge, Certificate(paper=1))


IDENTITIES: dict[str, Function] = {
    "both parts": lambda x: F.relu(x) - F.relu(-x),
    "both clamps": lambda x: x.clamp(min=0) + x.clamp(max=0),
    "both masks": lambda x: x * (x > 0) + x * (x <= 0),
    "leaky": lambda x: F.leaky_relu(x, 1.0),
    "negated parts": lambda x: -F.relu(-x) + F.relu(x),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_rectifiers_that_change_nothing_together_are_not_counted(name: str) -> None:
    assert_equal_to_autograd(IDENTITIES[name], lambda rule: lambda x: x * 1, Certificate())


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


# --------------------------------------------------------------------------- linear operations: nothing to be counted

MASK = numbers(CHANNELS, HEIGHT, WIDTH, seed=6) > 0
FACTOR = numbers(CHANNELS, HEIGHT, WIDTH, seed=7)


def written(x: Tensor, write: Callable[[Tensor], object]) -> Tensor:
    """A copy of the map that `write` has written into."""
    x = x.clone()
    write(x)
    return x


def per_picture(function: Function) -> Function:
    """The function of single pictures `[C H W]`, of each picture of a batch."""
    return lambda x: torch.stack([function(y) for y in x])


LINEAR: dict[str, Function] = {
    "identity": lambda x: x,
    "positive": torch.positive,
    "add": lambda x: x + 1,
    "radd": lambda x: 1 + x,
    "add alpha": lambda x: torch.add(x, x.flip(1), alpha=3),
    "add a row": lambda x: x + x.mean(2, keepdim=True),
    "add a column": lambda x: x.mean(3, keepdim=True) + x,
    "add a vector": lambda x: x + x.mean((2, 3), keepdim=True),
    "add_": lambda x: written(x, lambda y: y.add_(x.flip(2))),
    "add fewer axes": lambda x: x + numbers(WIDTH, seed=1),
    "sub": lambda x: x - x.roll(1, 2),
    "sub broadcast": lambda x: x.mean((1, 2), keepdim=True) - x,
    "rsub": lambda x: 1 - x,
    "rsub alpha": lambda x: torch.rsub(x, x.flip(1), alpha=2),
    "subtract": lambda x: torch.subtract(x, x.flip(3)),
    "neg": lambda x: -x,
    "negative": torch.negative,
    "mul number": lambda x: 2 * x,
    "mul channels": lambda x: x * numbers(CHANNELS, 1, 1),
    "mul rows": lambda x: x * numbers(HEIGHT, 1),
    "mul columns": lambda x: x * numbers(WIDTH),
    "mul map": lambda x: x.mul(FACTOR),
    "mul by keyword": lambda x: torch.mul(x, other=FACTOR),
    "mul scalar tensor": lambda x: x * torch.tensor(3.0),
    "mul adds an axis": lambda x: torch.cat([y * torch.full((1, 1, 1, 1), 2.0) for y in x]),
    "mul makes it wider": lambda x: x.mean((2, 3), keepdim=True) * FACTOR,
    "mul of one row": lambda x: x.mean(2, keepdim=True) * FACTOR,
    "div number": lambda x: x / 3,
    "div map": lambda x: x / (FACTOR.abs() + 1),
    "divide": lambda x: torch.divide(x, 4),
    "true_divide": lambda x: torch.true_divide(x, 4),
    "div_": lambda x: written(x, lambda y: y.div_(4)),
    "cat": lambda x: torch.cat([x, x.flip(2)], 1),
    "cat rows": lambda x: torch.cat([x, x.flip(1)], 2),
    "cat constant": lambda x: torch.cat([x, FACTOR.expand(len(x), -1, -1, -1)], 1),
    "concat": lambda x: torch.concat([x, 2 * x], -3),
    "concatenate": lambda x: torch.concatenate([x, 2 * x], 1),
    "stack": lambda x: torch.stack([x, x.flip(2)], 1).flatten(1, 2),
    "hstack": lambda x: torch.hstack([x, 2 * x]),
    "dstack": lambda x: torch.dstack([x, 2 * x]),
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0, 0])),
    "gather": lambda x: x.gather(1, torch.zeros_like(x, dtype=torch.int64)),
    "take_along_dim": lambda x: torch.take_along_dim(x, torch.arange(CHANNELS).flip(0).view(1, -1, 1, 1), 1),
    "getitem": lambda x: x[:, 1:, ::2],
    "getitem list": lambda x: x[:, [3, 1]],
    "getitem mask": lambda x: x[:, MASK],
    "narrow": lambda x: x.narrow(2, 1, 7),
    "select": lambda x: x.select(1, 2),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: x.split([1, 3], 1)[1],
    "tensor_split": lambda x: x.tensor_split(3, 2)[0],
    "hsplit": lambda x: torch.hsplit(x, 2)[1],
    "unbind": lambda x: x.unbind(1)[1],
    "diagonal": lambda x: x.diagonal(0, 2, 3),
    "tril": torch.tril,
    "triu": lambda x: x.triu(1),
    "view": lambda x: x.view(len(x), -1, WIDTH, 2),
    "reshape": lambda x: x.reshape(len(x), 2, -1),
    "flatten": lambda x: x.flatten(2),
    "unflatten": lambda x: x.unflatten(1, (2, 2)).sum(1),
    "ravel of one": lambda x: torch.stack([y.ravel() for y in x]),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(2, 3),
    "mT": lambda x: x.mT,
    "swapaxes": lambda x: x.swapaxes(1, 2),
    "movedim": lambda x: x.movedim(1, 3),
    "moveaxis": lambda x: torch.moveaxis(x, 2, 3),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "flip": lambda x: x.flip(2),
    "fliplr": torch.fliplr,
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "tile": lambda x: x.tile(1, 2, 1, 1),
    "repeat": lambda x: x.repeat(1, 1, 2, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 3),
    "expand": lambda x: x.mean(1, keepdim=True).expand(-1, 4, -1, -1),
    "expand_as": lambda x: x.mean(3, keepdim=True).expand_as(x),
    "broadcast_to": lambda x: torch.broadcast_to(x.mean((2, 3), keepdim=True), x.shape),
    "broadcast_tensors": lambda x: torch.broadcast_tensors(x.mean(1, keepdim=True), FACTOR)[0],
    "view_as": lambda x: x.flatten(1).view_as(x),
    "mean": lambda x: x.mean(1, keepdim=True),
    "mean rows": lambda x: x.mean(2),
    "sum": lambda x: x.sum((2, 3)),
    "cumsum": lambda x: x.cumsum(2),
    "diff": lambda x: x.diff(dim=2),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad reflect": lambda x: F.pad(x, (1, 2, 2, 1), "reflect"),
    "pad circular": lambda x: F.pad(x, (1, 1, 1, 1), "circular"),
    "pad replicate": lambda x: F.pad(x, (1, 1, 1, 1), "replicate"),
    "conv2d strided": lambda x: F.conv2d(x, numbers(4, 2, 3, 3), None, 2, 1, 1, 2),
    "conv2d dilated": lambda x: F.conv2d(x, numbers(4, 4, 3, 3), numbers(4), dilation=2, padding="same"),
    "conv1d": lambda x: F.conv1d(x.flatten(2), numbers(4, 4, 3), padding=1).view(x.shape),
    "conv3d": lambda x: F.conv3d(x[:, None], numbers(2, 1, 3, 3, 3), padding=1).flatten(1, 2),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, numbers(4, 4, 3, 3), stride=2),
    "conv_transpose1d": lambda x: F.conv_transpose1d(x.flatten(2), numbers(4, 4, 3)),
    "torch.conv2d": lambda x: torch.conv2d(x, numbers(4, 4, 3, 3)),
    "linear": lambda x: F.linear(x, numbers(5, WIDTH)),
    "matmul": lambda x: x @ numbers(WIDTH, 6),
    "rmatmul": lambda x: numbers(8, HEIGHT) @ x,
    "bmm": lambda x: torch.bmm(x.flatten(2), numbers(1, HEIGHT * WIDTH, 5).expand(len(x), -1, -1)),
    "einsum": lambda x: torch.einsum("bchw,cd->bdhw", x, numbers(4, 5)),
    "tensordot": lambda x: torch.tensordot(x, numbers(WIDTH, 4), 1),
    "inner": lambda x: torch.inner(x, numbers(4, WIDTH)),
    "addmm": lambda x: torch.addmm(numbers(3), x.flatten(1), numbers(CHANNELS * HEIGHT * WIDTH, 3)),
    "baddbmm": lambda x: torch.baddbmm(x.flatten(2), x.flatten(2), numbers(1, 90, 90).expand(len(x), -1, -1)),
    "addcmul": lambda x: torch.addcmul(x.flip(1), x, FACTOR, value=0.5),
    "lerp": lambda x: torch.lerp(x, x.flip(1), 0.3),
    "lerp of numbers": lambda x: torch.lerp(FACTOR.expand_as(x), 2 * FACTOR.expand_as(x), x),
    "lerp weights": lambda x: torch.lerp(x, x.flip(1), FACTOR),
    "where": lambda x: torch.where(MASK, x, x.flip(1)),
    "where, of a row": lambda x: torch.where(MASK, x, x.mean(2, keepdim=True)),
    "where, of a column": lambda x: torch.where(MASK, x.mean(3, keepdim=True), x),
    "add a picture's mean": lambda x: x + x.mean((1, 2, 3), keepdim=True),
    "sub a column": lambda x: torch.sub(x, x.mean(3, keepdim=True), alpha=2),
    "addcmul of a row": lambda x: torch.addcmul(x, x.mean(2, keepdim=True), FACTOR),
    "where number": lambda x: torch.where(MASK, x, 2.0),
    "masked_fill": lambda x: x.masked_fill(MASK, 1.0),
    "mul mask": lambda x: x * MASK,
    "setitem": lambda x: written(x, lambda y: operator.setitem(y, (slice(None), 1), 0.5)),
    "setitem, of the map": lambda x: written(x, lambda y: operator.setitem(y, (slice(None), 1), x[:, 0])),
    "setitem mask": lambda x: written(x, lambda y: operator.setitem(y, (slice(None), MASK), 0.0)),
    "copy_": lambda x: torch.empty_like(x).copy_(x),
    "index_add": lambda x: x.index_add(1, torch.tensor([0, 0]), x[:, 2:]),
    "index_copy": lambda x: x.index_copy(1, torch.tensor([0, 1]), x[:, 2:]),
    "index_fill": lambda x: x.index_fill(1, torch.tensor([0, 1]), 0.5),
    "scatter": lambda x: x.scatter(1, torch.zeros_like(x, dtype=torch.int64), x[:, 1:2].expand_as(x)),
    "scatter_add": lambda x: x.scatter_add(1, torch.zeros_like(x, dtype=torch.int64), x),
    "cross": lambda x: torch.linalg.cross(x[:, :3], FACTOR[None, :3], dim=1),
    "outer": per_picture(lambda y: torch.outer(y.flatten()[:5], numbers(3))),
    "kron": per_picture(lambda y: torch.kron(y[0], numbers(2, 2))),
    "mv": per_picture(lambda y: torch.mv(y[0], numbers(WIDTH))),
    "addmv": per_picture(lambda y: torch.addmv(y[1, :, 0], y[0], numbers(WIDTH))),
    "block_diag": per_picture(lambda y: torch.block_diag(y[0], y[1])),
    "take": per_picture(lambda y: y.take(torch.tensor([3, 7, 7]))),
    "put": per_picture(lambda y: y.put(torch.tensor([3, 7]), y[0, 0, :2])),
    "meshgrid": per_picture(lambda y: torch.meshgrid(y[0, 0], y[0, 1], indexing="ij")[1]),
    "cartesian_prod": per_picture(lambda y: torch.cartesian_prod(y[0, 0, :3], y[0, 1, :3])),
    "as_strided": per_picture(lambda y: y.as_strided((3, 3), (9, 2))),
    "masked_scatter": lambda x: x.masked_scatter(MASK.expand_as(x), x.flip(1)),
    "slice_scatter": lambda x: x.slice_scatter(x[:, :, :2] * 2, 2, 0, 2),
    "diagonal_scatter": lambda x: x.diagonal_scatter(x[:, :, :9, 0] * 2, 0, 2, 3),
    "diag_embed": lambda x: torch.diag_embed(x[:, 0]),
    "trapezoid": lambda x: torch.trapezoid(x, dim=2),
    "split_with_sizes": lambda x: x.split_with_sizes([1, 3], 1)[1],
    "unsafe_chunk": lambda x: torch.unsafe_chunk(x, 2, 1)[0],
    "atleast_3d": torch.atleast_3d,
    "sum_to_size": lambda x: x.sum_to_size(len(x), CHANNELS, 1, WIDTH),
    "ldexp": lambda x: torch.ldexp(x, torch.tensor(2)),
    "real": lambda x: x.real,
    "add twice": lambda x: x + x,
    "cat twice": lambda x: torch.cat((x, x), 1),
    "sum of a list": lambda x: sum([x, x.flip(1), x.flip(2)]),  # type: ignore[return-value]
    "written into zeros": lambda x: written(
        torch.zeros_like(x), lambda y: operator.setitem(y, (slice(None), 1), x[:, 0])
    ),
    "index_put_": lambda x: written(x, lambda y: y.index_put_((torch.arange(len(x)), torch.tensor([2])), x[:, 1])),
    "pad with a number": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2), value=3.0),
    "pad that crops": lambda x: F.pad(x, (-1, -1, -2, 0)),
    "interpolate area": lambda x: F.interpolate(x, size=(4, 7), mode="area"),
    "interpolate antialias": lambda x: F.interpolate(x, size=(7, 5), mode="bilinear", antialias=True),
    "avg_pool2d divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "conv2d same, even": lambda x: F.conv2d(x, numbers(4, 4, 4, 2), padding="same"),
    "conv2d by axis": lambda x: F.conv2d(x, numbers(4, 4, 1, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    "conv2d without a batch": per_picture(lambda y: F.conv2d(y, numbers(4, 4, 3, 3))),
    "conv2d of channels as a batch": lambda x: F.conv2d(x.view(-1, 1, HEIGHT, WIDTH), numbers(1, 1, 3, 3)).view(
        len(x), CHANNELS, 8, 7
    ),
    "batch_norm of channels as a batch": lambda x: F.batch_norm(
        x.view(-1, 2, HEIGHT, WIDTH), numbers(2), numbers(2).abs()
    ).view(x.shape),
    "deform_conv2d": lambda x: torchvision.ops.deform_conv2d(
        x, numbers(1, 18, 8, 7).expand(len(x), -1, -1, -1), numbers(4, 4, 3, 3)
    ),
    "batch_norm": lambda x: F.batch_norm(x, numbers(4), numbers(4).abs(), numbers(4), numbers(4)),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool2d ceil": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "avg_pool1d": lambda x: F.avg_pool1d(x.flatten(2), 3),
    "avg_pool3d": lambda x: F.avg_pool3d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x.flatten(2), 7),
    "interpolate nearest": lambda x: F.interpolate(x, scale_factor=2),
    "interpolate bilinear": lambda x: F.interpolate(x, size=(7, 8), mode="bilinear"),
    "interpolate bicubic": lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic", align_corners=True),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :, :8], 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "unfold": lambda x: F.unfold(x, 3),
    "x.unfold": lambda x: x.unfold(2, 3, 2).flatten(3),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1), (HEIGHT, WIDTH), 3, padding=1),
    "grid_sample": lambda x: F.grid_sample(
        x, numbers(1, 8, 7, 2).clamp(-1, 1).expand(len(x), -1, -1, -1), align_corners=False
    ),
    "contiguous": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "clone": lambda x: x.clone(),
    "dropout": lambda x: F.dropout(x, training=False),
    "dropout2d": lambda x: nn.Dropout2d().eval()(x),
    "alpha_dropout": lambda x: nn.AlphaDropout().eval()(x),
    "feature_alpha_dropout": lambda x: nn.FeatureAlphaDropout().eval()(x),
    "dropout of nothing": lambda x: F.dropout(x, 0.0, training=True),
    "clamp without bounds": lambda x: torch.clamp(x, torch.tensor(-math.inf), torch.tensor(math.inf)),
    "clamp from below without a bound": lambda x: x.clamp(min=-math.inf),
    "hardtanh without bounds": lambda x: F.hardtanh(x, -math.inf, math.inf),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_operations_are_transposed_and_not_counted(name: str) -> None:
    function = LINEAR[name]
    x, y = numbers(2, CHANNELS, HEIGHT, WIDTH, seed=8), numbers(2, CHANNELS, HEIGHT, WIDTH, seed=9)
    both, zero = function(x + y), function(torch.zeros_like(x))
    torch.testing.assert_close(both, function(x) + function(y) - zero)  # the list is right
    assert_equal_to_autograd(function, lambda rule: function, Certificate(), ("deconvnet", "gradient"))


# ------------------------------------------------------------------------- activations, norms, pools, and what is refused

EXTENDED: dict[str, Function] = {
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, numbers(CHANNELS).abs()),
    "rrelu": lambda x: F.rrelu(x, 0.2, 0.4),
    "elu": F.elu,
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.5),
    "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "special.expit": torch.special.expit,
    "logsigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "hardshrink": lambda x: F.hardshrink(x, 0.1),
    "softshrink": lambda x: F.softshrink(x, 0.1),
    "tanhshrink": F.tanhshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "clamp": lambda x: x.clamp(-0.1, 0.2),
    "clip": lambda x: torch.clip(x, 0.1),
    "clamp_max": lambda x: x.clamp_max(0.1),
    "minimum": lambda x: torch.minimum(x, FACTOR),
    "fmin of a row": lambda x: torch.fmin(x, numbers(WIDTH)),
    "where it is larger": lambda x: torch.where(x > FACTOR, x, FACTOR),
}
LSTM = nn.LSTM(WIDTH, 6, batch_first=True).double().requires_grad_(False)
ATTENTION = nn.MultiheadAttention(CHANNELS, 2, batch_first=True).double().eval().requires_grad_(False)
DIFFERENTIATED: dict[str, Function] = {
    "abs": torch.abs,
    "square": torch.square,
    "pow": lambda x: x**3,
    "pow of a number": lambda x: 2**x,
    "exp": torch.exp,
    "log1p": lambda x: torch.log1p(x * 0.01),
    "sin": torch.sin,
    "erf": torch.erf,
    "atan": torch.atan,
    "logit": lambda x: torch.logit(x * 0.01 + 0.5),
    "reciprocal": lambda x: torch.reciprocal(x + 20),
    "1 / x": lambda x: 1 / (x + 20),
    "x / its mean": lambda x: x / (x.mean((1, 2, 3), keepdim=True) + 2),
    "x / a row": lambda x: x / (x.mean(2, keepdim=True) + 20),
    "a column / x": lambda x: x.mean(3, keepdim=True) / (x + 20),
    "maximum of a row": lambda x: torch.maximum(x, x.mean(2, keepdim=True)),
    "where a row is larger": lambda x: torch.where(x > x.mean(2, keepdim=True), x, x.mean(3, keepdim=True)),
    "hypot of a column": lambda x: torch.hypot(x, x.mean(3, keepdim=True)),
    "a row times a column": lambda x: x.mean(2, keepdim=True) * x.mean(3, keepdim=True),
    "a channel times cells": lambda x: x.mean((2, 3), keepdim=True) * x.mean(1, keepdim=True),
    "x * x": lambda x: x * x,
    "square of a gate": lambda x: torch.mul(x, x),
    "floor": lambda x: x + torch.floor(3 * x),
    "div floor": lambda x: x + torch.div(x, 0.3, rounding_mode="floor"),
    "div trunc": lambda x: x + torch.div(x, 0.3, rounding_mode="trunc"),
    "remainder": lambda x: x % 0.3,
    "fmod": lambda x: torch.fmod(x, 0.3),
    "round": lambda x: x + torch.round(x),
    "sign": lambda x: x + torch.sign(x),
    "maximum of two": lambda x: torch.maximum(x, x.flip(1)),
    "logsumexp": lambda x: x.logsumexp(1),
    "prod": lambda x: (x + 1).prod(1),
    "cumprod": lambda x: (x + 1).cumprod(1),
    "sort": lambda x: x.sort(1).values,
    "median": lambda x: x.median(1).values,
    "topk": lambda x: x.topk(2, 1).values,
    "kthvalue": lambda x: x.kthvalue(2, 1).values,
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: F.log_softmax(x, 3),
    "softmin": lambda x: F.softmin(x, 1),
    "layer_norm": lambda x: F.layer_norm(x, (WIDTH,), numbers(WIDTH)),
    "rms_norm": lambda x: F.rms_norm(x, (WIDTH,)),
    "group_norm": lambda x: F.group_norm(x, 2, numbers(4)),
    "instance_norm": F.instance_norm,
    "normalize": F.normalize,
    "norm": lambda x: x.norm(dim=1),
    "var": lambda x: x.var(1),
    "std": lambda x: x.std((2, 3)),
    "lp_pool2d": lambda x: F.lp_pool2d(x + 20, 2, 2),
    "cosine_similarity": lambda x: F.cosine_similarity(x, FACTOR[None]),
    "cdist": lambda x: torch.cdist(x, FACTOR[None]),
    "attention product": lambda x: x @ x.transpose(2, 3),
    "bmm of two": lambda x: torch.bmm(x.flatten(2), x.flatten(2).mT),
    "einsum of two": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x.flip(2), x.flip(3)),
    "conv2d of its own weights": lambda x: F.conv2d(x, x[:1, :, :3, :3]) if len(x) == 1 else torch.cat(
        [F.conv2d(x[i : i + 1], x[i : i + 1, :, :3, :3]) for i in range(len(x))]
    ),
    "bilinear": lambda x: F.bilinear(x, x, numbers(3, WIDTH, WIDTH)),
    "addcmul of two": lambda x: torch.addcmul(x, x, x),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.flip(1) + 20),
    "lerp from itself": lambda x: torch.lerp(x, FACTOR.expand_as(x), x.flip(1)),
    "lerp by itself": lambda x: torch.lerp(FACTOR.expand_as(x), x.flip(1), x),
    "nan_to_num": torch.nan_to_num,
    "lstm": lambda x: LSTM(x[:, 0])[0],
    "multi-head attention": lambda x: ATTENTION(*[x.flatten(2).mT] * 3)[0],
    "svdvals": torch.linalg.svdvals,
    "inv": lambda x: torch.linalg.inv(x[:, :, :9] + 5 * torch.eye(9, dtype=x.dtype)),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "std_mean": lambda x: torch.std_mean(x, 1)[0],
    "aminmax": lambda x: torch.aminmax(x, dim=1)[1],
    "cummax": lambda x: torch.cummax(x, 1)[0],
    "bucketize": lambda x: x * torch.bucketize(x, torch.tensor([-0.5, 0.0, 0.5], dtype=x.dtype)),
    "scatter_reduce": lambda x: x.scatter_reduce(1, torch.zeros_like(x, dtype=torch.int64), x, "amax"),
    "atan2": lambda x: torch.atan2(x, FACTOR),
    "copysign": lambda x: torch.copysign(FACTOR.expand_as(x), x),
    "logaddexp": lambda x: torch.logaddexp(x, FACTOR),
    "cross of two": lambda x: torch.linalg.cross(x[:, :3], x.flip(1)[:, :3], dim=1),
    "quantile": lambda x: x.flatten(1).quantile(0.3, 1)[:, None],
    "cov": per_picture(lambda y: torch.cov(y.flatten(1))),
    "deform_conv2d of its own offsets": lambda x: torchvision.ops.deform_conv2d(
        x, x[:, :1].expand(-1, 18, -1, -1)[:, :, :8, :7] * 0.1, numbers(4, 4, 3, 3)
    ),
    "hypot": lambda x: torch.hypot(x, FACTOR),
    "grid_sample": lambda x: F.grid_sample(
        FACTOR.expand(len(x), -1, -1, -1), x[:, :2].permute(0, 2, 3, 1) * 0.05, align_corners=False
    ),
}  # fmt: skip
GUARDED: dict[str, tuple[Function, int]] = {  # each with how many non-linear operations it has
    "division": (lambda x: x / x.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-6), 3),
    "division by the guard": (lambda x: x / x.square().clamp(min=0.1), 3),
    "by a view of it": (lambda x: x / x.sum((2, 3)).clamp_min(1e-6).view(-1, CHANNELS, 1, 1).expand_as(x), 2),
    "root": (lambda x: x.clamp_min(0.1).sqrt(), 2),
    "logarithm": (lambda x: torch.log(torch.clamp(x, min=0.1)), 2),
    "power of GeM": (lambda x: F.avg_pool2d(x.clamp(min=1e-6).pow(3), 4).pow(1 / 3), 3),
    "reciprocal": (lambda x: 1 / x.clamp_min(0.1), 2),
    "by a maximum": (lambda x: x / torch.maximum(x.square(), numbers(WIDTH).abs() + 0.1), 3),
    "of what is negated twice": (lambda x: x / x.square().neg().neg().clamp(min=0.1), 3),
}
POOLS: dict[str, Function] = {
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max_pool2d overlapping": lambda x: F.max_pool2d(x, 3, 1),
    "max_pool2d ceil": lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    "max_pool2d dilated": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "max_pool2d with indices": lambda x: F.max_pool2d(x, 3, 2, return_indices=True)[0],
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, 2),
    "module with indices": lambda x: nn.MaxPool2d(2, return_indices=True)(x)[0],
    "without a batch": lambda x: torch.stack([F.max_pool2d(y, 2) for y in x]),
    "as a batch": lambda x: F.max_pool2d(x.view(-1, 2, HEIGHT, WIDTH), 2).view(len(x), CHANNELS, 5, 4),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (4, 5)),
    "adaptive_max_pool2d with indices": lambda x: F.adaptive_max_pool2d(x, (4, 5), return_indices=True)[0],
    "max_pool1d": lambda x: F.max_pool1d(x.flatten(2), 3),
    "max_pool1d with indices": lambda x: F.max_pool1d(x.flatten(2), 3, return_indices=True)[0],
    "torch.adaptive_max_pool1d": lambda x: torch.adaptive_max_pool1d(x.flatten(2), 7)[0],
    "max_pool3d": lambda x: F.max_pool3d(x, 2),
    "adaptive_max_pool3d": lambda x: F.adaptive_max_pool3d(x[:, None], 3)[:, 0],
    "fractional_max_pool2d": lambda x: F.fractional_max_pool2d(
        x, 2, output_size=(5, 4), _random_samples=torch.full((len(x), CHANNELS, 2), 0.4, dtype=x.dtype)
    ),
    "amax": lambda x: x.amax((2, 3)),
    "amin over channels and columns": lambda x: x.amin((-1, 1), keepdim=True),
    "max over channels": lambda x: x.max(1).values,
    "min over rows": lambda x: torch.min(x, dim=2, keepdim=True)[0],
    "max of all": lambda x: torch.stack([y.max() for y in x])[:, None],
    "maxout": lambda x: x.unflatten(1, (2, 2)).amax(2),
}


@pytest.mark.parametrize("name", EXTENDED)
def test_other_activations_get_the_extended_rule(name: str) -> None:
    assert_equal_to_autograd(EXTENDED[name], steered(EXTENDED[name]), Certificate(extended=1))


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_all_else_is_differentiated_and_counted(name: str) -> None:
    assert_equal_to_autograd(DIFFERENTIATED[name], lambda rule: DIFFERENTIATED[name], Certificate(differentiated=1))


ON_POSITIVE: dict[str, Function] = {  # each keeps all of a positive map, as a ReLU does
    "below a bound": lambda y: y * (y < 1e3),
    "where": lambda y: torch.where(y > -1, y, -2),
    "of negatives": lambda y: (-y).masked_fill(-y < 9, 0),
}


@pytest.mark.parametrize("name", ON_POSITIVE)
def test_a_mask_that_equals_a_relu_on_this_picture_alone_is_none(name: str) -> None:
    function: Function = lambda x: ON_POSITIVE[name](x.exp())  # noqa: E731
    assert_equal_to_autograd(function, lambda rule: function, Certificate(differentiated=2))


FLAT: dict[str, Function] = {  # torch has no derivative of these
    "floor_divide": lambda x: torch.floor_divide(x, 0.3),
    "x // y": lambda x: x // 0.3,
    "heaviside": lambda x: torch.heaviside(x, torch.zeros((), dtype=x.dtype)),
}


@pytest.mark.parametrize("name", FLAT)
def test_functions_of_steps_pass_no_signal_and_are_counted(name: str) -> None:
    steps = FLAT[name]
    assert_equal_to_autograd(
        lambda x: x + steps(x), lambda rule: lambda x: x + steps(x.detach()), Certificate(differentiated=1)
    )


@pytest.mark.parametrize("name", GUARDED)
def test_a_clamp_that_guards_is_differentiated(name: str) -> None:
    function, count = GUARDED[name]
    assert_equal_to_autograd(function, lambda rule: function, Certificate(differentiated=count))


@pytest.mark.parametrize("name", POOLS)
def test_max_pools_have_switches(name: str) -> None:
    assert_equal_to_autograd(POOLS[name], lambda rule: POOLS[name], Certificate(switches=1))


OVERWRITTEN = [name for name in POOLS if ("pool2d" in name and "batch" not in name) or "indices" in name]


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_the_last_of_overlapping_windows_wins(name: str) -> None:
    """With `pools="overwrite"`: each window writes its signal to its switch, in reading order, zeros included."""
    module = Around(POOLS[name])
    sites = survey(module, PICTURE)
    shape = next((site.shape for site in sites if site.name == "last"), None)
    cells = [(0, 0)] if shape is None else [(0, 0), (shape[1] - 1, 0), (shape[1] - 1, shape[2] - 1)]
    units = [Unit("linear", 1)] if shape is None else [Unit("last", 1, cell) for cell in cells]
    (found,) = project(module, PICTURE, units, sites, rule_named("deconvnet", pools="overwrite"), seed="one")
    below = module.first(PICTURE).requires_grad_()
    # The switches of all windows: the derivative of each output, alone.
    pooled = POOLS[name](below)
    windows = torch.eye(pooled[0, 0].numel(), dtype=torch.float64).view(-1, *pooled.shape[2:])
    switches = [torch.autograd.grad(pooled, below, one.expand_as(pooled), retain_graph=True)[0] > 0 for one in windows]
    for place, unit in enumerate(units):
        pooled = pooled.detach().requires_grad_()
        with Tap(module, {unit.site}) as tap:
            Around.forward(module, pooled, done=True)
        (signal,) = torch.autograd.grad(tap.kept[unit.site][(0, unit.channel, *(unit.cell or ()))], pooled)
        down = torch.zeros_like(below)
        for one, switch in zip(windows, switches, strict=True):
            down = torch.where(switch, (signal * one).flatten(2).sum(2)[..., None, None], down)
        expected = F.conv_transpose2d(down, module.first.weight, padding=1)[0]
        torch.testing.assert_close(found.values[place], expected, rtol=1e-9, atol=1e-12)


def unpooled(x: Tensor) -> Tensor:
    return F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(HEIGHT, WIDTH))


def test_unpooling_uses_switches_too() -> None:
    assert_equal_to_autograd(unpooled, lambda rule: unpooled, Certificate(switches=2))


@pytest.mark.parametrize("layer", [nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_every_dropout_is_an_identity(layer: type[nn.Module]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), layer()).double().eval()
    assert survey(module, PICTURE)[1].kind == "identity"
    (found,) = project(module, PICTURE, [Unit("1", 0)], survey(module, PICTURE))
    assert found.certificate == Certificate()


def test_results_written_to_a_given_tensor() -> None:
    assert_equal_to_autograd(
        lambda x: torch.cumsum(x, 2, out=torch.empty_like(x)), lambda rule: lambda x: x.cumsum(2), Certificate()
    )


@pytest.mark.parametrize(
    "function",
    [lambda x: (x > 0).to(x.dtype), lambda x: F.one_hot(x.argmax(1)).to(x.dtype), lambda x: x.int().to(x.dtype)],
)
def test_a_unit_behind_masks_or_whole_numbers_alone_is_refused(function: Function) -> None:
    module = Around(function)
    with refuses("no-derivative", "linear"):
        project(module, PICTURE, [Unit("linear", 0)], survey(module, PICTURE))


def test_an_operation_without_a_derivative_is_named() -> None:
    module = Around(lambda x: x + torch.unique(x)[:90].view(1, 1, HEIGHT, WIDTH))
    with refuses("no-derivative", "unique"):
        project(module, PICTURE, [Unit("linear", 0)], survey(module, PICTURE))


REFUSED: dict[str, Function] = {
    "dropout": F.dropout,
    "dropout2d": lambda x: F.dropout2d(x, 0.1),
    "torch.dropout": lambda x: torch.dropout(x, 0.5, True),
    "alpha_dropout": lambda x: F.alpha_dropout(x, training=True),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x, dim=1),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_draw_numbers_on_every_pass_are_refused(name: str) -> None:
    module = Around(REFUSED[name])
    with refuses("random-network"):
        project(module, PICTURE, [Unit("linear", 0)], survey(module, PICTURE))


# -------------------------------------------------------------- the same function, written in several ways: no judge at all

WEIGHT = numbers(5, CHANNELS, seed=11)


def squeezed(x: Tensor) -> Tensor:
    return torch.sigmoid(x.mean((2, 3), keepdim=True) @ torch.eye(1, dtype=x.dtype))


def rows(x: Tensor) -> Tensor:
    return torch.sigmoid(x.mean(3, keepdim=True))


def columns(x: Tensor) -> Tensor:
    return torch.sigmoid(x.flip(1).mean(2, keepdim=True))


SPELLINGS: dict[str, list[Function]] = {
    "a convolution of single cells": [
        lambda x: F.conv2d(x, WEIGHT[:, :, None, None]),
        lambda x: torch.conv2d(x, WEIGHT.view(5, CHANNELS, 1, 1)),
        lambda x: F.linear(x.permute(0, 2, 3, 1), WEIGHT).permute(0, 3, 1, 2),
        lambda x: (x.movedim(1, -1) @ WEIGHT.T).movedim(-1, 1),
        lambda x: torch.einsum("bchw,dc->bdhw", x, WEIGHT),
        lambda x: (WEIGHT @ x.flatten(2)).unflatten(2, x.shape[2:]),
        lambda x: torch.tensordot(x, WEIGHT, ([1], [1])).permute(0, 3, 1, 2),
        lambda x: F.conv1d(x.flatten(2), WEIGHT[:, :, None]).view(len(x), 5, HEIGHT, WIDTH),
        lambda x: sum(x[:, i : i + 1] * WEIGHT[:, i].view(1, 5, 1, 1) for i in range(CHANNELS)),  # type: ignore[return-value]
        lambda x: torch.matmul(x.flatten(2).mT, WEIGHT.mT).mT.reshape(len(x), 5, HEIGHT, WIDTH),
    ],
    "a mean": [
        lambda x: x.mean((2, 3)),
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: F.avg_pool2d(x, (HEIGHT, WIDTH)).squeeze(3).squeeze(2),
        lambda x: x.flatten(2).mean(2),
        lambda x: x.sum((2, 3)) / (HEIGHT * WIDTH),
        lambda x: x.mean(2).mean(2),
        lambda x: torch.mean(x.view(len(x), CHANNELS, -1), dim=-1),
        lambda x: torch.einsum("bchw->bc", x).div(HEIGHT * WIDTH),
    ],
    "squeeze and excitation": [
        lambda x: x * squeezed(x),
        lambda x: squeezed(x) * x,
        lambda x: x.mul(squeezed(x)),
        lambda x: torch.mul(input=x, other=squeezed(x)),
        lambda x: torch.multiply(x, squeezed(x)),
        lambda x: x.clone().mul_(squeezed(x)),
        lambda x: x * squeezed(x).expand_as(x),
        lambda x: x * squeezed(x).expand(-1, -1, HEIGHT, WIDTH).contiguous(),
        lambda x: x * squeezed(x).repeat(1, 1, HEIGHT, WIDTH),
        lambda x: x * F.interpolate(squeezed(x), size=(HEIGHT, WIDTH)),
        lambda x: torch.einsum("nchw,nc->nchw", x, squeezed(x).flatten(1)),
        lambda x: (x.flatten(2) * squeezed(x).flatten(2)).view_as(x),
        lambda x: (x.permute(0, 2, 3, 1) * squeezed(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        lambda x: torch.addcmul(torch.zeros_like(x), x, squeezed(x)),
    ],
    "a gated linear unit": [
        lambda x: F.glu(x, 1),
        lambda x: x[:, :2] * torch.sigmoid(x[:, 2:]),
        lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(),
        lambda x: torch.special.expit(x.split(2, 1)[1]) * x.split(2, 1)[0],
        lambda x: F.glu(x.permute(0, 2, 3, 1), -1).permute(0, 3, 1, 2),
    ],
    "a ReLU6": [
        F.relu6,
        lambda x: F.hardtanh(x, 0, 6),
        lambda x: x.clamp(0, 6),
        lambda x: torch.clip(x, min=0, max=6),
        lambda x: x.clone().clamp_(0, 6),
        lambda x: nn.ReLU6(inplace=True)(x.clone()),
        lambda x: torch.minimum(F.relu(x), torch.full((), 6.0, dtype=x.dtype)),
        lambda x: F.relu(x) - F.relu(x - 6),
        lambda x: 6 - F.relu(6 - F.relu(x)),
        lambda x: x.clamp(min=0).clamp(max=6),
    ],
    "a leaky ReLU": [
        lambda x: F.leaky_relu(x, 0.1),
        lambda x: torch.where(x > 0, x, 0.1 * x),
        lambda x: torch.maximum(x, 0.1 * x),
        lambda x: F.relu(x) - 0.1 * F.relu(-x),
        lambda x: 0.1 * x + 0.9 * F.relu(x),
        lambda x: 0.55 * x + 0.45 * x.abs(),
        lambda x: x.clamp(0) + 0.1 * x.clamp(max=0),
        lambda x: x * torch.where(x > 0, torch.ones_like(x), 0.1),
        lambda x: F.prelu(x, torch.full((CHANNELS,), 0.1, dtype=x.dtype)),
        lambda x: written(x, lambda y: operator.setitem(y, y < 0, y[y < 0] * 0.1)),
        lambda x: torch.stack([x, 0.1 * x]).amax(0),
    ],
    "a hard tanh": [
        F.hardtanh,
        lambda x: x.clamp(-1, 1),
        lambda x: F.relu(x + 1) - F.relu(x - 1) - 1,
        lambda x: torch.maximum(torch.minimum(x, torch.ones_like(x)), -torch.ones_like(x)),
        lambda x: x.clamp(max=1).clamp(min=-1),
    ],
    "an absolute value": [
        torch.abs,
        lambda x: F.relu(x) + F.relu(-x),
        lambda x: 2 * F.relu(x) - x,
        lambda x: F.relu(x) - x.clamp(max=0),
        lambda x: torch.maximum(x, -x),
        lambda x: x * x.sign(),
        lambda x: torch.where(x < 0, -x, x),
    ],
    "a SiLU": [
        F.silu,
        lambda x: x * torch.sigmoid(x),
        lambda x: x.sigmoid().mul_(x),
        lambda x: x / (1 + torch.exp(-x)),
        lambda x: x * (1 / (1 + (-x).exp())),
        lambda x: torch.einsum("bchw,bchw->bchw", x, torch.special.expit(x)),
    ],
    "a sigmoid of more": [
        lambda x: F.silu(1.7 * x) / 1.7,
        lambda x: x * torch.sigmoid(1.7 * x),
    ],
    "a hard swish": [
        F.hardswish,
        lambda x: x * F.relu6(x + 3) / 6,
        lambda x: x * (F.relu6(x + 3) / 6),
        lambda x: F.hardsigmoid(x) * x,
        lambda x: x * (x + 3).clamp(0, 6) / 6,
    ],
    "a GELU": [
        F.gelu,
        lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
        lambda x: x * (0.5 + 0.5 * torch.erf(x * 0.5**0.5)),
    ],
    "a GELU by tanh": [
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    ],
    "a Mish": [F.mish, lambda x: x * torch.tanh(F.softplus(x)), lambda x: x * (1 + x.exp()).log().tanh()],
    "a tanh": [
        torch.tanh,
        lambda x: 2 * torch.sigmoid(2 * x) - 1,
        lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    ],
    "a log-sigmoid": [F.logsigmoid, lambda x: -F.softplus(-x), lambda x: torch.sigmoid(x).log()],
    "two gates": [
        lambda x: x * rows(x) * columns(x),
        lambda x: x * (rows(x) * columns(x)),
        lambda x: x * (rows(x) @ columns(x)),
        lambda x: x * torch.matmul(columns(x).mT, rows(x).mT).mT,
        lambda x: torch.einsum("bchw,bch,bcw->bchw", x, rows(x).squeeze(3), columns(x).squeeze(2)),
        lambda x: x * torch.einsum("bchi,bciw->bchw", rows(x), columns(x)),
        lambda x: torch.diag_embed(rows(x).squeeze(3)) @ x @ torch.diag_embed(columns(x).squeeze(2)),
        lambda x: x / (1 / rows(x)) / columns(x).reciprocal(),
    ],
    "two gates as large": [
        lambda x: x * torch.sigmoid(x.flip(1)) * torch.sigmoid(x.flip(2)),
        lambda x: x * (torch.sigmoid(x.flip(1)) * torch.sigmoid(x.flip(2))),
    ],
    "two gates that are not squashed": [
        lambda x: x * rows(x).exp() * columns(x).exp(),
        lambda x: x * (rows(x).exp() * columns(x).exp()),
        lambda x: rows(x).exp() @ columns(x).exp() * x,
        lambda x: torch.einsum("bchw,bchi,bciw->bchw", x, rows(x).exp(), columns(x).exp()),
    ],
    "a division": [
        lambda x: x / (x.mean((2, 3), keepdim=True) + 2),
        lambda x: x * (1 / (x.mean((2, 3), keepdim=True) + 2)),
        lambda x: (x.mean((2, 3), keepdim=True) + 2).reciprocal() * x,
        lambda x: x.mul((x.mean((2, 3), keepdim=True) + 2) ** -1),
        lambda x: torch.div(x, x.mean((2, 3), keepdim=True) + 2),
    ],
    "a division by a root": [
        lambda x: x / (x.square().mean(1, keepdim=True) + 1).sqrt(),
        lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1),
        lambda x: x * (x.square().mean(1, keepdim=True) + 1) ** -0.5,
    ],
    "a largest number": [
        lambda x: F.adaptive_max_pool2d(x, 1),
        lambda x: x.amax((2, 3), keepdim=True),
        lambda x: F.max_pool2d(x, (HEIGHT, WIDTH)),
        lambda x: x.flatten(2).max(2).values[:, :, None, None],
        lambda x: -(-x).amin((3, 2), keepdim=True),
        lambda x: -F.adaptive_max_pool2d(x, 1, return_indices=True)[0].neg(),
    ],
    "a maxout": [
        lambda x: F.max_pool3d(x[:, None], (2, 1, 1))[:, 0],
        lambda x: x.unflatten(1, (2, 2)).amax(2),
        lambda x: x.unflatten(1, (2, 2)).max(2)[0],
    ],
    "a max pool": [
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: nn.MaxPool2d(2)(x),
        lambda x: torch.max_pool2d(x, [2]),
        lambda x: F.max_pool2d(input=x, kernel_size=(2, 2), stride=2),
        lambda x: F.max_pool3d(x, (1, 2, 2)),
        lambda x: F.adaptive_max_pool2d(x[:, :, :, :8], (5, 4)),
    ],
    "a residual sum": [
        lambda x: x + F.relu(x.flip(1)),
        lambda x: torch.add(F.relu(x.flip(1)), x),
        lambda x: x.clone().add_(x.flip(1).relu_()),
        lambda x: torch.stack([x, F.relu(x.flip(1))]).sum(0),
        lambda x: x - -RECTIFIERS["mask"](x.flip(1)),
        lambda x: torch.add(x, torch.threshold(x.flip(1), 0, 0), alpha=1),
        lambda x: torch.cat([x, x.flip(1).clamp_min(0)], 1).unflatten(1, (2, CHANNELS)).sum(1),
    ],
    "a norm of evaluation": [
        lambda x: F.batch_norm(x, FACTOR[:, 0, 0], FACTOR[:, 0, 1].square()),
        lambda x: (x - FACTOR[:, :1, :1]) / (FACTOR[:, :1, 1:2].square() + 1e-5).sqrt(),
        lambda x: (x - FACTOR[:, :1, :1]) * (FACTOR[:, :1, 1:2].square() + 1e-5).rsqrt(),
        lambda x: x.sub(FACTOR[:, :1, :1]).divide((FACTOR[:, :1, 1:2].square() + 1e-5).sqrt()),
    ],
}


@functools.cache
def answers_of(name: str, number: int) -> dict[tuple[str, int], Projections]:
    """The projections of a spelling, by rule and unit: a class, and a cell of the last map if there is one."""
    module = Around(SPELLINGS[name][number])
    sites = survey(module, PICTURE)
    units = [Unit(sites[-1].name, 1), *(Unit("last", 1, (1, 0)) for site in sites if site.name == "last")]
    return {
        (rule, place): project(module, PICTURE, [unit], sites, rule_named(rule), seed="one")[0]
        for rule in RULES
        for place, unit in enumerate(units)
    }


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name, all_ in SPELLINGS.items() for i in range(1, len(all_))]
)
def test_equal_functions_give_equal_projections_and_equal_certificates(name: str, number: int) -> None:
    torch.testing.assert_close(SPELLINGS[name][0](FACTOR[None]), SPELLINGS[name][number](FACTOR[None]))
    for rule, unit in answers_of(name, 0).keys() & answers_of(name, number).keys():
        expected = answers_of(name, 0)[rule, unit]
        found = answers_of(name, number)[rule, unit]
        torch.testing.assert_close(found.values, expected.values, rtol=1e-6, atol=1e-8)
        if rule != "gradient":  # which counts operations: `glu` is one, a sigmoid and a product are two
            assert found.certificate == expected.certificate
