"""A cache bounded by the bytes of its values. All caches evict together when memory is short or an upload is deleted.

Built on an OrderedDict rather than on `cachetools.LRUCache`, which refuses values larger than the cache.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
Key = tuple[str, ...]
_caches: weakref.WeakSet[ByteBoundedCache[Any]] = weakref.WeakSet()


def evict_all(of_all: bool = False) -> bool:
    """Evict everything that can be computed again from all caches; returns whether there was anything.

    Each cache keeps its `min_kept_under_pressure` newest values, unless `of_all`.
    """
    chosen = [cache for cache in list(_caches) if cache.min_kept_under_pressure is not None]
    return sum(cache.shrink(0 if of_all else cache.min_kept_under_pressure or 0) for cache in chosen) > 0


def evictable_bytes() -> int:
    """Bytes that `evict_all` would free."""
    return sum(cache.evictable_bytes for cache in list(_caches))


def forget(token: str) -> None:
    """Drop from all caches every value with `token` (a digest) in a part of its key."""
    for cache in list(_caches):
        cache.drop_where(lambda key: any(token in part for part in key))


class ByteBoundedCache(Generic[Value]):
    """Values by key, bounded by the bytes they take; the least recently used is evicted first. Thread-safe.

    The newest value always stays, even one larger than the whole cache, so that it can be shown.
    """

    def __init__(
        self, capacity: int, min_kept_under_pressure: int | None = 0, on_evict: Callable[[], None] | None = None
    ) -> None:
        """An empty cache, known to `evict_all` and `forget`.

        Args:
            capacity: Bytes.
            min_kept_under_pressure: How many of the newest values stay when memory is short; None for all.
            on_evict: Called after something was evicted.
        """
        self.capacity = capacity
        self.min_kept_under_pressure = min_kept_under_pressure
        self._on_evict = on_evict
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        _caches.add(self)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        with self._lock:
            return self._nbytes()

    def _nbytes(self) -> int:
        return sum(size for _, size in self._values.values())

    @property
    def evictable_bytes(self) -> int:
        """Bytes of the values that go when memory is short."""
        kept = self.min_kept_under_pressure
        with self._lock:
            return 0 if kept is None else sum([size for _, size in self._values.values()][: len(self._values) - kept])

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value, or None if there is none."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Key, value: Value, nbytes: int) -> None:
        """Keep the value, which takes `nbytes`, and evict what no longer fits."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = (value, nbytes)
            evicted = 0
            while self._nbytes() > self.capacity and len(self._values) > 1:
                self._values.popitem(last=False)
                evicted += 1
        if evicted and self._on_evict is not None:
            self._on_evict()

    def items(self) -> list[tuple[Key, Value]]:
        """Keys and values now, the least recently used first."""
        with self._lock:
            return [(key, value) for key, (value, _) in self._values.items()]

    def drop_where(self, chosen: Callable[[Key], bool]) -> None:
        """Drop all values whose keys are chosen."""
        with self._lock:
            for key in [key for key in self._values if chosen(key)]:
                del self._values[key]

    def shrink(self, keep: int) -> int:
        """Evict all but the `keep` newest values; returns how many were evicted."""
        with self._lock:
            count = max(0, len(self._values) - keep)
            for _ in range(count):
                self._values.popitem(last=False)
        if count and self._on_evict is not None:
            self._on_evict()
        return count

    def drop(self, key: Key) -> None:
        """Drop the value, if it is there."""
        with self._lock:
            self._values.pop(key, None)
