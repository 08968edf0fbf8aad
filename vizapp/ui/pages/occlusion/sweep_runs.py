"""Sweeps of a square as the app runs them: planned, begun at once when they are quick, watched while they sharpen.

A sweep that somebody leaves keeps what it has: it is shown as it is, and goes on from there when it is asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import streamlit as st

from vizapp.engine.trace.sites import Unit
from vizapp.media.picture import Picture
from vizapp.methods.base import Job, Question, Result, check_unit
from vizapp.methods.occlusion.occluder import coarse_to_fine
from vizapp.methods.occlusion.sweep import Occlusion, OcclusionParams
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import ByteBoundedCache, Key
from vizapp.service.runs import RunRequest
from vizapp.ui.session import compute, memory, progress, state
from vizapp.zoo.network import Network

CAPACITY = 2 * 2**30  # bytes of clean activations of sweeps that are planned or under way, of all sessions together
QUICK = 8.0  # seconds that a sweep may be expected to take and still begin by itself
COARSE = 2.0  # seconds that the coarse maps may be expected to take and still be drawn unasked


@dataclass(frozen=True)
class SweepRequest:
    """One sweep that is asked for. `params` name the square in full; `unit` is the late map, if one was chosen."""

    network: Network
    picture: Picture
    params: OcclusionParams
    unit: Unit | None = None

    @property
    def key(self) -> Key:
        """What tells it from other sweeps."""
        return compute.key_of("occlusion.sweep", self.network, self.picture, unit=self.unit, **asdict(self.params))

    @property
    def plan_key(self) -> Key:
        """What tells its plan from other work."""
        return ("occlusion.plan", *self.key)

    @property
    def device(self) -> str:
        """Where it is computed."""
        return str(self.network.device)


@dataclass(frozen=True)
class RunningSweep:
    """A sweep that is planned or under way, and how many seconds it was expected to take from there."""

    work: Occlusion
    seconds: float


@st.cache_resource(show_spinner=False)
def running_sweeps() -> ByteBoundedCache[RunningSweep]:
    """The sweeps that are planned or under way, of all sessions."""
    return ByteBoundedCache(CAPACITY)


def plan(asked: SweepRequest) -> RunningSweep | None:
    """The sweep with its clean pass done; None when a sentence in its place says why there is none."""
    return compute.compute(
        asked.plan_key, lambda tick: _make_plan(asked, tick), size=lambda begun: _nbytes(asked, begun), title="Planning",
        device=asked.device, shelf=running_sweeps(),
    )  # fmt: skip


def _make_plan(asked: SweepRequest, tick: Tick) -> RunningSweep:
    if asked.unit is not None:
        check_unit(asked.network, asked.unit)
    work = Occlusion(Question(asked.network, asked.picture, unit=asked.unit), asked.params)
    started = time.perf_counter()
    float(asked.network.scores(asked.network.batch([work.seen])).sum())  # waits for the device
    seconds = (time.perf_counter() - started) * work.finished.size / work.sweep.bound
    tick(0.5)
    if seconds / 16 < COARSE:
        seconds = _coarse(work, tick)
    return RunningSweep(work, seconds)


def _coarse(work: Occlusion, tick: Tick) -> float:
    """Draw the coarse maps, to look at and to time; the seconds that the rest is expected to take."""
    enough = len(coarse_to_fine(work.positions.shape)[0])
    started = time.perf_counter()
    for share in work.run():
        tick(0.5 + 0.5 * share)
        if work.finished.sum() >= enough:
            break
    each = (time.perf_counter() - started) / max(1, work.finished.sum())
    return float(each * (~work.finished).sum())


def _nbytes(asked: SweepRequest, begun: RunningSweep) -> int:
    """Memory of a sweep, about: the clean activations, with room around them, and the answers."""
    activations = sum(int(np.prod(site.shape)) for site in asked.network.sites)
    return 4 * (2 * activations + begun.work.finished.size * len(begun.work.clean_logits))


def answer_of(asked: SweepRequest) -> Result | None:
    """The whole answer, if it is there."""
    return compute.answers().get(asked.key)


def may_run(asked: SweepRequest, begun: RunningSweep) -> bool:
    """Whether it begins by itself or was asked to."""
    return begun.seconds <= QUICK or state.is_wished("run", asked.key)


def partial_result(asked: SweepRequest, begun: RunningSweep) -> Result | None:
    """The answer of a sweep that was left, from what is finished; the whole one if it was finished all the same.

    Its fact `finished` says what it was made from; somebody else may wait for the sweep, which then goes on meanwhile.
    """
    count = int(begun.work.finished.sum())
    drawn = compute.compute(
        ("kept", str(count), *asked.key), lambda tick: begun.work.result(Job(tick)), size=lambda result: result.nbytes,
        title="Drawing what is there", device=asked.device,
    )  # fmt: skip
    return answer_of(asked) or drawn


def follow(sweeps: Sequence[tuple[SweepRequest, RunningSweep]], draw: Callable[[], None]) -> bool:
    """Have the sweeps computed; while they go on, their progress and what `draw` shows: see `progress.follow`."""
    requests = [
        RunRequest(asked.key, partial(_run, asked, plan), asked.device, partial(_is_finished, asked))
        for asked, plan in sweeps
    ]
    count = sum(plan.work.finished.size for _, plan in sweeps)
    return progress.follow(
        requests, "Sweeping", "occlusion.cancel", draw, lambda watched: f"{watched.share:.0%} of {count} positions"
    )


def _is_finished(asked: SweepRequest) -> bool:
    return answer_of(asked) is not None


def _run(asked: SweepRequest, plan: RunningSweep, tick: Tick) -> Result:
    def go_on() -> Result:
        for share in plan.work.run():
            tick(0.97 * share)
        return plan.work.result(Job(tick))

    with compute.logged(asked.key, asked.key) as entry:
        result = memory.retry_after_eviction(go_on)
        entry.nbytes = result.nbytes
    compute.answers().put(asked.key, result, result.nbytes)
    running_sweeps().drop(asked.plan_key)  # its clean activations are needed no more
    return result
