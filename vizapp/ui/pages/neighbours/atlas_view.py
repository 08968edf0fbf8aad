"""The atlas: all photos of the collection as points, coloured in four ways, with thumbnails and a lasso."""

from __future__ import annotations

import colorsys
import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp import methods
from vizapp.components.data import packed
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import plural
from vizapp.files import atomic_write
from vizapp.media.drawing import COLOURS, heat, limits
from vizapp.media.picture import Picture
from vizapp.media.source import FileSource
from vizapp.methods.base import Job, Result
from vizapp.methods.embedding import NAMES
from vizapp.methods.photo_features import unit_activations
from vizapp.methods.tables import to_csv
from vizapp.methods.truth import fold
from vizapp.settings import settings
from vizapp.ui.app.pages import pages
from vizapp.ui.inputs import images
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.pages.neighbours import photo_links
from vizapp.ui.session import access, compute, downloads, forms, messages, reports, state, url
from vizapp.ui.session.downloads import File
from vizapp.ui.widgets import layout, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_KEY, _MARKED, _SIGHT = "atlas", "neighbours.lasso", "neighbours.sight"
_COLOURS = {"class": "Class", "answer": "Answer", "correct": "Right or wrong", "unit": "A unit"}
_GREY, _RIGHT, _WRONG = "#8a8f98", "#009e73", "#d55e00"
_LEGEND, _SHOWN, _COLUMNS, _STEPS = 40, 24, 8, 64  # classes named, photos of a selection shown, of a sprite, of a ramp
_MISSING = "no class"


def draw(network: Network, picture: Picture, collection: Collection, site: Site) -> None:
    """Draw the controls and the atlas."""
    messages.heading("Atlas of all photos")
    kinds = [kind for kind in NAMES if kind != "umap" or find_spec("umap") is not None]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="atlas_controls"):
        unit_picker.switch(forms.choices(_KEY)["map"], {kind: NAMES[kind] for kind in kinds}, "atlas.map")
        unit_picker.switch(state.COLOUR, _COLOURS, "atlas.colour")
        if state.get(state.COLOUR) == "unit":
            chosen = min(state.get(state.CHANNEL) or 0, site.channels - 1)
            unit_picker.stepper(_KEY, site.name, site.channels, chosen)
    params = forms.values(_KEY, ("map", "seed")) | {"site": site.name}
    key = compute.key_of(_KEY, network, picture, None, None, listing=collection.listing, **params)
    result: Result | None = compute.compute(
        key, lambda tick: methods.ask(_KEY, network, picture=picture, folder=collection.source, tick=tick, **params),
        title="Laying out the photos", device=str(network.device),
    )  # fmt: skip
    if result is None:
        return
    data = _data(network, collection, site, result)
    if data is None:
        return
    about = state.name_of((collection.listing, network.digest, params))
    selected, sight = (_of(about, where, len(result.table)) for where in (_MARKED, _SIGHT))
    numbers = result.arrays["pictures"]
    data |= {"key": about, "chosen": selected, "label": f"Atlas of {plural(len(numbers), 'photo')}"}
    if sight:
        sprite = images.folder_thumbs(collection.source, numbers[sight].tolist(), _COLUMNS)
        if sprite is not None:
            data["thumbs"] = {"items": sight, "sprite": sprite, "tile": [images.THUMB] * 2, "columns": _COLUMNS}
    component("atlas")(
        key="neighbours.atlas", data=data,
        on_chosen_change=partial(_choose, collection, network, numbers),
        on_lasso_change=partial(_keep, "lasso", _MARKED, about), on_seen_change=partial(_keep, "seen", _SIGHT, about),
    )  # fmt: skip
    messages.must_know(f"{result.facts['map']}. Trustworthiness {result.facts['trustworthiness']}.")
    messages.info(
        f"{result.facts['photos']}. The double ring is the photo at hand"
        + (f", {result.facts['photo']}." if "photo" in result.facts else ", whose features are not finite.")
        + " Scroll to look closer: thumbnails appear when few photos are in sight."
    )
    with layout.fold():
        for name in ("layer", "explained", "not finite"):
            if name in result.facts:
                messages.info(f"{forms.label(name)}: {result.facts[name]}")
        messages.info(
            "Trustworthiness (Venna & Kaski 2001) is 1 if all that is near in the plane is near in the features, "
            "and about 0.5 for random points."
        )
    title = downloads.file_name(_KEY, network.name, site.name, collection.title)
    files = [File("Table CSV", f"{title}.csv", "text/csv", lambda: to_csv(result.table).encode())]
    if selected:
        files.append(_selection(collection, network, [result.table[place] for place in selected], title))
    reports.offer(result)
    downloads.row(_KEY, title, {"Atlas": result.panels[0].pixels}, result.arrays, files)


