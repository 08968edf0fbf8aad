"""Decode and crop pictures in batches, ahead of the reader, in worker processes.

The batches and their order do not depend on the number of processes. The processes are spawned (`worker.py`), not forked,
so a multi-threaded server can start them; they do not import torch and start in a fraction of a second.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vizapp.errors import VizError
from vizapp.media.process import start
from vizapp.media.source import ImageRef, Source
from vizapp.media.transforms import View

PREFETCHED = 2  # batches per process that are decoded ahead of the reader
FEWEST_FOR_WORKERS = 400  # pictures; fewer are decoded faster without processes
_POLL = 0.1  # seconds between two calls of the tick
_TRIES = 2  # processes that must crash on a single picture before it counts as unreadable
_DIED = "The decoding process crashed; the file is probably damaged."

Tick = Callable[[float], None]


class Crop(Protocol):
    """What to take of each photo; picklable."""

    @property
    def view(self) -> View:
        """The network's own crop, which knows what feeds its channels."""
        ...

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """A crop `[H W C]` of values `[H W C]`, or several of one size, `[n H W C]`."""
        ...


@dataclass(frozen=True)
class DecodedBatch:
    """One batch: numbers, crops (`pixels`, each `[H W C]` or `[n H W C]`) and digests of the readable `pictures`.

    `failed`: number and error message of each unreadable one.
    """

    number: int
    pictures: tuple[int, ...]
    pixels: tuple[np.ndarray, ...]
    digests: tuple[str, ...]
    failed: tuple[tuple[int, str], ...]


def decode_batch(
    number: int, first: int, refs: Sequence[ImageRef], view: Crop, tick: Tick | None = None
) -> DecodedBatch:
    """Decode one batch.

    Args:
        number: of the batch.
        first: number of its first picture.
        refs: its pictures.
        view: what to take of each.
        tick: called from time to time while a picture takes long; it may raise to cancel.
    """
    pictures, crops, digests, failed = [], [], [], []
    for index, ref in enumerate(refs, first):
        try:
            picture = ref.open(tick)
            crops.append(view.apply(view.view.values(picture)))
        except VizError as error:
            failed.append((index, str(error)))
            continue
        pictures.append(index)
        digests.append(picture.digest)
    return DecodedBatch(number, tuple(pictures), tuple(crops), tuple(digests), tuple(failed))


def batches(
    source: Source, view: Crop, numbers: Sequence[int], size: int, workers: int, tick: Tick = lambda share: None
) -> Iterator[DecodedBatch]:
    """The batches `numbers`, in that order. Closing the generator ends the processes.

    Args:
        source: the pictures.
        view: what to take of each picture.
        numbers: batch n holds the pictures n·size to (n+1)·size - 1.
        size: pictures per batch.
        workers: number of processes; with 0, the caller's thread decodes each batch when it is requested.
        tick: called with 0 from time to time while pictures take long; it may raise to cancel.
    """
    if workers == 0:
        for number in numbers:
            yield decode_batch(number, *_image_refs(source, number, size), view, tick)
        return
    crew = _WorkerPool(min(workers, max(1, len(numbers))), view)
    waiting: deque[Future[DecodedBatch]] = deque()
    try:
        rest = iter(numbers)
        while True:
            while len(waiting) < PREFETCHED * workers and (n := next(rest, None)) is not None:
                waiting.append(crew.submit(n, *_image_refs(source, n, size)))
            if not waiting:
                return
            first = waiting.popleft()
            while not wait([first], _POLL).done:
                tick(0.0)
            yield first.result()
    finally:
        crew.close()


def worker_count(pictures: int, processes: int = 1) -> int:
    """Number of worker processes for this machine and that many pictures; `processes` callers share the machine."""
    return 0 if pictures < FEWEST_FOR_WORKERS else max(1, min(8, (os.cpu_count() or 1) // processes))


def _image_refs(source: Source, number: int, size: int) -> tuple[int, list[ImageRef]]:
    first = number * size
    return first, [source.image_ref(index) for index in range(first, min(first + size, len(source)))]


class _WorkerPool:
    """Worker processes, each with a thread that sends it work and waits for the answer."""

    def __init__(self, workers: int, view: Crop) -> None:
        self._view = view
        self._own = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []
        self._lock, self._over = threading.Lock(), False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="vizapp-decode")

    def submit(self, number: int, first: int, refs: list[ImageRef]) -> Future[DecodedBatch]:
        return self._pool.submit(self._answer, number, first, refs)

    def close(self) -> None:
        """End the processes, including busy ones."""
        with self._lock:
            self._over = True
            for process in self._all:
                process.kill()
        self._pool.shutdown(cancel_futures=True)
        for process in self._all:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # unwritten data has no reader any more
                        pipe.close()

    def _answer(self, number: int, first: int, refs: list[ImageRef]) -> DecodedBatch:
        try:
            return self._call(number, first, refs)
        except (EOFError, OSError, pickle.UnpicklingError):  # the process crashed: find out on which picture
            parts = [self._decode_alone(number, index, ref) for index, ref in enumerate(refs, first)]
        return DecodedBatch(
            number,
            tuple(index for part in parts for index in part.pictures),
            tuple(crop for part in parts for crop in part.pixels),
            tuple(digest for part in parts for digest in part.digests),
            tuple(failure for part in parts for failure in part.failed),
        )

    def _decode_alone(self, number: int, index: int, ref: ImageRef) -> DecodedBatch:
        for _ in range(_TRIES):
            with suppress(EOFError, OSError, pickle.UnpicklingError):
                return self._call(number, index, [ref])
        return DecodedBatch(number, (), (), (), ((index, _DIED),))

    def _call(self, number: int, first: int, refs: list[ImageRef]) -> DecodedBatch:
        process = self._process()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((number, first, refs, self._view), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            return pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            self._own.process = None
            raise

    def _process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None:
            with self._lock:
                if self._over:
                    raise EOFError
                process = start("from vizapp.media.worker import serve; serve()")
                self._all.append(process)
            self._own.process = process
        return process
