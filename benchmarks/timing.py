"""Timing for the benchmarks of this folder."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def timed(work: Callable[[], object]) -> float:
    """The seconds of `work`, including work on the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_time(work: Callable[[], object], repeats: int) -> float:
    """The median seconds of `work`, including work on the GPU."""
    return statistics.median(timed(work) for _ in range(repeats))
