"""Top activations and statistics of every unit of many sites, from a stream of batches.

Activations are reduced during the pass, before any later in-place operation. Only a few values per image and channel are
kept, so memory does not grow with the number of images. On a CPU the cell of a maximum is searched only if the maximum
enters the top k, which is rare after the first batches. Elsewhere the host never waits for the device, so that it can decode
the next batch meanwhile.

Counts are integers and sums are exact (`exact_sum.py`). So several processes can share the batches, and their states merge
to the same bits in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.memory.upload import upload
from vizapp.engine.statistics.exact_sum import LARGEST, LIMBS, add_limbs, from_limbs, to_limbs
from vizapp.engine.statistics.map_reduction import reduce_maps
from vizapp.engine.statistics.reduction import Reduction, Runs, argmax_cells, is_on_cpu, topk_indices
from vizapp.engine.trace.observe import observe_together
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
        self._cells: Tensor | None = None
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
        seen = self.start(batch, pictures, tick)
        observe_together(module, module, batch, [seen], stop=True)
        seen.join()
        return seen

    def start(
        self, batch: Tensor, pictures: int | None = None, tick: Callable[[], None] | None = None
    ) -> BatchStatistics:
        """The observer of a pass over a batch `[N C H W]`, for passes that others observe as well; arguments as `observe`."""
        if not self._state:
            dtype = torch.float64 if batch.dtype == torch.float64 else torch.float32
            self.load(empty_state(self.units, self.top, dtype), batch.device)
        return BatchStatistics(self, len(batch), len(batch) if pictures is None else pictures, tick)

    def update(self, parts: Sequence[BatchStatistics], pictures: Tensor) -> None:
        """Add the images numbered `pictures` `[N]`, observed in consecutive parts.

        All at once, so that a batch split to fit into memory gives the sums of a whole one, and an interrupted batch leaves
        the state unchanged. Items of the parts beyond these images are ignored.
        """
        peaks, sums, zeros, cells = (
            (getattr(parts[0], name) if len(parts) == 1 else torch.cat([getattr(part, name) for part in parts]))
            for name in ("peaks", "sums", "zeros", "cells")
        )  # each [N U]
        if len(peaks) > len(pictures):
            peaks, sums, zeros, cells = (values[: len(pictures)] for values in (peaks, sums, zeros, cells))
        self._enter(peaks, cells, upload(pictures, peaks.device))
        self._count(peaks, sums, zeros)

    def threshold(self) -> Tensor:
        """The activation `[U]` that an image must exceed to enter the top k of each unit."""
        return self._state["values"][:, -1]

    def _enter(self, peaks: Tensor, cells: Tensor, pictures: Tensor) -> None:
        """Update the top k with images `[N]`, from their maxima and cells `[N U]`."""
        state, cells, fresh = self._state, cells.T.contiguous(), peaks.T.contiguous()
        if not is_on_cpu(cells):  # the host would wait for the device if it asked which units have a new image
            state.update(self._ranked(state, fresh, cells, pictures))
            return
        found = (cells.amax(1) >= 0).nonzero().flatten()
        if len(found):
            old = {name: state[name].index_select(0, found) for name in ("values", "pictures", "cells")}
            fresh, cells = fresh.index_select(0, found), cells.index_select(0, found)
            for name, value in self._ranked(old, fresh, cells, pictures).items():
                state[name].index_copy_(0, found, value)

    def _ranked(self, old: State, fresh: Tensor, cells: Tensor, pictures: Tensor) -> State:
        """The top k of units `[U k]` after images with maxima `fresh` and cells `[U N]`, -1 where one does not enter."""
        outside = cells < 0
        fresh = fresh.masked_fill(outside, float("-inf"))
        rows = pictures.expand(len(cells), -1).masked_fill(outside, -1)
        new = {"values": fresh, "pictures": rows, "cells": cells}
        joined = {name: torch.cat([old[name], value], 1) for name, value in new.items()}
        order = topk_indices(joined["values"], self.top)
        return {name: value.gather(1, order) for name, value in joined.items()}

    def cells_of_units(self, like: Tensor) -> Tensor:
        """The number of cells `[U]` of each unit, on the device and in the type of `like`."""
        if self._cells is None or self._cells.device != like.device or self._cells.dtype != like.dtype:
            cells = [math.prod(site.shape[1:]) for site in self.sites for _ in range(site.channels)]
            self._cells = upload(torch.tensor(cells, dtype=like.dtype), like.device)
        return self._cells

    def _count(self, maxima: Tensor, sums: Tensor, zeros: Tensor) -> None:
        """Update the statistics from values `[N U]`."""
        state, peaks, every = self._state, maxima, self.cells_of_units(zeros)
        odd = torch.zeros_like(every)
        both = torch.stack([sums.sum(0), maxima.sum(0, dtype=torch.float64)], 1)
        if not is_on_cpu(both) or not (both.abs() <= LARGEST).all():  # the host would wait for other devices' answer
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


class BatchStatistics:
    """The statistics of one pass per image and unit, `[N U]`. A layer of several operations counts with its last one.

    `peaks`: the maxima. `sums`: over the cells. `zeros`: number of zero cells. `cells`: of the maxima that enter the top k,
    -1 for others. All are known after `join`.

    Args:
        tracker: The top k and statistics so far.
        size: Number of images in the batch.
        pictures: Only the first `pictures` of them are candidates for the top k; the others fill the batch up.
        tick: Called at every site.
    """

    peaks: Tensor
    sums: Tensor
    zeros: Tensor
    cells: Tensor

    def __init__(self, tracker: TopKTracker, size: int, pictures: int, tick: Callable[[], None] | None) -> None:
        self.sites = frozenset(site.name for site in tracker.sites)
        self._tracker, self._tick, self._size, self._pictures = tracker, tick, size, pictures
        self._place = {
            site.name: (site, slice(start, start + site.channels))
            for site, start in zip(tracker.sites, tracker.starts, strict=False)
        }
        self._threshold = tracker.threshold()
        self._found: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def keep(self, name: str, tensor: Tensor) -> bool:
        """Reduce the activation of the site, without keeping it; whether it has the recorded shape."""
        site, place = self._place[name]
        if tensor.ndim != site.rank or len(tensor) != self._size:
            return False
        maps = channels_first(tensor, site)
        if maps.shape[1] != site.channels or maps.shape[2:] != site.shape[1:]:
            return False
        dtype = self._threshold.dtype
        self._found[name] = self._in_pieces(maps, place) if is_on_cpu(maps) else reduce_maps(maps, dtype)
        if self._tick is not None:
            self._tick()
        return True

    def __len__(self) -> int:
        """How many images the pass has."""
        return self._size

    def join(self, scores: Tensor | None = None) -> None:
        """Join the statistics of the sites. The class scores are not needed."""
        found = [self._found[site.name] for site in self._tracker.sites]
        self.peaks, sums, self.zeros, self.cells = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        self.sums = sums.double()
        if not is_on_cpu(self.cells):  # `reduce_maps` finds the cells of all maxima, and counts what is not zero
            self.cells.masked_fill_(~(self.peaks > self._threshold), -1)
            self.zeros = self._tracker.cells_of_units(self.zeros) - self.zeros

    def _in_pieces(self, maps: Tensor, place: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maxima, sums, numbers of zeros and cells `[N C]` of an activation on the CPU."""
        runs = Runs.of(maps)
        by_run = self._tracker.reduction(runs.values, self._threshold.dtype)
        if runs.runs == 1:
            peaks, sums, zeros = (part.view(self._size, -1).clone() for part in by_run)  # the next site overwrites them
            return peaks, sums.double(), zeros, self._find(runs, peaks, peaks, place)
        peaks, sums, zeros = (part.unflatten(0, (self._size, runs.runs)) for part in by_run)
        whole = peaks.amax(1)
        return whole, sums.sum(1, dtype=torch.float64), zeros.sum(1), self._find(runs, peaks, whole, place)

    def _find(self, maps: Runs, by_run: Tensor, peaks: Tensor, place: slice) -> Tensor:
        """The cells of the maxima `[N C]` that enter the top k, from the maxima of their runs of cells; -1 for others."""
        cells = torch.full(peaks.shape, -1)
        peaks = peaks[: self._pictures]
        enters = peaks > self._threshold[place]
        number, channel = enters.nonzero(as_tuple=True)
        top = self._tracker.top
        if len(number) > top * peaks.shape[1] and len(peaks) > top:  # except for ties, at most k of a batch can enter
            enters &= peaks >= peaks.nan_to_num(nan=float("-inf")).topk(top, 0).values[-1]
            number, channel = enters.nonzero(as_tuple=True)
        if len(number):
            cells[number, channel] = argmax_cells(maps, by_run, number, channel)
        return cells


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
