"""Progress bars in notebooks and on terminals, drawn by tqdm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Tick = Callable[[float], None]
_DELAY = 0.5  # seconds of work before a bar appears
_FORMAT = "{desc}: {percentage:3.0f} %|{bar}| {elapsed}, {remaining} left"
_reported: ContextVar[bool] = ContextVar("reported", default=False)  # whether a call around this one reports progress


@contextmanager
def notebook_progress(tick: Tick | None, what: str) -> Iterator[Tick | None]:
    """The given tick. Without one, in a notebook, a tick that draws a bar with the title `what`; elsewhere None.

    Of calls inside each other only the outermost draws a bar. A bar appears after half a second and goes when the work is
    done; it stays, in red, where an error or an interrupt ended the work.
    """
    outer = _reported.get()
    token = _reported.set(True)
    try:
        if tick is not None or outer or not _in_notebook():
            yield tick
        else:
            from tqdm.auto import tqdm  # it looks for widgets, and warns where a notebook has none

            with bar(tqdm, what) as drawn:
                yield drawn
    finally:
        _reported.reset(token)


@contextmanager
def bar(kind: Any, what: str, **options: Any) -> Iterator[Tick]:
    """A tick that draws a bar. `kind`: a class of tqdm, which takes the `options`."""
    with kind(total=100, desc=what, leave=False, delay=_DELAY, miniters=0, bar_format=_FORMAT, **options) as drawn:
        yield lambda share: drawn.update(100 * share - drawn.n)
        drawn.n = drawn.total  # of a bar that ends before its total, tqdm believes that it failed


def _in_notebook() -> bool:
    """Whether an IPython kernel runs this process. IPython is not imported to find out."""
    find = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return find is not None and hasattr(find(), "kernel")
