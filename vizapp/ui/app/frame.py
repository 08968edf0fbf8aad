"""The frame around every page: style, sidebar, messages and address."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import streamlit as st

from vizapp.media.samples import sample_names
from vizapp.settings import ASSETS
from vizapp.ui.app import sidebar
from vizapp.ui.app.pages import PageSpec
from vizapp.ui.inputs import networks, uploads
from vizapp.ui.session import access_log, downloads, messages, state, url

PAGES_FOLDER = Path(__file__).resolve().parents[1] / "pages"
ICON = str(ASSETS / "icon.svg")


def show(sections: Mapping[str, Sequence[PageSpec]]) -> None:
    """Draw the frame and the page that the address names. `sections`: the pages by section of the navigation."""
    began = time.perf_counter()
    st.html(ASSETS / "app.css")
    st.logo(ASSETS / "logo.svg", icon_image=ICON, size="large")
    specs = {
        st.Page(
            PAGES_FOLDER / spec.file, title=spec.title, icon=spec.icon, default=spec.default, url_path=spec.key
        ): spec
        for section in sections.values()
        for spec in section
    }
    known = {spec.key: page for page, spec in specs.items()}
    page = st.navigation(
        {name: [known[spec.key] for spec in section] for name, section in sections.items()}, position="top"
    )
    spec = next(spec for candidate, spec in specs.items() if candidate == page)
    state.show_page(spec.key)
    uploads.note_session()
    messages.guard(lambda: _read_address(specs.values(), spec))
    messages.guard(sidebar.draw)
    for sentence in state.take_notes():
        messages.warn(sentence)
    url.write_address(spec.carried)
    messages.guard(downloads.deliver)
    messages.guard(page.run)
    access_log.write("page", page=spec.key, seconds=time.perf_counter() - began)


def _read_address(specs: Iterable[PageSpec], page: PageSpec) -> None:
    more = [choice for spec in specs for choice in spec.carried]
    nets, samples = networks.labels(), sample_names()
    known = {"network": nets, "network2": nets, "other": nets, "picture": samples, "picture2": samples}
    url.read_address(known, more, page.carried)
