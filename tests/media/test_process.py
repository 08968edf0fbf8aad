"""Functions in processes of their own: answers, refusals, limits and cancelling."""

from __future__ import annotations

import os
import threading
import time

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
    monkeypatch.setattr(process, "start", lambda code, start=process.start: started.append(start(code)) or started[-1])
    begun = time.monotonic()

    def leave(share: float) -> None:
        if time.monotonic() - begun > 0.3:
            raise Left

    with pytest.raises(Left):
        call(spin, (), PLENTY, leave)
    assert started[0].poll() is not None
    holding = [process._turns.acquire() for _ in range(process.MOST)]  # and while it waits for its turn
    with pytest.raises(Left):
        call(double, (np.zeros(1),), PLENTY, leave)
    for _ in holding:
        process._turns.release()
    assert len(started) == 1
    assert threading.active_count() < 50
