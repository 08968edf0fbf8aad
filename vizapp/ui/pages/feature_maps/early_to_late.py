"""The strongest maps of each layer, from early to late, with what excites the strongest unit of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from vizapp.components.data import uri
from vizapp.media.drawing import sheet
from vizapp.media.picture import Picture
from vizapp.media.transforms import shrink
from vizapp.methods import stages
from vizapp.methods.base import Result
from vizapp.ui.session import compute, downloads, forms, messages, reports, state
from vizapp.ui.widgets import maps, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.projection_tiles import RULES
from vizapp.zoo.network import Network

OPTIONS = ("maps", "project")
_LARGEST = 132  # pixels of a tile


def draw(network: Network, picture: Picture) -> None:
    """Draw the rows, and the downloads."""
    params = forms.changed("stages", OPTIONS)
    result = compute.run("stages", network, picture, **params)
    if result is None:
        return
    key = compute.key_of("stages.rows", network, picture, **params)
    data = compute.remembered(key, lambda: _rows(network.seen(picture), result), lambda rows: len(str(rows)))
    component("stages")(key="maps.early_to_late", data=data, on_unit_change=_open_unit)
    st.caption(
        "The strongest maps of each layer for this photo, bright where the unit is active, each on its own scale, with the "
        f"number of its channel. {_projected(result)}Click a picture to open the card of its unit."
    )
    if "not projected" in result.facts:
        messages.info(f"Not projected: {result.facts['not projected']}")
    name = downloads.file_name("stages", network.name, picture.name)
    reports.offer(result)
    downloads.row("maps", name, {"Early to late": result.panels[0].pixels}, result.arrays)


def _projected(result: Result) -> str:
    """What the last two columns show; empty if nothing is projected."""
    rule = result.facts.get("rule")
    shows = f"the part of the photo, and its projection ({rule})"
    return f"On the right, what excites the strongest unit: {shows}. " if rule else ""


def _open_unit() -> None:
    clicked = state.clicked("maps.early_to_late", "unit")
    if clicked is None:
        return
    unit_picker.open_card(clicked[0], int(clicked[1]))


def _rows(seen: np.ndarray, result: Result) -> dict[str, Any]:
    """Data of the stages component."""
    arrays, rows = result.arrays, []
    for n, row in enumerate(result.table):
        values, peaks = arrays[f"maps_{n + 1}"], arrays["strength"][n]
        drawn = maps.tiles(values, "channel", _LARGEST)
        down = arrays["projection"][n] if "projection" in arrays else np.array(np.nan)
        pair = [] if np.isnan(down).any() else stages.excited(seen, down, arrays["boxes"][n].tolist())
        high, wide = row["field height"], row["field width"]
        rows.append(
            {
                "site": row["layer"], "title": row["layer"], "items": arrays["channels"][n][: len(drawn)].tolist(),
                "note": f"{row['channels']} maps of {row['columns']} × {row['rows']} cells\n"
                + (f"each sees {wide} × {high} pixels" if high else "receptive field unknown"),
                "tiles": {"src": uri(sheet(drawn, len(drawn), gap=0)), "count": len(drawn)},
                "ratio": f"{row['columns']} / {row['rows']}", "coarse": row["columns"] < _LARGEST,
                "details": [f"largest value {peak:.4g}" for peak in peaks[: len(drawn)]],
                "pair": [uri(shrink(pixels, _LARGEST)) for pixels in pair] if pair else [None, None],
            }
        )  # fmt: skip
    return {
        "heads": ["Strongest maps", *(("Photo", RULES[result.facts["rule"]]) if "rule" in result.facts else ("", ""))],
        "rows": rows,
        "label": "Layers from early to late",
    }
