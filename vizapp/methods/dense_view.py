"""The view under a dense map: the photo at some scale, the position of each cell in it, and the panels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vizapp.engine.fully_convolutional.conversion_plan import ConversionPlan
from vizapp.engine.fully_convolutional.tiles import DenseMap
from vizapp.media.drawing import heat, paste
from vizapp.media.stacks import shown_values
from vizapp.media.transforms import resize, shrink
from vizapp.methods.base import Panel
from vizapp.methods.output import label_colours

SHOWN = 1600  # pixels of the longer side of a panel
NAMED = 8  # classes with a colour of their own


@dataclass(frozen=True)
class View:
    """The pixels that the network gets, and their position in the photo (`scale`: pixels per photo pixel)."""

    pixels: np.ndarray
    scale: tuple[float, float] = (1.0, 1.0)
    origin: tuple[float, float] = (0.0, 0.0)
    name: str = "the photo at its own scale"

    def in_photo(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes `[... 4]` of this view in pixels of the photo, rounded."""
        corner = np.array(self.origin * 2)
        return np.rint((boxes + corner) / np.array(self.scale * 2)).astype(np.int64)


def zoomed(pixels: np.ndarray, zoom: float) -> View:
    """A resized photo uint8 `[H W 3]`."""
    if zoom == 1:
        return View(pixels)
    height, width = (max(1, round(side * zoom)) for side in pixels.shape[:2])
    scale = height / pixels.shape[0], width / pixels.shape[1]
    return View(resize(pixels, height, width), scale, name=f"the photo at {width} × {height} pixels")


def covered(boxes: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the photo over which a map is drawn: each cell around the centre of its crop."""
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2  # [h w 2]
    steps = [np.diff(centres, axis=axis)[..., axis] for axis in (0, 1)]
    half = [
        float(step.mean()) / 2 if step.size else (boxes[0, 0, 2 + i] - boxes[0, 0, i]) / 2
        for i, step in enumerate(steps)
    ]
    first, last = centres[0, 0], centres[-1, -1]
    ends = (first[0] - half[0], first[1] - half[1], last[0] + half[0], last[1] + half[1])
    return tuple(round(float(end)) for end in ends)  # type: ignore[return-value]


def panels(
    view: View,
    made: ConversionPlan,
    found: DenseMap,
    chance: np.ndarray,
    table: tuple[dict[str, object], ...],
    pyramid: list[tuple[View, DenseMap]],
    answer: str,
) -> tuple[Panel, ...]:
    """The strongest classes over the photo, the probability of the prediction, and the maps of the scales that vote.

    Args:
        view: The pixels under the map.
        made: The converted network.
        found: The dense map.
        chance: Probabilities of its scores `[K h w]`.
        table: A row per class, the most frequent first.
        pyramid: View and map of each scale that votes.
        answer: Name of the predicted class.
    """
    classes = [int(row["class"]) for row in table[:NAMED]]  # type: ignore[call-overload]
    named = ", ".join(str(row["name"]) for row in table[:NAMED])
    panels = [Panel("labels", _drawn(view, made, found, classes), f"The strongest class of each cell: {named}.")]
    top = int(found.mean.argmax())
    if top in found.classes:
        shown = heat(chance[np.flatnonzero(found.classes == top)[0]], 0, 1)
        panels.append(Panel("class", _laid(view, made, found, shown), f"Probability of {answer} at each cell."))
    for scaled, map_ in pyramid:
        size = f"{scaled.pixels.shape[1]} × {scaled.pixels.shape[0]}"
        panels.append(Panel(f"scale-{size.replace(' ', '')}", _drawn(scaled, made, map_, classes), f"{size} pixels."))
    return tuple(panels)


def _drawn(view: View, made: ConversionPlan, found: DenseMap, classes: list[int]) -> np.ndarray:
    return _laid(view, made, found, label_colours(found.label, classes))


def _laid(view: View, made: ConversionPlan, found: DenseMap, colours: np.ndarray) -> np.ndarray:
    """A map uint8 `[h w 3]` over the view, with at most `SHOWN` pixels per side."""
    zoom = min(1.0, SHOWN / max(view.pixels.shape[:2]))
    top, left, bottom, right = (round(edge * zoom) for edge in covered(found.boxes(made.size)))
    return paste(shrink(shown_values(view.pixels), SHOWN, "bilinear"), colours, (top, left, bottom, right), 0.55)
