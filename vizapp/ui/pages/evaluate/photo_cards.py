"""Photos as cards: the worst mistakes, or those of a cell of the confusion matrix. A click opens one on the other pages."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from vizapp.components.data import photo_uri
from vizapp.errors import VizError, plural
from vizapp.gallery.photo_table import open_table
from vizapp.methods.base import Result
from vizapp.ui.app.pages import pages
from vizapp.ui.inputs import datasets, images
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.session import compute, messages, state, url
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_SHOWN = 18
_PAGES = ("predict", "occlusion", "attribution", "knockout", "transform", "feature_maps")


def draw(network: Network, photos: Collection, result: Result) -> None:
    """Draw the cards, and links to other pages for the chosen one."""
    chosen = state.get(state.CONFUSION)
    found = _surest(result, chosen)
    if chosen is not None:
        names = [network.readable_name(number) for number in chosen]
        words = f"{names[0]}, given as {names[1]}" if chosen[0] != chosen[1] else f"{names[0]}, and right"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            messages.heading(f"{words}: {plural(len(found), 'photo')}, the surest first")
            st.button(
                "Show the worst mistakes", key="evaluate.worst", type="tertiary", on_click=state.put,
                args=(state.CONFUSION, None),
            )  # fmt: skip
    elif len(found):
        messages.heading(f"The surest of {plural(len(found), 'mistake')}")
    else:
        messages.info("No mistake.")
    cards = [_card(network, photos, row) for row in found[:_SHOWN].tolist()]
    if not cards:
        return
    if _current(photos) is None:
        messages.info("Click a photo to look at it on the other pages, with its right class chosen.")
    else:
        _links()
    data = {"cards": cards, "label": "Photos", "waiting": None, "photos": True, "chosen": _current(photos)}
    component("units")(
        key="evaluate.photos", data=data, on_chosen_change=partial(_take, photos, _true_by_number(found))
    )


def _surest(result: Result, chosen: tuple[int, int] | None) -> np.ndarray:
    """Number, true class, given class and both probabilities of the photos, float64 `[n 5]`, the surest first."""
    assert result.store is not None
    key = ("evaluate.answers", str(result.store), repr(chosen))

    def read() -> np.ndarray:
        table = open_table(result.store)  # type: ignore[arg-type]  # checked above
        given = table.matrix("classes")[:, 0]
        columns = table.matrix("picture"), table.matrix("true"), given, table.matrix("true_probability")
        rows = np.stack([*columns, table.matrix("probabilities")[:, 0]], 1).astype(np.float64)
        true = rows[:, 1]
        rows = rows[(true >= 0) & (true != given) if chosen is None else (true == chosen[0]) & (given == chosen[1])]
        return rows[np.argsort(-rows[:, 4], kind="stable")]

    return compute.remembered(key, read)


def _true_by_number(found: np.ndarray) -> dict[int, int]:
    return {int(row[0]): int(row[1]) for row in found[:_SHOWN]}


def _card(network: Network, photos: Collection, row: list[float]) -> dict[str, Any]:
    number, true, given = map(int, row[:3])
    right, sure = row[3:]
    wrong = true != given
    return {
        "item": number, "title": network.readable_name(given), "note": f"{100 * sure:.1f} %",
        "line": f"right: {network.readable_name(true)} {100 * right:.1f} %" if wrong else "right",
        "patches": _thumb(photos, number), "down": None, "empty": "The photo cannot be read any more",
    }  # fmt: skip


def _thumb(photos: Collection, number: int) -> dict[str, Any] | None:
    source = photos.source
    key = ("evaluate.thumb", str(source.root), source.path(number), source.stamp(number))

    def made() -> dict[str, Any]:
        try:
            pixels = images.thumb(source.open(number))
        except VizError:
            return {}
        return {"src": photo_uri(pixels), "count": 1, "grid": [1, 1], "ratio": 1.0, "coarse": False}

    return compute.remembered(key, made, size=lambda data: len(data.get("src", ""))) or None


def _take(photos: Collection, true: dict[int, int]) -> None:
    """Make the clicked photo the current one, with its right class chosen."""
    number = state.clicked("evaluate.photos", "chosen")
    if number not in true:
        return
    try:
        origin = datasets.origin_of(photos, number)
    except VizError as error:
        state.note(str(error))
        return
    if origin is None:
        return
    state.save(state.ORIGIN, origin)
    state.put(state.CLASS, true[number])
    state.save(state.EVALUATED, (photos.text, number, images.origin()))


def _current(photos: Collection) -> int | None:
    """The number of the clicked photo, while it is the current one."""
    text, number, origin = state.load(state.EVALUATED, ("", None, None))
    return number if text == photos.text and origin == images.origin() else None


def _links() -> None:
    known = pages()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="evaluate_links"):
        st.caption("Look at this photo, with its right class chosen, on", width="content")
        for name in _PAGES:
            class_ = state.get(state.CLASS)
            link = url.link({} if class_ is None else {state.CLASS.name: str(class_)})
            st.page_link(
                known[name].page, label=known[name].title, icon=known[name].icon, query_params=link, width="content"
            )
