"""The sites of a network: its activations, by name and in running order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vizapp.engine.memory.peak import PeakMemory
from vizapp.engine.operations import ACTIVATIONS, DROPOUTS
from vizapp.engine.receptive_field.interval import ReceptiveField
from vizapp.engine.tap import first_tensor, operation_name
from vizapp.engine.trace.cells import CHANNEL_AXIS, Arrangement, CellsTrace, Layout
from vizapp.engine.trace.opaque_ops import OpaqueOpDetector
from vizapp.errors import VizError, nearest

Kind = Literal[
    "convolution", "linear", "activation", "pool", "resize", "norm", "add", "concat", "multiply", "attention", "softmax",
    "reshape", "identity", "other",
]  # fmt: skip


@dataclass(frozen=True)
class Site:
    """One activation that every pass produces: a layer, to people.

    Attributes:
        name: As torchvision's feature extraction spells it.
        kind: What the operation is.
        shape: Of one picture at the network's own input size, channels first: `(C, h, w)`, or `(C,)` for vectors.
        layout: How the operation itself lays it out: `"chw"`; `"hwc"` (Swin, ConvNeXt's inner layers); `"tokens"` `[T C]`
            (ViT); `"tokens-last"` `[C T]`; `"vector"`.
        operation: The torch function that made it.
        receptive_field: What its cells see of an input of the network's own size; None for sites that no pass was made for.
        prefix_tokens: Tokens at the front that the map leaves out: class, distillation and register tokens.
        suffix_tokens: Tokens at the end that the map leaves out.
        located: Whether the cells lie in the picture as in the map; those of attention matrices, of a shifted, transposed or
            one-sidedly padded map, and of regrouped tokens do not.
        calls: How many torch functions run under that name until the last one gives the result; more than one in some
            layers of torch.
        special: The tokens that the map leaves out, named after the parameters that they come from.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    layout: Layout
    operation: str
    receptive_field: ReceptiveField | None = field(default=None, compare=False, repr=False)
    prefix_tokens: int = 0
    suffix_tokens: int = 0
    located: bool = True
    calls: int = field(default=1, compare=False, repr=False)
    special: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def channels(self) -> int:
        """How many units the site has."""
        return self.shape[0]

    @property
    def is_map(self) -> bool:
        """Whether the site has cells, not channels alone."""
        return len(self.shape) == 3

    @property
    def rank(self) -> int:
        """How many axes the operation's own result has, that of the pictures included."""
        return {"chw": 4, "hwc": 4, "tokens": 3, "tokens-last": 3, "vector": 2}[self.layout]


@dataclass(frozen=True)
class Unit:
    """What is explained: a channel of a layer, at one cell or wherever it is strongest.

    Attributes:
        site: Name of the layer, as in `Network.sites`.
        channel: Number of the channel, from 0.
        cell: (row, column), or None for the cell with the largest activation.
    """

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
    memory, sizes, calls = PeakMemory(), dict[str, int](), Counter[str]()

    class Collect(CellsTrace):
        def operate(
            self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            calls[name] += 1
            with lookout.seen(operation_name(function), (args, kwargs)):
                output = super().operate(name, function, args, kwargs)
            tensor = first_tensor(output)
            seen = None if tensor is None else self.of(tensor)
            if tensor is not None and seen is not None and tensor.is_floating_point():
                memory.track(tensor)
                sizes[name] = max(sizes.get(name, 0), tensor.numel() * tensor.element_size())
                operation = operation_name(function)
                site = site_of(name, operation, tuple(tensor.shape), seen, self.arrangement(tensor))
                if site is not None:
                    found.pop(name, None)  # the last operation of a layer gives its result
                    found[name] = replace(site, calls=calls[name]) if calls[name] > 1 else site
            return output

    batch = batch.clone()
    memory.track(batch)
    trace = Collect(module, batch)
    lookout = OpaqueOpDetector(lambda tensor: trace.of(tensor) is not None)
    with torch.no_grad(), lookout, trace:
        module(batch)
    lookout.raise_if_any()
    return tuple(found.values()), Footprint(memory.peak, sum(sizes.values()))


def site_of(
    name: str, operation: str, shape: tuple[int, ...], seen: ReceptiveField, arrangement: Arrangement | None
) -> Site | None:
    """The site of an operation on one picture; None if its result is not a site.

    Args:
        name: Name of the site.
        operation: Name of the torch function.
        shape: Shape of its result.
        seen: Receptive field of the result.
        arrangement: Where its cells lie; None if that is not known.
    """
    if not shape or shape[0] != 1 or 0 in shape:
        return None
    seen, kind = seen.on_map(), kind_of(operation)
    if len(shape) == 2:
        return (
            Site(name, kind, shape[1:], "vector", operation, seen)
            if seen.rows.axis is seen.columns.axis is None
            else None
        )
    found = arrangement or _arrangement_by_field(shape, seen)
    if found is None:
        return None
    channels = shape[CHANNEL_AXIS[found.layout]]
    return Site(
        name, kind, (channels, *found.grid), found.layout, operation, seen, found.prefix, found.suffix, found.located,
        special=found.special,
    )  # fmt: skip


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


def _arrangement_by_field(shape: tuple[int, ...], seen: ReceptiveField) -> Arrangement | None:
    """A layout for cells that could not be followed: nothing is known of their places in the picture."""
    axes = (seen.rows.axis, seen.columns.axis) if seen.is_upright else (seen.columns.axis, seen.rows.axis)
    if len(shape) == 3 and axes == (None, None):
        return Arrangement("tokens", (1, shape[1]), located=False)
    if len(shape) == 4 and axes in ((2, 3), (1, 2)):
        return Arrangement("chw" if axes == (2, 3) else "hwc", (shape[axes[0]], shape[axes[1]]), located=False)
    if len(shape) == 4 and axes == (None, None):  # attention matrices, regrouped windows
        if shape[2] == shape[3] and shape[1] != shape[2]:
            return Arrangement("chw", (shape[2], shape[3]), located=False)
        if shape[1] == shape[2] and shape[2] != shape[3]:
            return Arrangement("hwc", (shape[1], shape[2]), located=False)
    return None


def channels_first(activation: Tensor, site: Site) -> Tensor:
    """The activation `[N …]` of a site as `[N C h w]`, or `[N C]` for vectors, without special tokens.

    Raises:
        VizError: it has another number of tokens than the site, as on an input of another size.
    """
    if site.layout == "hwc":
        return activation.permute(0, 3, 1, 2)
    if site.layout not in ("tokens", "tokens-last"):
        return activation
    tokens = activation if site.layout == "tokens-last" else activation.transpose(1, 2)
    height, width = site.shape[1:]
    if tokens.shape[2] != site.prefix_tokens + height * width + site.suffix_tokens:
        raise VizError(
            f"Layer {site.name!r} has {tokens.shape[2]} tokens on this input, and another number at the network's own size.",
            code="other-tokens",
        )
    return tokens[:, :, site.prefix_tokens : site.prefix_tokens + height * width].unflatten(2, (height, width))


def special_tokens(activation: Tensor, site: Site) -> Tensor:
    """The special tokens `[N C t]` of the activation of a site, in the order of their names `site.special`."""
    count = site.prefix_tokens + site.suffix_tokens
    if not count:
        return activation.new_empty(len(activation), site.channels, 0)
    tokens = activation if site.layout == "tokens-last" else activation.transpose(1, 2)
    return torch.cat([tokens[:, :, : site.prefix_tokens], tokens[:, :, tokens.shape[2] - site.suffix_tokens :]], 2)


def as_laid_out(maps: Tensor, site: Site) -> Tensor:
    """Maps `[N C h w]` in the axis order that the site's operation has, zero at special tokens."""
    if site.layout == "hwc":
        return maps.permute(0, 2, 3, 1)
    if site.layout in ("tokens", "tokens-last"):
        maps = nn.functional.pad(maps.flatten(2), (site.prefix_tokens, site.suffix_tokens))
        return maps.transpose(1, 2) if site.layout == "tokens" else maps
    return maps


_KINDS: dict[str, Kind] = {
    **dict.fromkeys(["conv2d", "conv_transpose2d"], "convolution"),
    **dict.fromkeys(["linear", "addmm"], "linear"),
    **dict.fromkeys(ACTIVATIONS, "activation"),
    **dict.fromkeys(
        ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "lp_pool2d"], "pool"
    ),
    **dict.fromkeys(["interpolate", "upsample"], "resize"),
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
