"""Descriptions of the arrays of a result, from which viewer, panel and colour map are chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vizapp.media.drawing import (
    categorical,
    contrast_limit,
    contrasted,
    diverging,
    heat,
    lay_over,
    limits,
    sheet,
    tint,
    veil,
)

Kind = Literal[
    "signed map", "support map", "signed image", "heat map", "per-class map", "label map", "images", "curves", "table"
]  # fmt: skip
# Dimensions of each kind without leading dimensions: there may be one map, or one per channel or class.
_DIMENSIONS = {
    "signed map": 2, "support map": 2, "signed image": 3, "heat map": 2, "per-class map": 3, "label map": 2, "images": 3,
}  # fmt: skip
OPACITY = 0.8  # of a map over the photo
NEAR = 0.1  # share of the largest value up to which the smallest one counts as 0
_FLAT = 208  # opacity of classes, of 255: they are opaque everywhere
TILES = 144  # most tiles of one sheet


@dataclass(frozen=True)
class Output:
    """One array of a result: its name, its kind, whether it is drawn over the photo, and what its colours mean.

    Kinds and shapes (`n`: any number of leading dimensions that count items):

    - "signed map": `[n h w]`, both signs, 0 is "no contribution"; drawn blue, white, red.
    - "support map": `[n h w]`, what speaks for a unit; drawn as a signed map if it has both signs, otherwise as a heat map from
      0, or from its lowest value if that is more than a tenth of the highest (a mean activation, as RISE's).
    - "signed image": `[n H W 3]`, both signs in the network's input space; drawn with 0 as mid-grey.
    - "heat map": `[n h w]`, from low to high; a vector `[C]` is drawn as bars.
    - "per-class map": `[classes h w]`; the array `classes`, if there is one, names the class of each row.
    - "label map": `[h w]` whole numbers, a class each.
    - "images": uint8 `[n H W 3]`.
    - "curves": `[steps]` or `[steps n]`.
    - "table": the rows of `Result.table`.

    `reading`: the sentence below it, by default, for a map over the photo, what its kind says.
    """

    array: str
    kind: Kind
    over_photo: bool = False
    title: str = ""
    reading: str = ""

    @property
    def label(self) -> str:
        """The title for showing; by default the array's name as words."""
        return self.title or self.array.replace("_", " ").capitalize()

    @property
    def is_map(self) -> bool:
        """Whether it is drawn as pictures."""
        return self.kind in _DIMENSIONS

    def items(self, values: np.ndarray) -> list[np.ndarray]:
        """The maps or pictures of the array one by one, without the leading dimensions."""
        keep = _DIMENSIONS[self.kind]
        return list(values.reshape(-1, *values.shape[values.ndim - keep :]))

    def is_signed(self, values: np.ndarray) -> bool:
        """Whether these values of a map are drawn in blue, white and red."""
        return self.kind == "signed map" or (self.kind == "support map" and bool((values < 0).any()))

    def limits(self, values: np.ndarray) -> tuple[float, float]:
        """The values at the ends of the colour map."""
        if self.is_signed(values):
            peak = contrast_limit(values) or 1.0
            return -peak, peak
        low, high = limits(values)
        from_zero = self.kind == "support map" and (low <= NEAR * high or bool((values == low).all()))
        return (0.0, high or 1.0) if from_zero else (low, high)

    def range_text(self, item: np.ndarray) -> str:
        """The range of the colours of one item, as a short text."""
        if self.kind in ("images", "label map"):
            return f"{item.shape[1]} × {item.shape[0]}"
        if self.kind == "signed image":
            peak = float(np.abs(item[np.isfinite(item)]).max(initial=0))
            return f"largest ±{peak:.3g}" if peak else "zero"
        low, high = self.limits(item)
        return f"±{high:.3g}" if self.is_signed(item) else f"{low:.3g} to {high:.3g}"

    def draw(self, values: np.ndarray) -> np.ndarray:
        """One item of the array as uint8 `[h w 3]`."""
        if self.is_signed(values):
            return diverging(values, self.limits(values)[1])
        if self.kind == "signed image":
            return contrasted(values)
        if self.kind == "label map":
            return label_colours(values, labels_by_frequency(values))
        return values if self.kind == "images" else heat(values, *self.limits(values))

    def draw_over(self, values: np.ndarray) -> np.ndarray:
        """One map to lay over the photo, uint8 `[h w 4]`: the more opaque the stronger, classes alike everywhere."""
        low, high = self.limits(values)
        if self.kind == "label map":
            return np.dstack([self.draw(values), np.full(values.shape, _FLAT, np.uint8)])
        return tint(values, high) if self.is_signed(values) else veil(values, low, high)


def contact_sheet(tiles: Sequence[np.ndarray], gap: int = 1) -> np.ndarray:
    """Small pictures of one size as one sheet, wider than high; each is enlarged to about 48 pixels."""
    enlarge = max(1, 48 // max(tiles[0].shape[:2]))
    return sheet(tiles, math.ceil(math.sqrt(len(tiles) * 1.6)), gap, enlarge=enlarge)


def in_rows(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures as one sheet, about square."""
    return sheet(tiles, math.ceil(math.sqrt(len(tiles))), gap=2)


def labels_by_frequency(labels: np.ndarray, most: int = 10) -> list[int]:
    """The most frequent values of a label map, most frequent first; at most as many as there are colours."""
    found, counts = np.unique(labels, return_counts=True)
    return [int(label) for label in found[np.argsort(-counts, kind="stable")][:most]]


def label_colours(labels: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """A label map `[h w]` as uint8 `[h w 3]`: a colour per label in `order`, grey for the others."""
    return categorical(ranks(labels, order), len(order))


def ranks(labels: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """The index of each label in `order`; `len(order)` for labels that are not in it."""
    found = np.full(labels.shape, len(order), np.int64)
    for place, label in enumerate(order):
        found[labels == label] = place
    return found


def pictures(
    outputs: Sequence[Output], arrays: Mapping[str, np.ndarray], seen: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The maps of a result as uint8 `[H W 3]` by title; with an overlay on `seen`, the crop, where it is declared."""
    found: dict[str, np.ndarray] = {}
    for output in outputs:
        values = arrays.get(output.array)
        if not output.is_map or output.kind == "per-class map" or values is None or values.ndim < 2 or not values.size:
            continue
        drawn = [output.draw(item) for item in output.items(values)[:TILES]]
        found[output.array] = drawn[0] if len(drawn) == 1 else in_rows(drawn)
        if output.over_photo and seen is not None and len(drawn) == 1:
            over = output.draw_over(output.items(values)[0])
            found[f"{output.array}-over-photo"] = lay_over(seen, over, OPACITY)
    return {"seen": seen, **found} if found and seen is not None else found
