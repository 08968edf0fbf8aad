"""Where numbers of a pass come from, through the operations that only move them, and at which sites they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.arithmetic.kinds import base_name, is_move
from vizapp.engine.arithmetic.operands import OperandRecording, is_number
from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.operations import IDENTITIES
from vizapp.engine.trace.recording import Step, ValueRef, map_leaves
from vizapp.engine.trace.sites import Site

Ints = np.ndarray
NOWHERE = -1  # of a constant, such as padding


class Origin(NamedTuple):
    """For each of n numbers the value that it was first seen in, and its place there (`NOWHERE` for constants); each `[n]`.

    `padded`: whether an operation before the sum put it around the map, such as the mirrored cells of a reflecting padding.
    """

    values: Ints
    places: Ints
    padded: Ints


class Places(NamedTuple):
    """For each of n numbers its site ("" if none), channel, row and column (-1 if none); each `[n]`."""

    sites: list[str]
    channels: Ints
    rows: Ints
    columns: Ints


@dataclass(frozen=True)
class Origins:
    """Follows numbers of a recorded pass. `sites`: those of the network, by name."""

    recording: OperandRecording
    sites: Mapping[str, Site]

    @cached_property
    def names(self) -> dict[int, str]:
        """The site whose activation a value is."""
        last = {step.name: step.outputs[0] for step in self.recording.steps if step.name in self.sites}
        rank = {name: self.sites[name].rank for name in last}
        shapes = self.recording.shapes
        return {value: name for name, value in last.items() if len(shapes[value]) == rank[name]}

    def step_of(self, value: int) -> Step | None:
        """The step that made a value; None for the photo."""
        return self.recording.makers.get(value)

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape of a value, that of the batch included."""
        return self.recording.shapes[value]

    def moved(self, step: Step, output: int, places: Ints, around: bool = False) -> tuple[Ints, Ints]:
        """The values and places `[n]` that a move took the numbers at `places` `[n]` of its result `output` from.

        `around`: what a padding puts around a map counts as a constant, even if it repeats numbers of the map.
        """
        shapes, offsets, total = dict[int, tuple[int, ...]](), dict[int, int](), 1  # 0: what a move fills up with
        for value in dict.fromkeys(step.reads):
            if is_number(self.recording.dtypes[value]):
                shapes[value], offsets[value] = self.shape(value), total
                total += int(np.prod(shapes[value]))
        if len(shapes) == 1 and base_name(step) in IDENTITIES:
            return np.full(len(places), next(iter(shapes))), places

        def numbered(leaf: Any) -> Any:
            if isinstance(leaf, ValueRef):
                if leaf.value not in shapes:  # a mask or an index
                    return self.recording.numbers[leaf.value]
                first, shape = offsets[leaf.value], shapes[leaf.value]
                return torch.arange(first, first + int(np.prod(shape)), dtype=torch.float64).view(shape)
            if isinstance(leaf, Tensor):
                constant = is_number(leaf.dtype)
                return torch.full(leaf.shape, -1.0, dtype=torch.float64) if constant else leaf.cpu()
            return -1.0 if isinstance(leaf, float) else leaf

        args, kwargs = map_leaves(step.args, numbered), map_leaves(step.kwargs, numbered)
        if base_name(step) == "pad":
            mode = "constant" if around else argument(args, kwargs, 2, "mode", "constant")
            filled = {"value": -1.0} if mode == "constant" else {}
            args, kwargs = (args[0], argument(args, kwargs, 1, "pad", ())), {"mode": mode, **filled}
        elif base_name(step) == "setitem" and not isinstance(args[2], Tensor):
            args = (*args[:2], -1.0)
        results = list(tensors_in((function_result(step.function, args, kwargs, base_name(step) == "setitem"),)))
        ids = results[step.outputs.index(output)].flatten()[torch.from_numpy(places)].long().numpy()
        values, found = np.full(len(places), NOWHERE), np.full(len(places), NOWHERE)
        for value, first in offsets.items():
            inside = (ids >= first) & (ids < first + int(np.prod(shapes[value])))
            values[inside], found[inside] = value, ids[inside] - first
        return values, found

    def of(self, value: int, places: Ints) -> Origin:
        """Where the numbers at `places` `[n]` of a value were before any moves.

        Where nothing before the moves is a site, the first site on the way counts.
        """
        values, found = np.full(len(places), value), places.copy()
        padded = np.zeros(len(places), bool)
        step = self.step_of(value)
        if step is None or not is_move(step):
            return Origin(values, found, padded)
        before, there = self.moved(step, value, places)
        if base_name(step) == "pad":
            padded = self.moved(step, value, places, around=True)[0] == NOWHERE
        found = np.full(len(places), NOWHERE)
        values = before.copy()
        for source in np.unique(before[before != NOWHERE]).tolist():
            here = before == source
            earlier = self.of(source, there[here])
            values[here], found[here] = earlier.values, earlier.places
            padded[here] |= earlier.padded
        if value in self.names:
            lost = (values != NOWHERE) & ~np.isin(values, [*self.names, 0])
            if base_name(step) != "pad":  # a number that was replaced is still one of the layer
                lost |= before == NOWHERE
            values[lost], found[lost] = value, places[lost]
        return Origin(values, found, padded)

    def places(self, origin: Origin) -> Places:
        """The sites and cells of numbers; of the photo, its pixels, without a site."""
        count = len(origin.values)
        sites, channels = [""] * count, np.full(count, -1)
        rows, columns = np.full(count, -1), np.full(count, -1)
        for value in np.unique(origin.values).tolist():
            here = np.flatnonzero(origin.values == value)
            if value == NOWHERE:
                continue
            where = np.unravel_index(origin.places[here], self.shape(value) or (1,))  # a single number has no axes
            name = self.names.get(value, "")
            if name or value == 0:
                site = self.sites[name] if name else None
                channels[here], rows[here], columns[here] = _cells(site, where)
                for number in here.tolist():
                    sites[number] = name
        return Places(sites, channels, rows, columns)


def function_result(function: Callable[..., Any], args: Any, kwargs: Any, writes: bool) -> Any:
    """What a recorded function gives, on the CPU; `setitem` gives nothing but writes into its first argument."""
    with torch.no_grad():
        output = function(*args, **kwargs)
    return args[0] if writes else output


def place_of(site: Site, channel: int, cell: tuple[int, int] | None, shape: tuple[int, ...]) -> int:
    """The place in an activation `shape`, flattened, of a unit of the site."""
    row, column = cell or (0, 0)
    token = site.prefix_tokens + row * (site.shape[2] if site.is_map else 0) + column
    where = {
        "chw": (0, channel, row, column), "hwc": (0, row, column, channel), "tokens": (0, token, channel),
        "tokens-last": (0, channel, token), "vector": (0, channel),
    }[site.layout]  # fmt: skip
    return int(np.ravel_multi_index(where, shape))


def _cells(site: Site | None, where: tuple[Ints, ...]) -> tuple[Ints, Ints, Ints]:
    """Channels, rows and columns of indices by axis; special tokens have none."""
    if site is None or site.layout == "chw":
        return where[1], where[2], where[3]
    if site.layout == "hwc":
        return where[3], where[1], where[2]
    none = np.full(len(where[0]), -1)
    if site.layout == "vector":
        return where[1], none, none
    token, channel = (where[1], where[2]) if site.layout == "tokens" else (where[2], where[1])
    number, width = token - site.prefix_tokens, site.shape[2]
    inside = (number >= 0) & (number < site.shape[1] * width)
    return channel, np.where(inside, number // width, -1), np.where(inside, number % width, -1)
