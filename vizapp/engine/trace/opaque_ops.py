"""Finds operations that a `Trace` cannot see: inside scripted, compiled, custom autograd and `torch.func` functions.

Such an operation would look like a constant, and every map would silently lack what passes through it. Torch's dispatcher
sees all operations: one that runs there while no traced operation is running is a hidden one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vizapp.engine.call_arguments import tensors_in
from vizapp.errors import VizError


class OpaqueOpDetector(TorchDispatchMode):
    """Watches a pass beside a trace. `depends` says whether a tensor was made by an operation that the trace saw."""

    def __init__(self, depends: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self._depends = depends
        self._seen = 0
        self._hidden = ""

    @contextmanager
    def seen(self, name: str, arguments: Any) -> Iterator[None]:
        """A block in which an operation runs that the trace sees.

        Inside of `torch.vmap` and `torch.func` the trace sees operations, but not that their tensors depend on the picture.
        """
        for tensor in tensors_in(arguments):
            hides = name == "_make_dual" and self._depends(tensor)  # forward-mode derivatives
            while is_functorch_wrapped_tensor(tensor):
                tensor = get_unwrapped(tensor)
                hides |= self._depends(tensor)
            if hides:
                self._hidden = self._hidden or name
                self.raise_if_any()
        self._seen += 1
        try:
            yield
        finally:
            self._seen -= 1

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nobody compiles it, and to prevent that torch would import its compiler: 1.3 s

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self._seen and not self._hidden and any(map(self._depends, tensors_in((args, kwargs or {})))):
            self._hidden = str(getattr(func, "__name__", func)).partition(".")[0]
        return func(*args, **(kwargs or {}))

    def raise_if_any(self) -> None:
        """Raise VizError if a hidden operation read something that depends on the picture."""
        if self._hidden:
            raise VizError(
                f"This network computes part of its output ({self._hidden} …) where operations cannot be observed: in a "
                "scripted or compiled function, in a custom autograd function, or under torch.vmap or torch.func. Write that "
                "part in plain PyTorch.",
                code="hidden-operation",
            )
