"""The row that says what of the output is explained, and the popover that chooses it: a cell, a region, a box, a photo."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any

import streamlit as st

from vizapp.components.data import photo_uri
from vizapp.media.picture import Picture
from vizapp.methods.base import Result
from vizapp.ui.inputs import targets
from vizapp.ui.session import compute, messages, state
from vizapp.ui.widgets import label_map, maps
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network
from vizapp.zoo.target import Target

_WITHOUT_CLASS = ("transform", "compare", "projection")  # pages that explain the class of the target alone
_STRONGEST = -1  # in place of a class
_PLACES = {"predicted": "Where predicted", "whole": "Whole map", "cell": "A cell", "box": "A region"}
_CLASS, _WHERE, _CELL, _BOX, _PHOTO, _DETECTION = (
    f"target.{part}" for part in ("chosen_class", "where", "cell", "box", "photo", "detection")
)


def draw(network: Network, aimed: Network, picture: Picture) -> None:
    """Draw what is explained and the popover; nothing for a classifier without a target.

    Args:
        network: The network without a target.
        aimed: The network toward the target, or `network`.
        picture: The photo.
    """
    chosen = targets.chosen()
    if chosen is None and network.task not in ("class map", "boxes", "embedding"):
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="target_bar"):
        st.html(f'<div class="vz-changes"><b>Explained</b> {escape(_words(network, aimed, picture))}</div>')
        if network.task in ("class map", "boxes", "embedding"):
            with st.popover("Choose", icon=":material/ads_click:", type="tertiary", width="content"):
                {"class map": _of_map, "boxes": _of_boxes, "embedding": _of_embedding}[network.task](network, picture)
        if chosen is not None:
            st.button(
                "Take it back", key="target.restore", icon=":material/undo:", type="tertiary", on_click=targets.choose,
                args=(None,), help="Explain what is explained without a choice",
            )  # fmt: skip


def _words(network: Network, aimed: Network, picture: Picture) -> str:
    """What is explained: the class and the place of its score."""
    if aimed.quantity != "probability":
        return aimed.target
    class_ = state.get(state.CLASS) if state.page() not in _WITHOUT_CLASS else None
    if class_ is None or class_ >= len(aimed.categories):
        class_ = targets.class_of(network, picture)
    name = "" if class_ is None else aimed.readable_name(class_)
    told = [name] if name and f"predicted as {name}" not in aimed.target else []
    return ", ".join([*told, aimed.target] if aimed.target else told) or "a unit of a layer; choose what else"


# Class maps


def _of_map(network: Network, picture: Picture) -> None:
    result = compute.run("predict", network, picture)
    if result is None or "label" not in result.arrays:
        return
    now = targets.chosen() or Target(region="predicted")
    where = "cell" if now.cell is not None else now.region if isinstance(now.region, str) else "box"
    if now.region is None and now.cell is None:
        where = "predicted"
    there = label_map.classes_present(result)
    order = [_STRONGEST, *there, *(one for one in range(len(network.categories)) if one not in there)]
    named = None if now.class_ is None else _number(network, now.class_)
    state.save(_CLASS, _STRONGEST if named is None else named)
    st.selectbox(
        "Class", order, key=_CLASS, filter_mode="contains", on_change=partial(_take_class, now, there),
        format_func=lambda one: "The strongest there" if one == _STRONGEST else network.readable_name(one),
    )  # fmt: skip
    state.save(_WHERE, where)
    st.segmented_control(
        "Where", list(_PLACES), key=_WHERE, format_func=_PLACES.__getitem__, required=True,
        on_change=partial(_take_place, network, result, now),
    )  # fmt: skip
    seen = network.seen(picture)
    if where == "box":
        data = {
            "photo": photo_uri(seen), "size": list(seen.shape[:2]), "name": picture.name,
            "box": list(now.region) if isinstance(now.region, tuple) else None,
        }  # fmt: skip
        component("box")(key=_BOX, data=data, on_box_change=partial(_take_box, now))
        messages.info("Draw the region on the photo.")
        return
    component("map")(
        key=_CELL,
        data=label_map.data(network, seen, result, now.cell),
        on_cell_change=partial(take_cell, _CELL, now.class_),
    )
    st.html(maps.legend(label_map.legend(network, result)))


def _number(network: Network, class_: int | str) -> int | None:
    if isinstance(class_, int):
        return class_
    return next((n for n, name in enumerate(network.categories) if name.lower() == class_.lower()), None)


def _take_class(now: Target, there: list[int]) -> None:
    """Take a class at the place of now; one that is predicted nowhere on the photo, over the whole map."""
    number = state.load(_CLASS)
    number = None if number == _STRONGEST else number
    region = now.region or (None if now.cell else "predicted")
    if isinstance(region, str) and number is not None and number not in there:
        region = "whole"
    targets.choose(Target(number, cell=now.cell, region=region))


def _take_place(network: Network, result: Result, now: Target) -> None:
    """Take a place; a cell or a box begins in the middle, to be moved."""
    where = state.load(_WHERE)
    rows, columns = result.arrays["label"].shape
    if where == "cell":
        targets.choose(Target(now.class_, cell=(rows // 2, columns // 2)))
    elif where == "box":
        _, height, width = network.input_size
        targets.choose(Target(now.class_, region=(height // 4, width // 4, height - height // 4, width - width // 4)))
    else:
        targets.choose(Target(now.class_, region=where))


def take_cell(key: str, class_: int | str | None = None) -> None:
    """Explain the cell that was clicked in a map component."""
    clicked: Any = state.clicked(key, "cell")
    if isinstance(clicked, list):
        targets.choose(Target(class_, cell=(int(clicked[0]), int(clicked[1]))))


def _take_box(now: Target) -> None:
    given = state.clicked(_BOX, "box")
    if isinstance(given, list) and len(given) == 4:
        top, left, bottom, right = (int(value) for value in given)
        targets.choose(Target(now.class_, region=(top, left, bottom, right)))


# Embeddings and boxes


def _of_embedding(network: Network, picture: Picture) -> None:
    now = targets.chosen() or targets.default(network)
    known = targets.other_photos()
    shown = known[0] if now is None or now.embedding not in known else str(now.embedding)
    state.save(_PHOTO, shown)
    st.selectbox(
        "Similar to", known, key=_PHOTO, on_change=lambda: targets.choose(Target(embedding=state.load(_PHOTO)))
    )
    messages.info("The cosine of the two photos' embeddings is explained: 1 where they are alike.")


def _of_boxes(network: Network, picture: Picture) -> None:
    result = compute.run("predict", network, picture)
    if result is None or "boxes" not in result.arrays or not len(result.arrays["boxes"]):
        return
    now, arrays = targets.chosen(), result.arrays
    known = list(range(len(arrays["boxes"])))
    shown = now.box if now is not None and isinstance(now.box, int) and now.box in known else 0
    state.save(_DETECTION, shown)
    st.selectbox(
        "Detection", known, key=_DETECTION, on_change=lambda: targets.choose(Target(box=state.load(_DETECTION))),
        format_func=lambda n: f"{n + 1} · {network.readable_name(int(arrays['labels'][n]))} {100 * arrays['scores'][n]:.0f} %",
    )  # fmt: skip
    messages.info("Explained is how well the network finds this box: 1 on the photo as it is.")
