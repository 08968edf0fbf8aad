"""The app: page configuration and navigation. A new page is a file in `vizapp/ui/pages` and a row below."""

from __future__ import annotations

import streamlit as st

from vizapp.ui.app.frame import ICON, PageSpec, show
from vizapp.ui.session import state

st.set_page_config("vizapp", ICON, layout="wide", initial_sidebar_state=300)

show(
    [
        PageSpec("predict.py", "Predict", ":material/leaderboard:", (state.TOP, state.CROPS), default=True),
        PageSpec(
            "feature_maps.py", "Feature maps", ":material/grid_view:",
            (state.LAYER, state.CHANNEL, state.CELL, state.ORDER, state.SCALE, state.VIEW),
        ),
        PageSpec(
            "projection/page.py", "Projection", ":material/filter_center_focus:",
            (state.LAYER, state.CHANNEL, state.CELL, state.MODE, state.PART, state.CONTRAST), method="projection",
        ),
        PageSpec(
            "gallery/page.py", "Gallery", ":material/photo_library:",
            (
                state.DATA, state.SITES, state.LAYER, state.CHANNEL, state.SORT, state.SEED, state.GROUP, state.PAGE,
            ),
        ),
        PageSpec(
            "occlusion/page.py", "Occlusion", ":material/filter_none:",
            (
                state.WAY, state.PHOTOS, state.WINDOW, state.STRIDE, state.MAP, state.CLASS, state.SHOWN, state.POSITION,
                state.SECOND_PICTURE, state.SECOND_NETWORK, state.SECOND_WEIGHTS,
            ), method="occlusion",
        ),
        PageSpec("dense/page.py", "Dense", ":material/apps:", (state.PLACE, state.TINT, state.CLASS), method="dense"),
        PageSpec(
            "filters/page.py", "Filters", ":material/texture:", (state.LAYER, state.CHANNEL, state.VIEW), method="filters",
        ),
        PageSpec(
            "compare/page.py", "Compare", ":material/compare_arrows:",
            (state.OTHER, state.OTHER_WEIGHTS, state.PART, state.MATCH, state.SECOND_MATCH),
        ),
        PageSpec(
            "architecture/page.py", "Architecture", ":material/account_tree:",
            (state.ASPECT, state.TRAINED, state.AMONG, state.AXIS), method="architecture",
        ),
        PageSpec("about.py", "About", ":material/info:"),
    ]
)  # fmt: skip
