"""A network with some of its activations changed: units silenced, scaled, shifted or replaced, residual branches skipped."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from vizapp.engine.memory.chunks import convert_out_of_memory, in_chunks
from vizapp.engine.precision import arithmetic
from vizapp.engine.tap import Tap, check_computed, first_tensor
from vizapp.engine.trace.interventions import Change, branches, intervene
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, nearest, quoted
from vizapp.media.picture import Picture, open_picture
from vizapp.media.source import Source
from vizapp.media.sources import open_folder
from vizapp.zoo.network import Network

Operation = Literal["scale", "mean", "add", "freeze", "skip"]
LARGEST_FACTOR = 3.0
_AT_ONCE = 32  # photos that a mean takes in one pass
_SIGNS = {"scale": "×", "add": "+", "mean": "=", "freeze": "=", "skip": "×"}


@dataclass(frozen=True)
class Intervention:
    """A change of some units in every pass of a network (Zhou, Sun, Bau & Torralba 2018).

    Attributes:
        site: Name of the layer.
        channels: A channel, several, or None for all.
        operation: What is done; see below.
        value: What it is done with; see below.
        cells: (row, column) pairs, or None for the whole map, special tokens of a transformer included.

    Operations and their values:

    - `"scale"`: times a factor from 0 to 3. 0 silences the unit.
    - `"add"`: plus a number.
    - `"mean"`: replaced by a number, by a number per channel, or by each unit's mean over all cells of some photos (a folder,
      or anything that `open_folder` takes). With the default of 0, over the folder of the question.
    - `"freeze"`: replaced by what a photo (or anything that `open_picture` takes) gives there in the unchanged network.
    - `"skip"`: zero at all channels and cells. The site must be a residual branch: additions read it, and nothing else does.
    """

    site: str
    channels: int | Sequence[int] | None = None
    operation: Operation = "scale"
    value: Any = 0.0
    cells: Sequence[tuple[int, int]] | None = None


def under(
    network: Network,
    interventions: Sequence[Intervention],
    folder: Source | None = None,
    tick: Callable[[float], None] | None = None,
) -> Network:
    """The network under some interventions: what every method takes. The network itself and its module stay as they are.

    Several at one site apply in the order given. A network that is under some already gets these in addition. Means and frozen
    values are those of the network without any. `folder`: the photos of a mean that names none.

    Raises:
        VizError: no such layer, channel or cell; a value that the operation does not take; a mean without photos; the layer is
            no residual branch.
        DoesNotFit: not enough memory for a pass over a photo.
    """
    if not interventions:
        return network
    clean, changes, told = network.clean, [], []
    digest = hashlib.sha256(network.digest.encode())
    with convert_out_of_memory(f"interventions with {network.name}"), arithmetic(clean.device, "exact"):
        for each in interventions:
            if not isinstance(each, Intervention):
                raise VizError(
                    f"An intervention is a {type(each).__name__}; give vizapp.Intervention(layer, channels, operation, value).",
                    code="not-an-intervention",
                )
            change, text = _change(clean, each, folder, tick)
            changes.append(change)
            told.append(text)
            digest.update(repr((change.site.name, change.channels, change.operation, change.cells)).encode())
            digest.update(torch.as_tensor(change.value).detach().cpu().double().numpy().tobytes())
    earlier = [network.interventions] if network.interventions else []
    texts = [network.facts.get("set", ""), *map(intervention_text, interventions)]
    return replace(
        network,
        module=intervene(network.module, changes),
        unchanged=clean,
        interventions="; ".join(earlier + told),
        facts=network.facts | {"set": "\n".join(filter(None, texts))},
        derived_digest=f"{digest.hexdigest()}-{clean.digest}",  # what is forgotten with the network, is by its digest
    )


def _change(
    network: Network, given: Intervention, folder: Source | None, tick: Callable[[float], None] | None
) -> tuple[Change, str]:
    """What the engine does, and how facts tell it."""
    if given.operation not in get_args(Operation):
        raise VizError(
            f"There is no intervention {quoted(given.operation)}.{nearest(str(given.operation), get_args(Operation))} "
            f"Interventions: {', '.join(get_args(Operation))}.",
            code="no-such-intervention",
        )
    site = network.site(given.site)
    if given.operation == "skip":
        _check_branch(network, site)
        return Change(site, None, "scale", 0.0), f"{site.name}: branch skipped"
    channels, cells = _channels(given.channels, site), _cells(given.cells, site)
    where = named_place(site.name, channels, cells)

    def made(operation: Literal["scale", "add", "replace"], value: Any, told: str) -> tuple[Change, str]:
        return Change(site, channels, operation, value, cells), f"{where} {_SIGNS[given.operation]} {told}"

    if given.operation == "freeze":
        picture = _frozen_picture(given.value, site)
        return made("replace", _activation(network, picture, site), f"values on {picture.name}")
    if given.operation == "mean":
        values, told = _mean(network, site, channels or range(site.channels), given.value, folder, tick)
        return made("replace", torch.from_numpy(values), told)
    number = _number(given.value, given.operation, site)
    if given.operation == "scale" and not 0 <= number <= LARGEST_FACTOR:
        raise VizError(
            f"The factor of an intervention is {number:g}; it must be a number from 0 to {LARGEST_FACTOR:g}.",
            code="bad-factor",
        )
    return made("scale" if given.operation == "scale" else "add", number, f"{number:g}")


def _channels(given: Any, site: Site) -> tuple[int, ...] | None:
    if given is None:
        return None
    try:
        found = tuple(map(operator.index, given)) if np.iterable(given) else (operator.index(given),)
    except TypeError:
        raise VizError(
            f"The channels of an intervention are {quoted(given)}; give a whole number, a list of them, or None for all.",
            code="no-such-channel",
        ) from None
    wrong = [channel for channel in found if not 0 <= channel < site.channels]
    if wrong or not found:
        what = quoted(wrong[0]) if wrong else "none"
        raise VizError(
            f"Layer {site.name!r} has channels 0 to {site.channels - 1}, not {what}.", code="no-such-channel"
        )
    return tuple(dict.fromkeys(found))


def _cells(given: Any, site: Site) -> tuple[tuple[int, int], ...] | None:
    if given is None:
        return None
    if not site.is_map:
        raise VizError(f"Layer {site.name!r} is a vector without cells; change its channels alone.", code="no-cells")
    try:
        found = tuple((operator.index(row), operator.index(column)) for row, column in given)
    except (TypeError, ValueError):
        raise VizError(
            f"The cells of an intervention are {quoted(given)}; give a list of (row, column), or None for all.",
            code="no-such-cell",
        ) from None
    height, width = site.shape[1:]
    wrong = [f"{row},{column}" for row, column in found if not (0 <= row < height and 0 <= column < width)]
    if wrong or not found:
        raise VizError(
            f"Layer {site.name!r} has cells 0,0 to {height - 1},{width - 1}, not {wrong[0] if wrong else 'none'}.",
            code="no-such-cell",
        )
    return tuple(dict.fromkeys(found))


def _number(value: Any, operation: str, site: Site) -> float:
    try:
        number = math.nan if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise VizError(
            f"The value of intervention {operation!r} at layer {site.name!r} is {quoted(value)}; it must be a number.",
            code="bad-factor",
        )
    return number


def _mean(
    network: Network, site: Site, channels: Sequence[int], value: Any, folder: Source | None,
    tick: Callable[[float], None] | None,
) -> tuple[np.ndarray, str]:  # fmt: skip
    """One number, or one per channel: as given, or its mean over photos; and what they are."""
    asked = isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0
    if isinstance(value, (str, Path, Source)) or (asked and folder is not None):
        photos = folder if asked else value if isinstance(value, Source) else open_folder(value)
        assert photos is not None
        means, count = _means_over(network, site, photos, tick)
        return means[list(channels)], f"mean over {count} photos of {photos.name}"
    if asked:
        raise VizError(
            f"The mean of layer {site.name!r} is over which photos? Give the intervention a folder, a number, or a number per "
            "channel as its value, or the question a folder.",
            code="intervention-without-photo",
        )
    if not np.iterable(value):
        number = _number(value, "mean", site)
        return np.asarray(number), f"{number:g}"
    numbers = np.array([_number(one, "mean", site) for one in value])
    if len(numbers) != len(channels):
        raise VizError(
            f"The mean at layer {site.name!r} has {len(numbers)} numbers for {len(channels)} channels; give one for each.",
            code="bad-factor",
        )
    return numbers, "given means"


def _means_over(
    network: Network, site: Site, photos: Source, tick: Callable[[float], None] | None
) -> tuple[np.ndarray, int]:
    """The mean of each channel over all cells of all photos that can be read, float64 `[C]`, and how many these are."""
    total, number = np.zeros(site.channels), 0

    def run(part: Sequence[int]) -> tuple[np.ndarray, int]:
        pictures = [picture for _, picture in photos.open_readable(part)]
        if not pictures:
            return np.zeros(site.channels), 0
        values = observe(network.module, network.batch([network.crop(one) for one in pictures]), [site])[site.name]
        means = values.double() if values.ndim == 2 else values.double().mean((2, 3))
        return means.sum(0).cpu().numpy(), len(pictures)

    stay = None if tick is None else lambda share: tick(0.0)  # the method reports the progress
    for sums, count in in_chunks(range(len(photos)), run, network.batch_limit(_AT_ONCE), stay):
        total, number = total + sums, number + count
    if not number:
        raise VizError(f"No photo of {photos.name} can be read, so there is no mean.", code="no-pictures")
    return total / number, number


def _frozen_picture(value: Any, site: Site) -> Picture:
    if isinstance(value, (int, float)):
        raise VizError(
            f"Layer {site.name!r} is frozen to its value on which photo? Give a photo as the value of the intervention.",
            code="intervention-without-photo",
        )
    return open_picture(value)


def _activation(network: Network, picture: Picture, site: Site) -> torch.Tensor:
    """What the site's operation gives for a picture, `[1 …]` as it lays it out."""
    with torch.no_grad(), Tap(network.module, {site.name}) as tap:
        network.module(network.prepare(picture))
    check_computed([site.name], tap.kept)
    found = first_tensor(tap.kept[site.name])
    assert found is not None
    return found.detach()


