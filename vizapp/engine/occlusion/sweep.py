"""Occlusion sensitivity: what the network answers while an occluder slides over the picture (Zeiler & Fergus 2013).

The answers equal those of whole passes, but only what the occluder changes is computed.
"""

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
from vizapp.engine.occlusion.occluder_plans import OccluderPlans
from vizapp.engine.occlusion.replay import NotReplayable
from vizapp.engine.precision import Precision, arithmetic
from vizapp.engine.tap import Tap, check_computed
from vizapp.engine.trace.recording import CaptureRule, Recording
from vizapp.engine.trace.sites import Footprint, Site, channels_first
from vizapp.errors import VizError

TOLERANCE = {torch.float64: 1e-10}  # largest difference of probabilities from whole passes; 1e-5 for other types
BATCH = 32  # occluders per batch: more exceed the CPU caches, fewer leave cores idle
HEAD_BATCH = 512  # occluders that go through the last linear layers together
WORK = 16e9  # multiply-adds after which there should be a result to show: a third of a second on one core
UNKNOWN_WORK_BATCH = 4  # occluders at once on a CPU when their work is unknown
_NO_ROOM = "there is not enough memory for a plan"
MIN_SAVING = 1.02  # smallest saving of multiply-adds worth a plan: first layers cost more time than their count
# What torch raises where memory runs out, or where an operation of the network does not take a batch of windows.
# Nothing that a mistake in a rule would raise (AttributeError, KeyError, TypeError): that must not become a slow answer.
TORCH_ERRORS = (MemoryError, RuntimeError, ValueError, IndexError)


@dataclass(frozen=True)
class Answers:
    """The answers at some `positions` of the sweep: `scores` `[n classes]`, and `sums` `[n]` of the chosen map."""

    positions: tuple[int, ...]
    scores: Tensor
    sums: Tensor | None


