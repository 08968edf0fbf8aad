"""Operations on windows that change shapes alone: permutations, reshapes, slices and splits of channels."""

from __future__ import annotations

import torch

from vizapp.engine.call_arguments import argument
from vizapp.engine.occlusion.incremental_plan import DirtyRegion, IncrementalPlan, Operate
from vizapp.engine.occlusion.pointwise_rules import mark_aliased
from vizapp.engine.trace.recording import Step

VIEWS = frozenset({"view", "reshape", "flatten", "unflatten"})


def reads_bits(step: Step) -> bool:
    """Whether a view takes the same memory for numbers of another type."""
    return any(isinstance(value, torch.dtype) for value in (*step.args, *step.kwargs.values()))


def permute(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    value = step.inputs[0]
    dims = argument(step.args, step.kwargs, 1, "dims", ())
    order = [dim % len(plan.shapes[value]) for dim in (step.args[1:] if isinstance(dims, int) else dims)]
    if order[0] != 0 or not plan.regions[value].same_cells(regions[0]):
        return None
    mark_aliased(plan, step)
    return lambda state: [state.values[value].permute(order)]


def transpose(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    value, count = step.inputs[0], len(plan.shapes[step.inputs[0]])
    a = argument(step.args, step.kwargs, 1, "dim0", 0) % count
    b = argument(step.args, step.kwargs, 2, "dim1", 1) % count
    if 0 in (a, b) or {a, b} == set(plan.regions[value].axes) or not plan.regions[value].same_cells(regions[0]):
        return None
    mark_aliased(plan, step)
    return lambda state: [state.values[value].transpose(a, b)]


def reshape(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """A regrouping of channels (channel shuffle) that keeps the cells."""
    value, region = step.inputs[0], regions[0]
    shape = list(plan.shapes[step.outputs[0]])
    if not plan.regions[value].same_cells(region) or plan.regions[value].length != region.length or shape[0] != 1:
        return None
    if plan.shapes[value][0] != 1 or reads_bits(step):
        return None
    shape[region.axes[0]], shape[region.axes[1]] = region.size
    mark_aliased(plan, step)
    return lambda state: [state.values[value].reshape(len(state.occluders), *shape[1:])]


def index(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """Slices of channels."""
    value, region = step.inputs[0], regions[0]
    index = step.args[1] if isinstance(step.args[1], tuple) else (step.args[1],)
    if not all(isinstance(item, slice) for item in index) or not plan.regions[value].same_cells(region):
        return None
    whole = [axis >= len(index) or index[axis] == slice(None) for axis in (0, *plan.regions[value].axes)]
    if not all(whole) or plan.regions[value].axes != region.axes:
        return None
    mark_aliased(plan, step)
    return lambda state: [state.values[value][index]]


def split(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """`chunk` and `split` of channels."""
    value = step.inputs[0]
    axis = argument(step.args, step.kwargs, 2, "dim", 0) % len(plan.shapes[value])
    if axis in (0, *regions[0].axes) or any(not plan.regions[value].same_cells(region) for region in regions):
        return None
    sizes = [plan.shapes[number][axis] for number in step.outputs]
    mark_aliased(plan, step)
    return lambda state: list(state.values[value].split(sizes, axis))
