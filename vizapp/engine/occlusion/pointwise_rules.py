"""Operations on windows that take each cell by itself: activations, norms with constants, sums, joined channels.

A rule returns how to run a step on the windows of a plan, or None for a case that it does not cover.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.occlusion.incremental_plan import BatchState, DirtyRegion, IncrementalPlan, Operate
from vizapp.engine.occlusion.replay import NotReplayable
from vizapp.engine.operations import ACTIVATIONS, CASTS
from vizapp.engine.trace.recording import Step, ValueRef, bind

POINTWISE = ACTIVATIONS | CASTS | {"neg", "abs", "exp", "sqrt", "square", "rsqrt", "where"}
IDENTITIES = frozenset({
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "contiguous",
    "clone", "detach",
})  # fmt: skip
CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})
BINARY = frozenset({"add", "sub", "mul", "truediv", "maximum", "minimum"})


def _owned(plan: IncrementalPlan, step: Step, position: int) -> bool:
    """Whether the step may overwrite its input: no other step or value needs it."""
    value = step.inputs[0]
    return plan.last_use[value] == position and value in plan.fresh


def pointwise(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """A function of one value, with constants that are the same for all cells."""
    value, region = step.inputs[0], regions[0]
    if len(step.inputs) != 1 or len(regions) != 1 or plan.shapes[value] != plan.shapes[step.outputs[0]]:
        return None
    by_channel = step.operation == "prelu"  # whose weights belong to axis 1
    fits = 1 not in region.axes if by_channel else _constants_fit(step, plan.shapes[value], region)
    if not fits or not plan.regions[value].same_cells(region):
        return None
    return run_on_tensor(plan, step, position)


def run_on_tensor(plan: IncrementalPlan, step: Step, position: int) -> Operate:
    """Run the function on the value's tensor, in place if nothing else needs it."""
    value, owned = step.inputs[0], _owned(plan, step, position)
    base = step.operation.rstrip("_")
    if base in CASTS:  # they may return their input
        mark_aliased(plan, step)
    else:
        plan.fresh.update(step.outputs)
    if base == "relu":
        return lambda state: [state.values[value].relu_() if owned else state.values[value].relu()]
    writes = "writes" in step.ctx

    def operate(state: BatchState) -> list[Tensor]:
        given = state.values[value]
        given = given.clone() if writes and not owned else given
        args, kwargs = bind(step.args, {value: given}), bind(step.kwargs, {value: given})
        return [step.function(*args, **kwargs)]

    return operate


def mark_aliased(plan: IncrementalPlan, step: Step) -> None:
    """The step's results may share memory with its inputs: neither may be overwritten."""
    plan.fresh.difference_update(step.inputs, step.outputs)


def _constants_fit(step: Step, shape: tuple[int, ...], region: DirtyRegion) -> bool:
    """Whether every constant tensor among the arguments is the same for all cells."""
    for constant in tensors_in((step.args, step.kwargs)):
        for axis in region.axes:
            behind = len(shape) - axis
            if constant.ndim >= behind and constant.shape[-behind] != 1 and constant.ndim > 0:
                return False
    return True


def identity(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """An operation that changes nothing outside of training: the value itself."""
    value = step.inputs[0]
    if len(step.inputs) != 1 or is_active_dropout(step):
        return None
    if value in plan.regions and not (regions and plan.regions[value].same_cells(regions[0])):
        return None
    pass_on(plan, step, position)
    return lambda state: [state.values[value]]


def is_active_dropout(step: Step) -> bool:
    """Whether the step is a dropout that is active outside of training."""
    return "dropout" in step.operation and argument(step.args, step.kwargs, 2, "training", False) is True


def pass_on(plan: IncrementalPlan, step: Step, position: int) -> None:
    """The result is the input's memory; it may be overwritten if nothing else reads the input."""
    if _owned(plan, step, position):
        plan.fresh.update(step.outputs)
    else:
        mark_aliased(plan, step)


def norm(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """Batch norm with constants, local response norm across channels: cell by cell."""
    refuse_batch_statistics(step)
    if len(step.inputs) != 1 or regions[0].axes != (2, 3) or len(plan.shapes[step.inputs[0]]) != 4:
        return None
    return run_on_tensor(plan, step, position)


def refuse_batch_statistics(step: Step) -> None:
    """Refuse a batch norm whose mean depends on its batch.

    Raises:
        NotReplayable: it does.
    """
    if step.operation == "batch_norm" and argument(step.args, step.kwargs, 5, "training", False):
        raise NotReplayable("a batch norm takes its mean from the images of a batch")


def last_axis(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """A linear layer or a layer norm over the last axis, where cells come first."""
    value = step.inputs[0]
    last = len(plan.shapes[value]) - 1
    if len(step.inputs) != 1 or last in regions[0].axes or not plan.regions[value].same_cells(regions[0]):
        return None
    normalised = argument(step.args, step.kwargs, 1, "normalized_shape", ())
    if step.operation == "layer_norm" and len(normalised) != 1:
        return None
    return run_on_tensor(plan, step, position)


def sum_or_product(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """A sum or product of two values, or of one and a constant that is the same for all cells."""
    shape, region = plan.shapes[step.outputs[0]], regions[0]
    if any(plan.shapes[value] != shape for value in step.inputs) or not _constants_fit(step, shape, region):
        return None
    if any(plan.regions[value].axes != region.axes for value in step.inputs):
        return None
    first, copies = step.inputs[0], "writes" in step.ctx and not _owned(plan, step, position)
    plan.fresh.update(step.outputs)
    gets = {value: plan.on_region(value, region) for value in step.inputs}

    def operate(state: BatchState) -> list[Tensor]:
        given = {value: get(state) for value, get in gets.items()}
        if copies:
            given[first] = given[first].clone()
        return [step.function(*bind(step.args, given), **bind(step.kwargs, given))]

    return operate


def copy(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """A value written over another one, all of it: that value."""
    source = argument(step.args, step.kwargs, 1, "src", None)
    if not isinstance(source, ValueRef) or plan.shapes[source.value] != plan.shapes[step.outputs[0]]:
        return None
    if plan.regions[source.value].axes != regions[0].axes:
        return None
    get = plan.on_region(source.value, regions[0])
    mark_aliased(plan, step)
    return lambda state: [get(state)]


def concatenation(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """A concatenation of channels."""
    region, shape = regions[0], plan.shapes[step.outputs[0]]
    axis = argument(step.args, step.kwargs, 1, "dim", 0)
    parts = argument(step.args, step.kwargs, 0, "tensors", ())
    axis = axis % len(shape)
    if axis in (0, *region.axes) or any(plan.regions[value].axes != region.axes for value in step.inputs):
        return None
    if not all(isinstance(part, ValueRef) for part in parts):
        return None
    plan.fresh.update(step.outputs)
    gets = [plan.on_region(part.value, region) for part in parts]
    return lambda state: [torch.cat([get(state) for get in gets], axis)]
