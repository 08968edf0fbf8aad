"""Freed memory goes back to the system, now and then."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vizapp.engine.memory.trim import EVERY, MemoryTrim


def test_memory_is_returned_once_in_a_while_however_much_work_ends() -> None:
    now, returned = [0.0], list[float]()
    trim = MemoryTrim(lambda: returned.append(now[0]), lambda: now[0])
    for now[0] in (0.0, EVERY - 1, EVERY, EVERY + 1, 2 * EVERY - 1, 2 * EVERY, 5 * EVERY):
        trim.after_work()
    assert returned == [EVERY, 2 * EVERY, 5 * EVERY]


FREED = """
import psutil
from vizapp.engine.memory.trim import MemoryTrim
now = [0.0]
trim = MemoryTrim(clock=lambda: now[0])
blocks = [bytes(60_000) for _ in range(4_000)]  # 240 MB of the heap
kept = blocks[-1]  # so that the top of the heap stays in use
del blocks
before = psutil.Process().memory_info().rss
now[0] = 100.0
trim.after_work()
print((before - psutil.Process().memory_info().rss) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems return memory by themselves")
def test_freed_memory_of_a_fragmented_heap_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) > 150
