"""A square slid over pictures: what the network answers at each place, exactly, as fast as the machine allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.chunks import SCRATCH, SHARE_OF_FREE_MEMORY, chunk_size, free_memory, in_chunks, is_out_of_memory
from vizapp.engine.script import Script, Unrepeatable
from vizapp.engine.sites import Footprint, Site, channels_first
from vizapp.engine.tap import Tap
from vizapp.engine.windows import Box, Plan, Planner, Run
from vizapp.errors import VizError

Precision = Literal["exact", "tf32", "bf16"]
TOLERANCE = {torch.float64: 1e-10}  # of probabilities, against whole passes; 1e-5 for all other types
BATCH = 32  # squares on their way up at once; more leave the caches, fewer leave the cores idle
TOGETHER = 512  # squares at most that go through the last linear layers at once
WORK = 16e9  # multiply-adds after which there is to be something to show: a third of a second of one core
UNKNOWN = 4  # squares at once on a CPU where their work cannot be told
KINDS = 6  # of rows and of columns of squares, by how much they touch
_NO_ROOM = "the memory does not suffice for a plan"
WORTH_IT = 1.02  # the least saving of multiply-adds that windows are cut for: first layers cost more than they count
# What running an operation on windows was seen to raise where it is not what the rules took it for.
_FAILURES = (MemoryError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError)


@dataclass(frozen=True)
class Answers:
    """Some finished places: `places` index the sweep's boxes; `scores` `[n classes]`; `sums` `[n]`, of the chosen map."""

    places: tuple[int, ...]
    scores: Tensor
    sums: Tensor | None


