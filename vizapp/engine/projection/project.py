"""Projections: what in a picture excites a unit, sent down to the pixels by the rules of `rules.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import chunk_size, in_chunks
from vizapp.engine.projection.rules import Rule, Share, Signal, lifted, spread
from vizapp.engine.projection.windowed_signal import WindowedSignal, merge
from vizapp.engine.trace.recording import Recording, record
from vizapp.engine.trace.sites import Layout, Site, Unit, channels_first, site_of_all

Seed = Literal["value", "one"]
Extent = Literal["cell", "map"]


@dataclass(frozen=True)
class Certificate:
    """What lies between a unit and the pixels, and how it was sent down."""

    paper: int = 0  # rectifiers reversed by the paper's rule
    extended: int = 0  # other activations, reversed by the rectifier's rule
    differentiated: int = 0  # non-linear operations that were only differentiated
    switches: int = 0  # max pools with switches
    gates: int = 0  # gates held constant

    @property
    def nonlinearities(self) -> int:
        """All non-linear operations other than max pools and held gates."""
        return self.paper + self.extended + self.differentiated


@dataclass(frozen=True)
class Projections:
    """Some units of one site of one picture, sent down.

    `values` `[K C H W]` in the network's normalised input space, signed; `activations` `[K]` at `cells`, a (row, column)
    per unit (None for vectors).
    """

    values: Tensor
    activations: Tensor
    cells: tuple[tuple[int, int] | None, ...]
    certificate: Certificate = field(default_factory=Certificate)


def project(
    module: nn.Module,
    batch: Tensor,
    units: Sequence[Unit],
    sites: Sequence[Site],
    rule: Rule | None = None,
    seed: Seed = "value",
    extent: Extent = "cell",
    tick: Callable[[float], None] | None = None,
) -> list[Projections]:
    """The projections of some units of one site, for each picture of `batch` `[N C H W]`.

    `sites` are the network's (from `survey`). One forward pass per picture, up to the units' site; then all units go
    down together, each only on the window that it sees, as many at a time as fit into memory.

    `seed` "value" starts with the unit's activation, "one" with 1. `extent` "cell" starts at the unit's cell (the
    strongest where it has none), "map" at all cells of the channel with their activations.

    Raises:
        VizError: the units are of several sites or of none of `sites`, the pass over a picture does not produce their
            site, or it overwrites a part of an activation that it uses as a whole later.
        DoesNotFit: not even one unit's signals fit into memory.
    """
    rule = rule or Rule()
    site = site_of_all(units, sites)
    answers = []
    for number in range(len(batch)):
        tape = record(module, batch[number : number + 1], {site.name}, rule)
        answers.append(_down(tape, site, units, rule, seed, extent, batch.shape[1:], tick))
    return answers


def _down(
    tape: Recording, site: Site, units: Sequence[Unit], rule: Rule, seed: Seed, extent: Extent,
    shape: torch.Size, tick: Callable[[float], None] | None,
) -> Projections:  # fmt: skip
    value, activation = tape.values[site.name]
    maps = channels_first(activation, site.layout)[0]  # [channels h w] or [channels]
    cells = tuple(argmax_cell(maps, unit) for unit in units)
    parts: list[Tensor] = []
    certificate, peak = Certificate(), 0

    def run(part: Sequence[int]) -> Tensor:
        nonlocal certificate, peak
        started = _seed(maps, activation, site.layout, [units[i] for i in part], [cells[i] for i in part], seed, extent)
        down, certificate, widest = _walk(tape, value, started, rule)
        peak = widest // len(part)
        return down

    # The first few units show how wide their windows get (no wider than the maps); the rest go down in chunks that fit.
    widest = max(math.prod(shape) for shape in tape.shapes) * activation.element_size()
    first = range(chunk_size(3 * widest, activation.device, min(4, len(units))))
    parts += in_chunks(first, run, len(first))
    rest = range(len(first), len(units))
    best = _BEST_CHUNK.get(activation.device.type, _BEST_CHUNK["cpu"])
    size = min(chunk_size(3 * peak, activation.device), max(1, best // max(1, peak)))
    parts += in_chunks(rest, run, size, tick)
    reached = torch.stack(
        [maps[u.channel] if c is None else maps[u.channel][c] for u, c in zip(units, cells, strict=True)]
    )
    return Projections(torch.cat(parts), reached, cells, certificate)


# Bytes of the widest signal of a chunk beyond which larger chunks were slower (CPU: the caches), or gained nothing.
_BEST_CHUNK = {"cpu": 12 * 2**20, "cuda": 4 * 2**30}


def argmax_cell(maps: Tensor, unit: Unit) -> tuple[int, int] | None:
    """The unit's cell, or where its channel is strongest (ties to the first in reading order); None for vectors."""
    if maps.ndim == 1:
        return None
    if unit.cell is not None:
        return unit.cell
    index = int(maps[unit.channel].argmax())
    return index // maps.shape[2], index % maps.shape[2]


