"""Memory reservations, so that work that does not fit together runs one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import torch

from vizapp.engine.memory.chunks import DoesNotFit, Tick, device_kind, free_memory

POLL_SECONDS = 0.1  # between two calls of the tick of a waiting thread


class MemoryBudget:
    """The memory of each device that running work has reserved. Thread-safe.

    A reservation counts in full until its block ends, even if part of it is already allocated, so the budget is
    conservative. Waiting requests do not block smaller ones that fit.
    """

    def __init__(self, free: Callable[[torch.device], int] = free_memory) -> None:
        self._free = free
        self._promised: dict[torch.device, int] = {}
        self._holders = 0
        self._waiting: set[int] = set()  # threads
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, wanted: Mapping[torch.device, int], what: str, tick: Tick | None = None) -> Iterator[None]:
        """Reserve `wanted` bytes of each device for the block. Waits while other reservations leave too little.

        `tick` is called every `POLL_SECONDS` while waiting; an exception from it ends the wait.

        Raises:
            DoesNotFit: It does not fit even without other reservations.
        """
        me = threading.get_ident()
        try:
            while not self._take(wanted, what):
                self._waiting.add(me)
                if tick is not None:
                    tick(0.0)
        finally:
            self._waiting.discard(me)
        try:
            yield
        finally:
            with self._changed:
                self._holders -= 1
                for device, size in wanted.items():
                    self._promised[device] -= size
                self._changed.notify_all()

    def is_waited_for(self, thread: int) -> bool:
        """Whether this thread is waiting in `reserve` now."""
        return thread in self._waiting

    def _take(self, wanted: Mapping[torch.device, int], what: str) -> bool:
        with self._changed:
            for device, size in wanted.items():
                free = self._free(device) - self._promised.get(device, 0)
                if size > free and self._holders == 0:
                    raise DoesNotFit(size, free, device_kind(device), what)
                if size > free:
                    self._changed.wait(POLL_SECONDS)
                    return False
            self._holders += 1
            for device, size in wanted.items():
                self._promised[device] = self._promised.get(device, 0) + size
            return True


@cache
def memory_budget() -> MemoryBudget:
    """The budget of this process."""
    return MemoryBudget()
