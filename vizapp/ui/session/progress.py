"""The view of long work: a progress bar with the place in the queue, a Cancel button, and partial results.

`RunView` is for a script that waits. `follow` is a fragment that reruns by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st
import torch
from streamlit.errors import StreamlitDuplicateElementKey

from vizapp.engine.precision import arithmetic, others_may_compute
from vizapp.service import runs
from vizapp.service.jobs import JobRunner, Report
from vizapp.service.lru_cache import Key
from vizapp.service.runs import RunRequest, WatchedRuns
from vizapp.ui.session import memory, messages, state

QUIET = runs.QUIET
_POLL = 0.1  # seconds between two updates while a script waits
EVERY = 0.4  # seconds between two reruns of `follow`
Detail = Callable[[WatchedRuns], str]


@st.cache_resource(show_spinner=False)
def job_runner() -> JobRunner:
    """The current runs of all sessions."""
    return JobRunner(memory.has_room, memory.waits_for_memory)


def watch(requests: Sequence[RunRequest]) -> Any:
    """`runs.watch` for this session; products have the precision of the data type."""
    exact = [replace(request, run=partial(_run_exactly, request)) for request in requests]
    return runs.watch(job_runner(), exact, state.person())


def _run_exactly(request: RunRequest, report: Report) -> Any:
    def tick(share: float, partial: Any = None) -> None:
        with others_may_compute():
            report(share, partial)

    if request.device is None:
        return request.run(report)
    with arithmetic(torch.device(request.device), "exact"):
        return request.run(tick)


def start(*keys: Key) -> None:
    """Start or continue runs for this session."""
    for key in keys:
        state.wish("run", key)
        state.withdraw("cancel", key)


def cancel(*keys: Key) -> None:
    """Cancel runs for this session. They end at their next tick unless other sessions watch them."""
    for key in keys:
        state.wish("cancel", key)
        job_runner().abandon(key)


def start_button(label: str, key: str, *runs: Key, icon: str = "play_arrow", **options: Any) -> None:
    """Draw a button that starts runs. `key` is the key of the button; `options` are those of `st.button`."""
    st.button(label, key=key, icon=f":material/{icon}:", on_click=start, args=runs, **options)


def is_started(key: Key) -> bool:
    """Whether this session has started the run and not cancelled it."""
    return state.is_wished("run", key) and not is_cancelled(key)


def is_cancelled(key: Key) -> bool:
    """Whether this session has cancelled the run."""
    return state.is_wished("cancel", key)


def _seconds(watched: WatchedRuns) -> str:
    return f"{100 * watched.share:.0f} % · {watched.seconds:.0f} s" if watched.share else f"{watched.seconds:.0f} s"


class RunView:
    """The progress bar of some runs, with a Cancel button.

    Args:
        watched: The runs.
        keys: Keys of the runs to cancel.
        title: What they compute.
        button: Widget key of the button.
        detail: Describes the progress.
        place: Where to draw the bar.
    """

    def __init__(
        self, watched: WatchedRuns, keys: Sequence[Key], title: str, button: str, detail: Detail = _seconds,
        place: Any = st,
    ) -> None:  # fmt: skip
        self._watched, self._title, self._detail = watched, title, detail
        with place.container(horizontal=True, vertical_alignment="center"):
            self._bar = st.empty()
            for again in itertools.count():  # a page may wait twice for what has left the cache in between
                with suppress(StreamlitDuplicateElementKey):
                    st.button("Cancel", key=f"{button}.{again}" if again else button, on_click=cancel, args=tuple(keys))
                    break
        self.update()

    def update(self) -> None:
        """Draw the current progress."""
        watched = self._watched
        text = f"{runs.describe(watched.slowest, self._title)} · {self._detail(watched)}"
        self._bar.progress(watched.share, text=text)

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Show the progress until the runs have ended or `until` holds; returns whether they have ended.

        Streamlit can stop the script at every update.
        """
        while not self._watched.done:
            self.update()
            self._watched.wait(_POLL)
            if until():
                return False
        return True

    def clear(self) -> None:
        """Remove the bar."""
        self._bar.empty()


def follow(
    requests: Sequence[RunRequest], title: str, button: str, draw: Callable[[], None], detail: Detail = _seconds,
    patience: float = 0.25,
) -> bool:  # fmt: skip
    """Draw the progress of runs and their partial results until they end. False if they ended at once.

    The page reruns when the runs have ended or were cancelled. A run that raises a VizError is cancelled, with a note.

    Args:
        requests: The runs.
        title: What they compute.
        button: Widget key of the Cancel button.
        draw: Draws the partial results.
        detail: Describes the progress.
        patience: Seconds that each update waits for more results.
    """
    keys = [request.key for request in requests]
    with watch(requests) as watched:
        if watched.wait(QUIET):
            _settle(watched)
            return False

    def look_again() -> None:
        if any(map(is_cancelled, keys)):  # checked first, because watching would start them again
            st.rerun()
        with watch(requests) as watched:
            if not watched.wait(patience):
                RunView(watched, keys, title, button, detail)
                draw()
        if watched.done:
            _settle(watched)
            st.rerun()

    st.fragment(lambda: messages.guard(look_again), run_every=EVERY)()
    return True


def _settle(watched: WatchedRuns) -> None:
    refusals = watched.refusals()
    for key in watched.keys:
        if key in refusals:
            state.note(str(refusals[key]))
            cancel(key)
        else:
            state.withdraw("run", key)
