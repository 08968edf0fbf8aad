"""One number of a layer taken apart: the sum that made it, channel by channel, and what happened to the sum afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vizapp.engine.arithmetic.kinds import is_move, is_stage, words
from vizapp.engine.arithmetic.origins import NOWHERE, Ints, Origin, Origins, Places, place_of
from vizapp.engine.arithmetic.parts import Floats, Parts, Summed, constant, no_sum, parts_of, photo
from vizapp.engine.arithmetic.stages import Stage, stage_of
from vizapp.engine.trace.recording import value_refs
from vizapp.engine.trace.sites import Unit


class Below(NamedTuple):
    """A number of the layer below: site ("": the photo; None: in no layer), channel and cell (None if it has none)."""

    site: str | None
    channel: int | None
    cell: tuple[int, int] | None
    value: float


@dataclass(frozen=True, eq=False)
class CellArithmetic:
    """How a number was computed: `total` = bias + Σ weights · patch, then `stages` up to `value`.

    `weights`, `patch` and `products` are float64 `[C kh kw]` over the channels below that take part, `contributions` `[C]`
    their sums. For a softmax, weights are the exponentials (of the logits in `patch` less the largest), products too, and
    `total` is their sum. `padded` bool `[kh kw]`: cells of padding. `below` has for each channel the cell whose product is
    largest; `cells` int `[kh kw 2]` says where the patch lies (-1: nowhere). `gate`: the second factor of a product.
    `own`: the place in the products of a softmax's own logit. `total` is the number that the pass computed, except for a
    softmax; `error` says by how much the parts miss it, divided by the sum of their sizes.
    """

    parts: Parts
    layer: str
    weights: Floats
    patch: Floats
    products: Floats
    padded: np.ndarray
    cells: Ints
    below: tuple[Below, ...]
    gate: Below | None
    own: tuple[int, ...] | None
    total: float
    value: float
    stages: tuple[Stage, ...]
    error: float

    @property
    def contributions(self) -> Floats:
        """The sum of each channel's products `[C]`."""
        return self.products.sum((1, 2))

    @property
    def shares(self) -> Floats:
        """Contributions divided by the sum of their sizes and that of the bias: from -1 to 1."""
        scale = float(np.abs(self.contributions).sum()) + abs(self.parts.bias)
        return self.contributions / (scale or 1.0)

    @property
    def order(self) -> Ints:
        """The channels, the largest contribution by size first; ties to the lower number."""
        return np.argsort(-np.nan_to_num(np.abs(self.contributions)), kind="stable")


def take_apart(origins: Origins, unit: Unit) -> CellArithmetic:
    """How the number of a unit, at its cell, was computed in a recorded pass.

    Raises:
        VizError: an operation on the way is neither a sum nor a selection nor a function of one number.
    """
    recording = origins.recording
    value = recording.values[unit.site][0]
    place = place_of(origins.sites[unit.site], unit.channel, unit.cell, origins.shape(value))
    stages, kept = list[Stage](), float(recording.numbers[value].flatten()[place])
    parts, layer = None, ""
    while parts is None:
        step = origins.step_of(value)
        number = float(recording.numbers[value].flatten()[place])
        if step is None:
            parts = photo(value, place, number)
        elif is_move(step):
            values, places = origins.moved(step, value, np.array([place]))
            if values[0] == NOWHERE:
                parts, layer = constant(number), step.name
            else:
                value, place = int(values[0]), int(places[0])
                before = float(recording.numbers[value].flatten()[place])
                if before != number and not np.isnan(number):  # a cast that rounds, or dropout that is on
                    stages.append(Stage(step.name, words(step), before, number))
        elif is_stage(step):
            summed = Summed(origins, step, value, place)
            source = next(value_refs((step.args, step.kwargs))).value
            if recording.dtypes[source].is_complex:
                raise no_sum(origins.step_of(source) or step)
            from_place = summed.broadcast(source)
            stages.append(stage_of(summed, source, from_place))
            value, place = source, from_place
        else:
            parts, layer = parts_of(origins, step, value, place), step.name
    return _arranged(origins, parts, layer, number, kept, tuple(stages[::-1]))


