"""Calm sentences: what went wrong and what to do, without boxes that shout and without stack traces."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from html import escape
from typing import Any

import streamlit as st

from vizapp.errors import VizError

LOG = logging.getLogger("vizapp")


def sorry(sentence: str, place: Any = st) -> None:
    """Show a sentence about something the person can put right, in `place`."""
    place.warning(escaped(sentence), icon=":material/info:")


def hint(sentence: str) -> None:
    """Show a quiet sentence where there is nothing to see yet."""
    st.caption(escaped(sentence))


def head(title: str) -> None:
    """A small heading over a group of widgets or sentences."""
    st.html(f'<div class="vz-head">{escape(title)}</div>')


def escaped(text: str) -> str:
    """Text as it is, in a place that reads Markdown: layer, class and file names hold `_`, `*`, `[` and `:`."""
    for mark in "\\`*_[]<>$:#~|@&":
        text = text.replace(mark, "\\" + mark)
    return text.replace("www.", "www\\.")  # else GitHub's Markdown makes a link of it


def plural(count: int, noun: str) -> str:
    """`1 picture`, `1,797 pictures`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def calmly(run: Callable[[], None]) -> None:
    """Run a page (or a part of the frame); what it raises becomes a sentence, the unexpected with a number for the log.

    This is the one place of the project that catches `Exception`. Reruns and stops are no Exceptions and pass.
    """
    try:
        run()
    except VizError as error:
        sorry(str(error))
    except Exception:
        number = secrets.token_hex(3)
        LOG.exception("Unexpected error %s", number)
        with st.container(key="unexpected"):
            sorry(f"Something unexpected went wrong. The log of the app tells more under the number {number}.")
