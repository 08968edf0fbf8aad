"""Projections: the pixels of a picture that excite a unit, found by sending a signal back with one of the rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import chunk_size, in_chunks
from vizapp.engine.projection.rules import Deconvnet, Rule
from vizapp.engine.projection.windowed_signal import (
    Signal,
    WindowedSignal,
    added,
    as_dtype,
    as_signal,
    as_tensor,
    map_values,
)  # fmt: skip
from vizapp.engine.trace.recording import Recording, record
from vizapp.engine.trace.sites import Site, Unit, as_laid_out, channels_first, site_of_all
from vizapp.errors import VizError

Answer = TypeVar("Answer")
Seed = Literal["value", "one"]
Extent = Literal["cell", "map"]


@dataclass(frozen=True)
class Certificate:
    """How many operations of each kind lie between a unit and the pixels, by how the signal passed them."""

    paper: int = 0  # rectifiers, by the rule of the paper
    extended: int = 0  # other activations, by the rule for rectifiers
    differentiated: int = 0  # non-linear operations, by their true derivative
    switches: int = 0  # max pools with switches
    gates: int = 0  # gates held constant
    custom: int = 0  # custom autograd functions, by their own backward pass
    detached: int = 0  # operations at which autograd would stop (detach, no_grad), and which the signal passes

    @property
    def nonlinearities(self) -> int:
        """All non-linear operations except max pools and gates held constant."""
        return self.paper + self.extended + self.differentiated + self.custom


@dataclass(frozen=True)
class Projections:
    """The projections of some units of one site, for one picture.

    `values` `[K C H W]` in the network's normalised input space, signed, in the type of the network (float32 for
    float16). `activations` `[K]` at `cells`, a (row, column) per unit (None for vectors). Where no signal of a single unit
    reaches the pixels, `ends` are the operations that it does not pass: "start" (it is zero from the start), "rectifier",
    or the name of a function.
    """

    values: Tensor
    activations: Tensor
    cells: tuple[tuple[int, int] | None, ...]
    certificate: Certificate = field(default_factory=Certificate)
    ends: frozenset[str] = frozenset()


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
    """The projections of some units of one site, for each picture of a batch.

    There is one forward pass per picture, up to the site. Then all units go back together, each on the window that it
    sees, as many at a time as fit into memory.

    Args:
        module: The network, in evaluation mode.
        batch: Pictures `[N C H W]`, normalised as the network expects them.
        units: Units of one site.
        sites: All sites of the network, from `survey`.
        rule: How signals go back; `Deconvnet()` by default.
        seed: The signal at the unit: its activation ("value"), or 1 ("one").
        extent: Start at the unit's cell, or the strongest if it has none ("cell"), or at all cells of the channel ("map").
        tick: Called with the share that is done, 0 to 1.

    Returns:
        One `Projections` per picture.

    Raises:
        VizError: the units are of several sites or of none of `sites`, the pass over a picture does not produce the
            site, it overwrites part of an activation that it uses as a whole later, it draws random numbers, or torch has
            no derivative of the way from the site to the picture.
        DoesNotFit: the signals of a single unit do not fit into memory.
    """
    rule = rule or Deconvnet()
    site = site_of_all(units, sites)
    answers = []
    for number in range(len(batch)):
        recording = record(module, batch[number : number + 1], {site.name}, rule)
        answers.append(project_recording(recording, site, units, rule, seed, extent, tick))
    return answers


def project_recording(
    recording: Recording, site: Site, units: Sequence[Unit], rule: Rule, seed: Seed, extent: Extent,
    tick: Callable[[float], None] | None,
) -> Projections:  # fmt: skip
    """What `project` gives for one picture, along a pass that was recorded already.

    Args:
        recording: The pass over the picture up to the site, recorded with the rule.
        site: The units' site.
        units: Units of that site.
        rule: How signals go back.
        seed: The signal at the unit, as in `project`.
        extent: Where it starts, as in `project`.
        tick: Called with the share that is done, 0 to 1.

    Raises:
        VizError: as `project`, for what happens after the pass.
    """
    value, activation = recording.values[site.name]
    if not recording.sloped[value]:
        raise VizError(
            f"Layer {site.name!r} depends on the input only through masks, indices or whole numbers. These have no "
            "derivative, so nothing can be projected from it.",
            code="no-derivative",
        )
    maps = channels_first(activation, site)[0]  # [channels h w] or [channels]
    cells = cells_of(maps, units)
    certificate, bytes_per_unit = Certificate(), 0
    half = any(torch.float16 in step.dtypes for step in recording.steps)

    def run(part: Sequence[int]) -> Tensor:
        nonlocal certificate, bytes_per_unit
        start = seed_of(maps, activation, site, [units[i] for i in part], [cells[i] for i in part], seed, extent)
        for factor in _FACTORS if half else (1,):
            larger = map_values(start, lambda values, by=factor: values * by)  # type: ignore[misc]
            values, certificate, widest = _backward(recording, value, larger, rule)
            if values.isfinite().all() and not certificate.custom:  # which need not be proportional to their signal
                break
        bytes_per_unit = widest // len(part)
        return (values.float() if values.dtype == torch.float16 else values) / factor

    parts = in_fitting_parts(recording, activation, len(units), lambda part: (run(part), bytes_per_unit), tick)
    activations = maps[indices_of(units, cells, maps.device)]
    values, ends = torch.cat(parts), set[str]()
    if len(units) == 1 and not values.any():
        _backward(recording, value, seed_of(maps, activation, site, units, cells, seed, extent), rule, ends)
    return Projections(values, activations, cells, certificate, frozenset(ends))


def in_fitting_parts(
    recording: Recording, activation: Tensor, count: int, run: Callable[[Sequence[int]], tuple[Answer, int]],
    tick: Callable[[float], None] | None,
) -> list[Answer]:  # fmt: skip
    """`run` on parts of `range(count)` that fit into memory.

    The first units, as many as surely fit, show how wide windows get (at most the maps); the other parts are sized by that.

    Args:
        recording: The pass along which signals go back.
        activation: That of the units' site.
        count: How many units there are.
        run: Sends some units back; gives the answer and the bytes of its widest signal per unit.
        tick: Called with the share that is done, 0 to 1.
    """
    bytes_per_unit = 0

    def sized(part: Sequence[int]) -> Answer:
        nonlocal bytes_per_unit
        answer, bytes_per_unit = run(part)
        return answer

    widest = max(math.prod(shape) for shape in recording.shapes) * activation.element_size()
    best = _BEST_CHUNK.get(activation.device.type, _BEST_CHUNK["cpu"])
    first = range(chunk_size(3 * widest, activation.device, min(max(4, best // widest), count)))
    parts = list(in_chunks(first, sized, len(first)))
    size = min(chunk_size(3 * bytes_per_unit, activation.device), max(1, best // max(1, bytes_per_unit)))
    return parts + list(in_chunks(range(len(first), count), sized, size, tick))


# Where a network computes in float16, whose smallest number is 6e-8, signals start larger by the first of these with which
# none overflows.
_FACTORS = (2**12, 2**6, 1)
# Bytes of the widest signal of a chunk beyond which larger chunks were slower (CPU: the caches), or gained nothing.
_BEST_CHUNK = {"cpu": 12 * 2**20, "cuda": 4 * 2**30}


def argmax_cell(maps: Tensor, unit: Unit) -> tuple[int, int] | None:
    """The unit's cell, or the strongest of its channel (the first in reading order of equals); None for vectors."""
    if maps.ndim == 1:
        return None
    if unit.cell is not None:
        return unit.cell
    index = int(maps[unit.channel].argmax())
    return index // maps.shape[2], index % maps.shape[2]


