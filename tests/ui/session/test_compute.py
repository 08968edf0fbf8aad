"""The cache of results, background work, and leaving it."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest

from tests.media.files import saved
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.media.sources import open_folder
from vizapp.service.jobs import Abandoned, JobRunner, RunningJob, Tick
from vizapp.service.lru_cache import ByteBoundedCache
from vizapp.service.runs import RunRequest
from vizapp.ui.session import compute, progress, state
from vizapp.ui.session.compute import key_of

PATIENCE = 60  # seconds: a bound for work that hangs, not a measure of speed


def test_a_shelf_never_grows_past_its_size_and_lets_go_of_the_oldest() -> None:
    shelf: ByteBoundedCache[str] = ByteBoundedCache(100)
    for name in "abc":
        shelf.put((name,), name, 40)
    assert shelf.nbytes == 80
    assert shelf.get(("a",)) is None
    assert shelf.get(("b",)) == "b"  # now used last
    shelf.put(("d",), "d", 40)
    assert shelf.get(("c",)) is None
    assert shelf.get(("b",)) == "b"


def test_a_shelf_keeps_the_newest_even_when_it_is_too_large() -> None:
    shelf: ByteBoundedCache[str] = ByteBoundedCache(100)
    shelf.put(("small",), "small", 10)
    shelf.put(("large",), "large", 1000)
    assert shelf.get(("large",)) == "large"
    assert len(shelf) == 1


def test_putting_again_counts_once() -> None:
    shelf: ByteBoundedCache[str] = ByteBoundedCache(100)
    for value in ("one", "two"):
        shelf.put(("key",), value, 60)
    assert (shelf.nbytes, shelf.get(("key",))) == (60, "two")


def _network(digest: str = "n", device: str = "cpu") -> Any:
    return SimpleNamespace(digest=digest, device=device)


def test_a_key_tells_apart_all_that_an_answer_depends_on() -> None:
    picture: Any = SimpleNamespace(digest="p")
    other: Any = SimpleNamespace(digest="q")
    unit = Unit("conv1", 3)
    keys = [
        key_of("predict", _network(), picture),
        key_of("activations", _network(), picture),
        key_of("predict", _network("m"), picture),
        key_of("predict", _network(device="cuda:0"), picture),
        key_of("predict", _network(), other),
        key_of("predict", _network(), picture, unit=unit),
        key_of("predict", _network(), picture, unit=Unit("conv1", 3, (0, 0))),
        key_of("predict", _network(), picture, top=5),
        key_of("predict", _network(), picture, top=6),
        key_of("predict", _network(), picture, folder=SimpleNamespace(listing_digest=lambda: "f")),  # type: ignore[arg-type]
    ]
    assert len(set(keys)) == len(keys)
    assert key_of("predict", _network(), picture, a=1, b=2) == key_of("predict", _network(), picture, b=2, a=1)


def test_a_folder_whose_content_changed_gets_a_new_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only a picture's content changed, and not the names of the files."""
    network, asked = _network(), list[int]()

    def ask(method: str, network: Any, folder: Any, **more: Any) -> Any:
        asked.append(len(folder))
        return SimpleNamespace(
            nbytes=1, mean=float(np.mean([folder.open(n).pixels.mean() for n in range(len(folder))]))
        )

    monkeypatch.setattr("vizapp.methods.ask", ask)

    def answer() -> float:
        result: Any = compute.run("neighbours", network, folder=open_folder(tmp_path))
        return float(result.mean)

    (tmp_path / "a.png").write_bytes(saved(np.full((8, 8, 3), 10, np.uint8)))
    assert [answer(), answer()] == [10, 10]
    assert asked == [1], "the second time it is there"
    (tmp_path / "b.png").write_bytes(saved(np.full((8, 8, 3), 30, np.uint8)))
    assert answer() == 20
    (tmp_path / "b.png").write_bytes(saved(np.full((8, 8, 3), 50, np.uint8)))
    os.utime(tmp_path / "b.png", (1, 1))
    assert answer() == 30
    assert asked == [1, 2, 2]


