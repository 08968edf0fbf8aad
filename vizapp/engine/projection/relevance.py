"""Layer-wise relevance propagation: the share of each pixel in the value of a unit, and what biases took of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vizapp.engine.projection.project import at_value, cells_of, in_fitting_parts, indices_of, seed_of, send_back
from vizapp.engine.projection.relevance_rule import Relevance
from vizapp.engine.projection.windowed_signal import Signal, WindowedSignal
from vizapp.engine.trace.recording import Recording, record
from vizapp.engine.trace.sites import Site, Unit, channels_first, site_of_all
from vizapp.errors import VizError


@dataclass(frozen=True)
class Relevances:
    """The relevance of the input for some units of one site, on one picture.

    Of each unit, the sum of `values` `[K C H W]`, `biases` `[K]` and `stabilisers` `[K]` (what these absorbed) is its
    activation `[K]`, but for rounding. `counts` says how many operations the relevance passed by which rule.
    """

    values: Tensor
    activations: Tensor
    cells: tuple[tuple[int, int] | None, ...]
    biases: Tensor
    stabilisers: Tensor
    counts: dict[str, int]

    @property
    def gap(self) -> Tensor:
        """What is missing `[K]`: the activation less everything that it was shared among, as a share of the activation."""
        found = self.values.flatten(1).double().sum(1) + self.biases.double() + self.stabilisers.double()
        return (found - self.activations.double()).abs() / self.activations.double().abs()


def lower_half(sites: Sequence[Site], unit_site: str) -> list[str]:
    """The names of the lower half of the convolutions up to a unit's layer: those with several cells, in running order."""
    names = [site.name for site in sites]
    before = sites[: names.index(unit_site) + 1]
    maps = [
        site.name
        for site in before
        if site.kind in {"convolution", "linear"}
        and site.layout in {"chw", "hwc"}
        and site.shape[1] * site.shape[2] > 1
    ]
    return maps[: (len(maps) + 1) // 2]


def relevance(
    module: nn.Module,
    batch: Tensor,
    units: Sequence[Unit],
    sites: Sequence[Site],
    rule: Relevance | None = None,
    tick: Callable[[float], None] | None = None,
) -> Relevances:
    """The relevance of each number of a picture for some units of one site.

    One pass over the picture, up to the site; then all units go back together, as many at a time as fit into memory.

    Args:
        module: The network, in evaluation mode.
        batch: The picture `[1 C H W]`, normalised as the network expects it.
        units: Units of one site; those of a map without a cell are taken at their strongest.
        sites: All sites of the network, from `survey`.
        rule: The rules of the layers. If "depth" names no lower layers, they are the `lower_half`.
        tick: Called with the share that is done, 0 to 1.

    Raises:
        VizError: there is no rule for an operation between the units and the picture, or the network cannot be recorded.
        DoesNotFit: the signals of a single unit do not fit into memory.
    """
    site, rule = site_of_all(units, sites), rule or Relevance()
    if rule.composite == "depth" and not rule.lower:
        rule = replace(rule, lower=frozenset(lower_half(sites, site.name)))
    recording = record(module, batch, {site.name}, rule)
    value, activation = recording.values[site.name]
    if not recording.sloped[value]:
        raise VizError(
            f"Layer {site.name!r} depends on the input only through masks, indices or whole numbers: nothing can be sent back.",
            code="no-derivative",
        )
    maps = channels_first(activation, site)[0]
    cells = cells_of(maps, units)
    counts: Counter[str] = Counter()

    def run(part: Sequence[int]) -> tuple[tuple[Tensor, Tensor], int]:
        start = seed_of(maps, activation, site, [units[i] for i in part], [cells[i] for i in part], "one", "cell")
        signals, found, widest = send_back(recording, value, start, rule)
        counts.clear()
        counts.update(found)
        return (_at_pixels(recording, signals, start, rule, batch), _absorbed(recording, start)), widest // len(part)

    parts = in_fitting_parts(recording, activation, len(units), run, tick)
    values, absorbed = (torch.cat(column) for column in zip(*parts, strict=True))
    return Relevances(
        values, maps[indices_of(units, cells, maps.device)], cells, absorbed[:, 0], absorbed[:, 1], dict(counts)
    )


def _at_pixels(
    recording: Recording, signals: dict[int, Signal], start: Signal, rule: Relevance, batch: Tensor
) -> Tensor:
    """The relevance `[K C H W]`: signals times the picture, and those of a box times half of the range of pixels."""
    values = at_value(signals, 0, start, recording) * batch[0]
    for value in signals.keys() - {0}:
        half = (values.new_tensor(rule.high) - values.new_tensor(rule.low)) / 2
        values = values + at_value(signals, value, start, recording) * half[:, None, None]
    return values


def _absorbed(recording: Recording, start: Signal) -> Tensor:
    """What the biases and the stabilisers of all operations took `[K 2]`."""
    like = start.values if isinstance(start, WindowedSignal) else start
    total = like.new_zeros(len(like), 2)
    for step in recording.steps:
        if "absorbed" in step.ctx:
            total += torch.stack(step.ctx.pop("absorbed"), 1)
    return total