def cells_of(maps: Tensor, units: Sequence[Unit]) -> tuple[tuple[int, int] | None, ...]:
    """`argmax_cell` of each unit, asked of the device at once."""
    if maps.ndim == 1 or all(unit.cell is not None for unit in units):
        return tuple(argmax_cell(maps, unit) for unit in units)
    channels = torch.tensor([unit.channel for unit in units], device=maps.device)
    strongest = maps[channels].flatten(1).argmax(1).tolist()
    return tuple(unit.cell or divmod(index, maps.shape[2]) for unit, index in zip(units, strongest, strict=True))


def indices_of(
    units: Sequence[Unit], cells: Sequence[tuple[int, int] | None], device: torch.device
) -> tuple[Tensor, ...]:
    """What picks the activations of units out of the maps: channels, then rows and columns where there are any."""
    return torch.tensor([(u.channel, *(c or ())) for u, c in zip(units, cells, strict=True)], device=device).unbind(1)


def seed_of(
    maps: Tensor, activation: Tensor, site: Site, units: Sequence[Unit], cells: Sequence[tuple[int, int] | None],
    seed: Seed, extent: Extent,
) -> Signal:  # fmt: skip
    """The signals at the units' own site: zero except at the chosen activations.

    Args:
        maps: The activation of the site, channels first: `[channels h w]` or `[channels]`.
        activation: The same as its operation laid it out.
        site: The site.
        units: The units of that site.
        cells: The (row, column) of each; None for vectors.
        seed: The signal: the activation ("value"), or 1 ("one").
        extent: Only at the cells ("cell"), or on the whole map ("map").
    """
    k, number = len(units), torch.arange(len(units), device=maps.device)
    channel, *place = indices_of(units, cells, maps.device)
    if maps.ndim == 1:
        start = maps.new_zeros(k, *activation.shape)
        start[number, 0, channel] = maps[channel] if seed == "value" else 1.0
        return start
    if extent == "map":
        whole = maps.new_zeros(k, *maps.shape)
        whole[number, channel] = maps[channel] if seed == "value" else 1.0
        return as_signal(as_laid_out(whole, site)[:, None], tuple(activation.shape))
    amount = maps[channel, *place] if seed == "value" else maps.new_ones(k)
    if site.layout == "chw":
        point = maps.new_zeros(k, maps.shape[0], 1, 1)
        point[number, channel, 0, 0] = amount
        top, left = np.array([cell for cell in cells if cell is not None]).T
        return WindowedSignal(point, top, left).clipped(*maps.shape[1:])
    whole = maps.new_zeros(k, *maps.shape)
    whole[number, channel, *place] = amount
    return as_signal(as_laid_out(whole, site)[:, None], tuple(activation.shape))


