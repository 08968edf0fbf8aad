"""Top activations and statistics of every unit of many sites, from a stream of batches.

Activations are reduced during the pass, before any later in-place operation. Only a few values per image and channel are
kept, so memory does not grow with the number of images. The cell of a maximum is searched only if the maximum enters the
top k, which is rare after the first batches.

Counts are integers and sums are exact (`exact_sum.py`). So several processes can share the batches, and their states merge
to the same bits in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.statistics.exact_sum import LARGEST, LIMBS, add_limbs, from_limbs, to_limbs
from vizapp.engine.statistics.reduction import Reduction, Runs, argmax_cells, topk_indices
from vizapp.engine.tap import Tap, check_computed
from vizapp.engine.trace.sites import Site, channels_first

State = dict[str, Tensor]  # a row per unit: see `TopKTracker.state`

# Bins of the histogram of maxima: four per power of two, from 2^-12 to 2^12 on both sides of zero. The bin is read from the
# bits of the float, so it is exact and does not depend on the data.
_SHIFT, _LOWEST, _PER_SIDE = 21, (127 - 12) << 2, 96
BINS = 2 * _PER_SIDE + 2  # negative, around zero, positive; the last bin counts NaN


def bin_edges() -> list[float]:
    """The edges of all bins but the last (NaN), from minus to plus infinity; ±2^-12 around zero."""
    positive = [2.0 ** (i // 4 - 12) * (1 + i % 4 / 4) for i in range(_PER_SIDE)]
    return [-math.inf, *(-edge for edge in reversed(positive)), *positive, math.inf]


def histogram_bins(values: Tensor) -> Tensor:
    """The bin of each value, int64: negative by descending magnitude, |x| < 2^-12 in the middle, then positive."""
    single = values.float()
    code = single.abs().view(torch.int32).bitwise_right_shift_(_SHIFT)  # exponent and two bits of the mantissa
    step = code.sub_(_LOWEST - 1).clamp_(0, _PER_SIDE)  # 0: around zero
    place = torch.where(single < 0, -step, step).add_(_PER_SIDE)
    return place.masked_fill_(single.isnan(), BINS - 1).long()


class TopKTracker:
    """The top k images and the statistics of all units of `sites`, kept on the device of the batches.

        tracker = TopKTracker(sites, top=9)
        tracker.update([tracker.observe(module, batch)], pictures)  # for each batch
        tracker.state()

    Ties between images go to the lower number, ties between cells of an image to the first in reading order. Images must
    come in ascending order. NaN is ignored.
    """

    def __init__(self, sites: Sequence[Site], top: int) -> None:
        self.sites = tuple(sites)
        self.top = top
        self.starts = [0]
        for site in self.sites:
            self.starts.append(self.starts[-1] + site.channels)
        self._state: State = {}
        self.reduction = Reduction()

    @property
    def units(self) -> int:
        """How many units all sites have together."""
        return self.starts[-1]

    def state(self) -> State:
        """The state so far, on the CPU: one row per unit, in the order of sites and channels.

        `values` `[U k]`, -inf for free places; `pictures` and `cells` `[U k]`, -1 there; `sums` `[U 2 LIMBS]`, exact, of
        all activations and of the maxima per image; `counts` `[U 5]`: images, zero positions, images that are zero
        everywhere, images without a positive value, images with values that are not finite or too large (in neither
        sum); `histogram` `[U BINS]` of the maxima.
        """
        return {name: value.cpu() for name, value in (self._state or empty_state(self.units, self.top)).items()}

    def load(self, state: State, device: torch.device) -> None:
        """Continue from a state."""
        self._state = {name: value.to(device, copy=True) for name, value in state.items()}

    def observe(
        self, module: nn.Module, batch: Tensor, pictures: int | None = None, tick: Callable[[], None] | None = None
    ) -> BatchStatistics:
        """Reduce one batch `[N C H W]` without changing the state.

        Args:
            module: The network.
            batch: The images.
            pictures: Number of images; the others, at the end, only fill the batch up. By default all.
            tick: Called at every site.

        Raises:
            VizError: The pass does not compute one of the sites with the recorded shape.
        """
        if not self._state:
            dtype = torch.float64 if batch.dtype == torch.float64 else torch.float32
            self.load(empty_state(self.units, self.top, dtype), batch.device)
        seen = BatchStatistics(self, module, len(batch), len(batch) if pictures is None else pictures, tick)
        with torch.no_grad(), seen:
            module(batch.clone())  # the network may write into its input
        check_computed([site.name for site in self.sites], seen.kept)
        return seen

    def update(self, parts: Sequence[BatchStatistics], pictures: Tensor) -> None:
        """Add the images numbered `pictures` `[N]`, observed in consecutive parts.

        All at once, so that a batch split to fit into memory gives the sums of a whole one, and an interrupted batch leaves
        the state unchanged. Items of the parts beyond these images are ignored.
        """
        peaks, sums, zeros, cells = (
            torch.cat([getattr(part, name) for part in parts])[: len(pictures)]
            for name in ("peaks", "sums", "zeros", "cells")
        )  # each [N U]
        self._enter(peaks, cells, pictures.to(peaks.device))
        self._count(peaks, sums, zeros, parts[0].every)

    def threshold(self, place: slice) -> Tensor:
        """The activation `[C]` that an image must exceed to enter the top k of these units."""
        return self._state["values"][place, -1]

    def _enter(self, peaks: Tensor, cells: Tensor, pictures: Tensor) -> None:
        """Update the top k with images `[N]`, from their maxima and cells `[N U]`."""
        state = self._state
        found = (cells.amax(0) >= 0).nonzero().flatten()  # units with a new image
        if len(found):
            cells = cells.T.contiguous().index_select(0, found)
            fresh = peaks.T.contiguous().index_select(0, found).masked_fill_(cells < 0, float("-inf"))
            rows = pictures.expand(len(found), -1).masked_fill(cells < 0, -1)
            joined = {"values": torch.cat([state["values"].index_select(0, found), fresh], 1)}
            order = topk_indices(joined["values"], self.top)
            joined["pictures"] = torch.cat([state["pictures"].index_select(0, found), rows], 1)
            joined["cells"] = torch.cat([state["cells"].index_select(0, found), cells], 1)
            for name, value in joined.items():
                state[name].index_copy_(0, found, value.gather(1, order))

    def _count(self, maxima: Tensor, sums: Tensor, zeros: Tensor, every: Tensor) -> None:
        """Update the statistics from values `[N U]` and the number of cells `[U]` of each unit."""
        state, peaks, odd = self._state, maxima, torch.zeros_like(every)
        both = torch.stack([sums.sum(0), maxima.sum(0, dtype=torch.float64)], 1)
        if not (both.abs() <= LARGEST).all():
            wrong = ~((sums.abs() <= LARGEST) & (maxima.abs() <= LARGEST))
            sums, maxima, odd = sums.masked_fill(wrong, 0), maxima.masked_fill(wrong, 0), wrong.sum(0)
            both = torch.stack([sums.sum(0), maxima.sum(0, dtype=torch.float64)], 1)
        state["sums"] += to_limbs(both)
        # Summing comparisons as floats is several times as fast as booleans.
        count = torch.full_like(sums[0], len(peaks))
        silent = torch.eq(zeros, every, out=torch.empty_like(zeros)).sum(0)
        below = count - torch.gt(peaks, 0, out=torch.empty_like(peaks)).sum(0)  # NaN is not above zero
        state["counts"] += torch.stack([count, zeros.sum(0, dtype=torch.float64), silent, below, odd], 1).long()
        flat = histogram_bins(peaks).add_(torch.arange(0, self.units * BINS, BINS, device=peaks.device))
        one = torch.ones((), dtype=torch.int32, device=peaks.device).expand(flat.numel())
        state["histogram"].view(-1).index_add_(0, flat.flatten(), one)


def empty_state(units: int, top: int, dtype: torch.dtype = torch.float32) -> State:
    """The state before the first batch."""
    return {
        "values": torch.full((units, top), float("-inf"), dtype=dtype),
        "pictures": torch.full((units, top), -1),
        "cells": torch.full((units, top), -1),
        "sums": torch.zeros(units, 2, LIMBS, dtype=torch.int64),
        "counts": torch.zeros(units, 5, dtype=torch.int64),
        "histogram": torch.zeros(units, BINS, dtype=torch.int32),
    }


def merge_states(states: Sequence[State]) -> State:
    """Merge states of disjoint sets of images."""
    top = states[0]["values"].shape[1]
    joined = {name: torch.cat([state[name] for state in states], 1) for name in ("values", "pictures", "cells")}
    # A stable sort by activation after one by image. Free places have value -inf and come last.
    by_picture = joined["pictures"].sort(dim=1, stable=True).indices
    by_value = joined["values"].gather(1, by_picture).sort(dim=1, descending=True, stable=True).indices
    order = by_picture.gather(1, by_value)[:, :top]
    return {name: value.gather(1, order) for name, value in joined.items()} | {
        "sums": add_limbs([state["sums"] for state in states]),
        "counts": torch.stack([state["counts"] for state in states]).sum(0),
        "histogram": torch.stack([state["histogram"] for state in states]).sum(0, dtype=torch.int32),
    }


class BatchStatistics(Tap):
    """The statistics of one pass per image and unit, `[N U]`. A layer of several operations counts with its last one.

    Args:
        tracker: The top k and statistics so far.
        module: The network.
        size: Number of images in the batch.
        pictures: Only the first `pictures` of them are candidates for the top k; the others fill the batch up.
        tick: Called at every site.
    """

    def __init__(
        self, tracker: TopKTracker, module: nn.Module, size: int, pictures: int, tick: Callable[[], None] | None
    ) -> None:
        super().__init__(module, {site.name for site in tracker.sites})
        self._tracker, self._tick, self._size, self._pictures = tracker, tick, size, pictures
        self._place = {
            site.name: (site, slice(start, start + site.channels))
            for site, start in zip(tracker.sites, tracker.starts, strict=False)
        }
        state = tracker._state["values"]
        shape = (size, tracker.units)
        self.peaks = state.new_empty(shape)
        self.sums = state.new_empty(shape, dtype=torch.float64)  # over the cells
        self.zeros = state.new_empty(shape)  # number of zero cells: integers
        self.every = state.new_empty(tracker.units)  # number of cells
        self.cells = state.new_full(shape, -1, dtype=torch.int64)  # of the maximum, if it enters the top k

    def keep(self, name: str, tensor: Tensor) -> None:
        """Reduce the activation of the site, without keeping it."""
        site, place = self._place[name]
        if tensor.ndim != site.rank or len(tensor) != self._size:
            return
        maps = channels_first(tensor, site)
        if maps.shape[1] != site.channels or maps.shape[2:] != site.shape[1:]:
            return
        if name in self.kept:  # an earlier operation of the same layer
            self.cells[:, place] = -1
        self.kept[name] = tensor.new_empty(0)
        self._reduce(Runs.of(maps), place)
        if self._tick is not None:
            self._tick()

    def _reduce(self, maps: Runs, place: slice) -> None:
        peaks, sums, zeros = self._tracker.reduction(maps.values, self.peaks.dtype)
        if maps.runs == 1:
            whole = peaks, sums, zeros
        else:
            peaks, sums, zeros = (part.unflatten(0, (self._size, maps.runs)) for part in (peaks, sums, zeros))
            whole = peaks.amax(1), sums.sum(1, dtype=torch.float64), zeros.sum(1)
        for kept, found in zip((self.peaks, self.sums, self.zeros), whole, strict=True):
            kept[:, place] = found.view(self._size, -1)
        self.every[place] = maps.runs * maps.values.shape[1]
        self._find(maps, peaks, place)

    def _find(self, maps: Runs, runs: Tensor, place: slice) -> None:
        """Find the cells of the maxima that enter the top k, from the maxima `runs` of their runs of cells."""
        peaks = self.peaks[: self._pictures, place]
        enters = peaks > self._tracker.threshold(place)
        number, channel = enters.nonzero(as_tuple=True)
        top = self._tracker.top
        if len(number) > top * peaks.shape[1] and len(peaks) > top:  # except for ties, at most k of a batch can enter
            enters &= peaks >= peaks.nan_to_num(nan=float("-inf")).topk(top, 0).values[-1]
            number, channel = enters.nonzero(as_tuple=True)
        if len(number):
            self.cells[:, place][number, channel] = argmax_cells(maps, runs, number, channel)


def read_statistics(state: State, sites: Sequence[Site]) -> dict[str, np.ndarray]:
    """The statistics of a state as columns `[U]`: means over pictures and cells, fractions from 0 to 1."""
    cells = [math.prod(site.shape[1:]) for site in sites for _ in range(site.channels)]
    count = torch.tensor(cells, dtype=torch.float64)
    pictures, zeros, silent, below, odd = state["counts"].double().unbind(1)
    activations, maxima = from_limbs(state["sums"]).unbind(1)
    finite = pictures - odd
    unknown = state["histogram"][:, -1] == state["counts"][:, 0]  # NaN on all pictures
    return {
        "mean": (activations / (finite * count)).numpy(),
        "maximum": state["values"][:, 0].double().masked_fill(unknown, math.nan).numpy(),
        "mean_maximum": (maxima / finite).numpy(),
        "zero_pictures": (silent / pictures).numpy(),
        "zero_positions": (zeros / (pictures * count)).numpy(),
        "never_positive": (below / pictures).numpy(),
        "not_finite": state["counts"][:, 4].numpy(),
    }
