"""Convolutions on a CPU that run what follows them (a batch norm, a sum, a rectifier) in the same pass over memory.

oneDNN's fused convolutions, as torch's compiler calls them, with weights that are laid out for them once. Wide ones on whole
maps are computed with fewer multiplications (`winograd.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, pair
from vizapp.engine.occlusion import winograd
from vizapp.engine.trace.recording import Step, ValueRef

CONVOLUTION_AND_SUM = "conv2d_and_add"  # of two values
_CONSTANTS = (("weight", None), ("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
_CLAMPS: dict[str, tuple[str, list[float]]] = {"relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0])}
_LIMITS = {"": (None, None), "relu": (0.0, None), "relu6": (0.0, 6.0)}


def fuse(steps: list[Step], shapes: list[tuple[int, ...]], kept: Collection[int], whole: bool = False) -> list[Step]:
    """The same steps, with convolutions that also add another value and rectify where that is all their results are for.

    Values that are `kept` stay. `shapes[v]` is the shape of value v for one picture. `whole`: the steps run on whole maps of
    several pictures, not on windows.
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
        answer[last] = _fused(step, other, clamp, steps[last], shapes, whole)
    return [step for step in answer if step is not None]


def _is_plain_convolution(step: Step, shapes: list[tuple[int, ...]]) -> bool:
    """Whether the step is a convolution of maps `[1 C h w]` in float32 on a CPU with constant weights, padded by numbers."""
    weight = argument(step.args, step.kwargs, 1, "weight", None)
    if step.operation != "conv2d" or not step.depends_on_input_alone or len(shapes[step.inputs[0]]) != 4:
        return False
    padded = argument(step.args, step.kwargs, 4, "padding", 0)
    suits = isinstance(weight, Tensor) and weight.dtype == torch.float32 and weight.device.type == "cpu"
    return suits and not isinstance(padded, str) and torch.backends.mkldnn.is_available()


def _other(step: Step, value: int, shapes: list[tuple[int, ...]]) -> int | None:
    """The value of the same shape that a sum adds to `value`; None if it is another kind of sum."""
    values = [leaf.value for leaf in step.args if isinstance(leaf, ValueRef)]
    if step.kwargs or len(step.args) != 2 or len(values) != 2 or values.count(value) != 1:
        return None
    other = values[1 - values.index(value)]
    return other if shapes[other] == shapes[value] else None


class FusedConvolution:
    """A convolution whose weights are laid out once, with the rectifier behind it.

    It is called as `torch.nn.functional.conv2d` is, with constants as when it was made, but for the padding; `added` is a
    value of its result's shape that is added before the rectifier.

    Args:
        step: The convolution as it was recorded.
        given: The shape of its input.
        made: The shape of its result.
        clamp: The name of the rectifier, or empty.
        whole: Whether it runs on whole maps of several pictures.
    """

    def __init__(self, step: Step, given: tuple[int, ...], made: tuple[int, ...], clamp: str, whole: bool) -> None:
        self.constants = [
            argument(step.args, step.kwargs, position, key, default)
            for position, (key, default) in enumerate(_CONSTANTS, 1)
        ]
        weight, self._bias, stride, padding, dilation, self._groups = self.constants
        self._stride, self._dilation = list(pair(stride)), list(pair(dilation))
        self._clamp, self._winograd = clamp, None
        if whole and winograd.pays(weight, self._stride, self._dilation, self._groups, made):
            self._winograd = winograd.WinogradConvolution(weight)
        else:
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight.detach(), list(pair(padding)), self._stride, self._dilation, self._groups, list(given)
            )
        self.constants[0] = torch.empty_like(weight, device="meta")  # its shape is all that is asked for

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int,
        added: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The convolution of `[N C h w]`."""
        if self._winograd is not None:
            return self._winograd(x, self._bias, pair(padding), added, _LIMITS[self._clamp])
        x = x.contiguous(memory_format=torch.channels_last)
        fixed = self._weight, self._bias, list(pair(padding)), self._stride, self._dilation, self._groups
        if added is None:
            attribute, numbers = _CLAMPS.get(self._clamp, ("none", []))
            found: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *fixed, attribute, numbers, "")
        else:
            added = added.contiguous(memory_format=torch.channels_last)
            found = torch.ops.mkldnn._convolution_pointwise.binary(
                x, added, *fixed, "add", None, self._clamp or None, [], ""
            )
        return found


def _fused(step: Step, other: int | None, clamp: str, last: Step, shapes: list[tuple[int, ...]], whole: bool) -> Step:
    """The convolution `step`, with what follows it up to the step `last`."""
    function = FusedConvolution(step, shapes[step.inputs[0]], shapes[step.outputs[0]], clamp, whole)
    args = (ValueRef(step.inputs[0]), *function.constants)
    if other is None:
        return Step(last.name, "conv2d", function, args, {}, step.inputs, last.outputs)
    inputs = (*step.inputs, other)
    return Step(last.name, CONVOLUTION_AND_SUM, function, (*args, ValueRef(other)), {}, inputs, last.outputs)
