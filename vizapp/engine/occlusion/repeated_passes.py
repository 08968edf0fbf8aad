"""Many passes up to one site, over pictures of one size, as fast as the processor allows.

One pass is recorded (`replay.py`). Only what the site depends on runs again: batch norms are folded into convolutions, and on a
CPU these add and rectify themselves (`fused_convolutions.py`), the wide ones with fewer multiplications (`winograd.py`), each
thread on as many pictures at once as caches hold. The result is exact but for rounding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import is_out_of_memory
from vizapp.engine.occlusion.cell_index import Occluders
from vizapp.engine.occlusion.fused_convolutions import fuse
from vizapp.engine.occlusion.incremental_plan import BatchState, CleanMaps, IncrementalPlan
from vizapp.engine.occlusion.parallel import side_by_side
from vizapp.engine.occlusion.planner import head_of, needed_steps, work_of
from vizapp.engine.occlusion.replay import NotReplayable, ReplayRecording, fold_batch_norm
from vizapp.engine.occlusion.sweep import TORCH_ERRORS, first_line
from vizapp.engine.occlusion.whole_map_rules import whole_rule
from vizapp.engine.precision import arithmetic
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, channels_first
from vizapp.errors import VizError

CACHE = 26e6  # bytes of the widest activation of the pictures that run together on a CPU: more leave its caches
TOLERANCE = 1e-4  # largest difference from plain passes, in parts of the largest activation
_CONVOLUTIONAL = 0.5  # share of multiply-adds in convolutions below which running the steps one by one gains nothing
_NO_OCCLUDERS = Occluders(*(np.zeros(0, int) for _ in range(3)))


class RepeatedPasses:
    """The activations of a site on many pictures.

    Attributes:
        facts: How they are computed, in words.

    Args:
        module: The network, in evaluation mode.
        pictures: Some of the pictures `[n C H W]`, at least one: the pass over the first is recorded, all are checked.
        site: The layer.
    """

    def __init__(self, module: nn.Module, pictures: Tensor, site: Site) -> None:
        self._module, self._site, self._one_by_one = module, site, False
        self.facts: dict[str, str] = {}
        self._steps: _Steps | None = None
        reason = "on this device" if pictures.device.type != "cpu" else ""
        if not reason:
            try:
                with torch.no_grad(), arithmetic(pictures.device, "exact"):
                    self._steps = _Steps(module, pictures[:1], site)
                    reason = self._difference(pictures)
            except NotReplayable as error:
                self._one_by_one, reason = True, str(error)
            except (VizError, AssertionError, *TORCH_ERRORS) as error:
                reason = "there is not enough memory for a recording" if is_out_of_memory(error) else first_line(error)
        if reason:
            self._steps = None
            self._one_by_one = self._one_by_one or self._answers_one_alone(pictures)
            self.facts["evaluation"] = f"Plain passes: {reason}."

    def activations(self, batch: Tensor) -> Tensor:
        """The site's activations `[N C h w]`, or `[N C]` for vectors, on pictures `[N C H W]`."""
        with arithmetic(batch.device, "exact"):
            if self._steps is not None:
                with torch.no_grad():
                    return channels_first(self._steps.run(batch), self._site)
            return self._plain(batch)

    def _answers_one_alone(self, pictures: Tensor) -> bool:
        """Whether the network fails on several pictures, or answers otherwise than to each."""
        try:
            with torch.no_grad(), arithmetic(pictures.device, "exact"):
                expected, found = self._plain(pictures, alone=True), self._plain(pictures)
        except (AssertionError, *TORCH_ERRORS) as error:
            if is_out_of_memory(error):
                raise
            return True
        return bool((expected - found).abs().max() > 10 * TOLERANCE * expected.abs().max())

    def _plain(self, batch: Tensor, alone: bool = False) -> Tensor:
        parts = batch.split(1) if alone or self._one_by_one else (batch,)
        return torch.cat([observe(self._module, part, [self._site])[self._site.name] for part in parts])

    def _difference(self, pictures: Tensor) -> str:
        """Compare with plain passes; why the steps may not be used, or nothing."""
        expected, found = self._plain(pictures, alone=True), self.activations(pictures)
        deviation = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-30))
        self.facts["evaluation"] = (
            f"Convolutions run with norms, sums and rectifiers inside. Checked on {len(pictures)} photos against plain passes: "
            f"they differ by at most {deviation:.1e} of the largest activation."
        )
        return "" if deviation <= TOLERANCE else f"fused convolutions were off by {deviation:.1e}"


class _Steps:
    """The steps of a recorded pass that lead to a site, for batches of pictures."""

    def __init__(self, module: nn.Module, picture: Tensor, site: Site) -> None:
        recording = ReplayRecording(module, picture.clone(), ())
        with recording:
            module(recording.picture)
        answer = recording.numbers.get(site.name)
        if answer is None:
            raise NotReplayable(f"{site.name} was not recorded")
        steps, self._answer = needed_steps(recording.steps, {answer}), answer
        work = [work_of(step, recording.shapes) for step in steps]
        convolutions = sum(part for step, part in zip(steps, work, strict=True) if step.operation == "conv2d")
        if convolutions < _CONVOLUTIONAL * sum(work) or not convolutions:
            raise ValueError("few of its multiply-adds are in convolutions")
        steps = fold_batch_norm(steps, {answer})
        steps = fuse(steps, recording.shapes, {answer}, whole=True)
        self._head = head_of(steps, recording.shapes, {0})
        self._plan = IncrementalPlan(steps, recording.shapes, (), ())
        self._plan.last_use |= {value: position for position, step in enumerate(steps) for value in step.inputs}
        self._plan.last_use[answer] = len(steps)
        widest = max(4 * math.prod(recording.shapes[value]) for step in steps for value in step.outputs)
        self.together = max(1, int(CACHE / widest))
        for position, step in enumerate(steps):
            self._plan.operations.append(whole_rule(self._plan, step, position))

    def run(self, batch: Tensor) -> Tensor:
        """The value of the site, as its operation lays it out, for pictures `[N C H W]`."""
        size = min(self.together, math.ceil(len(batch) / torch.get_num_threads()))
        states = side_by_side(self._before_head, batch.split(size))
        merged = _state({v: torch.cat([state.values[v] for state in states]) for v in states[0].values})
        self._plan.run(merged, self._head)
        return merged.values[self._answer]

    def _before_head(self, pictures: Tensor) -> BatchState:
        state = _state({0: pictures})
        self._plan.run(state, 0, self._head)
        return state


def _state(values: dict[int, Tensor]) -> BatchState:
    return BatchState(_NO_OCCLUDERS, CleanMaps({}), torch.empty(0), (), values)
