"""Sweeps of the same square over several photos: small linked maps, a table and the mean change."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.media.drawing import sheet
from vizapp.methods.base import Result
from vizapp.methods.occlusion.batch import mean_panel, row_of, stacked, strip, summary
from vizapp.ui.inputs import image_picker
from vizapp.ui.pages.occlusion import batch_runs, map_panels, sweep_runs
from vizapp.ui.pages.occlusion.batch_runs import Photo
from vizapp.ui.session import compute, downloads, messages, progress, state
from vizapp.ui.session.downloads import File
from vizapp.ui.widgets import image_tiles, layout
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_LARGEST = 112  # pixels of a small photo
_KEY = "occlusion.several"


def draw(network: Network) -> None:
    """Draw the choice of the photos, and their maps."""
    photos = batch_runs.open_photos(network, image_picker.choose_several("occlusion", state.PHOTOS, batch_runs.MOST))
    if not photos:
        return
    there = _answers(photos)  # once, because the cache may evict some
    missing = [photo for photo, result in there if result is None]
    key = batch_runs.run_key(photos)
    if missing and progress.is_started(key):
        if batch_runs.follow(missing, key, lambda: _draw(_answers(photos))):
            return
        st.rerun()
    for sentence in state.take_notes():
        messages.warn(sentence)
    if missing:
        batch_runs.offer(photos, missing, key)
        _draw(there)
        return
    results = [result for _, result in there if result is not None]
    rows = [row_of(photo.name, result) for photo, result in zip(photos, results, strict=True)]
    arrays, facts = stacked([result.arrays for result in results]), summary(results[0].facts, rows)
    mean = mean_panel(arrays["mean_change"]).pixels
    _draw_together(rows, facts, mean, float(np.abs(arrays["mean_change"]).max()))
    _draw(there)
    st.caption(f"**Computing:** {messages.escaped(facts['evaluation'])}")
    messages.heading("What it does not show")
    messages.info(facts["caution"])
    strips = [strip(network.seen(p.asked.picture), result) for p, result in zip(photos, results, strict=True)]
    name = downloads.file_name("occlusion", network.name, messages.plural(len(photos), "photo"))
    csv = File("Table CSV", f"{name}.csv", "text/csv", lambda: pd.DataFrame(rows).to_csv(index=False).encode())
    downloads.row("occlusion_several", name, {"Maps": sheet(strips, 1, gap=3), "Mean change": mean}, arrays, [csv])


def _answers(photos: Sequence[Photo]) -> list[tuple[Photo, Result | None]]:
    """The photos and their finished sweeps."""
    return [(photo, sweep_runs.answer_of(photo.asked)) for photo in photos]


def _draw(there: Sequence[tuple[Photo, Result | None]]) -> None:
    """Draw small maps of the finished sweeps."""
    found = [(photo, result) for photo, result in there if result is not None]
    if found:
        view = state.get(state.SHOWN)
        groups = [_group(photo, result, view) for photo, result in found]
        data = {"groups": groups, "small": True}
        component("panels")(
            key=_KEY, data=data, on_cell_change=lambda: None, on_open_change=partial(_open, [p for p, _ in found])
        )


def _group(photo: Photo, result: Result, view: str) -> dict[str, Any]:
    def made() -> dict[str, Any]:
        shown = map_panels.of_result(photo.asked, result, None)
        row = row_of(photo.name, result)
        note = f"{100 * row['clean']:.1f} %, hidden down to {100 * row['lowest']:.1f} %"
        group = map_panels.group(shown, view, None, largest=_LARGEST)
        titles = {"(b)": f"map {shown.map_name.rpartition(':')[2]}", "(d)": shown.class_name}
        for one in group["maps"]:
            one["title"] = titles.get(one["letter"], "")
        return group | {"title": photo.name, "note": note, "photoTitle": ""}

    key = ("occlusion.small", *photo.asked.key, photo.name, view)
    return compute.remembered(key, made, size=lambda data: 40_000)


def _open(photos: Sequence[Photo]) -> None:
    """Open the clicked photo in a sweep of its own."""
    number = state.clicked(_KEY, "open")
    if number is None or not 0 <= number < len(photos):
        return
    origin = photos[number].origin
    state.save(state.ORIGIN, origin)
    if origin[0] == "sample":
        state.put(state.SAMPLE, origin[1])
    state.put(state.WAY, "sweep")


def _draw_together(rows: list[dict[str, Any]], facts: dict[str, str], mean: np.ndarray, peak: float) -> None:
    """Draw the mean of the maps and the table of all photos; `peak` is the largest mean change."""
    messages.heading("Together")
    left, right = layout.columns(1, 4, key="stacking_together")
    with left:
        image_tiles.title("Mean change")
        image_tiles.picture("occlusion.mean", mean, "Mean change of the probability")
        messages.info(f"Dark: hiding lowers the probability. Full contrast ±{100 * peak:.1f} points.")
    with right:
        st.markdown(messages.escaped(" ".join(facts[name] for name in ("summary", "true class") if name in facts)))
        _table(rows)


def _table(rows: list[dict[str, Any]]) -> None:
    table = pd.DataFrame(rows)
    if not table["true"].any():
        table = table.drop(columns="true")
    percent = partial(st.column_config.NumberColumn, format="percent")
    st.dataframe(
        table, hide_index=True, key="occlusion.several.table",
        column_config={
            "picture": "Photo", "true": "True class", "answer": "Answer", "class": "Class of (d)",
            "clean": percent("Unhidden"), "lowest": percent("Lowest"), "drop": percent("Mean loss"),
            "same": percent("Same answer"), "row": "Row", "column": "Column",
        },
    )  # fmt: skip
