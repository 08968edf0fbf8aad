"""Sweeps of the same occluder over several photos: started and followed together, each cached under its own key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import streamlit as st

from vizapp.errors import VizError
from vizapp.methods.base import Question
from vizapp.methods.occlusion.batch import sweeps as in_turn
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.service.runs import RunRequest
from vizapp.ui.inputs import images
from vizapp.ui.inputs.images import Origin
from vizapp.ui.pages.occlusion import form
from vizapp.ui.pages.occlusion.sweep_runs import SweepRequest
from vizapp.ui.session import compute, messages, progress, state
from vizapp.ui.session.compute import Keep
from vizapp.zoo.network import Network

MOST = 24  # photos
_PATIENCE = 1.0  # seconds that an update waits for more maps


@dataclass(frozen=True)
class Photo:
    """A photo: its origin (as `images.origin`), its name, and its sweep."""

    origin: Origin
    name: str
    asked: SweepRequest


def open_photos(network: Network, chosen: Sequence[tuple[Origin, str]]) -> list[Photo]:
    """The photos that can be opened; a message about the others."""
    found, wrong = [], []
    for origin, name in chosen:
        try:
            picture = images.open_from(origin)
        except VizError as error:
            wrong.append(str(error))
            continue
        asked = SweepRequest(network, picture, form.params(network, picture), form.unit(network))
        found.append(Photo(origin, name, asked))
    if wrong:
        messages.warn(f"{messages.plural(len(wrong), 'photo')} cannot be opened. {wrong[0]}")
    if not chosen:
        messages.info("Choose some photos. The same square slides over each, and the maps are shown below one another.")
    return found


def run_key(photos: Sequence[Photo]) -> Key:
    """The key of the run that sweeps these photos."""
    return ("occlusion.several", photos[0].asked.network.digest, state.name_of([photo.asked.key for photo in photos]))


def offer(photos: Sequence[Photo], missing: Sequence[Photo], key: Key) -> None:
    """Draw a button that sweeps the missing photos, and the number of finished ones."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        label = f"Sweep {messages.plural(len(missing), 'photo')}" if len(missing) == len(photos) else "Go on"
        progress.start_button(label, "occlusion.several.run", key, type="primary")
        if len(missing) < len(photos):
            st.caption(f"{len(photos) - len(missing)} of {len(photos)} are finished.")


def follow(missing: list[Photo], key: Key, draw: Callable[[], None]) -> bool:
    """Sweep the photos and draw the progress and `draw`: see `progress.follow`."""
    count = messages.plural(len(missing), "photo")
    return progress.follow(
        [_request(missing, key)], "Sweeping", "occlusion.several.cancel", draw,
        lambda watched: f"{watched.share:.0%} of {count}", _PATIENCE,
    )  # fmt: skip


def _request(missing: list[Photo], key: Key) -> RunRequest:
    """Sweeps the photos and keeps each result when it is ready, under the key of a single sweep."""
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
