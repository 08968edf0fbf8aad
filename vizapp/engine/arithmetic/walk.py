"""A walk from a unit towards the pixels, at each step to the part that speaks most for the number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vizapp.engine.arithmetic.cell import Below, CellArithmetic, take_apart
from vizapp.engine.arithmetic.origins import Origins
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError


@dataclass(frozen=True)
class WalkStep:
    """A number on the walk, and what it gave to the number before it.

    `below`: the number and where it is. `operation`: what made it ("" for a pixel). `contribution`, `share`: those of its whole
    channel, as in `CellArithmetic`. `product`: what the cell alone gave. The three are NaN for the first.
    """

    below: Below
    operation: str
    contribution: float
    share: float
    product: float


def walk_down(origins: Origins, unit: Unit, steps: int) -> tuple[list[WalkStep], str]:
    """The numbers on the walk from a unit, itself first, at most `steps` more; and why it ended ("" at a pixel, or by `steps`).

    Each step goes to the channel whose contribution raises the first number most, or lowers it least, and in it to the cell
    whose product does. Where a weight or a norm's scale on the way is negative, it goes to what lowers the number below most.

    Raises:
        VizError: the unit's own number is no sum.
    """
    found, direction = list[WalkStep](), 1.0
    below, given = Below(unit.site, unit.channel, unit.cell, float("nan")), (float("nan"),) * 3
    for number in range(steps + 1):
        if not below.site:
            found.append(WalkStep(below, "", *given))
            return found, "" if below.channel is not None else "the next number is in no layer"
        site = origins.sites[below.site]
        if site.is_map and below.cell is None:
            found.append(WalkStep(below, "", *given))
            return found, f"the next number of {below.site!r} is one of a special token, which has no cell"
        try:
            cell = take_apart(origins, Unit(below.site, below.channel or 0, below.cell))
        except VizError as error:
            if not number:
                raise
            found.append(WalkStep(below, "", *given))
            return found, str(error)
        found.append(WalkStep(below._replace(value=cell.value), cell.parts.words, *given))
        if not np.any(cell.contributions):
            return found, "what the photo gives to the number is zero"
        below, place = _next(cell, direction)
        direction *= _direction(cell) * (float(np.sign(cell.weights[place])) or 1.0)
        given = float(cell.contributions[place[0]]), float(cell.shares[place[0]]), float(cell.products[place])
    return found, ""


def _next(cell: CellArithmetic, direction: float) -> tuple[Below, tuple[int, int, int]]:
    """The channel and the cell that speak most for the number in that direction; and their place in the products."""
    towards = direction * _direction(cell)
    channel = int(np.nan_to_num(towards * cell.contributions, nan=-np.inf).argmax())
    if cell.own is not None:
        channel = cell.own[0]
    below = cell.below[channel]
    if cell.products[0].size == 1:
        return below, (channel, 0, 0)
    towards_number = np.where(cell.cells[..., 0] >= 0, towards * cell.products[channel], -np.inf)
    if cell.parts.kind == "maximum":
        towards_number = cell.weights[channel]
    row, column = divmod(int(towards_number.argmax()), cell.products.shape[2]) if cell.own is None else cell.own[1:]
    at, value = cell.cells[row, column].tolist(), float(cell.patch[channel, row, column])
    return below._replace(cell=tuple(at) if min(at) >= 0 else None, value=value), (channel, row, column)


def _direction(cell: CellArithmetic) -> float:
    """-1 if a larger sum made a smaller number, by the scales of norms and constants on the way; else 1."""
    scales = [stage.scale for stage in cell.stages if np.isfinite(stage.scale) and stage.scale]
    return float(np.prod(np.sign(scales)))
