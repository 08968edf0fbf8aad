"""Computations in threads of their own, so that the page can show progress and its user can leave at any time.

A Streamlit script leaves (rerun, closed tab) by a `BaseException` at its next `st.*` call. Work that nobody waits for
any more ends at its next tick. Work asked for again meanwhile, by the rerun of the same page or by somebody else, is
joined and not started twice.
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

GRACE_SECONDS = 0.7  # seconds between the end of a page's script and the rerun that may ask the same again
THREADS = 256  # works under way or waiting; most of them wait
Tick = Callable[[float], None]


class Report(Protocol):
    """Takes the share of the work that is done, and a partial result that whoever watches may show."""

    def __call__(self, share: float, partial: Any = None) -> None: ...


class Abandoned(BaseException):
    """Nobody waits for the answer any more. Not an Exception, so that no library swallows it."""


class RunningJob:
    """One computation that is under way. `person` is whoever asked first."""

    def __init__(
        self,
        run: Callable[[Report], Any],
        turns: FairScheduler | None,
        person: str = "",
        waits_for_memory: Callable[[int], bool] = lambda thread: False,
    ) -> None:
        self.share = 0.0
        self.future: Future[Any] = Future()
        self._run = run
        self._turns = turns
        self._person = person
        self._waits_for_memory = waits_for_memory
        self._ticket: QueueEntry | None = None
        self._thread = 0
        self.partial: Any = None
        self._watchers: list[str] = []
        self._left = time.monotonic()
        self._ending = False
        self._lock = threading.Lock()

    @property
    def place(self) -> int:
        """Where it stands in the queue of its device, from 1; 0 while it is being computed."""
        return self._turns.place(self._ticket) if self._turns is not None and self._ticket is not None else 0

    @property
    def paused(self) -> bool:
        """Whether it was begun and lets others go first now."""
        return self._ticket is not None and self._ticket.started and self.place > 0

    @property
    def wants_memory(self) -> bool:
        """Whether it waits until others have given back memory that it needs."""
        return not self.future.done() and self._waits_for_memory(self._thread)

    @property
    def queued(self) -> float:
        """Seconds that it has waited for others, pauses included."""
        return self._ticket.queued if self._ticket is not None else 0.0

    def report(self, share: float, partial: Any = None) -> None:
        """Note the progress; let others go first when it is their turn; end the computation when everybody has left."""
        self.share = share
        self.partial = self.partial if partial is None else partial
        self._look()
        if self._turns is not None and self._ticket is not None:
            self._turns.pause(self._ticket, self._look)

    def join(self, person: str = "") -> bool:
        """Wait for this work from now on. False when it is over or about to end."""
        with self._lock:
            if self._ending or self.future.done():
                return False
            self._watchers.append(person)
            return True

    def leave(self, person: str = "") -> None:
        """Stop waiting for it."""
        with self._lock:
            if person in self._watchers:
                self._watchers.remove(person)
            self._left = time.monotonic()

    def is_watched_by_others(self, person: str) -> bool:
        """Whether anybody else than this person waits for it."""
        with self._lock:
            return any(watcher != person for watcher in self._watchers)

    def abandon(self) -> None:
        """Have it end at its next tick, without patience, if nobody waits for it."""
        with self._lock:
            self._ending = self._ending or not self._watchers

    def compute(self) -> Any:
        """Wait for the device, run, and give the device back."""
        self._thread = threading.get_ident()
        if self._turns is None:
            return self._run(self.report)
        self._ticket = self._turns.enqueue(self._person)  # here: whoever has a place must have a thread to take it with
        self._turns.wait(self._ticket, self._look)
        try:
            return self._run(self.report)
        finally:
            self._turns.leave(self._ticket)

    def _look(self) -> None:
        with self._lock:
            if self._ending or (not self._watchers and time.monotonic() - self._left > GRACE_SECONDS):
                self._ending = True
                raise Abandoned


class JobRunner:
    """All work under way, by key, and the turns of each device: looking is thread-safe, memory is not."""

    def __init__(
        self,
        has_room: Callable[[str], bool] = lambda device: False,
        waits_for_memory: Callable[[int], bool] = lambda thread: False,
    ) -> None:
        """No work yet.

        Args:
            has_room: Whether a device has memory for one more job beside those that have started.
            waits_for_memory: Whether the job of a thread waits for memory that other jobs hold.
        """
        self._has_room, self._waits_for_memory = has_room, waits_for_memory
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="vizapp")
        self._works: dict[Key, RunningJob] = {}
        self._turns: dict[str, FairScheduler] = {}
        self._lock = threading.Lock()

    @contextmanager
    def waiting(
        self, key: Key, run: Callable[[Report], Any], device: str | None, person: str = ""
    ) -> Iterator[RunningJob]:
        """Wait, inside the block, for the work of that key: the one under way, or a new one.

        `device` is where the work takes its turns, if it has to; the turns go round by `person`.
        """
        work = self._begin(key, run, device, person)
        try:
            yield work
        finally:
            work.leave(person)

    def find(self, key: Key) -> RunningJob | None:
        """The work of that key that is under way or waits for its turn, if there is some."""
        with self._lock:
            return self._works.get(key)

    def abandon(self, key: Key) -> None:
        """Have the work of that key end soon, if there is some and nobody waits for it any more."""
        work = self.find(key)
        if work is not None:
            work.abandon()

    def queued(self, key: Key) -> float:
        """Seconds that the work of that key has waited for others; 0 where there is none."""
        with self._lock:
            work = self._works.get(key)
        return work.queued if work is not None else 0.0

    def _begin(self, key: Key, run: Callable[[Report], Any], device: str | None, person: str) -> RunningJob:
        with self._lock:
            work = self._works.get(key)
            if work is not None and work.join(person):
                return work
            turns = None
            if device is not None:
                turns = self._turns.setdefault(device, FairScheduler(room=partial(self._has_room, device)))
            work = self._works[key] = RunningJob(run, turns, person, self._waits_for_memory)
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