class Sweep:
    """All squares of one pass over some pictures of one size.

    `clean` and `patch` are `[P C H W]`: a square shows `patch` where the picture shows `clean`. `boxes` are (top, left,
    bottom, right) in pixels and may reach over the border. `scores(batch)` runs `module` and gives `[N classes]`.
    `site` is the layer whose maps are summed. Place number i is box `i % len(boxes)` on picture `i // len(boxes)`. With the
    module's `footprint` as many places are answered at once as fit into memory.

    After construction: `clean_scores` `[P classes]`, `maps` (the site's clean activations `[P C h w]`, or None),
    `facts` (how it is computed, in words) and `bound` (multiply-adds of a whole pass over those of a place).
    """

    def __init__(
        self, module: nn.Module, scores: Callable[[Tensor], Tensor], clean: Tensor, patch: Tensor, boxes: Sequence[Box],
        site: Site | None = None, precision: Precision = "exact", windows: bool = True, fold: bool = True,
        footprint: Footprint | None = None,
    ) -> None:  # fmt: skip
        self._module, self._scores, self._site = module, scores, site
        self._clean, self._patch = clean, patch
        self.boxes = [_clipped(box, *clean.shape[2:]) for box in boxes]
        self._precision = precision
        self.facts: dict[str, str] = {}
        self.bound = 1.0
        self._planner: Planner | None = None
        self._plans: dict[Any, Plan] = {}
        self._work = 0.0  # multiply-adds of a whole pass, where they are known
        self._alone = False
        self._footprint, self._together, self._fits = footprint, BATCH, TOGETHER
        self._rows = sorted({(box[0], box[2]) for box in self.boxes})
        self._columns = sorted({(box[1], box[3]) for box in self.boxes})
        self.clean_scores, self.maps = self._clean_pass()
        if not windows:
            self.facts["evaluation"] = "Each square by a whole pass."
        elif self._has_no_room():
            self._whole_passes(_NO_ROOM)
        else:
            self._prepare(fold)

    # ---------------------------------------------------------------------------------------------------- asking

    def __len__(self) -> int:
        return len(self.boxes) * len(self._clean)

    def batches(self, order: Sequence[int] | None = None, channel: int | None = None) -> Iterator[Answers]:
        """The answers in that order of places (all of them by default), some at a time.

        `channel`: of the site; its activations are summed over all cells. Stop iterating to stop the work.
        """
        places = list(range(len(self)) if order is None else order)
        start = 0
        while start < len(places):
            self._together = self._fitting()
            part = places[start : start + self._at_once()]
            fitting = 0
            for answers in in_chunks(part, lambda part: self.answer(part, channel), len(part)):
                fitting = max(fitting, len(answers.places))
                yield answers
            self._fits = self._fits if fitting == len(part) else min(self._fits, fitting)
            start += len(part)

    def _at_once(self) -> int:
        """How many places are answered at once.

        Not by the clock: how many are added up together decides on the last bits of their answers, which are to be the
        same however busy the machine is.
        """
        scarce = self._planner is None or self._together < BATCH
        most = min(self._fits, 1 if self._alone else self._together if scarce else TOGETHER)
        if self._clean.device.type != "cpu":
            return most
        return max(1, min(most, round(WORK * self.bound / self._work) if self._work else UNKNOWN))

    def answer(self, places: Sequence[int], channel: int | None = None) -> Answers:
        """The answers at some places, in one go."""
        with torch.no_grad(), arithmetic(self._clean.device, self._precision):
            if self._planner is not None:
                try:
                    return self._by_windows(self._planner, places, channel)
                except _FAILURES as error:
                    if is_out_of_memory(error) and len(places) > 1:
                        raise
                    self._whole_passes(
                        _NO_ROOM
                        if is_out_of_memory(error)
                        else f"an operation could not be run on windows ({_first_line(error)})"
                    )
            return self._by_whole_passes(places, channel)

    def whole(self, places: Sequence[int], channel: int | None = None) -> Answers:
        """The same by whole passes over occluded pictures, in exact arithmetic."""
        with torch.no_grad(), arithmetic(self._clean.device, "exact"):
            return self._by_whole_passes(places, channel)

    def pictures(self, places: Sequence[int]) -> Tensor:
        """The occluded pictures `[N C H W]`."""
        shown = []
        for picture, box in map(self._place, places):
            one = self._clean[picture].clone()
            top, left, bottom, right = box
            one[:, top:bottom, left:right] = self._patch[picture, :, top:bottom, left:right]
            shown.append(one)
        batch = torch.stack(shown)
        last = self._clean.is_contiguous(memory_format=torch.channels_last)
        return batch.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def look(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores and the site's activations, channels first, of some pictures."""
        if self._site is None:
            return self._scores(batch.clone()), None
        with Tap(self._module, {self._site.name}, stop=False) as tap:
            scores = self._scores(batch.clone())
        if self._site.name not in tap.kept:
            raise VizError(f"The network did not compute {self._site.name!r} on this picture; pick another layer.")
        return scores, channels_first(tap.kept[self._site.name], self._site.layout)

    # -------------------------------------------------------------------------------------------------- preparing

    def _clean_pass(self) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad(), arithmetic(self._clean.device, "exact"):
            parts = [self.look(self._clean[p : p + 1]) for p in range(len(self._clean))]
        maps = None if self._site is None else torch.cat([part[1] for part in parts if part[1] is not None])
        return torch.cat([part[0] for part in parts]), maps

    def _prepare(self, fold: bool) -> None:
        """Make the plan and try it on two squares; without one that is right, whole passes it is."""
        try:
            planner = self._made_planner(fold)
        except (Unrepeatable, VizError) as reason:
            self._alone = isinstance(reason, Unrepeatable)
            self._whole_passes(str(reason))
            return
        except _FAILURES as error:
            no_room = is_out_of_memory(error)
            self._whole_passes(
                _NO_ROOM if no_room else f"no plan could be made for its operations ({_first_line(error)})"
            )
            return
        if self.bound < WORTH_IT:
            self._whole_passes(f"windows would save too little, they end at {self._frontier}")
            return
        try:
            self._try(planner)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._whole_passes(_NO_ROOM)

    def _try(self, planner: Planner) -> None:
        tries = sorted({0, len(self) // 2})
        channel = None if self._site is None else 0
        expected = self.whole(tries, channel)
        self._planner = planner
        found = self.answer(tries, channel)
        if self._planner is not None:
            self._judge(expected, found)

    def _has_no_room(self) -> bool:
        """Whether the clean activations, which a plan keeps, would take too much."""
        if self._footprint is None:
            return False
        free = free_memory(self._clean.device) * SHARE_OF_FREE_MEMORY
        return 2 * len(self._clean) * self._footprint.total > free

    def _fitting(self) -> int:
        """How many places to answer at once, by what whole passes would take."""
        if self._footprint is None:
            return BATCH
        return chunk_size(int(SCRATCH * self._footprint.widest), self._clean.device, BATCH)

    def _made_planner(self, fold: bool) -> Planner:
        first = Script(self._module, self._clean[:1].clone())
        answer, site = self._write(first, self._clean[:1])
        self._answer, self._site_value = answer, site
        wanted = {answer} if site is None else {answer, site}
        planner = Planner(first, wanted, self._rows, self._columns, fold)
        work = planner.squares_work()
        places = [(self._rows.index(box[::2]), self._columns.index(box[1::2])) for box in self.boxes]
        self._cells = places
        self._kinds = _kinds(work.mean(1)), _kinds(work.mean(0))
        self._work = sum(planner.work)
        self.bound = self._work / max(1.0, float(np.mean([work[cell] for cell in places])))
        plan = planner.plan(range(len(self._rows)), range(len(self._columns)))
        self._frontier = plan.frontier
        keep = set(planner.touched)
        parts = []
        for picture in range(len(self._clean)):
            again = Script(self._module, self._clean[picture : picture + 1].clone(), keep)
            same = self._write(again, self._clean[picture : picture + 1]) == (answer, site)
            if not same or len(again.steps) != len(first.steps):
                raise Unrepeatable("it takes another course on another picture")
            parts.append(again.clean)
        for value in keep:
            maps = torch.cat([part[value] for part in parts])
            last = planner.touched[value].axes == (2, 3) and maps.ndim == 4
            planner.clean[value] = maps.contiguous(
                memory_format=torch.channels_last if last else torch.contiguous_format
            )
        return planner

    def _write(self, script: Script, picture: Tensor) -> tuple[int, int | None]:
        """Run the pass under the script; the numbers of its answer and of the site's value."""
        with torch.no_grad(), arithmetic(self._clean.device, "exact"), script:
            answer = script.number(self._scores(script.picture))
        if self._site is None:
            return answer, None
        site = script.numbers.get(self._site.name)
        if site is None:
            raise Unrepeatable(f"{self._site.name} was not written down")
        return answer, site

    def _judge(self, expected: Answers, found: Answers) -> None:
        """Keep the plan if it gave what whole passes give; say how near it came."""
        right, given = expected.scores.double(), found.scores.double()
        deviation = float((right.softmax(1) - given.softmax(1)).abs().max())
        others = [float((right - given).abs().max()) / max(1e-30, float(right.abs().max()))]
        if expected.sums is not None and found.sums is not None and self.maps is not None:
            size = self.maps[:, 0].abs().sum().clamp_min(float(expected.sums.abs().max()))
            others.append(float((expected.sums - found.sums).abs().max()) / max(1e-30, float(size)))
        tolerance = TOLERANCE.get(self._clean.dtype, 1e-5)
        exact = self._precision == "exact"
        if exact and not (deviation <= tolerance and max(others) <= 100 * tolerance):
            self._whole_passes(f"windows gave numbers that are off by up to {max(deviation, *others):.1e}")
            return
        until = f"until {self._frontier}" if self._frontier else "to the end"
        self.facts["evaluation"] = (
            f"Only what a square touches is recomputed, {until}: {1 / self.bound:.0%} of the multiply-adds. Tried on "
            f"{len(expected.places)} squares against whole passes: probabilities differ by at most {deviation:.1e}."
        )
        if not exact:
            self.facts["precision"] = f"{self._precision}: probabilities off by up to {deviation:.1e} on those squares."

    def _whole_passes(self, reason: str) -> None:
        self._planner, self.bound = None, 1.0
        self._plans.clear()  # they hold the clean activations
        self.facts["evaluation"] = f"Each square by a whole pass: {reason}."

    # -------------------------------------------------------------------------------------------------- computing

    def _by_windows(self, planner: Planner, places: Sequence[int], channel: int | None) -> Answers:
        groups = self._groups(places)
        ended: list[Run] = []
        sums = []
        for group in groups:
            run = self._started(planner, [places[n] for n in group])
            run.plan.run(run, 0, planner.head)
            if channel is not None and self._site is not None and self._site_value is not None:
                sums.append(self._summed(run, self._site_value, channel))
                if self._site_value != self._answer:
                    run.values.pop(self._site_value, None)
            ended.append(run)
        run = _together(ended)
        run.plan.run(run, planner.head)
        taken = [n for group in groups for n in group]
        back = sorted(range(len(taken)), key=taken.__getitem__)  # to the order that was asked for
        scores = run.whole(self._answer)[back]
        return Answers(tuple(places), scores, torch.cat(sums)[back] if sums else None)

    def _groups(self, places: Sequence[int]) -> list[list[int]]:
        """Batches of squares whose windows are of like size, as indices of `places`."""

        def kind(n: int) -> tuple[int, int]:
            row, column = self._cells[places[n] % len(self.boxes)]
            return self._kinds[0][row], self._kinds[1][column]

        groups: list[list[int]] = []
        for n in sorted(range(len(places)), key=kind):
            full = not groups or len(groups[-1]) >= self._together
            if full or (kind(groups[-1][0]) != kind(n) and len(groups[-1]) >= self._together // 2):
                groups.append([])
            groups[-1].append(n)
        return groups

    def _started(self, planner: Planner, places: Sequence[int]) -> Run:
        """A run of those squares, with what they show of the pictures."""
        cells = [self._cells[place % len(self.boxes)] for place in places]
        rows, columns = [cell[0] for cell in cells], [cell[1] for cell in cells]
        kinds = tuple(
            frozenset(of[n] for n in each) for of, each in zip(self._kinds, (rows, columns), strict=True)
        )  # a plan takes as long to make as some squares to answer: it is made for all rows and columns of these kinds
        if kinds not in self._plans:
            alike = (
                [n for n, kind in enumerate(of) if kind in chosen]
                for of, chosen in zip(self._kinds, kinds, strict=True)
            )
            self._plans[kinds] = planner.plan(*alike)
        run = Run(self._plans[kinds], rows, columns, [place // len(self.boxes) for place in places])
        run.values[0] = self._windows_of_pictures(run.plan, run, [self._place(place) for place in places])
        return run

    def _windows_of_pictures(self, plan: Plan, run: Run, taken: list[tuple[int, Box]]) -> Tensor:
        frame, parts = plan.frames[0], []
        (h, w) = frame.size
        for (picture, (top, left, bottom, right)), r, c in zip(taken, run.rows, run.columns, strict=True):
            y, x = frame.tops[r], frame.lefts[c]
            part = self._clean[picture, :, y : y + h, x : x + w].clone()
            part[:, top - y : bottom - y, left - x : right - x] = self._patch[picture, :, top:bottom, left:right]
            parts.append(part)
        return torch.stack(parts).contiguous(memory_format=torch.channels_last)

    def _summed(self, run: Run, value: int, channel: int) -> Tensor:
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

    def _by_whole_passes(self, places: Sequence[int], channel: int | None) -> Answers:
        size = 1 if self._alone else len(places)
        scores, sums = [], []
        for start in range(0, len(places), size):
            batch = self.pictures(places[start : start + size])
            if channel is None or self._site is None:
                scores.append(self._scores(batch))
                continue
            given, maps = self.look(batch)
            assert maps is not None
            scores.append(given)
            sums.append(maps[:, channel].flatten(1).sum(1))
        return Answers(tuple(places), torch.cat(scores), torch.cat(sums) if sums else None)

    def _place(self, place: int) -> tuple[int, Box]:
        picture, box = divmod(place, len(self.boxes))
        return picture, self.boxes[box]


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """How products are rounded inside the block: "exact" is the type's own precision, also where a GPU would take TF32."""
    if device.type != "cuda":
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _clipped(box: Box, height: int, width: int) -> Box:
    """The part of a box inside the picture; (0, 0, 0, 0) if there is none."""
    top, left, bottom, right = max(box[0], 0), max(box[1], 0), min(box[2], height), min(box[3], width)
    return (top, left, bottom, right) if top < bottom and left < right else (0, 0, 0, 0)


def _together(runs: list[Run]) -> Run:
    """Runs that have only whole values left, as one."""
    if len(runs) == 1:
        return runs[0]
    whole = Run(
        runs[0].plan,
        [r for run in runs for r in run.rows],
        [c for run in runs for c in run.columns],
        [p for run in runs for p in run.pictures],
    )
    for value in runs[0].values:
        whole.values[value] = torch.cat([run.whole(value) for run in runs])
    return whole


def _kinds(work: np.ndarray) -> list[int]:
    """Rows (or columns) of squares in at most `KINDS` kinds, so that the least is computed in vain.

    All squares of a kind get windows as large as the largest needs; the best cuts of the sorted rows are searched.
    """
    order = np.argsort(work, kind="stable")
    ranked, count = work[order], len(work)
    best = np.full((KINDS + 1, count + 1), np.inf)
    cut = np.zeros((KINDS + 1, count + 1), int)
    best[0, 0] = 0
    for kinds in range(1, KINDS + 1):
        for end in range(1, count + 1):
            costs = best[kinds - 1, :end] + (end - np.arange(end)) * ranked[end - 1]
            cut[kinds, end] = int(costs.argmin())
            best[kinds, end] = costs[cut[kinds, end]]
    answer, end = np.zeros(count, int), count
    for kinds in range(int(best[:, count].argmin()), 0, -1):
        answer[order[cut[kinds, end] : end]] = kinds
        end = cut[kinds, end]
    return [int(kind) for kind in answer]
