"""The browser opens with the app on one's own machine, and not on a server without a display."""

from __future__ import annotations

import asyncio
import gc
import webbrowser

import pytest
from streamlit import config

import streamlit_app
from vizapp.ui.app import opening


@pytest.mark.parametrize(("headless", "expected"), [(False, ["http://localhost:8765"]), (True, [])])
def test_the_browser_opens_unless_the_server_is_headless(
    headless: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(opening, "DELAY", 0)
    options = {"server.headless": headless, "server.port": 8765}
    monkeypatch.setattr(opening.st, "get_option", lambda name: options.get(name, config.get_option(name)))

    async def start() -> None:
        async with opening.open_browser(streamlit_app.app):
            await asyncio.sleep(0.05)

    asyncio.run(start())
    assert opened == expected


@pytest.mark.parametrize(("mode", "most"), [("local", 512), ("server", 25)])
def test_the_server_takes_the_largest_upload_that_the_app_offers(
    monkeypatch: pytest.MonkeyPatch, mode: str, most: int
) -> None:
    monkeypatch.setenv("VIZAPP_MODE", mode)
    monkeypatch.setattr(gc, "freeze", lambda: None)  # other tests count all objects
    given: dict[str, int] = {}
    monkeypatch.setattr(config, "set_option", given.__setitem__)

    async def start() -> None:
        async with opening.open_server(streamlit_app.app):
            pass

    asyncio.run(start())
    assert given == {"server.maxUploadSize": most}


def test_the_app_opens_it() -> None:
    assert streamlit_app.app._user_lifespan is opening.open_server
