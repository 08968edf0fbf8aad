"""Pieces of work side by side, each with torch's operations on one thread.

Threads that share each operation wait for each other at its end. For operations of some 50 microseconds, of which
`winograd.py` has many, that costs more than the operation, above all while other programs use the processor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Part = TypeVar("Part")
Answer = TypeVar("Answer")


def side_by_side(work: Callable[[Part], Answer], parts: Sequence[Part]) -> list[Answer]:
    """What `work` answers to each part, computed on as many threads as torch uses for an operation; without gradients."""
    count = torch.get_num_threads()
    if count == 1 or len(parts) == 1:
        return [work(part) for part in parts]
    futures = [_threads(count).submit(torch.no_grad()(work), part) for part in parts]
    wait(futures)  # a failure leaves no work behind
    return [future.result() for future in futures]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """That many threads, which all callers share."""
    ready = Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # or torch's first operation here would set what is set for all
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, "vizapp-passes", start)
    for _ in range(count):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(count)  # for threads to come: torch gives them the number that was set last
    return pool