def test_work_that_somebody_else_asked_for_is_joined() -> None:
    office, runs = JobRunner(), []

    def slow(tick: Tick) -> str:
        runs.append(1)
        time.sleep(0.1)
        return "answer"

    with office.waiting(("key",), slow, None) as first, office.waiting(("key",), slow, None) as second:
        assert first is second
        assert second.future.result() == "answer"
    assert len(runs) == 1
    with office.waiting(("key",), slow, None) as third:  # what is over is not joined
        third.future.result()
    assert len(runs) == 2


def _endless(tick: Tick) -> None:
    while True:
        tick(0.5)
        time.sleep(0.01)


def test_work_ends_soon_after_the_last_one_left_and_opens_the_gate() -> None:
    office = JobRunner()
    with office.waiting(("endless",), _endless, "cpu", grace=0.1) as work:
        time.sleep(0.3)
        assert not work.future.done()  # somebody waits
    with pytest.raises(Abandoned):
        work.future.result(timeout=PATIENCE)
    with office.waiting(("next",), lambda tick: "through the gate", "cpu") as following:
        assert following.future.result(timeout=PATIENCE) == "through the gate"


def test_work_given_up_ends_at_its_next_tick_unless_somebody_else_waits() -> None:
    office = JobRunner()
    with office.waiting(("endless",), _endless, "cpu", grace=3600) as work:
        with office.waiting(("endless",), _endless, "cpu"):
            pass
        office.abandon(("endless",))
        time.sleep(0.2)
        assert not work.future.done()
    office.abandon(("endless",))
    office.abandon(("never begun",))
    with pytest.raises(Abandoned):
        work.future.result(timeout=PATIENCE)


def test_one_work_per_device_at_a_time_and_who_queues_can_leave() -> None:
    office, release = JobRunner(), threading.Event()
    with office.waiting(("holds",), lambda tick: release.wait(PATIENCE), "cpu") as holder:
        with office.waiting(("queues",), lambda tick: "never", "cpu", grace=0.1) as queuing:
            deadline = time.monotonic() + PATIENCE
            while queuing.place != 1:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert not queuing.future.done()
        with pytest.raises(Abandoned):
            queuing.future.result(timeout=PATIENCE)
        with office.waiting(("other",), lambda tick: "other device", "cuda:0") as other:
            assert other.future.result(timeout=PATIENCE) == "other device"
        release.set()
        assert holder.future.result(timeout=PATIENCE)


def test_work_that_is_about_to_end_is_begun_anew() -> None:
    office, ending, end = JobRunner(), threading.Event(), threading.Event()

    def lingers(tick: Tick) -> None:
        try:
            _endless(tick)
        finally:
            ending.set()
            end.wait(PATIENCE)

    with office.waiting(("endless",), lingers, None, grace=0.1) as work:
        pass
    assert ending.wait(PATIENCE)
    with office.waiting(("endless",), lambda tick: "anew", None) as again:
        assert again is not work
        assert again.future.result(timeout=PATIENCE) == "anew"
    end.set()


def _script() -> None:
    """A page that asks one question, whose work says how often it ran."""
    import streamlit as st

    from tests.ui.session import test_compute as test
    from vizapp.ui.session.compute import compute

    st.write(str(compute(("question",), test.question, size=lambda a: 1, title="Computing")))


ran: list[int] = []
failing = False


def question(tick: Tick) -> str:
    """The work of `_script`."""
    ran.append(1)
    time.sleep(0.3)  # long enough for progress to be shown
    if failing:
        raise VizError("Ask something else.")
    return "the answer"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> AppTest:
    ran.clear()
    monkeypatch.setitem(globals(), "failing", False)
    monkeypatch.setattr(progress, "QUIET", 0.1)
    return AppTest.from_function(_script, default_timeout=20)


def test_an_answer_is_computed_once_and_its_progress_goes_away(page: AppTest) -> None:
    page.run().run()
    assert page.markdown[0].value == "the answer"
    assert len(ran) == 1
    assert not page.button


def test_a_cancelled_question_waits_until_it_is_asked_again(page: AppTest) -> None:
    name = state.name_of(("question",))
    page.session_state["wishes"] = {("cancel", name)}
    page.run().run()
    assert not ran
    assert page.caption[0].value == "Cancelled."
    page.button(key=f"again.{name}").click().run()
    assert page.markdown[0].value == "the answer"
    assert len(ran) == 1


