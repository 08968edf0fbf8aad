"""The app: page configuration and navigation. `vizapp/ui/app/pages.py` lists the pages."""

from __future__ import annotations

import streamlit as st

from vizapp.ui.app import pages
from vizapp.ui.app.frame import ICON, show

st.set_page_config("vizapp", ICON, layout="wide", initial_sidebar_state=300)
show(pages.sections())
