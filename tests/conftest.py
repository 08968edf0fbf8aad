"""Every test worker has its own home, cache and settings, and writes no files elsewhere."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
WORKER_MEMORY = 1.5e9  # bytes that a worker may need
FEW, EVERY = 2, 16  # cases of a test in a quick run: the first ones, then one of so many
_MOVED = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TORCH_HOME", "HF_HOME")
_TEMPORARY = os.path.realpath(tempfile.gettempdir())
_WRITABLE = tuple(
    f"{folder}{os.sep}"
    for folder in (_TEMPORARY, "/dev", "/proc", *(ROOT / name for name in ("build", ".pytest_cache", ".hypothesis")))
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
}

# Before torch is imported: most tensors of the tests are small, and threads that wait for each other on a busy machine
# make them many times slower. Servers and processes that tests start inherit it, and the home and the cache too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
OWN = Path(tempfile.mkdtemp(prefix=f"vizapp-tests-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-"))
PERSONS_HOME = os.environ.setdefault("PYTEST_PERSONS_HOME", os.path.expanduser("~"))
PERSONS_CACHE = os.environ.setdefault(
    "PYTEST_PERSONS_CACHE",
    os.environ.get("VIZAPP_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or f'{PERSONS_HOME}/.cache'}/vizapp",
)
for _name in [
    name for name in os.environ if name in _MOVED or (name.startswith("VIZAPP_") and name != "VIZAPP_SHARED")
]:
    del os.environ[_name]
(OWN / "home").mkdir()
os.environ |= {"HOME": str(OWN / "home"), "VIZAPP_CACHE": str(OWN / "cache")}

# No deadline: a busy machine is slow, and what is to be fast is measured elsewhere.
settings.register_profile("vizapp", deadline=None)
settings.load_profile("vizapp")

written_outside: list[str] = []
_BEFORE = pytest.StashKey[set[str]]()


def _watch_files(event: str, arguments: tuple[Any, ...]) -> None:
    """Note the files that are changed outside the temporary folder, and those of the person's cache that are opened."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes | os.PathLike):
            name = os.fsdecode(path)
            if name.startswith(f"{PERSONS_CACHE}{os.sep}"):
                written_outside.append(os.path.realpath(name))
            elif (flags or 0) & _WRITES:
                _note(os.path.realpath(name))
    elif event in _CHANGES and arguments[-1] < 0:  # otherwise the path is relative to an open folder
        for number in _CHANGES[event]:
            folder, name = os.path.split(os.path.abspath(os.fsdecode(arguments[number])))
            _note(os.path.join(os.path.realpath(folder), name))  # a link is changed itself


def _note(name: str) -> None:
    if not f"{name}{os.sep}".startswith(_WRITABLE) and "__pycache__" not in name:
        written_outside.append(name)


sys.addaudithook(_watch_files)


@pytest.fixture(autouse=True)
def no_files_outside() -> Iterator[None]:
    """Fail the test that changed a file outside the temporary folder."""
    written_outside.clear()
    yield
    assert not written_outside


def _files() -> set[str]:
    """The files of the checkout and of the person's cache, without what tools and Python keep there."""
    found = set()
    for top in (str(ROOT), PERSONS_CACHE):
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name not in ("__pycache__", "build") and name[0] != "."]
            found |= {os.path.join(folder, name) for name in names}
    return found


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember which files there are. The hook above does not see what C++ and other processes write."""
    if not hasattr(session.config, "workerinput"):
        session.config.stash[_BEFORE] = _files()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that left files outside the temporary folder."""
    left = _files() - session.config.stash.get(_BEFORE, _files())
    if left and not hasattr(session.config, "workerinput"):
        print(f"\nThe tests left files behind: {sorted(left)}", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many workers as there are processors to use and memory to hold them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available / WORKER_MEMORY)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases that a quick run leaves out of tests with many. Before the markers are asked for."""
    count: Counter[str] = Counter()
    for item in items:
        test, _, case = item.nodeid.partition("[")
        count[test] += bool(case)
        if count[test] > FEW and count[test] % EVERY:
            item.add_marker(pytest.mark.cases)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Imports and rewritten assertions make much and throw little away: rubbish is collected once, at the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """What importing the tests has made stays to the end: collections of rubbish need not look through it each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 30)  # what is frozen does not count, so that a collection of all else came every second


def pytest_unconfigure() -> None:
    """At the end all of it may go, as libraries expect who count what they have made."""
    gc.unfreeze()
    shutil.rmtree(OWN, ignore_errors=True)
