"""Data of the panels component for a sweep, for the page and for reports."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vizapp.components.data import percent, ramp, signed_ramp, uri
from vizapp.media.drawing import GREY, limits, tint
from vizapp.media.transforms import shrink
from vizapp.methods.base import Result
from vizapp.methods.occlusion.occluder import Positions, filling, per_pixel, positions
from vizapp.methods.occlusion.panels import OTHER, draw_maps, ends, full_scale, loss
from vizapp.methods.occlusion.sweep import OcclusionParams, occluded
from vizapp.methods.params import build
from vizapp.methods.scores import in_words
from vizapp.report.section import View
from vizapp.zoo.labels import readable

Cell = tuple[int, int]
_KINDS = {"probability": "percent", "logit": "number", "pixels": "number"}
_STILLS = ("a-occluded", "b-activation", "c-projection", "d-probability", "e-label")


@dataclass(frozen=True)
class SweepView:
    """The view of a sweep: arrays `[h w]` (and `pixels`, `projection` `[H W …]`), the class of (d), a legend.

    Cells that are not computed yet are NaN; when there is a coarse map, they have the value of the nearest computed cell.
    `network`, `picture`: their names. `quantity`: what `probability` is.
    """

    network: str
    picture: str
    params: OcclusionParams
    quantity: str
    seen: np.ndarray
    positions: Positions
    arrays: dict[str, np.ndarray]
    class_: int
    class_name: str
    clean: float  # probability of that class without the square
    table: tuple[dict[str, Any], ...]
    map_name: str

    @property
    def true(self) -> int | None:
        """The true class, if known."""
        return next((row["class"] for row in self.table if row["true"]), None)

    def occluded(self, cell: Cell) -> np.ndarray:
        """The picture with the square at a position, `[H W 3]` uint8."""
        return occluded(self.seen, self.params, self.positions, *cell)

    @property
    def extreme(self) -> Cell:
        """The position where hiding lowers that class most; if all else is hidden, the one that keeps most of it."""
        values = self.arrays["probability"] * (-1 if self.params.inverse else 1)
        row, column = np.unravel_index(int(np.where(np.isnan(values), np.inf, values).argmin()), self.positions.shape)
        return int(row), int(column)


def views(result: Result) -> tuple[View, ...]:
    """The linked maps of a sweep over one photo, for reports."""
    asked = result.provenance
    if asked is None or asked.seen is None or "probabilities" not in result.arrays:
        return ()
    params = build(OcclusionParams, dict(asked.params), "method 'occlusion'")
    where = positions(asked.seen.shape[:2], params.size, params.stride, params.grid)
    kept = kept_class(result, int(result.arrays["class"]))
    shown = SweepView(
        asked.network, asked.picture, params, asked.quantity, asked.seen, where, class_name=asked.readable_name(kept),
        **of_class(result, kept, asked.seen),
    )  # fmt: skip
    what = "all but this place" if params.inverse else "this place"
    caption = f"(d) Red: hiding {what} lowers what is explained, blue: it raises it. A click marks a cell."
    stills = {panel.title: panel.pixels for panel in result.panels if panel.title in _STILLS}
    data = {"groups": [group(shown, "probability", shown.extreme)]}
    return (View("panels", data, caption=caption, stills=stills),)


def kept_class(result: Result, class_: int | None) -> int:
    """A class whose probabilities were kept: this one, else the true or the predicted class."""
    arrays = result.arrays
    classes = arrays["classes"].tolist()
    wanted = (class_, int(arrays["true_label"]), int(arrays["clean_label"]))
    return next(int(number) for number in wanted if number is not None and number in classes)


def of_class(result: Result, class_: int, seen: np.ndarray) -> dict[str, Any]:
    """The fields of a view of a result, for one of the classes that were kept."""
    arrays = result.arrays
    place = arrays["classes"].tolist().index(class_)
    own = {
        "probability": arrays["probabilities"][..., place], "logit": arrays["logits"][..., place],
        "label": arrays["label"], "activation": arrays["activation"],
        "clean_probability": arrays["clean_probabilities"][place], "clean_logit": arrays["clean_logits"][place],
    }  # fmt: skip
    own["pixels"] = mean_drop(float(arrays["clean_logits"][place]), own["logit"], arrays["positions"], seen)
    if "projection" in arrays:
        own["projection"] = arrays["projection"]
    named, clean = result.facts.get("map", "").split(",")[0], float(arrays["clean_probabilities"][place])
    return {"arrays": own, "class_": class_, "clean": clean, "table": result.table, "map_name": named}


def mean_drop(clean: float, logits: np.ndarray, boxes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The mean drop of the logit over the squares that cover a pixel, float32 `[H W]`."""
    return per_pixel(clean - logits.astype(np.float64), boxes, seen.shape[:2]).astype(np.float32)


def pictures(shown: SweepView, view: str, scale: float | None = None) -> dict[str, np.ndarray]:
    """The maps (b) to (e) as pictures, uint8 `[h w 3]` or `[H W 3]`, by letter; where they exist."""
    if not shown.arrays:
        return {}
    found = draw_maps(shown.arrays, shown.table, bool(shown.map_name), view, scale)
    if shown.quantity == "probability":
        found["e"][np.isnan(shown.arrays["probability"])] = GREY
    else:  # a single score has no strongest class
        found.pop("e")
    return found


def titles(shown: SweepView, view: str) -> dict[str, str]:
    """What the maps show, by letter."""
    name = shown.class_name + (", the true class" if shown.class_ == shown.true else "")
    words = {"probability": f"Probability of {name}", "logit": f"Logit of {name}", "pixels": f"Mean drop, {name}"}
    if shown.quantity != "probability":
        words["probability"] = words["logit"] = name.capitalize()
    return {
        "b": f"Activation of {shown.map_name}", "c": "Projection of that channel", "d": words[view], "e": "Most probable class"
    }  # fmt: skip


