"""A square slid over pictures: what the network answers at each place, exactly, as fast as the machine allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import (
    SCRATCH,
    SHARE_OF_FREE_MEMORY,
    chunk_size,
    free_memory,
    in_chunks,
    is_out_of_memory,
)
from vizapp.engine.occlusion.batching import OccluderBatches
from vizapp.engine.occlusion.incremental_plan import Box
from vizapp.engine.occlusion.precision import Precision, arithmetic
from vizapp.engine.occlusion.replay import NotReplayable
from vizapp.engine.tap import Tap
from vizapp.engine.trace.sites import Footprint, Site, channels_first
from vizapp.errors import VizError

TOLERANCE = {torch.float64: 1e-10}  # of probabilities, against whole passes; 1e-5 for all other types
BATCH = 32  # squares on their way up at once; more leave the caches, fewer leave the cores idle
TOGETHER = 512  # squares at most that go through the last linear layers at once
WORK = 16e9  # multiply-adds after which there is to be something to show: a third of a second of one core
UNKNOWN = 4  # squares at once on a CPU where their work cannot be told
_NO_ROOM = "the memory does not suffice for a plan"
WORTH_IT = 1.02  # the least saving of multiply-adds that windows are cut for: first layers cost more than they count
# What torch raises where memory runs out, or where an operation of the network does not take a batch of windows.
# Nothing that a mistake in a rule would raise (AttributeError, KeyError, TypeError): that must not become a slow answer.
_TORCH_ERRORS = (MemoryError, RuntimeError, ValueError, IndexError)


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
        self._squares: OccluderBatches | None = None
        self._work = 0.0  # multiply-adds of a whole pass, where they are known
        self._alone = False
        self._footprint, self._together, self._fits = footprint, BATCH, TOGETHER
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
        scarce = self._squares is None or self._together < BATCH
        most = min(self._fits, 1 if self._alone else self._together if scarce else TOGETHER)
        if self._clean.device.type != "cpu":
            return most
        return max(1, min(most, round(WORK * self.bound / self._work) if self._work else UNKNOWN))

    def answer(self, places: Sequence[int], channel: int | None = None) -> Answers:
        """The answers at some places, in one go."""
        with torch.no_grad(), arithmetic(self._clean.device, self._precision):
            if self._squares is not None:
                try:
                    return Answers(tuple(places), *self._squares.answer(places, channel, self._together))
                except _TORCH_ERRORS as error:
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
            squares = self._made_squares(fold)
        except (NotReplayable, VizError) as reason:
            self._alone = isinstance(reason, NotReplayable)
            self._whole_passes(str(reason))
            return
        except _TORCH_ERRORS as error:
            no_room = is_out_of_memory(error)
            self._whole_passes(
                _NO_ROOM if no_room else f"no plan could be made for its operations ({_first_line(error)})"
            )
            return
        if self.bound < WORTH_IT:
            self._whole_passes(f"windows would save too little, they end at {squares.fallback_layer}")
            return
        try:
            self._try(squares)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._whole_passes(_NO_ROOM)

    def _try(self, squares: OccluderBatches) -> None:
        tries = sorted({0, len(self) // 2})
        channel = None if self._site is None else 0
        expected = self.whole(tries, channel)
        self._squares = squares
        found = self.answer(tries, channel)
        if self._squares is not None:
            self._judge(expected, found, squares.fallback_layer)

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

    def _made_squares(self, fold: bool) -> OccluderBatches:
        squares = OccluderBatches(self._module, self._scores, self._clean, self._patch, self.boxes, self._site, fold)
        self._work, self.bound = squares.work, squares.bound
        squares.prepare()
        return squares

    def _judge(self, expected: Answers, found: Answers, frontier: str) -> None:
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
        until = f"until {frontier}" if frontier else "to the end"
        self.facts["evaluation"] = (
            f"Only what a square touches is recomputed, {until}: {1 / self.bound:.0%} of the multiply-adds. Tried on "
            f"{len(expected.places)} squares against whole passes: probabilities differ by at most {deviation:.1e}."
        )
        if not exact:
            self.facts["precision"] = f"{self._precision}: probabilities off by up to {deviation:.1e} on those squares."

    def _whole_passes(self, reason: str) -> None:
        self._squares, self.bound = None, 1.0  # its plans hold the clean activations
        self.facts["evaluation"] = f"Each square by a whole pass: {reason}."

    # ----------------------------------------------------------------------------------------------- whole passes

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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _clipped(box: Box, height: int, width: int) -> Box:
    """The part of a box inside the picture; (0, 0, 0, 0) if there is none."""
    top, left, bottom, right = max(box[0], 0), max(box[1], 0), min(box[2], height), min(box[3], width)
    return (top, left, bottom, right) if top < bottom and left < right else (0, 0, 0, 0)
