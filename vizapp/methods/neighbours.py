"""The photos of a folder, or the parts of its photos, whose features are nearest to those of a photo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError, plural
from vizapp.gallery.reader import load_crop
from vizapp.gallery.search_features import Nearest, nearest
from vizapp.gallery.tables import cell_boxes
from vizapp.media.drawing import crop_box, draw_box, exceeds, sheet
from vizapp.media.source import Source
from vizapp.media.stacks import shown_values
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.photo_features import FolderFeatures, default_site, folder_features
from vizapp.methods.tables import to_csv
from vizapp.zoo.network import Network

_SHOWN = 24  # most photos in the panel
_FEATURES = {
    "pooled": "means over the cells of the map",
    "flat": "the whole map",
    "cell": "one cell of the map, compared with all cells of all photos",
}


@dataclass(frozen=True)
class NeighbourParams(Params):
    """Which features are compared, and how."""

    site: str = knob("", "Layer; empty: the last hidden layer, or the last feature map for cells")
    k: int = knob(6, "Number of neighbours", low=1, high=10_000)
    of: Literal["pooled", "flat", "cell"] = knob(
        "pooled", "Compare maps averaged over their cells, whole maps, or one cell with all cells of the folder"
    )
    metric: Literal["euclidean", "cosine"] = knob("euclidean", "Euclidean distance, or 1 minus the cosine")


def neighbours(question: Question, params: NeighbourParams, job: Job) -> Result:
    """The photos of a folder with the features nearest to those of the photo, or the patches nearest to one of its cells.

    Features are those of a layer: means over the cells of a map ("pooled"), the whole map ("flat") or one cell ("cell": that
    of the unit if it has one, else the one with the largest norm), compared with all cells of the folder. Vectors are taken as
    they are. The search is exact; equal distances are in the order of the photos, then of the cells.

    `arrays`: `indices` `[k]`, numbers of photos in the folder, the nearest first (fewer if the folder has fewer);
    `distances` float64 `[k]`; with "cell" also `cells` `[k 2]` (row, column), `boxes` `[k 4]`, what they see of the network's
    crop (top, left, bottom, right), and `cell` `[2]` and `box` `[4]` of the photo. `table`: a row per neighbour.

    Raises:
        VizError: no such layer, a layer without cells, no readable photo, or features of the photo that are not finite.
    """
    network, source, by_cell = question.network, question.require_folder(), params.of == "cell"
    site = _site(network, params, question.unit)
    found = folder_features(network, source, site, 1 if params.of == "pooled" else None, job)
    if found is None:
        return Result("neighbours", {})
    seen = network.seen(question.require_picture())
    wanted, facts, cell = found.of_photo(network.crop(question.require_picture())), dict[str, str](), (0, 0)
    if by_cell:
        maps = wanted.reshape(site.shape)
        cell, facts["cell"] = _cell(maps, question.unit)
        wanted = maps[:, cell[0], cell[1]]
    if not np.isfinite(wanted).all():
        raise VizError(
            f"The features of {question.require_picture().name} at layer {site.name!r} are not finite; choose another layer.",
            code="not-finite",
        )
    total = max(1, len(found.table))
    near = nearest(
        found.parts(by_cell), wanted, params.k, params.metric, lambda rows: job.report(0.9 + 0.08 * rows / total)
    )
    frame = found.table.frame(["picture", "path", "label", *(["classes"] if found.has_answers else [])]).iloc[near.rows]
    arrays = {"indices": frame["picture"].to_numpy(np.int64), "distances": near.distances}
    box = (0, 0, *network.input_size[1:])
    if by_cell:
        row, column, *sides = cell_boxes(site, network.input_size[1:], near.cells)
        arrays |= {"cells": np.stack([row, column], 1), "boxes": np.stack(sides, 1)}
        own = cell_boxes(site, network.input_size[1:], np.array([cell[0] * site.shape[2] + cell[1]]))
        box = tuple(int(side[0]) for side in own[2:])  # type: ignore[assignment]
        arrays |= {"cell": np.array(cell), "box": np.array(box)}
    table = _table(network, frame, arrays)
    panels = (
        Panel("photo", draw_box(seen, box, thickness=max(1, round(len(seen) / 75))) if by_cell else seen),
        *_panel(found, arrays, table),
    )
    documents = {"table.csv": to_csv(table)}
    if found.table.unreadable:
        documents["unreadable.csv"] = to_csv(found.table.unreadable)
    return Result("neighbours", arrays, panels, facts | _facts(found, params, near), table, documents=documents)


def _site(network: Network, params: NeighbourParams, unit: Unit | None) -> Site:
    """The layer: the given one, that of the unit, or one that suits the features."""
    by_cell = params.of == "cell"
    name = params.site or (unit.site if unit is not None else "")
    site = network.site(name) if name else default_site(network, maps=by_cell)
    if by_cell and not site.is_map:
        last = network.last_feature_map()
        hint = f" Give a feature map, such as {last.name!r}." if last is not None else ""
        raise VizError(f"Layer {site.name!r} is a vector without cells.{hint}", code="no-cells")
    if unit is not None and network.site(unit.site) != site:
        raise VizError(
            f"The unit is of layer {unit.site!r}, and the neighbours are asked for at layer {site.name!r}; give one of them.",
            code="several-layers",
        )
    return site


def _cell(maps: np.ndarray, unit: Unit | None) -> tuple[tuple[int, int], str]:
    """The cell of `[C h w]` that is compared, and a sentence about it."""
    if unit is not None and unit.cell is not None:
        return unit.cell, f"row {unit.cell[0]}, column {unit.cell[1]}, as given"
    norms = np.nan_to_num(np.square(maps.astype(np.float64)).sum(0), nan=-1.0)
    row, column = (int(place) for place in np.unravel_index(norms.argmax(), norms.shape))
    return (row, column), f"row {row}, column {column}, the one with the largest norm"


def _table(network: Network, frame: Any, arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], ...]:
    rows = []
    for place, one in enumerate(frame.itertuples()):
        row = {"rank": place + 1, "picture": int(one.picture), "path": one.path}
        row |= {
            "label": one.label if isinstance(one.label, str) else None,
            "distance": float(arrays["distances"][place]),
        }
        if "classes" in frame:
            row["answer"] = network.class_name(int(one.classes[0]))
        if "cells" in arrays:
            numbers = (*arrays["cells"][place].tolist(), *arrays["boxes"][place].tolist())
            row |= dict(zip(("row", "column", "top", "left", "bottom", "right"), numbers, strict=True))
        rows.append(row)
    return tuple(rows)


def neighbour_tiles(
    network: Network, source: Source, site: Site, arrays: dict[str, np.ndarray],
    load: Callable[[int], np.ndarray | None] | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """What the network sees of the neighbours, or the patches that their cells see, uint8 `[h w 3]`; unreadable ones are grey.

    Where cells see more than the photo, the whole photo with a frame around the cell.

    Args:
        network: The network.
        source: The photos.
        site: The layer.
        arrays: `indices`, and `cells` and `boxes` of neighbours of a cell.
        load: `load_crop` of a number, for callers with a cache.
    """
    size, tiles = network.input_size[1:], list[np.ndarray]()
    for place, number in enumerate(arrays["indices"][:_SHOWN].tolist()):
        seen = load(number) if load is not None else load_crop(network, source, number)
        seen = np.full((*size, 3), 128, np.uint8) if seen is None else shown_values(seen)
        if "boxes" in arrays:
            box = arrays["boxes"][place].tolist()
            if exceeds(box, seen.shape):
                step = [side / count for side, count in zip(seen.shape[:2], site.shape[1:], strict=True)] * 2
                corners = np.concatenate([arrays["cells"][place], arrays["cells"][place] + 1])
                seen = draw_box(seen, np.rint(corners * step).astype(int).tolist(), thickness=max(1, len(seen) // 75))
            else:
                seen = crop_box(seen, box)
        tiles.append(seen)
    return tiles


def _panel(found: FolderFeatures, arrays: dict[str, np.ndarray], table: tuple[dict[str, Any], ...]) -> list[Panel]:
    tiles = neighbour_tiles(found.network, found.source, found.site, arrays)
    names = ", ".join(f"{row['path']} ({row['distance']:.4g})" for row in table[: len(tiles)])
    return [Panel("neighbours", sheet(tiles, 6, gap=2), names)] if tiles else []


def _facts(found: FolderFeatures, params: NeighbourParams, near: Nearest) -> dict[str, str]:
    site, is_map = found.site, found.site.is_map
    facts = {
        "layer": f"{site.name} ({' × '.join(map(str, site.shape))})",
        "features": f"{_FEATURES[params.of]}" if is_map else "the layer's vector",
        "distance": {"euclidean": "Euclidean", "cosine": "1 minus the cosine"}[params.metric],
    }
    noun = "cell" if params.of == "cell" else "photo"
    facts["search"] = f"exact, among {plural(near.compared, noun)} of {found.source.name}"
    if len(near.rows) < params.k:
        facts["fewer"] = f"{plural(params.k, 'neighbour')} asked for, only {len(near.rows)} found."
    if near.not_finite:
        facts["not finite"] = f"{plural(near.not_finite, noun)} left out because of features that are not finite."
    if found.unreadable:
        facts["unreadable"] = found.unreadable
    return facts


def _nothing_to_search(question: Question) -> str | None:
    """Why a question cannot be answered, or None."""
    source = question.require_folder()
    return f"There is no photo in {source.name}." if len(source) == 0 else None


METHOD = Method(
    "neighbours", "Neighbours", "Krizhevsky 2012, figure 4", NeighbourParams, neighbours, frozenset({"picture", "folder"}),
    optional_inputs=frozenset({"unit"}), incompatibility=_nothing_to_search, memory_hint="pooled features",
    shows=(Output("table", "table"),),
)  # fmt: skip
