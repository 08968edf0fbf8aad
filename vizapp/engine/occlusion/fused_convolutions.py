"""Convolutions on a CPU that run what follows them (a batch norm, a sum, a rectifier) in the same pass over memory.

oneDNN's fused convolutions, as torch's compiler calls them, with weights that are laid out for them once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, pair
from vizapp.engine.trace.recording import Step, ValueRef

_CLAMPS: dict[str, tuple[str, list[float]]] = {"relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0])}


def fuse(steps: list[Step], shapes: list[tuple[int, ...]], kept: Collection[int]) -> list[Step]:
    """The same steps, with convolutions that also add another value and rectify where that is all their results are for.

    Values that are `kept` stay. `shapes[v]` is the shape of value v for one picture.
    """
    uses = Counter(value for step in steps for value in step.inputs)
    readers = {value: position for position, step in enumerate(steps) for value in step.inputs}
    answer: list[Step | None] = list(steps)

    def next_of(position: int, operations: Collection[str]) -> int | None:
        """The step that reads a step's result, if it is of these operations and nothing else needs that result."""
        value = steps[position].outputs[0]
        reader = readers.get(value)
        if reader is None or uses[value] > 1 or value in kept or answer[reader] is not steps[reader]:
            return None
        return reader if steps[reader].operation.rstrip("_") in operations else None

    for position, step in enumerate(steps):
        if not _is_plain_convolution(step, shapes):
            continue
        last, other = position, None
        total = next_of(position, {"add"})
        if total is not None:
            other = _other(steps[total], step.outputs[0], shapes)
            last = position if other is None else total
        rectifier = next_of(last, _CLAMPS if other is None else {"relu"})
        clamp = "" if rectifier is None else steps[rectifier].operation.rstrip("_")
        for gone in {position, last}:
            answer[gone] = None
        last = last if rectifier is None else rectifier
        answer[last] = _fused(step, other, clamp, steps[last].name, steps[last].outputs, shapes)
    return [step for step in answer if step is not None]


def _is_plain_convolution(step: Step, shapes: list[tuple[int, ...]]) -> bool:
    """Whether the step is a convolution of maps `[1 C h w]` in float32 with constant weights and numbers as padding."""
    weight = argument(step.args, step.kwargs, 1, "weight", None)
    if step.operation != "conv2d" or not step.depends_on_input_alone or len(shapes[step.inputs[0]]) != 4:
        return False
    padded = argument(step.args, step.kwargs, 4, "padding", 0)
    return isinstance(weight, Tensor) and weight.dtype == torch.float32 and not isinstance(padded, str)


def _other(step: Step, value: int, shapes: list[tuple[int, ...]]) -> int | None:
    """The value of the same shape that a sum adds to `value`; None if it is another kind of sum."""
    values = [leaf.value for leaf in step.args if isinstance(leaf, ValueRef)]
    if step.kwargs or len(step.args) != 2 or len(values) != 2 or values.count(value) != 1:
        return None
    other = values[1 - values.index(value)]
    return other if shapes[other] == shapes[value] else None


def _fused(
    step: Step, other: int | None, clamp: str, name: str, outputs: tuple[int, ...], shapes: list[tuple[int, ...]]
) -> Step:
    stride, padding, dilation = (
        list(pair(argument(step.args, step.kwargs, position, key, default)))
        for position, key, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    weight, bias = (
        argument(step.args, step.kwargs, position, key, None) for position, key in ((1, "weight"), (2, "bias"))
    )
    groups = argument(step.args, step.kwargs, 6, "groups", 1)
    size = list(shapes[step.inputs[0]])
    weight = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), padding, stride, dilation, groups, size)
    attribute, numbers = _CLAMPS.get(clamp, ("none", []))

    def convolution(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, padding, stride, dilation, groups, attribute, numbers, ""
        )
        return found

    def convolution_and_sum(x: Tensor, added: Tensor) -> Tensor:
        x, added = (each.contiguous(memory_format=torch.channels_last) for each in (x, added))
        found: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, added, weight, bias, padding, stride, dilation, groups, "add", None, clamp or None, [], ""
        )
        return found

    function: Callable[..., Any] = convolution if other is None else convolution_and_sum
    inputs = step.inputs if other is None else (*step.inputs, other)
    operation = "conv2d" if other is None else "add"
    return Step(name, operation, function, tuple(map(ValueRef, inputs)), {}, inputs, outputs)
