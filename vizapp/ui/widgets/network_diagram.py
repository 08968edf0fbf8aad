"""The network as a row of at most 40 boxes: grouping of the sites, and size of each box."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from vizapp.engine.trace.sites import Site

MOST_BLOCKS = 40
_SHOWN = {"convolution", "activation", "pool", "norm", "linear"}


@dataclass(frozen=True)
class Block:
    """Consecutive sites that are drawn as one box."""

    name: str
    sites: tuple[Site, ...]

    @property
    def kind(self) -> str:
        """The main kind of the block, one of the kinds with a colour."""
        kinds = [shown_kind(site) for site in self.sites]
        return next((kind for kind in ("convolution", "linear") if kind in kinds), kinds[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """The output shape of the block."""
        return self.sites[-1].shape


def shown_kind(site: Site) -> str:
    """The site's kind, or "other" for kinds without a colour of their own."""
    return site.kind if site.kind in _SHOWN else "other"


def blocks(sites: Sequence[Site], most: int = MOST_BLOCKS) -> tuple[Block, ...]:
    """The finest grouping of `sites` into at most `most` blocks, in execution order.

    Tried from fine to coarse: single sites; normalizations and activations with the layer before them; sites of a module
    of a given depth; runs of such modules under one parent. Every site is in exactly one block.
    """
    depth = max((site.name.count(".") + 1 for site in sites), default=1)
    attempts: list[tuple[Block, ...]] = [tuple(Block(site.name, (site,)) for site in sites), _with_layer_before(sites)]
    for level in range(depth - 1, 0, -1):
        modules = _by(sites, lambda site, level=level: _prefix(site.name, level))  # type: ignore[misc]
        attempts += [modules] + [_runs(modules, length, level) for length in range(2, 9)]
    fitting = [attempt for attempt in attempts if len(attempt) <= most]
    if fitting:
        return max(fitting, key=len)
    length = math.ceil(len(sites) / most)
    return tuple(_merged(sites[i : i + length]) for i in range(0, len(sites), length))


def _prefix(name: str, level: int) -> str:
    return ".".join(name.split(".")[:level])


def _by(sites: Sequence[Site], name: Callable[[Site], str]) -> tuple[Block, ...]:
    return tuple(Block(key, tuple(group)) for key, group in groupby(sites, key=name))


def _with_layer_before(sites: Sequence[Site]) -> tuple[Block, ...]:
    groups: list[list[Site]] = []
    for site in sites:
        follows = groups and site.kind in {"norm", "activation"} and _parent(site.name) == _parent(groups[-1][0].name)
        if follows and groups[-1][0].kind in {"convolution", "linear"}:
            groups[-1].append(site)
        else:
            groups.append([site])
    return tuple(Block(group[0].name, tuple(group)) for group in groups)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _runs(modules: Sequence[Block], length: int, level: int) -> tuple[Block, ...]:
    """Up to `length` neighbouring modules under one parent become one block; sites of the top level stay alone."""
    found: list[Block] = []
    for parent, group in groupby(modules, key=lambda block: _parent(block.name)):
        members = list(group)
        if not parent or level == 1:
            found += members
            continue
        for start in range(0, len(members), length):
            run = members[start : start + length]
            name = run[0].name if len(run) == 1 else f"{run[0].name}–{run[-1].name.rpartition('.')[2]}"
            found.append(Block(name, tuple(site for block in run for site in block.sites)))
    return tuple(found)


def _merged(sites: Sequence[Site]) -> Block:
    return Block(f"{sites[0].name}–{sites[-1].name}" if len(sites) > 1 else sites[0].name, tuple(sites))


def drawing(sites: Sequence[Site], chosen: str | None) -> dict[str, Any]:
    """Data of the diagram component. Height grows with the side of the map (square root), width with the channels (log)."""
    largest = max((max(site.shape[1:]) for site in sites if site.is_map), default=1)
    return {"chosen": chosen, "blocks": [_box(block, largest) for block in blocks(sites)]}


def _box(block: Block, largest: int) -> dict[str, Any]:
    inner = _inner(block)
    channels = math.log2(max(block.shape[0], 1) + 1)
    if len(block.shape) == 3:
        height, width = math.sqrt(max(block.shape[1:]) / largest), 3 + 1.6 * channels
    else:
        height, width = 0.1 + 0.05 * channels, 6.0
    return {
        "name": block.name,
        "group": block.name.split(".")[0].split("–")[0],
        "label": _short(block.name),
        "kind": block.kind,
        "shape": list(block.shape),
        "height": round(min(height, 1.0), 3),
        "width": round(width, 1),
        "parts": [_part(site, inner) for site in block.sites],
    }


def _part(site: Site, inner: int) -> dict[str, Any]:
    label = ".".join(site.name.split(".")[inner:])
    what = "" if site.kind == "other" else site.kind  # which says nothing, of a target least of all
    return {"name": site.name, "label": label, "kind": shown_kind(site), "what": what, "shape": list(site.shape)}


def _short(name: str) -> str:
    """The last part of the name of a block: `conv1`, `0`, `0–1`."""
    first, dash, last = name.partition("–")
    return f"{first.rpartition('.')[2]}{dash}{last}"


def _inner(block: Block) -> int:
    """How many leading parts of their names all sites of the block share."""
    split = [site.name.split(".")[:-1] for site in block.sites]
    shared = 0
    while all(len(parts) > shared and parts[shared] == split[0][shared] for parts in split):
        shared += 1
    return shared
