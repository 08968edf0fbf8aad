"""How the benchmarks of this folder take the time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def median_time(work: Callable[[], object], repeats: int) -> float:
    """Seconds that `work` takes, the GPU's included."""
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
