"""Passes in which the units of one site are scaled, each picture of a batch with factors of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vizapp.engine.tap import Trace, first_tensor, operation_name
from vizapp.engine.trace.cells import CHANNEL_AXIS
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError


class ScaledSite(Trace):
    """A pass in which the units of a site are scaled; with `factors` None, a clean one.

    A layer may run several operations under its name: the activation is what number `last` of them gave, or of a clean pass
    the last one.
    """

    def __init__(self, module: nn.Module, site: Site, factors: Tensor | None, last: int = 0) -> None:
        super().__init__(module)
        self._wanted, self._axis, self._factors = site.name, CHANNEL_AXIS[site.layout], factors
        self._seen, self.last = 0, last
        self.value: Tensor | None = None

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation; what the site's gives is scaled."""
        output = function(*args, **kwargs)
        found = first_tensor(output) if name == self._wanted else None
        if found is None:
            return output
        self._seen += 1
        if self._factors is None:
            if self.value is None or operation_name(function) != "detach":
                self.value, self.last = found.clone(), self._seen
            return output
        if self._seen != self.last:
            return output
        if len(found) != len(self._factors):
            raise VizError(
                f"Layer {name!r} gives other than one result per photo, so its units cannot be changed; choose another "
                "layer.",
                code="layer-without-channels",
            )
        changed = scaled(found, self._factors, self._axis)
        if any(found is given for given in (*args, *kwargs.values())):  # others read it there
            found.copy_(changed)
            return output
        return changed if found is output else type(output)([changed, *output[1:]])


def scaled(activation: Tensor, factors: Tensor, axis: int) -> Tensor:
    """The activation `[1 …]` or `[N …]` with its units, along `axis`, multiplied by `factors` `[N units]`: `[N …]`.

    A factor of 0 gives zero, even where the activation is infinite.
    """
    shape = [len(factors) if place == 0 else -1 if place == axis else 1 for place in range(activation.ndim)]
    factors = factors.to(activation.dtype).view(shape)
    out = torch.empty(
        (len(factors), *activation.shape[1:]), dtype=activation.dtype, device=activation.device,
        memory_format=memory_layout(activation),
    )  # fmt: skip
    torch.mul(activation, factors, out=out)
    return out if bool(activation.isfinite().all()) else out.masked_fill_(factors == 0, 0)


def memory_layout(tensor: Tensor) -> torch.memory_format:
    """Channels-last for a map that is laid out so, else contiguous."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
