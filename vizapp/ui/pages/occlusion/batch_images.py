"""Which photos the same square is slid over: the samples, some that were given, or those of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from vizapp.errors import VizError
from vizapp.methods.occlusion.other_images import spread
from vizapp.settings import settings
from vizapp.ui.inputs import images
from vizapp.ui.pages.occlusion import form
from vizapp.ui.pages.occlusion.sweep_runs import SweepRequest
from vizapp.ui.session import access, messages, state
from vizapp.zoo.network import Network

MOST = 24  # photos


@dataclass(frozen=True)
class Photo:
    """One of the photos: where it comes from (as `pictures.origin`), what it is called, and its sweep."""

    origin: tuple[Any, ...]
    name: str
    asked: SweepRequest


def choose() -> list[tuple[tuple[Any, ...], str]]:
    """Origin and name of each photo that is chosen."""
    words = {"samples": "Samples", "upload": "Upload"} | ({"folder": "Folder"} if access.names_folders() else {})
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
    return [(("sample", name), name) for name in images.sample_names()[:MOST]]


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
                origins[file.file_id] = images.keep(file.getvalue(), file.name)
            except VizError as error:
                messages.warn(str(error))
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
    found = images.folder(given)
    _thinned(len(found))
    names = [found.path(number) for number in spread(len(found), MOST)]
    return [(("folder", given, name), name) for name in names]


def _thinned(count: int) -> None:
    if count > MOST:
        messages.info(f"{MOST} of the {count:,}; the command line and Python take more.")


def opened(network: Network, chosen: Sequence[tuple[tuple[Any, ...], str]]) -> list[Photo]:
    """The photos that can be opened; a sentence about the others."""
    found, wrong = [], []
    for origin, name in chosen:
        try:
            picture = images.opened(origin)
        except VizError as error:
            wrong.append(str(error))
            continue
        asked = SweepRequest(network, picture, form.params(network, picture), form.unit(network))
        found.append(Photo(origin, name, asked))
    if wrong:
        messages.warn(f"{messages.plural(len(wrong), 'photo')} cannot be opened. {wrong[0]}")
    if not chosen:
        messages.info("Choose some photos: the same square slides over each, and their maps stand below one another.")
    return found
