"""Feature visualization by activation maximization: images optimized from noise to activate a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.chunks import is_out_of_memory
from vizapp.engine.optimize.activation_maximization import MaximizedImages, OptimizationConfig, Target, maximize
from vizapp.engine.optimize.image_parametrization import ImageParam
from vizapp.engine.trace.sites import Site, survey
from vizapp.errors import VizError
from vizapp.media.drawing import sheet
from vizapp.methods.base import Job, Method, Panel, Question, Result, check_unit
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.zoo.network import Network, memory_format

SMALLEST = 48  # pixels: the smallest automatic size
LARGEST = 1024
_CAUTION = (
    "Very many images activate the unit; which one is found depends on the initial noise and the regularizers. Photos that "
    "activate it may look quite different (Nguyen 2016; Olah 2017)."
)
# What networks raise for unsupported picture sizes.
_SIZE_ERRORS = (RuntimeError, ValueError, AssertionError, IndexError)


@dataclass(frozen=True)
class IdealParams(Params):
    """Objective, image parametrization, and regularization."""

    channels: str = knob("", "More channels of the same layer, such as 3, 7, 12; one picture each")
    direction: str = knob("", "A direction in channel space instead, such as 3:1, 7:-0.5")
    extent: Literal["map", "cell"] = knob(
        "map", "Maximize the mean of the map, or one cell (the unit's, or the middle one)"
    )
    size: int = knob(0, "Side of the picture; 0: a size that suits the layer", low=0, high=LARGEST, unit="px")
    steps: int = knob(128, "Optimization steps", low=1, high=4096)
    rate: float = knob(0.05, "Learning rate of the first step", low=0.0001, high=1.0)
    parameters: Literal["fourier", "pixels"] = knob("fourier", "Optimize the Fourier spectrum, or the pixels")
    colours: Literal["decorrelated", "plain"] = knob("decorrelated", "Decorrelated colour space of photos, or RGB")
    contrast: float = knob(0.15, "Largest RMS contrast", low=0.01, high=2.0)
    jitter: float = knob(0.04, "Random shift in each step, as a share of the receptive field", low=0.0, high=0.5)
    zoom: float = knob(0.05, "Random zoom in each step, up to this share", low=0.0, high=0.5)
    turn: float = knob(5.0, "Random rotation in each step, up to this angle", low=0.0, high=180.0, unit="degrees")
    variation: float = knob(0.0, "Weight of the total variation", low=0.0, high=100.0)
    l2: float = knob(0.0, "Weight of the squared distance from mid-grey", low=0.0, high=100.0)
    restarts: int = knob(1, "Pictures per unit, each from different noise", low=1, high=16)
    diversity: float = knob(0.5, "Weight of the difference from the other pictures of the unit", low=0.0, high=100.0)
    seed: int = knob(0, "Random seed for the noise and the transformations", low=0, high=2**31 - 1)


def ideal(question: Question, params: IdealParams, job: Job) -> Result:
    """Images optimized from noise to maximize the activation of the unit.

    The objective is the cell of the unit if it has one, else the mean of its map (or its middle cell, by `extent`), or the
    score of a class. `arrays`, an entry per picture, restarts of a channel in succession: `pictures` uint8 `[n H W 3]`;
    `activation` and `begun` `[n]`, for the finished picture and the initial noise; `channel` `[n]` (-1 for a direction);
    `curve` `[steps n]`, the activation in each step, with that step's random transformation; `stages` uint8 `[k n H W 3]`,
    the pictures after `stage_steps` `[k]`; `field` (top, left, bottom, right), the receptive field of the maximized cell,
    or the whole picture.
    """
    unit = question.require_unit()
    if params.direction and params.channels:
        raise VizError("Give channels or a direction, not both.", code="channels-and-direction")
    if params.direction:
        return maximize_targets(question, [Target(unit, read_direction(params.direction))], params, job)
    units = [unit, *(replace(unit, channel=channel) for channel in read_channels(params.channels))]
    return maximize_targets(question, [Target(unit) for unit in dict.fromkeys(units)], params, job)


def maximize_targets(question: Question, targets: Sequence[Target], params: IdealParams, job: Job) -> Result:
    """The pictures for several targets of one layer, optimized together, for the network of `question`.

    The arrays are those of `ideal`, with the restarts of each target in succession.

    Raises:
        VizError: a channel or cell that the layer does not have; a size that does not fit the network.
    """
    network = question.network.smooth
    site = network.site(targets[0].unit.site)
    targets = [replace(target, unit=replace(target.unit, site=site.name)) for target in targets]
    for target in targets:
        for channel, _ in target.terms:
            check_unit(network, replace(target.unit, channel=channel))
    height, width, sites = _size(network, site, targets, params.size)
    box = _box(next(one for one in sites if one.name == site.name), targets[0].unit.cell, params.extent, height, width)
    canvas = ImageParam(
        network.input_size[0], height, width, params.parameters, params.colours == "decorrelated", params.contrast,
        params.jitter * _seen(network, site, height, width), params.zoom, params.turn,
    )  # fmt: skip
    ascent = OptimizationConfig(
        params.steps, params.rate, params.extent, params.restarts, params.diversity, params.variation, params.l2, params.seed
    )  # fmt: skip
    painted = maximize(
        network.module, normaliser(network), targets, sites, canvas, ascent, network.device, network.dtype, job.report,
    )  # fmt: skip
    return _result(network, site, targets, painted, box, params)


def read_channels(text: str) -> list[int]:
    """Channel numbers from text such as `3, 7, 12`.

    Raises:
        VizError: it is not a list of whole numbers.
    """
    try:
        return [int(part) for part in text.replace(" ", "").split(",") if part]
    except ValueError:
        raise VizError(
            f"channels is {text!r}; write whole numbers with commas between them, as in 3, 7, 12.", code="bad-channels"
        ) from None


def read_direction(text: str) -> tuple[tuple[int, float], ...]:
    """Channels and weights from text such as `3:1, 7:-0.5`.

    Raises:
        VizError: it does not have that form, or all weights are zero.
    """
    wrong = VizError(
        f"direction is {text!r}; write CHANNEL:WEIGHT with commas between them, as in 3:1, 7:-0.5.",
        code="bad-direction",
    )
    terms: dict[int, float] = {}
    for part in text.replace(" ", "").split(","):
        channel, _, weight = part.partition(":")
        try:
            terms[int(channel)] = terms.get(int(channel), 0.0) + float(weight)
        except ValueError:
            raise wrong from None
    if not any(terms.values()) or not all(math.isfinite(weight) for weight in terms.values()):
        raise wrong
    return tuple(terms.items())


def normaliser(network: Network) -> Any:
    """A differentiable function from pictures `[n C H W]` from 0 to 1 to network inputs."""
    layout = memory_format(network.module)
    mean, std = network.preprocessing.constants(network.device, network.dtype)

    def normalise(pictures: Tensor) -> Tensor:
        return ((pictures - mean) / std).contiguous(memory_format=layout)

    return normalise


def _seen(network: Network, site: Site, height: int, width: int) -> int:
    """The side of the receptive field of a cell in pixels, at most that of the picture."""
    if not site.is_map:
        return min(height, width)
    return min(height, width, *network.receptive_field(site, *network.input_size[1:]).size)


def _size(network: Network, site: Site, targets: Sequence[Target], wanted: int) -> tuple[int, int, tuple[Site, ...]]:
    """Height and width of the pictures: as wanted; else the network's own, or less where the layer sees much less.

    Also the sites of the network on pictures of that size.
    """
    _, height, width = network.input_size
    if wanted:
        sites = _sites_at(network, site, wanted)
        if sites is None:
            raise VizError(
                f"{network.name} does not compute {site.name!r} on images of {wanted} x {wanted} pixels; "
                f"its own size is {height} x {width}.",
                code="bad-size",
            )
        return wanted, wanted, sites
    if site.is_map and all(target.unit.cell is None for target in targets):
        side = max(SMALLEST, 2 * _seen(network, site, height, width))
        if side < min(height, width) and (sites := _sites_at(network, site, side)) is not None:
            return side, side, sites
    return height, width, network.sites


def _sites_at(network: Network, site: Site, side: int) -> tuple[Site, ...] | None:
    """The sites on square pictures of that size; None if the network does not compute `site` on them."""
    if (side, side) == network.input_size[1:]:
        return network.sites
    blank = torch.zeros(1, network.input_size[0], side, side, dtype=network.dtype, device=network.device)
    try:
        sites = survey(network.module, blank)
    except (VizError, *_SIZE_ERRORS) as error:
        if not is_out_of_memory(error):
            return None
        raise
    same = (one for one in sites if (one.name, one.layout, one.channels) == (site.name, site.layout, site.channels))
    return sites if next(same, None) else None


def _box(site: Site, cell: tuple[int, int] | None, extent: str, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the receptive field of the maximized cell; the whole picture for more than a cell."""
    field = site.receptive_field
    if not site.is_map or (cell is None and extent == "map") or field is None or field.rows.axis is None:
        return 0, 0, height, width
    return field.inside(cell or (site.shape[1] // 2, site.shape[2] // 2))


def _pixels(pictures: Tensor) -> np.ndarray:
    """Pictures `[… C H W]` from 0 to 1 as uint8 `[… H W 3]`: of more than three channels three, of fewer the first."""
    scaled = pictures.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).movedim(-3, -1).cpu()
    grey = scaled.shape[-1] < 3
    return np.ascontiguousarray((scaled[..., :1].expand(*scaled.shape[:-1], 3) if grey else scaled[..., :3]).numpy())


def _result(
    network: Network, site: Site, targets: Sequence[Target], painted: MaximizedImages, box: tuple[int, int, int, int],
    params: IdealParams,
) -> Result:  # fmt: skip
    channels = [-1 if target.direction else target.unit.channel for target in targets for _ in range(params.restarts)]
    arrays = {
        "pictures": _pixels(painted.pictures),
        "activation": painted.activations.float().cpu().numpy(),
        "begun": painted.initial_activations.float().cpu().numpy(),
        "channel": np.array(channels, np.int64),
        "curve": painted.curve.float().cpu().numpy(),
        "stages": _pixels(painted.snapshots),
        "stage_steps": np.array(painted.snapshot_steps, np.int64),
        "field": np.array(box, np.int64),
    }
    names = _names(network, site, targets, params.restarts)
    numbers = zip(names, channels, arrays["begun"].tolist(), arrays["activation"].tolist(), strict=True)
    table = tuple({"unit": n, "channel": c, "begun": begun, "activation": reached} for n, c, begun, reached in numbers)
    panels = [
        Panel(name, pixels, f"Activation {row['activation']:.4g}, initially {row['begun']:.4g}.")
        for name, pixels, row in zip(names, arrays["pictures"], table, strict=True)
    ]
    if len(panels) > 1:
        columns = params.restarts if params.restarts > 1 else math.ceil(math.sqrt(len(panels)))
        panels.insert(0, Panel("sheet", sheet(list(arrays["pictures"]), columns, gap=4), "All pictures."))
    height, width = arrays["pictures"].shape[1:3]
    facts = {
        "unit": f"{', '.join(dict.fromkeys(names))}; maximized: {_excited(network, site, targets[0], params.extent)}"
        if len(names) < 20
        else f"{len(names)} pictures",
        "size": f"{width} x {height} pixels, {params.steps} steps, {params.parameters} parameters, seed {params.seed}",
        "caution": _CAUTION,
    }
    silent = int((arrays["activation"] == 0).sum())
    if silent:
        facts["silent"] = (
            f"{silent} of {len(names)} pictures do not activate their unit; try more steps or another seed."
        )
    return Result("ideal", arrays, tuple(panels), facts, table)


def _excited(network: Network, site: Site, target: Target, extent: str) -> str:
    """The objective in words."""
    if not site.is_map:
        return "its class score" if network.class_names(site) else "its activation"
    if target.unit.cell is not None:
        return "the chosen cell"
    return "the mean of its map" if extent == "map" else "the middle cell of its map"


def _names(network: Network, site: Site, targets: Sequence[Target], restarts: int) -> list[str]:
    names, classes = [], network.class_names(site)
    for target in targets:
        name = classes[target.unit.channel] if classes else f"{site.name}:{target.unit.channel}"
        if target.direction:
            name = f"{site.name}: " + ", ".join(f"{weight:g} x {channel}" for channel, weight in target.direction)
        names += [f"{name} ({again + 1})" if restarts > 1 else name for again in range(restarts)]
    return names


METHOD = Method(
    key="ideal",
    title="Feature visualization",
    source="Erhan et al. 2009; Simonyan et al. 2013; Olah, Mordvintsev & Schubert 2017",
    params=IdealParams,
    run=ideal,
    needs=frozenset({"unit"}),
    memory_hint="a smaller size or fewer restarts",
    shows=(Output("pictures", "images"), Output("curve", "curves", title="Activation in each step")),
)
