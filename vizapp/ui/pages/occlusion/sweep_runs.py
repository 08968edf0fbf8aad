"""Occlusion sweeps in the app: planned, started at once if they are quick, and drawn while they get finer.

A cancelled sweep keeps its finished positions. It is shown as it is, and continues from there on request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import streamlit as st
import torch

from vizapp.engine.trace.sites import Unit
from vizapp.media.picture import Picture
from vizapp.methods.base import Job, Question, Result, check_unit
from vizapp.methods.occlusion import METHOD
from vizapp.methods.occlusion.occluder import coarse_to_fine
from vizapp.methods.occlusion.sweep import Occlusion, OcclusionParams, places
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import ByteBoundedCache, Key
from vizapp.service.runs import RunRequest, WatchedRuns
from vizapp.ui.session import compute, memory, messages, progress
from vizapp.zoo.network import Network

CAPACITY = 2 * 2**30  # bytes of clean activations of planned and running sweeps, of all sessions
QUICK = 8.0  # a sweep starts by itself if it is expected to take at most this many seconds
FEW = 64  # or if it has at most this many positions
COARSE = 2.0  # seconds spent on the coarse maps before a sweep is offered
FIRST = 1.0  # seconds that the sweep of the first view may take; planning, the page and its redraws take up to 4 more
_COARSEST = 4  # times the usual stride


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


@dataclass
class RunningSweep:
    """A planned or running sweep, and the seconds that each position takes, as its latest positions did."""

    work: Occlusion
    each: float

    @property
    def seconds(self) -> float:
        """The expected seconds for the rest of it."""
        return float(self.each * (~self.work.finished).sum())

    def run(self) -> Iterator[float]:
        """As `Occlusion.run`, beginning with the progress so far; corrects the expected seconds after each batch."""
        began, before = time.perf_counter(), int(self.work.finished.sum())
        yield float(self.work.finished.mean())
        for share in self.work.run():
            self.each = (time.perf_counter() - began) / max(1, int(self.work.finished.sum()) - before)
            yield share


@st.cache_resource(show_spinner=False)
def running_sweeps() -> ByteBoundedCache[RunningSweep]:
    """The planned and running sweeps of all sessions."""
    return ByteBoundedCache(CAPACITY)


def first_stride(asked: SweepRequest) -> int | None:
    """The stride of the first view: that of the request if its sweep is quick here, else twice or four times as much.

    What four times as much takes is measured by its whole sweep, which is kept: nothing is computed twice.

    None where a message explains why there is none.
    """
    key = ("occlusion.first stride", *asked.key)
    return compute.compute(
        key, lambda tick: _choose_stride(asked, tick), size=lambda _: 8, title="Planning", device=asked.device
    )


def _choose_stride(asked: SweepRequest, tick: Tick) -> int:
    network, usual = asked.network, asked.params.stride
    count = places(asked.params, network).boxes[..., 0].size
    batch = network.prepare(asked.picture)
    for _ in range(2):  # the first pass is slow
        started = time.perf_counter()
        with torch.no_grad():
            float(network.scores(batch.clone()).sum())  # waits for the device
    if (time.perf_counter() - started) * count <= FIRST:
        return usual
    coarse = replace(asked, params=replace(asked.params, stride=_COARSEST * usual))
    begun = _make_plan(coarse, tick, whole=True)
    running_sweeps().put(coarse.plan_key, begun, _nbytes(coarse, begun))
    finer = (usual * factor for factor in (1, 2))
    return next((stride for stride in finer if seconds_at(begun.each, coarse, stride) <= FIRST), coarse.params.stride)


def seconds_at(each: float, asked: SweepRequest, stride: int) -> float:
    """The expected seconds of the same sweep with another stride, if a position takes `each`."""
    return each * places(replace(asked.params, stride=stride), asked.network).boxes[..., 0].size


def _pace_key(asked: SweepRequest) -> Key:
    return ("occlusion.pace", *asked.key)


def pace(asked: SweepRequest) -> float | None:
    """The seconds of each position of a finished sweep; None if they are not known any more."""
    return compute.answers().get(_pace_key(asked))


def plan(asked: SweepRequest) -> RunningSweep | None:
    """The sweep after its clean pass; None where a message explains why there is none."""
    return compute.compute(
        asked.plan_key, lambda tick: _make_plan(asked, tick), size=lambda begun: _nbytes(asked, begun), title="Planning",
        device=asked.device, shelf=running_sweeps(),
    )  # fmt: skip


def _make_plan(asked: SweepRequest, tick: Tick, whole: bool = False) -> RunningSweep:
    if asked.unit is not None:
        check_unit(asked.network, asked.unit)
    work = Occlusion(Question(asked.network, asked.picture, unit=asked.unit), asked.params)
    tick(0.5)
    return RunningSweep(work, _measure(work, tick, whole))


def _measure(work: Occlusion, tick: Tick, whole: bool) -> float:
    """Compute the coarse maps, or all positions, or a part of them if they take long; returns the seconds of a position.

    The first batch makes plans, so it counts only if it is the only one.
    """
    enough, done = work.finished.size if whole else len(coarse_to_fine(work.positions.shape)[0]), 0
    began, before = time.perf_counter(), 0
    end = began + COARSE
    for share in work.run():
        tick(0.5 + 0.5 * share)
        now, done, first = time.perf_counter(), int(work.finished.sum()), not done
        if done >= enough or now > end:
            break
        if first:
            began, before = now, done
    return (time.perf_counter() - began) / max(1, done - before)


def _nbytes(asked: SweepRequest, begun: RunningSweep) -> int:
    """Approximate memory of a sweep: twice the clean activations, and the scores."""
    activations = sum(int(np.prod(site.shape)) for site in asked.network.sites)
    return 4 * (2 * activations + begun.work.finished.size * len(begun.work.clean_logits))


def answer_of(asked: SweepRequest) -> Result | None:
    """The finished result, if it is in the cache."""
    return compute.answers().get(asked.key)


def may_run(asked: SweepRequest, begun: RunningSweep) -> bool:
    """Whether it starts by itself, or was started by the user, who may have cancelled it."""
    by_itself = begun.seconds <= QUICK or begun.work.finished.size <= FEW
    return by_itself or progress.is_started(asked.key) or progress.is_cancelled(asked.key)


def partial_result(asked: SweepRequest, begun: RunningSweep) -> Result | None:
    """The result of a cancelled sweep from its finished positions; the full result if it has finished meanwhile.

    Its fact `finished` counts the positions. The sweep continues if another session watches it.
    """
    count = int(begun.work.finished.sum())
    drawn = compute.compute(
        ("kept", str(count), *asked.key), lambda tick: _result(asked, begun, tick), title="Drawing the finished part",
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

    def describe(watched: WatchedRuns) -> str:
        seconds = sum(plan.seconds for plan in sweeps.values())
        return f"{100 * watched.share:.0f} % of {count} positions · about {messages.duration(max(seconds, 1))} left"

    return progress.follow(requests, "Sweeping", "occlusion.cancel", draw, describe)


def _is_finished(asked: SweepRequest) -> bool:
    return answer_of(asked) is not None


def _result(asked: SweepRequest, plan: RunningSweep, tick: Tick) -> Result:
    """The result of the finished positions, with what was asked, as `Method.answer` gives it."""
    return METHOD.with_question(plan.work.result(Job(tick)), plan.work.question, plan.work.params)


def _run(asked: SweepRequest, plan: RunningSweep, tick: Tick) -> Result:
    def go_on() -> Result:
        for share in plan.run():
            tick(0.97 * share)
        return _result(asked, plan, tick)

    with compute.logged(asked.key, asked.key) as entry:
        result = memory.retry_after_eviction(go_on)
        entry.nbytes = result.nbytes
    compute.answers().put(asked.key, result, result.nbytes)
    compute.answers().put(_pace_key(asked), plan.each, 8)
    running_sweeps().drop(asked.plan_key)  # its clean activations are no longer needed
    return result
