"""From a photo of a collection to the photo at hand, and back."""

from __future__ import annotations

import csv
import io

import pandas as pd
import streamlit as st

from vizapp.errors import VizError, plural
from vizapp.methods.base import Result
from vizapp.methods.truth import true_class
from vizapp.ui.inputs import datasets, images
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.session import access, state
from vizapp.zoo.network import Network

_LISTED = 1000  # unreadable photos in the table


def own_number(collection: Collection) -> int | None:
    """The number of the photo at hand in the collection, if it is chosen from there."""
    kind, *rest = images.origin()
    if kind != "folder" or rest[0] != collection.text:
        return None
    try:
        return collection.source.index_of(rest[1])
    except VizError:
        return None


def choose(collection: Collection, network: Network, number: int) -> None:
    """Make a photo of the collection the photo at hand, and its class the chosen one."""
    try:
        origin = datasets.origin_of(collection, number)
    except VizError as error:
        state.note(str(error))
        return
    if origin is not None:
        state.save(state.ORIGIN, origin)
        state.put(state.CLASS, true_class(network, collection.source.labels[number]))


def unreadable(result: Result) -> None:
    """List the photos that cannot be read, if there are any."""
    text = result.documents.get("unreadable.csv")
    if text is None:
        return
    rows = list(csv.DictReader(io.StringIO(text)))
    with st.expander(f"{plural(len(rows), 'photo')} could not be read"):
        table = pd.DataFrame(rows[:_LISTED])[["path", "reason"]]
        table["reason"] = table["reason"].map(access.discreet)
        st.dataframe(table, hide_index=True, key="neighbours.unreadable")
