"""How the features of a network grew during its training, from checkpoints of the run (Zeiler & Fergus 2013, figure 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vizapp.engine.memory.chunks import check_fits
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, plural
from vizapp.media.drawing import GREY, contrasted, draw_box, sheet
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.evolution_columns import Column, Columns
from vizapp.methods.filters import kernel_tiles
from vizapp.methods.gallery import chosen_sites, revealing_site
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.tables import to_csv
from vizapp.zoo.network import Network
from vizapp.zoo.series import Series, bundled_series, checkpoint_name, open_series

_SIDE = 72  # pixels to which small cells of the panels are enlarged
_LISTED, _TOLD = 5, 2  # skipped files by name, and how many of the reasons


@dataclass(frozen=True)
class EvolutionParams(Params):
    """The checkpoints, and the units that are followed through them."""

    checkpoints: str = knob(
        "", "Folder of checkpoints of one training run; empty: those of vizapp/lenet5-digits, for that network"
    )
    site: str = knob("", "Layer; by default the last map whose units see a part of the photo")
    units: int = knob(6, "Number of units, chosen at random", low=1, high=64)
    seed: int = knob(0, "Random seed of the choice of units", low=0, high=2**31 - 1)
    rule: Literal["deconvnet", "guided"] = knob("deconvnet", "Backward rule of the projections")


def evolution(question: Question, params: EvolutionParams, job: Job) -> Result:
    """How the strongest photo of some units, its projection and the kernels of the first layer changed during training.

    Each column (epoch) is the gallery of that checkpoint over the folder: the photo that activates a unit most.

    `arrays`: `epochs` `[epochs]`; `channels` `[units]`, chosen at random from the layer; `activation` float32 `[units epochs]`
    of the strongest photo, `picture` `[units epochs]` its number; `jump` `[units epochs]`, whether that is another photo than
    before (checkpoints where the unit is zero on all photos are passed over); `projection` float32 `[units epochs h w 3]`, the
    signed projection of that activation cut to what the unit sees (zero beyond the photo), and `patch` uint8
    `[units epochs h w 3]`, that part of the photo (grey beyond it); smaller ones are centred, in zeros or grey. `field`
    `[units epochs 4]`: (top, left, bottom, right) in input pixels.
    `kernels` float32 `[epochs out in kh kw]` of the first convolution, if there is one. `accuracy` `[epochs]`, the share of
    right answers, if labels of the photos are classes of the network. Where a unit has no activation that is a number,
    `activation` is NaN and `picture` -1. `table`: a row per unit and epoch.

    Raises:
        VizError: no checkpoints of this network, or no readable photo.
    """
    network, source = question.network, question.require_folder()
    series = open_series(folder_of(network, params.checkpoints))
    site = chosen_site(network, params.site)
    channels = chosen_channels(site, params.units, params.seed)
    check_size(network, len(series.files), len(channels))
    maker, found, broken = (
        Columns(network, source, site, channels, params.rule),
        list[Column | None](),
        dict[str, str](),
    )
    for number, file in enumerate(series.files):

        def tick(share: float, number: int = number) -> None:
            job.report((number + share) / len(series.files))

        try:
            found.append(maker.make(file, tick))
        except VizError as error:
            if not is_no_checkpoint(error):
                raise
            broken[checkpoint_name(file)] = str(error)
    if found and all(column is None for column in found):
        return Result("evolution", {})  # not the leader of torchrun
    columns = [column for column in found if column is not None]
    return join(maker, series, params, columns, broken)


def is_no_checkpoint(error: VizError) -> bool:
    """Whether a file of the series holds no weights of the network that can be read; the others are looked at all the same."""
    gone = ("empty-file", "no-such-file")  # where a training writes or removes files meanwhile
    return error.code in gone or error.code.startswith("checkpoint-")


def folder_of(network: Network, checkpoints: str) -> str | Path:
    """The folder of the series: the given one, or the bundled one of the network.

    Raises:
        VizError: neither is there.
    """
    found = checkpoints or bundled_series(network.name)
    if not found:
        raise VizError(
            f"During training needs the checkpoints of one training run of {network.name}: a folder with a file per epoch "
            "(checkpoints=… in Python, --checkpoints on the command line).",
            code="missing-input",
        )
    return found


def chosen_site(network: Network, name: str) -> Site:
    """The layer of that name; without one the last of a gallery's maps whose units see a part of the photo."""
    return network.site(name) if name else revealing_site(network, chosen_sites(network, ()))


