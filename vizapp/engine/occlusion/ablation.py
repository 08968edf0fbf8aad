"""The class scores of a network while units of one layer are silenced, scaled or left out, computed from that layer on.

One clean pass is recorded (`replay.py`). Only the steps that depend on the layer run again, on a batch of changed activations;
what else they read (a skip connection that bypasses the layer) comes from the clean pass. The result is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
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
from vizapp.engine.occlusion.cell_index import Occluders
from vizapp.engine.occlusion.incremental_plan import BatchState, CleanMaps, IncrementalPlan
from vizapp.engine.occlusion.planner import head_of, needed_steps, work_of
from vizapp.engine.occlusion.pointwise_rules import is_active_dropout
from vizapp.engine.occlusion.replay import NotReplayable, ReplayRecording, fold_batch_norm
from vizapp.engine.occlusion.scaled_site import ScaledSite, memory_layout, scaled
from vizapp.engine.occlusion.sweep import BATCH, HEAD_BATCH, TORCH_ERRORS, UNKNOWN_WORK_BATCH, WORK, first_line
from vizapp.engine.occlusion.whole_map_rules import whole_rule
from vizapp.engine.operations import DROPOUTS, LINEAR, WEIGHTED
from vizapp.engine.precision import arithmetic
from vizapp.engine.tap import check_computed
from vizapp.engine.trace.cells import CHANNEL_AXIS
from vizapp.engine.trace.recording import Step
from vizapp.engine.trace.sites import Footprint, Site
from vizapp.errors import VizError

_NO_ROOM = "there is not enough memory for a recording"
CHECKED = 2  # units whose scores are compared with those of whole passes
TOLERANCE = {torch.float64: 1e-10}  # largest difference of scores from whole passes, in parts of the largest; else 1e-4
_AFFINE = LINEAR | WEIGHTED | DROPOUTS | {"batch_norm", "contiguous", "clone", "detach"}
_SUMS = frozenset({"add", "sub", "cat"})  # affine in several values at once
_NO_OCCLUDERS = Occluders(*(np.zeros(0, int) for _ in range(3)))


class Ablation:
    """The class scores for one picture with units of a site scaled.

    Attributes:
        clean_scores: The scores of the unchanged network `[classes]`.
        live: The units whose activation is not zero everywhere, in order; scaling another one changes nothing.
        affine: Whether the scores depend on the site in an affine way, so that the effects of several units add up.
        bound: Multiply-adds of a whole pass, divided by those from the site on.
        facts: How the scores are computed, in words.

    Args:
        module: The network, in evaluation mode.
        scores: Runs the module on a batch and returns `[N classes]`.
        picture: The picture `[1 C H W]`.
        site: The layer whose units are scaled.
        footprint: Memory of a pass.

    Raises:
        VizError: the pass does not compute the site, or the scores do not depend on it.
    """

    def __init__(
        self, module: nn.Module, scores: Callable[[Tensor], Tensor], picture: Tensor, site: Site, footprint: Footprint
    ) -> None:
        self._module, self._scores, self._picture, self._site = module, scores, picture, site
        self._footprint, self._one_by_one = footprint, False
        self.facts: dict[str, str] = {}
        self.affine, self.bound = False, 1.0
        self._tail: _Tail | None = None
        with torch.no_grad(), arithmetic(picture.device, "exact"):
            clean = ScaledSite(module, site, None)
            with clean:
                self.clean_scores = scores(picture.clone())[0].clone()
            check_computed([site.name], [site.name] if clean.value is not None else [])
            assert clean.value is not None
            self._times = clean.last
            flat = clean.value.movedim(CHANNEL_AXIS[site.layout], 0).flatten(1)
            self.live: list[int] = flat.ne(0).any(1).nonzero().flatten().tolist()
            self._prepare()

    def scores(self, factors: Tensor) -> Iterator[Tensor]:
        """The scores `[n classes]` for some of the rows of `factors` `[N units]` at a time, in order.

        Row i multiplies the activations of each unit by its number; 0 makes them zero, even where they are infinite.
        Stop iterating to stop the work.
        """
        yield from in_chunks(range(len(factors)), lambda rows: self._answer(factors[list(rows)]), self._at_once())

    def scores_by_whole_passes(self, factors: Tensor) -> Tensor:
        """The same scores `[N classes]` by whole passes with the activation changed on the way."""
        size, rows = 1 if self._one_by_one else self._fitting(BATCH), range(len(factors))
        with torch.no_grad(), arithmetic(self._picture.device, "exact"):
            try:
                parts = [*in_chunks(rows, lambda part: self._whole_passes(factors[list(part)]), size)]
            except TORCH_ERRORS as error:
                if size == 1 or is_out_of_memory(error):
                    raise
                self._one_by_one = True  # it does not take a batch
                parts = [self._whole_passes(factors[row : row + 1]) for row in rows]
        return torch.cat(parts)

    def without(self, units: Sequence[int], factor: float = 0.0) -> Tensor:
        """A row of `factors` for each of the units, in which it alone is scaled: `[n units]`."""
        rows = torch.ones(len(units), self._site.channels, dtype=self._picture.dtype)
        rows[torch.arange(len(units)), list(units)] = factor
        return rows

    # ---------------------------------------------------------------------------------------------------- details

    def _prepare(self) -> None:
        """Record the pass, and keep its steps from the site on if they give the scores of whole passes."""
        free = free_memory(self._picture.device) * SHARE_OF_FREE_MEMORY
        if 2 * self._footprint.total > free:  # a recording keeps all activations
            self._fall_back(_NO_ROOM)
            return
        try:
            self._tail = _Tail(self._module, self._scores, self._picture, self._site)
        except NotReplayable as reason:
            self._one_by_one = True  # a batch might decide otherwise than each of its pictures
            self._fall_back(str(reason))
        except VizError as reason:
            if reason.code == "layer-without-effect":
                raise
            self._fall_back(str(reason))
        except TORCH_ERRORS as error:
            self._fall_back(_NO_ROOM if is_out_of_memory(error) else first_line(error))
        else:
            self.affine, self.bound = self._tail.affine, self._tail.bound
            self._check()

    def _check(self) -> None:
        """Compare the scores for the first units with those of whole passes."""
        rows = self.without(self.live[:CHECKED])
        if not len(rows):
            return
        expected = torch.cat([self._whole_passes(row[None]) for row in rows])  # one by one: that is the definition
        found = torch.cat([*self.scores(rows)])
        if self._tail is None:
            return
        deviation = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-30))
        if not deviation <= TOLERANCE.get(found.dtype, 1e-4):
            self._fall_back(f"from the layer on, the scores were off by {deviation:.1e} of the largest")
            return
        self.facts["evaluation"] = (
            f"Only what depends on {self._site.name} is recomputed: {100 / self.bound:.3g} % of the multiply-adds. Checked on "
            f"{len(rows)} units against whole passes: scores differ by at most {deviation:.1e} of the largest."
        )

    def _fall_back(self, reason: str) -> None:
        self._tail, self.affine, self.bound = None, False, 1.0
        self.facts["evaluation"] = f"A whole pass for each change: {reason}."

    def _answer(self, factors: Tensor) -> Tensor:
        tail, found = self._tail, None
        if tail is None:
            return self.scores_by_whole_passes(factors)
        try:
            with torch.no_grad(), arithmetic(self._picture.device, "exact"):
                found = tail.scores(factors.to(self._picture), self._fitting(BATCH))
        except TORCH_ERRORS as error:
            if is_out_of_memory(error) and len(factors) > 1:
                raise
            self._fall_back(_NO_ROOM if is_out_of_memory(error) else first_line(error))
        return self.scores_by_whole_passes(factors) if found is None else found

    def _whole_passes(self, factors: Tensor) -> Tensor:
        batch = self._picture.expand(len(factors), -1, -1, -1).clone(memory_format=memory_layout(self._picture))
        with ScaledSite(self._module, self._site, factors.to(batch), self._times):
            scores = self._scores(batch)
        return scores  # noqa: RET504  mypy cannot know that this `with` ends no pass

    def _fitting(self, most: int) -> int:
        """How many whole passes fit into memory at once."""
        return chunk_size(int(SCRATCH * self._footprint.widest), self._picture.device, most)

    def _at_once(self) -> int:
        """How many rows to answer before there is something to show."""
        if self._tail is None:
            return 1 if self._one_by_one else self._fitting(UNKNOWN_WORK_BATCH)
        if self._picture.device.type != "cpu":
            return HEAD_BATCH
        return max(1, min(HEAD_BATCH, round(WORK / max(1, self._tail.work))))


class _Tail:
    """The steps of a recorded pass that depend on a site, for batches of its changed activation."""

    def __init__(self, module: nn.Module, scores: Callable[[Tensor], Tensor], picture: Tensor, site: Site) -> None:
        recording = ReplayRecording(module, picture.clone())
        with recording:
            found = scores(recording.picture)
        answer, self._start = recording.number(found), recording.numbers.get(site.name)
        self._answer = answer
        if self._start is None:
            raise NotReplayable(f"{site.name} was not recorded")
        steps = list(_after(recording.steps, self._start))
        if answer not in {value for step in steps for value in step.outputs}:
            raise VizError(
                f"The class scores do not depend on layer {site.name!r}, so its units have no effect on them; choose another "
                "layer.",
                code="layer-without-effect",
            )
        steps = needed_steps(steps, {answer})
        self.affine = all(map(_is_affine, steps))
        self.work = sum(work_of(step, recording.shapes) for step in steps)
        self.bound = max(1.0, sum(work_of(step, recording.shapes) for step in recording.steps) / max(1, self.work))
        steps = needed_steps(fold_batch_norm(steps, {answer}), {answer})
        made = {value for step in steps for value in step.outputs}
        given = {value for step in steps for value in step.inputs} - made
        self._clean = {value: recording.clean[value] for value in given}
        self._head = head_of(steps, recording.shapes, given)
        self._axis = CHANNEL_AXIS[site.layout]
        self._plan = IncrementalPlan(steps, recording.shapes, (), ())
        self._plan.last_use |= {value: position for position, step in enumerate(steps) for value in step.inputs}
        self._plan.last_use[answer] = len(steps)
        self._plan.fresh.add(self._start)
        for position, step in enumerate(steps):
            self._plan.operations.append(whole_rule(self._plan, step, position))

    def scores(self, factors: Tensor, together: int) -> Tensor:
        """The scores `[N classes]` for `factors` `[N units]`, `together` rows per batch before the last linear layers."""
        states = []
        for rows in factors.split(together):
            state = self._begin(rows)
            self._plan.run(state, 0, self._head)
            states.append(state)
        values = {value: torch.cat([state.values[value] for state in states]) for value in states[0].values}
        merged = _state(values)
        self._plan.run(merged, self._head)
        return merged.values[self._answer]

    def _begin(self, factors: Tensor) -> BatchState:
        """The batch before its first step: the changed activation, and clean ones for each of its items."""
        values = {}
        for value, clean in self._clean.items():
            if value == self._start:
                values[value] = scaled(clean, factors, self._axis)
            else:
                rest = clean.shape[1:] if clean.shape[:1] == (1,) else clean.shape
                values[value] = clean.expand(len(factors), *rest)
        return _state(values)


def _state(values: dict[int, Tensor]) -> BatchState:
    return BatchState(_NO_OCCLUDERS, CleanMaps({}), torch.empty(0), (), values)


def _after(steps: Sequence[Step], start: int) -> Iterator[Step]:
    """The steps that depend on a value."""
    changed = {start}
    for step in steps:
        if changed.intersection(step.inputs):
            changed.update(step.outputs)
            yield step


def _is_affine(step: Step) -> bool:
    """Whether the step's results are affine in all that it reads of the picture."""
    operation = step.operation.rstrip("_")
    if operation not in _AFFINE or is_active_dropout(step):
        return False
    return operation in _SUMS or step.depends_on_input_alone
