"""Work in batches that fit into memory, with progress, never a crash for want of memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from vizapp.errors import VizError
from vizapp.settings import settings

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Tick = Callable[[float], None]
_CONTAINER = Path("/sys/fs/cgroup")
_WANTED = re.compile(r"allocate ([\d.]+) (bytes|KiB|MiB|GiB)")
SHARE_OF_FREE_MEMORY = 0.5  # the rest is for the other users of the machine, and for what an estimate forgets


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device now; for a GPU including what torch has cached and does not use.

    Not more than what `VIZAPP_MEMORY_GB`, the container and the process's own limit leave.
    """
    limit = settings().memory_gb
    most = int(limit * 2**30) if limit is not None else 2**62
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(0, min(free + unused, most - torch.cuda.memory_allocated(device)))
    import psutil

    used = psutil.Process().memory_info()
    bounds = [psutil.virtual_memory().available, most - used.rss, _left_in_container()]
    if resource is not None:
        addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
        bounds += [addresses - used.vms] if addresses != resource.RLIM_INFINITY else []
    return max(0, min(bounds))


def _left_in_container() -> int:
    """Bytes that the control group of this process may still take; a huge number where there is no limit."""
    try:
        most, now = ((_CONTAINER / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return int(most) - int(now)
    except (OSError, ValueError):  # no such file, or "max"
        return 2**62


def chunk_size(bytes_per_item: int, device: torch.device, most: int = 64) -> int:
    """How many items of that size to take at once: at least 1, at most `most`."""
    return max(1, min(most, int(free_memory(device) * SHARE_OF_FREE_MEMORY) // max(1, bytes_per_item)))


def in_chunks(
    items: Sequence[Item],
    run: Callable[[Sequence[Item]], Answer],
    size: int,
    tick: Tick | None = None,
) -> Iterator[Answer]:
    """`run` over consecutive parts of `items`, `size` at a time, in order.

    When a part does not fit into memory it is halved and tried again, and the smaller size is kept. `tick` is told the
    share that is done after each part; whatever it raises ends the work.

    Raises:
        VizError: even one item does not fit.
    """
    start = 0
    while start < len(items):
        part = items[start : start + size]
        try:
            answer = run(part)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise too_large(error) from None
            size = len(part) // 2
            answer = None
        if answer is None:  # outside of the except clause, which keeps the failed part's tensors alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield answer
        start += len(part)
        if tick is not None:
            tick(start / len(items))


@contextmanager
def memory_told() -> Iterator[None]:
    """Work that is not cut any smaller: what does not fit into memory becomes a sentence.

    Raises:
        VizError: something inside did not fit.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise too_large(error) from None


def too_large(error: BaseException) -> VizError:
    """What did not fit, how much there was, and what would fit."""
    found = _WANTED.search(str(error))
    on_gpu = isinstance(error, torch.OutOfMemoryError) and torch.cuda.is_available()
    free = free_memory(torch.device("cuda" if on_gpu else "cpu"))
    wanted = 0.0
    if found is not None:
        wanted = float(found[1]) * {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[found[2]]
    more = f"{_gigabytes(wanted)} more are needed and " if wanted else ""
    return VizError(
        f"There is not enough memory on the {'GPU' if on_gpu else 'CPU'} for this question: {more}{_gigabytes(free)} are free. "
        "A smaller network would do (vizapp/zfnet-mini takes 0.1 GB), or another device, or other work that ends first."
    )


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:.2g} GB"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that went wrong. Allocations on the CPU fail with a plain RuntimeError that only its text tells apart."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "not enough memory" in text or "can't allocate memory" in text or "alloc_cpu" in text
