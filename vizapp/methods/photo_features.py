"""Features of the photos of a folder and of one more photo, in the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vizapp.engine.memory.chunks import in_chunks
from vizapp.engine.trace.observe import observe_together
from vizapp.engine.trace.sites import Site, Unit
from vizapp.gallery.collectors import Collector, Features, Predictions, feature_column
from vizapp.gallery.photo_table import PhotoTable
from vizapp.media.source import Source, skipped_note
from vizapp.methods.base import Job
from vizapp.methods.collected import BATCH, folder_table
from vizapp.methods.truth import true_class
from vizapp.zoo.network import Network


def default_site(network: Network, maps: bool = False) -> Site:
    """The last hidden layer; where there is none, or with `maps`, the last feature map; else the last layer."""
    hidden = None if maps else network.last_hidden_layer()
    return hidden or network.last_feature_map() or network.sites[-1]


@dataclass(frozen=True, eq=False)
class FolderFeatures:
    """The features of a folder at one site, on disk: a row of `table` per photo that can be read.

    `cells`: as in `Features`. With pooled features (`cells` 1) of a network with classes, the table has the columns of
    `Predictions` as well: `has_answers`.
    """

    network: Network
    source: Source
    site: Site
    cells: int | None
    table: PhotoTable
    has_answers: bool

    def parts(self, by_cell: bool = False) -> Iterator[np.ndarray]:
        """Consecutive rows, float32 `[n F]`; with `by_cell` `[n C cells]`."""
        for part in self.table.parts(feature_column(self.site.name)):
            yield part.reshape(len(part), self.site.channels, -1) if by_cell else part

    def matrix(self) -> np.ndarray:
        """All rows, float32 `[n F]`."""
        return self.table.matrix(feature_column(self.site.name))

    def of_photo(self, seen: np.ndarray) -> np.ndarray:
        """The features of a crop uint8 `[H W 3]`, float32 `[F]`: those of the table if the folder has the same photo.

        Rounding depends on the size of a batch, so the photo passes through the network in as many copies as a batch of the
        folder has photos.
        """
        most = min(BATCH.get(self.network.device.type, 16), len(self.source))

        def observe(part: Sequence[int]) -> torch.Tensor:
            batch = self.network.batch([seen] * len(part))
            found = Features([self.site], self.cells).start(batch, len(part), None)
            observe_together(self.network.module, self.network.module, batch, [found], stop=True)
            return found.found[self.site.name][:1].cpu()

        copies = range(self.network.batch_limit(most))
        return np.asarray(next(in_chunks(copies, observe, len(copies)))[0].numpy())

    @property
    def unreadable(self) -> str:
        """How many photos cannot be read, and why the first cannot; empty if all can."""
        return skipped_note([row["reason"] for row in self.table.unreadable])


def folder_features(
    network: Network, source: Source, site: Site, cells: int | None, job: Job, share: tuple[float, float] = (0.0, 0.9)
) -> FolderFeatures | None:  # fmt: skip
    """The features of a folder, from the cache or by a pass; None in the processes of torchrun that are not the leader.

    Args:
        network: The network.
        source: The photos.
        site: Where.
        cells: 1: averaged over the cells, with the answers of the network from the same pass; None: as they are.
        job: Gets the progress.
        share: The progress at the beginning and at the end.

    Raises:
        VizError: as `folder_table`.
    """
    collectors: list[Collector[Any]] = [Features([site], cells)]
    answers = cells is not None and bool(network.categories and network.heads)
    if answers:
        collectors.append(Predictions(network, true_classes(network, source)))
    table, _ = folder_table(network, source, collectors, job, share)
    return None if table is None else FolderFeatures(network, source, site, cells, table, answers)


def unit_activations(network: Network, source: Source, unit: Unit, job: Job) -> np.ndarray:
    """The activation of a unit on each photo of a folder, averaged over its cells: float32 `[photos]`, NaN if unreadable."""
    found = folder_features(network, source, network.site(unit.site), 1, job)
    values = np.full(len(source), np.nan, np.float32)
    if found is not None:
        values[found.table.matrix("picture")] = found.matrix()[:, unit.channel]
    return values


def true_classes(network: Network, source: Source) -> list[int | None]:
    """The class of each photo of a folder by its label; None if the network has no such class."""
    known = {label: true_class(network, label) for label in dict.fromkeys(source.labels)}
    return [known[label] for label in source.labels]
