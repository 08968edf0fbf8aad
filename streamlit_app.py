"""The app: page configuration and navigation. A new page is a file in `vizapp/ui/pages` and a row below."""

from __future__ import annotations

import streamlit as st

from vizapp.ui.app.frame import ICON, Row, show
from vizapp.ui.session import state

st.set_page_config("vizapp", ICON, layout="wide", initial_sidebar_state=300)

show(
    [
        Row("predict.py", "Predict", ":material/leaderboard:", (state.TOP, state.CROPS), default=True),
        Row(
            "feature_maps.py", "Feature maps", ":material/grid_view:",
            (state.LAYER, state.CHANNEL, state.CELL, state.ORDER, state.SCALE, state.VIEW),
        ),
        Row(
            "projection/page.py", "Projection", ":material/filter_center_focus:",
            (state.LAYER, state.CHANNEL, state.CELL, state.MODE, state.PART, state.CONTRAST), method="projection",
        ),
        Row(
            "gallery/page.py", "Gallery", ":material/photo_library:",
            (
                state.DATA, state.SITES, state.LAYER, state.CHANNEL, state.SORT, state.SEED, state.GROUP, state.PAGE,
            ),
        ),
        Row(
            "occlusion/page.py", "Occlusion", ":material/filter_none:",
            (
                state.WAY, state.PHOTOS, state.WINDOW, state.STRIDE, state.MAP, state.CLASS, state.SHOWN, state.POSITION,
                state.SECOND_PICTURE, state.SECOND_NETWORK, state.SECOND_WEIGHTS,
            ), method="occlusion",
        ),
        Row("dense/page.py", "Dense", ":material/apps:", (state.PLACE, state.TINT, state.CLASS), method="dense"),
        Row(
            "filters/page.py", "Filters", ":material/texture:", (state.LAYER, state.CHANNEL, state.VIEW), method="filters",
        ),
        Row(
            "compare/page.py", "Compare", ":material/compare_arrows:",
            (state.OTHER, state.OTHER_WEIGHTS, state.PART, state.MATCH, state.SECOND_MATCH),
        ),
        Row(
            "architecture/page.py", "Architecture", ":material/account_tree:",
            (state.ASPECT, state.TRAINED, state.AMONG, state.AXIS), method="architecture",
        ),
        Row("about.py", "About", ":material/info:"),
    ]
)  # fmt: skip