def scale_of(shown: Sequence[SweepView], view: str) -> float:
    """The difference that has the full colour in the maps (d) of all these sweeps."""
    return max((full_scale(loss(one.arrays, view), view) for one in shown if one.arrays), default=1.0)


def large(shown: SweepView, view: str, cell: Cell | None, scale: float, grid: tuple[int, int]) -> dict[str, Any]:
    """Data of the panels component for (d) alone, over the photo.

    Args:
        shown: The view of the sweep.
        view: The quantity of (d).
        cell: The marked position.
        scale: As `scale_of`.
        grid: Rows and columns of the first sweep, to which clicks belong.
    """
    data = group(shown, view, cell, scale=scale)
    over = [one for one in data["maps"] if one["letter"] == "(d)"]
    inverse = shown.params.inverse
    helps, hurts = _ends(shown, view, scale)
    unit = {"probability": "", "logit": " logits", "pixels": " logits on average"}[view]
    for one in over:
        clean = float(shown.arrays[f"clean_{'logit' if view == 'pixels' else view}"])
        whole = in_words(shown, clean) if view == "probability" else f"{clean:.2f}"
        one |= {
            "picture": uri(tint(loss(shown.arrays, view), scale)), "clean": clean,
            "ends": [f"{helps}{unit}", f"{hurts}{unit}"],
            "words": [
                "more than unhidden" if inverse else "hiding helps",
                "no change" if view == "pixels" else f"{whole} unhidden",
                "less than unhidden" if inverse else "hiding hurts",
            ],
        }  # fmt: skip
    return data | {"large": True, "title": "", "maps": over, "legend": [], "clicks": list(grid)}


def group(
    shown: SweepView,
    view: str,
    cell: Cell | None,
    coming: bool = False,
    largest: float = math.inf,
    scale: float | None = None,
) -> dict[str, Any]:
    """Data of the panels component for one sweep.

    Args:
        shown: The view of the sweep.
        view: The quantity of (d).
        cell: The chosen position.
        coming: Whether the projection is still to come.
        largest: Longest side of photo and projection in pixels.
        scale: The difference that has the full colour in (d); by default that of this sweep.
    """
    positions = shown.positions
    scale = scale or scale_of([shown], view)
    drawn = {letter: uri(shrink(pixels, largest)) for letter, pixels in pictures(shown, view, scale).items()}
    if coming and shown.map_name:
        drawn["c"] = ""
    return {
        "title": f"{shown.network} · {shown.picture}",
        "photo": uri(shrink(shown.seen, largest)),
        "photoTitle": shown.picture,
        "size": list(shown.seen.shape[:2]),
        "grid": list(positions.shape),
        "tops": list(positions.rows),
        "lefts": list(positions.columns),
        "square": [positions.height, positions.width],
        "fill": colour_of(shown.params, shown.seen),
        "inverse": shown.params.inverse,
        "cell": list(cell) if cell else None,
        "maps": [_map(shown, view, letter, drawn[letter], scale) for letter in sorted(drawn)],
        "names": {str(row["class"]): [readable(row["name"]), row["colour"]] for row in shown.table},
        "legend": legend_entries(shown.table) if shown.quantity == "probability" else [],
        "ramp": ramp(),
    }


def _map(shown: SweepView, view: str, letter: str, picture: str, scale: float) -> dict[str, Any]:
    """One of the maps for the component, with its numbers."""
    arrays, grid = shown.arrays, list(shown.positions.shape)
    data: dict[str, Any] = {"letter": f"({letter})", "title": titles(shown, view)[letter], "picture": picture}
    if letter == "c":
        return data | {"kind": "pixels"}
    name = {"b": "activation", "d": view, "e": "label"}[letter]
    values = arrays[name]
    if values.shape == shown.positions.shape:
        data["grid"] = grid
    data["values"] = base64.b64encode(values.astype("<f4").tobytes()).decode()
    kind = _KINDS[view] if shown.quantity == "probability" else "number"
    data["kind"] = {"b": "number", "d": kind, "e": "class"}[letter]
    if letter == "b":
        low, high = limits(values)  # the values of the darkest and the brightest colour
        data |= {"low": low, "high": float(np.nanmax(values)) if np.isfinite(values).any() else high}
    elif letter == "d":
        data |= {"ends": _ends(shown, view, scale), "ramp": signed_ramp()}
    return data


def _ends(shown: SweepView, view: str, scale: float) -> list[str]:
    """The ends of the colours of (d): points of a probability, or differences of another quantity."""
    is_share = view == "probability" and shown.quantity == "probability"
    return list(ends(view if is_share or view == "pixels" else "logit", scale))


def legend_entries(table: tuple[dict[str, Any], ...]) -> list[dict[str, str]]:
    """The entries of the legend of (e); classes that share the last colour share an entry."""
    own = [row for row in table if row["colour"] != OTHER]
    others = [row for row in table if row["colour"] == OTHER]
    entries = []
    for row in own:
        note = ("true class, " if row["true"] else "") + percent(row["share"])
        entries.append({"name": readable(row["name"]), "colour": row["colour"], "note": note})
    if others:
        share = sum(row["share"] for row in others)
        entries.append({"name": f"{len(others)} others", "colour": OTHER, "note": percent(share)})
    return entries


def colour_of(params: OcclusionParams, seen: np.ndarray) -> str | None:
    """The colour of the square in CSS; None if its fill is not a single colour."""
    if params.fill in ("blur", "noise"):
        return None
    red, green, blue = filling(seen[:1, :1] if params.fill != "mean" else seen, params.fill)[0, 0].tolist()
    return f"rgb({red} {green} {blue})"
