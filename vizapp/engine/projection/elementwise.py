"""Finds the function of each number that several operations of a pass compute together: by what they compute, not by name.

`x * (x > 0)`, `torch.where(x > 0, x, 0)`, `x + F.relu(-x)` and `(x + x.abs()) / 2` are a ReLU. `x * torch.sigmoid(x)` is a
SiLU, and `F.relu(x) - F.relu(-x)` changes nothing. A clamp that keeps a divisor from zero is no rectifier.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.operations import ACTIVATIONS, CLAMPS, IDENTITIES, LINEAR
from vizapp.engine.trace.recording import Call, Step, ValueRef, bind, value_refs

# What such functions may be written with. The second set needs tensors of the shape of the pass.
_POINTWISE = ACTIVATIONS | IDENTITIES | frozenset({
    "mul", "add", "sub", "rsub", "truediv", "rdiv", "reciprocal", "neg", "abs", "where", "masked_fill", "setitem", "index_put",
    "maximum", "minimum", "fmax", "fmin", "gt", "ge", "lt", "le", "eq", "ne", "sign", "sgn", "signbit", "heaviside", "and",
    "or", "logical_not", "logical_and", "logical_or", "bitwise_not", "bitwise_and", "bitwise_or", "invert", "square", "sqrt",
    "copysign", "bool", "int", "long", "getattr", "addcmul", "lerp", "greater", "greater_equal", "less", "less_equal",
    "not_equal", "pow", "exp", "log1p", "log", "logaddexp", "erf",
})  # fmt: skip
_SHAPED = frozenset({
    "max", "min", "amax", "amin", "stack", "cat", "unsqueeze", "squeeze", "getitem", "einsum", "masked_scatter",
})  # fmt: skip
_MEMBERS = _POINTWISE | _SHAPED
_AFFINE = frozenset(
    {"add", "sub", "rsub", "neg", "stack", "cat", "unsqueeze", "squeeze", "getitem", "getattr", *IDENTITIES}
)
# Linear, unless two of their arguments depend on the picture.
_PRODUCTS = frozenset(
    {"mul", "where", "masked_fill", "setitem", "index_put", "masked_scatter", "einsum", "addcmul", "lerp"}
)
_DEPTH = 12  # operations that one function is written with, at most
_LARGE = 1e4
_GUARDED = frozenset({"sqrt", "rsqrt", "log", "log2", "log10", "log1p", "reciprocal", "rdiv", "pow"})

Kind = Literal["identity", "relu", "negated relu", "absolute", "clamp", "activation", "squashing", "unknown"]
Function = Callable[[Tensor], Tensor]
_EXACT: tuple[tuple[Kind, Function], ...] = (
    ("identity", lambda x: x),
    ("relu", lambda x: x.clamp_min(0)),
    ("negated relu", lambda x: x.clamp_max(0)),
    ("absolute", torch.abs),
)
_SMOOTH: tuple[tuple[Kind, Function], ...] = (
    ("squashing", torch.sigmoid),
    ("squashing", F.hardsigmoid),
    *(("activation", function) for function in (
        torch.tanh, F.silu, F.gelu, partial(F.gelu, approximate="tanh"), F.hardswish, F.softplus, F.logsigmoid, F.mish, F.elu,
        F.selu, F.softsign, F.tanhshrink,
    )),
)  # fmt: skip
# Of these, no further operation makes another kind.
_ALONE = ACTIVATIONS - CLAMPS - {"hardtanh", "leaky_relu", "prelu", "elu", "celu"}


class Elementwise(NamedTuple):
    """A function of each number of value `root`."""

    kind: Kind
    root: int


def elementwise(call: Call) -> Elementwise | None:
    """The function of each number that a call computes together with the operations before it.

    It reads the earliest value of which it is a known kind of function. Its kind is "unknown" if it is of none; the answer is
    None if several values are read or all operations are affine.
    """
    if call.operation in _ALONE or call.operation not in _MEMBERS:
        return None
    group, sources, found, scaled = [call.step], set(call.step.reads), None, False
    while len(group) <= _DEPTH and _name(group[-1]) in _MEMBERS:
        newest = max(sources, default=-1)
        maker = call.recording.makers.get(newest)
        if len(sources) == 1 and any(map(_bends, group)):
            kind = _kind(group[::-1], newest, call)
            if kind is not None and (found is None or kind != "unknown"):
                found = Elementwise(kind, newest)
        elif len(sources) == 1 and maker is not None and maker.ctx.get("family") in {"rectifier", "activation"}:
            if _kind(group[::-1], newest, call) == "identity":  # a copy, which others may share
                return None
            scaled = scaled or maker.ctx["family"] == "rectifier"
        if maker is None:
            break
        group.append(maker)
        sources = (sources - set(maker.outputs)) | set(maker.reads)
    return None if scaled and found is not None and found.kind in {"relu", "negated relu"} else found


def _kind(group: list[Step], root: int, call: Call) -> Kind | None:
    """What the operations compute of a value; None if that is no function of each number.

    Judged by probes of many sizes, of both signs in each place.
    """
    shape, dtype = call.recording.shapes[root], call.recording.dtypes[root]
    if not dtype.is_floating_point:
        return None
    constants = tensors_in([(step.args, step.kwargs) for step in group])
    if all(_name(step) in _POINTWISE for step in group) and all(tensor.ndim == 0 for tensor in constants):
        shape = (64,)
    sizes = torch.logspace(-3 if dtype.itemsize == 2 else -7, 3, math.prod(shape), device=call.inputs[0].device)
    base = (sizes * torch.where(torch.arange(len(sizes), device=sizes.device) % 2 == 0, 1, -1)).to(dtype).view(shape)
    probes = base, -base, base.flatten().roll(len(sizes) // 3 + 1).view(shape)
    try:
        outputs = [_replay(group, root, probe) for probe in probes]
        if any(output.shape != base.shape or output.dtype != dtype for output in outputs):
            return None
        low, high, *middle = (
            _replay(group, root, probe) for probe in (base * 0 - _LARGE, base * 0 + _LARGE, base / 100)
        )
    except (RuntimeError, IndexError):  # such as a mask that now keeps another number of values
        return None
    slope = torch.where(base > 0, -outputs[1], outputs[0]) / base  # of the negative numbers

    def equals(function: Function, tolerance: float) -> bool:
        return all(
            bool(((function(probe) - output).abs() <= tolerance * (probe.abs() + (tolerance > 0))).all())
            for probe, output in zip(probes, outputs, strict=True)
        )

    for kind, function in _EXACT:
        if equals(function, 0):
            return kind
    rounding = 8 * torch.finfo(dtype).eps
    if bool((slope > 0).all()) and equals(lambda x: torch.where(x > 0, x, slope * x), rounding):
        return "activation"
    if bool((low < high).all()) and equals(lambda x: torch.minimum(torch.maximum(x, low), high), rounding):
        return "clamp"
    near = torch.finfo(dtype).eps ** 0.6
    same = (kind for kind, function in _SMOOTH if torch.allclose(function(base / 100), middle[0], near, near))
    return next(same, "unknown")


def _bends(step: Step) -> bool:
    """Whether the operation is not affine in the values that it reads."""
    name = _name(step)
    if name == "truediv":
        return any(True for _ in value_refs((step.args[1:], step.kwargs)))
    return len(step.reads) > 1 if name in _PRODUCTS else name not in _AFFINE


def _replay(group: list[Step], root: int, probe: Tensor) -> Tensor:
    """What the operations compute, with `probe` in place of value `root`."""
    values, output = {root: probe}, probe
    for step in group:
        copies = {value: values[value].clone() for value in step.reads}  # for functions that work in place
        args, kwargs = bind(step.args, copies), bind(step.kwargs, copies)
        if args and isinstance(args[0], Tensor):
            args = (args[0].clone(), *args[1:])
        with torch.no_grad():
            results = step.function(*args, **kwargs)
        made = list(tensors_in(args[0] if step.operation == "setitem" else results))
        values.update(zip(step.outputs, made, strict=False))
        output = made[0]
    return output


def guards(steps: list[Step]) -> Iterator[Step]:
    """The clamps whose results are used as divisors, or under a root or logarithm, alone."""
    users: dict[int, list[Step]] = defaultdict(list)
    for step in steps:
        for value in set(step.reads):
            users[value].append(step)

    def guarded(value: int) -> bool:
        return bool(users[value]) and all(_divides(step, value) or passes_guard(step) for step in users[value])

    def passes_guard(step: Step) -> bool:
        return len(step.reads) == 1 and _name(step) in LINEAR | IDENTITIES and all(map(guarded, step.outputs))

    return (step for step in steps if (_name(step) in CLAMPS or step.ctx.get("clamp")) and guarded(step.outputs[0]))


def _divides(step: Step, value: int) -> bool:
    places = [place for place, item in enumerate(step.args) if isinstance(item, ValueRef) and item.value == value]
    return (_name(step) == "truediv" and places == [1]) or (_name(step) in _GUARDED and places == [0])


def _name(step: Step) -> str:
    return step.operation.rstrip("_")
