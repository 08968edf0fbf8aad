"""Patches and projections of the top pictures of units, computed for the units on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from vizapp.gallery.reader import Gallery, TopImage, load_crop, top_image
from vizapp.media.drawing import crop_box, sheet, signed, to_png
from vizapp.media.transforms import resize
from vizapp.methods.base import Job
from vizapp.methods.projection import ProjectionParams
from vizapp.methods.top_projections import top_projections
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.ui.inputs.images import uri
from vizapp.ui.pages.gallery.gallery_runs import GalleryRequest
from vizapp.ui.session import compute
from vizapp.ui.session.compute import Keep

NINE = 9
_TOGETHER = 4  # units per backward pass: before cropping, projections are as large as the pictures
_CONTRAST = 99.5  # percentile of the magnitudes of a unit with full contrast
_LARGEST, _COARSE = 112, 40  # pixels of a tile on a card; smaller tiles than the second are drawn without smoothing


@dataclass(frozen=True, eq=False)
class UnitPatches:
    """Some of a unit's top pictures, best first."""

    shown: tuple[TopImage, ...]

    @property
    def nbytes(self) -> int:
        """Approximate memory; units share the pictures."""
        return sum(item.patch.nbytes for item in self.shown) + 1000

    @property
    def patches(self) -> list[np.ndarray]:
        """The patches, uint8 `[h w 3]` of one size."""
        return [item.patch for item in self.shown]


@dataclass(frozen=True, eq=False)
class UnitProjections:
    """Projections cropped to the receptive field, float32 `[h w 3]` each, with the facts of the backward pass."""

    values: tuple[np.ndarray, ...]
    facts: dict[str, str]

    @property
    def nbytes(self) -> int:
        """Memory of the projections."""
        return sum(values.nbytes for values in self.values) + 1000

    def pictures(self, largest: int | None = None) -> list[np.ndarray]:
        """As uint8 pictures on one scale for the unit, zero mid-grey; with `largest` no side is much longer than that.

        Full contrast is at a high percentile of the magnitudes, because a few pixels are often far above all others.
        """
        values = [made_small(values, largest) for values in self.values] if largest else list(self.values)
        sizes = np.concatenate([np.abs(pixels[np.isfinite(pixels)]) for pixels in values]) if values else np.zeros(1)
        scale = float(np.percentile(sizes, _CONTRAST)) if len(sizes) else 0.0
        return [signed(pixels, scale or float(sizes.max(initial=0))) for pixels in values]


