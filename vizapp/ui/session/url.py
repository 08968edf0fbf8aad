"""The address of a view: its query holds the choices that differ from their defaults, so a link reopens the view."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from vizapp.errors import VizError, nearest
from vizapp.ui.session import state
from vizapp.ui.session.choice import Choice


def read_address(known: dict[str, Collection[str]], more: Collection[Choice] = ()) -> None:
    """Take over the parameters that were opened or edited since the address was last written.

    Invalid values are skipped with a note.

    Args:
        known: The valid values of some choices, by name of the choice.
        more: Choices in addition to those of `state.py`.
    """
    written = state.load(state.ADDRESS, {})
    given = {name: value for name, value in st.query_params.to_dict().items() if written.get(name) != value}
    for name, choice in (state.CHOICES | {choice.name: choice for choice in more}).items():
        if name not in given:
            continue
        try:
            value = choice.read(given[name])
            if name in known and value not in known[name]:
                raise VizError(f"There is no {name} {value!r}.{nearest(value, known[name])}", code="no-such-choice")
        except VizError as error:
            state.note(f"The link's choice of {name} was ignored. {error}")
            continue
        state.put(choice, value)
        if choice in (state.NETWORK, state.SECOND_NETWORK, state.OTHER):
            state.save(state.LINKED, {*state.load(state.LINKED, ()), value})
        if choice is state.SAMPLE:
            state.save(state.ORIGIN, ("sample", value))
    state.save(state.ADDRESS, written | given)


def write_address(page: Collection[Choice]) -> None:
    """Write the shared choices and those of the page to the address, where they differ from the default."""
    shared = [choice for choice in state.CHOICES.values() if choice.shared]
    origin = state.load(state.ORIGIN)
    carried = {}
    for choice in [*shared, *(choice for choice in page if not choice.shared)]:
        value = state.get(choice)
        if value == choice.default or (choice is state.SAMPLE and origin is not None and origin[0] != "sample"):
            continue
        carried[choice.name] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if st.query_params.to_dict() != carried:
        st.query_params.from_dict(carried)
    state.save(state.ADDRESS, carried)
