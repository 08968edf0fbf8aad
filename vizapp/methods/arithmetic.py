"""Arithmetic of a cell: the sum that made one number of a layer, kernel times patch, and which channels gave most to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vizapp.engine.arithmetic.cell import Below, CellArithmetic, take_apart
from vizapp.engine.arithmetic.operands import record_operands
from vizapp.engine.arithmetic.origins import Origins
from vizapp.engine.arithmetic.stages import signed
from vizapp.engine.arithmetic.walk import WalkStep, walk_down
from vizapp.engine.memory.chunks import SCRATCH, check_fits
from vizapp.engine.projection.project import argmax_cell
from vizapp.engine.trace.sites import channels_first
from vizapp.media.drawing import contrast_limit, diverging
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output, in_rows
from vizapp.methods.params import Params, knob


@dataclass(frozen=True)
class ArithmeticParams(Params):
    """How many channels the pictures show, and whether to walk on towards the pixels."""

    top: int = knob(20, "Channels that the pictures show, the largest contributions first", low=1, high=200)
    walk: int = knob(0, "Steps to walk down along the largest contributions; 0 stays at the cell", low=0, high=1000)


@np.errstate(over="ignore", invalid="ignore")  # activations may be infinite or no numbers
def arithmetic(question: Question, params: ArithmeticParams, job: Job) -> Result:
    """How one number of a layer was computed: kernel × patch for each channel below, then norm and activation function.

    The number is the unit's, at its cell or the strongest one. It is `bias` + the sum of `products`, which then went through
    `stages`. `arrays`, over the C channels below that take part (those of the group, of a grouped convolution; the two sides of
    an addition; the one map of a pool) and the kh × kw cells of the window:
        `products` float64 `[C kh kw]` = `weights` × `patch`, `contributions` `[C]` their sums, in the order of the channels.
        `weights`, `patch` float64 `[C kh kw]`: kernel (of a mean equal shares, of a maximum 1 for the winner) and activations.
        `padded` bool `[kh kw]`: cells of padding. `cells` int64 `[kh kw 2]`: row and column of each in the layer below, or -1.
        `channels` int64 `[C]`, `strongest` int64 `[C 2]`: channel below, and its cell with the largest product, or -1.
        `bias`, `sum` (before the stages), `value` (as the pass kept it), `error` (of the parts, see `facts`): numbers.
        `stages` float64 `[S 6]`: before, after, scale, shift, and for norms by the photo's own statistics mean and standard
        deviation; NaN where there is none (an activation function has no scale). Their names are in the facts.
        `map` float32 `[h w]`: the unit's channel, of a layer with cells.
    A vector below has one cell; behind a flattening the layer below is the map, and kh × kw all of it. Softmax: `patch` holds
    the logits, `weights` and `products` their exponentials (less the largest logit), and `sum` is the denominator.

    `table`: a row per contribution, the largest by size first: `index` (in the arrays), `layer`, `channel`, `row` and `column`
    to go on with (layer None: a pixel of the photo if it has a channel, else a number that is in no layer), `value` there,
    `contribution`, and `share`, the contribution by the sum of the sizes of all contributions and the bias, from -1 to 1. A
    product of two activations has a second row, for the gate, whose index, contribution and share are None.

    With `walk`, `table` has a row per step of a walk towards the pixels, the unit first: `step`, `layer` (None: the photo),
    `channel`, `row`, `column`, `value`, the `operation` that made it, `contribution` and `share` of its channel in the step
    before, and the `product` of its cell alone. It goes to the channel that raises the unit's number most, and in it to the
    cell that does; the arrays are those of the unit.
    """
    network, unit = question.network, question.require_unit()
    site = network.site(unit.site)
    sites, wanted = {one.name: one for one in network.sites}, {site.name}
    if params.walk:
        names = list(sites)
        wanted = set(names[: names.index(site.name) + 1])
        held = int(SCRATCH * network.footprint.total)
        check_fits(held, network.device, f"the activations of {len(wanted)} layers", "an earlier layer")
    recording = record_operands(network.module, network.prepare(question.require_picture()), wanted)
    job.report(0.7)
    kept = channels_first(recording.values[site.name][1], site)[0]
    unit = replace(unit, site=site.name, cell=argmax_cell(kept, unit))
    origins = Origins(recording, sites)
    cell = take_apart(origins, unit)
    where = "" if unit.cell is None else f", cell {unit.cell[0]},{unit.cell[1]}"
    facts = {"unit": f"{site.name}, channel {unit.channel}{where}"} | _facts(cell)
    value = kept[(unit.channel, *(unit.cell or ()))].cpu()
    arrays = _arrays(cell) | {"value": (value if value.dtype.itemsize > 4 else value.float()).numpy()}
    if site.is_map:
        arrays["map"] = kept[unit.channel].float().cpu().numpy()
    rows = _table(cell)
    if params.walk:
        steps, end = walk_down(origins, unit, params.walk)
        rows = tuple(_step_row(number, step) for number, step in enumerate(steps))
        facts["walk"] = _walk_told(steps, end)
    return Result("arithmetic", arrays, _panels(cell, params.top), facts, rows)


def _arrays(cell: CellArithmetic) -> dict[str, np.ndarray]:
    channels = [-1 if below.channel is None else below.channel for below in cell.below]
    strongest = [below.cell or (-1, -1) for below in cell.below]
    stages = [(s.before, s.after, s.scale, s.shift, s.mean, s.deviation) for s in cell.stages]
    return {
        "contributions": cell.contributions,
        "products": cell.products,
        "weights": cell.weights,
        "patch": cell.patch,
        "padded": cell.padded,
        "cells": cell.cells,
        "channels": np.array(channels, np.int64),
        "strongest": np.array(strongest, np.int64).reshape(-1, 2),
        "bias": np.array(cell.parts.bias),
        "sum": np.array(cell.total),
        "error": np.array(cell.error),
        "stages": np.array(stages, np.float64).reshape(-1, 6),
    }


def _facts(cell: CellArithmetic) -> dict[str, str]:
    facts = {"operation": f"{cell.parts.words}, in {cell.layer}" if cell.layer else cell.parts.words}
    facts |= {"equation": _equation(cell), "layer below": _layer_below(cell)} | cell.parts.notes
    for number, stage in enumerate(cell.stages, 1):
        told = f"{stage.name}: {stage.told}" if stage.name else stage.told
        if np.isfinite(stage.mean):
            told += f" (mean {signed(stage.mean)}, standard deviation {signed(stage.deviation)}, of this photo)"
        facts[f"then {number}" if len(cell.stages) > 1 else "then"] = (
            f"{told}; {signed(stage.before)} becomes {signed(stage.after)}"
        )
    facts["check"] = (
        f"The parts sum to the number that the network computed within {cell.error:.1e} of the sum of their sizes."
        if np.isfinite(cell.error)
        else "Some parts are not finite, so they cannot be compared with the number that the network computed."
    )
    return facts


def _equation(cell: CellArithmetic) -> str:
    """`0.12 + Σ 2.31 = 2.43 → batch norm × 0.9 − 0.3 → 1.88 → ReLU → 1.88`."""
    contributions, parts = cell.contributions, cell.parts
    if parts.kind == "product":
        told = f"{signed(cell.patch[0, 0, 0])} × {signed(cell.weights[0, 0, 0])} = {signed(cell.total)}"
    elif parts.kind == "softmax":
        told = f"Σ exp = {signed(cell.total)}"
    elif parts.kind == "maximum":
        told = f"{parts.words} = {signed(cell.total)}"
    elif parts.kind in ("photo", "constant", "selection"):
        told = signed(cell.total)
    elif len(contributions) == 2 and parts.kind == "sum" and not parts.bias:
        first, second = map(float, contributions)
        told = f"{signed(first)} {'−' if second < 0 else '+'} {abs(second):.4g} = {signed(cell.total)}"
    else:
        bias = f"{signed(parts.bias)} + " if parts.bias else ""
        told = f"{bias}Σ {signed(float(contributions.sum()))} = {signed(cell.total)}"
    return told + "".join(f" → {stage.told} → {signed(stage.after)}" for stage in cell.stages)


def _layer_below(cell: CellArithmetic) -> str:
    seen = [*cell.below, *([cell.gate] if cell.gate else [])]
    names = list(dict.fromkeys(_layer_name(below) for below in seen))
    count, (rows, columns) = len(cell.below), cell.padded.shape
    if not names:
        return "none: the number does not depend on the photo"
    many = f"{count} channels" if count > 1 else "1 channel"
    return f"{' and '.join(names)}; {many}, {rows} × {columns} cells"


def _layer_name(below: Below) -> str:
    if below.site:
        return below.site
    return "the photo" if below.channel is not None else "numbers that are in no layer"


def _row(below: Below, index: int | None, contribution: float | None, share: float | None) -> dict[str, Any]:
    row, column = below.cell or (None, None)
    return {
        "index": index, "layer": below.site or None, "channel": below.channel, "row": row, "column": column,
        "value": below.value, "contribution": contribution, "share": share,
    }  # fmt: skip


def _table(cell: CellArithmetic) -> tuple[dict[str, Any], ...]:
    contributions, shares = cell.contributions.tolist(), cell.shares.tolist()
    rows = [_row(cell.below[n], n, contributions[n], shares[n]) for n in cell.order.tolist()]
    return tuple(rows + ([_row(cell.gate, None, None, None)] if cell.gate else []))


def _step_row(number: int, step: WalkStep) -> dict[str, Any]:
    row, column = step.below.cell or (None, None)
    part = {name: getattr(step, name) if number else None for name in ("contribution", "share", "product")}
    return {
        "step": number, "layer": step.below.site or None, "channel": step.below.channel, "row": row, "column": column,
        "value": step.below.value, "operation": step.operation, **part,
    }  # fmt: skip


def _walk_told(steps: list[WalkStep], end: str) -> str:
    last = steps[-1].below
    many = "1 step" if len(steps) == 2 else f"{len(steps) - 1} steps"
    where = f" at {last.cell[0]},{last.cell[1]}" if last.cell else ""
    if end:
        return f"{many}, to {_layer_name(last)}{where}; there {end[0].lower()}{end[1:].rstrip('.')}."
    return f"{many}, to {_layer_name(last)}{where}, channel {last.channel}."


def _panels(cell: CellArithmetic, top: int) -> tuple[Panel, ...]:
    """Bars of the largest contributions, and their patch, kernel and products as small pictures."""
    order = cell.order[:top]
    if not len(order):
        return ()
    panels = [Panel("contributions", _bars(cell, order), f"The {len(order)} largest contributions, the largest above.")]
    tiles = []
    for name in ("patch", "weights", "products"):
        values = getattr(cell, name)[order]
        limit = contrast_limit(values) or 1.0
        tiles.append(in_rows([diverging(one, limit) for one in values]))
        panels.append(Panel(name, tiles[-1], f"{name.capitalize()} of these channels, ±{limit:.3g}."))
    return tuple(panels)


def _bars(cell: CellArithmetic, order: np.ndarray, width: int = 400, height: int = 10) -> np.ndarray:
    """A bar per contribution from the middle line, blue to the left and red to the right; then, grey, that of the rest."""
    every = np.nan_to_num(cell.contributions)  # an infinite one takes the whole width
    values = [*every[order].tolist(), float(np.nan_to_num(np.delete(every, order).sum()))]
    reach = max(map(abs, values)) or 1.0
    bars = np.full((len(values) * height, width, 3), 255, np.uint8)
    for number, value in enumerate(values):
        middle, length = width // 2, round(abs(value) / reach * (width // 2 - 2))
        colour = (128, 128, 128) if number == len(order) else diverging(np.array([[np.sign(value) * 0.7]]), 1.0)[0, 0]
        start = middle if value >= 0 else middle - length
        bars[number * height + 1 : (number + 1) * height - 1, start : start + max(length, 1)] = colour
    bars[:, width // 2] = 90
    return bars


METHOD = Method(
    key="arithmetic",
    title="Arithmetic of a cell",
    source="Olah et al. 2020",
    params=ArithmeticParams,
    run=arithmetic,
    needs=frozenset({"picture", "unit"}),
    shows=(
        Output("contributions", "curves", title="Contribution of each channel below"),
        Output("products", "signed map", title="Kernel times patch"),
        Output("table", "table"),
    ),
)
