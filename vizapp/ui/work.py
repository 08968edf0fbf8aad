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
from typing import Any

from vizapp.ui.shelf import Key

Tick = Callable[[float], None]
PATIENCE = 0.7  # seconds between the end of a page's script and the rerun that may ask the same again
TURN = 0.05  # seconds between two looks at the gate


class Left(BaseException):
    """Nobody waits for the answer any more. Not an Exception, so that no library swallows it."""


class Work:
    """One computation that is under way."""

    def __init__(self, run: Callable[[Tick], Any], gate: threading.BoundedSemaphore | None) -> None:
        self.share = 0.0
        self.queued = gate is not None
        self.future: Future[Any] = Future()
        self._run = run
        self._gate = gate
        self._watchers = 0
        self._left = time.monotonic()
        self._ending = False
        self._lock = threading.Lock()

    def tick(self, share: float) -> None:
        """Note the progress; end the computation when everybody has left."""
        self.share = share
        with self._lock:
            if not self._watchers and time.monotonic() - self._left > PATIENCE:
                self._ending = True
                raise Left

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

    def compute(self) -> Any:
        """Take the gate, run, and give the gate back."""
        if self._gate is None:
            return self._run(self.tick)
        while not self._gate.acquire(timeout=TURN):
            self.tick(0.0)
        try:
            self.queued = False
            return self._run(self.tick)
        finally:
            self._gate.release()


class Office:
    """All work under way, by key, and one gate per device: looking is thread-safe, memory is not."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=32, thread_name_prefix="vizapp")
        self._works: dict[Key, Work] = {}
        self._gates: dict[str, threading.BoundedSemaphore] = {}
        self._lock = threading.Lock()

    @contextmanager
    def waiting(self, key: Key, run: Callable[[Tick], Any], device: str | None) -> Iterator[Work]:
        """Wait, inside the block, for the work of that key: the one under way, or a new one.

        `device` names the gate that the work has to pass, if any.
        """
        work = self._begin(key, run, device)
        try:
            yield work
        finally:
            work.leave()

    def _begin(self, key: Key, run: Callable[[Tick], Any], device: str | None) -> Work:
        with self._lock:
            work = self._works.get(key)
            if work is not None and work.join():
                return work
            gate = None if device is None else self._gates.setdefault(device, threading.BoundedSemaphore(1))
            work = self._works[key] = Work(run, gate)
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
