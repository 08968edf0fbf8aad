"""The frame around every page: style, sidebar, messages and address."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import streamlit as st

from vizapp.media.samples import sample_names
from vizapp.settings import ASSETS
from vizapp.ui.app import changes_bar, report_dialog, sidebar, tour_bar, tours
from vizapp.ui.app.pages import PageSpec
from vizapp.ui.inputs import images, networks, uploads
from vizapp.ui.session import access_log, downloads, messages, reports, state, url
from vizapp.ui.widgets import unit_card

ICON = str(ASSETS / "icon.svg")
_OF_PREDICT = {
    state.TOP.name,
    state.CROPS.name,
}  # in links to "/" of earlier versions, where Predict was the first page


def show(sections: Mapping[str, Sequence[PageSpec]]) -> None:
    """Draw the frame and the page that the address names. `sections`: the pages by section of the navigation."""
    began = time.perf_counter()
    st.html(ASSETS / "app.css")
    st.html(_questions(sections))
    st.logo(ASSETS / "logo.svg", icon_image=ICON, size="large")
    specs = {spec.page: spec for section in sections.values() for spec in section}
    known = {spec.key: page for page, spec in specs.items()}
    page = st.navigation(
        {name: [known[spec.key] for spec in section] for name, section in sections.items()}, position="top"
    )
    spec = next(spec for candidate, spec in specs.items() if candidate == page)
    if spec.default and _OF_PREDICT & set(st.query_params):
        st.switch_page(known["predict"], query_params=st.query_params.to_dict())
    st.set_page_config(page_title=f"{spec.title} · vizapp")
    state.show_page(spec.key)
    uploads.note_session()
    messages.guard(lambda: _read_address(specs.values(), spec))
    followed: list[tours.Tour | None] = []
    messages.guard(lambda: followed.append(tour_bar.follow(_known, specs)))
    tour_bar.draw(followed[0] if followed else None)
    st.html(ASSETS / "present.css" if state.get(state.PRESENT) == "on" else "<style></style>")
    messages.guard(sidebar.draw)
    for sentence in state.take_notes():
        messages.warn(sentence)
    url.write_address(spec.carried)
    changes_bar.draw()
    if report_dialog.is_open():
        st.container(key="given")  # the dialog delivers; what follows keeps its place
    else:
        messages.guard(downloads.deliver)
    for part in _parts(partial(unit_card.show, known), partial(_run, page)):
        messages.guard(part)
    access_log.write("page", page=spec.key, seconds=time.perf_counter() - began)


def _parts(card: Callable[[], None], page: Callable[[], None]) -> tuple[Callable[[], None], Callable[[], None]]:
    """The page and a dialog, which comes first where it does not wait for the page."""
    if report_dialog.is_open():
        return (report_dialog.show, page) if reports.is_drawn() else (page, report_dialog.show)
    return (card, page) if unit_card.is_loaded() else (page, card)


def _run(page: st.Page) -> None:
    reports.begin()
    page.run()
    reports.end()


def _questions(sections: Mapping[str, Sequence[PageSpec]]) -> str:
    """A style that shows the question of a page where its name in the navigation is pointed at."""
    specs = [spec for section in sections.values() for spec in section if not spec.default]
    rules = (
        f'[data-testid="stTopNavLink"][href$="/{spec.key}"]::after {{ content: {_quoted(spec.question)}; }}'
        for spec in specs
    )
    return f"<style>{' '.join(rules)}</style>"


def _quoted(text: str) -> str:
    """A text as a string of CSS, in which no tag can end the style."""
    return json.dumps(text, ensure_ascii=False).replace("<", r"\3c ")


def _read_address(specs: Iterable[PageSpec], page: PageSpec) -> None:
    more = [choice for spec in specs for choice in spec.carried]
    url.read_address(_known(st.query_params), more, page.carried)
    images.restore_uploads()


def _known(query: Mapping[str, str]) -> dict[str, Collection[str]]:
    """The valid values of some choices for a link with these parameters."""
    nets, samples = networks.labels(), sample_names()
    known: dict[str, Collection[str]] = {"network2": nets, "picture": samples, "picture2": samples}
    return known | {name: networks.offered(query.get(name)) for name in ("network", "other")}
