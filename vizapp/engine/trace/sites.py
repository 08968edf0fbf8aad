"""The sites of a network: its activations, by name and in running order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vizapp.engine.memory.peak import PeakMemory
from vizapp.engine.operations import ACTIVATIONS, DROPOUTS
from vizapp.engine.receptive_field.field import ReceptiveFieldTrace
from vizapp.engine.receptive_field.interval import ReceptiveField
from vizapp.engine.tap import first_tensor, operation_name
from vizapp.engine.trace.opaque_ops import OpaqueOpDetector
from vizapp.errors import VizError, nearest

Kind = Literal[
    "convolution", "linear", "activation", "pool", "norm", "add", "concat", "multiply", "attention", "softmax", "reshape",
    "identity", "other",
]  # fmt: skip
Layout = Literal["chw", "hwc", "tokens", "vector"]


@dataclass(frozen=True)
class Site:
    """One activation that every pass produces.

    `name` is spelled as torchvision's feature extraction spells it. `shape` is that of one picture at the network's own
    input size, channels first: `(C, h, w)`, or `(C,)` for vectors. `layout` says how the operation itself lays it out:
    `"chw"`; `"hwc"` (Swin, ConvNeXt's inner layers); `"tokens"` `[T C]` (ViT; a leading class token is left out of the
    map when the rest forms a square); `"vector"`. `operation` is the torch function that made it. `receptive_field` is
    what its cells see of an input of the network's own size; None for sites that no pass was made for.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    layout: Layout
    operation: str
    receptive_field: ReceptiveField | None = field(default=None, compare=False, repr=False)

    @property
    def channels(self) -> int:
        """How many units the site has."""
        return self.shape[0]

    @property
    def is_map(self) -> bool:
        """Whether the site has cells that lie somewhere in the picture."""
        return len(self.shape) == 3

    @property
    def rank(self) -> int:
        """How many axes the operation's own result has, that of the pictures included."""
        return {"chw": 4, "hwc": 4, "tokens": 3, "vector": 2}[self.layout]


@dataclass(frozen=True)
class Unit:
    """What is explained: a channel of a site, at one `cell` (row, column), or at its strongest cell (None)."""

    site: str
    channel: int
    cell: tuple[int, int] | None = None


@dataclass(frozen=True)
class Footprint:
    """Bytes of the activations of a pass over one picture: `widest`, the peak of those alive at once; `total`, of all."""

    widest: int
    total: int


def survey(module: nn.Module, batch: Tensor) -> tuple[Site, ...]:
    """The sites of a network, from `measured`."""
    return measured(module, batch)[0]


