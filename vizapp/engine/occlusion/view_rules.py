"""How each operation is run on windows: the table of all rules, and those that only give cells another place."""

from __future__ import annotations

from collections.abc import Callable

from vizapp.engine.occlusion import pointwise_rules, sliding_rules
from vizapp.engine.occlusion.incremental import DirtyRegion, IncrementalPlan, Operate
from vizapp.engine.occlusion.pointwise_rules import JOINING, POINTWISE, SAME, TWO, aliased
from vizapp.engine.receptive_field.rules import argument
from vizapp.engine.trace.recording import Step

VIEWS = frozenset({"view", "reshape", "flatten", "unflatten"})


def window_rule(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """How to run the step on windows; None where it has to be run on whole maps. `frames`: its results' windows."""
    base = step.operation.rstrip("_")
    make = _RULES.get(base)
    if make is None or len(frames) != len(step.outputs):
        return None
    return make(plan, step, frames, place)


def _permuted(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    value = step.inputs[0]
    dims = argument(step.args, step.kwargs, 1, "dims", ())
    order = [dim % len(plan.shapes[value]) for dim in (step.args[1:] if isinstance(dims, int) else dims)]
    if order[0] != 0 or not plan.frames[value].same_place(frames[0]):
        return None
    aliased(plan, step)
    return lambda run: [run.values[value].permute(order)]


def _transposed(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    value, count = step.inputs[0], len(plan.shapes[step.inputs[0]])
    a = argument(step.args, step.kwargs, 1, "dim0", 0) % count
    b = argument(step.args, step.kwargs, 2, "dim1", 1) % count
    if 0 in (a, b) or {a, b} == set(plan.frames[value].axes) or not plan.frames[value].same_place(frames[0]):
        return None
    aliased(plan, step)
    return lambda run: [run.values[value].transpose(a, b)]


def _viewed(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
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


def _picked(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
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


def _parts(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """`chunk` and `split` of channels."""
    value = step.inputs[0]
    axis = argument(step.args, step.kwargs, 2, "dim", 0) % len(plan.shapes[value])
    if axis in (0, *frames[0].axes) or any(not plan.frames[value].same_place(frame) for frame in frames):
        return None
    sizes = [plan.shapes[number][axis] for number in step.outputs]
    aliased(plan, step)
    return lambda run: list(run.values[value].split(sizes, axis))


Make = Callable[[IncrementalPlan, Step, "list[DirtyRegion]", int], "Operate | None"]
_RULES: dict[str, Make] = {
    **dict.fromkeys(POINTWISE, pointwise_rules.pointwise),
    **dict.fromkeys(SAME, pointwise_rules.same),
    **dict.fromkeys(TWO, pointwise_rules.two),
    **dict.fromkeys(JOINING, pointwise_rules.joined),
    **dict.fromkeys(["batch_norm", "local_response_norm"], pointwise_rules.norm),
    **dict.fromkeys(["linear", "layer_norm"], pointwise_rules.last_axis),
    **dict.fromkeys(VIEWS, _viewed),
    **dict.fromkeys(["transpose", "swapaxes"], _transposed),
    **dict.fromkeys(["chunk", "split"], _parts),
    "conv2d": sliding_rules.convolution,
    "max_pool2d": sliding_rules.max_pool,
    "avg_pool2d": sliding_rules.average_pool,
    "adaptive_avg_pool2d": sliding_rules.unchanged_pool,
    "pad": sliding_rules.pad,
    "permute": _permuted,
    "getitem": _picked,
}
