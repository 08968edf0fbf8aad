"""The kernels behind an activation: the convolution that computes it and its weights, in any network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import argument, pair, tensors_in
from vizapp.engine.receptive_field.field import ReceptiveFieldTrace
from vizapp.engine.tap import check_computed, first_tensor, operation_name
from vizapp.engine.trace.sites import kind_of
from vizapp.errors import VizError

# Kinds of operations that map channel c to channel c.
_CHANNEL_BY_CHANNEL = frozenset({"activation", "norm", "pool", "resize", "identity"})


@dataclass(frozen=True)
class Kernels:
    """The weights of the convolution called `name`, as used in a pass."""

    name: str
    weight: Tensor  # [out in kh kw], where `in` counts the channels of one group
    stride: tuple[int, int]  # rows, columns, in cells of the convolution's input
    dilation: tuple[int, int]
    groups: int
    sees_pixels: bool  # whether those cells are the pixels of the image

    @property
    def depthwise(self) -> bool:
        """Whether each kernel reads one channel of several."""
        return self.groups > 1 and self.weight.shape[1] == 1


@dataclass(frozen=True)
class _Origin:
    """The convolutions that computed an activation; `aligned` if there is one and its kernel c computes channel c."""

    kernels: tuple[Kernels, ...]
    aligned: bool


class _Lineage(ReceptiveFieldTrace):
    """Tracks which convolutions computed each activation of a pass."""

    def __init__(self, module: nn.Module, batch: Tensor, site: str) -> None:
        super().__init__(module, batch)
        self.found: dict[str, _Origin] = {}  # of the site, once it is computed
        self.computed: set[str] = set()  # convolutions whose weights depend on the image
        self._origins = WeakTensorKeyDictionary()
        self._site = site

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation and note the origin of its result. Ends the pass after the site."""
        if self._site in self.found and name != self._site:
            raise self.enough
        origin = self._origin(name, operation_name(function).rstrip("_"), args, kwargs)
        output = super().operate(name, function, args, kwargs)
        result = first_tensor(output)
        if result is not None:
            self._origins[result] = origin
        if name == self._site:
            self.found[name] = origin
        return output

    def _origin(self, name: str, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Origin:
        if operation in {"conv2d", "conv_transpose2d"}:
            return _Origin((self._kernels(name, operation, args, kwargs),), True)
        read = [tensor for tensor in tensors_in((args, kwargs)) if self.of(tensor) is not None]
        origins = [self._origins[tensor] for tensor in read if tensor in self._origins]
        if len(origins) == 1 and kind_of(operation) in _CHANNEL_BY_CHANNEL:
            return origins[0]
        return _Origin(tuple({k.name: k for origin in origins for k in origin.kernels}.values()), False)

    def _kernels(self, name: str, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Kernels:
        weight: Tensor = argument(args, kwargs, 1, "weight", None)
        if self.of(weight) is not None:
            self.computed.add(name)
        weight = weight.detach()
        stride = pair(argument(args, kwargs, 3, "stride", 1))
        field = self.of(argument(args, kwargs, 0, "input", None))
        sees_pixels = field is not None and field.size == (1, 1)
        if operation == "conv2d":
            dilation = pair(argument(args, kwargs, 5, "dilation", 1))
            groups = int(argument(args, kwargs, 6, "groups", 1))
        else:  # its weight is [in out/groups kh kw]
            groups = int(argument(args, kwargs, 6, "groups", 1))
            dilation = pair(argument(args, kwargs, 7, "dilation", 1))
            weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return Kernels(name, weight, stride, dilation, groups, sees_pixels)


def kernels_of(module: nn.Module, batch: Tensor, site: str) -> Kernels:
    """The kernels of the convolution that computes `site` in a pass over `batch` `[1 C H W]`; the pass ends there.

    For a norm, activation or pool after a convolution they are the kernels of that convolution: channel c of the site
    belongs to kernel c.

    Raises:
        VizError: The pass does not compute the site, no single convolution computes it, or the weights of that
            convolution depend on the image.
    """
    batch = batch.clone()
    with torch.no_grad(), _Lineage(module, batch, site) as lineage:
        module(batch)
    check_computed([site], lineage.found)
    origin = lineage.found[site]
    if not origin.kernels:
        raise VizError(
            f"No convolution runs before layer {site!r}, so it has no kernels; pick a later layer.",
            code="no-convolution-before",
        )
    if not origin.aligned:
        nearest = ", ".join(kernels.name for kernels in origin.kernels[-3:])
        raise VizError(
            f"Layer {site!r} is not computed by a single convolution, so its channels have no kernels; choose a "
            f"convolution before it: {nearest}.",
            code="no-kernels-of-its-own",
        )
    if origin.kernels[0].name in lineage.computed:
        raise VizError(
            f"The network computes the kernels of {origin.kernels[0].name!r} anew for each input, so they cannot be "
            "shown; pick another convolution.",
            code="kernels-depend-on-picture",
        )
    return origin.kernels[0]
