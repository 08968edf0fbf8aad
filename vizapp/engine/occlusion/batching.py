"""The squares of a sweep by windows: plans for squares of like size, and batches of them on their way up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.occlusion.incremental_plan import BatchState, Box, IncrementalPlan
from vizapp.engine.occlusion.planner import Planner
from vizapp.engine.occlusion.precision import arithmetic
from vizapp.engine.occlusion.replay import NotReplayable, ReplayRecording
from vizapp.engine.trace.sites import Site, channels_first

SIZE_CLASSES = 6  # of rows and of columns of squares, by how much they touch


class OccluderBatches:
    """All squares of a sweep, answered by what is recomputed on their windows.

    The arguments are those of `Sweep`; the boxes lie inside of the picture. After construction: `work` (multiply-adds of a
    whole pass) and `bound` (these over those of a place). After `prepare`: `frontier` (where and why whole maps begin).

    Raises:
        Unrepeatable: the pass cannot be run again from what was written down.
    """

    def __init__(
        self, module: nn.Module, scores: Callable[[Tensor], Tensor], clean: Tensor, patch: Tensor, boxes: Sequence[Box],
        site: Site | None, fold: bool,
    ) -> None:  # fmt: skip
        self._module, self._scores, self._site = module, scores, site
        self._clean, self._patch, self._boxes = clean, patch, boxes
        script = ReplayRecording(module, clean[:1].clone())
        self._answer, self._site_value = self._write(script, clean[:1])
        wanted = {self._answer} if self._site_value is None else {self._answer, self._site_value}
        rows = sorted({(box[0], box[2]) for box in boxes})
        columns = sorted({(box[1], box[3]) for box in boxes})
        self._planner = Planner(script, wanted, rows, columns, fold)
        self._steps = len(script.steps)
        self._cells = [(rows.index(box[::2]), columns.index(box[1::2])) for box in boxes]
        squares_work = self._planner.occluders_work()
        self._kinds = _size_classes(squares_work.mean(1)), _size_classes(squares_work.mean(0))
        self._plans: dict[Any, IncrementalPlan] = {}
        self.work = sum(self._planner.work)
        self.bound = self.work / max(1.0, float(np.mean([squares_work[cell] for cell in self._cells])))
        self.fallback_layer = ""

    def prepare(self) -> None:
        """See that there is a plan, and keep the clean activations of all pictures that plans need.

        Raises:
            Unrepeatable: an operation cannot be run on many pictures at once, or the network takes another course on
                another picture.
        """
        rows, columns = (len(kinds) for kinds in self._kinds)
        self.fallback_layer = self._planner.plan(range(rows), range(columns)).fallback_layer
        keep = set(self._planner.touched)
        parts = []
        for picture in range(len(self._clean)):
            again = ReplayRecording(self._module, self._clean[picture : picture + 1].clone(), keep)
            same = self._write(again, self._clean[picture : picture + 1]) == (self._answer, self._site_value)
            if not same or len(again.steps) != self._steps:
                raise NotReplayable("it takes another course on another picture")
            parts.append(again.clean)
        for value in keep:
            maps = torch.cat([part[value] for part in parts])
            last = self._planner.touched[value].axes == (2, 3) and maps.ndim == 4
            self._planner.clean[value] = maps.contiguous(
                memory_format=torch.channels_last if last else torch.contiguous_format
            )

    def answer(self, places: Sequence[int], channel: int | None, together: int) -> tuple[Tensor, Tensor | None]:
        """Scores `[n classes]` at some places and, of the chosen map, sums `[n]`; `together` squares on their way at once."""
        groups = self._groups(places, together)
        ended: list[BatchState] = []
        sums = []
        for group in groups:
            run = self._started([places[n] for n in group])
            run.plan.run(run, 0, self._planner.head)
            if channel is not None and self._site is not None and self._site_value is not None:
                sums.append(self._summed(run, self._site_value, channel))
                if self._site_value != self._answer:
                    run.values.pop(self._site_value, None)
            ended.append(run)
        run = _together(ended)
        run.plan.run(run, self._planner.head)
        taken = [n for group in groups for n in group]
        back = sorted(range(len(taken)), key=taken.__getitem__)  # to the order that was asked for
        scores = run.whole(self._answer)[back]
        return scores, torch.cat(sums)[back] if sums else None

    def _write(self, script: ReplayRecording, picture: Tensor) -> tuple[int, int | None]:
        """Run the pass under the script; the numbers of its answer and of the site's value."""
        with torch.no_grad(), arithmetic(self._clean.device, "exact"), script:
            answer = script.number(self._scores(script.picture))
        if self._site is None:
            return answer, None
        site = script.numbers.get(self._site.name)
        if site is None:
            raise NotReplayable(f"{self._site.name} was not written down")
        return answer, site

    def _groups(self, places: Sequence[int], together: int) -> list[list[int]]:
        """Batches of squares whose windows are of like size, as indices of `places`."""

        def kind(n: int) -> tuple[int, int]:
            row, column = self._cells[places[n] % len(self._boxes)]
            return self._kinds[0][row], self._kinds[1][column]

        groups: list[list[int]] = []
        for n in sorted(range(len(places)), key=kind):
            full = not groups or len(groups[-1]) >= together
            if full or (kind(groups[-1][0]) != kind(n) and len(groups[-1]) >= together // 2):
                groups.append([])
            groups[-1].append(n)
        return groups

    def _started(self, places: Sequence[int]) -> BatchState:
        """A run of those squares, with what they show of the pictures."""
        cells = [self._cells[place % len(self._boxes)] for place in places]
        rows, columns = [cell[0] for cell in cells], [cell[1] for cell in cells]
        kinds = tuple(
            frozenset(of[n] for n in each) for of, each in zip(self._kinds, (rows, columns), strict=True)
        )  # a plan takes as long to make as some squares to answer: it is made for all rows and columns of these kinds
        if kinds not in self._plans:
            alike = (
                [n for n, kind in enumerate(of) if kind in chosen]
                for of, chosen in zip(self._kinds, kinds, strict=True)
            )
            self._plans[kinds] = self._planner.plan(*alike)
        run = BatchState(self._plans[kinds], rows, columns, [place // len(self._boxes) for place in places])
        run.values[0] = self._windows_of_pictures(run, [self._boxes[place % len(self._boxes)] for place in places])
        return run

    def _windows_of_pictures(self, run: BatchState, boxes: Sequence[Box]) -> Tensor:
        frame, parts = run.plan.frames[0], []
        (h, w) = frame.size
        for picture, (top, left, bottom, right), r, c in zip(run.pictures, boxes, run.rows, run.columns, strict=True):
            y, x = frame.tops[r], frame.lefts[c]
            part = self._clean[picture, :, y : y + h, x : x + w].clone()
            part[:, top - y : bottom - y, left - x : right - x] = self._patch[picture, :, top:bottom, left:right]
            parts.append(part)
        return torch.stack(parts).contiguous(memory_format=torch.channels_last)

    def _summed(self, run: BatchState, value: int, channel: int) -> Tensor:
        """The sum over all cells of one channel of the site, at each place: `[n]`."""
        assert self._site is not None
        frame = run.plan.frames.get(value)
        if frame is None:
            return channels_first(run.whole(value), self._site.layout)[:, channel].flatten(1).sum(1)
        index = (slice(None), slice(None), slice(None), channel) if frame.axes == (1, 2) else (slice(None), channel)
        window, clean = run.values[value][index], run.plan.clean[value][index]
        (h, w) = frame.size
        before = [
            clean[p, frame.tops[r] : frame.tops[r] + h, frame.lefts[c] : frame.lefts[c] + w].sum()
            for p, r, c in zip(run.pictures, run.rows, run.columns, strict=True)
        ]
        return clean.sum((1, 2))[run.pictures] + window.sum((1, 2)) - torch.stack(before)


def _together(runs: list[BatchState]) -> BatchState:
    """Runs that have only whole values left, as one."""
    if len(runs) == 1:
        return runs[0]
    whole = BatchState(
        runs[0].plan,
        [r for run in runs for r in run.rows],
        [c for run in runs for c in run.columns],
        [p for run in runs for p in run.pictures],
    )
    for value in runs[0].values:
        whole.values[value] = torch.cat([run.whole(value) for run in runs])
    return whole


def _size_classes(work: np.ndarray) -> list[int]:
    """Rows (or columns) of squares in at most `KINDS` kinds, so that the least is computed in vain.

    All squares of a kind get windows as large as the largest needs; the best cuts of the sorted rows are searched.
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
