"""The sweeps over several photos: asked for together, watched while they go on, each kept as its photo's own."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import streamlit as st

from vizapp.errors import VizError
from vizapp.service.jobs import RunningJob, Tick
from vizapp.service.lru_cache import Key
from vizapp.ui.pages.occlusion import sweep_runs
from vizapp.ui.pages.occlusion.batch_images import Photo
from vizapp.ui.session import compute, memory, messages, state

_LOOK, _WAIT = 0.4, 1.0  # seconds between two looks at sweeps under way; those that a look waits for more to see


def name_of(photos: Sequence[Photo]) -> str:
    """A short name of the sweeps for the session to remember."""
    return hashlib.sha256(repr([photo.asked.key for photo in photos]).encode()).hexdigest()[:16]


def are_asked(name: str) -> bool:
    """Whether they were asked for and nobody left them."""
    return state.is_wished("run", name)


def offer(photos: Sequence[Photo], missing: Sequence[Photo], name: str) -> None:
    """A button that sweeps those that are missing, and how many are there."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            f"Sweep {messages.plural(len(missing), 'photo')}" if len(missing) == len(photos) else "Go on",
            key="occlusion.several.run", type="primary", icon=":material/play_arrow:", on_click=state.wish,
            args=("run", name),
        )  # fmt: skip
        if len(missing) < len(photos):
            st.caption(f"{len(photos) - len(missing)} of {len(photos)} are there.")


def watch(missing: Sequence[Photo], name: str, draw: Callable[[], None]) -> None:
    """Progress, a way out and the maps as they come (`draw`), until all are there."""
    key = ("occlusion.several", missing[0].asked.network.digest, name)
    device = missing[0].asked.device

    def look() -> None:
        if not are_asked(name):
            st.rerun()
        with compute.office().waiting(key, partial(_run, missing, key), device, state.person()) as work:
            deadline = time.monotonic() + (compute.QUIET if work.share == 0 else _WAIT)
            while not work.future.done() and time.monotonic() < deadline:
                time.sleep(0.01)
            if not work.future.done():  # drawn while it is waited for: work that nobody waits for ends
                _progress(work, len(missing), key, name)
                draw()
        if work.future.done():
            state.withdraw("run", name)
            try:
                work.future.result()
            except VizError as error:
                state.note(str(error))
            st.rerun()

    st.fragment(lambda: messages.guard(look), run_every=_LOOK)()


def _progress(work: RunningJob, count: int, key: tuple[str, ...], name: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(
            work.share,
            text=f"{compute.doing(work, 'Sweeping')} · {work.share:.0%} of {messages.plural(count, 'photo')}",
        )
        st.button("Cancel", key="occlusion.several.cancel", on_click=_leave, args=(key, name))


def _leave(key: tuple[str, ...], name: str) -> None:
    state.withdraw("run", name)
    compute.office().abandon(key)


def _run(missing: Sequence[Photo], key: Key, tick: Tick) -> None:
    """Sweep the photos and keep each answer as it comes, under the key that the sweep of one photo has.

    Those that are there meanwhile are left out: this may go on with work that was left for a moment.
    """
    from vizapp.methods.base import Question
    from vizapp.methods.occlusion.batch import sweeps as in_turn

    first, count = missing[0].asked, len(missing)
    question, params = Question(first.network, unit=first.unit), replace(first.params, label="")

    def go_on() -> None:
        left = [photo for photo in missing if sweep_runs.finished(photo.asked) is None]
        shown = [photo.asked.picture for photo in left]
        answered = in_turn(question, shown, params, lambda done: tick(1 - (len(left) - done) / count))
        for photo, (_, result) in zip(left, answered, strict=True):
            compute.answers().put(photo.asked.key, result, result.nbytes)
            sizes.append(result.nbytes)

    with compute.noted(("occlusion.several", first.network.digest), key) as sizes:
        memory.retry_after_eviction(go_on)
