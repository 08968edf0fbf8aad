"""The maps as cards: all drawn by one rule, with their numbers and what each does not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

import numpy as np

from vizapp import references
from vizapp.media.drawing import lay_over, tint, veil
from vizapp.methods.attribution import KINDS
from vizapp.ui.inputs import images
from vizapp.ui.pages.attribution import verdict
from vizapp.ui.pages.attribution.map_runs import Found, MapsRequest
from vizapp.ui.pages.attribution.verdict import MEASURES
from vizapp.ui.session import compute, messages, state
from vizapp.ui.widgets import unit_picker
from vizapp.ui.widgets.components import component

RULE = (
    "One rule for all maps: each is divided by the 99 % quantile of its absolute values. Where a map has a sign, red speaks "
    "for it and blue against it; the other maps go from dark to bright."
)
_KEY = "attribution.cards"
_FULL, _OPACITY, _PALE = (
    0.99,
    0.85,
    0.55,
)  # quantile with full colour; opacity of that colour; share of white in the photo


@dataclass(frozen=True, eq=False)
class MapsView:
    """What the page shows: what is found so far, the kinds in order, the chosen one ("": none), and the measures."""

    asked: MapsRequest
    found: Found
    order: Sequence[str]
    chosen: str
    measures: Sequence[str]


def draw(shown: MapsView) -> None:
    """Draw a card per kind."""
    data = {
        "cards": [_card(shown, kind) for kind in shown.order], "size": list(shown.asked.network.input_size[1:]),
        "chosen": shown.chosen, "label": "Maps of the photo",
    }  # fmt: skip
    component("attributions")(
        key=_KEY, data=data, on_chosen_change=partial(unit_picker.take_click, state.KIND, _KEY, "chosen")
    )


def drawn(seen: np.ndarray, kind: str, values: np.ndarray) -> np.ndarray:
    """A map `[H W]` over the grey photo, uint8 `[H W 3]`, by the rule of this page."""
    sizes = np.abs(values[np.isfinite(values)])
    scale = float(np.quantile(sizes, _FULL)) if sizes.size else 0.0
    grey = np.repeat((seen @ np.array([0.299, 0.587, 0.114]))[:, :, None], 3, 2)
    if KINDS[kind].signed:  # paler, because red and blue are dark
        return lay_over(np.rint(_PALE * 255 + (1 - _PALE) * grey).astype(np.uint8), tint(values, scale), 1)
    return lay_over(np.rint(grey).astype(np.uint8), veil(values, 0, scale or 1), _OPACITY)


def missing(sentences: Mapping[str, str]) -> None:
    """Say which kinds are not defined for the network, and why."""
    if sentences:
        told = " ".join(f"{KINDS[kind].title}: {sentence}" for kind, sentence in sentences.items())
        messages.info(f"Not defined here. {told}")


def number(measure: str, value: float) -> str:
    """A number as the cards and the legend show it."""
    if not isfinite(value):
        return "–"
    if measure == "pointing":
        return "hit" if value else "missed"
    return (f"{value:.3g}" if abs(value) >= 10 else f"{value:.3f}").replace("-", "−")


def _card(shown: MapsView, kind: str) -> dict[str, Any]:
    asked, scores = shown.asked, shown.found.scores
    values, told = shown.found.maps.get(kind), KINDS[kind]
    rows = [name for name in shown.measures if name != "completeness" or isfinite(verdict.value(scores, kind, name))]
    sentence, good = verdict.about(scores, asked.kinds, kind, shown.measures)
    return {
        "item": kind, "title": told.title, "plain": kind in verdict.BASELINES, "waiting": "not computed yet",
        "picture": None if values is None else _picture(asked, kind, values),
        "numbers": [_number(shown, kind, measure) for measure in rows], "verdict": sentence, "good": good,
        "caution": references.split(f"{told.caution} From {told.source}."),
    }  # fmt: skip


def _picture(asked: MapsRequest, kind: str, values: np.ndarray) -> str:
    key = ("attribution.picture", *asked.map_key(kind))

    def made() -> str:
        return images.photo_uri(drawn(asked.network.seen(asked.picture), kind, values))

    return compute.remembered(key, made, size=len)


def _number(shown: MapsView, kind: str, measure: str) -> dict[str, str]:
    about, scores = MEASURES[measure], shown.found.scores
    waits = measure not in scores.get(kind, {})
    mark = "worse" if about.faithful and verdict.unbeaten(scores, kind, measure) else ""
    if verdict.best(scores, shown.asked.kinds, measure) == kind:
        mark = "best"
    value = "…" if waits else number(measure, verdict.value(scores, kind, measure))
    return {"name": about.arrow, "value": value, "hint": about.sentence, "mark": mark}
