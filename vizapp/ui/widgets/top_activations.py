"""Patches and projections of the top pictures of units, computed for the units on the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from vizapp.components.data import uri
from vizapp.engine.trace.sites import Site
from vizapp.gallery.reader import Gallery, TopImage, is_silent, load_crop, top_image
from vizapp.media.drawing import contrast_limit, crop_box, narrow, sheet, signed
from vizapp.media.transforms import shrink
from vizapp.methods.base import Job
from vizapp.methods.projection import ProjectionParams, revealing_rule
from vizapp.methods.top_projections import top_projections
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.ui.inputs.galleries import GalleryRequest
from vizapp.ui.session import compute
from vizapp.ui.session.compute import Keep

NINE = 9
_DECODING = "Decoding the photos"
_TOGETHER = 4  # units per backward pass: before cropping, projections are as large as the pictures
_LARGEST, _COARSE = 112, 40  # pixels of a tile on a card; smaller tiles than the second are drawn without smoothing


@dataclass(frozen=True, eq=False)
class LayerGallery:
    """One layer of a gallery: the request, the gallery as far as it is built, and the layer."""

    asked: GalleryRequest
    found: Gallery
    site: Site

    @property
    def is_whole(self) -> bool:
        """Whether all pictures were seen, so that there are projections."""
        return self.found.seen == self.found.pictures

    def key(self, what: str, channel: int) -> Key:
        """The cache key of something about a unit."""
        return (f"gallery.{what}", str(self.asked.folder), str(self.found.seen), self.site.name, str(channel))

    def keys(self, what: str, channels: Sequence[int]) -> dict[int, Key]:
        """The cache keys of something about some units, by channel."""
        return {channel: self.key(what, channel) for channel in channels}

    def seen(self, picture: int, tick: Tick | None = None) -> np.ndarray | None:
        """`load_crop` of a picture, cached: patches and projections of several units use it."""
        network, taken = self.asked.network, self.asked.collection
        key = ("gallery.seen", repr(network.preprocessing), taken.text, taken.listing, str(picture))
        return compute.remembered(
            key, lambda: load_crop(network, taken.source, picture, tick),
            lambda seen: 0 if seen is None else int(seen.nbytes),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class UnitPatches:
    """Some of a unit's top pictures, best first."""

    shown: tuple[TopImage, ...]

    @property
    def nbytes(self) -> int:
        """Approximate memory; units share the pictures."""
        return sum(item.patch.nbytes for item in self.shown) + 1000

    def pictures(self, largest: int | None = None) -> list[np.ndarray]:
        """The patches, uint8 `[h w 3]` of one size; with `largest` no side is longer than that."""
        return [shrink(item.patch, largest or math.inf) for item in self.shown]


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

        Full contrast is at the `contrast_limit` of all together. Empty surroundings are cut off (`narrow`).
        """
        values = [crop_box(*pair) for pair in zip(self.values, narrow(self.values), strict=True)] if self.values else []
        values = [made_small(one, largest) for one in values] if largest else values
        scale = contrast_limit(np.concatenate([pixels.ravel() for pixels in values])) if values else 0.0
        return [signed(pixels, scale) for pixels in values]


def made_small(values: np.ndarray, largest: int) -> np.ndarray:
    """Means over squares of float `[h w 3]`, so that no side is longer than `largest`."""
    height, width = values.shape[:2]
    side = -(-max(height, width) // largest)
    rows, columns = height // side, width // side
    return values[: rows * side, : columns * side].reshape(rows, side, columns, side, 3).mean((1, 3))


def rows_of(found: Gallery, site: str, channel: int) -> pd.DataFrame:
    """The rows of a unit to show; none for a silent unit."""
    rows = found.rows(site, channel)[:NINE]
    return rows[:0] if is_silent(found.unit(site, channel)) else rows


def load_patches(layer: LayerGallery, channels: Sequence[int]) -> dict[int, UnitPatches]:
    """The patches of some units, cached; empty where a message explains why."""

    def work(tick: Tick, missing: list[int], keep: Keep[int]) -> None:
        for number, channel in enumerate(missing):
            keep(
                channel, _patches(layer, channel, partial(_tick_within, tick, number / len(missing), 1 / len(missing)))
            )

    return compute.compute_each(layer.keys("patches", channels), work, _DECODING)


def poll_patches(layer: LayerGallery, channel: int) -> UnitPatches | None:
    """The patches of one unit, for a dialog: None while they are decoded, with the progress, or where a message says why."""
    found: UnitPatches | None = compute.poll_work(
        layer.key("patches", channel), partial(_patches, layer, channel), _DECODING
    )
    return found


def _patches(layer: LayerGallery, channel: int, tick: Tick) -> UnitPatches:
    rows = rows_of(layer.found, layer.site.name, channel)
    left = iter(range(len(rows)))

    def opened(picture: int) -> np.ndarray | None:
        done = next(left) / len(rows)
        tick(done)
        return layer.seen(picture, lambda of_this_photo: tick(done))

    return UnitPatches(tuple(top_image(layer.asked.network, layer.asked.collection.source, rows, opened)))


def load_projections(layer: LayerGallery, channels: Sequence[int]) -> dict[int, UnitProjections]:
    """The projections of the top pictures of some units, cached; empty where a message explains why."""
    network, source = layer.asked.network, layer.asked.collection.source
    params = ProjectionParams(rule=revealing_rule(network))

    def work(tick: Tick, missing: list[int], keep: Keep[int]) -> None:
        for start in range(0, len(missing), _TOGETHER):
            some = missing[start : start + _TOGETHER]
            parts = [rows_of(layer.found, layer.site.name, channel) for channel in some]
            job = Job(partial(_tick_within, tick, start / len(missing), len(some) / len(missing)))
            rows = pd.concat(parts, ignore_index=True)
            result = top_projections(network, source, rows, params, job, opened=layer.seen)
            boxes = result.arrays["field"].tolist()
            values = [crop_box(*pair, outside=0) for pair in zip(result.arrays["projection"], boxes, strict=True)]
            for channel, part in zip(some, parts, strict=True):
                keep(channel, UnitProjections(tuple(values[: len(part)]), result.facts))
                values = values[len(part) :]

    return compute.compute_each(layer.keys("down", channels), work, "Projecting", str(network.device))


def _tick_within(tick: Tick, start: float, length: float, share: float) -> None:
    """Tick with a share of a part of the work."""
    tick(start + length * share)


def cached_projections(layer: LayerGallery, channels: Sequence[int]) -> dict[int, UnitProjections]:
    """The projections that are in the cache."""
    keys = layer.keys("down", channels)
    return {channel: down for channel, key in keys.items() if (down := compute.answers().get(key)) is not None}


def drawn(layer: LayerGallery, channel: int, what: UnitPatches | UnitProjections) -> dict[str, Any]:
    """`tile_data` of the patches or projections of a unit, cached."""
    key = layer.key(type(what).__name__, channel)
    return compute.remembered(key, lambda: tile_data(what.pictures(_LARGEST)), size=lambda data: len(data["src"]))


def tile_data(tiles: Sequence[np.ndarray]) -> dict[str, Any]:
    """Data of the units component for one to nine tiles, uint8 `[h w 3]`."""
    height, width = tiles[0].shape[:2]
    columns = min(3, len(tiles))
    return {
        "src": uri(sheet(tiles, columns, gap=0)),
        "count": len(tiles),
        "grid": [-(-len(tiles) // columns), columns],
        "ratio": width / height,
        "coarse": max(height, width) < _COARSE,
    }
