"""The maps as cards: all drawn by one rule, with their numbers and what each does not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

import numpy as np

from vizapp import references
from vizapp.components.data import photo_uri
from vizapp.media.drawing import lay_over, tint, veil
from vizapp.methods.attribution import KINDS
from vizapp.methods.output import NEAR
from vizapp.ui.pages.attribution.map_runs import Found, MapsRequest
from vizapp.ui.pages.attribution.verdict import BASELINES, MEASURES, Verdict, value
from vizapp.ui.session import compute, messages, state
from vizapp.ui.widgets import unit_picker
from vizapp.ui.widgets.components import component

RULE = (
    "One rule for all maps: each is divided by the 99 % quantile of its absolute values, or by the largest where that quantile "
    "is 0. Where a map has a sign, red speaks for it and blue against it; the other maps go from dark to bright, from 0 on, or "
    "from their smallest value if that is more than a tenth of the largest."
)
WEAK = (
    "The blurred photo keeps more than half of the score, so blurring hardly deletes anything here: deletion and insertion do "
    "not count for the verdict."
)
_KEY = "attribution.cards"
_FULL, _OPACITY, _PALE = 0.99, 0.85, 0.55  # quantile with full colour; opacity of that; share of white in the photo


@dataclass(frozen=True, eq=False)
class MapsView:
    """What the page shows: what is found so far, the kinds in order, the chosen one ("": none), and the verdict.

    `whole`: whether the numbers of all kinds are there.
    """

    asked: MapsRequest
    found: Found
    order: Sequence[str]
    chosen: str
    verdict: Verdict
    whole: bool

    @property
    def measures(self) -> Sequence[str]:
        """The measures that are shown."""
        return self.verdict.measures


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
    finite = values[np.isfinite(values)]
    grey = np.repeat((seen @ np.array([0.299, 0.587, 0.114]))[:, :, None], 3, 2)
    if _is_signed(kind):  # paler, because red and blue are dark
        pale = np.rint(_PALE * 255 + (1 - _PALE) * grey).astype(np.uint8)
        return lay_over(pale, tint(values, _scale(np.abs(finite))), 1)
    low, high = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
    if 0 <= low <= NEAR * high:
        low = 0.0
    scale = _scale(finite - low)
    return lay_over(
        np.rint(grey).astype(np.uint8), veil(values, low, low + scale) if scale else _nothing(seen), _OPACITY
    )


def _is_signed(kind: str) -> bool:
    """Whether 0 is the middle of a map. RISE is a mean activation: its values compare with each other, not with 0."""
    return KINDS[kind].signed and kind != "rise"


def _scale(sizes: np.ndarray) -> float:
    """What has full colour: the 99 % quantile, or the largest value of a map of which less than 1 % is not 0."""
    return float(np.quantile(sizes, _FULL) or sizes.max()) if sizes.size else 0.0


def _nothing(seen: np.ndarray) -> np.ndarray:
    return np.zeros((*seen.shape[:2], 4), np.uint8)


def missing(sentences: Mapping[str, str]) -> None:
    """Say which kinds are not defined for the network, and why."""
    if sentences:
        told = " ".join(f"{KINDS[kind].title}: {sentence}" for kind, sentence in sentences.items())
        messages.info(f"Not defined here. {told}")


def number(measure: str, found: float) -> str:
    """A number as the cards and the legend show it."""
    if not isfinite(found):
        return "–"
    if measure == "pointing":
        return "hit" if found else "missed"
    return (f"{found:.3g}" if abs(found) >= 10 else f"{found:.3f}").replace("-", "−")


def _card(shown: MapsView, kind: str) -> dict[str, Any]:
    asked, scores = shown.asked, shown.found.scores
    values, told = shown.found.maps.get(kind), KINDS[kind]
    rows = [name for name in shown.measures if name != "completeness" or isfinite(value(scores, kind, name))]
    sentence, good = shown.verdict.about(kind) if shown.whole or kind in BASELINES else ("", False)
    if values is not None and not values.any():
        note = shown.found.facts.get(kind, {}).get("note", "")
        sentence, good = f"Zero everywhere, so there is nothing to show. {note}".strip(), False
    gaps = _reasons(shown, kind, rows)
    sentence = " ".join([sentence, *gaps.values()]).strip()
    return {
        "item": kind, "title": told.title, "plain": kind in BASELINES, "waiting": "not computed yet",
        "picture": None if values is None else _picture(asked, kind, values),
        "numbers": [_number(shown, kind, measure, gaps.get(measure, "")) for measure in rows], "verdict": sentence,
        "good": good,
        "caution": references.split(f"{told.caution} From {told.source}."),
    }  # fmt: skip


def _picture(asked: MapsRequest, kind: str, values: np.ndarray) -> str:
    key = ("attribution.picture", *asked.map_key(kind))

    def made() -> str:
        return photo_uri(drawn(asked.network.seen(asked.picture), kind, values))

    return compute.remembered(key, made, size=len)


def _reasons(shown: MapsView, kind: str, measures: Sequence[str]) -> dict[str, str]:
    """Why numbers of a map are not there, by measure."""
    known, facts = shown.found.scores.get(kind, {}), shown.found.facts.get(kind, {})
    absent = [name for name in measures if name in known and not isfinite(known[name])]
    told = {
        name: facts.get(f"not defined: {kind}, {name}")
        or facts.get(f"not defined: {kind}")
        or facts.get("not active", "")
        for name in absent
    }
    return {name: f"{MEASURES[name].title}: {why}" for name, why in told.items() if why}


def _number(shown: MapsView, kind: str, measure: str, why: str) -> dict[str, str]:
    about, scores, told = MEASURES[measure], shown.found.scores, shown.verdict
    waits = measure not in scores.get(kind, {})
    mark = ""
    if shown.whole:
        counts = measure in told.counted and told.unbeaten(kind, measure)
        mark = "best" if told.best(measure) == kind else "worse" if counts else ""
    shown_value = "…" if waits else number(measure, value(scores, kind, measure))
    return {"name": about.arrow, "value": shown_value, "hint": why or about.sentence, "mark": mark}
