"""The five panels of an occlusion experiment (Zeiler & Fergus 2013, figure 7) and the legend of the label map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vizapp.media.drawing import COLOURS, categorical, contrasted, diverging, draw_box, heat
from vizapp.media.transforms import resize
from vizapp.methods.base import Panel
from vizapp.methods.output import ranks

OTHER = "#808080"
_SMALLEST_SCALE = {"logit": 1.0, "pixels": 1.0}  # one logit; of others 0.1, ten percentage points


def legend(
    labels: np.ndarray, clean: int, probabilities: np.ndarray, name_of: Callable[[int], str], true: int | None = None
) -> tuple[dict[str, Any], ...]:
    """The classes of a label map, the class of the clean picture first, then by number of cells.

    Each row has `class`, `name`, `colour` (one of `COLOURS`; classes beyond these share `OTHER`), `share` of the cells,
    `clean` (the probability for the clean picture) and `true` (whether it is the true class, None if unknown). The
    true class comes second if it is not the first, and is listed even if it has no cell.

    Args:
        labels: The label map `[h w]`.
        clean: The class of the clean picture.
        probabilities: The probabilities `[classes]` for the clean picture.
        name_of: The name of a class.
        true: The true class; None if unknown.
    """
    found, counts = np.unique(labels, return_counts=True)
    shares = dict(zip(found.tolist(), (counts / labels.size).tolist(), strict=True))
    first = list(dict.fromkeys((clean, clean if true is None else true)))
    order = [*first, *sorted((c for c in shares if c not in first), key=lambda c: -shares[c])]
    return tuple(
        {
            "class": int(class_),
            "name": name_of(class_),
            "colour": "#" + bytes(COLOURS[place]).hex() if place < len(COLOURS) else OTHER,
            "share": float(shares.get(class_, 0.0)),
            "clean": float(probabilities[class_]),
            "true": None if true is None else class_ == true,
        }
        for place, class_ in enumerate(order)
    )


def coloured(labels: np.ndarray, table: tuple[dict[str, Any], ...]) -> np.ndarray:
    """A label map `[h w]` in the colours of its legend: uint8 `[h w 3]`."""
    return categorical(ranks(labels, [row["class"] for row in table]), len(table))


def loss(arrays: dict[str, np.ndarray], view: str = "probability") -> np.ndarray:
    """How much hiding lowers a quantity, `[h w]`: above 0 where hiding hurts. `pixels` are such differences already."""
    return arrays[view] if view == "pixels" else float(arrays[f"clean_{view}"]) - arrays[view]


def full_scale(lost: np.ndarray, view: str = "probability") -> float:
    """The difference that has the full colour: the largest one, but at least ten percentage points, or one logit."""
    return max(_SMALLEST_SCALE.get(view, 0.1), float(np.abs(lost[np.isfinite(lost)]).max(initial=0)))


def ends(view: str, scale: float) -> tuple[str, str]:
    """The differences at the ends of the colours of (d), in words: where hiding helps most, and where it hurts most."""
    if view == "probability":
        return f"+{100 * scale:.0f} points", f"−{100 * scale:.0f} points"
    return f"+{scale:.2g}", f"−{scale:.2g}"


def draw_maps(
    arrays: dict[str, np.ndarray],
    table: tuple[dict[str, Any], ...],
    has_map: bool,
    view: str = "probability",
    scale: float | None = None,
) -> dict[str, np.ndarray]:
    """The maps (b) to (e) by letter, uint8 `[h w 3]` or `[H W 3]`, where they exist.

    Args:
        arrays: Those of the method's answer.
        table: The legend of (e).
        has_map: Whether there is a late map for (b).
        view: Which array (d) shows: red where hiding lowers it, white where it stays, blue where hiding raises it.
        scale: The difference that has the full colour in (d); by default `full_scale`.
    """
    found = {"b": heat(arrays["activation"])} if has_map else {}
    if "projection" in arrays:
        found["c"] = contrasted(arrays["projection"])
    lost = loss(arrays, view)
    return found | {"d": diverging(lost, scale or full_scale(lost, view)), "e": coloured(arrays["label"], table)}


def panels(
    arrays: dict[str, np.ndarray],
    table: tuple[dict[str, Any], ...],
    shown: Callable[[int, int], np.ndarray],
    class_name: str,
    map_name: str = "",
    quantity: str = "probability",
    inverse: bool = False,
) -> tuple[Panel, ...]:
    """(a) to (e), all of the size of what the network sees.

    Args:
        arrays: Those of the method's answer.
        table: The legend of (e).
        shown: The picture uint8 `[H W 3]` with the square at a row and column of the map.
        class_name: The class in question.
        map_name: The late map of (b), such as "map 3 of layer4"; empty where there is none.
        quantity: What the array `probability` is: that, or what a target measures. Of a single score there is no (e).
        inverse: Whether everything but the square is hidden. (a) is then where it is highest instead of lowest.
    """
    values = arrays["probability"]
    marked = np.unravel_index(values.argmax() if inverse else values.argmin(), values.shape)
    hidden = shown(int(marked[0]), int(marked[1]))
    height, width = hidden.shape[:2]
    box = arrays["positions"][marked]
    low, high = float(arrays["probability"].min()), float(arrays["probability"].max())
    clean, full = float(arrays["clean_probability"]), full_scale(loss(arrays))
    square, end = ("Only the square is shown", "most") if inverse else ("The square", "least")
    at, whole = (high, "in the whole photo") if inverse else (low, "without it")
    what = "hiding all but the square" if inverse else "hiding"
    if quantity == "probability":
        caption = f"(a) {square} where {class_name} is {end} probable: {100 * at:.1f} % ({100 * clean:.1f} % {whole})."
        shares = f"Probability of {class_name}, {100 * low:.1f} to {100 * high:.1f} %"
        points = f"{100 * full:.0f} points"
    else:
        end = "highest" if inverse else "lowest"
        caption = f"(a) {square} where the {quantity} is {end}: {at:.3f} ({clean:.3f} {whole})."
        shares, points = f"{quantity.capitalize()}, {low:.3f} to {high:.3f}", f"{full:.2g}"
    found = [Panel("a-occluded", draw_box(hidden, box, thickness=1), caption)]
    classes = ", ".join(row["name"] for row in table[:4]) + (" …" if len(table) > 4 else "")
    captions = {
        "b": ("b-activation", f"(b) Sum of {map_name}, dark where {what} lowers it."),
        "c": ("c-projection", "(c) Projection of that map to the pixels."),
        "d": (
            "d-probability",
            f"(d) {shares}. Red: {what} lowers it, blue: it raises it, by {points} where the colour is full.",
        ),
        "e": ("e-label", f"(e) The most probable class: {classes}."),
    }
    for letter, pixels in draw_maps(arrays, table, bool(map_name)).items():
        if letter == "e" and arrays["classes"].size == 1:
            continue
        key, caption = captions[letter]
        found.append(Panel(key, resize(pixels, height, width, "nearest"), caption))
    return tuple(found)
