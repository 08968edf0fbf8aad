"""The five panels of an occlusion experiment (Zeiler & Fergus 2013, figure 7) and the legend of the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vizapp.media.drawing import draw_box, heat, signed
from vizapp.media.transforms import resize
from vizapp.methods.base import Panel

if TYPE_CHECKING:
    from vizapp.methods.occlusion.method import Occlusion

# Colours that people with any colour vision tell apart (Okabe & Ito 2008), and some more of other lightness.
COLOURS = (
    "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#7b5fb2", "#8c6d31", "#9edae5",
)  # fmt: skip
OTHER = "#808080"


def legend(
    labels: np.ndarray,
    clean: int,
    probabilities: np.ndarray,
    name_of: Callable[[int], str],
    true: int | None = None,
) -> tuple[dict[str, Any], ...]:
    """The classes of a label map `[h w]`, the clean one first, then by how many cells they have.

    Each with `class`, `name`, `colour` (one of `COLOURS`; all beyond them share `OTHER`), `share` of the cells, its
    `clean` probability, and whether it is the `true` class. That is second where it is not the clean one, and is there
    also without a cell.
    """
    found, counts = np.unique(labels, return_counts=True)
    shares = dict(zip(found.tolist(), (counts / labels.size).tolist(), strict=True))
    first = list(dict.fromkeys((clean, clean if true is None else true)))
    order = [*first, *sorted((c for c in shares if c not in first), key=lambda c: -shares[c])]
    return tuple(
        {
            "class": int(class_),
            "name": name_of(class_),
            "colour": COLOURS[place] if place < len(COLOURS) else OTHER,
            "share": float(shares.get(class_, 0.0)),
            "clean": float(probabilities[class_]),
            "true": class_ == true,
        }
        for place, class_ in enumerate(order)
    )


def coloured(labels: np.ndarray, table: tuple[dict[str, Any], ...]) -> np.ndarray:
    """A label map `[h w]` in the colours of its legend: uint8 `[h w 3]`."""
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    for row in table:
        pixels[labels == row["class"]] = tuple(bytes.fromhex(row["colour"][1:]))
    return pixels


def panels(work: Occlusion, arrays: dict[str, np.ndarray], table: tuple[dict[str, Any], ...]) -> tuple[Panel, ...]:
    """(a) to (e), all of the size of what the network sees."""
    height, width = work.seen.shape[:2]
    name = work.question.network.class_name(work.class_) + (" (the true class)" if work.class_ == work.true else "")
    lowest = np.unravel_index(arrays["probability"].argmin(), arrays["probability"].shape)
    box = arrays["positions"][lowest]

    def stretched(pixels: np.ndarray) -> np.ndarray:
        return resize(pixels, height, width, "nearest")

    low, high = float(arrays["probability"].min()), float(arrays["probability"].max())
    found = [
        Panel(
            "a-occluded",
            draw_box(work.shown(int(lowest[0]), int(lowest[1])), box, thickness=1),
            f"(a) The square where {name} is least probable: {100 * low:.1f} % "
            f"({100 * float(arrays['clean_probability']):.1f} % without it).",
        )
    ]
    if work.site is not None and work.channel is not None:
        caption = f"(b) Sum of map {work.channel} of {work.site.name}, dark where hiding takes it away."
        found.append(Panel("b-activation", stretched(heat(arrays["activation"])), caption))
    if "projection" in arrays:
        caption = "(c) That map, projected down to the pixels (deconvnet)."
        found.append(Panel("c-projection", signed(arrays["projection"]), caption))
    caption = f"(d) Probability of {name}, {100 * low:.1f} % (dark) to {100 * high:.1f} % (bright)."
    found.append(Panel("d-probability", stretched(heat(arrays["probability"])), caption))
    shown = ", ".join(row["name"] for row in table[:4]) + (" …" if len(table) > 4 else "")
    found.append(
        Panel("e-label", stretched(coloured(arrays["label"], table)), f"(e) The most probable class: {shown}.")
    )
    return tuple(found)
