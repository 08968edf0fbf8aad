"""Memory checks for the job service, which does not import torch and gets them from the app."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from vizapp.engine.memory.budget import memory_budget
from vizapp.engine.memory.chunks import DoesNotFit, convert_out_of_memory, free_memory, release_frames
from vizapp.engine.memory.reuse import reused_memory
from vizapp.service.lru_cache import evict_all, evictable_bytes

Value = TypeVar("Value")
ROOM = 3 * 2**30  # free bytes that a device needs before one more job is started


def has_room(device: str) -> bool:
    """Whether the device has memory for one more started job. Caches make room when a job needs it."""
    return free_memory(torch.device(device)) + (evictable_bytes() if device == "cpu" else 0) > ROOM


def waits_for_memory(thread: int) -> bool:
    """Whether the job in this thread waits for memory that other jobs hold."""
    return memory_budget().is_waited_for(thread)


def empty_caches() -> None:
    """Return the memory of evicted values to the system; torch otherwise keeps that of a GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def keep_loaded() -> None:
    """Look no longer for rubbish in what is loaded by now, which mostly stays.

    Streamlit looks after each run of a script (`runner.postScriptGC`). In the half million objects of the libraries that
    takes a fifth of a second, ten times as long as the answer to a frame of a camera.
    """
    gc.collect()
    gc.freeze()


def retry_after_eviction(run: Callable[[], Value], opens: bool = False) -> Value:
    """`run()`; if it does not fit into memory, evict all caches and try once more. Freed memory goes back to the system.

    The network used last stays, unless this `opens` one.

    Raises:
        DoesNotFit: it does not fit even then.
    """
    with reused_memory():
        return _retry_after_eviction(run, opens)


def _retry_after_eviction(run: Callable[[], Value], opens: bool) -> Value:
    try:
        with convert_out_of_memory():
            return run()
    except DoesNotFit as error:
        release_frames(error)
        if not evict_all(of_all=opens):
            raise
        empty_caches()
    with convert_out_of_memory():
        return run()
