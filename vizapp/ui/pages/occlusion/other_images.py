"""Panel (c) for other pictures: from an existing gallery, or by a pass that the user starts."""

from __future__ import annotations

import numpy as np
import streamlit as st

from vizapp.engine.trace.sites import Unit
from vizapp.media.drawing import contrasted
from vizapp.methods.base import Job, Question, Result
from vizapp.methods.occlusion.batch import small
from vizapp.methods.occlusion.other_images import gallery_of, other_pictures, projections, rows_of_gallery, rows_of_pass
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.ui.inputs import datasets
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.pages.occlusion.map_panels import SweepView
from vizapp.ui.session import compute, messages, progress
from vizapp.ui.widgets import image_tiles, layout, maps
from vizapp.ui.widgets.components import component


def draw(shown: SweepView) -> dict[str, np.ndarray]:
    """Draw the nine pictures that activate the map of (b) and (c) most, with projections; returns their arrays, if shown."""
    if "projection" not in shown.arrays:
        return {}

    site, _, channel = shown.map_name.rpartition(":")
    unit, network = Unit(site, int(channel)), shown.asked.network
    messages.heading("Other photos that excite this channel")
    at_hand = datasets.available_collections(network)
    if not at_hand:
        return {}
    first = at_hand[0]
    folders = [(pictures, gallery_of(network, pictures.listing, site)) for pictures in at_hand]
    built, folder = next(((pictures, str(folder)) for pictures, folder in folders if folder is not None), (first, ""))
    search = ("occlusion.others", network.digest, repr(unit), first.listing)
    gallery = ("occlusion.others.gallery", network.digest, repr(unit), built.listing)
    if folder and progress.is_started(gallery):
        return _draw_answer(shown, _answer(shown, unit, built, folder))
    if progress.is_started(search):
        return _draw_answer(shown, _answer(shown, unit, first, ""))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        progress.start_button(f"Search the {messages.escaped(first.title)}", "occlusion.others", search, icon="search")
        note = f"This finds the photos that activate the map most. A gallery of {messages.escaped(site)} shows them as well."
        if folder:  # not by itself: somebody else may have built it, and the result must not depend on that
            label = f"Show those in the gallery of the {messages.escaped(built.title)}"
            progress.start_button(label, "occlusion.others.gallery", gallery, icon="photo_library")
            note = (
                "These are the photos that activate the map most. The search looks at some photos, the gallery has all."
            )
        st.caption(note)
    return {}


def _answer(shown: SweepView, unit: Unit, pictures: Collection, folder: str) -> Result | None:
    """The arrays of the other pictures and a sentence; `folder` is that of the gallery, or "" for a pass."""
    network, picture, source = shown.asked.network, shown.asked.picture, pictures.source
    key: Key = compute.key_of(
        "occlusion.others", network, picture, unit=unit, listing=pictures.listing, text=pictures.text, gallery=folder
    )

    def work(tick: Tick) -> Result:
        job = Job(tick)
        rows, told = rows_of_gallery(network, source, unit) if folder else (None, "")
        if rows is None:
            rows, told = rows_of_pass(network, source, unit, job)
        arrays, names = other_pictures(Question(network, picture), source, rows, job)
        return Result("occlusion", arrays, facts={"others": told, "names": "\n".join(names)})

    return compute.compute(key, work, title="Searching the photos", device=str(network.device))


def _draw_answer(shown: SweepView, result: Result | None) -> dict[str, np.ndarray]:
    if result is None:
        return {}
    arrays = result.arrays
    if not len(arrays["others"]):
        messages.info(f"No other photo activates this map. {result.facts['others']}")
        return {}
    names = result.facts["names"].split("\n")
    details = [f"activation {value:.4g}" for value in arrays["others_activation"]]
    own, photos, down = layout.columns(1, 1, 1, key="stacking_others")
    with own:
        image_tiles.title("This photo")
        image_tiles.picture("occlusion.others.own", contrasted(shown.arrays["projection"]), "Projection of this photo")
    for column, key, title, tiles in (
        (photos, "photos", "Others, strongest first", list(arrays["others"])),
        (down, "down", "Projections of the map", projections(arrays)),
    ):
        with column:
            image_tiles.title(title)
            data = maps.three_across([small(tile) for tile in tiles], names, details, title)
            component("sheet")(key=f"occlusion.others.{key}", data=data)
    messages.info(result.facts["others"])
    return arrays
