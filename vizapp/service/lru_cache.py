"""A store that keeps what was used last and never grows past its size."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
Key = tuple[str, ...]
_shelves: weakref.WeakSet[ByteBoundedCache[Any]] = weakref.WeakSet()


def evict_all(of_all: bool = False) -> bool:
    """Have all stores let go of what can be had again, because memory is short; whether there was something.

    What each `keeps` stays, unless `of_all`.
    """
    chosen = [shelf for shelf in list(_shelves) if shelf.min_kept_under_pressure is not None]
    gone = sum(shelf.shrink(0 if of_all else shelf.min_kept_under_pressure or 0) for shelf in chosen)
    if gone:
        empty_caches()
    return gone > 0


def empty_caches() -> None:
    """Give back what values that went have taken: a GPU's memory is kept by torch until it is told."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class ByteBoundedCache(Generic[Value]):
    """Values by key, bounded by the bytes they take; what was used longest ago goes first. For many threads.

    `keeps` is how many of the values used last stay when memory is short (`let_go`), None if all.

    The newest value always stays, even one that is larger than the whole shelf, so that it can be shown.
    """

    def __init__(self, capacity: int, keeps: int | None = 0) -> None:
        self.capacity = capacity  # bytes
        self.min_kept_under_pressure = keeps
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        _shelves.add(self)

    @property
    def nbytes(self) -> int:
        """Bytes on the shelf now."""
        with self._lock:
            return sum(size for _, size in self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value, or None when it was never there or had to go."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Key, value: Value, nbytes: int) -> list[Value]:
        """Keep the value, which takes `nbytes`. Returns what had to go."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = (value, nbytes)
            gone = []
            total = sum(size for _, size in self._values.values())
            while total > self.capacity and len(self._values) > 1:
                _, (old, size) = self._values.popitem(last=False)
                gone.append(old)
                total -= size
            return gone

    def items(self) -> list[tuple[Key, Value]]:
        """Keys and values now, what was used longest ago first."""
        with self._lock:
            return [(key, value) for key, (value, _) in self._values.items()]

    def drop_where(self, wanted: Callable[[Key], bool]) -> None:
        """Let go of all values whose keys are wanted."""
        with self._lock:
            for key in [key for key in self._values if wanted(key)]:
                del self._values[key]

    def shrink(self, keep: int) -> int:
        """Let go of all but the `keep` values used last; how many those were."""
        with self._lock:
            gone = [self._values.popitem(last=False) for _ in range(len(self._values) - keep)]
            return len(gone)

    def drop(self, key: Key) -> None:
        """Let go of the value, if it is there."""
        with self._lock:
            self._values.pop(key, None)
