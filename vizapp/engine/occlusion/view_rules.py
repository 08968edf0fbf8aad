"""How each operation is run on windows: the table of all rules, and those that only give cells another place."""

from __future__ import annotations

from vizapp.engine.call_arguments import argument
from vizapp.engine.occlusion.incremental_plan import DirtyRegion, IncrementalPlan, Operate
from vizapp.engine.occlusion.pointwise_rules import aliased
from vizapp.engine.trace.recording import Step

VIEWS = frozenset({"view", "reshape", "flatten", "unflatten"})


def permute(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    value = step.inputs[0]
    dims = argument(step.args, step.kwargs, 1, "dims", ())
    order = [dim % len(plan.shapes[value]) for dim in (step.args[1:] if isinstance(dims, int) else dims)]
    if order[0] != 0 or not plan.frames[value].same_place(frames[0]):
        return None
    aliased(plan, step)
    return lambda run: [run.values[value].permute(order)]


def transpose(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    value, count = step.inputs[0], len(plan.shapes[step.inputs[0]])
    a = argument(step.args, step.kwargs, 1, "dim0", 0) % count
    b = argument(step.args, step.kwargs, 2, "dim1", 1) % count
    if 0 in (a, b) or {a, b} == set(plan.frames[value].axes) or not plan.frames[value].same_place(frames[0]):
        return None
    aliased(plan, step)
    return lambda run: [run.values[value].transpose(a, b)]


def reshape(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """Channels regrouped (a channel shuffle); the cells stay what they are."""
    value, frame = step.inputs[0], frames[0]
    shape = list(plan.shapes[step.outputs[0]])
    if not plan.frames[value].same_place(frame) or plan.frames[value].length != frame.length or shape[0] != 1:
        return None
    if plan.shapes[value][0] != 1:
        return None
    shape[frame.axes[0]], shape[frame.axes[1]] = frame.size
    aliased(plan, step)
    return lambda run: [run.values[value].reshape(run.occluders, *shape[1:])]


def index(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """Slices of channels."""
    value, frame = step.inputs[0], frames[0]
    index = step.args[1] if isinstance(step.args[1], tuple) else (step.args[1],)
    if not all(isinstance(item, slice) for item in index) or not plan.frames[value].same_place(frame):
        return None
    whole = [axis >= len(index) or index[axis] == slice(None) for axis in (0, *plan.frames[value].axes)]
    if not all(whole) or plan.frames[value].axes != frame.axes:
        return None
    aliased(plan, step)
    return lambda run: [run.values[value][index]]


def split(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """`chunk` and `split` of channels."""
    value = step.inputs[0]
    axis = argument(step.args, step.kwargs, 2, "dim", 0) % len(plan.shapes[value])
    if axis in (0, *frames[0].axes) or any(not plan.frames[value].same_place(frame) for frame in frames):
        return None
    sizes = [plan.shapes[number][axis] for number in step.outputs]
    aliased(plan, step)
    return lambda run: list(run.values[value].split(sizes, axis))
