"""Operations on windows that take each cell by itself: activations, norms with constants, sums, joined channels.

A rule gives how to run a step on the windows of a plan, or None where the step is not the regular case.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.occlusion.incremental_plan import BatchState, DirtyRegion, IncrementalPlan, Operate
from vizapp.engine.occlusion.replay import NotReplayable
from vizapp.engine.operations import ACTIVATIONS
from vizapp.engine.trace.recording import Step, ValueRef, bind

POINTWISE = ACTIVATIONS | {"neg", "abs", "exp", "sqrt", "square", "rsqrt", "float", "double", "type_as"}
CASTS = frozenset({"float", "double", "type_as"})  # may give back what they got
SAME = frozenset({
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "contiguous",
    "clone", "detach",
})  # fmt: skip
JOINING = frozenset({"cat", "concat", "concatenate"})
TWO = frozenset({"add", "sub", "mul", "truediv", "maximum", "minimum"})


def _owned(plan: IncrementalPlan, step: Step, place: int) -> bool:
    """Whether the step may write over its input: nobody else has it."""
    value = step.inputs[0]
    return plan.last_use[value] == place and value in plan.fresh


def pointwise(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """A function of one value, with constants that are the same for all cells."""
    value, frame = step.inputs[0], frames[0]
    if len(step.inputs) != 1 or len(frames) != 1 or plan.shapes[value] != plan.shapes[step.outputs[0]]:
        return None
    by_channel = step.operation == "prelu" and 1 not in frame.axes
    if not plan.frames[value].same_place(frame) or not (by_channel or _constants_fit(step, plan.shapes[value], frame)):
        return None
    return mapped(plan, step, place)


def mapped(plan: IncrementalPlan, step: Step, place: int) -> Operate:
    """Run the function on whatever the value's tensor is; over it where that is harmless."""
    value, owned = step.inputs[0], _owned(plan, step, place)
    base = step.operation.rstrip("_")
    if base in CASTS:
        aliased(plan, step)
    else:
        plan.fresh.update(step.outputs)
    if base == "relu":
        return lambda run: [run.values[value].relu_() if owned else run.values[value].relu()]
    writes = "writes" in step.ctx

    def operate(run: BatchState) -> list[Tensor]:
        given = run.values[value]
        given = given.clone() if writes and not owned else given
        args, kwargs = bind(step.args, {value: given}), bind(step.kwargs, {value: given})
        return [step.function(*args, **kwargs)]

    return operate


def aliased(plan: IncrementalPlan, step: Step) -> None:
    """The step's results may share memory with its inputs: nothing is written over either."""
    plan.fresh.difference_update(step.inputs, step.outputs)


def _constants_fit(step: Step, shape: tuple[int, ...], frame: DirtyRegion) -> bool:
    """Whether every constant tensor among the arguments is the same for all cells."""
    for constant in tensors_in((step.args, step.kwargs)):
        for axis in frame.axes:
            behind = len(shape) - axis
            if constant.ndim >= behind and constant.shape[-behind] != 1 and constant.ndim > 0:
                return False
    return True


def same(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """What changes nothing outside of training: the value itself."""
    value = step.inputs[0]
    if len(step.inputs) != 1 or drops(step):
        return None
    if value in plan.frames and not (frames and plan.frames[value].same_place(frames[0])):
        return None
    passed_on(plan, step, place)
    return lambda run: [run.values[value]]


def drops(step: Step) -> bool:
    """A dropout that is at work outside of training."""
    return "dropout" in step.operation and argument(step.args, step.kwargs, 2, "training", False) is True


def passed_on(plan: IncrementalPlan, step: Step, place: int) -> None:
    """The result is the input's memory; it may be written over if nobody else reads the input."""
    if _owned(plan, step, place):
        plan.fresh.update(step.outputs)
    else:
        aliased(plan, step)


def norm(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """Batch norm with constants, local response norm across channels: cell by cell."""
    constant_norm(step)
    if len(step.inputs) != 1 or frames[0].axes != (2, 3) or len(plan.shapes[step.inputs[0]]) != 4:
        return None
    return mapped(plan, step, place)


def constant_norm(step: Step) -> None:
    """Refuse a batch norm whose mean depends on its batch.

    Raises:
        Unrepeatable: it does.
    """
    if step.operation == "batch_norm" and argument(step.args, step.kwargs, 5, "training", False):
        raise NotReplayable("a batch norm takes its mean from the pictures that run together")


def last_axis(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """A linear layer or a layer norm over the last axis, where cells come first."""
    value = step.inputs[0]
    if (
        len(step.inputs) != 1
        or len(plan.shapes[value]) - 1 in frames[0].axes
        or not plan.frames[value].same_place(frames[0])
    ):
        return None
    normalised = argument(step.args, step.kwargs, 1, "normalized_shape", ())
    if step.operation == "layer_norm" and len(normalised) != 1:
        return None
    return mapped(plan, step, place)


def two(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """A sum or product of two values, or of one and a constant that is the same for all cells."""
    shape, frame = plan.shapes[step.outputs[0]], frames[0]
    if any(plan.shapes[value] != shape for value in step.inputs) or not _constants_fit(step, shape, frame):
        return None
    if any(plan.frames[value].axes != frame.axes for value in step.inputs):
        return None
    plan.fresh.update(step.outputs)
    return _filled_at(plan, step, frame)


def _filled_at(plan: IncrementalPlan, step: Step, frame: DirtyRegion) -> Operate:
    """Run the function on all its values at the windows of a frame."""
    writes, numbers = "writes" in step.ctx, tuple(dict.fromkeys(step.inputs))
    plan.reads.update(numbers)

    def operate(run: BatchState) -> list[Tensor]:
        given = {value: run.at(value, frame) for value in numbers}
        if writes:
            given[numbers[0]] = given[numbers[0]].clone()
        return [step.function(*bind(step.args, given), **bind(step.kwargs, given))]

    return operate


def joined(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """A concatenation of channels."""
    frame, shape = frames[0], plan.shapes[step.outputs[0]]
    axis = argument(step.args, step.kwargs, 1, "dim", 0)
    parts = argument(step.args, step.kwargs, 0, "tensors", ())
    axis = axis % len(shape)
    if axis in (0, *frame.axes) or any(plan.frames[value].axes != frame.axes for value in step.inputs):
        return None
    if not all(isinstance(part, ValueRef) for part in parts):
        return None
    plan.fresh.update(step.outputs)
    order = [part.value for part in parts]
    plan.reads.update(order)
    return lambda run: [torch.cat([run.at(value, frame) for value in order], axis)]
