"""The downloads of a sweep: maps, arrays, a table of all positions, and a film."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vizapp.media.film import to_gif, to_webm
from vizapp.media.transforms import resize
from vizapp.methods.base import Result
from vizapp.methods.occlusion import panel_data
from vizapp.methods.occlusion.film import Film
from vizapp.methods.occlusion.other_images import drawn as drawn_others
from vizapp.methods.occlusion.panel_data import Cell
from vizapp.methods.tables import frame_to_csv
from vizapp.ui.pages.occlusion.map_panels import SweepView
from vizapp.ui.session import downloads, state
from vizapp.ui.session.downloads import File


def row(shown: SweepView, result: Result, cell: Cell, more: dict[str, np.ndarray]) -> None:
    """Draw the buttons. `more`: the arrays of the other pictures of (c), if they are shown."""
    height, width = shown.seen.shape[:2]
    pictures = {"(a)": shown.occluded(cell)} | {
        f"({letter})": resize(pixels, height, width, "nearest")
        for letter, pixels in panel_data.pictures(shown, state.get(state.SHOWN)).items()
    }
    pictures |= {"(c) others": drawn_others(more)} if more else {}
    name = downloads.file_name("occlusion", shown.asked.network.name, shown.asked.picture.name)

    files = [
        File("Table CSV", f"{name}.csv", "text/csv", lambda: frame_to_csv(table_of(shown, result.arrays))),
        File(
            "Film GIF", f"{name}.gif", "image/gif", lambda: to_gif([resize(f, 360, 640, "area") for f in _film(shown)])
        ),
        File("Film WebM", f"{name}.webm", "video/webm", lambda: to_webm(_film(shown))),
    ]
    downloads.row("occlusion", name, pictures, result.arrays | more, files)


def _film(shown: SweepView) -> Film:
    network, arrays = shown.asked.network, shown.arrays
    return Film(
        shown.seen, shown.asked.params, shown.positions, shown.class_name, shown.clean, arrays["probability"],
        [network.readable_name(int(label)) for label in arrays["label"].flat],
    )  # fmt: skip


def table_of(shown: SweepView, arrays: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row per position of the square: its box, and the values of the maps for the class of (d)."""
    rows, columns = np.indices(shown.positions.shape)
    boxes = arrays["positions"].reshape(-1, 4)
    return pd.DataFrame(
        {"row": rows.ravel(), "column": columns.ravel()}
        | {side: boxes[:, n] for n, side in enumerate(("top", "left", "bottom", "right"))}
        | {"class": shown.class_, "class name": shown.asked.network.class_name(shown.class_)}
        | {name: shown.arrays[name].ravel() for name in ("probability", "logit", "activation", "label")}
        | {"label name": [shown.asked.network.class_name(int(label)) for label in shown.arrays["label"].ravel()]}
    )
