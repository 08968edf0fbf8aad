"""Read a gallery: its sites, the rows and statistics of a unit, and the pictures that they refer to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vizapp.engine.statistics.top_activations import bin_edges
from vizapp.errors import VizError, nearest, quoted
from vizapp.files import local_path
from vizapp.gallery import shipped
from vizapp.gallery.store import EARLIER, MANIFEST, WORK, read_manifest, read_rows, read_units
from vizapp.media.drawing import crop_box, draw_box, exceeds
from vizapp.media.source import Source
from vizapp.media.stacks import shown_values
from vizapp.settings import settings
from vizapp.zoo.network import Network

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Gallery:
    """A gallery, complete or still being built.

    `units`: a row per unit (`docs/gallery.md`). `seen`: number of pictures processed so far.
    """

    folder: Path
    manifest: dict[str, Any]
    units: pd.DataFrame
    _rows: dict[str, pd.DataFrame] = field(repr=False)
    seen: int = 0

    @property
    def sites(self) -> list[str]:
        """The names of its layers, in execution order."""
        return [site["name"] for site in self.manifest["sites"]]

    @property
    def pictures(self) -> int:
        """Number of pictures in the data set."""
        return int(self.manifest["data"]["pictures"])

    @property
    def top(self) -> int:
        """Maximum number of top pictures per unit."""
        return int(self.manifest["top"])

    @property
    def unreadable(self) -> list[dict[str, Any]]:
        """`picture`, `path` and `reason` of each unreadable picture."""
        return list(self.manifest["unreadable"])

    def rows(self, site: str, channel: int | None = None) -> pd.DataFrame:
        """The rows of a layer or of one of its units, best first.

        Raises:
            VizError: the gallery has no such layer or unit.
        """
        self._check_site(site)
        if site not in self._rows:
            file = next(entry["file"] for entry in self.manifest["sites"] if entry["name"] == site)
            self._rows[site] = read_rows(self.folder, file, self.manifest)
        table = self._rows[site]
        if channel is None:
            return table
        self.unit(site, channel)
        return table[table["channel"] == channel].reset_index(drop=True)

    def units_of(self, site: str) -> pd.DataFrame:
        """The statistics of a layer's units, a row per channel."""
        return self.units[self.units["site"] == site].reset_index(drop=True)

    def unit(self, site: str, channel: int) -> pd.Series:
        """The statistics of one unit.

        Raises:
            VizError: the gallery has no such unit.
        """
        self._check_site(site)
        table = self.units_of(site)
        if not 0 <= channel < len(table):
            raise VizError(
                f"Layer {site!r} of the gallery has channels 0 to {len(table) - 1}, not {quoted(channel)}.",
                code="no-such-channel",
            )
        return table.iloc[channel]

    def _check_site(self, site: str) -> None:
        if site not in self.sites:
            raise VizError(f"The gallery has no layer {site!r}.{nearest(site, self.sites)}", code="no-such-layer")

    def histogram(self, site: str, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """Edges `[n + 1]` and counts `[n]` of the pictures' maxima, without empty bins at both ends.

        Four bins per power of two. The bin around zero is ±2^-12, the outermost bins are open.
        """
        counts = np.asarray(self.unit(site, channel)["histogram"])[:-1]
        edges = np.array(bin_edges())
        filled = np.flatnonzero(counts)
        if len(filled) == 0:
            return np.zeros(1), np.zeros(0, np.int64)
        first, last = filled[0], filled[-1] + 1
        return edges[first : last + 1], counts[first:last].astype(np.int64)

    def classes(self, site: str, channel: int) -> dict[str, int]:
        """Number of the unit's top pictures in each class, most frequent first."""
        labels = self.rows(site, channel)["label"].dropna()
        return dict(sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True, eq=False)
class TopImage:
    """One of a unit's top pictures: the network's crop `seen`, `[H W 3]`, and the unit's receptive field in it, `box`."""

    seen: np.ndarray
    box: Box
    path: str
    label: str | None
    activation: float

    @cached_property
    def patch(self) -> np.ndarray:
        """The crop to `box`, grey outside of the picture; if `box` is larger than the picture, `framed`."""
        return self.framed if exceeds(self.box, self.seen.shape) else crop_box(self.seen, self.box)

    @property
    def framed(self) -> np.ndarray:
        """The whole picture with a frame around the receptive field."""
        return draw_box(self.seen, self.box, thickness=max(1, round(len(self.seen) / 75)))


def is_silent(units: Any) -> Any:
    """Whether a unit, or each of some, is zero everywhere, so that its top pictures mean nothing.

    Scores below zero do have an order.
    """
    return units["dead"] & (units["zero_pictures"] == 1)


def top_image(
    network: Network, source: Source, rows: pd.DataFrame, opened: Callable[[int], np.ndarray | None] | None = None
) -> list[TopImage]:
    """Decode the pictures of some rows. All patches of a unit have the same size.

    `opened` returns `load_crop` of a picture, for callers with a cache. Unreadable pictures are grey.

    Raises:
        VizError: the rows are not about these pictures.
    """
    check_pictures(source, rows)
    found = []
    for row in rows.itertuples():
        box = (int(row.top), int(row.left), int(row.bottom), int(row.right))
        seen = opened(int(row.picture)) if opened else load_crop(network, source, int(row.picture))
        seen = np.full((*network.input_size[1:], 3), 128, np.uint8) if seen is None else shown_values(seen)
        label = row.label if isinstance(row.label, str) else None
        found.append(TopImage(seen, box, str(row.path), label, float(row.activation)))
    return found


def load_crop(
    network: Network, source: Source, picture: int, tick: Callable[[float], None] | None = None
) -> np.ndarray | None:
    """The network's crop of a picture, as `Network.crop` gives it; None if it can no longer be read. `tick` may raise."""
    try:
        return network.crop(source.open(picture, tick))
    except VizError:
        return None


def check_pictures(source: Source, rows: pd.DataFrame) -> None:
    """Check that the pictures of some rows have the same numbers in `source` as when the gallery was built.

    Raises:
        VizError: they have not.
    """
    for picture, path in zip(rows["picture"], rows["path"], strict=True):
        there = source.path(int(picture)) if picture < len(source) else "no photo"
        if there != path:
            raise VizError(
                f"Photo {picture} of the gallery is {path}, but {source.name} has {there} there; open the photos that "
                "the gallery was built of, or build it again.",
                code="other-pictures",
            )


def open_gallery(folder: str | Path) -> Gallery:
    """The gallery in a folder.

    Raises:
        VizError: there is none, or it is unfinished or damaged.
    """
    place = local_path(folder, "gallery")
    manifest = read_manifest(place)
    if manifest is None:
        try:
            begun = (place / WORK).exists()
        except (OSError, ValueError) as error:  # not a valid folder name
            raise VizError(
                f"The gallery's folder cannot be read: {getattr(error, 'strerror', None) or error}.", code="unreadable"
            ) from None
        if begun:
            raise VizError(
                f"The gallery in {place} is unfinished; run the same command to resume it.", code="gallery-unfinished"
            )
        if read_manifest(place, EARLIER) is not None:
            raise VizError(
                f"The gallery in {place} was built by an earlier version, which could miss top photos; run the same "
                "command to build it again.",
                code="gallery-outdated",
            )
        if (place / MANIFEST).exists():
            raise VizError(
                f"{MANIFEST} of the gallery in {place} is damaged or of another version; build it again.",
                code="gallery-damaged",
            )
        raise VizError(
            f"There is no gallery in {place}; 'python -m vizapp gallery --out {place} …' makes one.", code="no-gallery"
        )
    return Gallery(place, manifest, read_units(place, manifest), {}, int(manifest["data"]["pictures"]))


def find_galleries(network: Network) -> list[Path]:
    """The folders with a complete gallery of this network, in the cache or shipped, largest first."""
    found = []
    folders = (settings().cache / "galleries", shipped.FOLDER)
    for manifest in (path for folder in folders for path in sorted(folder.glob(f"*/{MANIFEST}"))):
        read = read_manifest(manifest.parent)
        if read is not None and read["network"]["digest"] == network.digest:
            found.append((int(read["data"]["pictures"]), manifest.parent))
    return [folder for _, folder in sorted(found, key=lambda pair: -pair[0])]
