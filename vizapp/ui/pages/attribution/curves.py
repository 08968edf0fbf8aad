"""The photo that is deleted in the order of a map, and the curves of all maps, linked in the browser."""

from __future__ import annotations

import base64
import math
from functools import partial

import numpy as np

from vizapp.components.data import uri
from vizapp.media.drawing import COLOURS
from vizapp.methods.attribution import KINDS
from vizapp.methods.trust.deletion import STEPS, blurred, pixel_ranks, pixels_at
from vizapp.methods.trust.photo import is_class
from vizapp.ui.pages.attribution.cards import MapsView, number
from vizapp.ui.pages.attribution.map_runs import MapsRequest
from vizapp.ui.pages.attribution.verdict import BASELINES, MEASURES, value
from vizapp.ui.session import compute, messages, state
from vizapp.ui.widgets import unit_picker
from vizapp.ui.widgets.components import component

_KEY = "attribution.curves"
_COLOURS = np.delete(COLOURS, 3, 0).tolist()  # without yellow, which is pale on white


def draw(shown: MapsView, measure: str) -> None:
    """Draw the photo and the curves of a measure."""
    asked, now, order, chosen = shown.asked, shown.found, shown.order, shown.chosen
    if chosen not in now.maps:
        return
    inserts, title = measure == "insertion", KINDS[chosen].title
    known = {kind: now.curves[kind][measure] for kind in order if measure in now.curves.get(kind, {})}
    lines = [
        {
            "item": kind, "title": KINDS[kind].title, "plain": kind in BASELINES,
            "note": number(measure, value(now.scores, kind, measure)) if kind in known else "",
            "values": known[kind].tolist() if kind in known else None, "colour": _colour(shown, kind),
        }
        for kind in order
    ]  # fmt: skip
    share = is_class(asked.network, asked.unit) and asked.network.quantity == "probability"
    low = min(0.0, *(float(curve.min()) for curve in known.values()))
    high = max(float(curve.max()) for curve in known.values())
    high = min(1.0, math.ceil(10 * high) / 10) if share else high
    messages.heading(f"{MEASURES[measure].title}: drag along the curve")
    data = {
        **_pictures(asked, chosen, now.maps[chosen]), "size": list(asked.network.input_size[1:]), "inserts": inserts,
        "lines": lines, "chosen": chosen, "at": state.get(state.SHARE), "low": low, "high": high if high > low else low + 1,
        "share": share, "name": _name(asked), "label": f"{MEASURES[measure].title} in the order of {title}",
        "done": ["Shown: the" if inserts else "Blurred: the", f"of the pixels that {title} marks most."],
    }  # fmt: skip
    component("deletion")(
        key=_KEY, data=data, on_share_change=partial(unit_picker.take_click, state.SHARE, _KEY, "share"),
        on_chosen_change=partial(unit_picker.take_click, state.KIND, _KEY, "chosen"),
    )  # fmt: skip


def _colour(shown: MapsView, kind: str) -> str:
    """The colour of a kind's curve, which stays when the order changes; "" for the maps without the network."""
    kinds = [one for one in shown.asked.kinds if one not in BASELINES]
    red, green, blue = _COLOURS[kinds.index(kind) % len(_COLOURS)] if kind in kinds else (0, 0, 0)
    return f"rgb({red}, {green}, {blue})" if kind in kinds else ""


def _name(asked: MapsRequest) -> str:
    """What the curves are of."""
    if is_class(asked.network, asked.unit):
        if asked.network.quantity != "probability":
            return asked.network.quantity.capitalize()
        return f"Probability of {asked.network.readable_name(asked.unit.channel)}"
    return f"Unit {asked.unit.channel} of {asked.unit.site}, of its activation on the whole photo"


def _pictures(asked: MapsRequest, kind: str, values: np.ndarray) -> dict[str, str]:
    """The photo, the blurred photo, and when each pixel is changed."""

    def made() -> dict[str, str]:
        seen = asked.network.seen(asked.picture)
        steps = base64.b64encode(first_shares(pixel_ranks(values, asked.seed)).tobytes()).decode()
        return {"photo": uri(seen), "blurred": uri(blurred(seen)), "steps": steps}

    key = ("attribution.steps", *asked.map_key(kind))
    return compute.remembered(key, made, size=lambda found: sum(map(len, found.values())))


def first_shares(ranks: np.ndarray) -> np.ndarray:
    """Of pixels with these ranks `[H W]` the first share in percent at which each is replaced: uint8 `[H W]`."""
    counts = [pixels_at(share, ranks.size) for share in range(STEPS)]
    return np.searchsorted(counts, ranks, side="right").astype(np.uint8)