def test_what_the_person_got_wrong_is_told_and_not_kept(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "failing", True)
    page.run()
    assert "Ask something else" in page.warning[0].value
    assert not page.button
    monkeypatch.setitem(globals(), "failing", False)
    page.run()
    assert not page.warning
    assert page.markdown[0].value == "the answer"


def _script_of_two() -> None:
    """A page that shows something below an answer."""
    import streamlit as st

    from tests.ui.session import test_compute as test
    from vizapp.ui.session.compute import compute

    compute(("question",), test.question, size=lambda a: 1, title="Computing")
    st.write("below")


def test_what_follows_an_answer_keeps_its_place_when_the_answer_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the browser draws it anew, and shows both for a moment."""
    cache: ByteBoundedCache[Any] = ByteBoundedCache(100)
    monkeypatch.setattr(compute, "answers", lambda: cache)
    monkeypatch.setattr(progress, "QUIET", 0.1)
    page = AppTest.from_function(_script_of_two, default_timeout=20)
    ran.clear()

    def place() -> int:
        page.run()
        return next(number for number, element in page.main.children.items() if element.type == "markdown")

    assert place() == place()
    assert len(ran) == 1


def _script_that_asks_twice() -> None:
    """A page that asks the same question in several places."""
    import streamlit as st

    from tests.ui.session import test_compute as test
    from vizapp.ui.session.compute import compute

    for _ in range(3):
        st.write(str(compute(("question",), test.question, size=lambda a: 1, title="Computing")))


def test_a_page_may_ask_again_for_what_has_left_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Compare does for two equal networks on a server with a small cache."""
    monkeypatch.setattr(compute, "answers", lambda: ByteBoundedCache[Any](100))  # forgets everything
    monkeypatch.setattr(progress, "QUIET", 0.1)
    ran.clear()
    page = AppTest.from_function(_script_that_asks_twice, default_timeout=20).run()
    assert [shown.value for shown in page.markdown] == ["the answer"] * 3
    assert len(ran) == 3


def test_the_log_tells_own_waiting_apart_from_that_of_a_run_that_had_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    office, line, half, end = JobRunner(), tmp_path / "log", threading.Event(), threading.Event()
    monkeypatch.setattr(progress, "job_runner", lambda: office)
    monkeypatch.setenv("VIZAPP_LOG", str(line))
    key, name = ("question", "net"), "n"

    def work(tick: Tick) -> str:
        half.set()
        assert end.wait(PATIENCE)
        return "the answer"

    with office.waiting(("other",), lambda tick: time.sleep(0.5), name), office.waiting(key, work, name) as job:
        assert half.wait(PATIENCE)
        assert job.queued > 0.3  # behind the other
        threading.Timer(0.1, end.set).start()
        monkeypatch.setattr(state, "person", lambda: "late")
        compute._run_in_place(RunRequest(key, work, name), len, "Computing", st.empty())
    (told,) = [json.loads(text) for text in line.read_text().splitlines()]
    assert told["outcome"] == "joined"
    assert told["queued"] < 0.1


def test_all_work_for_a_device_is_computed_in_the_precision_of_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what pages compute without a method. While work reports, and may wait for others, it does not hold the setting."""
    monkeypatch.setattr(progress, "job_runner", JobRunner)
    monkeypatch.setattr(state, "person", lambda: "")
    seen = []

    def rounds() -> bool:
        return torch.backends.cudnn.allow_tf32

    class Reports:
        def report(self, share: float, partial: Any = None) -> None:
            seen.append((rounds(), share, partial))

    def run(report: Any) -> None:
        seen.append(rounds())
        report(0.5, "half")
        seen.append(rounds())

    monkeypatch.setattr(RunningJob, "report", Reports.report)
    before = rounds()
    with progress.watch([RunRequest(("work",), run, "cpu")]) as watched:
        assert watched.wait(PATIENCE)
        watched.refusals()
    assert before
    assert seen == [False, (True, 0.5, "half"), False]
    assert rounds() == before
