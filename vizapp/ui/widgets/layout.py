"""The start of every page: title, columns, and the current network and picture."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import streamlit as st

from vizapp.media.picture import Picture
from vizapp.methods import methods
from vizapp.ui.inputs import camera, images, networks, targets
from vizapp.ui.session import messages, reports, state
from vizapp.ui.widgets import schematics, target_picker
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.explanations import Explanation, explanation
from vizapp.zoo.network import Network

_UPLOADED = "The photo is an upload: the link shows it for a day, from this server only."


def page_title(title: str, sentence: str) -> None:
    """Draw the title of the page, what it shows, its explanation, and buttons for its link, a report and a presentation."""
    with st.container(horizontal=True, gap="small", key="page_title"):
        st.html(
            f'<div class="vz-title"><h1>{escape(title)}</h1><span class="vz-badge">{escape(networks.badge())}</span>'
            f"<p>{escape(sentence)}</p></div>"
        )
        told = explanation(state.page(), methods().get(state.page()))
        if told is not None:
            with st.popover("Explain", icon=":material/help:", type="tertiary", width="content"):
                _explain(told)
        camera.switch()
        note = _UPLOADED if images.origin()[0] == "given" else ""
        component("share")(key="share", data={"note": note}, width="content")
        count = len(reports.collected())
        st.button(
            f"Report ({count})" if count else "Report", key="report.button", on_click=state.save,
            args=(state.REPORTING, state.page()), width="content", help="The answers of this page as a file to keep or send",
        )  # fmt: skip
        component("present")(
            key="present", data={"on": state.get(state.PRESENT) == "on"}, width="content", on_present_change=_present
        )


def _present() -> None:
    """Enter or leave presentation mode, as the button or its key asked."""
    if state.get(state.AUTOPLAY) != "always":
        state.put(state.PRESENT, "on" if state.clicked("present", "present") else "off")


def _explain(told: Explanation) -> None:
    """Draw three sentences and a picture."""
    for title, sentence in (("What you see", told.shows), ("How to read it", told.read), ("Beware", told.beware)):
        st.markdown(f"**{title}.** {messages.linked(sentence)}")
    st.html(schematics.schematic(state.page(), st.context.theme.type or "light"))


def fold() -> Any:
    """A closed expander for how something was computed: certificates, seeds, times. What a reader must know stays outside."""
    return st.expander("How this was computed")


def columns(*widths: float, key: str = "stacking") -> list[Any]:
    """Columns that stack in a narrow window. `key` begins with "stacking" and is unique on the page."""
    with st.container(key=key):
        return st.columns(list(widths), gap="medium")


def network_and_picture() -> tuple[Network, Picture] | None:
    """The current network and picture; None where a message explains why there is no network."""
    network = networks.current()
    return None if network is None else (network, images.current())


def answer_and_picture() -> tuple[Network, Picture] | None:
    """The current network toward what is explained of its output, and the picture; draws what is explained.

    None where a message explains why there is none.
    """
    asked = network_and_picture()
    if asked is None:
        return None
    aimed = targets.applied(*asked)
    if aimed is None:
        return None
    target_picker.draw(asked[0], aimed, asked[1])
    return aimed, asked[1]


def facts_table(facts: Mapping[str, str]) -> str:
    """Facts as an HTML table of two columns."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f'<table class="vz-facts">{rows}</table>'
