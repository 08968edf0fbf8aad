"""How products are rounded: in the type's own precision, or faster and less exactly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["exact", "tf32", "bf16"]

# Whether TF32 is taken is one setting for all GPUs and all threads, while work on each GPU takes its own turns.
_SETTING = threading.RLock()


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """How products are rounded inside the block: "exact" is the type's own precision, also where a GPU would take TF32.

    On GPUs one thread at a time is inside, whichever GPU it works on.
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
