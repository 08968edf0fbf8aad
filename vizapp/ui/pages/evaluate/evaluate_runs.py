"""Runs of the page Evaluate: quick ones at once, long ones on a click. They can be left, and go on from their checkpoint."""

from __future__ import annotations

from typing import Any

import streamlit as st

from vizapp import methods
from vizapp.errors import plural
from vizapp.methods.base import Result
from vizapp.methods.evaluate import pass_state
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.session import compute, messages, progress
from vizapp.zoo.network import Network

QUICK = 2_000_000  # pixels of all crops together, which a small network evaluates in a second or two
SMALL = 1_000_000  # parameters


def result(network: Network, photos: Collection, values: dict[str, Any]) -> Result | None:
    """What `evaluate` gives with these parameters; None where a button or a message stands in its place."""
    key = compute.key_of("evaluate", network, text=photos.text, listing=photos.listing, **values)
    asked = progress.is_started(key) or progress.is_cancelled(key) or compute.answers().get(key) is not None
    if not asked and not _is_quick(network, photos, values):
        is_begun, is_whole = _begun(network, photos, values)
        if not is_whole:
            _offer(photos, key, is_begun)
            return None
    return compute.compute(
        key, lambda tick: methods.ask("evaluate", network, folder=photos.source, tick=tick, **values),
        size=lambda found: found.nbytes + 500 * len(found.table), title="Evaluating", device=str(network.device),
    )  # fmt: skip


def _begun(network: Network, photos: Collection, values: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the pass was begun, and whether it is finished; of several networks it is not known."""
    return (False, False) if values["with_networks"] else pass_state(network, photos.source, values["crops"])


def _is_quick(network: Network, photos: Collection, values: dict[str, Any]) -> bool:
    pixels = len(photos.source) * network.input_size[1] * network.input_size[2]
    plain = values["crops"] == "one" and not values["with_networks"]
    return plain and pixels <= QUICK and network.parameters <= SMALL


def _offer(photos: Collection, key: tuple[str, ...], is_begun: bool) -> None:
    """Draw the button that starts the pass."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        progress.start_button("Continue" if is_begun else "Run", "evaluate.run", key, type="primary")
        st.caption(f"{plural(len(photos.source), 'photo')} of {messages.escaped(photos.title)}")
    messages.info("One pass over the photos. It can be cancelled, and goes on later from where it was.")
