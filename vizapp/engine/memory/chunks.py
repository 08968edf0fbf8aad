"""Run work in batches that fit into memory, with progress; out-of-memory errors become `DoesNotFit`."""

from __future__ import annotations

import gc
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from vizapp.engine.memory.reuse import give_back_if_kept
from vizapp.errors import VizError
from vizapp.settings import settings

try:
    import resource
except ImportError:  # not available on Windows
    resource = None  # type: ignore[assignment]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Tick = Callable[[float], None]
_CONTAINER = Path("/sys/fs/cgroup")
_WANTED = re.compile(r"allocate ([\d.]+) (bytes|KiB|MiB|GiB)")
SHARE_OF_FREE_MEMORY = 0.5  # the rest is for other processes and for errors of the estimates
_USUAL = 2**32  # bytes
SCRATCH = 2.5  # peak memory of a pass (with workspaces) relative to its activations, measured
# Out-of-memory messages of torch's allocators, CUDA's libraries and OpenCV; only the text identifies these errors.
_TEXTS = (
    "not enough memory", "can't allocate memory", "alloc_cpu", "cuda error: out of memory", "_status_alloc_failed",
    "insufficient memory",
)  # fmt: skip
_UNNAMED = "this question"


class DoesNotFit(VizError):
    """Something needs more memory than is available.

    Args:
        wanted: Bytes that are needed; 0 if unknown.
        free: Bytes that are free.
        device: "CPU" or "GPU".
        what: The work.
        instead: A smaller alternative, such as "a smaller batch".
    """

    def __init__(self, wanted: float, free: float, device: str, what: str = _UNNAMED, instead: str = "") -> None:
        self.wanted, self.free, self.device, self.what, self.instead = wanted, free, device, what, instead
        more = f"{_gigabytes(wanted)} more are needed and " if wanted else ""
        smaller = f"{instead[0].upper()}{instead[1:]} would do, or a" if instead else "A"
        verb = "" if instead else " would do"
        super().__init__(
            f"There is not enough memory on the {device} for {what}: {more}{_gigabytes(free)} are free. {smaller} smaller "
            f"network{verb} (vizapp/zfnet-mini takes 0.1 GB), or another device; or wait until other work has ended.",
            code="out-of-memory",
        )

    def named(self, what: str, instead: str) -> DoesNotFit:
        """A copy of the error that names the work and a smaller alternative."""
        return DoesNotFit(self.wanted, self.free, self.device, what, instead)


def free_memory(device: torch.device, wanted: int = 0) -> int:
    """Free bytes on the device; for a GPU including unused memory cached by torch.

    If fewer are free than `wanted` or than a usual pass takes, memory that `reused_memory` keeps is given back first.
    Limited by `VIZAPP_MEMORY_GB`, the container's limit and the process limit.
    """
    limit = settings().memory_gb
    most = int(limit * 2**30) if limit is not None else 2**62
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(0, min(free + unused, most - torch.cuda.memory_allocated(device)))
    free = _free_of_process(most)
    return _free_of_process(most) if free < max(_USUAL, wanted) and give_back_if_kept() else free


def _free_of_process(most: int) -> int:
    used = _process(os.getpid()).memory_info()
    bounds = [psutil.virtual_memory().available, most - used.rss, _container_headroom()]
    if resource is not None:
        addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
        bounds += [addresses - used.vms] if addresses != resource.RLIM_INFINITY else []
    return max(0, min(bounds))


@cache  # reading when the process began takes longer than reading its memory
def _process(number: int) -> psutil.Process:
    return psutil.Process(number)


def _container_headroom() -> int:
    """Bytes that the control group of this process may still allocate; 2^62 without a limit.

    The kernel counts cached files as used but evicts them when memory is needed.
    """
    try:
        most, now, stat = ((_CONTAINER / name).read_text() for name in ("memory.max", "memory.current", "memory.stat"))
        counts = dict(line.split() for line in stat.splitlines())
        return int(most) - int(now) + int(counts.get("inactive_file", 0))
    except (OSError, ValueError):  # no such file, or "max"
        return 2**62


def chunk_size(bytes_per_item: int, device: torch.device, most: int = 64) -> int:
    """Number of items of `bytes_per_item` to process at once: at least 1, at most `most`."""
    return max(1, min(most, int(free_memory(device) * SHARE_OF_FREE_MEMORY) // max(1, bytes_per_item)))


def in_chunks(
    items: Sequence[Item], run: Callable[[Sequence[Item]], Answer], size: int, tick: Tick | None = None
) -> Iterator[Answer]:
    """The results of `run` on consecutive parts of `items`, `size` at a time, in order.

    If a part does not fit into memory, it is halved and retried, and later parts keep the smaller size. `tick` is called
    with the completed fraction after each part; an exception from it ends the work.

    Raises:
        DoesNotFit: Even one item does not fit.
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
                raise as_does_not_fit(error) from None
            size = len(part) // 2
            release_frames(error)
            continue
        yield answer
        start += len(part)
        if tick is not None:
            tick(start / len(items))


class convert_out_of_memory:
    """Context manager that converts out-of-memory errors to DoesNotFit.

    `what` names the work and `instead` a smaller alternative, for errors that do not name them yet. A class, not a
    generator: a generator frame would keep the failed tensors alive.

    Raises:
        DoesNotFit: Something inside the block did not fit.
    """

    def __init__(self, what: str = "", instead: str = "") -> None:
        self._what, self._instead = what, instead

    def __enter__(self) -> None:
        """Does nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        del trace
        if error is not None and not isinstance(error, DoesNotFit) and is_out_of_memory(error):
            raise self._name_work(as_does_not_fit(error)) from None
        if isinstance(error, DoesNotFit) and self._what and error.what == _UNNAMED:
            raise self._name_work(error) from None

    def _name_work(self, error: DoesNotFit) -> DoesNotFit:
        return error.named(self._what, self._instead) if self._what else error


def check_fits(wanted: int, device: torch.device, what: str, instead: str = "") -> None:
    """Check that `wanted` bytes are free.

    Raises:
        DoesNotFit: Fewer bytes are free.
    """
    free = free_memory(device, wanted)
    if wanted > free:
        raise DoesNotFit(wanted, free, device_kind(device), what, instead)


def as_does_not_fit(error: BaseException) -> DoesNotFit:
    """The error as DoesNotFit, after the memory of the failed work was released."""
    found = _WANTED.search(str(error))
    on_gpu = torch.cuda.is_available() and (isinstance(error, torch.OutOfMemoryError) or "cu" in str(error).lower()[:6])
    release_frames(error)
    device = torch.device("cuda" if on_gpu else "cpu")
    wanted = 0.0
    if found is not None:
        wanted = float(found[1]) * {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[found[2]]
    return DoesNotFit(wanted, free_memory(device), device_kind(device))


def release_frames(error: BaseException) -> None:
    """Free the tensors of failed work that the frames of its traceback keep alive."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None  # a frame also holds its closure
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_kind(device: torch.device) -> str:
    """ "CPU" or "GPU", for messages."""
    return "CPU" if device.type == "cpu" else "GPU"


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:.2g} GB" if size >= 0.095 * 2**30 or not size else f"{size / 2**20:.2g} MB"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means out of memory. On the CPU it is a RuntimeError that only its text identifies."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError, DoesNotFit)):
        return True
    text = str(error).lower()
    return not isinstance(error, VizError) and any(words in text for words in _TEXTS)
