"""Large activations reuse memory inside the block, and it goes back afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKS = """
import resource, psutil, torch
from vizapp.engine.memory import reuse
from vizapp.engine.memory.reuse import reused_memory
reuse.LONG = 0.0

def mapped(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes * 2**18)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() >> 20

def resident():
    return psutil.Process().memory_info().rss >> 20

mapped(200)
found = [mapped(180)]
with reused_memory():
    with reused_memory():
        mapped(200)
    found.append(mapped(180))  # the outer block still holds
    inside = resident()
print(*found, inside - resident(), mapped(180))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told to keep memory")
def test_a_large_block_reuses_the_memory_of_the_last_one_and_gives_it_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKS], capture_output=True, text=True, check=True, timeout=60)
    before, inside, given_back, after = map(int, done.stdout.split())  # megabytes
    assert before >= 170, "the system maps and clears such blocks, so there is something to reuse"
    assert inside <= 10
    assert given_back >= 170
    assert after >= 170


KEPT = """
import psutil, torch
from vizapp.engine.memory.chunks import free_memory
from vizapp.engine.memory.reuse import reused_memory

def resident():
    return psutil.Process().memory_info().rss >> 20

with reused_memory():
    torch.ones(200 * 2**18)
    before = resident()
    free_memory(torch.device("cpu"), wanted=2**60)
    print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told to keep memory")
def test_what_is_kept_is_given_back_before_it_is_missed() -> None:
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) >= 190