class Sweep:
    """All positions of an occluder on some pictures of one size.

    Position i is box `i % len(boxes)` on picture `i // len(boxes)`.

    Attributes:
        clean_scores: Scores of the clean pictures `[P classes]`.
        maps: The site's clean activations `[P C h w]`, or None.
        facts: How the answers are computed, in words.
        bound: Multiply-adds of a whole pass, divided by those of one position.
        recordings: The passes over the clean pictures up to the site, for signals by `rule`; None where there is none.

    Args:
        module: The network, in evaluation mode.
        scores: Runs the module on a batch and returns `[N classes]`.
        clean: The pictures `[P C H W]`.
        patch: What the occluder shows at each pixel `[P C H W]`.
        boxes: (top, left, bottom, right) in pixels; may reach over the border.
        site: The layer whose maps are summed.
        precision: How products are rounded.
        windows: False for whole passes only.
        footprint: Memory of a pass; with it, as many positions are answered at once as fit.
        rule: How signals will go back from the site along `recordings`; None for no signals.
    """

    def __init__(
        self, module: nn.Module, scores: Callable[[Tensor], Tensor], clean: Tensor, patch: Tensor, boxes: Sequence[Box],
        site: Site | None = None, precision: Precision = "exact", windows: bool = True,
        footprint: Footprint | None = None, rule: CaptureRule | None = None,
    ) -> None:  # fmt: skip
        self._module, self._scores, self._site = module, scores, site
        self._clean, self._patch = clean, patch
        self.boxes = [_clipped(box, *clean.shape[2:]) for box in boxes]
        self._precision, self._rule = precision, rule
        self.recordings: list[Recording | None] = [None] * len(clean)
        self.facts: dict[str, str] = {}
        self.bound = 1.0
        self._batches: OccluderBatches | None = None
        self._work = 0.0  # multiply-adds of a whole pass, where they are known
        self._one_by_one = self._takes_batches = False  # the second, once it is known
        self._footprint, self._batch_size, self._most_fitting = footprint, BATCH, HEAD_BATCH
        occluders = None
        if not windows:
            self.facts["evaluation"] = "A whole pass for each occluder."
        elif self._has_no_room():
            self._fall_back(_NO_ROOM)
        else:
            occluders = self._plan_batches()
        self.clean_scores, self.maps = (
            self._clean_pass() if occluders is None else (occluders.clean_scores, occluders.maps)
        )
        if occluders is not None:
            self._try(occluders)

    # ---------------------------------------------------------------------------------------------------- asking

    def __len__(self) -> int:
        return len(self.boxes) * len(self._clean)

    def batches(self, order: Sequence[int] | None = None, channel: int | None = None) -> Iterator[Answers]:
        """The answers, some at a time, in the given order of positions (by default all).

        `channel` of the site is summed over all cells. Stop iterating to stop the work.
        """
        positions = list(range(len(self)) if order is None else order)
        start = 0
        while start < len(positions):
            self._batch_size = self._fitting_batch_size()
            left = len(positions) - start
            part = positions[start : start + -(-left // -(-left // self._at_once()))]  # no small one at the end
            fitting = 0
            for answers in in_chunks(part, lambda part: self.answer(part, channel), len(part)):
                fitting = max(fitting, len(answers.positions))
                yield answers
            self._most_fitting = self._most_fitting if fitting == len(part) else min(self._most_fitting, fitting)
            start += len(part)

    def arranged(self, positions: Sequence[int]) -> list[int]:
        """The positions in the order in which they are answered fastest."""
        return list(positions) if self._batches is None else self._batches.plans.arranged(positions)

    def _at_once(self) -> int:
        """How many positions to answer at once.

        Not measured by time: the batch size decides the last bits of the answers, which should not depend on how busy
        the machine is.
        """
        scarce = self._batches is None or self._batch_size < BATCH
        most = min(self._most_fitting, 1 if self._one_by_one else self._batch_size if scarce else HEAD_BATCH)
        if self._clean.device.type != "cpu":
            return most
        return max(1, min(most, round(WORK * self.bound / self._work) if self._work else UNKNOWN_WORK_BATCH))

    def answer(self, positions: Sequence[int], channel: int | None = None) -> Answers:
        """The answers at some positions, in one batch."""
        with torch.no_grad(), arithmetic(self._clean.device, self._precision):
            if self._batches is not None:
                try:
                    return Answers(tuple(positions), *self._batches.answer(positions, channel, self._batch_size))
                except TORCH_ERRORS as error:
                    if is_out_of_memory(error) and len(positions) > 1:
                        raise
                    self._fall_back(
                        _NO_ROOM
                        if is_out_of_memory(error)
                        else f"an operation could not be run on windows ({first_line(error)})"
                    )
            return self._run_whole_passes(positions, channel)

    def answer_by_whole_passes(self, positions: Sequence[int], channel: int | None = None) -> Answers:
        """The same answers by whole passes over occluded pictures, in exact arithmetic."""
        with torch.no_grad(), arithmetic(self._clean.device, "exact"):
            return self._run_whole_passes(positions, channel)

    def pictures(self, positions: Sequence[int]) -> Tensor:
        """The occluded pictures `[N C H W]`."""
        shown = []
        for picture, box in map(self._locate, positions):
            one = self._clean[picture].clone()
            top, left, bottom, right = box
            one[:, top:bottom, left:right] = self._patch[picture, :, top:bottom, left:right]
            shown.append(one)
        batch = torch.stack(shown)
        last = self._clean.is_contiguous(memory_format=torch.channels_last)
        return batch.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def scores_and_maps(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """The scores of some pictures, and the site's activations, channels first."""
        if self._site is None:
            return self._scores(batch.clone()), None
        with Tap(self._module, {self._site.name}, stop=False) as tap:
            scores = self._scores(batch.clone())
        check_computed([self._site.name], tap.kept)
        return scores, channels_first(tap.kept[self._site.name], self._site)

    # -------------------------------------------------------------------------------------------------- preparing

    def _clean_pass(self) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad(), arithmetic(self._clean.device, "exact"):
            parts = [self.scores_and_maps(self._clean[p : p + 1]) for p in range(len(self._clean))]
        maps = None if self._site is None else torch.cat([part[1] for part in parts if part[1] is not None])
        return torch.cat([part[0] for part in parts]), maps

    def _plan_batches(self) -> OccluderBatches | None:
        """The plan, with the activations of the clean pictures; None if there is none."""
        try:
            occluders = OccluderBatches(
                self._module,
                self._scores,
                self._clean,
                self._patch,
                self.boxes,
                self._site,
                self._precision,
                self._rule,
            )
            self.recordings = occluders.recordings
            self._work, self.bound = occluders.plans.work, occluders.plans.bound
            return occluders
        except (NotReplayable, VizError) as reason:
            self._one_by_one = isinstance(reason, NotReplayable)
            self._fall_back(str(reason))
        except TORCH_ERRORS as error:
            no_room = is_out_of_memory(error)
            self._fall_back(_NO_ROOM if no_room else f"no plan could be made for its operations ({first_line(error)})")
        return None

    def _try(self, occluders: OccluderBatches) -> None:
        """Check a plan on two positions, unless it was; fall back to whole passes if it saves nothing or is wrong."""
        plans = occluders.plans
        if self.bound < MIN_SAVING:
            self._fall_back(f"windows would save too little, they end at {plans.fallback_layer}")
            return
        if self._precision == "exact" and plans.error is not None:
            self._batches = occluders
            self._tell(plans, plans.error, "another picture")
            return
        try:
            self._check(occluders)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._fall_back(_NO_ROOM)

    def _check(self, occluders: OccluderBatches) -> None:
        tries = sorted({0, len(self) // 2})
        channel = None if self._site is None else 0
        self._batches = occluders
        found = self.answer(tries, channel)
        if self._batches is not None:
            with torch.no_grad(), arithmetic(self._clean.device, "exact"):
                expected = self._run_whole_passes(tries, channel, found.scores[0])
            self._compare(expected, found, occluders)

    def _has_no_room(self) -> bool:
        """Whether the clean activations, which a plan keeps, would not fit into memory."""
        if self._footprint is None:
            return False
        free = free_memory(self._clean.device) * SHARE_OF_FREE_MEMORY
        return 2 * len(self._clean) * self._footprint.total > free

    def _fitting_batch_size(self) -> int:
        """How many whole passes fit into memory at once, at most `BATCH`."""
        if self._footprint is None:
            return BATCH
        return chunk_size(int(SCRATCH * self._footprint.widest), self._clean.device, BATCH)

    def _compare(self, expected: Answers, found: Answers, occluders: OccluderBatches) -> None:
        """Fall back if the plan's answers differ from those of whole passes; else say how close they are, and keep it."""
        right, given = expected.scores.double(), found.scores.double()
        deviation = float((_comparable(right, right) - _comparable(given, right)).abs().max())
        others = [float((right - given).abs().max()) / max(1e-30, float(right.abs().max()))]
        if expected.sums is not None and found.sums is not None and self.maps is not None:
            size = self.maps[:, 0].abs().sum().clamp_min(float(expected.sums.abs().max()))
            others.append(float((expected.sums - found.sums).abs().max()) / max(1e-30, float(size)))
        tolerance = TOLERANCE.get(self._clean.dtype, 1e-5)
        exact = self._precision == "exact"
        if exact and not (deviation <= tolerance and max(others) <= 100 * tolerance):
            self._fall_back(f"windows gave numbers that are off by up to {max(deviation, *others):.1e}")
            return
        self._tell(occluders.plans, deviation, f"{len(expected.positions)} positions")
        if exact:
            occluders.plans.error = deviation
            occluders.keep_plans()
        else:
            self.facts["precision"] = (
                f"{self._precision}: probabilities off by up to {deviation:.1e} on those positions."
            )

    def _tell(self, plans: OccluderPlans, deviation: float, checked: str) -> None:
        what = "probabilities" if self.clean_scores.shape[1] > 1 else "scores"
        until = f"up to {plans.fallback_layer}" if plans.fallback_layer else "through all layers"
        self.facts["evaluation"] = (
            f"Only what an occluder touches is recomputed, {until}: {100 / self.bound:.0f} % of the multiply-adds. "
            f"Checked on {checked} against whole passes: {what} differ by at most {deviation:.1e}."
        )

    def _fall_back(self, reason: str) -> None:
        self._batches, self.bound = None, 1.0  # frees the clean activations, which the plans hold
        self.facts["evaluation"] = f"A whole pass for each occluder: {reason}."

    # ----------------------------------------------------------------------------------------------- whole passes

    def _run_whole_passes(
        self, positions: Sequence[int], channel: int | None, first_scores: Tensor | None = None
    ) -> Answers:
        """`first_scores` `[classes]`: those at the first position, as another way of computing gave them."""
        if not self._one_by_one and len(positions) > 1:
            try:
                found = self._run_batches(positions, channel, len(positions))
                if self._takes_batches or self._is_as_alone(found, positions[0], first_scores):
                    self._takes_batches = True
                    return found
            except (AssertionError, *TORCH_ERRORS) as error:
                if is_out_of_memory(error):
                    raise
            self._one_by_one = True
        return self._run_batches(positions, channel, 1)

    def _is_as_alone(self, found: Answers, first: int, first_scores: Tensor | None) -> bool:
        """Whether the first answer of a batch is that to the picture alone, but for rounding."""
        if first_scores is not None and _is_close(found.scores[0], first_scores):
            return True  # windows give what the batch gives: no pass alone is needed
        return _is_close(found.scores[0], self._run_batches([first], None, 1).scores[0])

    def _run_batches(self, positions: Sequence[int], channel: int | None, size: int) -> Answers:
        scores, sums = [], []
        for start in range(0, len(positions), size):
            batch = self.pictures(positions[start : start + size])
            if channel is None or self._site is None:
                scores.append(self._scores(batch))
                continue
            given, maps = self.scores_and_maps(batch)
            assert maps is not None
            scores.append(given)
            sums.append(maps[:, channel].flatten(1).sum(1))
        return Answers(tuple(positions), torch.cat(scores), torch.cat(sums) if sums else None)

    def _locate(self, position: int) -> tuple[int, Box]:
        picture, box = divmod(position, len(self.boxes))
        return picture, self.boxes[box]


def _is_close(found: Tensor, expected: Tensor) -> bool:
    return not bool((found - expected).abs().max() > 0.01 * expected.abs().max())


def _comparable(scores: Tensor, right: Tensor) -> Tensor:
    """Scores `[N classes]` as probabilities; a single one, whose softmax is always 1, as it is if `right` is not above 1."""
    return scores.softmax(1) if scores.shape[1] > 1 else scores / right.abs().max().clamp_min(1)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _clipped(box: Box, height: int, width: int) -> Box:
    """The part of a box that is inside the picture; (0, 0, 0, 0) if there is none."""
    top, left, bottom, right = max(box[0], 0), max(box[1], 0), min(box[2], height), min(box[3], width)
    return (top, left, bottom, right) if top < bottom and left < right else (0, 0, 0, 0)