def _of(about: str, where: str, count: int) -> list[int]:
    """The points that are kept under a key of the session, if they are of this atlas."""
    of, places = state.load(where, ("", []))
    return [place for place in places if 0 <= place < count] if of == about else []


def _keep(event: str, where: str, about: str) -> None:
    places = state.clicked("neighbours.atlas", event)
    if places is not None:
        state.save(where, (about, [int(place) for place in places]))


def _choose(collection: Collection, network: Network, numbers: np.ndarray) -> None:
    place = state.clicked("neighbours.atlas", "chosen")
    if place is not None and 0 <= int(place) < len(numbers):
        photo_links.choose(collection, network, int(numbers[int(place)]))


# Its colours


def _data(network: Network, collection: Collection, site: Site, result: Result) -> dict[str, Any] | None:
    """The data of the component without thumbnails and selection; None where a message says why there is none."""
    points, photo = result.arrays["positions"], result.arrays.get("photo")
    every = points if photo is None else np.vstack([points, photo])
    middle, span = (every.max(0) + every.min(0)) / 2, max(float(np.ptp(every, 0).max()), 1e-30)
    labels = [row["label"] or _MISSING for row in result.table]
    classes = [name for name, _ in Counter(labels).most_common()]
    data: dict[str, Any] = {
        "points": packed((points - middle) / span + 0.5),
        "photo": None if photo is None else ((photo - middle) / span + 0.5).tolist(),
        "classes": classes,
        "class": packed(_numbers(labels, classes)),
    }
    way = state.get(state.COLOUR)
    if way in ("answer", "correct") and "answers" not in result.arrays:
        messages.info(f"{network.name} has no classes; coloured by class of the photos.")
        way = "class"
    if way == "unit":
        return _by_unit(network, collection, site, result, data)
    if way == "correct":
        words = {1: "right", 0: "wrong", -1: "true class unknown"}
        named = [words[number] for number in result.arrays["correct"].tolist()]
        return data | _by_name(named, list(words.values()), [_RIGHT, _WRONG, _GREY])
    same = {fold(name): name for name in classes}  # a class has one colour as a label and as an answer
    numbers = result.arrays["answers"].tolist() if "answers" in result.arrays else []
    given: list[str] = [network.readable_name(number) for number in numbers]
    answers = [same.get(fold(name), name) for name in given]
    wanted = list(dict.fromkeys([*classes, *(name for name, _ in Counter(answers).most_common())]))
    colours = dict(zip(wanted, palette(len(wanted)), strict=True))
    named = labels if way == "class" else answers
    order = [name for name, _ in Counter(named).most_common()]
    return data | _by_name(named, order, [colours[name] for name in order])


def _numbers(names: Sequence[str], order: Sequence[str]) -> np.ndarray:
    places = {name: place for place, name in enumerate(order)}
    return np.array([places[name] for name in names], np.float32)


def _by_name(named: Sequence[str], order: Sequence[str], colours: list[str]) -> dict[str, Any]:
    return {"colours": colours, "colour": packed(_numbers(named, order)), "names": list(order)[:_LEGEND]}


def palette(count: int) -> list[str]:
    """A colour each: ten that are told apart with colour-vision deficiency, or hues around the circle, light and dark."""
    if count <= len(COLOURS):
        return [f"rgb({r},{g},{b})" for r, g, b in COLOURS[:count].tolist()]
    wheel = [colorsys.hls_to_rgb(n * 0.618034 % 1, 0.45 if n % 2 else 0.62, 0.7) for n in range(count)]
    return [f"rgb({r * 255:.0f},{g * 255:.0f},{b * 255:.0f})" for r, g, b in wheel]


