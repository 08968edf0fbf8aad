"""The files of the page Attribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vizapp.media.captions import captioned
from vizapp.media.drawing import sheet
from vizapp.methods.attribution import KINDS
from vizapp.methods.base import Question, Result
from vizapp.methods.tables import frame_to_csv
from vizapp.ui.pages.attribution import cards, verdict
from vizapp.ui.pages.attribution.cards import MapsView
from vizapp.ui.pages.attribution.map_runs import Found
from vizapp.ui.session import downloads, forms, reports
from vizapp.ui.session.downloads import File

_ACROSS = 4
_LEAST = 160  # pixels of the width of a map


def row(shown: MapsView) -> None:
    """Draw the buttons: the grid as PNG, the numbers as CSV, maps, numbers and curves as NPZ."""
    asked, now, measures = shown.asked, shown.found, shown.measures
    kinds = [kind for kind in shown.order if kind in now.maps]
    if not kinds:
        return
    name = downloads.file_name(
        "attribution", asked.network.name, asked.unit.site, str(asked.unit.channel), asked.picture.name
    )
    seen = asked.network.seen(asked.picture)
    pictures = [captioned(seen, asked.picture.name, _LEAST)]
    drawn = {KINDS[kind].title: cards.drawn(seen, kind, now.maps[kind]) for kind in kinds}
    pictures += [captioned(pixels, title, _LEAST) for title, pixels in drawn.items()]
    empty = np.full(101, np.nan, np.float32)
    arrays = {
        "kinds": np.array(kinds), "measures": np.array(measures), "maps": np.stack([now.maps[kind] for kind in kinds]),
        "scores": np.array([[verdict.value(now.scores, kind, one) for one in measures] for kind in kinds], np.float32),
        "curves": np.stack([
            np.stack([now.curves.get(kind, {}).get(one, empty) for one in measures]) if measures else np.zeros((0, 101))
            for kind in kinds
        ]),
    }  # fmt: skip
    frame = table(now, kinds, measures)
    csv = File("Numbers CSV", f"{name}.csv", "text/csv", lambda: frame_to_csv(frame))
    _offer(shown, kinds, drawn, frame)
    downloads.row("attribution", name, {"Maps": sheet(pictures, _ACROSS, gap=4)}, arrays, [csv])


def _offer(shown: MapsView, kinds: Sequence[str], drawn: Mapping[str, np.ndarray], frame: pd.DataFrame) -> None:
    """Note for a report all maps with their numbers, and the chosen map alone."""
    asked, now = shown.asked, shown.found
    box = forms.values("trust")["box"] if "pointing" in shown.measures else ()
    rows: list[dict[str, Any]] = frame.to_dict("records")
    facts = {name: fact for known in now.facts.values() for name, fact in known.items() if name in ("rough", "caution")}
    reports.offer_drawn(
        "trust", "Attribution maps compared", drawn, rows, facts, Question(asked.network, asked.picture, unit=asked.unit),
        {"kinds": tuple(kinds), "measures": tuple(shown.measures), "seed": asked.seed, "box": box},
    )  # fmt: skip
    alone = asked.there().get(("map", shown.chosen))
    if isinstance(alone, Result):
        reports.offer(alone, KINDS[shown.chosen].title)


def table(now: Found, kinds: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """A row per map with its numbers."""
    rows = {KINDS[kind].title: [verdict.value(now.scores, kind, one) for one in measures] for kind in kinds}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(measures), dtype=float)
    return frame.rename_axis("map").reset_index()
