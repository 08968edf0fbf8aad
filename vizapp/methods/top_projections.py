"""Projections of a unit's top pictures, each from the cell of its maximum (Zeiler & Fergus 2013, figure 2)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from torch import Tensor

from vizapp.engine.memory.chunks import is_out_of_memory
from vizapp.engine.projection.project import Certificate, Projections, project
from vizapp.engine.receptive_field.interval import ReceptiveField
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError
from vizapp.gallery.reader import check_pictures, load_crop
from vizapp.media.source import Source
from vizapp.methods.base import Job, Result
from vizapp.methods.projection import ProjectionParams, as_pixels, depth_of, what_was_reversed
from vizapp.zoo.network import Network

Box = tuple[int, int, int, int]
ROUNDING = 1e-3  # largest relative difference between the activations of a field alone and in its picture
CHANGED = 0.05  # relative difference from the gallery's activation that rounding does not explain


def top_projections(
    network: Network, source: Source, rows: pd.DataFrame, params: ProjectionParams, job: Job,
    opened: Callable[[int], np.ndarray | None] | None = None,
) -> Result:  # fmt: skip
    """The projections of some rows of a gallery, each on its own picture from its own cell.

    `arrays`, an entry per row: `projection` `[K H W 3]` float32, signed, in the network's normalized input space, zero
    outside the receptive field; `activation` `[K]`; `field` `[K 4]`, the receptive fields of the rows. Pictures that can no
    longer be read have projection 0 and activation NaN.

    The network runs on the receptive field alone where that gives the same result: no operation below the unit pads (the
    field of cell 0,0 begins at pixel 0,0, through all branches) or has windows that depend on the input size (adaptive
    pools), the field lies inside the picture, and the activation is the same as in the gallery. Otherwise the borders of
    the field would act as borders of the picture, so the network runs on the whole picture, once for all rows of the same
    picture and layer.

    Args:
        network: The network of the gallery.
        source: The pictures of the gallery.
        rows: Rows of the gallery.
        params: The rule and its options.
        job: For progress.
        opened: `load_crop` of a picture by its number, for callers with a cache; by default it is read from `source`.

    Raises:
        VizError: the rows are not about these pictures.
    """
    check_pictures(source, rows)
    known = unresized_fields(network.sites) if len(rows) else {}
    size = network.input_size[1:]
    rule = params.build_rule()
    groups: dict[tuple[object, ...], list[_Start]] = {}
    for number, row in enumerate(rows.itertuples()):
        box = (int(row.top), int(row.left), int(row.bottom), int(row.right))
        site, picture = network.site(str(row.site)), int(row.picture)
        field = known.get(site.name)
        alone = field is not None and is_exact_alone(field, box, size) and params.extent == "cell"
        cell = (int(row.row), int(row.column)) if site.is_map else None
        start = _Start(number, Unit(site.name, int(row.channel), cell), picture, box if alone else None)
        groups.setdefault((site.name, picture, start.box), []).append(start)
    pixels: dict[int, np.ndarray] = {}
    activations, then = np.full(len(rows), np.nan, np.float32), rows["activation"].to_numpy(np.float64)
    certificate = Certificate()
    for starts in groups.values():
        picture, part = starts[0].picture, starts[0].box
        seen = opened(picture) if opened else load_crop(network, source, picture)
        if seen is None:
            continue
        batch = network.batch([seen])
        units = [start.unit for start in starts]
        expected = then[[start.number for start in starts]]
        answer = None if part is None else _project_alone(network, batch, part, units, expected, params)
        if answer is None:
            part = None
            (answer,) = project(network.module, batch, units, network.sites, rule, params.seed, params.extent)
        certificate = answer.certificate
        for place, start in enumerate(starts):
            pixels[start.number] = as_pixels(_in_place(answer.values[place], part, batch))
            activations[start.number] = float(answer.activations[place])
        job.report(len(pixels) / len(rows))
    empty = np.zeros((*size, depth_of(network)), np.float32)
    shown = [pixels.get(number, empty) for number in range(len(rows))]
    arrays = {
        "projection": np.stack(shown) if shown else np.zeros((0, 0, 0, 3), np.float32),
        "activation": activations,
        "field": rows[["top", "left", "bottom", "right"]].to_numpy(np.int64),
    }
    facts = what_was_reversed(certificate, params.rule)
    changed = int((np.abs(activations - then) > CHANGED * np.maximum(np.abs(activations), np.abs(then))).sum())
    if len(pixels) < len(rows):
        gone = (
            f"{len(rows) - len(pixels)} of {len(rows)} top photos can no longer be read; their projections are empty."
        )
        facts["unreadable"] = gone
    if changed:
        facts["changed"] = f"{changed} of {len(rows)} top photos have changed since the gallery was built."
    return Result("projection", arrays, facts=facts)


@dataclass(frozen=True)
class _Start:
    """The start of a projection: a unit on the picture, and the rectangle `box` that may do alone."""

    number: int
    unit: Unit
    picture: int
    box: Box | None


def _project_alone(
    network: Network, batch: Tensor, box: Box, units: Sequence[Unit], expected: np.ndarray, params: ProjectionParams
) -> Projections | None:
    """The projections from the only cell of a rectangle of the picture; None if the units compute something else on it.

    So it is where the network uses the position or the size of the picture: coordinates, a bias per cell.
    """
    top, left, bottom, right = box
    corner = [replace(unit, cell=(0, 0)) for unit in units]
    part = batch[:, :, top:bottom, left:right]
    try:
        (answer,) = project(
            network.module, part, corner, network.sites, params.build_rule(), params.seed, params.extent
        )
    except (VizError, RuntimeError) as error:  # a bias per cell that does not fit the smaller map
        if is_out_of_memory(error):
            raise
        return None
    return answer if np.allclose(answer.activations.float().cpu(), expected, ROUNDING, 0, equal_nan=True) else None


def unresized_fields(sites: Sequence[Site]) -> dict[str, ReceptiveField]:
    """The receptive fields, by name, of all sites before the first whose windows depend on the input's size.

    Those are adaptive pools, except global ones, after which every cell sees the whole input anyway.
    """
    resized = (site.operation.startswith("adaptive_") and site.shape[1:] != (1, 1) for site in sites)
    before = itertools.takewhile(lambda each: not each[1], zip(sites, resized, strict=True))
    return {site.name: site.receptive_field for site, _ in before if site.receptive_field is not None}


def is_exact_alone(field: ReceptiveField, box: Box, size: tuple[int, int]) -> bool:
    """Whether a unit computes the same on the rectangle that it sees alone, cut out of a picture of `size`."""
    top, left, bottom, right = box
    unpadded = field.rows.start == 0 and field.columns.start == 0 and field.rows.axis is not None
    inside = 0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]
    return unpadded and inside and (bottom - top, right - left) != size


def _in_place(values: Tensor, box: Box | None, batch: Tensor) -> Tensor:
    """A projection `[C h w]` of a rectangle as one of the whole picture `[C H W]`."""
    if box is None:
        return values
    top, left, bottom, right = box
    whole = values.new_zeros(batch.shape[1:])
    whole[:, top:bottom, left:right] = values
    return whole
