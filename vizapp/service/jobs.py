"""Computations in background threads, so that a page can show their progress and its user can leave at any time.

When a Streamlit script ends (rerun, closed tab), its next `st.*` call raises a `BaseException`. A job that nobody watches
ends at its next tick. If the job is requested again before that, by the rerun of the page or by another session, the request
joins it instead of starting a second one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from vizapp.service.lru_cache import Key
from vizapp.service.scheduler import FairScheduler, QueueEntry

GRACE_SECONDS = 0.7  # seconds that a job waits for the rerun of its page, which may request it again
THREADS = 256  # running and waiting jobs; most of them wait
Tick = Callable[[float], None]


class Report(Protocol):
    """Takes the finished share of the work, and a partial result that watchers may show."""

    def __call__(self, share: float, partial: Any = None) -> None: ...


class Abandoned(BaseException):
    """Nobody watches the job any more. Not an Exception, so that no library swallows it."""


class RunningJob:
    """A computation in progress.

    Args:
        run: The computation.
        turns: The scheduler of its device; None if it does not queue.
        person: The session that requested it first.
        waits_for_memory: Whether the job of a thread waits for memory that other jobs hold.
        grace: Seconds that it goes on while nobody watches it.
    """

    def __init__(
        self,
        run: Callable[[Report], Any],
        turns: FairScheduler | None,
        person: str = "",
        waits_for_memory: Callable[[int], bool] = lambda thread: False,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.share = 0.0
        self.future: Future[Any] = Future()
        self._run = run
        self._turns = turns
        self._person = person
        self._waits_for_memory = waits_for_memory
        self._grace = grace
        self._ticket: QueueEntry | None = None
        self._thread = 0
        self.partial: Any = None
        self._watchers: list[str] = []
        self._left = time.monotonic()
        self._ending = False
        self._lock = threading.Lock()

    @property
    def place(self) -> int:
        """Position in the queue of its device, from 1; 0 while it runs."""
        return self._turns.place(self._ticket) if self._turns is not None and self._ticket is not None else 0

    @property
    def paused(self) -> bool:
        """Whether it has started and is now waiting for its next turn."""
        return self._ticket is not None and self._ticket.started and self.place > 0

    @property
    def wants_memory(self) -> bool:
        """Whether it waits for memory that other jobs hold."""
        return not self.future.done() and self._waits_for_memory(self._thread)

    @property
    def queued(self) -> float:
        """Seconds in the queue, pauses included."""
        return self._ticket.queued if self._ticket is not None else 0.0

    def report(self, share: float, partial: Any = None) -> None:
        """Note the progress, yield the device if the time slice is over, and end the job if nobody watches it."""
        self.share = share
        self.partial = self.partial if partial is None else partial
        self._look()
        if self._turns is not None and self._ticket is not None:
            self._turns.pause(self._ticket, self._look)

    def join(self, person: str = "") -> bool:
        """Watch this job from now on. False if it has ended or is about to end."""
        with self._lock:
            if self._ending or self.future.done():
                return False
            self._watchers.append(person)
            return True

    def leave(self, person: str = "") -> None:
        """Stop watching it."""
        with self._lock:
            if person in self._watchers:
                self._watchers.remove(person)
            self._left = time.monotonic()

    def is_watched_by_others(self, person: str) -> bool:
        """Whether anybody other than this person watches it."""
        with self._lock:
            return any(watcher != person for watcher in self._watchers)

    def abandon(self) -> None:
        """End it at its next tick, without a grace period, if nobody watches it."""
        with self._lock:
            self._ending = self._ending or not self._watchers

    def compute(self) -> Any:
        """Wait for the device, run, and release the device."""
        self._thread = threading.get_ident()
        if self._turns is None:
            return self._run(self.report)
        self._ticket = self._turns.enqueue(self._person)  # not earlier: a queued job needs a thread to take its turn
        self._turns.wait(self._ticket, self._look)
        try:
            return self._run(self.report)
        finally:
            self._turns.leave(self._ticket)

    def _look(self) -> None:
        with self._lock:
            if self._ending or (not self._watchers and time.monotonic() - self._left > self._grace):
                self._ending = True
                raise Abandoned


class JobRunner:
    """All current jobs by key, and the scheduler of each device. Thread-safe."""

    def __init__(
        self,
        has_room: Callable[[str], bool] = lambda device: False,
        waits_for_memory: Callable[[int], bool] = lambda thread: False,
    ) -> None:
        """A runner without jobs.

        Args:
            has_room: Whether a device has memory for one more started job.
            waits_for_memory: Whether the job of a thread waits for memory that other jobs hold.
        """
        self._has_room, self._waits_for_memory = has_room, waits_for_memory
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="vizapp")
        self._works: dict[Key, RunningJob] = {}
        self._turns: dict[str, FairScheduler] = {}
        self._lock = threading.Lock()

    @contextmanager
    def waiting(
        self,
        key: Key,
        run: Callable[[Report], Any],
        device: str | None,
        person: str = "",
        grace: float = GRACE_SECONDS,
    ) -> Iterator[RunningJob]:
        """Watch the job of a key inside the block: the current one, or a new one.

        Args:
            key: Identifies the job.
            run: The computation.
            device: Where it queues; None: no queue.
            person: The session that watches it. Sessions take turns.
            grace: Seconds that a new one goes on while nobody watches it.
        """
        work = self._begin(key, run, device, person, grace)
        try:
            yield work
        finally:
            work.leave(person)

    def find(self, key: Key) -> RunningJob | None:
        """The running or waiting job of that key, if there is one."""
        with self._lock:
            return self._works.get(key)

    def abandon(self, key: Key) -> None:
        """End the job of that key soon, if there is one and nobody watches it."""
        work = self.find(key)
        if work is not None:
            work.abandon()

    def queued(self, key: Key) -> float:
        """Seconds that the job of that key has spent in the queue; 0 if there is none."""
        with self._lock:
            work = self._works.get(key)
        return work.queued if work is not None else 0.0

    def _begin(
        self, key: Key, run: Callable[[Report], Any], device: str | None, person: str, grace: float
    ) -> RunningJob:
        with self._lock:
            work = self._works.get(key)
            if work is not None and work.join(person):
                return work
            turns = None
            if device is not None:
                turns = self._turns.setdefault(device, FairScheduler(room=partial(self._has_room, device)))
            work = self._works[key] = RunningJob(run, turns, person, self._waits_for_memory, grace)
            work.join(person)
            work.future = self._pool.submit(self._finish, key, work)
            return work

    def _finish(self, key: Key, work: RunningJob) -> Any:
        try:
            return work.compute()
        finally:
            with self._lock:
                if self._works.get(key) is work:
                    del self._works[key]
