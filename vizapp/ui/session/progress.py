"""The one view of long work: a progress bar with the place in the queue, Cancel, and what is known so far.

`RunView` stands in the page while its script waits; `follow` is a part of the page that runs by itself, again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from vizapp.service import runs
from vizapp.service.jobs import JobRunner
from vizapp.service.lru_cache import Key
from vizapp.service.runs import RunRequest, WatchedRuns
from vizapp.ui.session import memory, messages, state

QUIET = runs.QUIET
_POLL = 0.1  # seconds between two looks at a run that a script waits for
_EVERY = 0.4  # seconds between two looks of `follow`
Detail = Callable[[WatchedRuns], str]


@st.cache_resource(show_spinner=False)
def job_runner() -> JobRunner:
    """The runs under way of all sessions."""
    return JobRunner(memory.has_room, memory.waits_for_memory)


def watch(requests: Sequence[RunRequest]) -> Any:
    """`runs.watch` for this session."""
    return runs.watch(job_runner(), requests, state.person())


def start(key: Key) -> None:
    """The person starts this, or goes on with it."""
    state.wish("run", key)
    state.withdraw("cancel", key)


def cancel(*keys: Key) -> None:
    """The person does not want these answers: their runs end at their next tick unless others watch them."""
    for key in keys:
        state.wish("cancel", key)
        job_runner().abandon(key)


def is_started(key: Key) -> bool:
    """Whether the person has started this and not cancelled it."""
    return state.is_wished("run", key) and not is_cancelled(key)


def is_cancelled(key: Key) -> bool:
    """Whether the person has cancelled this, so that it waits until they ask again."""
    return state.is_wished("cancel", key)


def _seconds(watched: WatchedRuns) -> str:
    return f"{watched.seconds:.0f} s"


class RunView:
    """The bar of some runs, and a button to cancel them.

    Args:
        watched: The runs.
        keys: Their keys, to cancel them.
        title: What they compute.
        button: The key of the button.
        detail: How far they are, in words.
        place: Where to draw it.
    """

    def __init__(
        self, watched: WatchedRuns, keys: Sequence[Key], title: str, button: str, detail: Detail = _seconds,
        place: Any = st,
    ) -> None:  # fmt: skip
        self._watched, self._title, self._detail = watched, title, detail
        with place.container(horizontal=True, vertical_alignment="center"):
            self._bar = st.empty()
            st.button("Cancel", key=button, on_click=cancel, args=tuple(keys))
        self.update()

    def update(self) -> None:
        """Draw the progress as it is now."""
        watched = self._watched
        text = f"{runs.describe(watched.slowest, self._title)} · {self._detail(watched)}"
        self._bar.progress(watched.share, text=text)

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Show the progress until the runs have ended or `until` holds; whether they have ended.

        Every update is a place where the person can leave.
        """
        while not self._watched.done:
            self.update()
            time.sleep(_POLL)
            if until():
                return False
        return True

    def clear(self) -> None:
        """Take the bar away."""
        self._bar.empty()


def follow(
    requests: Sequence[RunRequest], title: str, button: str, draw: Callable[[], None], detail: Detail = _seconds,
    patience: float = 0.25,
) -> bool:  # fmt: skip
    """Whether the runs go on: then their progress and what `draw` shows are drawn again and again until they end.

    The page is run again when they have ended or were cancelled. A run that is refused counts as cancelled, with a note.

    Args:
        requests: The runs.
        title: What they compute.
        button: The key of the button that cancels them.
        draw: Draws what is known so far.
        detail: How far they are, in words.
        patience: Seconds that a look waits for more to see.
    """
    keys = [request.key for request in requests]
    with watch(requests) as watched:
        if watched.wait(QUIET):
            _settle(watched)
            return False

    def look_again() -> None:
        if any(map(is_cancelled, keys)):  # before watching, which would start them again
            st.rerun()
        with watch(requests) as watched:
            if not watched.wait(patience):
                RunView(watched, keys, title, button, detail)
                draw()
        if watched.done:
            _settle(watched)
            st.rerun()

    st.fragment(lambda: messages.guard(look_again), run_every=_EVERY)()
    return True


def _settle(watched: WatchedRuns) -> None:
    refusals = watched.refusals()
    for key in watched.keys:
        if key in refusals:
            state.note(str(refusals[key]))
            cancel(key)
        else:
            state.withdraw("run", key)
