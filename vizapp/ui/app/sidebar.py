"""The frame's choices: network and weights, picture, device. They are the same on every page."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import streamlit as st

from vizapp.errors import VizError
from vizapp.ui.inputs import image_picker, images, networks, uploads
from vizapp.ui.session import access, messages, state, url
from vizapp.ui.session.choice import Choice, bands, channel_map
from vizapp.ui.widgets import unit_picker
from vizapp.ui.widgets.components import component


def draw() -> None:
    """Draw the sidebar."""
    with st.sidebar:
        for title, part in (("Network", _network), ("Photo", _picture), ("Device", _device)):
            messages.heading(title)
            messages.guard(part)  # one by one: a wrong checkpoint path must not hide the pictures


def _network() -> None:
    network_choice("sidebar", state.NETWORK, state.WEIGHTS, state.CHECKPOINT)
    heads = networks.heads()
    if heads:
        shown = state.get(state.OUTPUT)
        if shown not in heads:
            shown = next(name for name, chosen in heads.items() if chosen is None)
        st.selectbox(
            "Head", help="The network answers at several places. All pages ask this one.",
            **state.bind(state.OUTPUT, "sidebar.head", shown, options=list(heads), read=heads.get),
        )  # fmt: skip
    _channels()


def _channels() -> None:
    """Draw what feeds the network's channels, where that is a question."""
    count, bands = networks.channels(), images.stack_bands()
    if count in (0, 1, 3) and not (count and bands) and state.get(state.CHANNELS) is None:
        return
    st.text_input(
        f"Channels ({count})" if count else "Channels", placeholder="R,G,B,mean" if not bands else "3,2,1,zero",
        help="What feeds each channel of the network, with commas: the number of a band from 0; R, G or B of the photo as "
        "it is shown; L, its luminance; mean, that of all bands; zero. Empty: the bands in order, or the photo.",
        **state.bind(state.CHANNELS, "sidebar.channels", state.get(state.CHANNELS) or "", read=_read_channels),
    )  # fmt: skip


def _read_channels(text: str) -> str | None:
    return _read(text, channel_map, state.CHANNELS)


def _read_bands(text: str) -> str | None:
    return _read(text, bands, state.BANDS)


def _read(text: str, read: Callable[[str], str], choice: Choice) -> str | None:
    """The entered text as the choice has it; what it was, with a note, if it has another form."""
    try:
        return read(text) if text.strip() else None
    except VizError as error:
        state.note(str(error))
        return state.get(choice)


def network_choice(page: str, network: Choice, weights: Choice, checkpoint: Choice) -> None:
    """Draw the choice of a network, its weights and its checkpoint. `page` is the prefix of the widget keys."""
    network_list(page, network)
    words = {"published": "Trained", "random": "Random", "file": "From a file"}
    messages.info(networks.summary(state.get(network), state.get(weights) == "published"))
    unit_picker.switch(weights, words, f"{page}.weights", label="Weights", width="stretch")
    if state.get(weights) == "file":
        _checkpoint(page, network, weights, checkpoint)


def network_list(page: str, choice: Choice, label: str = "Network", none: str = "") -> None:
    """Draw the list of networks.

    Args:
        page: Prefix of the widget keys.
        choice: The choice that it sets.
        label: Names the list for those who hear the page.
        none: The words of the row that chooses no network; without them there is none.
    """
    key = f"{page}.network"
    data = networks.chooser_data(state.get(choice) or "", label, none)
    component("chooser")(key=key, data=data, on_chosen_change=partial(_take_network, choice, key, bool(none)))


def _take_network(choice: Choice, key: str, optional: bool) -> None:
    name = state.clicked(key, "chosen")
    if name == "" and optional:
        state.put(choice, None)
    elif isinstance(name, str) and name in networks.offered(name):
        state.put(choice, name)


def _take_path(field: str, network: Choice, weights: Choice, checkpoint: Choice) -> None:
    """Take over the entered path of a checkpoint. If it is that of a network, choose that network."""
    path = str(state.load(field, "")).strip()
    if path and networks.is_file(path):
        state.put(network, networks.named(path))
        state.put(weights, "published")
        state.save(field, "")
    elif path:
        with suppress(VizError):  # the sidebar says it as long as the path is there
            access.allowed(path, "file")
            state.put(checkpoint, path)


def _checkpoint(page: str, network: Choice, weights: Choice, choice: Choice) -> None:
    field, most = f"{page}.checkpoint_path", access.checkpoint_mb()
    file = st.file_uploader(
        f"Checkpoint, at most {most} MB", networks.CHECKPOINTS, key=f"{page}.checkpoint", max_upload_size=most,
        help="A state dict. Code in the file is never run. " + (
            "Larger ones, such as VGG's, are opened by their path." if access.names_folders() else
            "The limit is that of this server; its owner can raise it (VIZAPP_CHECKPOINT_MB)."
        ),
    )  # fmt: skip
    if file is not None:
        try:
            state.put(choice, networks.keep_checkpoint(uploads.content_of(file, most, "checkpoints"), file.name))
        finally:
            uploads.drop_file(file)
        state.save(field, "")
    given = state.get(choice)
    if access.names_folders():
        if given and not state.has(field) and url.upload_digest(given) is None:
            state.save(field, given)  # of a link
        path = st.text_input(
            f"or the path of a file {access.place()}", key=field, on_change=_take_path,
            args=(field, network, weights, choice),
            help="A checkpoint of this network; or a network: a folder of Hugging Face, an .onnx or a .pt2 file.",
        ).strip()  # fmt: skip
        if path:
            access.allowed(path, "file")
    if given:
        messages.info(f"Weights of {networks.checkpoint(given)[1]}")


def _picture() -> None:
    images.replace_missing()
    image_picker.choose_one("sidebar")
    if count := images.stack_bands():
        st.text_input(
            f"Bands shown (0 to {count - 1})", placeholder="0,1,2" if count > 2 else "0",
            help="The numbers of the bands that are shown as red, green and blue, such as 3,2,1; or of one, in grey. Each is "
            "stretched from its 2nd to its 98th percentile.",
            **state.bind(state.BANDS, "sidebar.bands", state.get(state.BANDS) or "", read=_read_bands),
        )  # fmt: skip


def _device() -> None:
    unit_picker.switch(state.DEVICE, networks.devices(), "sidebar.device", label="Device", width="stretch")