def _seed(
    maps: Tensor, activation: Tensor, layout: Layout, units: Sequence[Unit], cells: Sequence[tuple[int, int] | None],
    seed: Seed, extent: Extent,
) -> Signal:  # fmt: skip
    """The signals at the units' own site: zero but for the chosen activations."""
    k, number = len(units), torch.arange(len(units), device=maps.device)
    channel = torch.tensor([unit.channel for unit in units], device=maps.device)
    if maps.ndim == 1:
        start = maps.new_zeros(k, *activation.shape)
        start[number, 0, channel] = maps[channel] if seed == "value" else 1.0
        return start
    if extent == "map":
        whole = maps.new_zeros(k, *maps.shape)
        whole[number, channel] = maps[channel] if seed == "value" else 1.0
        return _laid_out(whole, activation, layout)
    rows = torch.tensor([cell[0] for cell in cells if cell is not None], device=maps.device)
    columns = torch.tensor([cell[1] for cell in cells if cell is not None], device=maps.device)
    amount = maps[channel, rows, columns] if seed == "value" else maps.new_ones(k)
    if layout == "chw":
        point = maps.new_zeros(k, maps.shape[0], 1, 1)
        point[number, channel, 0, 0] = amount
        return WindowedSignal(point, rows, columns).clipped(*maps.shape[1:])
    whole = maps.new_zeros(k, *maps.shape)
    whole[number, channel, rows, columns] = amount
    return _laid_out(whole, activation, layout)


def _laid_out(whole: Tensor, activation: Tensor, layout: Layout) -> Signal:
    """Signals `[K C h w]` in the axis order that the site's operation has."""
    if layout == "tokens":
        tokens = whole.flatten(2).transpose(1, 2)  # [K h·w C]
        missing = activation.shape[1] - tokens.shape[1]
        whole = torch.nn.functional.pad(tokens, (0, 0, missing, 0))
    elif layout == "hwc":
        whole = whole.permute(0, 2, 3, 1)
    return lifted(whole[:, None], tuple(activation.shape))


def _walk(tape: Recording, value: int, start: Signal, rule: Rule) -> tuple[Tensor, Certificate, int]:
    """Send signals from a value down to the picture `[K C H W]`; also the certificate, and the bytes of the widest signal."""
    signals: dict[int, Signal] = {value: start}
    counts: dict[Share, int] = {}
    peak = _bytes(start)
    for step in reversed(tape.steps):
        arriving = [signals.pop(output, None) for output in step.outputs]
        if all(signal is None for signal in arriving):
            continue
        leaving, counted = rule.down(step, arriving, tape.shapes)
        if counted is not None:
            counts[counted] = counts.get(counted, 0) + 1
        for target, signal in zip(step.inputs, leaving, strict=True):
            if signal is not None:
                peak = max(peak, _bytes(signal))
                signals[target] = _sum(signals[target], signal) if target in signals else signal
    picture = tape.shapes[0]
    if 0 not in signals:  # nothing reached the pixels: the unit does not depend on them
        units = start.units if isinstance(start, WindowedSignal) else len(start)
        like = start.values if isinstance(start, WindowedSignal) else start
        return like.new_zeros(units, *picture[1:]), Certificate(**counts), peak
    return spread(signals[0], picture)[:, 0], Certificate(**counts), peak


def _bytes(signal: Signal) -> int:
    values = signal.values if isinstance(signal, WindowedSignal) else signal
    return values.numel() * values.element_size()


def _sum(a: Signal, b: Signal) -> Signal:
    if isinstance(a, WindowedSignal) and isinstance(b, WindowedSignal):
        return merge(a, b)
    assert isinstance(a, Tensor)
    assert isinstance(b, Tensor)
    return a + b
