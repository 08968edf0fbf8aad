"""Room in memory, promised before it is taken: networks that do not fit together are opened one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import torch

from vizapp.engine.memory.chunks import DoesNotFit, free_memory

Tick = Callable[[float], None]
POLL_SECONDS = 0.1  # seconds between two looks whether somebody still waits


class MemoryBudget:
    """How much of each device's memory is promised to work that has begun. For many threads.

    Whoever has been promised room counts with all of it until it ends, also where a part of it is taken already: too
    little is given away rather than too much. Who waits holds nobody up: what is small enough passes by.
    """

    def __init__(self, free: Callable[[torch.device], int] = free_memory) -> None:
        self._free = free
        self._promised: dict[torch.device, int] = {}
        self._holders = 0
        self._waiting: set[int] = set()  # threads
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, wanted: Mapping[torch.device, int], what: str, tick: Tick | None = None) -> Iterator[None]:
        """Have so many bytes of each device inside the block; waits for others that have some.

        `tick` is called now and then while it waits; whatever it raises ends that.

        Raises:
            DoesNotFit: nobody else has any, and it does not fit.
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
        """Whether this thread waits in `reserved` now, to say so to whoever waits for its work."""
        return thread in self._waiting

    def _take(self, wanted: Mapping[torch.device, int], what: str) -> bool:
        with self._changed:
            for device, size in wanted.items():
                free = self._free(device) - self._promised.get(device, 0)
                if size > free and self._holders == 0:
                    raise DoesNotFit(size, free, "CPU" if device.type == "cpu" else "GPU", what)
                if size > free:
                    self._changed.wait(POLL_SECONDS)
                    return False
            self._holders += 1
            for device, size in wanted.items():
                self._promised[device] = self._promised.get(device, 0) + size
            return True


@cache
def memory_budget() -> MemoryBudget:
    """The room of this process."""
    return MemoryBudget()
