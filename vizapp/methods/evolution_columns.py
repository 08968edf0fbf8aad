"""What one checkpoint of a series gives: its gallery's strongest photo of some units, projections, kernels and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from vizapp.engine.layers.kernels import kernels_of
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError
from vizapp.gallery.collectors import Collector, Predictions, TopActivations
from vizapp.gallery.photo_table import PhotoTable
from vizapp.gallery.reader import load_crop, top_image
from vizapp.gallery.tables import cell_boxes
from vizapp.media.drawing import crop_box
from vizapp.media.source import Source, skipped_note
from vizapp.methods.base import Job
from vizapp.methods.collected import folder_table, table_name
from vizapp.methods.filters import first_convolution
from vizapp.methods.gallery import chosen_sites
from vizapp.methods.projection import ProjectionParams
from vizapp.methods.top_projections import top_projections
from vizapp.methods.truth import true_class
from vizapp.settings import ASSETS
from vizapp.zoo.network import Network
from vizapp.zoo.series import at_checkpoint

SHIPPED = ASSETS / "strongest" / "lenet5-digits-training.npz"
_STORED = ("values", "pictures", "cells", "accuracy")
_CROPS = 256  # decoded crops that are kept for the next checkpoint


@dataclass(frozen=True, eq=False)
class Column:
    """The units after one epoch: `activation` float32 `[U]`, `picture` int64 `[U]` and `field` `[U 4]` of its strongest photo.

    `projection` (float32) and `patch` (uint8) `[h w 3]` of each unit, `paths` of the photos. `kernels` `[out in kh kw]` of the
    first convolution, if there is one. `accuracy`: of the photos whose class is known. A unit without a number on any photo
    has activation NaN and picture -1. `unreadable`: what was skipped, in words.
    """

    activation: np.ndarray
    picture: np.ndarray
    field: np.ndarray
    projection: tuple[np.ndarray, ...]
    patch: tuple[np.ndarray, ...]
    paths: tuple[str, ...]
    kernels: np.ndarray | None
    accuracy: float | None
    facts: dict[str, str]

    @property
    def nbytes(self) -> int:
        """Approximate memory."""
        kernels = 0 if self.kernels is None else self.kernels.nbytes
        return kernels + sum(one.nbytes for one in (*self.projection, *self.patch)) + 1000


class Columns:
    """Makes the columns of a series, one network at a time.

    Args:
        network: The network whose weights the checkpoints replace.
        source: The photos.
        site: The layer.
        channels: The units.
        rule: Of the projections.
    """

    def __init__(
        self, network: Network, source: Source, site: Site, channels: Sequence[int], rule: Literal["deconvnet", "guided"]
    ) -> None:  # fmt: skip
        self.network, self.source, self.site, self.channels = network, source, site, tuple(channels)
        self.classes = classes_of_photos(network, source)
        self._rule = ProjectionParams(rule=rule)
        self._opened = lru_cache(_CROPS)(partial(load_crop, network, source))

    def make(self, file: Path, tick: Callable[[float], None]) -> Column | None:
        """The column of a checkpoint; None in the processes of torchrun that are not the leader.

        Raises:
            VizError: the file is no checkpoint of this network, or no photo can be read.
        """
        network = at_checkpoint(self.network, file, tick)
        tops = top_photos(network, self.source, pass_sites(network, self.site), self.classes, Job(tick))
        if tops is None:
            return None
        rows = self._rows(tops)
        down = top_projections(
            network, self.source, rows, self._rule, Job(lambda share: tick(0.9 + 0.1 * share)), self._opened
        )
        images = top_image(network, self.source, rows, self._opened)
        at = {int(channel): place for place, channel in enumerate(rows["channel"])}
        places = [at.get(channel) for channel in self.channels]
        nothing = np.zeros((1, 1, 1), np.float32)  # of any number of channels
        return Column(
            np.array([np.nan if n is None else rows["activation"][n] for n in places], np.float32),
            np.array([-1 if n is None else rows["picture"][n] for n in places], np.int64),
            np.array([[0] * 4 if n is None else down.arrays["field"][n] for n in places], np.int64),
            tuple(nothing if n is None else _cut(down.arrays["projection"][n], images[n].box) for n in places),
            tuple(nothing.astype(np.uint8) if n is None else images[n].patch for n in places),
            tuple("" if n is None else images[n].path for n in places),
            _kernels(network),
            tops.accuracy,
            down.facts | ({"unreadable": tops.unreadable} if tops.unreadable else {}),
        )

    def _rows(self, tops: TopPhotos) -> pd.DataFrame:
        """The rows of a gallery for the units, the strongest photo of each; without units that have none."""
        before = sum(one.channels for one in pass_sites(self.network, self.site) if self._is_before(one))
        units = np.array([before + c for c in self.channels if tops.pictures[before + c] >= 0], np.int64)
        names = ("row", "column", "top", "left", "bottom", "right")
        boxes = cell_boxes(self.site, self.network.input_size[1:], tops.cells[units])
        pictures = tops.pictures[units]
        return pd.DataFrame(
            {
                "site": self.site.name,
                "channel": units - before,
                "activation": tops.values[units],
                "picture": pictures,
                "path": [self.source.path(int(n)) for n in pictures],
                "label": [self.source.labels[int(n)] for n in pictures],
            }
            | dict(zip(names, boxes, strict=True))
        )

    def _is_before(self, other: Site) -> bool:
        names = [one.name for one in self.network.sites]
        return names.index(other.name) < names.index(self.site.name)


@dataclass(frozen=True, eq=False)
class TopPhotos:
    """The strongest photo of each unit of all layers of a pass, one after the other: `values`, `pictures`, `cells` `[U]`.

    `pictures` is -1 where no activation is a number. `accuracy`: of the photos whose class is known, or None. `unreadable`:
    what was skipped, in words.
    """

    values: np.ndarray
    pictures: np.ndarray
    cells: np.ndarray
    accuracy: float | None
    unreadable: str = ""


def top_photos(
    network: Network, source: Source, sites: Sequence[Site], classes: Sequence[int | None], job: Job
) -> TopPhotos | None:
    """The strongest photo of each unit, by one pass or from what is there; None in processes that are not the leader.

    Args:
        network: The network of a checkpoint.
        source: The photos.
        sites: The layers.
        classes: The class of each photo, or None.
        job: Gets the progress.
    """
    collectors: list[Collector[Any]] = [TopActivations(sites, 1)]
    if any(one is not None for one in classes):
        collectors.append(Predictions(network, classes))
    known, name = shipped_columns(), table_name(network, source, collectors)
    if name in known["names"]:
        place = known["names"].tolist().index(name)
        values, pictures, cells, accuracy = (known[key][place] for key in _STORED)
        return TopPhotos(values, pictures, cells, float(accuracy))
    table, _ = folder_table(network, source, collectors, job, (0.02, 0.9))
    if table is None:
        return None
    state, failed = table.state(), table.unreadable
    values, pictures, cells = (state[key][:, 0].numpy() for key in _STORED[:3])
    told = skipped_note([row["reason"] for row in failed])
    return TopPhotos(values, pictures, cells, _accuracy(table) if len(collectors) > 1 else None, told)


@cache
def shipped_columns() -> dict[str, np.ndarray]:
    """What vizapp ships of the bundled series over the bundled digits, so that the first visit shows it at once.

    `names` `[epochs]` are those of the passes (`table_name`), which depend on all that the numbers depend on; `values`,
    `pictures` and `cells` `[epochs U]`, `accuracy` `[epochs]`. Written by `training/galleries.py`.
    """
    if not SHIPPED.is_file():
        return {"names": np.array([], str)}
    with np.load(SHIPPED) as stored:
        return {name: stored[name] for name in stored.files}


def classes_of_photos(network: Network, source: Source) -> list[int | None]:
    """The class of each photo, None where its label is no class of the network."""
    if not network.categories or not network.heads:
        return [None] * len(source)
    known = {label: true_class(network, label) for label in source.classes}
    return [None if label is None else known.get(label) for label in source.labels]


def pass_sites(network: Network, site: Site) -> tuple[Site, ...]:
    """The layers of one pass: those of a gallery and `site`, so that a pass serves all of them."""
    names = {one.name for one in chosen_sites(network, ())} | {site.name}
    return tuple(one for one in network.sites if one.name in names)


def _cut(projection: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """What the unit can see of a projection `[H W 3]`: zero beyond the photo; the whole where it sees more than that."""
    return np.ascontiguousarray(crop_box(projection, box, 0))


def _kernels(network: Network) -> np.ndarray | None:
    """The kernels of the first convolution, float32 `[out in kh kw]`; None without one."""
    batch = torch.zeros(1, *network.input_size, dtype=network.dtype, device=network.device)
    with suppress(VizError):
        kernels = kernels_of(network.clean.module, batch, first_convolution(network))
        return kernels.weight.float().cpu().numpy().copy()
    return None


def _accuracy(table: PhotoTable) -> float | None:
    """The share of right answers among the photos whose class is known; None if none of them could be read."""
    rows = table.frame(["true", "true_rank"])
    known = rows[rows["true"] >= 0]
    return float((known["true_rank"] == 0).mean()) if len(known) else None