def _arranged(
    origins: Origins, parts: Parts, layer: str, number: float, kept: float, stages: tuple[Stage, ...]
) -> CellArithmetic:
    origin = _origin(origins, parts)
    places = origins.places(origin)
    index, shape = (np.arange(len(parts.values)), parts.grid) if parts.grid else _grid(origin, places)
    numbered = np.full(int(np.prod(shape)), -1)
    numbered[index] = np.arange(len(index))
    flat = numbered.reshape(shape[0], *_plane(shape[1:]))
    there, at = flat >= 0, flat.clip(0)
    weights, patch = (np.where(there, part[at], 0.0) for part in (parts.weights, parts.patch))
    softmax = parts.kind == "softmax"
    with np.errstate(invalid="ignore"):  # an infinite loser of a maximum, times 0
        products = weights if softmax else weights * patch
    if parts.kind == "maximum":
        products = np.where(weights == 0, 0.0, products)
    summed, size = float(products.sum()) + parts.bias, float(np.abs(products).sum()) + abs(parts.bias)
    cells = np.stack([np.where(there, part[at], -1) for part in (places.rows, places.columns)], -1)
    outside = there & ((origin.values == NOWHERE) | origin.padded)[at]
    total = summed if softmax else number
    if softmax:
        assert parts.own is not None
        stages = (_softmax_stage(parts, layer, total, number), *stages)
    own = None if parts.own is None else tuple(int(n) for n in np.unravel_index(index[parts.own], flat.shape))
    missed = abs(summed - total)
    real = there & (origin.values != NOWHERE)[at]
    strongest = np.where(real, np.abs(products), -1).reshape(len(flat), int(np.prod(flat.shape[1:]))).argmax(1).tolist()
    below = tuple(
        _one(places, int(flat[c].ravel()[strong]), float(patch[c].ravel()[strong]))
        for c, strong in enumerate(strongest)
    )
    gate = None
    if parts.gate is not None:
        its = origins.of(parts.gate[0], np.array([parts.gate[1]]))
        second = float(origins.recording.numbers[parts.gate[0]].flatten()[parts.gate[1]])
        gate = _one(origins.places(its), 0, second)
    error = missed / size if size else missed
    return CellArithmetic(
        parts, layer, weights, patch, products, outside.any(0), cells.max(0, initial=-1), below, gate, own, total, kept, stages,
        error,
    )  # fmt: skip


def _softmax_stage(parts: Parts, layer: str, total: float, number: float) -> Stage:
    assert parts.own is not None
    exponential = float(parts.weights[parts.own])
    logarithm = "log" in parts.words
    told = f"{'log of ' if logarithm else ''}{exponential:.4g} / {total:.4g}"
    return Stage(layer, told, total, number)


def _origin(origins: Origins, parts: Parts) -> Origin:
    """The origins of all parts."""
    count = len(parts.values)
    values, places, padded = np.full(count, NOWHERE), np.full(count, NOWHERE), np.zeros(count, bool)
    for value in np.unique(parts.values[parts.values != NOWHERE]).tolist():
        here = parts.values == value
        found = origins.of(value, parts.places[here])
        values[here], places[here], padded[here] = found
    return Origin(values, places, padded)


def _grid(origin: Origin, places: Places) -> tuple[Ints, tuple[int, ...]]:
    """The place of each part in `[C kh kw]`, and these sizes: by channel, then by the rows and columns that occur.

    Numbers of several layers, without a channel, or two of one cell (as after unfolding), count as a channel each.
    """
    count = len(places.sites)
    key = np.stack([places.channels, places.rows, places.columns], 1)
    several = len(np.unique(origin.values)) > 1
    if several or not count or (places.channels < 0).any() or len(np.unique(key, axis=0)) < count:
        return np.arange(count), (count, 1, 1)
    (channels, channel), (rows, row), (columns, column) = (np.unique(each, return_inverse=True) for each in key.T)
    shape = (len(channels), len(rows), len(columns))
    return np.ravel_multi_index((channel.ravel(), row.ravel(), column.ravel()), shape), shape


def _plane(kernel: Sequence[int]) -> tuple[int, int]:
    """The size of a kernel of any number of axes as rows and columns: of three axes, planes lie under each other."""
    return (1, kernel[0]) if len(kernel) == 1 else (int(np.prod(kernel[:-1])), kernel[-1])


def _one(places: Places, at: int, value: float) -> Below:
    if at < 0 or places.channels[at] < 0:
        return Below(None, None, None, value)
    cell = (int(places.rows[at]), int(places.columns[at]))
    return Below(places.sites[at], int(places.channels[at]), cell if min(cell) >= 0 else None, value)
