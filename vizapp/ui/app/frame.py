"""What stands around every page: the style, the sidebar, sentences to show, the address."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from vizapp.ui.app import sidebar
from vizapp.ui.inputs import images, networks, uploads
from vizapp.ui.session import access_log, downloads, forms, messages, state
from vizapp.ui.session.access_log import Clock
from vizapp.ui.session.state import Choice

if TYPE_CHECKING:
    from vizapp.media.picture import Picture
    from vizapp.zoo.network import Network

_ROOT = Path(__file__).resolve().parents[3]
ICON = str(_ROOT / "assets" / "icon.svg")


@dataclass(frozen=True)
class PageSpec:
    """A page: its file in `vizapp/ui/pages`, its title and icon, and the choices that its address carries.

    `method` is the one whose parameters the page draws as a form; its address carries these too.
    """

    file: str
    title: str
    icon: str
    choices: tuple[Choice, ...] = ()
    default: bool = False
    method: str = ""

    @property
    def key(self) -> str:
        """The page's name in addresses and in the log: `occlusion` of `occlusion/page.py`."""
        return self.file.removesuffix(".py").removesuffix("/page")

    @property
    def carried(self) -> tuple[Choice, ...]:
        """All choices that the page's address carries."""
        return (*self.choices, *(forms.choices(self.method).values() if self.method else ()))


def show(rows: list[PageSpec]) -> None:
    """Draw the frame and the page that the address names."""
    clock = Clock()
    st.html(_ROOT / "assets" / "app.css")
    st.logo(_ROOT / "assets" / "logo.svg", icon_image=ICON, size="large")
    pages = {
        st.Page(
            _ROOT / "vizapp" / "ui" / "pages" / row.file,
            title=row.title,
            icon=row.icon,
            default=row.default,
            url_path=row.key,
        ): row
        for row in rows
    }
    page = st.navigation(list(pages), position="top")
    row = next(row for candidate, row in pages.items() if candidate == page)
    uploads.present()
    messages.guard(lambda: _read_address(rows))
    messages.guard(sidebar.draw)
    for sentence in state.take_notes():
        messages.warn(sentence)
    state.write_address(row.carried)
    messages.guard(downloads.deliver)
    messages.guard(page.run)
    access_log.write("page", page=row.key, seconds=clock.seconds)


def _read_address(rows: list[PageSpec]) -> None:
    from vizapp.media.samples import sample_names

    more = [choice for row in rows for choice in row.carried]
    nets, samples = networks.labels(), sample_names()
    known = {"network": nets, "network2": nets, "other": nets, "picture": samples, "picture2": samples}
    state.read_address(known, more)


def network_and_picture() -> tuple[Network, Picture] | None:
    """What every question needs, or None when a sentence in its place says what is missing."""
    network = networks.current()
    if network is None:
        return None
    return network, images.current()


def page_title(title: str, sentence: str) -> None:
    """The page's title, and in one sentence what it shows."""
    st.html(f'<div class="vz-title"><h1>{escape(title)}</h1><p>{escape(sentence)}</p></div>')


def columns(*widths: float, key: str = "stacking") -> list[Any]:
    """Columns, which stand below one another in a narrow window. `key` begins with "stacking", and is used once per page."""
    with st.container(key=key):
        return st.columns(list(widths), gap="medium")
