"""Finds the rectifiers and the guards among the recorded operations of a pass: by what they compute, not by name.

`x * (x > 0)`, `torch.where(x > 0, x, 0)`, `x[x < 0] = 0` and `(x + x.abs()) / 2` are several operations that are a ReLU
together. A clamp that keeps a divisor from zero is no rectifier.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.operations import CLAMPS, IDENTITIES, LINEAR
from vizapp.engine.trace.recording import Step, ValueRef, bind

# What a rectifier may be written with: functions of each number by itself.
_POINTWISE = CLAMPS | IDENTITIES | frozenset({
    "mul", "add", "sub", "truediv", "neg", "abs", "where", "masked_fill", "setitem", "index_put", "maximum", "minimum", "max",
    "min", "fmax", "fmin", "gt", "ge", "lt", "le", "eq", "ne", "sign", "sgn", "signbit", "heaviside", "logical_not",
    "logical_and", "logical_or", "bitwise_not", "invert", "square", "sqrt", "copysign", "bool", "int", "long", "getattr",
    "addcmul", "lerp", "greater", "greater_equal", "less", "less_equal", "not_equal", "masked_scatter", "clamp_max", "pow",
})  # fmt: skip
_DEPTH = 8  # operations that one rectifier is written with, at most
_GUARDED = frozenset({"sqrt", "rsqrt", "log", "log2", "log10", "log1p", "reciprocal", "rdiv", "pow"})


def is_rectifier(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a function of each number by itself, whose other arguments are no tensors, is a ReLU."""
    if sum(1 for _ in tensors_in((args, kwargs))) != 1:
        return False
    (given,) = tensors_in((args, kwargs))
    probe = torch.tensor([-1e4, -1.0, -1e-3, 0.0, 1e-3, 1.0, 1e4], dtype=given.dtype, device=given.device)
    swapped = [[probe.clone() if item is given else item for item in items] for items in (args, kwargs.values())]
    return torch.equal(function(*swapped[0], **dict(zip(kwargs, swapped[1], strict=True))), probe.clamp_min(0))


def is_clamp_without_bounds(operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the bounds of a clamp are infinite, so that it passes all numbers."""
    bounds = [
        bound for bound in (*args[1:], *(kwargs[name] for name in _BOUNDS if name in kwargs)) if bound is not None
    ]
    return operation in _CLAMPS and all(bool(torch.as_tensor(bound).isinf().all()) for bound in bounds)


_CLAMPS = frozenset({"clamp", "clamp_min", "clamp_max", "hardtanh"})
_BOUNDS = ("min", "max", "min_val", "max_val")


def combined_rectifiers(steps: list[Step]) -> Iterator[tuple[Step, int, Tensor]]:
    """The steps that end a ReLU written as several operations, with the value that it rectifies: its number and a copy."""
    makers = {value: step for step in steps for value in step.outputs}
    for last in steps:
        if len(last.outputs) == 1 and last.ctx.get("family") in {"other", "activation", "slope", "linear"}:
            found = _rectified_by(last, makers)
            if found is not None:
                yield last, *found


def _rectified_by(last: Step, makers: dict[int, Step]) -> tuple[int, Tensor] | None:
    """The value of which the step's output is the ReLU: the one that all operations on the way to the step start from."""
    group, sources, kept = [last], set(last.inputs), dict[int, Tensor]()
    while _name(group[-1]) in _POINTWISE and group[-1].ctx.get("family") != "rectifier" and len(group) <= _DEPTH:
        step = group[-1]
        kept.update(zip(step.inputs, step.ctx.get("at", ()), strict=False))
        copied = kept.get(step.outputs[0]) if step.ctx.get("family") == "identity" else None
        if copied is not None and copied.dtype == step.dtypes[0]:
            kept[step.inputs[0]] = copied
        if len(sources) == 1:
            (root,) = sources
            if root in kept and kept[root].is_floating_point() and _equals_relu(group[::-1], root, kept[root]):
                return root, kept[root]
        newest = max(sources, default=0)
        if newest not in makers:
            return None
        group.append(makers[newest])
        sources = (sources - {newest}) | set(makers[newest].inputs)
    return None


def _equals_relu(group: list[Step], root: int, at: Tensor) -> bool:
    """Whether the operations give the ReLU of the value, of this pass's numbers and of others of both signs in each place."""
    spread = torch.linspace(-1, 1, at.numel() + 2, dtype=at.dtype, device=at.device)[1:-1].view(at.shape) ** 3 * 1000
    return all(torch.equal(_replay(group, root, probe), probe.clamp_min(0)) for probe in (spread, -spread, at))


def _replay(group: list[Step], root: int, probe: Tensor) -> Tensor:
    values = {root: probe}
    for step in group:
        copies = {value: values[value].clone() for value in step.inputs}  # for functions that work in place
        args, kwargs = bind(step.args, copies), bind(step.kwargs, copies)
        with torch.no_grad():
            output = step.function(*args, **kwargs)
        values.update(zip(step.outputs, tensors_in(args[0] if step.operation == "setitem" else output), strict=True))
    return values[group[-1].outputs[0]]


def guards(steps: list[Step]) -> Iterator[Step]:
    """The clamps whose results are used as divisors, or under a root or logarithm, alone."""
    users: dict[int, list[Step]] = defaultdict(list)
    for step in steps:
        for value in set(step.inputs):
            users[value].append(step)

    def guarded(value: int) -> bool:
        return bool(users[value]) and all(_divides(step, value) or passes_guard(step) for step in users[value])

    def passes_guard(step: Step) -> bool:
        return len(step.inputs) == 1 and _name(step) in LINEAR | IDENTITIES and all(map(guarded, step.outputs))

    return (step for step in steps if _name(step) in CLAMPS and guarded(step.outputs[0]))


def _divides(step: Step, value: int) -> bool:
    places = [place for place, item in enumerate(step.args) if isinstance(item, ValueRef) and item.value == value]
    return (_name(step) == "truediv" and places == [1]) or (_name(step) in _GUARDED and places == [0])


def _name(step: Step) -> str:
    return step.operation.rstrip("_")
