"""The kernel of a first layer as it slides over the photo's pixels and fills its map, cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np

from vizapp.components.data import packed, uri
from vizapp.engine.layers.convolution_call import ConvolutionCall, convolution_call
from vizapp.engine.trace.sites import Site
from vizapp.media.picture import Picture
from vizapp.ui.session import compute, messages
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_SIDE = 14  # cells of the map to each side, at most
_MOST_CHANNELS = 4  # of the photo


def draw(network: Network, picture: Picture, site: Site, channel: int, cell: tuple[int, int]) -> None:
    """Draw the kernel of a channel around a cell, if the layer is the first convolution or comes right after it.

    Args:
        network: The network.
        picture: The photo.
        site: The layer.
        channel: The channel.
        cell: A cell of the layer.
    """
    network = network.clean  # so that the sums are those of the map
    first = _first(network, site)
    if first is None or channel >= first.channels:
        return
    call = compute.compute(
        compute.key_of("sliding kernel", network, picture, site=first.name),
        lambda tick: convolution_call(network.module, network.prepare(picture), first.name), device=str(network.device),
    )  # fmt: skip
    if call is None or len(call.given) > _MOST_CHANNELS:
        return
    rows, columns = call.output.shape[1:]
    messages.heading("The sliding kernel")
    at = min(cell[0] * rows // site.shape[1], rows - 1), min(cell[1] * columns // site.shape[2], columns - 1)
    data = data_of(call, channel, at)
    down, across = call.window.stride
    step, shown = f"{down}" if down == across else f"{down} × {across}", " × ".join(map(str, data["cells"]))
    part = "" if data["cells"] == [rows, columns] else f" Here are {shown} cells of {rows} × {columns}."
    messages.info(
        f"Kernel {channel} of {first.name} moves over its input by {step}. At each place patch × kernel are summed, and the "
        f"bias is added.{part}"
    )
    component("kernel")(key="maps.kernel", data=data)


def _first(network: Network, site: Site) -> Site | None:
    """The first convolution, if the layer is a map that is computed from it and from no second one."""
    names = [one.name for one in network.sites]
    convolutions = [one for one in network.sites if one.kind == "convolution"]
    if not convolutions or not site.is_map or site.kind not in ("convolution", "norm", "activation"):
        return None
    start = names.index(convolutions[0].name)
    end = names.index(convolutions[1].name) if len(convolutions) > 1 else len(names)
    return convolutions[0] if start <= names.index(site.name) < end else None


def data_of(call: ConvolutionCall, channel: int, cell: tuple[int, int]) -> dict[str, Any]:
    """Data of the kernel component: up to 14 × 14 cells of the map around a cell, and the input that they read."""
    window, output = call.window, call.output[channel]
    sides = [min(_SIDE, size) for size in output.shape]
    top, left = (
        min(max(at - side // 2, 0), size - side) for at, side, size in zip(cell, sides, output.shape, strict=True)
    )
    reach = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilation, strict=True)]
    first = top * window.stride[0], left * window.stride[1]
    tall, wide = ((side - 1) * s + r for side, s, r in zip(sides, window.stride, reach, strict=True))
    given = call.given[:, first[0] : first[0] + tall, first[1] : first[1] + wide]
    rows, columns = np.arange(tall) + first[0] - window.before[0], np.arange(wide) + first[1] - window.before[1]
    outside = np.logical_or.outer(
        (rows < 0) | (rows >= window.inputs[0]), (columns < 0) | (columns >= window.inputs[1])
    )
    names = ["Red", "Green", "Blue"] if len(given) == 3 else ["Grey"] if len(given) == 1 else []
    return {
        "photo": uri(_picture(call, given, outside)), "given": packed(given), "size": [len(given), tall, wide],
        "kernel": packed(call.weight[channel]), "reach": list(window.kernel), "dilation": list(window.dilation),
        "stride": list(window.stride), "bias": float(call.bias[channel]),
        "map": packed(output[top : top + sides[0], left : left + sides[1]]), "cells": sides, "first": [top, left],
        "at": [cell[0] - top, cell[1] - left], "names": names or [f"Channel {n}" for n in range(len(given))],
        "outside": np.flatnonzero(outside).tolist(), "label": f"Kernel {channel} sliding over the photo",
    }  # fmt: skip


def _picture(call: ConvolutionCall, given: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """The input as a picture, each channel from its smallest to its largest value; padding grey."""
    low, high = (getattr(call.given, side)((1, 2), keepdims=True) for side in ("min", "max"))
    share = (given - low) / np.maximum(high - low, 1e-12)
    rgb = np.moveaxis(share if len(share) == 3 else np.repeat(share[:1], 3, 0), 0, 2)
    pixels = np.rint(255 * rgb).astype(np.uint8)
    pixels[outside] = 128
    return pixels
