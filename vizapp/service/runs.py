"""Runs of long work: a request queues, runs, reports partial results, and ends as done, cancelled or refused.

Runs are watched inside a `with` block. A run that nobody watches is abandoned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from vizapp.errors import VizError
from vizapp.service.jobs import GRACE_SECONDS, Abandoned, JobRunner, Report, RunningJob
from vizapp.service.lru_cache import Key

QUIET = 0.5  # seconds before progress is shown
State = Literal["queued", "paused", "waiting for memory", "running", "done", "cancelled", "refused", "failed"]


@dataclass(frozen=True)
class RunRequest:
    """A request for long work.

    Attributes:
        key: Identifies the work; requests with equal keys share one run.
        run: Computes the result; reports the finished share and optionally a partial result.
        device: Where it takes turns with other runs; None: no queue.
        is_done: Whether the result is there without a run.
        grace: Seconds that the work goes on while nobody watches it.
    """

    key: Key
    run: Callable[[Report], Any]
    device: str | None = None
    is_done: Callable[[], bool] = lambda: False
    grace: float = GRACE_SECONDS


class WatchedRuns:
    """Some runs that one person watches together."""

    def __init__(self, keys: Sequence[Key], jobs: Sequence[RunningJob], finished: int) -> None:
        self.keys, self.jobs = tuple(keys), tuple(jobs)
        self._finished = finished  # requests that needed no run
        self._started = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether all runs have ended."""
        return all(job.future.done() for job in self.jobs)

    @property
    def share(self) -> float:
        """The finished share of the work, from 0 to 1."""
        shares = [min(job.share, 1.0) for job in self.jobs] + [1.0] * self._finished
        return sum(shares) / len(shares)

    @property
    def seconds(self) -> float:
        """Seconds since the start of watching."""
        return time.monotonic() - self._started

    @property
    def partial(self) -> Any:
        """The latest partial result; None if there is none."""
        return next((job.partial for job in self.jobs if job.partial is not None), None)

    @property
    def slowest(self) -> RunningJob | None:
        """The run that is last in the queue."""
        return max(self.jobs, key=lambda job: job.place, default=None)

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds`; returns whether all runs have ended."""
        return not wait([job.future for job in self.jobs], seconds).not_done

    def refusals(self) -> dict[Key, VizError]:
        """The errors of runs that ended with a VizError, by key.

        Raises:
            Exception: A run failed unexpectedly.
        """
        found = {}
        for key, job in zip(self.keys, self.jobs, strict=True):
            if job.future.done():
                try:
                    job.future.result()
                except VizError as error:
                    found[key] = error
        return found


@contextmanager
def watch(runner: JobRunner, requests: Sequence[RunRequest], person: str) -> Iterator[WatchedRuns]:
    """Run the requests and watch them inside the block. Current runs are joined, the others are started."""
    needed = [request for request in requests if not request.is_done()]
    with ExitStack() as stack:
        jobs = [
            stack.enter_context(runner.waiting(request.key, request.run, request.device, person, request.grace))
            for request in needed
        ]
        yield WatchedRuns([request.key for request in needed], jobs, len(requests) - len(needed))


def state_of(job: RunningJob) -> State:
    """The state of the run."""
    if job.future.done():
        error = job.future.exception()
        if error is None:
            return "done"
        return "cancelled" if isinstance(error, Abandoned) else "refused" if isinstance(error, VizError) else "failed"
    if job.paused:
        return "paused"
    if job.place:
        return "queued"
    return "waiting for memory" if job.wants_memory else "running"


def describe(job: RunningJob | None, title: str) -> str:
    """The state of the run as a line; `title` says what it computes."""
    state = "running" if job is None else state_of(job)
    if job is not None and state == "queued":
        return f"Waiting, {ordinal(job.place)} in the queue"
    return {
        "paused": f"{title}, taking turns with others",
        "waiting for memory": "Waiting for memory that other work holds",
    }.get(state, title)


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th` …"""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"
