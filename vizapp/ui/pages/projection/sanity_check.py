"""The sanity check of a projection: the same unit projected in networks with randomised weights."""

from __future__ import annotations

import streamlit as st

from vizapp.engine.trace.sites import Unit
from vizapp.media.picture import Picture
from vizapp.methods.base import Result
from vizapp.ui.session import compute, messages, progress, state
from vizapp.ui.widgets import image_tiles, projection_tiles
from vizapp.ui.widgets.maps import Box
from vizapp.zoo.network import Network

_CHECKS = {
    "trained": "Trained", "above": "Layers above randomised", "upper": "Upper half randomised",
    "all": "All weights randomised",
}  # fmt: skip
_ALIKE, _UNLIKE = 0.9, 0.5  # at least this similarity counts as unchanged, less than the second one as changed
_SAME = "unchanged, so the projection does not depend on these weights."
_PARTLY = "partly unchanged, so the projection depends only partly on these weights."
_OTHER = "changed, so the projection depends on these weights."


def draw(network: Network, picture: Picture, unit: Unit, box: Box) -> Result | None:
    """Draw the button and, once it is pressed, the projections; None before that."""
    messages.heading("Sanity check")
    rule = projection_tiles.rule(network)
    key = compute.key_of("sanity", network, picture, unit=unit, rule=rule)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="projection_sanity"):
        projection_tiles.rule_switch(network, "projection.checked_rule")
        progress.start_button("Compare with randomised networks", "projection.check", key, icon="shuffle")
    if not progress.is_started(key):
        messages.info("Does the projection change when the network's weights are randomised? (Adebayo et al. 2018)")
        return None
    result = compute.run("sanity", network, picture, unit=unit, rule=rule)
    if result is None:
        return None
    similarity = dict(zip(list(_CHECKS)[1:], result.arrays["similarity"].tolist(), strict=True))
    part = state.get(state.PART)
    shown = {_CHECKS[panel.title]: projection_tiles.crop_or_whole(panel.pixels, box, part) for panel in result.panels}
    notes = {_CHECKS[name]: f"{value:.2f}" for name, value in similarity.items()} | {"Trained": ""}
    image_tiles.side_by_side("checks", shown, notes, 4)
    if not result.arrays["projection"].any():
        messages.info("The trained network's projection is zero everywhere, so there is nothing to compare.")
        return result
    sentences = [f"**{_CHECKS[name]}, {value:.2f}:** {_reading(value)}" for name, value in similarity.items()]
    st.caption("  \n".join(sentences))
    messages.info(
        f"The numbers are rank correlations with the trained network's projection. {result.facts['reading']} "
        "Projections in this check start from a unit signal of 1 and use default options."
    )
    return result


def _reading(similarity: float) -> str:
    return _SAME if similarity >= _ALIKE else _OTHER if similarity < _UNLIKE else _PARTLY
