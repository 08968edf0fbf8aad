"""What an attribution map is asked about: a unit at one cell, on one input; and the network up to that unit."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import is_out_of_memory
from vizapp.engine.occlusion.sweep import TORCH_ERRORS
from vizapp.engine.tap import Tap
from vizapp.engine.trace.sites import Site, Unit, channels_first
from vizapp.methods.attribution.params import AttributionParams
from vizapp.methods.base import Job
from vizapp.zoo.network import Network


@dataclass(frozen=True)
class Request:
    """A unit with a cell (or of a vector), and the input `[1 C H W]` on which it is explained. `value`: its activation."""

    network: Network
    site: Site
    unit: Unit
    batch: Tensor
    value: float
    params: AttributionParams
    job: Job

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input, and so of the map."""
        return self.batch.shape[2], self.batch.shape[3]

    @property
    def position(self) -> tuple[int, ...]:
        """Where the unit is in the activations `[C h w]` of its layer, or `[C]`."""
        return self.unit.channel, *(self.unit.cell or ())

    def model(self) -> UnitOf:
        """The network up to the unit; with in-place activations only if it computes something else without."""
        model = UnitOf(private_copy(self.network.module), self.site, self.unit).eval()
        value = model.value(self.batch)
        if abs(value - self.value) > 1e-3 * max(abs(value), abs(self.value)):
            model.module = private_copy(self.network.module, in_place=True)
        return model


class UnitOf(nn.Module):
    """A module whose output is the activation `[N 1]` of one unit."""

    def __init__(self, module: nn.Module, site: Site, unit: Unit) -> None:
        super().__init__()
        self.module, self._site, self._unit = module, site, unit

    def forward(self, batch: Tensor) -> Tensor:
        """The unit's activation on each picture of `[N C H W]`."""
        with Tap(self.module, {self._site.name}, stop=False) as tap:
            self.module(batch.clone() if batch.requires_grad else batch)  # the network may write into its input
        return activation(tap.kept, self._site, self._unit)[:, None]

    @torch.no_grad()
    def at_once(self, batch: Tensor) -> int:
        """How many inputs fit into a pass, memory aside: 1 if the network fails on two, or answers otherwise than to one."""
        pair = torch.cat([batch, torch.zeros_like(batch)])
        try:
            found = float(self(pair)[0])
        except (AssertionError, TypeError, LookupError, *TORCH_ERRORS) as error:
            if is_out_of_memory(error):
                raise
            return 1
        alone = self.value(batch)
        return 1 if abs(found - alone) > 1e-3 * max(abs(found), abs(alone)) else sys.maxsize

    @torch.no_grad()
    def value(self, batch: Tensor) -> float:
        """The unit's activation on a picture `[1 C H W]`."""
        return float(self(batch.clone()))


def activation(kept: dict[str, Tensor], site: Site, unit: Unit) -> Tensor:
    """The activation `[N]` of a unit with a cell (or of a vector), of what a tap kept."""
    return channels_first(kept[site.name], site)[(slice(None), unit.channel, *(unit.cell or ()))]


def private_copy(module: nn.Module, in_place: bool = False) -> nn.Module:
    """A copy that shares the weights and, unless `in_place`, whose activations do not write into their inputs.

    Captum registers hooks on modules. On the shared module they would affect other threads, and in-place activations break
    them.
    """
    shared = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    copied = copy.deepcopy(module, dict(shared))
    for part in copied.modules():
        if not in_place and isinstance(getattr(part, "inplace", None), bool):
            part.inplace = False  # type: ignore[assignment]
    return copied
