"""The part of the page that teaches the network the classes of the folder."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from vizapp.errors import VizError
from vizapp.media.source import file_stamp
from vizapp.methods import ask
from vizapp.ui.inputs import networks
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.session import access, compute, messages, progress, state
from vizapp.zoo import taught
from vizapp.zoo.network import Network


def draw(network: Network, collection: Collection) -> None:
    """Draw a field for the name, a button, and what the network of that name is."""
    messages.heading("Teach it these classes")
    if access.shared():
        messages.info(
            "A network that learns your classes is kept where others would see it, so none is made on a shared server."
        )
        return
    messages.info(
        "The last layer is learned anew from three quarters of the photos of each class and tested on the others. The new "
        "network is kept as own/NAME, and every page takes it."
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="probe_teach"):
        name = st.text_input("Name", key="probe.name", placeholder="my-classes", width=240).strip()
        wrong = ""
        try:
            name = taught.check_name(name, overwrite=True) if name else ""
        except VizError as error:
            name, wrong = "", str(error)
        there = bool(name) and taught.file(name).exists()
        key = compute.key_of(
            "teach",
            network,
            None,
            collection.source,
            None,
            name=name,
            stamp=file_stamp(taught.file(name)) if name else "",
        )
        progress.start_button(
            "Replace" if there else "Teach", "probe.teach", key, icon="school", disabled=not name,
        )  # fmt: skip
    if wrong:
        messages.warn(wrong)
    if not name:
        return
    if progress.is_started(key) or progress.is_cancelled(key):
        _teach(network, collection, name, there, key)
    if there:
        _draw_known(name)


def _teach(network: Network, collection: Collection, name: str, there: bool, key: tuple[str, ...]) -> None:
    """Make the network; then the page is drawn again, with it."""
    try:
        made = compute.compute(
            key,
            lambda tick: ask("teach", network, folder=collection.source, tick=tick, name=name, replace=there),
            title="Teaching", device=str(network.device), raises=True,
        )  # fmt: skip
    except VizError as error:
        state.withdraw("run", key)
        messages.warn(str(error))
        return
    if made is not None:
        state.withdraw("run", key)
        st.rerun()


def _draw_known(name: str) -> None:
    """Draw what the network of that name is, and a link that opens it."""
    full = f"{taught.SOURCE}/{name}"
    try:
        messages.must_know(f"{full}: {taught.describe(full).about}")
    except VizError as error:
        messages.warn(str(error))
        return
    st.link_button(
        "Open it on Predict", f"predict?{urlencode({'network': full})}", icon=":material/leaderboard:",
        disabled=full not in networks.labels(),
    )  # fmt: skip
