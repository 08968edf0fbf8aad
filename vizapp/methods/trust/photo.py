"""All measures of the maps of one photo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.chunks import DoesNotFit
from vizapp.engine.projection.project import argmax_cell
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.methods.attribution import METHOD as ATTRIBUTION
from vizapp.methods.attribution import AttributionParams
from vizapp.methods.base import Job, Question, Result
from vizapp.methods.sanity import randomised, rank_correlation
from vizapp.methods.trust.deletion import STEPS, Score, Tick, area, blurred, pixel_ranks, replacement_curve
from vizapp.methods.trust.pointing import Box, points_at
from vizapp.methods.trust.road import SHARES, combined, noise_like, removal_curves
from vizapp.zoo.network import Network, memory_format

ADD_UP = {"integrated_gradients": True, "deeplift": True, "lrp": False}  # whether to the rise above an input of zeros
_AT_ONCE = {"cpu": 8}  # photos of a pass; more are no faster, and cancelling waits for the end of one
_IMPUTED = 6  # the same for ROAD, where imputing takes as long as the pass


@dataclass(frozen=True)
class MapScores:
    """The maps of one photo, `[kinds H W]`, and what was measured of them.

    `scores`: `[kinds measures]`. `curves`: `[kinds measures 101]`. `road`: `[kinds 2 9]`. NaN where something is not defined;
    `undefined` says why, by kind or "kind, measure". `clean` and `hidden`: the scores of the photo and of the blurred photo.
    `flat`: kinds whose map is the same everywhere.
    """

    maps: np.ndarray
    scores: np.ndarray
    curves: np.ndarray
    road: np.ndarray
    undefined: dict[str, str]
    clean: float
    hidden: float
    flat: tuple[str, ...]


def with_random_weights(network: Network, seed: int) -> Network:
    """The network with the numbers of every parameter shuffled, as the sanity check does it."""
    names = [name for name, _ in network.module.named_parameters()]
    return replace(network, module=randomised(network.module, names, seed), weights=f"shuffled (seed {seed})")


def scorer(network: Network, unit: Unit) -> Score:
    """Gives the probabilities of a class, or the activations of another unit with a cell (or of a vector)."""
    site, layout = network.site(unit.site), memory_format(network.module)

    def chance(batch: Tensor) -> np.ndarray:
        with torch.no_grad():
            logits = network.scores(batch.contiguous(memory_format=layout))
        return np.asarray(network.head.probabilities(logits.double())[:, unit.channel].cpu().numpy())

    def activation(batch: Tensor) -> np.ndarray:
        maps = observe(network.module, batch.contiguous(memory_format=layout), [site])[site.name]
        return np.asarray(maps[(slice(None), unit.channel, *(unit.cell or ()))].double().cpu().numpy())

    return chance if network.heads and site == network.class_site else activation


def is_class(network: Network, unit: Unit) -> bool:
    """Whether the score of a unit is the probability of a class."""
    return bool(network.heads) and network.site(unit.site) == network.class_site


def measured(
    question: Question,
    kinds: Sequence[str],
    measures: Sequence[str],
    box: Box | None,
    seed: int,
    random: Network | None,
    tick: Tick,
) -> MapScores:
    """The maps of the question's picture and unit, and their measures.

    Args:
        question: Names network, picture and unit.
        kinds: Kinds of attribution.
        measures: Keys of measures.
        box: For "pointing".
        seed: Of the maps, of equal values and of ROAD's noise.
        random: The network with random weights, for "randomisation".
        tick: Called with the progress; it may raise to cancel.
    """
    trial = _Trial(question, seed, random)
    height, width = trial.photo.shape[2:]
    shape = (len(kinds), len(measures))
    maps = np.full((len(kinds), height, width), np.nan, np.float32)
    scores, curves = np.full(shape, np.nan), np.full((*shape, STEPS), np.nan)
    road = np.full((len(kinds), 2, len(SHARES)), np.nan)
    undefined, flat = dict[str, str](), list[str]()
    for row, kind in enumerate(kinds):
        part = _part(tick, row / len(kinds), (row + 1) / len(kinds))
        made = trial.map(question.network, kind, "", _part(part, 0, 0.1), undefined)
        if made is None:
            continue
        maps[row] = made.arrays["attribution"]
        ranks = pixel_ranks(maps[row], seed)
        if maps[row].min() == maps[row].max():
            flat.append(kind)
        for column, measure in enumerate(measures):
            piece = _part(part, 0.1 + 0.9 * column / len(measures), 0.1 + 0.9 * (column + 1) / len(measures))
            if measure in ("deletion", "insertion") and trial.rises:
                curves[row, column] = trial.curve(ranks, measure, piece)
                scores[row, column] = area(curves[row, column])
            elif measure == "road" and trial.rises:
                road[row] = trial.road(ranks, piece)
                scores[row, column] = combined(road[row])
            elif measure == "pointing":
                assert box is not None, "checked before"
                scores[row, column] = points_at(ranks, box)
            elif measure == "completeness" and kind in ADD_UP:
                scores[row, column] = trial.gap(maps[row], ADD_UP[kind])
            elif measure == "randomisation":
                scores[row, column] = trial.similarity(maps[row], kind, made.facts.get("layer", ""), piece, undefined)
            piece(1.0)
    return MapScores(maps, scores, curves, road, undefined, trial.clean, trial.hidden, tuple(flat))


class _Trial:
    """One photo with its unit: what all kinds share. `rises`: whether the clean score is above zero."""

    def __init__(self, question: Question, seed: int, random: Network | None) -> None:
        network, unit = question.network, question.require_unit()
        seen = network.crop(question.require_picture())
        self.photo, self.blurred = network.batch([seen]), network.batch([blurred(seen)])
        site = network.site(unit.site)
        maps = observe(network.module, self.photo, [site])[site.name][0]
        self.unit = replace(unit, site=site.name, cell=argmax_cell(maps, unit))
        self._question, self._seed, self._random = question, seed, random
        score = scorer(network, self.unit)
        self.clean, self.hidden = float(score(self.photo)[0]), float(score(self.blurred)[0])
        self.rises = self.clean > 0
        unit_size = 1.0 if is_class(network, self.unit) else self.clean or 1.0  # a silent unit has no scale
        self._score: Score = lambda batch: score(batch) / unit_size
        self._ends = self.clean / unit_size, self.hidden / unit_size
        self._size = network.batch_limit(_AT_ONCE.get(network.device.type, STEPS))
        self._network = network

    def map(self, network: Network, kind: str, layer: str, tick: Tick, undefined: dict[str, str]) -> Result | None:
        """The map of that kind by the method `attribution`; None with a reason in `undefined` where it is not defined."""
        asked = replace(self._question, network=network, unit=self.unit)
        params = AttributionParams(kind=kind, seed=self._seed, layer=layer)  # type: ignore[arg-type]
        try:
            return ATTRIBUTION.run(asked, params, Job(tick))
        except DoesNotFit:
            raise
        except VizError as error:
            undefined[kind if network is self._network else f"{kind}, randomisation"] = str(error)
            return None

    def curve(self, ranks: np.ndarray, measure: str, tick: Tick) -> np.ndarray:
        """The curve of deletion or insertion."""
        start, end, ends = self.photo, self.blurred, self._ends
        if measure == "insertion":
            start, end, ends = end, start, (ends[1], ends[0])
        return replacement_curve(ranks, start, end, ends, self._score, self._size, tick)

    def road(self, ranks: np.ndarray, tick: Tick) -> np.ndarray:
        """The two curves of ROAD."""
        _, std = self._network.preprocessing.constants(self.photo.device, torch.float64)
        noise = noise_like(self.photo, std, self._seed)
        return removal_curves(ranks, self.photo, noise, self._score, min(self._size, _IMPUTED), tick)

    def gap(self, values: np.ndarray, above_zeros: bool) -> float:
        """How far the sum of a map is from the unit's activation, or its rise above an input of zeros, as a share of it."""
        site = self._network.site(self.unit.site)
        place = (0, self.unit.channel, *(self.unit.cell or ()))
        photo, zeros = (
            float(observe(self._network.module, batch, [site])[site.name][place])
            for batch in (self.photo, torch.zeros_like(self.photo))
        )
        rise = photo - zeros * above_zeros
        return abs(float(values.sum(dtype=np.float64)) - rise) / abs(rise) if rise else float("nan")

    def similarity(self, values: np.ndarray, kind: str, layer: str, tick: Tick, undefined: dict[str, str]) -> float:
        """The rank correlation of the absolute values with those of the same kind, on the network with random weights."""
        assert self._random is not None, "made where it is asked for"
        other = self.map(self._random, kind, layer, tick, undefined)
        if other is None:
            return np.nan
        first, second = np.abs(values), np.abs(other.arrays["attribution"])
        for sizes, told in ((first, "map"), (second, "map on the network with shuffled parameters")):
            if sizes.min() == sizes.max():
                undefined[f"{kind}, randomisation"] = f"The {told} is {sizes.max():.3g} everywhere, so it has no ranks."
                return np.nan
        return rank_correlation(first, second)


def _part(tick: Tick, start: float, end: float) -> Callable[[float], None]:
    """Reports progress within a part of the whole."""
    return lambda share: tick(start + (end - start) * share)
