"""The occluders of a sweep, sorted into batches whose windows have similar sizes, with a plan for each batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.occlusion.cell_index import Occluded, Occluders, Parts
from vizapp.engine.occlusion.incremental_plan import BatchState, Box, IncrementalPlan
from vizapp.engine.occlusion.planner import Planner
from vizapp.engine.occlusion.replay import NotReplayable, ReplayRecording
from vizapp.engine.precision import Precision, arithmetic
from vizapp.engine.trace.sites import Site, channels_first

SIZE_CLASSES = 6  # of rows and of columns of occluders, by how much they touch


class OccluderBatches:
    """All occluders of a sweep, answered by recomputing their windows.

    `work` is the multiply-adds of a whole pass, `bound` these divided by those of one occluder. After `prepare`,
    `fallback_layer` says where and why whole maps begin, `clean_scores` `[P classes]` are the scores of the clean pictures,
    and `maps` `[P C h w]` the site's activations for them.

    Args:
        module: The network.
        scores: Its class scores `[N classes]` of a batch.
        clean: The pictures without an occluder, `[P C H W]`.
        patch: What the occluders show, `[P C H W]`.
        boxes: (top, left, bottom, right) of each occluder, inside the picture.
        site: The layer whose maps are summed; None for no layer.
        precision: How products are rounded in `answer`, which runs inside `arithmetic`.

    Raises:
        NotReplayable: the pass cannot be run again from its recording.
    """

    def __init__(
        self, module: nn.Module, scores: Callable[[Tensor], Tensor], clean: Tensor, patch: Tensor, boxes: Sequence[Box],
        site: Site | None, precision: Precision = "exact",
    ) -> None:  # fmt: skip
        self._module, self._scores, self._site = module, scores, site
        self._clean, self._patch, self._boxes = clean, patch, boxes
        recording = ReplayRecording(module, clean[:1].clone())
        self._answer, self._site_value = self._record(recording)
        self._wanted = {self._answer} if self._site_value is None else {self._answer, self._site_value}
        rows = sorted({(box[0], box[2]) for box in boxes})
        columns = sorted({(box[1], box[3]) for box in boxes})
        self._planner = Planner(recording, self._wanted, rows, columns, precision)
        needed = {*self._planner.affected, *self._wanted}
        self._first = {value: recording.clean[value] for value in needed}  # of the first picture
        self._steps = len(recording.steps)
        self._ranges = tuple(rows), tuple(columns)
        self._cells = np.array([(rows.index(box[::2]), columns.index(box[1::2])) for box in boxes])
        self._pixels = (
            torch.cat([clean, patch.to(clean)]).permute(0, 2, 3, 1).reshape(-1, clean.shape[1])
        )  # then what hides them
        occluder_work = self._planner.work_per_occluder()
        self._classes = _size_classes(occluder_work.mean(1)), _size_classes(occluder_work.mean(0))
        self._plans: dict[Any, IncrementalPlan] = {}
        self.work = sum(self._planner.work)
        self.bound = self.work / max(1.0, float(occluder_work[tuple(self._cells.T)].mean()))
        self.fallback_layer = ""

    def prepare(self) -> None:
        """Check that there is a plan, and keep the clean activations of all pictures that plans need.

        Raises:
            NotReplayable: an operation cannot run on many pictures at once, or the network runs other operations on
                another picture.
        """
        rows, columns = (len(kinds) for kinds in self._classes)
        self.fallback_layer = self._planner.plan(range(rows), range(columns)).fallback_layer
        keep = {*self._planner.affected, *self._wanted}
        parts = [self._first]
        for picture in range(1, len(self._clean)):
            again = ReplayRecording(self._module, self._clean[picture : picture + 1].clone(), keep)
            if self._record(again) != (self._answer, self._site_value) or len(again.steps) != self._steps:
                raise NotReplayable("it runs other operations on another input")
            parts.append(again.clean)
        joined = {value: torch.cat([part[value] for part in parts]) if parts[1:] else parts[0][value] for value in keep}
        self._first = {}
        for value, affected in self._planner.affected.items():
            last = affected.axes == (2, 3) and joined[value].ndim == 4
            self._planner.clean[value] = joined[value].contiguous(
                memory_format=torch.channels_last if last else torch.contiguous_format
            )
        self.clean_scores, self.maps = joined[self._answer], None
        if self._site is not None and self._site_value is not None:
            self.maps = channels_first(joined[self._site_value], self._site)

    def answer(self, positions: Sequence[int], channel: int | None, together: int) -> tuple[Tensor, Tensor | None]:
        """Scores `[n classes]` at some positions and sums `[n]` of the chosen map, `together` occluders per batch."""
        groups = self._groups(positions, together)
        ended: list[BatchState] = []
        sums = []
        for group in groups:
            plan, state = self._start([positions[n] for n in group])
            plan.run(state, 0, self._planner.head)
            if channel is not None and self._site is not None and self._site_value is not None:
                sums.append(self._summed(plan, state, self._site_value, channel))
                if self._site_value != self._answer:
                    state.values.pop(self._site_value, None)
            ended.append(state)
        taken = [n for group in groups for n in group]
        state = self._merge(ended, [positions[n] for n in taken])
        plan.run(state, self._planner.head)
        back = torch.from_numpy(np.argsort(taken)).to(self._clean.device)  # to the order of `positions`
        return state.values[self._answer][back], torch.cat(sums)[back] if sums else None

    def _record(self, recording: ReplayRecording) -> tuple[int, int | None]:
        """Record the pass; the numbers of its answer and of the site's value."""
        with torch.no_grad(), arithmetic(self._clean.device, "exact"), recording:
            scores = self._scores(recording.picture)
        answer = recording.number(scores)
        if self._site is None:
            return answer, None
        site = recording.numbers.get(self._site.name)
        if site is None:
            raise NotReplayable(f"{self._site.name} was not recorded")
        return answer, site

    def _groups(self, positions: Sequence[int], together: int) -> list[list[int]]:
        """Batches of occluders whose windows have similar sizes, as indices of `positions`."""

        def kind(n: int) -> tuple[int, int]:
            row, column = self._cells[positions[n] % len(self._boxes)]
            return self._classes[0][row], self._classes[1][column]

        groups: list[list[int]] = []
        for n in sorted(range(len(positions)), key=kind):
            full = not groups or len(groups[-1]) >= together
            if full or (kind(groups[-1][0]) != kind(n) and len(groups[-1]) >= together // 2):
                groups.append([])
            groups[-1].append(n)
        return groups

    def _start(self, positions: Sequence[int]) -> tuple[IncrementalPlan, BatchState]:
        """The plan for a batch of occluders, and its state, with the occluded parts of the pictures."""
        occluders = self._occluders(positions)
        kinds = tuple(
            frozenset(of[n] for n in each)
            for of, each in zip(self._classes, (occluders.rows, occluders.columns), strict=True)
        )  # a plan is as costly as answering a few occluders, so it serves all rows and columns of these classes
        if kinds not in self._plans:
            alike = (
                [n for n, kind in enumerate(of) if kind in chosen]
                for of, chosen in zip(self._classes, kinds, strict=True)
            )
            self._plans[kinds] = self._planner.plan(*alike)
        plan = self._plans[kinds]
        region, height, width = plan.regions[0], *self._clean.shape[2:]
        windows = plan.index(
            Occluded(Parts((height, width), region.tops, region.lefts, region.size), self._ranges, len(self._clean))
        )
        if self._site_value in plan.regions:
            plan.clean_windows(self._site_value)  # so that the batch has the indices that `_summed` needs
        state = plan.begin(occluders, self._clean.device)
        found = self._pixels.index_select(0, state.indices[windows])
        state.values[0] = found.view(-1, *region.size, found.shape[1]).permute(0, 3, 1, 2)
        return plan, state

    def _occluders(self, positions: Sequence[int]) -> Occluders:
        pictures, boxes = np.divmod(np.array(positions), len(self._boxes))
        rows, columns = self._cells[boxes].T
        return Occluders(rows, columns, pictures)

    def _merge(self, states: list[BatchState], positions: Sequence[int]) -> BatchState:
        """Batches that have only vectors left, as one."""
        if len(states) == 1:
            return states[0]
        values = {value: torch.cat([state.values[value] for state in states]) for value in states[0].values}
        return BatchState(self._occluders(positions), torch.cat([state.pictures for state in states]), (), values)

    def _summed(self, plan: IncrementalPlan, state: BatchState, value: int, channel: int) -> Tensor:
        """The sum of one channel of the site over all cells, for each occluder: `[n]`."""
        assert self._site is not None
        region, window = plan.regions.get(value), state.values[value]
        if region is None:
            return channels_first(window, self._site)[:, channel].flatten(1).sum(1)
        index = (slice(None), slice(None), slice(None), channel) if region.axes == (1, 2) else (slice(None), channel)
        change = window[index] - plan.clean_windows(value)(state)[index]
        return plan.clean[value][index].sum((1, 2)).index_select(0, state.pictures) + change.sum((1, 2))


def _size_classes(work: np.ndarray) -> list[int]:
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