def _by_unit(
    network: Network, collection: Collection, site: Site, result: Result, data: dict[str, Any]
) -> dict[str, Any] | None:
    unit = Unit(site.name, min(state.get(state.CHANNEL) or 0, site.channels - 1))
    values: np.ndarray | None = compute.compute(
        compute.key_of("atlas.unit", network, None, None, unit, listing=collection.listing),
        lambda tick: unit_activations(network, collection.source, unit, Job(tick)), device=str(network.device),
    )  # fmt: skip
    if values is None:
        return None
    own = values[result.arrays["pictures"]]
    low, high = limits(own)
    ramp = heat(np.linspace(0.25, 0.95, _STEPS)[None], 0, 1)[0]  # seen on white and on black
    level = np.rint(np.clip((np.nan_to_num(own, nan=low) - low) / (high - low), 0, 1) * (_STEPS - 1))
    colours = [f"rgb({r},{g},{b})" for r, g, b in ramp.tolist()]
    return data | {
        "colours": colours,
        "colour": packed(level),
        "names": None,
        "ends": [f"{low:.3g}", f"{high:.3g}"],
    }


# The selection


def _selection(collection: Collection, network: Network, rows: list[dict[str, Any]], title: str) -> File:
    """Draw the photos inside of the lasso; returns their list as a file that opens as a folder."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="atlas_selection"):
        messages.heading(f"{plural(len(rows), 'photo')} inside of the line")
        st.button(
            "Clear", key="atlas.clear", type="tertiary", icon=":material/close:", on_click=state.clear, args=(_MARKED,)
        )
    shown = [row["picture"] for row in rows[:_SHOWN]]
    sprite = images.folder_thumbs(collection.source, shown, _COLUMNS)
    if sprite is not None:
        titles = [row["label"] or row["path"] for row in rows[:_SHOWN]]
        data = {
            "sprite": sprite, "tile": [images.THUMB] * 2, "columns": _COLUMNS, "side": 48, "most": 96, "items": shown,
            "titles": titles, "details": [row["path"] for row in rows[:_SHOWN]], "chosen": None, "label": "The selected photos",
        }  # fmt: skip
        component("sheet")(
            key="atlas.selected", data=data, on_chosen_change=partial(_take_selected, collection, network)
        )
    frame = pd.DataFrame(rows).drop(columns=["picture"])
    st.dataframe(frame, hide_index=True, key="atlas.rows", height=240)
    csv, opens = _listed(collection, rows), isinstance(collection.source, FileSource)
    if opens and access.names_folders() and not access.shared():
        _links(csv)
    elif opens:
        messages.info(
            "The list of these photos (CSV) opens as a folder on Gallery, Evaluate and every other page with one."
        )
    else:
        messages.info("These photos are no files of a folder, so their list (CSV) opens on no other page.")
    return File("Selection CSV", f"{title}-selection.csv", "text/csv", lambda: csv)


def _listed(collection: Collection, rows: list[dict[str, Any]]) -> bytes:
    """The list of photos, which opens as a folder if they are files."""
    source = collection.source
    return to_csv([
        {"path": str(source.start / source.names[row["picture"]]) if isinstance(source, FileSource) else row["path"]}
        | {"label": row["label"]}
        for row in rows
    ]).encode()  # fmt: skip


def _links(csv: bytes) -> None:
    """Draw links that open the listed photos as the collection of other pages."""
    place = settings().cache / "selections" / f"{hashlib.sha256(csv).hexdigest()[:16]}.csv"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, csv)
    known = pages()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="atlas_links"):
        st.caption("Open these photos on", width="content")
        for name in ("evaluate", "gallery", "neighbours"):
            st.page_link(
                known[name].page, label=known[name].title, icon=known[name].icon, width="content",
                query_params=url.link({state.DATA.name: str(place)}),
            )  # fmt: skip


def _take_selected(collection: Collection, network: Network) -> None:
    number = state.clicked("atlas.selected", "chosen")
    if number is not None:
        photo_links.choose(collection, network, int(number))