def made_small(values: np.ndarray, largest: int) -> np.ndarray:
    """Means over squares of float `[h w 3]`, so that no side is longer than `largest`."""
    height, width = values.shape[:2]
    side = -(-max(height, width) // largest)
    rows, columns = height // side, width // side
    return values[: rows * side, : columns * side].reshape(rows, side, columns, side, 3).mean((1, 3))


def is_silent(unit: pd.Series) -> bool:
    """Whether the unit is zero everywhere, so that its top pictures mean nothing. Scores below zero do have an order."""
    return bool(unit["dead"]) and float(unit["zero_pictures"]) == 1


def rows_of(found: Gallery, site: str, channel: int) -> pd.DataFrame:
    """The rows of a unit to show; none for a silent unit."""
    rows = found.rows(site, channel)[:NINE]
    return rows[:0] if is_silent(found.unit(site, channel)) else rows


def load_patches(asked: GalleryRequest, found: Gallery, site: str, channels: Sequence[int]) -> dict[int, UnitPatches]:
    """The patches of some units, cached; empty where a message explains why."""

    def work(tick: Tick, missing: list[int], keep: Keep[int]) -> None:
        for number, channel in enumerate(missing):
            tick(number / len(missing))
            rows = rows_of(found, site, channel)
            items = top_image(asked.network, asked.collection.source, rows, lambda picture: _seen(asked, picture))
            keep(channel, UnitPatches(tuple(items)))

    return compute.compute_each(_keys("patches", asked, found, site, channels), work, "Decoding the pictures")


def load_projections(
    asked: GalleryRequest, found: Gallery, site: str, channels: Sequence[int]
) -> dict[int, UnitProjections]:
    """The projections of the top pictures of some units, cached; empty where a message explains why."""

    def work(tick: Tick, missing: list[int], keep: Keep[int]) -> None:
        for start in range(0, len(missing), _TOGETHER):
            some = missing[start : start + _TOGETHER]
            parts = [rows_of(found, site, channel) for channel in some]
            job = Job(partial(_tick_within, tick, start / len(missing), len(some) / len(missing)))
            result = top_projections(
                asked.network, asked.collection.source, pd.concat(parts, ignore_index=True), ProjectionParams(), job,
                opened=lambda picture: _seen(asked, picture),
            )  # fmt: skip
            boxes = result.arrays["field"].tolist()
            values = [crop_box(*pair, outside=0) for pair in zip(result.arrays["projection"], boxes, strict=True)]
            for channel, part in zip(some, parts, strict=True):
                keep(channel, UnitProjections(tuple(values[: len(part)]), result.facts))
                values = values[len(part) :]

    keys = _keys("down", asked, found, site, channels)
    return compute.compute_each(keys, work, "Projecting", str(asked.network.device))


def _tick_within(tick: Tick, start: float, length: float, share: float) -> None:
    """Tick with a share of a part of the work."""
    tick(start + length * share)


def remembered(asked: GalleryRequest, found: Gallery, site: str, channels: Sequence[int]) -> dict[int, UnitProjections]:
    """The projections that are in the cache."""
    keys = _keys("down", asked, found, site, channels)
    return {channel: down for channel, key in keys.items() if (down := compute.answers().get(key)) is not None}


def _keys(what: str, asked: GalleryRequest, found: Gallery, site: str, channels: Sequence[int]) -> dict[int, Key]:
    return {channel: _key(what, asked, found, site, channel) for channel in channels}


def _key(what: str, asked: GalleryRequest, found: Gallery, site: str, channel: int) -> Key:
    return (f"gallery.{what}", str(asked.folder), str(found.seen), site, str(channel))


def _seen(asked: GalleryRequest, picture: int) -> np.ndarray | None:
    """`load_crop` of a picture, cached: patches and projections of several units use it."""
    taken = asked.collection
    key = ("gallery.seen", repr(asked.network.preprocessing), taken.text, taken.listing, str(picture))
    return compute.remembered(
        key,
        lambda: load_crop(asked.network, asked.collection.source, picture),
        size=lambda pixels: 0 if pixels is None else int(pixels.nbytes),
    )


def drawn(
    asked: GalleryRequest, found: Gallery, site: str, channel: int, what: UnitPatches | UnitProjections
) -> dict[str, Any] | None:
    """`tile_data` of patches or projections, cached; None if there are none.

    Args:
        asked: The gallery request.
        found: The gallery.
        site: The layer.
        channel: The unit.
        what: Its patches or projections.
    """
    down = isinstance(what, UnitProjections)
    if not (what.values if isinstance(what, UnitProjections) else what.shown):
        return None
    key = _key("down.drawn" if down else "patches.drawn", asked, found, site, channel)
    return compute.remembered(
        key, lambda: tile_data(what.pictures(_LARGEST) if isinstance(what, UnitProjections) else what.patches),
        size=lambda data: len(data["src"]),
    )  # fmt: skip


def tile_data(tiles: Sequence[np.ndarray]) -> dict[str, Any]:
    """Data of the units component for one to nine tiles, uint8 `[h w 3]`."""
    height, width = tiles[0].shape[:2]
    factor = _LARGEST / max(height, width)
    if factor < 1:
        small = max(1, round(height * factor)), max(1, round(width * factor))
        tiles = [resize(tile, *small, "area") for tile in tiles]
    columns = min(3, len(tiles))
    return {
        "src": uri(to_png(sheet(tiles, columns, gap=0))),
        "count": len(tiles),
        "grid": [-(-len(tiles) // columns), columns],
        "ratio": width / height,
        "coarse": max(height, width) < _COARSE,
    }
