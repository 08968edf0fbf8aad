"""Precision of matrix products: that of the data type, or lower and faster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["exact", "tf32", "bf16"]

# TF32 is one setting for all GPUs and threads, while each GPU has its own queue of work.
_SETTING = threading.RLock()


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Sets the precision of products inside the block; "exact" is that of the data type, without TF32.

    For GPUs, one thread at a time can be inside, across all GPUs.
    """
    if device.type != "cuda":
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
        return
    with _SETTING:
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        try:
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
                yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
