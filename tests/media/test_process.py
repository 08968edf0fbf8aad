"""Functions in processes of their own: answers, refusals, limits and cancelling."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.errors import refuses
from vizapp.errors import VizError
from vizapp.media import process
from vizapp.media.process import Exceeded, Limits, call

PLENTY = Limits(20, 2**28)


def double(values: np.ndarray) -> tuple[np.ndarray, int]:
    print("decoders print such things")
    return 2 * values, os.getpid()


def refuse() -> None:
    raise VizError("It is odd.", code="odd")


def spin() -> None:
    while True:
        pass


def swell() -> int:
    return len(bytearray(2**30))


def crash() -> None:
    os.abort()


def fail() -> None:
    raise KeyError("a bug")


def test_the_answer_comes_from_another_process(capfd: pytest.CaptureFixture[str]) -> None:
    values = np.arange(6.0)
    found, number = call(double, (values,), PLENTY)
    assert np.array_equal(found, 2 * values)
    assert number != os.getpid()
    assert capfd.readouterr().out == ""


def test_a_refusal_keeps_its_code() -> None:
    with refuses("odd", "It is odd."):
        call(refuse, (), PLENTY)


@pytest.mark.parametrize("function", [swell, crash])
def test_too_much_memory_or_a_crash_costs_the_process_alone(function) -> None:
    with pytest.raises(Exceeded):
        call(function, (), PLENTY)


def test_too_much_time_costs_the_process_alone() -> None:
    with pytest.raises(Exceeded):
        call(spin, (), Limits(0, 2**28))


def test_a_bug_is_not_taken_for_an_overrun(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="fail"):
        call(fail, (), PLENTY)
    assert "a bug" in capfd.readouterr().err


class Left(Exception):
    pass


def test_a_tick_that_raises_ends_the_process_and_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = process.start
    monkeypatch.setattr(process, "start", lambda *given: started.append(start(*given)) or started[-1])
    begun = time.monotonic()

    def leave(share: float) -> None:
        if time.monotonic() - begun > 0.3:
            raise Left

    with pytest.raises(Left):
        call(spin, (), PLENTY, leave)
    assert started[0].poll() is not None
    with ExitStack() as holding:
        for _ in range(process.MOST):  # and while it waits for its turn
            holding.enter_context(process._queue.turn(1, None))
        with pytest.raises(Left):
            call(double, (np.zeros(1),), PLENTY, leave)
    assert len(started) == 1
    assert threading.active_count() < 50


def test_small_ones_come_first_and_one_large_one_runs_at_a_time() -> None:
    turns, running, order = process.ProcessQueue(), [], []
    small, large = 1, process.LARGE + 1
    go, entered = threading.Event(), threading.Semaphore(0)

    def work(nbytes: int) -> None:
        with turns.turn(nbytes, None):
            running.append(nbytes)
            order.append(nbytes)
            assert running.count(large) <= 1
            assert len(running) <= process.MOST
            entered.release()
            go.wait(10)
            running.remove(nbytes)

    threads = [threading.Thread(target=work, args=(nbytes,)) for nbytes in (large, large, large, small, small, small)]
    for thread in threads:
        thread.start()
        while thread is threads[0] and not order:
            time.sleep(0.001)
    assert entered.acquire(timeout=5)
    assert entered.acquire(timeout=5)
    assert sorted(running) == [small, large]  # the other large ones wait, and leave a place to the small ones
    go.set()
    for thread in threads:
        thread.join(10)
    assert order[:2] == [large, small]
    assert len(order) == 6
    assert order[-1] == large


def test_nobody_is_overtaken_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one that has waited for long comes before small ones that have come later."""
    turns, now = process.ProcessQueue(), [0.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    asked = [(process.LARGE + 1, 0.0), (1, 5.0), (1, 200.0)]
    entries = []
    for number, (nbytes, now[0]) in enumerate(asked):
        entries.append((now[0] + nbytes / process._RATE, number, nbytes))
    turns._waiting = list(entries)
    assert turns._next() == entries[1]
    turns._waiting.remove(entries[1])
    assert turns._next() == entries[0]


def write_into(descriptor: int) -> None:
    os.write(descriptor, b"pixels")


def test_the_process_writes_into_an_open_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        call(write_into, (file.fileno(),), PLENTY, files=[file.fileno()])
        assert (tmp_path / "file").read_bytes() == b"pixels"
