"""The browser of the person who starts the app on their own machine."""

from __future__ import annotations

import asyncio
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st

DELAY = 0.5  # seconds until the server that is starting answers


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
