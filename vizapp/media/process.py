"""Functions of vizapp in processes of their own, with limits of time and memory, for files that may take too much of both.

The processes are spawned, not forked, so a multi-threaded server can start them.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vizapp.errors import VizError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MOST = 2  # processes of `call` at a time; others wait
LARGE = 8 * 10**8  # bytes; of the processes that may take more, one runs at a time
_RATE = 10**8  # bytes of memory that make a call wait a second longer than a small one
_POLL = 0.05  # seconds between two calls of the tick
_SLOWER = 4  # how many times longer than its processor time a process may take on a busy machine
_START = 60.0  # seconds for starting and importing


@dataclass(frozen=True)
class Limits:
    """Processor seconds, and bytes in addition to those that the process has after its imports, `modules` among them."""

    seconds: int
    nbytes: int
    modules: tuple[str, ...] = ()


class Exceeded(Exception):
    """The process needed more than its limits."""


class ProcessQueue:
    """The queue of calls: small ones before large ones, but none is overtaken for long. Thread-safe."""

    def __init__(self) -> None:
        self._changed, self._number = threading.Condition(), itertools.count()
        self._waiting: list[tuple[float, int, int]] = []  # rank, number, bytes
        self._running: list[int] = []  # bytes

    @contextlib.contextmanager
    def turn(self, nbytes: int, tick: Callable[[float], None] | None) -> Iterator[None]:
        """Wait for the turn of a process that may take `nbytes`. `tick` may raise to leave."""
        entry = (time.monotonic() + nbytes / _RATE, next(self._number), nbytes)
        with self._changed:
            self._waiting.append(entry)
        try:
            while not self._begins(entry):
                if tick is not None:
                    tick(0.0)
        finally:
            with self._changed:
                self._waiting.remove(entry)
        try:
            yield
        finally:
            with self._changed:
                self._running.remove(nbytes)
                self._changed.notify_all()

    def _begins(self, entry: tuple[float, int, int]) -> bool:
        """Whether it is its turn, after waiting a moment if it was not."""
        with self._changed:
            if entry != self._next():
                self._changed.wait(_POLL)
            if entry != self._next():
                return False
            self._running.append(entry[2])
            return True

    def _next(self) -> tuple[float, int, int] | None:
        if len(self._running) >= MOST:
            return None
        full = any(nbytes > LARGE for nbytes in self._running)
        return min((one for one in self._waiting if not full or one[2] <= LARGE), default=None)


_queue = ProcessQueue()


def start(statement: str, files: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """A new Python that runs the statement, with the module search path of this process, and pipes to and from it.

    `files`: descriptors that it gets, under the same numbers.
    """
    places = [path or os.getcwd() for path in sys.path]
    code = f"import sys; sys.path[:] = {places!r}; {statement}"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, pass_fds=files
    )


def call(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    limits: Limits,
    tick: Callable[[float], None] | None = None,
    files: Sequence[int] = (),
) -> Any:
    """The function's return value, computed in a process of its own.

    Args:
        function: a function of a module, found there by name.
        arguments: its arguments; they and the return value are pickled.
        limits: of the process.
        tick: called every now and then with 0; if it raises, the process is killed.
        files: descriptors of files that the process gets, under the same numbers.

    Raises:
        VizError: the function has raised it.
        Exceeded: the process needed more than its limits, or crashed.
    """
    with _queue.turn(limits.nbytes, tick):
        return _call(function, arguments, limits, tick, files)


def _call(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    limits: Limits,
    tick: Callable[[float], None] | None,
    files: Sequence[int],
) -> Any:
    question = pickle.dumps((function.__module__, function.__qualname__, arguments, limits))
    process = start("from vizapp.media.process import answer; answer()", files)
    answers: list[bytes] = []
    talk = threading.Thread(target=_talk, args=(process, question, answers), daemon=True)
    talk.start()
    deadline = time.monotonic() + _START + _SLOWER * limits.seconds
    try:
        while talk.is_alive() and time.monotonic() < deadline:
            talk.join(_POLL)
            if tick is not None:
                tick(0.0)
    finally:
        process.kill()
        process.wait()
        talk.join()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    if process.returncode == 1:
        raise RuntimeError(f"{function.__qualname__} failed in a process of its own; its traceback is above")
    if not answers or not answers[0]:
        raise Exceeded
    kind, value = pickle.loads(answers[0])
    if kind == "refused":
        raise value
    return value


def _talk(process: subprocess.Popen[bytes], question: bytes, answers: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # the process has ended
        answers.append(process.communicate(question)[0])


def answer() -> None:
    """In the new process: read the question from the standard input and write the answer to the standard output."""
    written = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with the answer
    module, name, arguments, limits = pickle.load(sys.stdin.buffer)
    function = getattr(importlib.import_module(module), name)
    for needed in limits.modules:
        importlib.import_module(needed)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _limit(limits)  # may leave no memory for a thread
    told: tuple[str, Any]
    try:
        told = "done", function(*arguments)
    except VizError as error:
        told = "refused", error
    except MemoryError:
        return
    pickle.dump(told, written, protocol=pickle.HIGHEST_PROTOCOL)
    written.close()


def _end_with(parent: int) -> None:
    """End this process when the one that asks has been killed."""
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(0)


def _limit(limits: Limits) -> None:
    """Set the limits, as far as the system has them."""
    if resource is None:
        return
    seconds = int(time.process_time()) + 1 + limits.seconds
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limits.nbytes, used + limits.nbytes))


def is_short(nbytes: int) -> bool:
    """Whether so many more bytes would have been above this process's limit at its peak."""
    if resource is not None and (most := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
            (peak,) = (int(line.split()[1]) * 1024 for line in file if line.startswith("VmPeak:"))
            return peak + nbytes > most
    return False
