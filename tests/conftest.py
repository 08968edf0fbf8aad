"""What holds for all tests."""

from __future__ import annotations

import gc
import os

from hypothesis import settings

# Before torch is imported: most tensors of the tests are small, and threads that wait for each other on a busy machine
# make them many times slower. Servers and processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: a busy machine is slow, and what is to be fast is measured elsewhere.
settings.register_profile("vizapp", deadline=None)
settings.load_profile("vizapp")


def pytest_collection_finish() -> None:
    """What importing the tests has made stays to the end: collections of rubbish need not look through it each time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """At the end all of it may go, as libraries expect who count what they have made."""
    gc.unfreeze()
