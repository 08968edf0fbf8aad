"""What a pass over a folder of photos can collect: top activations, features and predictions. One pass serves several."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vizapp.engine.statistics.top_activations import BatchStatistics, State, TopKTracker, merge_states
from vizapp.engine.trace.sites import Site, channels_first
from vizapp.zoo.network import Network

Rows = dict[str, np.ndarray]  # columns of a table with a row per photo, each `[n]` or `[n F]`
LISTED = 5  # classes of each photo


class Observation(Protocol):
    """What a collector sees of one pass: it observes the pass (`Observer`), then gets the class scores."""

    @property
    def sites(self) -> Collection[str]:
        """The names of the layers to look at."""
        ...

    def keep(self, name: str, tensor: Tensor) -> bool:
        """Reduce the activation of a layer; whether it has the expected shape."""
        ...

    def join(self, scores: Tensor | None = None) -> None:
        """Called after the pass, with the class scores `[N classes]` if the collector needs them."""
        ...

    def __len__(self) -> int:
        """The number of crops in the pass."""
        ...


Seen = TypeVar("Seen", bound=Observation)


class Collector(ABC, Generic[Seen]):
    """Something to collect in a pass. Numbers must not depend on how the photos are divided among passes and processes.

    `needs_scores`: whether `join` gets the class scores; otherwise the pass may end before them.
    """

    needs_scores = False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What its numbers depend on beside the network, the photos and the batches, as JSON."""

    @abstractmethod
    def start(self, batch: Tensor, crops: int, tick: Callable[[], None] | None) -> Seen:
        """The observation of one pass.

        Args:
            batch: Crops `[N C H W]`.
            crops: Only the first of them count; the others fill the batch up.
            tick: Called at every layer; it may raise to cancel.
        """

    @abstractmethod
    def update(self, parts: Sequence[Seen], photos: Sequence[int]) -> None:
        """Add a batch: the photos of these numbers, observed in consecutive parts. Crops beyond these photos are ignored."""

    def state(self) -> State:
        """The bounded part of what was collected so far, on the CPU, by names that no other collector uses."""
        return {}

    def load(self, state: State, device: torch.device) -> None:
        """Continue from a state."""
        del state, device

    def merge(self, states: Sequence[State]) -> State:
        """The state of several processes together."""
        return states[0]

    def take_rows(self) -> Rows:
        """Columns with a row per photo, for the photos since the last call, in their order; empty if there are none."""
        return {}


class TopActivations(Collector[BatchStatistics]):
    """The top photos and the statistics of all units of some layers."""

    def __init__(self, sites: Sequence[Site], top: int) -> None:
        self.tracker = TopKTracker(sites, top)

    def identity(self) -> dict[str, Any]:
        """Layers, and the number of photos per unit."""
        return {"sites": [site.name for site in self.tracker.sites], "top": self.tracker.top}

    def start(self, batch: Tensor, crops: int, tick: Callable[[], None] | None) -> BatchStatistics:
        """Statistics of the batch."""
        return self.tracker.start(batch, crops, tick)

    def update(self, parts: Sequence[BatchStatistics], photos: Sequence[int]) -> None:
        """Add a batch."""
        self.tracker.update(parts, torch.tensor(photos))

    def state(self) -> State:
        """See `TopKTracker.state`."""
        return self.tracker.state()

    def load(self, state: State, device: torch.device) -> None:
        """Continue from a state."""
        self.tracker.load(state, device)

    def merge(self, states: Sequence[State]) -> State:
        """The state of several processes together."""
        return merge_states(states) if len(states) > 1 else states[0]


class _SeenFeatures:
    """The features of one pass: `found[name]` `[N F]`."""

    def __init__(self, sites: Sequence[Site], size: int, cells: int | None, tick: Callable[[], None] | None) -> None:
        self.sites = {site.name: site for site in sites}
        self.found: dict[str, Tensor] = {}
        self._size, self._cells, self._tick = size, cells, tick

    def __len__(self) -> int:
        return self._size

    def keep(self, name: str, tensor: Tensor) -> bool:
        """Pool the activation."""
        site = self.sites[name]
        if tensor.ndim != site.rank or len(tensor) != self._size:
            return False
        maps = channels_first(tensor, site)
        if maps.shape[1:] != site.shape:
            return False
        # A copy where nothing is computed: a later in-place operation may overwrite the activation.
        self.found[name] = pooled(maps, self._cells).flatten(1).float().clone()
        if self._tick is not None:
            self._tick()
        return True

    def join(self, scores: Tensor | None = None) -> None:
        """Nothing is left to do."""


def pooled(maps: Tensor, cells: int | None) -> Tensor:
    """Maps `[N C h w]` averaged over a grid of `cells` × `cells`, or fewer where a side has fewer; None: as they are.

    Vectors `[N C]` are left alone. The grid is that of adaptive average pooling: its parts overlap where a side does not
    divide evenly.
    """
    if cells is None or maps.ndim != 4:
        return maps
    height, width = (min(cells, side) for side in maps.shape[2:])
    return maps.mean((2, 3)) if height == width == 1 else adaptive_avg_pool2d(maps, (height, width))


