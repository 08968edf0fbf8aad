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
from typing import Any

from vizapp.service.lru_cache import Key
from vizapp.service.scheduler import Ticket, Turns

Tick = Callable[[float], None]
PATIENCE = 0.7  # seconds between the end of a page's script and the rerun that may ask the same again
ROOM = 3 * 2**30  # bytes free on a device with which one more work may be begun
THREADS = 256  # works under way or waiting; most of them wait


class Left(BaseException):
    """Nobody waits for the answer any more. Not an Exception, so that no library swallows it."""


class Work:
    """One computation that is under way. `person` is whoever asked first."""

    def __init__(self, run: Callable[[Tick], Any], turns: Turns | None, person: str = "") -> None:
        self.share = 0.0
        self.future: Future[Any] = Future()
        self._run = run
        self._turns = turns
        self._person = person
        self._ticket: Ticket | None = None
        self._thread = 0
        self._watchers = 0
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
        from vizapp.engine.memory.budget import room

        return not self.future.done() and room().is_waited_for(self._thread)

    @property
    def queued(self) -> float:
        """Seconds that it has waited for others, pauses included."""
        return self._ticket.queued if self._ticket is not None else 0.0

    def tick(self, share: float) -> None:
        """Note the progress; let others go first when it is their turn; end the computation when everybody has left."""
        self.share = share
        self._look()
        if self._turns is not None and self._ticket is not None:
            self._turns.pause(self._ticket, self._look)

    def join(self) -> bool:
        """Wait for this work from now on. False when it is over or about to end."""
        with self._lock:
            if self._ending or self.future.done():
                return False
            self._watchers += 1
            return True

    def leave(self) -> None:
        """Stop waiting for it."""
        with self._lock:
            self._watchers -= 1
            self._left = time.monotonic()

    def give_up(self) -> None:
        """Have it end at its next tick, without patience, if nobody waits for it."""
        with self._lock:
            self._ending = self._ending or not self._watchers

    def compute(self) -> Any:
        """Wait for the device, run, and give the device back."""
        self._thread = threading.get_ident()
        if self._turns is None:
            return self._run(self.tick)
        self._ticket = self._turns.ticket(self._person)  # here: whoever has a place must have a thread to take it with
        self._turns.wait(self._ticket, self._look)
        try:
            return self._run(self.tick)
        finally:
            self._turns.leave(self._ticket)

    def _look(self) -> None:
        with self._lock:
            if self._ending or (not self._watchers and time.monotonic() - self._left > PATIENCE):
                self._ending = True
                raise Left


def has_room(device: str) -> bool:
    """Whether the device has memory for one more work that is begun and waits for its turns."""
    import torch

    from vizapp.engine.memory.chunks import free_memory

    return free_memory(torch.device(device)) > ROOM


class Office:
    """All work under way, by key, and the turns of each device: looking is thread-safe, memory is not."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="vizapp")
        self._works: dict[Key, Work] = {}
        self._turns: dict[str, Turns] = {}
        self._lock = threading.Lock()

    @contextmanager
    def waiting(self, key: Key, run: Callable[[Tick], Any], device: str | None, person: str = "") -> Iterator[Work]:
        """Wait, inside the block, for the work of that key: the one under way, or a new one.

        `device` is where the work takes its turns, if it has to; the turns go round by `person`.
        """
        work = self._begin(key, run, device, person)
        try:
            yield work
        finally:
            work.leave()

    def find(self, key: Key) -> Work | None:
        """The work of that key that is under way or waits for its turn, if there is some."""
        with self._lock:
            return self._works.get(key)

    def give_up(self, key: Key) -> None:
        """Have the work of that key end soon, if there is some and nobody waits for it any more."""
        work = self.find(key)
        if work is not None:
            work.give_up()

    def queued(self, key: Key) -> float:
        """Seconds that the work of that key has waited for others; 0 where there is none."""
        with self._lock:
            work = self._works.get(key)
        return work.queued if work is not None else 0.0

    def _begin(self, key: Key, run: Callable[[Tick], Any], device: str | None, person: str) -> Work:
        with self._lock:
            work = self._works.get(key)
            if work is not None and work.join():
                return work
            turns = None if device is None else self._turns.setdefault(device, Turns(room=partial(has_room, device)))
            work = self._works[key] = Work(run, turns, person)
            work.join()
            work.future = self._pool.submit(self._finish, key, work)
            return work

    def _finish(self, key: Key, work: Work) -> Any:
        try:
            return work.compute()
        finally:
            with self._lock:
                if self._works.get(key) is work:
                    del self._works[key]
