"""The app under test: a fresh session, fresh stores, no files outside the test's own folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from vizapp.ui.app.pages import pages

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., AppTest]


PAGES = tuple(pages())  # all of them, as the navigation lists them
ASKING = tuple(page for page in PAGES if page != "about")  # those that ask a network


def turn_to(app: AppTest, page: str) -> AppTest:
    """The app on another page, by the key that its address ends with. Several pages may share a file."""
    known = {info.get("url_pathname"): number for number, info in app._registered_pages.items()}
    app._page_hash = known[page]
    return app.run()


@pytest.fixture(autouse=True)
def fresh_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stores survive between AppTests of one process unless they are emptied."""
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIZAPP_DEVICE", "cpu")
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture
def open_app() -> Open:
    """`open_app("feature_maps", layer="features.1")`: the page as a link with these choices shows it."""

    def opened(page: str = "predict", **address: str) -> AppTest:
        app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60)
        for name, value in ({"network": "vizapp/lenet5-digits"} | address).items():
            app.query_params[name] = value
        app.run()
        if page != "predict":
            turn_to(app, page)
        return app

    return opened


def offered(app: AppTest) -> list[str]:
    """The files that can be had, as their buttons say."""
    return [button.label for button in app.button if button.proto.icon == ":material/download:"]


def sentences(app: AppTest) -> str:
    """All notices of a page."""
    return " ".join(notice.value for notice in app.warning).replace("\\", "")


def went_well(app: AppTest) -> bool:
    """Whether the page has neither a stack trace nor the notice of an unexpected error."""
    return not app.exception and "Something unexpected" not in sentences(app)


def chosen(app: AppTest, name: str) -> str:
    """What the address names."""
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


def shown(app: AppTest, key: str) -> Any:
    """What a component of ours was given."""
    element = next(e for e in app.get("bidi_component") if key in e.proto.id)
    return json.loads(element.proto.json)