def chosen_channels(site: Site, units: int, seed: int) -> tuple[int, ...]:
    """Some units of a layer, chosen at random, in their order; all of them if it has no more."""
    drawn = np.random.default_rng(seed).choice(site.channels, min(units, site.channels), replace=False)
    return tuple(sorted(drawn.tolist()))


def check_size(network: Network, epochs: int, units: int) -> None:
    """Raise DoesNotFit if the projections of that many cells do not fit into memory."""
    each = 2 * 3 * (4 + 1) * math.prod(network.input_size[1:])  # projection and patch, and their copies in the arrays
    what = f"the projections of {units} units after {epochs} epochs"
    check_fits(epochs * units * each, torch.device("cpu"), what, "fewer units")


def join(
    maker: Columns, series: Series, params: EvolutionParams, columns: Sequence[Column], broken: dict[str, str]
) -> Result:
    """The result from the columns of a series.

    Args:
        maker: What made them.
        series: The series.
        params: What was asked.
        columns: One for each checkpoint of the network, in the order of the series.
        broken: A sentence for each of the others, by the name of its file.

    Raises:
        VizError: there is none.
    """
    if not columns:
        raise VizError(
            f"{series.folder.name} holds no checkpoint of {maker.network.name}. {next(iter(broken.values()), '')}",
            code="no-checkpoints",
        )
    kept = [number for number, file in enumerate(series.files) if checkpoint_name(file) not in broken]
    files, epochs = [series.files[n] for n in kept], [series.epochs[n] for n in kept]
    picture = np.stack([column.picture for column in columns], 1)
    activation = np.stack([column.activation for column in columns], 1)
    arrays = {
        "epochs": np.array(epochs, np.int64),
        "channels": np.array(maker.channels, np.int64),
        "activation": activation,
        "picture": picture,
        "jump": jumps(picture, activation),
        "projection": _padded([column.projection for column in columns], 0),
        "patch": _padded([column.patch for column in columns], GREY),
        "field": np.stack([column.field for column in columns], 1),
    }
    kernels = [column.kernels for column in columns if column.kernels is not None]
    if len(kernels) == len(columns):
        arrays["kernels"] = np.stack(kernels)
    shares = [column.accuracy for column in columns if column.accuracy is not None]
    if len(shares) == len(columns):
        arrays["accuracy"] = np.array(shares)
    table = _table(maker, files, columns, arrays)
    facts = _facts(maker, series, params, arrays, broken) | columns[-1].facts
    return Result(
        "evolution", arrays, tuple(_panels(maker, arrays)), facts, table, documents={"table.csv": to_csv(table)}
    )


def _padded(columns: Sequence[Sequence[np.ndarray]], outside: int) -> np.ndarray:
    """Pictures `[h w C]` of some units (inner) after some epochs (outer) as `[units epochs H W C]`, each in the centre."""
    cells = [list(of_unit) for of_unit in zip(*columns, strict=True)]
    height, width, depth = (max(cell.shape[axis] for row in cells for cell in row) for axis in (0, 1, 2))
    depth = 3 if depth == 1 else depth  # none of the units has a picture
    whole = np.full((len(cells), len(columns), height, width, depth), outside, cells[0][0].dtype)
    for unit, row in enumerate(cells):
        for epoch, cell in enumerate(row):
            top, left = (height - cell.shape[0]) // 2, (width - cell.shape[1]) // 2
            whole[unit, epoch, top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return whole


def _table(
    maker: Columns, files: Sequence[Path], columns: Sequence[Column], arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Any], ...]:
    rows = []
    for unit, channel in enumerate(maker.channels):
        for place, column in enumerate(columns):
            row = {
                "layer": maker.site.name,
                "channel": channel,
                "epoch": int(arrays["epochs"][place]),
                "checkpoint": checkpoint_name(files[place]),
                "activation": float(column.activation[unit]),
                "picture": int(column.picture[unit]),
                "path": column.paths[unit],
                "jump": bool(arrays["jump"][unit, place]),
            }
            rows.append(row | ({"accuracy": column.accuracy} if "accuracy" in arrays else {}))
    return tuple(rows)


