"""The projections of a unit's top pictures, each from the one cell where it is strongest (Zeiler & Fergus 2013, figure 2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vizapp.engine.fields import fields
from vizapp.engine.project import Certificate, Projections, project
from vizapp.engine.rules import Rule
from vizapp.engine.sites import Site, Unit
from vizapp.engine.spans import Field
from vizapp.gallery.reader import crop
from vizapp.media.source import Source
from vizapp.methods.base import Job, Result
from vizapp.methods.projection import ProjectionParams, in_three_channels, what_was_reversed
from vizapp.zoo.network import Network

Box = tuple[int, int, int, int]


def top_projections(
    network: Network, source: Source, rows: pd.DataFrame, params: ProjectionParams, job: Job,
    opened: Callable[[int], np.ndarray] | None = None,
) -> Result:  # fmt: skip
    """The projections of some rows of a gallery, each on its own picture from its own cell.

    `arrays`, an entry per row: `projection` `[K H W 3]` float32, signed, in the network's normalised input space, zero
    outside of the field; `activation` `[K]`; `field` `[K 4]` as the rows have it. `opened` as in `gallery.reader.shown`.

    A network runs on the rectangle that the unit sees alone where that gives the same: where no operation on the way
    pads (the field of cell 0,0 begins at pixel 0,0, through all branches), and the rectangle lies inside of the picture.
    Else borders of the rectangle would be seen as borders of the picture, and it runs on the whole picture.
    """
    blank = torch.zeros(1, *network.input_size, dtype=network.dtype, device=network.device)
    known: dict[str, Field] = {}
    answers: list[Projections] = []
    pixels = []
    rule = Rule(params.rule, params.pools, params.response_norm, params.gates, params.extended)
    for number, row in enumerate(rows.itertuples()):
        site = network.site(str(row.site))
        if not known:
            known = fields(network.module, blank)
        seen = opened(int(row.picture)) if opened else crop(network, source, int(row.picture))
        batch = network.batch([seen])
        cell = (int(row.row), int(row.column)) if site.is_map else None
        box = (int(row.top), int(row.left), int(row.bottom), int(row.right))
        alone = is_exact_alone(known[site.name], box, (batch.shape[2], batch.shape[3])) and params.extent == "cell"
        answer = _sent_down(network, site, batch, int(row.channel), cell, box if alone else None, rule, params)
        answers.append(answer)
        pixels.append(_in_place(answer.values[0], box if alone else None, batch))
        job.tick((number + 1) / len(rows))
    certificate = answers[0].certificate if answers else Certificate()
    arrays = {
        "projection": np.stack([in_three_channels(values) for values in pixels]) if pixels else np.zeros((0, 0, 0, 3)),
        "activation": np.array([float(answer.activations[0]) for answer in answers], np.float32),
        "field": rows[["top", "left", "bottom", "right"]].to_numpy(np.int64),
    }
    return Result("projection", arrays, facts=what_was_reversed(certificate, params.rule))


def is_exact_alone(field: Field, box: Box, size: tuple[int, int]) -> bool:
    """Whether a unit computes the same on the rectangle that it sees alone, cut out of a picture of `size`."""
    top, left, bottom, right = box
    unpadded = field.rows.start == 0 and field.columns.start == 0 and field.rows.axis is not None
    inside = 0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]
    return unpadded and inside and (bottom - top, right - left) != size


def _sent_down(
    network: Network, site: Site, batch: Tensor, channel: int, cell: tuple[int, int] | None, box: Box | None,
    rule: Rule, params: ProjectionParams,
) -> Projections:  # fmt: skip
    if box is not None:
        top, left, bottom, right = box
        batch, cell = batch[:, :, top:bottom, left:right], (0, 0)
    unit = Unit(site.name, channel, cell)
    return project(network.module, batch, [unit], network.sites, rule, params.seed, params.extent)[0]


def _in_place(values: Tensor, box: Box | None, batch: Tensor) -> Tensor:
    """A projection `[C h w]` of a rectangle as one of the whole picture `[C H W]`."""
    if box is None:
        return values
    top, left, bottom, right = box
    whole = values.new_zeros(batch.shape[1:])
    whole[:, top:bottom, left:right] = values
    return whole
