"""The frame's choices: network and weights, picture, device. They are the same on every page."""

from __future__ import annotations

from typing import Any

import streamlit as st

from vizapp.errors import VizError
from vizapp.settings import settings
from vizapp.ui.inputs import images, networks
from vizapp.ui.session import access, messages, state
from vizapp.ui.session.choice import Choice
from vizapp.ui.widgets.components import component


def draw() -> None:
    """Draw the sidebar."""
    with st.sidebar:
        for title, part in (("Network", _network), ("Picture", _picture), ("Device", _device)):
            messages.heading(title)
            messages.guard(part)  # each by itself: a wrong path of a checkpoint must not take the pictures away


def _network() -> None:
    network_choice("sidebar", state.NETWORK, state.WEIGHTS, state.CHECKPOINT)


def network_choice(page: str, network: Choice, weights: Choice, checkpoint: str) -> None:
    """A network and its weights to choose. `page` begins the widget keys, `checkpoint` is the key of a file given for it."""
    names = networks.labels()
    st.selectbox(
        "Network", list(names), format_func=lambda name: names.get(name, name), label_visibility="collapsed",
        filter_mode="contains", **state.bind(network, f"{page}.network"),
    )  # fmt: skip
    messages.info(networks.known(state.get(network)))
    words = {"published": "Trained", "random": "Random", "file": "From a file"}
    st.segmented_control(
        "Weights", list(words), format_func=words.__getitem__, label_visibility="collapsed", width="stretch",
        required=True, **state.bind(weights, f"{page}.weights"),
    )  # fmt: skip
    if state.get(weights) == "file":
        _checkpoint(page, checkpoint)


def _checkpoint(page: str, key: str) -> None:
    file = st.file_uploader(
        f"Checkpoint, at most {settings().upload_mb} MB", networks.CHECKPOINTS, key=f"{page}.checkpoint",
        max_upload_size=settings().upload_mb, help="A state dict. Code in a file is never run.",
    )  # fmt: skip
    path = ""
    if access.names_folders():
        path = st.text_input(f"or the path of a file {access.place()}", key=f"{page}.checkpoint_path").strip()
    if file is not None:
        content = file.getvalue()
        st.session_state[key] = (str(networks.keep_checkpoint(content, file.name)), file.name)
    elif path:
        st.session_state[key] = (str(access.allowed(path, "file")), path)
    given = st.session_state.get(key)
    if given is not None and file is None:
        messages.info(f"Weights of {given[1]}")


def _picture() -> None:
    images.settle()
    words = {"sample": "Sample", "upload": "Upload", "camera": "Camera"}
    if access.names_folders():
        words["folder"] = "Folder"
    source = st.segmented_control(
        "Picture", list(words), format_func=words.__getitem__, label_visibility="collapsed", width="stretch",
        required=True, default="sample", key="sidebar.source",
    )  # fmt: skip
    try:
        {"sample": _samples, "upload": _upload, "camera": _camera, "folder": _folder}[source or "sample"]()
    except VizError as error:
        messages.warn(str(error))


def _samples() -> None:
    names, columns = images.sample_names(), 8
    origin = images.origin()
    data = {
        "sprite": images.sprite(tuple(names), columns),
        "tile": [images.THUMB, images.THUMB],
        "columns": columns,
        "side": 48,
        "most": 48,
        "items": list(names),
        "titles": list(names),
        "chosen": origin[1] if origin[0] == "sample" else None,
        "label": f"{len(names)} sample pictures",
    }
    component("sheet")(key="sidebar.samples", data=data, on_chosen_change=_take_sample)


def _take_sample() -> None:
    name = state.clicked("sidebar.samples", "chosen")
    if name is None:
        return
    state.put(state.SAMPLE, name)
    st.session_state[state.ORIGIN] = ("sample", name)


def _upload() -> None:
    megabytes = settings().upload_mb
    # No list of endings: what a file is shows when it is opened, and that sentence says more than "not allowed".
    file = st.file_uploader(f"A photo, at most {megabytes} MB", key="sidebar.upload", max_upload_size=megabytes)
    _take(file, "sidebar.upload")


def _camera() -> None:
    file = st.camera_input("A photo by the camera", key="sidebar.camera", label_visibility="collapsed")
    _take(file, "sidebar.camera")


def _take(file: Any, key: str) -> None:
    """A file that is new becomes the picture; one that was taken before does not overrule a later choice."""
    seen = f"{key}.seen"
    if file is None:
        st.session_state.pop(seen, None)
    elif st.session_state.get(seen) != file.file_id:
        images.take(file.getvalue(), file.name)
        st.session_state[seen] = file.file_id


def _folder() -> None:
    path = st.text_input(f"Path of a folder {access.place()}", key="sidebar.folder", persist_state="session").strip()
    if not path:
        return
    found = images.folder(path)
    names = [found.path(index) for index in range(len(found))]
    name = st.selectbox(f"{len(found)} pictures", names, key="sidebar.folder_picture")
    if name is not None:
        st.session_state[state.ORIGIN] = ("folder", path, name)


def _device() -> None:
    names = networks.devices()
    st.segmented_control(
        "Device", list(names), format_func=lambda name: names.get(name, name), label_visibility="collapsed",
        required=True, width="stretch", **state.bind(state.DEVICE, "sidebar.device"),
    )  # fmt: skip
