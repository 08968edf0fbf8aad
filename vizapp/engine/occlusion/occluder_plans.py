"""The plans for the occluders of a sweep. They serve any picture, so a network keeps its last ones for the next picture."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.call_arguments import map_leaves
from vizapp.engine.occlusion.cell_index import Occluded, Occluders, Parts
from vizapp.engine.occlusion.incremental_plan import BatchState, Box, CleanMaps, IncrementalPlan
from vizapp.engine.occlusion.planner import Planner
from vizapp.engine.occlusion.replay import ReplayRecording
from vizapp.engine.precision import Precision
from vizapp.engine.trace.recording import Step

SIZE_CLASSES = 6  # of rows and of columns of occluders, by how much they touch
PARTS = {"cpu": 4}  # into which a full batch may be cut, for windows of fewer sizes; elsewhere 2, as each is launched
MOST_KEPT = 4  # networks whose plans are kept: they hold a copy of the weights that batch norms were folded into
_kept: WeakKeyDictionary[nn.Module, tuple[Hashable, OccluderPlans]] = WeakKeyDictionary()
_kept_lock = threading.Lock()


class OccluderPlans:
    """The plans for the occluders of a sweep, a plan for each kind of batch. Thread-safe.

    Attributes:
        answer: The number of the value that holds the scores.
        site: That of the layer whose maps are summed; None for no layer.
        work: Multiply-adds of a whole pass.
        bound: These, divided by those of one occluder.
        fallback_layer: Where and why whole maps begin.
        head: The step from which several batches go on together.
        error: The largest difference of probabilities from whole passes that was found; None before they were checked.

    Args:
        recording: A clean pass.
        answer: See above.
        site: See above.
        boxes: (top, left, bottom, right) of each occluder, inside the picture.
        precision: How products are rounded when the plans run.

    Raises:
        NotReplayable: an operation cannot run on many pictures at once.
    """

    def __init__(
        self, recording: ReplayRecording, answer: int, site: int | None, boxes: Sequence[Box], precision: Precision
    ) -> None:
        self.answer, self.site, self._count = answer, site, len(boxes)
        self._recorded = recording.steps, [_constants(step) for step in recording.steps]
        rows = sorted({(box[0], box[2]) for box in boxes})
        columns = sorted({(box[1], box[3]) for box in boxes})
        wanted = {answer} if site is None else {answer, site}
        self._planner = Planner(recording, wanted, rows, columns, precision)
        self.affected, self.needed = self._planner.affected, {*self._planner.affected, *wanted}
        self._ranges = tuple(rows), tuple(columns)
        self._cells = np.array([(rows.index(box[::2]), columns.index(box[1::2])) for box in boxes])
        occluder_work = self._planner.work_per_occluder()
        self._classes = size_classes(occluder_work.mean(1)), size_classes(occluder_work.mean(0))
        self._class_work = np.zeros((SIZE_CLASSES + 1, SIZE_CLASSES + 1))
        classes = np.meshgrid(*self._classes, indexing="ij")
        np.maximum.at(self._class_work, tuple(classes), occluder_work)
        self._parts = PARTS.get(recording.picture.device.type, 2)
        self.work, self.head = sum(self._planner.work), self._planner.head
        self.bound = self.work / max(1.0, float(occluder_work[tuple(self._cells.T)].mean()))
        self.fallback_layer = self._planner.plan(range(len(rows)), range(len(columns))).fallback_layer
        self.error: float | None = None
        self._plans: dict[Any, IncrementalPlan] = {}
        self._lock = threading.Lock()

    def serve(self, recording: ReplayRecording, answer: int, site: int | None) -> bool:
        """Whether the plans hold for another pass: it ran the same operations, with the same constants and weights."""
        steps, constants = self._recorded
        if (answer, site) != (self.answer, self.site) or len(recording.steps) != len(steps):
            return False
        return all(
            (old.operation, old.inputs, old.outputs) == (new.operation, new.inputs, new.outputs)
            and len(known) == len(found := _constants(new))
            and all(map(_same, known, found))
            for old, new, known in zip(steps, recording.steps, constants, strict=True)
        )

    def arranged(self, positions: Sequence[int]) -> list[int]:
        """The positions in another order: those beside each other have windows of similar sizes, the largest first."""
        return sorted(positions, key=self._rank)

    def groups(self, positions: Sequence[int], together: int) -> list[list[int]]:
        """Batches of occluders whose windows have similar sizes, as indices of `positions`.

        All windows of a batch are as large as its largest. Dynamic programming finds the batches that waste the least work,
        of at most `together` occluders, and not of less than a part of that.
        """
        order = sorted(range(len(positions)), key=lambda n: self._rank(positions[n]))
        kinds = np.array([self._kind(positions[n]) for n in order])
        count, least = len(order), min(len(order), max(1, together // self._parts))
        best, cut = np.full(count + 1, np.inf), np.zeros(count + 1, int)
        best[0] = 0
        for end in range(least, count + 1):
            first = max(0, end - together)
            rows, columns = np.maximum.accumulate(kinds[first:end][::-1])[::-1][: end - least - first + 1].T
            starts = np.arange(first, end - least + 1)
            costs = best[starts] + (end - starts) * self._class_work[rows, columns]
            best[end], cut[end] = costs.min(), starts[costs.argmin()]
        groups: list[list[int]] = []
        end = count
        while end:
            groups.append(order[cut[end] : end])
            end = int(cut[end])
        return groups[::-1]

    def _kind(self, position: int) -> tuple[int, int]:
        row, column = self._cells[position % self._count]
        return self._classes[0][row], self._classes[1][column]

    def _rank(self, position: int) -> tuple[int, int]:
        row, column = self._kind(position)
        return -row, -column if row % 2 else column

    def occluders(self, positions: Sequence[int]) -> Occluders:
        """Those at some positions: position i is box `i % len(boxes)` on picture `i // len(boxes)`."""
        pictures, boxes = np.divmod(np.array(positions), self._count)
        rows, columns = self._cells[boxes].T
        return Occluders(rows, columns, pictures)

    def begin(self, positions: Sequence[int], pixels: Tensor, clean: CleanMaps) -> tuple[IncrementalPlan, BatchState]:
        """The plan for a batch of occluders, and its state, with the occluded parts of the pictures.

        `pixels` `[2 P H W C]`: the pictures, and what hides them. `clean`: the activations of the pictures.
        """
        occluders = self.occluders(positions)
        kinds = tuple(
            frozenset(of[n] for n in each)
            for of, each in zip(self._classes, (occluders.rows, occluders.columns), strict=True)
        )  # a plan is as costly as answering a few occluders, so it serves all rows and columns of these classes
        pictures, (height, width, channels) = pixels.shape[1], pixels.shape[2:]
        with self._lock:
            if kinds not in self._plans:
                alike = (
                    [n for n, kind in enumerate(of) if kind in chosen]
                    for of, chosen in zip(self._classes, kinds, strict=True)
                )
                self._plans[kinds] = self._planner.plan(*alike)
            plan = self._plans[kinds]
            region = plan.regions[0]
            windows = plan.index(
                Occluded(Parts((height, width), region.tops, region.lefts, region.size), self._ranges, pictures)
            )
            if self.site in plan.regions:
                plan.clean_windows(self.site)  # so that the batch has the indices that its sums need
            state = plan.begin(occluders, clean, pixels.device)
        found = pixels.view(-1, channels).index_select(0, state.indices[windows])
        state.values[0] = found.view(-1, *region.size, channels).permute(0, 3, 1, 2)
        return plan, state


def kept_plans(module: nn.Module, key: Hashable) -> OccluderPlans | None:
    """The plans that were kept for a network under that key."""
    with _kept_lock:
        kept, plans = _kept.get(module, (None, None))
    return plans if kept == key else None


def keep_plans(module: nn.Module, key: Hashable, plans: OccluderPlans) -> None:
    """Keep plans for the next picture, in place of earlier ones of that network."""
    with _kept_lock:
        _kept.pop(module, None)
        while len(_kept) >= MOST_KEPT:
            del _kept[next(iter(_kept))]
        _kept[module] = key, plans


def _constants(step: Step) -> list[tuple[Any, tuple[int, int]]]:
    """What an operation is called with; of each tensor also where it lies and how often it was written to."""
    found: list[tuple[Any, tuple[int, int]]] = []

    def note(leaf: Any) -> None:
        held = isinstance(leaf, Tensor)
        found.append((leaf, (leaf.data_ptr(), 0 if leaf.is_inference() else leaf._version) if held else (0, 0)))

    map_leaves((step.args, step.kwargs), note)
    return found


def _same(one: tuple[Any, tuple[int, int]], other: tuple[Any, tuple[int, int]]) -> bool:
    (old, before), (new, after) = one, other
    if not isinstance(old, Tensor):
        return type(old) is type(new) and bool(old == new)
    if old is new:
        return before == after
    return isinstance(new, Tensor) and old.dtype == new.dtype and old.device == new.device and torch.equal(old, new)


def size_classes(work: np.ndarray) -> list[int]:
    """Rows (or columns) of occluders in at most `SIZE_CLASSES` classes, chosen to waste the least work.

    All occluders of a class get windows as large as its largest needs. Dynamic programming finds the best cuts.
    """
    order = np.argsort(work, kind="stable")
    ranked, count = work[order], len(work)
    best = np.full((SIZE_CLASSES + 1, count + 1), np.inf)
    cut = np.zeros((SIZE_CLASSES + 1, count + 1), int)
    best[0, 0] = 0
    for kinds in range(1, SIZE_CLASSES + 1):
        for end in range(1, count + 1):
            costs = best[kinds - 1, :end] + (end - np.arange(end)) * ranked[end - 1]
            cut[kinds, end] = int(costs.argmin())
            best[kinds, end] = costs[cut[kinds, end]]
    answer, end = np.zeros(count, int), count
    for kinds in range(int(best[:, count].argmin()), 0, -1):
        answer[order[cut[kinds, end] : end]] = kinds
        end = cut[kinds, end]
    return [int(kind) for kind in answer]