def _facts(
    maker: Columns, series: Series, params: EvolutionParams, arrays: dict[str, np.ndarray], broken: dict[str, str]
) -> dict[str, str]:
    epochs, jump, silent = arrays["epochs"].tolist(), arrays["jump"], arrays["activation"] == 0
    height, width = arrays["projection"].shape[2:4]
    count = len(epochs)
    facts = {
        "checkpoints": f"{count} of {series.folder.name}, after epoch {', '.join(map(str, epochs))}. {series.timing}",
        "units": f"{', '.join(map(str, maker.channels))} of the {maker.site.channels} of {maker.site.name}, seed {params.seed}",
        "photos": f"{len(maker.source)} of {maker.source.name}",
        "jumps": f"The strongest photo changes in {int(jump.sum())} of {jump.shape[0] * (count - 1)} steps."
        if count > 1
        else "There is one checkpoint, so there are no jumps.",
        "cells": f"Projections are cut to what a unit sees, {height} × {width} pixels, zero beyond the photo and centred where "
        "they are smaller. Pictures are stretched to full contrast, each by itself; the arrays are not.",
    }
    if series.doubled:
        facts["same epoch"] = series.doubled
    skipped = [*broken, *series.skipped]
    if skipped:
        listed = ", ".join(skipped[:_LISTED]) + (" …" if len(skipped) > _LISTED else "")
        count_of = plural(len(skipped), "other entry", "other entries")
        facts["skipped"] = " ".join([f"{count_of} in the folder: {listed}.", *list(broken.values())[:_TOLD]])
    if silent.any():
        facts["silent"] = (
            f"In {int(silent.sum())} of {plural(silent.size, 'cell')} the unit is zero on every photo; the photo there means "
            "nothing."
        )
    unknown = sum(one is None for one in maker.classes)
    if "accuracy" in arrays and unknown:
        facts["accuracy"] = (
            f"{plural(unknown, 'photo')} without a label that is a class of {maker.network.name} do not count."
        )
    return facts


def _panels(maker: Columns, arrays: dict[str, np.ndarray]) -> list[Panel]:
    """A sheet of projections and one of patches, with a row per unit and a column per epoch; the kernels after each epoch."""
    count, jump = len(arrays["epochs"]), arrays["jump"].reshape(-1)
    listed = ", ".join(map(str, arrays["epochs"]))
    words = (
        f"Units {', '.join(map(str, maker.channels))} of {maker.site.name} after epoch {listed}. Framed: another photo."
    )
    cells = {
        "projections": [contrasted(one) for one in arrays["projection"].reshape(-1, *arrays["projection"].shape[2:])],
        "patches": list(arrays["patch"].reshape(-1, *arrays["patch"].shape[2:])),
    }
    panels = [
        Panel(name, sheet([framed(one, bool(at)) for one, at in zip(tiles, jump, strict=True)], count, gap=3), words)
        for name, tiles in cells.items()
    ]
    if "kernels" in arrays:
        tiles = kernel_sheets(arrays["kernels"])
        panels.append(Panel("kernels", sheet(tiles, count, gap=8), f"The first convolution's kernels, epoch {listed}."))
    return panels


def framed(cell: np.ndarray, jump: bool) -> np.ndarray:
    """A small picture enlarged by a whole number; with a frame if there is a jump."""
    times = max(1, _SIDE // max(cell.shape[:2]))
    large = cell.repeat(times, axis=0).repeat(times, axis=1)
    return draw_box(large, (0, 0, *large.shape[:2]), thickness=3) if jump else large


def jumps(picture: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """Where the strongest photo is another one than before, of `[units epochs]`; epochs with a silent unit are passed over."""
    found, before = np.zeros(picture.shape, bool), np.full(len(picture), -1)
    for place, (photo, strongest) in enumerate(zip(picture.T, activation.T, strict=True)):
        means = (photo >= 0) & (strongest != 0)
        found[:, place] = means & (before >= 0) & (photo != before)
        before = np.where(means, photo, before)
    return found


def kernel_sheets(kernels: np.ndarray) -> list[np.ndarray]:
    """The kernels `[epochs out in kh kw]` as a sheet per epoch, all on one scale."""
    epochs, out = kernels.shape[:2]
    tiles = kernel_tiles(kernels.reshape(-1, *kernels.shape[2:]), "layer")
    columns, enlarge = math.ceil(math.sqrt(out)), max(1, 48 // max(tiles[0].shape[:2]))
    return [sheet(tiles[n * out : (n + 1) * out], columns, 2, enlarge=enlarge) for n in range(epochs)]


METHOD = Method(
    key="evolution",
    title="During training",
    source="Zeiler & Fergus 2013, section 4.1 and figure 4",
    params=EvolutionParams,
    run=evolution,
    needs=frozenset({"folder"}),
    memory_hint="fewer units",
    shows=(
        Output("projection", "signed image"),
        Output("patch", "images"),
        Output("table", "table"),
    ),
    takes_long=True,
)
