"""Running a probe from the page: bundled photos at once, others on a click; cancelled and gone on with at any time."""

from __future__ import annotations

from typing import Any

import streamlit as st

from vizapp.errors import VizError
from vizapp.methods.base import Result
from vizapp.methods.probe import check_classes
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.session import compute, messages, progress
from vizapp.zoo.network import Network

STARTS = ("samples", "digits")  # collections that are probed without a click
_KEY = "probe"


def answer(network: Network, collection: Collection, values: dict[str, Any]) -> Result | None:
    """The result; bundled photos are probed without a click."""
    key = compute.key_of(_KEY, network, None, collection.source, None, **values)
    known = compute.answers().get(key) is not None
    try:
        check_classes(collection.source, int(values["photos"]))
    except VizError as error:
        messages.warn(str(error))
        return None
    if collection.text not in STARTS and not known and not progress.is_started(key) and not progress.is_cancelled(key):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            progress.start_button("Run", "probe.run", key, type="primary")
            messages.info(
                "Two passes over the photos, one of them with random weights. You can cancel at any time and go on later."
            )
        return None
    return compute.run(_KEY, network, None, collection.source, None, **values)
