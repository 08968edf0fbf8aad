"""Several photos, a sweep of the same square over each: small maps below one another, linked, and what they say together."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.errors import VizError
from vizapp.media.drawing import sheet, signed
from vizapp.settings import settings
from vizapp.ui import answers, downloads, frame, maps, notices, panels, pictures, server, square, state, sweeps
from vizapp.ui.components import component
from vizapp.ui.downloads import File
from vizapp.ui.sweeps import Asked
from vizapp.ui.work import Tick, Work

if TYPE_CHECKING:
    from vizapp.methods.base import Result
    from vizapp.zoo.network import Network

MOST = 24  # photos
_LARGEST = 112  # pixels of a small photo
_LOOK, _WAIT = 0.4, 1.0  # seconds between two looks at sweeps under way; those that a look waits for more to see
_KEY = "occlusion.several"


@dataclass(frozen=True)
class Photo:
    """One of the photos: where it comes from (as `pictures.origin`), what it is called, and its sweep."""

    origin: tuple[Any, ...]
    name: str
    asked: Asked


def draw(network: Network) -> None:
    """The choice of the photos, and their maps."""
    photos = _photos(network, _choose())
    if not photos:
        return
    missing = [photo for photo in photos if sweeps.finished(photo.asked) is None]
    name = hashlib.sha256(repr([photo.asked.key for photo in photos]).encode()).hexdigest()[:16]
    if missing and st.session_state.get(state.ASKED) == name:
        _watch(photos, missing, name)
        return
    for sentence in state.take_notes():
        notices.sorry(sentence)
    if missing:
        _offer(photos, missing, name)
    if missing:
        _draw(photos)
        return
    results = [result for photo in photos if (result := sweeps.finished(photo.asked)) is not None]
    facts = _together(photos, results)
    _draw(photos)
    st.caption(f"**Computing:** {notices.escaped(facts['evaluation'])}")
    notices.head("What it does not show")
    notices.hint(facts["caution"])
    _downloads(network, photos, results)


# Which photos


def _choose() -> list[tuple[tuple[Any, ...], str]]:
    """Origin and name of each photo that is chosen."""
    words = {"samples": "Samples", "upload": "Upload"} | ({"folder": "Folder"} if server.names_folders() else {})
    text = state.get(state.PHOTOS)
    now = text if text in ("samples", "upload") else "folder"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="occlusion_photos"):
        key = "occlusion.photos"
        kept = st.session_state.get(key)
        if kept is None or (kept != now and kept != "folder"):
            st.session_state[key] = now if now in words else "samples"
        kind = st.segmented_control(
            "Photos", list(words), format_func=words.__getitem__, required=True, label_visibility="collapsed", key=key,
            on_change=_take_kind,
        )  # fmt: skip
        if kind == "upload":
            return _uploaded()
        if kind == "folder":
            return _of_folder(text if now == "folder" else "")
    return [(("sample", name), name) for name in pictures.sample_names()[:MOST]]


def _take_kind() -> None:
    kind = st.session_state["occlusion.photos"]
    if kind != "folder":
        state.put(state.PHOTOS, kind)


def _uploaded() -> list[tuple[tuple[Any, ...], str]]:
    megabytes = settings().upload_mb
    files = st.file_uploader(
        f"Photos, at most {megabytes} MB each", accept_multiple_files=True, key="occlusion.upload", width=420,
        max_upload_size=megabytes, on_change=_changed,
    )  # fmt: skip
    origins: dict[str, tuple[Any, ...]] = st.session_state.setdefault(state.UPLOADED, {})
    for file in files[:MOST]:
        if file.file_id not in origins:
            try:
                origins[file.file_id] = pictures.keep(file.getvalue(), file.name)
            except VizError as error:
                notices.sorry(str(error))
    _thinned(len(files))
    there = {file.file_id for file in files}
    for gone in set(origins) - there if files else ():
        del origins[gone]
    return [(origin, origin[2]) for origin in origins.values()]


def _changed() -> None:
    """The last one was taken out; a page that was left and opened again has none in its uploader, too, but keeps them."""
    if not st.session_state["occlusion.upload"]:
        st.session_state[state.UPLOADED] = {}


def _of_folder(path: str) -> list[tuple[tuple[Any, ...], str]]:
    from vizapp.methods.occlusion_others import spread

    key = "occlusion.folder"
    if key not in st.session_state:
        st.session_state[key] = path or st.session_state.get("sidebar.folder", "")
    where = "in this server's pictures" if settings().root is not None else "on this machine"
    given = st.text_input(
        "Folder", key=key, label_visibility="collapsed", width=420,
        placeholder=f"Path of a folder, zip or CSV file {where}; folders are classes",
    ).strip()  # fmt: skip
    if not given:
        return []
    if state.get(state.PHOTOS) != given:
        state.put(state.PHOTOS, given)
        st.rerun()  # the address is written first
    found = pictures.folder(given)
    _thinned(len(found))
    return [(("folder", given, number), found.path(number)) for number in spread(len(found), MOST)]


def _thinned(count: int) -> None:
    if count > MOST:
        notices.hint(f"{MOST} of the {count:,}; the command line and Python take more.")


def _photos(network: Network, chosen: Sequence[tuple[tuple[Any, ...], str]]) -> list[Photo]:
    """The photos that can be opened; a sentence about the others."""
    found, wrong = [], []
    for origin, name in chosen:
        try:
            picture = pictures.opened(origin)
        except VizError as error:
            wrong.append(str(error))
            continue
        asked = Asked(network, picture, square.params(network, picture), square.unit(network))
        found.append(Photo(origin, name, asked))
    if wrong:
        notices.sorry(f"{notices.plural(len(wrong), 'photo')} cannot be opened. {wrong[0]}")
    if not chosen:
        notices.hint("Choose some photos: the same square slides over each, and their maps stand below one another.")
    return found


# The sweeps


def _offer(photos: Sequence[Photo], missing: Sequence[Photo], name: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            f"Sweep {notices.plural(len(missing), 'photo')}" if len(missing) == len(photos) else "Go on",
            key="occlusion.several.run", type="primary", icon=":material/play_arrow:", on_click=_ask, args=(name,),
        )  # fmt: skip
        if len(missing) < len(photos):
            st.caption(f"{len(photos) - len(missing)} of {len(photos)} are there.")


def _ask(name: str | None) -> None:
    st.session_state[state.ASKED] = name


def _watch(photos: Sequence[Photo], missing: Sequence[Photo], name: str) -> None:
    """Progress, a way out and the maps as they come, until all are there."""
    key = ("occlusion.several", missing[0].asked.network.digest, name)
    device = missing[0].asked.device

    def look() -> None:
        if st.session_state.get(state.ASKED) != name:
            st.rerun()
        with answers.office().waiting(key, partial(_run, missing), device, state.person()) as work:
            deadline = time.monotonic() + (answers.QUIET if work.share == 0 else _WAIT)
            while not work.future.done() and time.monotonic() < deadline:
                time.sleep(0.01)
            if not work.future.done():  # drawn while it is waited for: work that nobody waits for ends
                _progress(work, len(missing), key)
                _draw(photos)
        if work.future.done():
            _ask(None)
            try:
                work.future.result()
            except VizError as error:
                state.note(str(error))
            st.rerun()

    st.fragment(lambda: notices.calmly(look), run_every=_LOOK)()


def _progress(work: Work, count: int, key: tuple[str, ...]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        words = f"Waiting, {answers.ordinal(work.place)} in the queue" if work.place else "Sweeping"
        st.progress(work.share, text=f"{words} · {work.share:.0%} of {notices.plural(count, 'photo')}")
        st.button("Cancel", key="occlusion.several.cancel", on_click=_leave, args=(key,))


def _leave(key: tuple[str, ...]) -> None:
    _ask(None)
    answers.office().give_up(key)


def _run(missing: Sequence[Photo], tick: Tick) -> None:
    """Sweep the photos and keep each answer as it comes, under the key that the sweep of one photo has.

    Those that are there meanwhile are left out: this may go on with work that was left for a moment.
    """
    from vizapp.engine.chunks import memory_told
    from vizapp.methods.base import Question
    from vizapp.methods.occlusion_several import sweeps as in_turn

    first, count = missing[0].asked, len(missing)
    missing = [photo for photo in missing if sweeps.finished(photo.asked) is None]
    shown = [photo.asked.picture for photo in missing]
    question = Question(first.network, unit=first.unit)
    with memory_told():
        answered = in_turn(
            question, shown, replace(first.params, label=""), lambda done: tick(1 - (len(missing) - done) / count)
        )
        for photo, (_, result) in zip(missing, answered, strict=True):
            answers.answers().put(photo.asked.key, result, result.nbytes)


# What they show


def _draw(photos: Sequence[Photo]) -> None:
    """The small maps of the sweeps that are there."""
    there = [(photo, result) for photo in photos if (result := sweeps.finished(photo.asked)) is not None]
    if there:
        view = state.get(state.SHOWN)
        groups = [_group(photo, result, view) for photo, result in there]
        data = {"groups": groups, "small": True}
        component("panels")(
            key=_KEY, data=data, on_cell_change=lambda: None, on_open_change=partial(_open, [p for p, _ in there])
        )


def _group(photo: Photo, result: Result, view: str) -> dict[str, Any]:
    def made() -> dict[str, Any]:
        from vizapp.methods.occlusion_several import row_of

        shown = panels.of_result(photo.asked, result, None)
        row = row_of(photo.name, result)
        note = f"{100 * row['clean']:.1f} %, hidden down to {100 * row['lowest']:.1f} %"
        group = panels.group(shown, view, None, largest=_LARGEST) | {
            "title": photo.name,
            "note": note,
            "photoTitle": "",
        }
        for one in group["maps"]:
            one["title"] = {"(b)": f"map {shown.map_name.rpartition(':')[2]}", "(d)": shown.class_name}.get(
                one["letter"], ""
            )
        return group

    key = ("occlusion.small", *photo.asked.key, photo.name, view)
    return answers.remembered(key, made, size=lambda data: 40_000)


def _open(photos: Sequence[Photo]) -> None:
    """Show one of them alone."""
    number = state.clicked(_KEY, "open")
    if number is None or not 0 <= number < len(photos):
        return
    origin = photos[number].origin
    st.session_state[state.ORIGIN] = origin
    if origin[0] == "sample":
        state.put(state.SAMPLE, origin[1])
    state.put(state.WAY, "sweep")


def _together(photos: Sequence[Photo], results: Sequence[Result]) -> dict[str, str]:
    """The table of all photos and the mean of their maps; the facts about them."""
    from vizapp.methods.occlusion_several import row_of, stacked, summary

    rows = [row_of(photo.name, result) for photo, result in zip(photos, results, strict=True)]
    change = stacked([result.arrays for result in results])["mean_change"]
    facts = summary(results[0].facts, rows)
    notices.head("Together")
    left, right = frame.columns(1, 4, key="stacking_together")
    pixels = _enlarged(change)
    with left:
        st.html('<div class="vz-tile"><b>Mean change</b></div>')
        component("map")(key="occlusion.mean", data=maps.photo_data(pixels, "Mean change of the probability"))
        notices.hint(f"Dark: hiding lowers the probability. Full contrast ±{100 * np.abs(change).max():.1f} points.")
    with right:
        st.markdown(notices.escaped(" ".join(facts[name] for name in ("summary", "true class") if name in facts)))
        _table(rows)
    return facts


def _downloads(network: Network, photos: Sequence[Photo], results: Sequence[Result]) -> None:
    from vizapp.methods.occlusion_several import row_of, stacked, strip

    arrays = stacked([result.arrays for result in results])
    strips = [strip(network.seen(p.asked.picture), result) for p, result in zip(photos, results, strict=True)]
    table = pd.DataFrame([row_of(photo.name, result) for photo, result in zip(photos, results, strict=True)])
    name = downloads.file_name("occlusion", network.name, notices.plural(len(photos), "photo"))
    downloads.row(
        "occlusion_several", name, {"Maps": sheet(strips, 1, gap=3), "Mean change": _enlarged(arrays["mean_change"])}, arrays,
        [File("Table CSV", f"{name}.csv", "text/csv", lambda: table.to_csv(index=False).encode())],
    )  # fmt: skip


def _enlarged(change: np.ndarray) -> np.ndarray:
    return signed(change).repeat(8, 0).repeat(8, 1)


def _table(rows: Sequence[dict[str, Any]]) -> None:
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