def measured(module: nn.Module, batch: Tensor) -> tuple[tuple[Site, ...], Footprint]:
    """The sites of a network in running order, and their memory, from one pass over `batch` `[1 C H W]`.

    A site is an activation that depends on the picture, is made of floating-point numbers, and has cells and channels
    or channels alone. Values computed from weights alone, masks, indices and shapes are not sites.

    Raises:
        VizError: a part of the pass is hidden (see `opaque_ops`).
    """
    found: dict[str, Site] = {}
    memory, sizes = PeakMemory(), dict[str, int]()

    class Collect(ReceptiveFieldTrace):
        def operate(
            self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            with lookout.seen(operation_name(function), (args, kwargs)):
                return super().operate(name, function, args, kwargs)

        def on_operation(self, name: str, function: Callable[..., Any], output: Any) -> None:
            tensor = first_tensor(output)
            seen = None if tensor is None else self.of(tensor)
            if tensor is not None and seen is not None and tensor.is_floating_point():
                memory.track(tensor)
                sizes[name] = max(sizes.get(name, 0), tensor.numel() * tensor.element_size())
                operation = operation_name(function)
                site = site_of(name, operation, tuple(tensor.shape), seen)
                if site is not None:
                    found.pop(name, None)  # the last operation of a layer gives its result
                    found[name] = site

    batch = batch.clone()
    memory.track(batch)
    trace = Collect(module, batch)
    lookout = OpaqueOpDetector(lambda tensor: trace.of(tensor) is not None)
    with torch.no_grad(), lookout, trace:
        module(batch)
    lookout.raise_if_any()
    return tuple(found.values()), Footprint(memory.peak, sum(sizes.values()))


def site_of(name: str, operation: str, shape: tuple[int, ...], seen: ReceptiveField) -> Site | None:
    """The site of an operation on one picture, whose result has that shape and sees `seen`; None if it is not a site."""
    if not shape or shape[0] != 1 or 0 in shape:
        return None
    seen = seen.on_map()
    layout = _layout(shape, seen)
    if layout is None:
        return None
    return Site(name, kind_of(operation), channels_first_shape(shape[1:], layout), layout, operation, seen)


def site_of_all(units: Sequence[Unit], sites: Sequence[Site]) -> Site:
    """The one site that all the units are of.

    Raises:
        VizError: the units are of several sites, or of one that is not among `sites`.
    """
    names = list(dict.fromkeys(unit.site for unit in units))
    if len(names) > 1:
        raise VizError(
            f"All units must be of one layer; these are of {names[0]!r} and {names[1]!r}.", code="several-layers"
        )
    for site in sites:
        if site.name == names[0]:
            return site
    hint = nearest(names[0], (site.name for site in sites))
    raise VizError(f"There is no layer called {names[0]!r}.{hint}", code="no-such-layer")


def kind_of(operation: str) -> Kind:
    """What kind of layer a torch function is."""
    return _KINDS.get(operation.rstrip("_"), "other")


def _layout(shape: tuple[int, ...], seen: ReceptiveField) -> Layout | None:
    axes = (seen.rows.axis, seen.columns.axis) if seen.is_upright else (seen.columns.axis, seen.rows.axis)
    if len(shape) == 2 and axes == (None, None):
        return "vector"
    if len(shape) == 3 and axes == (None, None):
        return "tokens"
    if len(shape) == 4:
        if axes == (2, 3):
            return "chw"
        if axes == (1, 2):
            return "hwc"
        if axes == (None, None):  # inside attention: there are cells, but how they were regrouped is not tracked
            if shape[2] == shape[3] and shape[1] != shape[2]:
                return "chw"
            if shape[1] == shape[2] and shape[2] != shape[3]:
                return "hwc"
    return None


def channels_first_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """The shape of one picture's activation, channels first, from the shape that the operation gave it."""
    if layout == "hwc":
        return (shape[2], shape[0], shape[1])
    if layout == "tokens":
        return (shape[1], *_token_grid(shape[0]))
    return shape


def channels_first(activation: Tensor, layout: Layout) -> Tensor:
    """The activation `[N …]` as `[N C h w]`, or `[N C]` for vectors; a leading class token is left out of the map."""
    if layout == "hwc":
        return activation.permute(0, 3, 1, 2)
    if layout == "tokens":
        h, w = _token_grid(activation.shape[1])
        return activation[:, activation.shape[1] - h * w :].transpose(1, 2).unflatten(2, (h, w))
    return activation


def _token_grid(tokens: int) -> tuple[int, int]:
    for count in (tokens, tokens - 1):
        side = math.isqrt(count)
        if side * side == count and side > 0:
            return side, side
    return 1, tokens


_KINDS: dict[str, Kind] = {
    **dict.fromkeys(["conv2d", "conv_transpose2d"], "convolution"),
    **dict.fromkeys(["linear", "addmm"], "linear"),
    **dict.fromkeys(ACTIVATIONS, "activation"),
    **dict.fromkeys(
        ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "lp_pool2d", "interpolate"], "pool"
    ),
    **dict.fromkeys(["batch_norm", "layer_norm", "group_norm", "instance_norm", "local_response_norm", "normalize"], "norm"),
    **dict.fromkeys(["add", "sub"], "add"),
    **dict.fromkeys(["cat", "concat", "stack"], "concat"),
    **dict.fromkeys(["mul", "truediv"], "multiply"),
    **dict.fromkeys(["multi_head_attention_forward", "scaled_dot_product_attention", "matmul", "bmm", "einsum"], "attention"),
    **dict.fromkeys(["softmax", "log_softmax"], "softmax"),
    **dict.fromkeys(DROPOUTS, "identity"),
    **dict.fromkeys(
        ["flatten", "view", "reshape", "permute", "transpose", "getitem", "squeeze", "unsqueeze", "contiguous", "chunk",
         "split", "pad", "roll", "unflatten"],
        "reshape",
    ),
}  # fmt: skip
