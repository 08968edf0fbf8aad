"""Sweeps of the same square over several photos: small linked maps, a table and the mean change.

The photos are swept and followed together; each result is cached under the key of a single sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.errors import VizError, plural
from vizapp.media.drawing import sheet
from vizapp.methods.base import Question, Result
from vizapp.methods.occlusion import METHOD, panel_data
from vizapp.methods.occlusion.batch import mean_panel, row_of, stacked, strip, summary, sweeps
from vizapp.methods.occlusion.sweep import places
from vizapp.methods.tables import frame_to_csv
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.service.runs import RunRequest
from vizapp.ui.inputs import image_picker, images
from vizapp.ui.inputs.images import Origin
from vizapp.ui.pages.occlusion import form, map_panels, sweep_runs
from vizapp.ui.pages.occlusion.sweep_runs import SweepRequest
from vizapp.ui.session import compute, downloads, messages, progress, reports, state
from vizapp.ui.session.compute import Keep
from vizapp.ui.session.downloads import File
from vizapp.ui.widgets import image_tiles, layout
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

MOST = 24  # photos
_PATIENCE = 1.0  # seconds that an update waits for more maps
_LARGEST = 112  # pixels of a small photo
_KEY = "occlusion.several"


@dataclass(frozen=True)
class Photo:
    """A photo: its origin (as `images.origin`), its name, and its sweep."""

    origin: Origin
    name: str
    asked: SweepRequest


def draw(network: Network) -> None:
    """Draw the choice of the photos, and their maps."""
    photos = _open_photos(network, image_picker.choose_several("occlusion", state.PHOTOS, MOST))
    if not photos:
        return
    there = _answers(photos)  # once, because the cache may evict some
    missing = [photo for photo, result in there if result is None]
    key = run_key(photos)
    if missing and progress.is_started(key):
        if _follow(missing, key, lambda: _draw(_answers(photos))):
            return
        st.rerun()
    for sentence in state.take_notes():
        messages.warn(sentence)
    if missing:
        _offer(photos, missing, key)
        _draw(there)
        return
    _draw_finished(network, photos, [result for _, result in there if result is not None])


def _draw_finished(network: Network, photos: Sequence[Photo], results: Sequence[Result]) -> None:
    rows = [row_of(photo.name, result) for photo, result in zip(photos, results, strict=True)]
    arrays, facts = stacked([result.arrays for result in results]), summary(results[0].facts, rows)
    mean = mean_panel(arrays["mean_change"]).pixels
    _draw_together(rows, facts, mean, float(np.abs(arrays["mean_change"]).max()))
    _draw(list(zip(photos, results, strict=True)))
    messages.heading("What it does not show")
    messages.must_know(facts["caution"])
    with layout.fold():
        st.caption(f"**Computing:** {messages.escaped(facts['evaluation'])}")
    for photo, result in zip(photos, results, strict=True):
        reports.offer(result, f"Occlusion of {photo.name}")
    strips = [strip(network.seen(p.asked.picture), result) for p, result in zip(photos, results, strict=True)]
    name = downloads.file_name("occlusion", network.name, plural(len(photos), "photo"))
    csv = File("Table CSV", f"{name}.csv", "text/csv", lambda: frame_to_csv(pd.DataFrame(rows)))
    downloads.row("occlusion_several", name, {"Maps": sheet(strips, 1, gap=3), "Mean change": mean}, arrays, [csv])


def _open_photos(network: Network, chosen: Sequence[tuple[Origin, str]]) -> list[Photo]:
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
        messages.warn(f"{plural(len(wrong), 'photo')} cannot be opened. {wrong[0]}")
    if not chosen:
        messages.info("Choose some photos. The same square slides over each; the maps appear below each other.")
    return found


def run_key(photos: Sequence[Photo]) -> Key:
    """The key of the run that sweeps these photos."""
    return ("occlusion.several", photos[0].asked.network.digest, state.name_of([photo.asked.key for photo in photos]))


def _offer(photos: Sequence[Photo], missing: Sequence[Photo], key: Key) -> None:
    """Draw a button that sweeps the missing photos, and the number of finished ones."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        label = f"Sweep {plural(len(missing), 'photo')}" if len(missing) == len(photos) else "Continue"
        progress.start_button(label, "occlusion.several.run", key, type="primary")
        if len(missing) < len(photos):
            st.caption(f"{len(photos) - len(missing)} of {len(photos)} are finished.")
    if len(missing) == len(photos):
        asked = photos[0].asked
        rows, columns = places(asked.params, asked.network).shape
        st.caption(
            f"The square slides over {rows} × {columns} positions of each photo; a larger stride takes less time. The maps "
            "appear below each other, then a table of all photos and the mean change at each position. You can leave this page "
            "and continue later."
        )


def _follow(missing: list[Photo], key: Key, draw: Callable[[], None]) -> bool:
    """Sweep the photos and draw the progress and `draw`: see `progress.follow`."""
    count = plural(len(missing), "photo")
    return progress.follow(
        [_request(missing, key)], "Sweeping", "occlusion.several.cancel", draw,
        lambda watched: f"{100 * watched.share:.0f} % of {count}", _PATIENCE,
    )  # fmt: skip


def _request(missing: list[Photo], key: Key) -> RunRequest:
    """Sweeps the photos and keeps each result when it is ready, under the key of a single sweep."""
    first = missing[0].asked
    question, params = Question(first.network, unit=first.unit), replace(first.params, label="")

    def work(tick: Tick, photos: list[Photo], keep: Keep[Photo]) -> None:
        pictures = [photo.asked.picture for photo in photos]
        answers = sweeps(question, pictures, params, lambda done: tick(done / len(photos)))
        for photo, (picture, result) in zip(photos, answers, strict=True):
            keep(photo, METHOD.with_question(result, replace(question, picture=picture), params))

    each = compute.keeping_each({photo: photo.asked.key for photo in missing}, missing, work)

    def run(tick: Tick) -> None:
        with compute.logged(("occlusion.several", first.network.digest), key) as entry:
            entry.nbytes = sum(result.nbytes for result in each(tick).values())

    return RunRequest(key, run, first.device)


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
        note = f"{100 * row['clean']:.1f} % without the square, lowest {100 * row['lowest']:.1f} %"
        group = panel_data.group(shown, view, None, largest=_LARGEST)
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
        messages.info(f"Dark: less probable than in the whole photo. Full contrast ±{100 * peak:.1f} points.")
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
            "picture": "Photo", "true": "True class", "answer": "Prediction", "class": "Class of (d)",
            "clean": percent("Unhidden"), "lowest": percent("Lowest"), "drop": percent("Mean loss"),
            "same": percent("Same prediction"), "row": "Row", "column": "Column",
        },
    )  # fmt: skip
