"""The app: page configuration and navigation. `vizapp/ui/app/pages.py` lists the pages."""

from __future__ import annotations

import streamlit as st
from starlette.middleware import Middleware

from vizapp.ui.app import pages
from vizapp.ui.app.frame import ICON, show
from vizapp.ui.app.headers import SecurityHeaders
from vizapp.ui.app.opening import open_server

if __name__ == "__main__":  # each run of a page
    st.set_page_config("vizapp", ICON, layout="wide", initial_sidebar_state=300)
    show(pages.sections())
else:  # `streamlit run` imports the server
    app = st.App(__file__, middleware=[Middleware(SecurityHeaders)], lifespan=open_server)
