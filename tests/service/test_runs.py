"""The run loop for long work: from a request to partial results and an end."""

from __future__ import annotations

import threading
import time

import pytest

from vizapp.errors import VizError
from vizapp.service.jobs import JobRunner, Report
from vizapp.service.runs import RunRequest, state_of, watch


def test_a_run_reports_partial_results_until_it_is_done() -> None:
    go_on = threading.Event()

    def count(report: Report) -> str:
        report(0.5, ["first"])
        assert go_on.wait(10)
        report(0.75)
        return "all"

    with watch(JobRunner(), [RunRequest(("count",), count)], "ann") as watched:
        while watched.partial is None:
            assert not watched.wait(0.01)
        assert (watched.share, watched.partial, state_of(watched.jobs[0])) == (0.5, ["first"], "running")
        go_on.set()
        assert watched.wait(10)
        assert watched.partial == ["first"], "a report without one leaves it as it is"
        assert (state_of(watched.jobs[0]), watched.jobs[0].future.result()) == ("done", "all")
        assert not watched.refusals()


def test_a_request_whose_answer_is_there_needs_no_run() -> None:
    def never(report: Report) -> None:
        raise AssertionError

    requests = [
        RunRequest(("there",), never, is_done=lambda: True),
        RunRequest(("missing",), lambda report: report(1.0)),
    ]
    with watch(JobRunner(), requests, "ann") as watched:
        assert watched.wait(10)
        assert watched.keys == (("missing",),)
        assert watched.share == 1


def test_a_refusal_is_told_by_key_and_does_not_touch_the_other_runs() -> None:
    def refuse(report: Report) -> None:
        raise VizError("Too large.", code="too-large")

    requests = [RunRequest(("good",), lambda report: "answer"), RunRequest(("bad",), refuse)]
    with watch(JobRunner(), requests, "ann") as watched:
        assert watched.wait(10)
        assert {key: error.code for key, error in watched.refusals().items()} == {("bad",): "too-large"}
        assert [state_of(job) for job in watched.jobs] == ["done", "refused"]


def test_a_run_that_everybody_left_counts_as_cancelled() -> None:
    def endless(report: Report) -> None:
        while True:
            report(0.5)
            time.sleep(0.01)

    runner = JobRunner()
    with watch(runner, [RunRequest(("endless",), endless, "cpu")], "ann") as watched:
        assert not watched.wait(0.1)
        assert watched.jobs[0].is_watched_by_others("bob")
        assert not watched.jobs[0].is_watched_by_others("ann")
    runner.abandon(("endless",))
    assert watched.wait(10)
    assert state_of(watched.jobs[0]) == "cancelled"


def test_an_unexpected_error_is_not_taken_for_a_refusal() -> None:
    def fail(report: Report) -> None:
        raise ZeroDivisionError

    with watch(JobRunner(), [RunRequest(("fails",), fail)], "ann") as watched:
        assert watched.wait(10)
        assert state_of(watched.jobs[0]) == "failed"
        with pytest.raises(ZeroDivisionError):
            watched.refusals()