def feature_column(site: str) -> str:
    """The name of the column with the features of a layer."""
    return f"features.{site}"


class Features(Collector[_SeenFeatures]):
    """The activations of each photo at some layers, a column each (`feature_column`), float32 `[n F]`.

    `cells`: maps are averaged over a grid of `cells` × `cells` and flattened (`[C cells cells]`); None: flattened as they are.
    """

    def __init__(self, sites: Sequence[Site], cells: int | None = 1) -> None:
        self._sites, self._cells = tuple(sites), cells
        self._taken: list[dict[str, Tensor]] = []

    def identity(self) -> dict[str, Any]:
        """Layers and grid."""
        return {"features": [site.name for site in self._sites], "cells": self._cells}

    def start(self, batch: Tensor, crops: int, tick: Callable[[], None] | None) -> _SeenFeatures:
        """The features of the batch."""
        return _SeenFeatures(self._sites, len(batch), self._cells, tick)

    def update(self, parts: Sequence[_SeenFeatures], photos: Sequence[int]) -> None:
        """Add a batch."""
        joined = {name: torch.cat([part.found[name] for part in parts])[: len(photos)] for name in parts[0].found}
        self._taken.append({name: value.cpu() for name, value in joined.items()})

    def take_rows(self) -> Rows:
        """A column per layer."""
        taken, self._taken = self._taken, []
        names = [site.name for site in self._sites] if taken else []
        return {feature_column(name): torch.cat([part[name] for part in taken]).numpy() for name in names}


class _SeenScores:
    """The class scores of one pass `[N classes]`."""

    sites: Collection[str] = ()
    scores: Tensor

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def keep(self, name: str, tensor: Tensor) -> bool:
        """It looks at no layer."""
        return True

    def join(self, scores: Tensor | None = None) -> None:
        """Keep the scores."""
        assert scores is not None  # `Predictions.needs_scores`
        self.scores = scores


class Predictions(Collector[_SeenScores]):
    """The most probable classes of each photo.

    Columns: `classes` int32 `[n k]` and `probabilities` float32 `[n k]`, the k ≤ 5 most probable ones, equal ones by their
    number; `true` int32 `[n]`, the true class, or -1 if unknown; `true_probability` float32 `[n]` (NaN if unknown);
    `true_rank` int32 `[n]`, how many classes come before it (-1 if unknown). With `whole`, `every_probability` float32
    `[n classes]`.

    Args:
        network: The network.
        true: The true class of each photo of the folder, or None.
        crops: Crops per photo, whose probabilities are averaged.
        whole: Whether to keep the probabilities of all classes.
    """

    needs_scores = True

    def __init__(self, network: Network, true: Sequence[int | None], crops: int = 1, whole: bool = False) -> None:
        self._network, self._crops, self._whole = network, crops, whole
        self._true = np.array([-1 if one is None else one for one in true], np.int32)
        self._taken: list[Rows] = []

    def identity(self) -> dict[str, Any]:
        """The classes and the true class of each photo; the number of crops."""
        named = "\n".join(self._network.categories).encode("utf-8", "surrogateescape")
        true, classes = (hashlib.sha256(part).hexdigest() for part in (self._true.tobytes(), named))
        return {"predictions": self._crops, "whole": self._whole, "true": true, "classes": classes}

    def start(self, batch: Tensor, crops: int, tick: Callable[[], None] | None) -> _SeenScores:
        """The scores of the batch."""
        return _SeenScores(len(batch))

    def update(self, parts: Sequence[_SeenScores], photos: Sequence[int]) -> None:
        """Add a batch."""
        logits = torch.cat([part.scores for part in parts])[: len(photos) * self._crops]
        each = self._network.head.probabilities(logits.double())
        mean = each.unflatten(0, (len(photos), self._crops)).mean(1).cpu().numpy()  # [n classes]
        self._taken.append(class_columns(mean, self._true[list(photos)], self._whole))

    def take_rows(self) -> Rows:
        """The columns."""
        taken, self._taken = self._taken, []
        return joined_rows(taken)


def class_columns(probabilities: np.ndarray, true: np.ndarray, whole: bool = False) -> Rows:
    """The columns of `Predictions` from float64 probabilities `[n classes]` and true classes int32 `[n]`, -1 if unknown."""
    order = np.argsort(-probabilities, 1, kind="stable")[:, :LISTED]
    at, known = np.arange(len(true)), true >= 0
    own = np.where(known, probabilities[at, true], np.nan)
    before = (probabilities > own[:, None]) | (
        (probabilities == own[:, None]) & (np.arange(probabilities.shape[1]) < true[:, None])
    )
    rows = {
        "classes": order.astype(np.int32),
        "probabilities": np.take_along_axis(probabilities, order, 1).astype(np.float32),
        "true": true.astype(np.int32),
        "true_probability": own.astype(np.float32),
        "true_rank": np.where(known, before.sum(1), -1).astype(np.int32),
    }
    return rows | {"every_probability": probabilities.astype(np.float32)} if whole else rows


def joined_rows(parts: Sequence[Rows]) -> Rows:
    """Consecutive parts of a table as one; empty if there are none."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
