"""Makes an `IncrementalPlan` for a recorded pass: which cells each occluder changes, and how each operation runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument
from vizapp.engine.occlusion.fused_convolutions import CONVOLUTION_AND_SUM, fuse
from vizapp.engine.occlusion.incremental_plan import AffectedCells, IncrementalPlan, Operate, Range
from vizapp.engine.occlusion.replay import ReplayRecording, fold_batch_norm, receptive_fields_of, round_weights
from vizapp.engine.occlusion.rule_table import window_rule
from vizapp.engine.occlusion.whole_map_rules import whole_rule
from vizapp.engine.precision import Precision
from vizapp.engine.receptive_field.interval import Interval, ReceptiveField
from vizapp.engine.trace.recording import Step

WHOLE_MAP_SHARE = 0.8  # when windows cover this much of a map, computing all of it is faster


def affected_cells(
    field: ReceptiveField, shape: tuple[int, ...], rows: Sequence[Range], columns: Sequence[Range]
) -> AffectedCells | None:
    """The cells of a value that some rows and columns of pixels change; None if it has no cells, or all see everything."""
    down, across = field.rows.axis, field.columns.axis
    if down is None or across is None or down >= across or not shape or shape[0] != 1 or 0 in (down, across):
        return None
    if all(_sees_the_same(span) for span in (field.rows, field.columns)):
        return None
    spans = _affected_range(field.rows, rows), _affected_range(field.columns, columns)
    return AffectedCells((down, across), (shape[down], shape[across]), *spans)


def _sees_the_same(span: Interval) -> bool:
    """Whether all cells see the same rows (or columns)."""
    return bool((span.low == span.low[0]).all() and (span.high == span.high[0]).all())


def _affected_range(span: Interval, ranges: Sequence[Range]) -> tuple[np.ndarray, np.ndarray]:
    first, last = np.array(ranges).T[:, :, None]
    hit = (span.low < last) & (span.high > first)  # [ranges cells]
    some = hit.any(1)
    return np.where(some, hit.argmax(1), 0), np.where(some, hit.shape[1] - hit[:, ::-1].argmax(1), 0)


class Planner:
    """Makes plans for a recorded pass, for occluders at some rows and columns of pixels.

    The plans read the clean maps of `affected` values.

    Args:
        recording: The pass.
        wanted: The values, by number, that the plans compute.
        rows: First row and end of each row of occluders, in pixels.
        columns: First column and end of each column of occluders, in pixels.
        precision: How products are rounded when the plans run.
    """

    def __init__(
        self, recording: ReplayRecording, wanted: set[int], rows: Sequence[Range], columns: Sequence[Range],
        precision: Precision = "exact",
    ) -> None:  # fmt: skip
        fields = receptive_fields_of(recording.steps, recording.shapes)
        self.shapes = recording.shapes
        steps = needed_steps(fold_batch_norm(recording.steps, wanted), wanted)
        rounded = precision == "bf16"
        self.steps = round_weights(steps, torch.bfloat16) if rounded else fuse(steps, self.shapes, wanted)
        self.affected = {
            value: found
            for value in (0, *(value for step in self.steps for value in step.outputs))
            if (found := affected_cells(fields[value], self.shapes[value], rows, columns)) is not None
        }
        self.last_use = {value: position for position, step in enumerate(self.steps) for value in step.inputs}
        self.last_use |= dict.fromkeys(wanted, len(self.steps))  # nothing may be written over them
        self.work = [work_of(step, self.shapes) for step in self.steps]
        self.head = head_of(self.steps, self.shapes, {0})

    def plan(self, rows: Sequence[int], columns: Sequence[int]) -> IncrementalPlan:
        """The plan for the occluders at some of the rows and columns, by index.

        Raises:
            NotReplayable: an operation cannot be run on many pictures at once.
        """
        plan = IncrementalPlan(self.steps, self.shapes, rows, columns, last_use=self.last_use)
        plan.regions[0] = self.affected[0].region(rows, columns)
        for position, step in enumerate(self.steps):
            self._add(plan, position, step, rows, columns)
        return plan

    def work_per_occluder(self) -> np.ndarray:
        """Multiply-adds per occluder if only the cells that it changes are computed: `[rows columns]`."""
        start = self.affected[0].cells()
        total = np.zeros(start.shape)
        for step, work in zip(self.steps, self.work, strict=True):
            found = self.affected.get(step.outputs[0])
            total += work if found is None else work * found.cells() / (found.length[0] * found.length[1])
        return total

    def _add(
        self, plan: IncrementalPlan, position: int, step: Step, rows: Sequence[int], columns: Sequence[int]
    ) -> None:
        operate: Operate | None = None
        windowed = all(value in plan.regions for value in step.inputs)
        regions = {v: self.affected[v].region(rows, columns) for v in step.outputs if v in self.affected}
        area = max((region.share for region in regions.values()), default=1.0)
        if windowed and area < WHOLE_MAP_SHARE and len(regions) == len(step.outputs):
            operate = window_rule(plan, step, list(regions.values()), position)
        if operate is not None:
            plan.regions |= regions
        else:
            operate = whole_rule(plan, step, position)
            if windowed and not plan.fallback_layer:
                covered = area >= WHOLE_MAP_SHARE and any(max(region.length) > 1 for region in regions.values())
                why = "windows cover the map" if covered else "not local"
                plan.fallback_layer = f"{step.name} ({why})"
            area = 1.0
        plan.operations.append(operate)
        plan.work += round(self.work[position] * area)


def head_of(steps: list[Step], shapes: list[tuple[int, ...]], given: set[int]) -> int:
    """The first linear layer after which there are only vectors: several batches go through it together.

    `given`: the values that no step makes.
    """
    for position, step in enumerate(steps):
        if step.operation == "linear":
            later = {value for other in steps[position:] for value in other.inputs}
            before = given | {value for other in steps[:position] for value in other.outputs}
            if all(len(shapes[value]) == 2 for value in later & before):
                return position
    return len(steps)


def needed_steps(steps: list[Step], wanted: set[int]) -> list[Step]:
    """The steps, of those given, that the wanted values depend on."""
    need, kept = set(wanted), []
    for step in reversed(steps):
        if need.intersection(step.outputs):
            need.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def work_of(step: Step, shapes: list[tuple[int, ...]]) -> int:
    """Multiply-adds of a convolution or linear layer on the whole map."""
    weight = argument(step.args, step.kwargs, 1, "weight", None)
    if step.operation not in {"conv2d", CONVOLUTION_AND_SUM, "linear"} or not isinstance(weight, Tensor):
        return 0
    return weight.numel() * (int(np.prod(shapes[step.outputs[0]])) // weight.shape[0])
