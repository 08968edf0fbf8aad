"""Early to late: the strongest feature maps of a photo at a few layers, from the first to the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError
from vizapp.media.drawing import contrasted, crop_box, heat, narrow, sheet
from vizapp.media.transforms import resize
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.projection import ProjectionParams, depth_of, project_units, revealing_rule
from vizapp.zoo.network import Network

FEWEST, MOST = 4, 6  # layers
_TILE = 96  # pixels of the side of a tile in the panel
_KINDS = {"activation", "add", "concat", "norm"}


@dataclass(frozen=True)
class StagesParams(Params):
    """How many maps of each layer, and whether its strongest unit is projected."""

    maps: int = knob(6, "Number of feature maps per layer, the strongest first", low=1, high=32)
    project: bool = knob(
        True,
        "Project the strongest unit of each layer to the pixels (deconvnet; guided if there is no max pool)",
    )


def stage_sites(network: Network) -> tuple[Site, ...]:
    """The last feature maps of each size, in running order; evenly spaced ones where there are fewer or more sizes than fit."""
    maps = _maps(network)
    last = sorted({site.shape[1:]: site for site in maps}.values(), key=maps.index)
    if len(last) < FEWEST:
        count = min(FEWEST + 1, len(maps))
        return tuple(maps[(number + 1) * len(maps) // count - 1] for number in range(count))
    return _spread(last)


def depth_sites(network: Network) -> tuple[Site, ...]:
    """Feature maps from the first to the last, evenly by depth: ends of blocks (sums, concatenations), else activations."""
    maps = _maps(network)
    activations = [site for site in maps if site.kind == "activation"] or maps
    later = maps[maps.index(activations[0]) :] if maps else []
    joined = [site for site in later if site.kind in ("add", "concat")]
    chosen = joined if len(joined) >= FEWEST else activations
    return _spread(list(dict.fromkeys([*later[:1], *chosen, *later[-1:]])))


def _maps(network: Network) -> list[Site]:
    """The feature maps after activations, sums, concatenations and norms; without those, all."""
    maps = [site for site in network.sites if site.is_map and site.located and site.shape[1] * site.shape[2] > 1]
    maps = [site for site in maps if site.channels != len(network.categories)] or maps  # not class maps
    return [site for site in maps if site.kind in _KINDS] or maps


def _spread(sites: Sequence[Site]) -> tuple[Site, ...]:
    """At most `MOST` of the layers, evenly spaced from the first to the last."""
    places = np.linspace(0, len(sites) - 1, min(MOST, len(sites))).round().astype(int)
    return tuple(sites[place] for place in places)


def excited(seen: np.ndarray, down: np.ndarray, box: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """What excites a unit, uint8 `[h w 3]` each: the part of the crop `seen`, and its projection `down`.

    It is what the unit's cell sees (`box`), without the surroundings that hardly matter (`narrow`).
    """
    (inner,) = narrow([crop_box(down, box, outside=0)])
    return crop_box(crop_box(seen, box), inner), crop_box(crop_box(contrasted(down), box), inner)


def early_to_late(question: Question, params: StagesParams, job: Job) -> Result:
    """The strongest feature maps of a few layers from early to late, and what excites the strongest unit of each.

    `arrays`, for the layers in running order: `maps_1` and so on `[k h w]`, their strongest maps (by peak, then variance);
    `channels` `[layers k]`, the numbers of these (-1 where a layer has fewer), and `strength` `[layers k]`, their largest
    activations; `field` `[layers 2]`, height and width of the receptive fields in input pixels (0 if unknown). With `project`
    also `projection` `[layers H W 3]`, the strongest unit by the rule of `revealing_rule` (NaN where it has none), and
    `boxes` `[layers 4]`, what that unit's cell sees (top, left, bottom, right). `table`: a row per layer.
    """
    network, picture = question.network, question.require_picture()
    sites = stage_sites(network)
    found = observe(network.module, network.prepare(picture), sites)
    job.report(0.2)
    seen, arrays, table, rows = network.seen(picture), dict[str, Any](), [], []
    shape, by = (len(sites), params.maps), ProjectionParams(rule=revealing_rule(network))
    channels, strength = np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32)
    fields, boxes = np.zeros((len(sites), 2), np.int64), np.zeros((len(sites), 4), np.int64)
    down, without = np.full((len(sites), *seen.shape[:2], depth_of(network)), np.nan, np.float32), dict[str, str]()
    for n, site in enumerate(sites):
        values = found[site.name][0].float().cpu().numpy().astype(np.float32)
        # Many channels reach the bound of a ReLU6; those that vary most are first.
        order = np.lexsort((-values.std((1, 2)), -np.nan_to_num(values.max((1, 2)), nan=-np.inf)))[: params.maps]
        arrays[f"maps_{n + 1}"] = values[order]
        channels[n, : len(order)], strength[n, : len(order)] = order, values[order].max((1, 2))
        fields[n] = (0, 0) if site.receptive_field is None else site.receptive_field.size
        rows.append([resize(heat(values[channel]), _TILE, _TILE, "nearest") for channel in order])
        if params.project:
            try:
                one = project_units(question, [Unit(site.name, int(order[0]))], by, Job()).arrays
                boxes[n], down[n] = one["field"][0], one["projection"][0]
                pair = excited(seen, down[n], boxes[n].tolist())
                rows[n] += [resize(np.ascontiguousarray(pixels), _TILE, _TILE) for pixels in pair]
            except VizError as error:
                without[site.name] = str(error)
        table.append(
            {
                "layer": site.name, "rows": site.shape[1], "columns": site.shape[2], "channels": site.channels,
                "field height": int(fields[n, 0]), "field width": int(fields[n, 1]), "strongest": int(order[0]),
                "activation": float(strength[n, 0]),
            }
        )  # fmt: skip
        job.report(0.2 + 0.8 * (n + 1) / len(sites))
    arrays |= {"channels": channels, "strength": strength, "field": fields}
    arrays |= {"projection": down, "boxes": boxes} if params.project else {}
    width = max(map(len, rows))
    blank = np.full((_TILE, _TILE, 3), 255, np.uint8)
    drawn = sheet([tile for row in rows for tile in row + [blank] * (width - len(row))], width, gap=2)
    facts = {"layers": ", ".join(site.name for site in sites)}
    facts |= {"rule": by.rule} if params.project else {}
    facts |= {"not projected": " ".join(f"{name}: {why}" for name, why in without.items())} if without else {}
    return Result(
        "stages", arrays, (Panel("stages", drawn, f"From early to late: {facts['layers']}."),), facts, tuple(table)
    )


def _incompatibility(question: Question) -> str | None:
    return None if stage_sites(question.network) else f"{question.network.name} has no feature maps."


METHOD = Method(
    key="stages",
    title="Early to late",
    source="Zeiler & Fergus 2013, section 4 and figure 2",
    params=StagesParams,
    run=early_to_late,
    incompatibility=_incompatibility,
    shows=(Output("table", "table"),),
)
