"""Occlusion sweeps in the app: planned, started at once if they are quick, and drawn while they get finer.

A cancelled sweep keeps its finished positions. It is shown as it is, and continues from there on request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import streamlit as st

from vizapp.engine.occlusion.sweep import BATCH
from vizapp.engine.trace.sites import Unit
from vizapp.media.picture import Picture
from vizapp.methods.base import Job, Question, Result, check_unit
from vizapp.methods.occlusion.occluder import coarse_to_fine
from vizapp.methods.occlusion.sweep import Occlusion, OcclusionParams
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import ByteBoundedCache, Key
from vizapp.service.runs import RunRequest
from vizapp.ui.session import compute, memory, progress
from vizapp.zoo.network import Network

CAPACITY = 2 * 2**30  # bytes of clean activations of planned and running sweeps, of all sessions
QUICK = 8.0  # a sweep starts by itself if it is expected to take at most this many seconds
COARSE = 2.0  # seconds spent on the coarse maps before a sweep is offered


@dataclass(frozen=True)
class SweepRequest:
    """A requested sweep. `params` include the size of the square; `unit` is the late map, if one was chosen."""

    network: Network
    picture: Picture
    params: OcclusionParams
    unit: Unit | None = None

    @property
    def key(self) -> Key:
        """The cache key of the sweep."""
        return compute.key_of("occlusion.sweep", self.network, self.picture, unit=self.unit, **asdict(self.params))

    @property
    def plan_key(self) -> Key:
        """The cache key of its plan."""
        return ("occlusion.plan", *self.key)

    @property
    def device(self) -> str:
        """Where it is computed."""
        return str(self.network.device)


@dataclass(frozen=True)
class RunningSweep:
    """A planned or running sweep, and the expected seconds for the rest of it."""

    work: Occlusion
    seconds: float


@st.cache_resource(show_spinner=False)
def running_sweeps() -> ByteBoundedCache[RunningSweep]:
    """The planned and running sweeps of all sessions."""
    return ByteBoundedCache(CAPACITY)


def plan(asked: SweepRequest) -> RunningSweep | None:
    """The sweep after its clean pass; None where a message explains why there is none."""
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
    each = (time.perf_counter() - started) / work.sweep.bound
    tick(0.5)
    if each * min(BATCH, work.finished.size) > COARSE:
        return RunningSweep(work, each * work.finished.size)
    return RunningSweep(work, _coarse(work, tick))


def _coarse(work: Occlusion, tick: Tick) -> float:
    """Compute the coarse maps, or a part of them if they take long; returns the expected seconds for the rest."""
    enough = len(coarse_to_fine(work.positions.shape)[0])
    started = time.perf_counter()
    for share in work.run():
        tick(0.5 + 0.5 * share)
        if work.finished.sum() >= enough or time.perf_counter() - started > COARSE:
            break
    each = (time.perf_counter() - started) / max(1, work.finished.sum())
    return float(each * (~work.finished).sum())


def _nbytes(asked: SweepRequest, begun: RunningSweep) -> int:
    """Approximate memory of a sweep: twice the clean activations, and the scores."""
    activations = sum(int(np.prod(site.shape)) for site in asked.network.sites)
    return 4 * (2 * activations + begun.work.finished.size * len(begun.work.clean_logits))


def answer_of(asked: SweepRequest) -> Result | None:
    """The finished result, if it is in the cache."""
    return compute.answers().get(asked.key)


def may_run(asked: SweepRequest, begun: RunningSweep) -> bool:
    """Whether it starts by itself, or was started by the user, who may have cancelled it."""
    return begun.seconds <= QUICK or progress.is_started(asked.key) or progress.is_cancelled(asked.key)


def partial_result(asked: SweepRequest, begun: RunningSweep) -> Result | None:
    """The result of a cancelled sweep from its finished positions; the full result if it has finished meanwhile.

    Its fact `finished` counts the positions. The sweep continues if another session watches it.
    """
    count = int(begun.work.finished.sum())
    drawn = compute.compute(
        ("kept", str(count), *asked.key), lambda tick: begun.work.result(Job(tick)), title="Drawing the finished part",
        device=asked.device,
    )  # fmt: skip
    return answer_of(asked) or drawn


def follow(sweeps: Mapping[SweepRequest, RunningSweep], draw: Callable[[], None]) -> bool:
    """Run the sweeps and draw the progress and `draw`: see `progress.follow`."""
    requests = [
        RunRequest(asked.key, partial(_run, asked, plan), asked.device, partial(_is_finished, asked))
        for asked, plan in sweeps.items()
    ]
    count = sum(plan.work.finished.size for plan in sweeps.values())
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
    running_sweeps().drop(asked.plan_key)  # its clean activations are no longer needed
    return result
