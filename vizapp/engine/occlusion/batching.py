"""The answers at the occluders of a sweep, in batches whose windows have similar sizes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.memory.upload import upload
from vizapp.engine.occlusion.incremental_plan import BatchState, Box, CleanMaps, IncrementalPlan
from vizapp.engine.occlusion.occluder_plans import OccluderPlans, keep_plans, kept_plans
from vizapp.engine.occlusion.replay import NotReplayable, ReplayRecording
from vizapp.engine.precision import Precision, arithmetic
from vizapp.engine.trace.custom_functions import custom_functions
from vizapp.engine.trace.recording import CaptureRule, Recording
from vizapp.engine.trace.sites import Site, channels_first
from vizapp.errors import VizError


class OccluderBatches:
    """All occluders of a sweep, answered by recomputing their windows.

    Attributes:
        plans: How they are answered; those of an earlier picture, if they hold for this one.
        clean_scores: The scores of the clean pictures `[P classes]`.
        maps: The site's activations for them `[P C h w]`, or None.
        recordings: The passes over the clean pictures up to the site, for signals to go back by `rule`; None where there is
            no rule, or it needs a pass of its own.

    Args:
        module: The network.
        scores: Its class scores `[N classes]` of a batch.
        clean: The pictures without an occluder, `[P C H W]`.
        patch: What the occluders show, `[P C H W]`.
        boxes: (top, left, bottom, right) of each occluder, inside the picture.
        site: The layer whose maps are summed; None for no layer.
        precision: How products are rounded in `answer`, which runs inside `arithmetic`.
        rule: How signals will go back from the site; None for no signals.

    Raises:
        NotReplayable: the pass cannot be run again from its recording, an operation cannot run on many pictures at once, or
            the network runs other operations on another of the pictures.
    """

    def __init__(
        self, module: nn.Module, scores: Callable[[Tensor], Tensor], clean: Tensor, patch: Tensor, boxes: Sequence[Box],
        site: Site | None, precision: Precision = "exact", rule: CaptureRule | None = None,
    ) -> None:  # fmt: skip
        self.recordings: list[Recording | None] = []
        self._rule = rule if site is not None else None
        self._module, self._scores, self._site = module, scores, site
        self._device = clean.device
        self._key = tuple(clean.shape[1:]), clean.dtype, clean.device, tuple(boxes), site and site.name, precision
        first, self.plans = self._first_pass(clean[:1], boxes, precision)
        self._pixels = torch.stack([clean, patch.to(clean)]).permute(0, 1, 3, 4, 2).contiguous()
        parts = [first]
        for picture in range(1, len(clean)):
            again, answer, found = self._record(clean[picture : picture + 1], self.plans.needed)
            if not self.plans.serve(again, answer, found):
                raise NotReplayable("it runs other operations on another input")
            parts.append(again.clean)
        values = {v: torch.cat([part[v] for part in parts]) if parts[1:] else first[v] for v in self.plans.needed}
        self.clean_scores, self.maps = values[self.plans.answer], None
        if site is not None and self.plans.site is not None:
            self.maps = channels_first(values[self.plans.site], site)
        for value, affected in self.plans.affected.items():
            last = affected.axes == (2, 3) and values[value].ndim == 4
            values[value] = values[value].contiguous(
                memory_format=torch.channels_last if last else torch.contiguous_format
            )
        self._clean = CleanMaps(values)

    def keep_plans(self) -> None:
        """Keep the plans for the network's next picture."""
        keep_plans(self._module, self._key, self.plans)

    def answer(self, positions: Sequence[int], channel: int | None, together: int) -> tuple[Tensor, Tensor | None]:
        """Scores `[n classes]` at some positions and sums `[n]` of the chosen map, `together` occluders per batch."""
        groups = self.plans.groups(positions, together)
        ended: list[BatchState] = []
        sums = []
        for group in groups:
            plan, state = self.plans.begin([positions[n] for n in group], self._pixels, self._clean)
            plan.run(state, 0, self.plans.head)
            if channel is not None and self._site is not None and self.plans.site is not None:
                sums.append(self._summed(plan, state, self.plans.site, channel))
                if self.plans.site != self.plans.answer:
                    state.values.pop(self.plans.site, None)
            ended.append(state)
        taken = [n for group in groups for n in group]
        state = self._merge(ended, [positions[n] for n in taken])
        plan.run(state, self.plans.head)
        back = upload(torch.from_numpy(np.argsort(taken)), self._device)  # to the order of `positions`
        return state.values[self.plans.answer][back], torch.cat(sums)[back] if sums else None

    def _first_pass(
        self, picture: Tensor, boxes: Sequence[Box], precision: Precision
    ) -> tuple[dict[int, Tensor], OccluderPlans]:
        """The activations of a picture that plans need, and the plans: the kept ones, if they hold."""
        plans = kept_plans(self._module, self._key)
        recording, answer, site = self._record(picture, None if plans is None else plans.needed)
        if plans is not None and not plans.serve(recording, answer, site):
            plans, self.recordings = None, []
            recording, answer, site = self._record(picture, None)
        plans = plans or OccluderPlans(recording, answer, site, boxes, precision)
        return {value: recording.clean[value] for value in plans.needed}, plans

    def _record(self, picture: Tensor, keep: Collection[int] | None) -> tuple[ReplayRecording, int, int | None]:
        """Record the pass over a picture; the recording, and the numbers of its answer and of the site's value."""
        if self._rule is not None and self._site is not None:
            own = list[object]()  # custom functions, which a recording with a rule follows in another way
            recording = ReplayRecording(self._module, picture.clone(), keep, self._rule, self._site.name)

            def note(function: object, forward: Callable[..., Any], args: tuple[Any, ...], enabled: bool) -> Any:
                own.append(function)
                return forward(*args)

            with suppress(VizError), torch.enable_grad(), custom_functions(note):
                answer, site = self._run(recording)
                if site in recording.clean and not own:
                    self.recordings.append(recording.take_signals(self._rule))
                    return recording, answer, site
        self.recordings.append(None)
        recording = ReplayRecording(self._module, picture.clone(), keep)
        with torch.no_grad():
            return recording, *self._run(recording)

    def _run(self, recording: ReplayRecording) -> tuple[int, int | None]:
        with arithmetic(self._device, "exact"), recording:
            scores = self._scores(recording.picture)
        answer = recording.number(scores)
        if self._site is None:
            return answer, None
        site = recording.numbers.get(self._site.name)
        if site is None:
            raise NotReplayable(f"{self._site.name} was not recorded")
        return answer, site

    def _merge(self, states: list[BatchState], positions: Sequence[int]) -> BatchState:
        """Batches that have only vectors left, as one."""
        if len(states) == 1:
            return states[0]
        values = {value: torch.cat([state.values[value] for state in states]) for value in states[0].values}
        pictures = torch.cat([state.pictures for state in states])
        return BatchState(self.plans.occluders(positions), self._clean, pictures, (), values)

    def _summed(self, plan: IncrementalPlan, state: BatchState, value: int, channel: int) -> Tensor:
        """The sum of one channel of the site over all cells, for each occluder: `[n]`."""
        assert self._site is not None
        region, window = plan.regions.get(value), state.values[value]
        if region is None:
            return channels_first(window, self._site)[:, channel].flatten(1).sum(1)
        index = (slice(None), slice(None), slice(None), channel) if region.axes == (1, 2) else (slice(None), channel)
        change = window[index] - plan.clean_windows(value)(state)[index]
        return self._clean.values[value][index].sum((1, 2)).index_select(0, state.pictures) + change.sum((1, 2))
