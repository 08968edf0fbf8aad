"""Messages to the user: what went wrong and what to do, without stack traces."""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections.abc import Callable
from html import escape
from typing import Any

import streamlit as st

from vizapp import references
from vizapp.engine.memory.chunks import as_does_not_fit, is_out_of_memory
from vizapp.errors import VizError
from vizapp.ui.session import access, glossary, state

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
LOG = logging.getLogger("vizapp")


def warn(sentence: str, place: Any = st) -> None:
    """Show a sentence about something that the user can fix, in `place`."""
    place.warning(escaped(access.discreet(sentence)), icon=":material/info:")


def info(sentence: str) -> None:
    """Show a sentence as a caption."""
    st.caption(linked(access.discreet(sentence)))


def must_know(sentence: str) -> None:
    """Show a sentence without which the page misleads: a caption, which stays in presentation mode."""
    draw = st.markdown if state.get(state.PRESENT) == "on" else st.caption
    draw(linked(access.discreet(sentence)))


def heading(title: str) -> None:
    """Draw a small heading over a group of widgets or sentences."""
    st.html(f'<div class="vz-head">{escape(title)}</div>')


def escaped(text: str) -> str:
    """The text escaped for Markdown: names of layers, classes and files contain `_`, `*`, `[` and `:`."""
    for mark in "\\`*_[]<>$:#~|@&":
        text = text.replace(mark, "\\" + mark)
    return text.replace("www.", "www\\.")  # GitHub's Markdown would make it a link


def linked(text: str) -> str:
    """The text escaped for Markdown, with citations as links to the papers and the page's terms with their meaning."""
    pieces = references.split(text)
    known = state.page()
    return "".join(f"[{escaped(p)}]({url})" if url else glossary.explained(escaped(p), known) for p, url in pieces)


def duration(seconds: float) -> str:
    """`8 s`, `3 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _known(error: Exception) -> VizError | None:
    """A problem of the machine as a sentence (out of memory, disk full, permission denied); else None."""
    if isinstance(error, OSError) and error.errno in _DISK:
        what = repr(str(error.filename)) if error.filename else "A file"
        verb = "read" if _is_closed(error.filename) else "written"
        return VizError(
            f"{what} cannot be {verb} on this machine: {error.strerror}. "
            "The rest of the app still works. Please tell the administrator.",
            code="disk-refused",
        )
    if isinstance(error, (MemoryError, RuntimeError)):
        return as_does_not_fit(error) if is_out_of_memory(error) else None
    return None


def _is_closed(name: str | bytes | int | None) -> bool:
    """Whether a file exists and cannot be read; the error itself does not distinguish reading from writing."""
    return name is not None and os.path.exists(name) and not os.access(name, os.R_OK)


def guard(run: Callable[[], None]) -> None:
    """Run a page or a part of the frame, and show errors as messages; an unexpected error gets an ID in the log.

    The only place that catches `Exception`. Reruns and stops of Streamlit are no Exceptions and pass through.
    """
    try:
        run()
    except VizError as error:
        warn(str(error))
    except Exception as error:
        known = _known(error)
        if known is not None:
            LOG.warning("%s", known, exc_info=True)
            warn(str(known))
            return
        number = secrets.token_hex(3)
        LOG.exception("Unexpected error %s", number)
        with st.container(key="unexpected"):
            warn(f"Unexpected error. Details are in the app's log, ID {number}.")
