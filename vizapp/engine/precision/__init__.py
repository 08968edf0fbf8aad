"""Precision of products (convolutions, matrix products): that of the data type, or lower and faster where asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch

Precision = Literal["exact", "tf32", "bf16"]


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Sets the precision of products inside the block; "exact" is that of the data type. Only GPUs have TF32.

    Threads that want TF32 and threads that want none wait for each other, in the order in which they came. Blocks can be
    nested: the inner one counts.
    """
    tf32 = precision == "tf32" and device.type == "cuda"
    with _TF32.held(tf32), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


@contextmanager
def others_may_compute() -> Iterator[None]:
    """Lets other threads set another precision inside the block, in which this thread computes nothing.

    Ticks need it: their thread may pause in them until another job has had its turn.
    """
    with _TF32.held(None):
        yield


class _SharedSetting:
    """Whether products use TF32: one setting for all GPUs and threads, while each GPU has its own queue of work.

    Threads that want the same hold it together. A thread holds at most one setting, and none while it waits.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._holders, self._tf32 = 0, False
        self._before: _Flags | None = None
        self._own = threading.local()

    @contextmanager
    def held(self, tf32: bool | None) -> Iterator[None]:
        """Hold this setting, or none, inside the block, instead of what the thread held before."""
        before: bool | None = getattr(self._own, "tf32", None)
        try:
            self._switch(before, tf32)
            yield
        finally:
            self._switch(getattr(self._own, "tf32", None), before)

    def _switch(self, before: bool | None, after: bool | None) -> None:
        if before == after:
            return
        with self._changed:
            if before is not None:
                self._leave()
            if after is not None:
                self._enter(after)

    def _leave(self) -> None:
        self._own.tf32 = None
        self._holders -= 1
        if not self._holders and self._before is not None:
            self._before.restore()
        self._changed.notify_all()

    def _enter(self, tf32: bool) -> None:
        turn = object()
        self._queue.append(turn)
        try:
            self._changed.wait_for(lambda: self._queue[0] is turn and (not self._holders or self._tf32 == tf32))
            if not self._holders:
                self._before, self._tf32 = _Flags(), tf32
                _set_tf32(tf32)
            self._holders += 1
            self._own.tf32 = tf32
        finally:
            self._queue.remove(turn)
            self._changed.notify_all()


_TF32 = _SharedSetting()


class _Flags:
    """Torch's own settings as they are now.

    Torch has two sets of them: flags, and since 2.9 a precision by name for each kind of product. It refuses to read the
    flags while the two contradict each other, so both are set.
    """

    def __init__(self) -> None:
        self._flags: dict[str, Any] = {}
        with suppress(RuntimeError):  # the caller has set the precisions and not the flags
            self._flags["cudnn"] = torch.backends.cudnn.allow_tf32
        with suppress(RuntimeError):
            self._flags["products"] = torch.get_float32_matmul_precision()
        self._precisions = [kind.fp32_precision for kind in _products()]

    def restore(self) -> None:
        """Set them back."""
        if "cudnn" in self._flags:
            torch.backends.cudnn.allow_tf32 = self._flags["cudnn"]
        if "products" in self._flags:
            torch.set_float32_matmul_precision(self._flags["products"])
        for kind, precision in zip(_products(), self._precisions, strict=True):
            kind.fp32_precision = precision


def _products() -> list[Any]:
    """Where torch has a precision: products on a GPU (three kinds), then on a CPU."""
    backends: Any = torch.backends
    cudnn, cpu = backends.cudnn, backends.mkldnn
    return [cudnn.conv, cudnn.rnn, backends.cuda.matmul, cpu.conv, cpu.rnn, cpu.matmul]


def _set_tf32(tf32: bool) -> None:
    # The flags first: setting them resets the precisions to "none", which means that of `torch.backends.fp32_precision`.
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    for number, kind in enumerate(_products()):
        kind.fp32_precision = "tf32" if tf32 and number < 3 else "ieee"
