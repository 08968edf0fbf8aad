"""Timing for the benchmarks of this folder."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def median_time(work: Callable[[], object], repeats: int) -> float:
    """The median seconds of `work`, including work on the GPU."""
    times = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