def _check_branch(network: Network, site: Site) -> None:
    batch = torch.zeros(1, *network.input_size, dtype=network.dtype, device=network.device)
    known = branches(network.module, batch)
    if site.name not in known:
        listed = nearest(site.name, known) or (f" Residual branches: {', '.join(known[:6])}." if known else "")
        raise VizError(
            f"Layer {site.name!r} is no residual branch: its result does not go into an addition alone.{listed}",
            code="no-branch",
        )


def intervention_text(given: Intervention) -> str:
    """The text that `intervention_text.read_intervention` reads as this intervention; photos and folders are named."""
    channels = channel_list(given.channels)
    named = "all" if channels is None else ",".join(channel_runs(channels))
    cells = "".join(f"@{row},{column}" for row, column in given.cells or ())
    is_number = isinstance(given.value, (int, float))
    value = f"{given.value:g}" if is_number else str(getattr(given.value, "name", given.value))
    if given.operation != "scale":
        is_bare = given.operation == "skip" or (is_number and given.value == 0)
        value = given.operation if is_bare else f"{given.operation}:{value}"
    return f"{given.site}:{named}{cells}={value}"


def channel_list(channels: int | Sequence[int] | None) -> Sequence[int] | None:
    """The channels of an intervention as a list; None for all."""
    return channels if channels is None or isinstance(channels, Sequence) else [channels]


def named_place(site: str, channels: Sequence[int] | None, cells: Sequence[tuple[int, int]] | None) -> str:
    """The changed units in words: `features.10: channels 3, 7 at 2,5`."""
    named = (
        "all channels"
        if channels is None
        else f"channel{'s' * (len(channels) > 1)} {', '.join(channel_runs(channels))}"
    )
    return f"{site}: {named}" + "".join(f" at {row},{column}" for row, column in cells or ())


def channel_runs(channels: Sequence[int]) -> Iterator[str]:
    """Channels in ascending order as text: `3`, and `5-9` for several in a row."""
    ordered = sorted(channels)
    start = 0
    for place, channel in enumerate(ordered):
        if place + 1 < len(ordered) and ordered[place + 1] == channel + 1:
            continue
        first = ordered[start]
        yield f"{first}" if first == channel else f"{first}-{channel}"
        start = place + 1