def _backward(
    recording: Recording, value: int, start: Signal, rule: Rule, ends: set[str] | None = None
) -> tuple[Tensor, Certificate, int]:
    """The signals `[K C H W]` of a value at the picture, the certificate, and the bytes of the widest signal on the way."""
    signals, counts, widest = send_back(recording, value, start, rule, ends)
    return at_value(signals, 0, start, recording), Certificate(**counts), widest


def at_value(signals: dict[int, Signal], value: int, start: Signal, recording: Recording) -> Tensor:
    """The signals `[K C H W]` that have arrived at a value of the picture's shape; zero if none has."""
    shape = recording.shapes[value]
    if value in signals:
        return as_tensor(signals[value], shape)[:, 0]
    like = start.values if isinstance(start, WindowedSignal) else start
    return like.new_zeros(len(like), *shape[1:])


def send_back(
    recording: Recording, value: int, start: Signal, rule: Rule, ends: set[str] | None = None
) -> tuple[dict[int, Signal], dict[str, int], int]:
    """Send signals from a value back to the picture.

    Returns those that no operation made (value 0 is the picture), how many operations count as what, and the bytes of the
    widest signal on the way.

    Args:
        recording: The pass.
        value: The value that the signals start at.
        start: The signals.
        rule: How they go back; the one that the pass was recorded with.
        ends: Where to add the operations that no signal passes.
    """
    if ends is not None and not _passes(start):
        ends.add("start")
    signals: dict[int, Signal] = {value: start}
    counts: dict[str, int] = {}
    widest = _bytes(start)
    for step in reversed(recording.steps):
        above = [signals.pop(output, None) for output in step.outputs]
        if all(signal is None for signal in above):
            continue
        below, counted = rule.backward(step, above, recording.shapes)
        detached = "detached" if step.detached else None
        for one in (counted, detached):
            if one is not None:
                counts[one] = counts.get(one, 0) + (step.ctx.get("count", 1) if one == "gates" else 1)
        passed = [signal for target, signal in zip(step.inputs, below, strict=True) if recording.sloped[target]]
        if ends is not None and any(map(_passes, above)) and not any(map(_passes, passed)):
            rectifies = step.ctx["family"] in {"rectifier", "activation"}
            ends.add("rectifier" if rectifies else step.operation.rstrip("_"))
        for target, dtype, signal in zip(step.inputs, step.dtypes, below, strict=True):
            if signal is not None and recording.sloped[target]:
                signal = as_dtype(signal, dtype)
                widest = max(widest, _bytes(signal))
                signals[target] = added(signals[target], signal) if target in signals else signal
    return signals, counts, widest


def _bytes(signal: Signal) -> int:
    values = signal.values if isinstance(signal, WindowedSignal) else signal
    return values.numel() * values.element_size()


def _passes(signal: Signal | None) -> bool:
    return signal is not None and bool((signal.values if isinstance(signal, WindowedSignal) else signal).any())
