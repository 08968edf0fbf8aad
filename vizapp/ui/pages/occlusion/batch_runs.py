"""The sweeps over several photos: started together, followed while they run, each kept as its photo's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import streamlit as st

from vizapp.methods.base import Question
from vizapp.methods.occlusion.batch import sweeps as in_turn
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.service.runs import RunRequest
from vizapp.ui.pages.occlusion.batch_images import Photo
from vizapp.ui.session import compute, messages, progress, state
from vizapp.ui.session.compute import Keep

_PATIENCE = 1.0  # seconds that a look waits for more maps


def run_key(photos: Sequence[Photo]) -> Key:
    """What tells the sweeps of these photos from other runs."""
    return ("occlusion.several", photos[0].asked.network.digest, state.name_of([photo.asked.key for photo in photos]))


def offer(photos: Sequence[Photo], missing: Sequence[Photo], key: Key) -> None:
    """A button that sweeps the missing photos, and how many are there."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            f"Sweep {messages.plural(len(missing), 'photo')}" if len(missing) == len(photos) else "Go on",
            key="occlusion.several.run", type="primary", icon=":material/play_arrow:", on_click=progress.start,
            args=(key,),
        )  # fmt: skip
        if len(missing) < len(photos):
            st.caption(f"{len(photos) - len(missing)} of {len(photos)} are finished.")


def follow(missing: list[Photo], key: Key, draw: Callable[[], None]) -> bool:
    """Have the photos swept; while that goes on, its progress and what `draw` shows: see `progress.follow`."""
    count = messages.plural(len(missing), "photo")
    return progress.follow(
        [_request(missing, key)], "Sweeping", "occlusion.several.cancel", draw,
        lambda watched: f"{watched.share:.0%} of {count}", _PATIENCE,
    )  # fmt: skip


def _request(missing: list[Photo], key: Key) -> RunRequest:
    """Sweeps the photos and keeps each answer as it comes, under the key that the sweep of one photo has."""
    first = missing[0].asked
    question, params = Question(first.network, unit=first.unit), replace(first.params, label="")

    def work(tick: Tick, photos: list[Photo], keep: Keep[Photo]) -> None:
        pictures = [photo.asked.picture for photo in photos]
        answers = in_turn(question, pictures, params, lambda done: tick(done / len(photos)))
        for photo, (_, result) in zip(photos, answers, strict=True):
            keep(photo, result)

    each = compute.keeping_each({photo: photo.asked.key for photo in missing}, missing, work)

    def run(tick: Tick) -> None:
        with compute.logged(("occlusion.several", first.network.digest), key) as entry:
            entry.nbytes = sum(result.nbytes for result in each(tick).values())

    return RunRequest(key, run, first.device)
