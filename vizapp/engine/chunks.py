"""Work in batches that fit into memory, with progress, never a crash for want of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from vizapp.errors import VizError

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Tick = Callable[[float], None]
SHARE_OF_FREE_MEMORY = 0.5  # the rest is for the other users of the machine, and for what an estimate forgets


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device now; for a GPU including what torch has cached and does not use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil

    return int(psutil.virtual_memory().available)


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
                raise VizError(
                    "There is not enough memory for this network on one picture; free some, or take a smaller network "
                    "or another device."
                ) from error
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


def is_out_of_memory(error: BaseException) -> bool:
    """CPU allocations fail with a plain RuntimeError that only its text tells apart."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "not enough memory" in text or "can't allocate memory" in text or "alloc_cpu" in text
