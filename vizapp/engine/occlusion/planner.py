"""What a change inside a square of the picture changes further up, computed there and nowhere else, exactly.

One clean pass is written down (`script.py`). A square of the picture touches, at each layer, the cells whose receptive
field meets it (`fields.py`): a window. For a batch of squares each layer is computed on those windows alone, all of one
size; what an operation needs around a window is taken from the clean pass. A window may be larger than what is
touched: what was not touched comes out as in the clean pass. Where the windows cover most of the map, and from an
operation on that mixes all cells, whole maps are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vizapp.engine.call_arguments import argument
from vizapp.engine.occlusion.incremental_plan import AffectedCells, IncrementalPlan, Operate, Range
from vizapp.engine.occlusion.replay import ReplayRecording, fold_batch_norm, receptive_fields_of
from vizapp.engine.occlusion.rule_table import window_rule
from vizapp.engine.occlusion.whole_map_rules import whole_rule
from vizapp.engine.receptive_field.interval import Interval, ReceptiveField
from vizapp.engine.trace.recording import Step

WHOLE = 0.8  # share of a map from which on computing all of it costs less than cutting and pasting


def affected_cells(
    field: ReceptiveField, shape: tuple[int, ...], rows: Sequence[Range], columns: Sequence[Range]
) -> AffectedCells | None:
    """What changed rows and columns of pixels touch of a value; None where it has no cells."""
    down, across = field.rows.axis, field.columns.axis
    if down is None or across is None or not shape or shape[0] != 1 or 0 in (down, across):
        return None
    spans = _touched(field.rows, rows), _touched(field.columns, columns)
    return AffectedCells((down, across), (shape[down], shape[across]), *spans)


def _touched(span: Interval, ranges: Sequence[Range]) -> tuple[np.ndarray, np.ndarray]:
    first, last = np.array(ranges).T[:, :, None]
    hit = (span.low < last) & (span.high > first)  # [ranges cells]
    some = hit.any(1)
    return np.where(some, hit.argmax(1), 0), np.where(some, hit.shape[1] - hit[:, ::-1].argmax(1), 0)


class Planner:
    """Makes plans for the pass in `script`, up to the `wanted` values, for squares at some rows and columns of pixels.

    `clean` is where the plans look up clean maps: the caller puts those of all `touched` values in.
    """

    def __init__(
        self,
        script: ReplayRecording,
        wanted: set[int],
        rows: Sequence[Range],
        columns: Sequence[Range],
        fold: bool = True,
    ) -> None:
        fields = receptive_fields_of(script.steps, script.shapes)
        self.steps = _needed(fold_batch_norm(script.steps, wanted) if fold else list(script.steps), wanted)
        self.shapes = script.shapes
        self.clean: dict[int, Tensor] = {}
        self.padded: dict[Any, Tensor] = {}
        self.touched = {
            value: found
            for value, shape in enumerate(self.shapes)
            if (found := affected_cells(fields[value], shape, rows, columns)) is not None
        }
        self.last_use = {value: place for place, step in enumerate(self.steps) for value in step.inputs}
        self.last_use |= dict.fromkeys(wanted, len(self.steps))  # nothing may be written over them
        self.work = [work_of(step, self.shapes) for step in self.steps]
        self.head = self._head(wanted)

    def plan(self, rows: Sequence[int], columns: Sequence[int]) -> IncrementalPlan:
        """The plan for squares at some of the rows and columns, by their numbers.

        Raises:
            Unrepeatable: an operation cannot be run on many pictures at once.
        """
        plan = IncrementalPlan(
            self.steps, self.shapes, clean=self.clean, last_use=self.last_use, padded_maps=self.padded
        )
        plan.frames[0] = self.touched[0].frame(rows, columns)
        for place, step in enumerate(self.steps):
            self._add(plan, place, step, rows, columns)
        plan.full_work = sum(self.work)
        return plan

    def occluders_work(self) -> np.ndarray:
        """Multiply-adds that each square needs by arithmetic, on just the cells that it touches: `[rows columns]`."""
        start = self.touched[0].cells()
        total = np.zeros(start.shape)
        for step, work in zip(self.steps, self.work, strict=True):
            found = self.touched.get(step.outputs[0])
            total += work if found is None else work * found.cells() / (found.length[0] * found.length[1])
        return total

    def _add(self, plan: IncrementalPlan, place: int, step: Step, rows: Sequence[int], columns: Sequence[int]) -> None:
        operate: Operate | None = None
        windowed = all(value in plan.frames for value in step.inputs)
        frames = {v: self.touched[v].frame(rows, columns) for v in step.outputs if v in self.touched}
        area = max((frame.share for frame in frames.values()), default=1.0)
        if windowed and area < WHOLE and len(frames) == len(step.outputs):
            operate = window_rule(plan, step, list(frames.values()), place)
        if operate is not None:
            plan.frames |= frames
        else:
            operate = whole_rule(plan, step, place)
            if windowed and not plan.fallback_layer:
                covered = area >= WHOLE and any(max(frame.length) > 1 for frame in frames.values())
                why = "windows cover the map" if covered else "not local"
                plan.fallback_layer = f"{step.name} ({why})"
            area = 1.0
        plan.operations.append(operate)
        plan.work += round(self.work[place] * area)

    def _head(self, wanted: set[int]) -> int:
        """The first linear layer from which on there are only vectors: many batches go through it at once."""
        for place, step in enumerate(self.steps):
            later = {value for other in self.steps[place:] for value in other.inputs}
            before = {0, *(value for other in self.steps[:place] for value in other.outputs)}
            alive = later & before
            if step.operation == "linear" and all(len(self.shapes[value]) == 2 for value in alive):
                return place
        return len(self.steps)


def _needed(steps: list[Step], wanted: set[int]) -> list[Step]:
    """The steps that the wanted values depend on."""
    need, kept = set(wanted), []
    for step in reversed(steps):
        if need.intersection(step.outputs):
            need.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def work_of(step: Step, shapes: list[tuple[int, ...]]) -> int:
    """Multiply-adds of a convolution or linear layer on the whole map."""
    weight = argument(step.args, step.kwargs, 1, "weight", None)
    if step.operation not in {"conv2d", "linear"} or not isinstance(weight, Tensor):
        return 0
    return weight.numel() * (int(np.prod(shapes[step.outputs[0]])) // weight.shape[0])
