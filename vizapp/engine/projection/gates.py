"""Finds the gates of a pass: factors of products that scale the other factor, however the product is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, map_leaves
from vizapp.engine.operations import BILINEAR, IDENTITIES, LINEAR, WEIGHTED
from vizapp.engine.trace.recording import Call, GateOrigin, Step, ValueRef

_Factors = dict[int, Tensor]  # by the place among the call's inputs: the numbers, aligned to the axes of the product
# Not mere moves of numbers.
_ARITHMETIC = frozenset({"add", "sub", "rsub", "neg", "mean", "sum", "cumsum", "masked_fill", "setitem", "pad"})


class Gates(NamedTuple):
    """The places of gates among the inputs of a call, and how many gates these are together (a product may be one of them)."""

    places: frozenset[int]
    number: int


def gates_of(call: Call) -> Gates | GateOrigin | None:
    """The gates of a product of numbers; None if there are none.

    Of the factors one is the feature, the others are gates. The feature is the one that varies over the most cells and
    channels (squeeze and excitation) or, if several vary alike, the only one that was not squashed to 0 … 1 (Highway's
    H(x) T(x)). Factors that all vary less than their product (a number per channel times a number per cell) have no feature:
    the product may become a gate, so the answer is its origin. A division by a reciprocal is a product. A product with a
    reciprocal is a division, which has no gates.
    """
    factors = _factors(call) if all(call.sloped) else {}
    if len(factors) < 2:
        return None
    rank = max(factor.ndim for factor in factors.values())
    varying = {place: (1,) * (rank - factor.ndim) + _varying(factor) for place, factor in factors.items()}
    wide = tuple(map(max, *varying.values()))
    gates = {place: call.gates[place] for place in factors}
    widest = [place for place in factors if varying[place] == wide]
    if not widest:
        return GateOrigin(
            sum(max(1, gate.number) for gate in gates.values()), all(gate.squashed for gate in gates.values())
        )
    for candidates in (
        widest,
        [place for place in widest if not gates[place].squashed],
        [place for place in widest if not gates[place].number],
    ):
        if len(candidates) == 1:
            others = frozenset(factors) - set(candidates)
            return Gates(others, sum(max(1, gates[place].number) for place in others))
    return None


def as_division(call: Call) -> dict[str, Any] | None:
    """For `Step.ctx`, the division x / y that `x * (1 / y)` is; None if the call is no such product.

    The signal then goes from the step to x and y.
    """
    step, recording = call.step, call.recording
    for place, maker in enumerate(map(recording.makers.get, step.reads)):
        if call.operation == "mul" and len(step.reads) == 2 and maker is not None and _is_inverse(maker):
            x, (y,) = step.reads[1 - place], maker.reads
            step.inputs, step.dtypes = (x, y), (recording.dtypes[x], recording.dtypes[y])
            at = [call.inputs[1 - place].clone(), call.inputs[place].reciprocal()]
            return {"instead": (torch.div, (ValueRef(x), ValueRef(y))), "at": at}
    return None


def _is_inverse(step: Step) -> bool:
    """Whether the step computes 1 / y."""
    name, number = (
        step.operation.rstrip("_"),
        next((item for item in step.args if not isinstance(item, ValueRef)), None),
    )
    return name == "reciprocal" or (name == "rdiv" and number == 1) or (name == "pow" and number == -1)


def reciprocal_of(value: int, call: Call) -> Step | None:
    """The step that made a value as a reciprocal, or as one that was then moved; None if it is none."""
    step = call.recording.makers.get(value)
    while step is not None and len(step.reads) == 1:
        name = step.operation.rstrip("_")
        power = argument(step.args, step.kwargs, 1, "exponent", 0) if name == "pow" else 0
        divides = name == "truediv" and not isinstance(step.args[0], ValueRef)
        if divides or name in {"reciprocal", "rdiv", "rsqrt"} or (isinstance(power, (int, float)) and power < 0):
            return step
        if name not in (LINEAR | IDENTITIES) - _ARITHMETIC:
            return None
        step = call.recording.makers.get(step.reads[0])
    return None


def _factors(call: Call) -> _Factors:
    """The inputs that are factors of a product of numbers; empty if the call is no such product."""
    args, kwargs, name, inputs = call.args, call.kwargs, call.operation, call.inputs
    if len({id(tensor) for tensor in inputs}) < 2:
        return {}
    if name == "mul":
        if any(
            reciprocal_of(v, call) and not gate.squashed for v, gate in zip(call.step.reads, call.gates, strict=True)
        ):
            return {}
        return dict(enumerate(inputs))
    if name == "truediv":
        return dict(enumerate(inputs)) if reciprocal_of(call.step.reads[1], call) else {}
    if name in {"addcmul", "lerp"}:  # a + b c; a + (b - a) c
        keys = ("tensor1", "tensor2") if name == "addcmul" else ("end", "weight")
        pair = [argument(args, kwargs, place, key, None) for place, key in enumerate(keys, 1)]
        found = {id(tensor): (i, tensor) for i, tensor in enumerate(inputs) if any(tensor is factor for factor in pair)}
        return dict(found.values())
    return _factors_by_probe(call) if name in BILINEAR | WEIGHTED else {}


def _factors_by_probe(call: Call) -> _Factors:
    """The factors of a function that is linear in each input, if each of its numbers is a product of single numbers.

    That is so if f(a, b) f(1, 1) = f(a, 1) f(1, b) for random a and b. A diagonal matrix keeps its zeros.
    """
    if len({id(tensor) for tensor in call.inputs}) < len(call.inputs):
        return {}
    makers = [call.recording.makers.get(value) for value in call.step.reads]
    diagonal = [maker is not None and maker.operation in {"diag", "diag_embed"} for maker in makers]
    if call.operation in {"matmul", "bmm", "mm"} and call.inputs[0].shape[-1] > 1 and not any(diagonal):
        return {}  # as the probe would show
    ones = [_pattern(call, place) if diagonal[place] else torch.ones_like(x) for place, x in enumerate(call.inputs)]
    generator = torch.Generator().manual_seed(0)
    random = [one * torch.rand(one.shape, generator=generator).to(one) for one in ones]
    zero = _run(call, [torch.zeros_like(one) for one in ones])  # a bias

    def alone(place: int, tensor: Tensor) -> Tensor:
        return _run(call, [*ones[:place], tensor, *ones[place + 1 :]]) - zero

    product, unit = _run(call, random) - zero, _run(call, ones) - zero
    parts = torch.ones_like(product)
    for place, tensor in enumerate(random):
        parts = parts * alone(place, tensor)
    near = torch.finfo(product.dtype).eps ** 0.6
    if not torch.allclose(product * unit ** (len(ones) - 1), parts, near, near):
        return {}
    return {place: alone(place, tensor) for place, tensor in enumerate(call.inputs)}


def _pattern(call: Call, place: int) -> Tensor:
    """Ones on the diagonals of an input, which was made from them, and zeros elsewhere."""
    step = call.recording.makers[call.step.reads[place]]
    source = call.inputs[place].new_ones(call.recording.shapes[step.reads[0]])
    return _call_with(
        step.function, step.args, step.kwargs, lambda leaf: source if isinstance(leaf, ValueRef) else leaf
    )


def _run(call: Call, given: list[Tensor]) -> Tensor:
    by_id = {id(tensor): other for tensor, other in zip(call.inputs, given, strict=True)}
    return _call_with(call.function, call.args, call.kwargs, lambda leaf: by_id.get(id(leaf), leaf))


def _call_with(function: Callable[..., Any], args: Any, kwargs: Any, change: Callable[[Any], Any]) -> Tensor:
    output: Tensor = function(*map_leaves(args, change), **map_leaves(kwargs, change))
    return output


def _varying(tensor: Tensor) -> tuple[int, ...]:
    """The shape, with 1 for each axis along which all numbers are the same, as along one that was expanded."""

    def constant(axis: int) -> bool:
        first, second = tensor.narrow(axis, 0, 1), tensor.narrow(axis, 1, 1)
        return tensor.stride(axis) == 0 or (torch.equal(first, second) and bool((tensor == first).all()))

    return tuple(size if size < 2 or not constant(axis) else 1 for axis, size in enumerate(tensor.shape))
