"""What happens when the server starts: the limit of uploads is set, and the browser of its owner opens."""

from __future__ import annotations

import asyncio
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st
from streamlit import config

from vizapp.settings import settings
from vizapp.ui.session import access, memory

DELAY = 0.5  # seconds until the server that is starting answers


@asynccontextmanager
async def open_server(app: st.App) -> AsyncIterator[None]:
    """Let the server accept the largest upload that the app offers, then open the browser."""
    memory.keep_loaded()
    config.set_option("server.maxUploadSize", max(settings().upload_mb, access.checkpoint_mb()))
    async with open_browser(app):
        yield


@asynccontextmanager
async def open_browser(app: st.App) -> AsyncIterator[None]:
    """Open the app in the browser when its server starts, as `streamlit run` does for a script without an `st.App`.

    A headless server (`server.headless`, the default where there is no display) opens none.
    """
    if not st.get_option("server.headless"):
        address = st.get_option("browser.serverAddress")
        url = f"http://{address}:{st.get_option('server.port')}"
        asyncio.get_running_loop().call_later(DELAY, webbrowser.open, url)
    yield
