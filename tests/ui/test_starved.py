"""A short question while a long one is computed: every long method yields the device regularly."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vizapp
from vizapp.engine.trace.sites import Unit
from vizapp.media.samples import open_sample
from vizapp.media.sources import open_folder
from vizapp.service import runs
from vizapp.service.jobs import JobRunner, Tick
from vizapp.service.scheduler import FairScheduler
from vizapp.zoo.network import Network

Long = Callable[[Network, Tick, Path], Any]


def asked(method: str, **params: Any) -> Long:
    def run(network: Network, tick: Tick, folder: Path) -> Any:
        return vizapp.ask(method, network, picture=open_sample("digit 3"), tick=tick, **params)

    return run


def built(network: Network, tick: Tick, folder: Path) -> Any:
    from vizapp.gallery import build
    from vizapp.methods.gallery import GalleryParams, plan_of

    def watch(progress: Any) -> None:
        tick(progress.share)

    plan = plan_of(network, GalleryParams())
    return build(network, open_folder("digits"), network.sites[:2], folder, plan, watch)


def matched(network: Network, tick: Tick, folder: Path) -> Any:
    from vizapp.methods.base import Job
    from vizapp.methods.matching import match_units

    sites = (network.sites[1].name, network.sites[4].name)
    return match_units((network, network), sites, open_folder("digits"), Job(tick))


UNIT = Unit("features.4", 3)
LONG: dict[str, Long] = {
    "ten crops": asked("predict", crops="ten"),
    "gallery": built,
    "sweep": asked("occlusion", window=8, stride=1),
    "dense": asked("dense", zoom=3.0, scales=3, flips=True),
    "ideal input": asked("ideal", unit=UNIT, steps=20, restarts=1),
    "sanity check": asked("sanity", unit=UNIT),
    "architecture": asked("architecture", repeats=12),
    "matching": matched,
}


@pytest.fixture(scope="module")
def lenet() -> Network:
    return vizapp.load("vizapp/lenet5-digits", device="cpu")


@pytest.mark.parametrize("name", LONG)
@pytest.mark.slow
def test_a_short_question_comes_between_the_slices_of_a_long_one(name: str, lenet: Network, tmp_path: Path) -> None:
    office = JobRunner()
    office._turns["cpu"] = FairScheduler(slice_=0.0)  # so that the answer does not depend on how fast this machine is
    begun, go_on = threading.Event(), threading.Event()
    shares: list[float] = []

    def long(tick: Tick) -> Any:
        def tell(share: float) -> None:
            if not begun.is_set():
                begun.set()
                go_on.wait(20)
            shares.append(share)
            tick(share)

        return LONG[name](lenet, tell, tmp_path)

    def short(tick: Tick) -> tuple[int, Any]:
        assert not first.future.done()
        return len(shares), vizapp.ask("predict", lenet, picture=open_sample("digit 7"), tick=tick)

    with office.waiting(("long",), long, "cpu", "ann") as first:
        assert begun.wait(60)
        with office.waiting(("short",), short, "cpu", "bob") as second:
            while second.place == 0 and second._ticket is None:
                pass
            go_on.set()
            ticks, answer = second.future.result(timeout=60)
        assert ticks <= 2  # the long one went on for a step or two, and no further
        assert answer.arrays["logits"].shape == (10,)
        first.future.result(timeout=120)
    assert first.queued > 0
    assert len(shares) >= 5


def test_the_pass_of_a_gallery_and_a_sweep_say_when_they_wait(lenet: Network) -> None:

    office, release, holding = JobRunner(), threading.Event(), threading.Event()

    def holds(tick: Tick) -> None:
        holding.set()
        release.wait(20)

    with office.waiting(("other",), holds, "cpu", "ann"):
        assert holding.wait(5)
        with office.waiting(("mine",), lambda tick: None, "cpu", "bob") as mine:
            while not mine.place:
                pass
            assert office.find(("mine",)) is mine
            assert runs.describe(mine, "Sweeping") == "Waiting, 1st in the queue"
            release.set()
            mine.future.result(timeout=5)
    assert office.find(("mine",)) is None
    assert runs.describe(None, "Sweeping") == "Sweeping"
