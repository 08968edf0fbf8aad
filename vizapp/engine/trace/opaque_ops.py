"""Finding what a `Trace` does not see: the inside of scripted and compiled functions and of custom autograd functions.

Such an operation would count as a constant, and every map would silently lack what goes through it. But torch's dispatcher
runs all operations one by one, those too: what runs there while no seen operation is running is a hidden one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vizapp.engine.call_arguments import tensors_in
from vizapp.errors import VizError


class OpaqueOpDetector(TorchDispatchMode):
    """Watches a pass beside a trace. `depends` tells whether a tensor was made by an operation that the trace saw."""

    def __init__(self, depends: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self._depends = depends
        self._seen = 0
        self._hidden = ""

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Inside this block runs an operation that the trace sees."""
        self._seen += 1
        try:
            yield
        finally:
            self._seen -= 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self._seen and not self._hidden and any(map(self._depends, tensors_in((args, kwargs or {})))):
            self._hidden = str(getattr(func, "__name__", func)).partition(".")[0]
        return func(*args, **(kwargs or {}))

    def raise_if_any(self) -> None:
        """Raise VizError if a hidden operation took in something that depends on the picture."""
        if self._hidden:
            raise VizError(
                f"This network computes a part of its answer ({self._hidden} …) where no operation can be seen: in a scripted "
                "or compiled function, or in an autograd function of its own. Write that part in plain PyTorch."
            )
