"""The atlas of a folder: each photo a point in the plane, near those with similar features."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from vizapp.engine.memory.chunks import check_fits
from vizapp.errors import VizError, plural
from vizapp.media.drawing import COLOURS, GREY
from vizapp.media.film import Line, write_lines
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.embedding import BESIDE, KEPT, NAMES, beside, nonlinear, principal_axes, trustworthiness
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.photo_features import FolderFeatures, default_site, folder_features, unit_activations
from vizapp.methods.tables import to_csv

_SIDE, _MARGIN, _LEGEND, _LINE = 640, 24, 200, 24  # pixels of the panel, of its legend's width and of a line


@dataclass(frozen=True)
class AtlasParams(Params):
    """Which features, and how they are laid out."""

    site: str = knob("", "Layer; empty: the last hidden layer")
    map: Literal["pca", "tsne", "umap"] = knob(
        "pca", "Principal components at once; t-SNE or UMAP (if installed) in minutes"
    )
    seed: int = knob(
        0, "Random seed of t-SNE, UMAP, and of the photos that trustworthiness is measured on", low=0, high=2**31 - 1
    )


def atlas(question: Question, params: AtlasParams, job: Job) -> Result:
    """Each photo of a folder as a point: photos with similar features at a layer lie near each other.

    Features are means over the cells of a map; vectors are taken as they are. Photos whose features are not finite are left
    out.

    `arrays`: `pictures` `[n]`, numbers of photos in the folder; `positions` `[n 2]`; `trustworthiness`, Venna & Kaski's, at 12
    neighbours; with PCA `axes` `[2 F]`, `mean` `[F]` and `explained` `[2]`, shares of the variance. If the network has
    classes: `answers` `[n]` and `correct` `[n]` (1 or 0, -1 if the true class is unknown). With a unit `activation` `[n]`,
    averaged over its cells; with a photo `photo` `[2]`, its place: by the same axes, or the mean of its five nearest photos.
    `table`: a row per photo.

    Raises:
        VizError: no such layer, no readable photo, too few photos for t-SNE, or UMAP is not installed.
    """
    network, source = question.network, question.require_folder()
    site = network.site(params.site) if params.site else default_site(network)
    found = folder_features(network, source, site, 1, job, (0.0, 0.6))
    if found is None:
        return Result("atlas", {})
    check_fits(
        6 * len(found.table) * site.channels * 4, torch.device("cpu"), "the atlas", "a layer with fewer channels"
    )
    features = found.matrix()
    finite = np.isfinite(features).all(1)
    features = features[finite]
    if not len(features):
        raise VizError(f"No photo of {source.name} has finite features at layer {site.name!r}.", code="not-finite")

    def tick(share: float) -> None:
        job.report(0.6 + 0.35 * share)

    axes = principal_axes(features, 2, tick) if params.map == "pca" else None
    points = axes.project(features) if axes else nonlinear(params.map, features, params.seed, tick)
    job.report(0.95)
    trusted, near, measured = trustworthiness(features, points, params.seed)
    arrays = {"positions": points, "trustworthiness": np.array(trusted)} | _columns(question, found, finite, job)
    facts = {"layer": f"{site.name} ({' × '.join(map(str, site.shape))})"}
    facts["map"] = NAMES[params.map]
    if axes is None:
        facts["map"] += f" of the first {KEPT} principal components, seed {params.seed}"
    else:
        arrays |= {"axes": axes.axes, "mean": axes.mean, "explained": axes.explained}
        facts["explained"] = " and ".join(f"{100 * share:.1f} %" for share in axes.explained) + " of the variance"
    part = "" if measured == len(features) else f", measured on {measured:,} random photos"
    facts["trustworthiness"] = f"{trusted:.3f} at {near} neighbours{part}"
    if question.picture is not None:
        wanted = found.of_photo(network.crop(question.picture))
        if np.isfinite(wanted).all():
            arrays["photo"] = axes.project(wanted[None])[0] if axes else beside(features, points, wanted)
            facts["photo"] = "projected onto the same axes" if axes else f"at the mean of its {BESIDE} nearest photos"
    facts["photos"] = f"{len(features):,} of {source.name}"
    if not finite.all():
        facts["not finite"] = (
            f"{plural(int((~finite).sum()), 'photo')} left out because of features that are not finite."
        )
    if found.unreadable:
        facts["unreadable"] = found.unreadable
    table = _table(found, arrays, finite)
    panel = Panel("atlas", _drawn(points, table, arrays.get("photo")), f"{facts['map']}, coloured by class.")
    return Result("atlas", arrays, (panel,), facts, table, documents={"table.csv": to_csv(table)})


def _columns(question: Question, found: FolderFeatures, finite: np.ndarray, job: Job) -> dict[str, np.ndarray]:
    """Numbers of the photos, answers, whether these are correct, and the activations of the unit if there is one."""
    table = found.table
    arrays = {"pictures": table.matrix("picture")[finite].astype(np.int64)}
    if found.has_answers:
        arrays["answers"] = table.matrix("classes")[finite, 0].astype(np.int64)
        true = table.matrix("true")[finite]
        arrays["correct"] = np.where(true < 0, -1, arrays["answers"] == true).astype(np.int64)
    if question.unit is not None:
        values = unit_activations(question.network, found.source, question.unit, Job(lambda share: job.report(0.96)))
        arrays["activation"] = values[arrays["pictures"]]
    return arrays


def _table(found: FolderFeatures, arrays: dict[str, np.ndarray], finite: np.ndarray) -> tuple[dict[str, Any], ...]:
    frame = found.table.frame(["picture", "path", "label"])[finite]
    columns: dict[str, list[Any]] = {
        "picture": frame["picture"].tolist(), "path": frame["path"].tolist(),
        "label": [one if isinstance(one, str) else None for one in frame["label"]],
        "x": arrays["positions"][:, 0].tolist(), "y": arrays["positions"][:, 1].tolist(),
    }  # fmt: skip
    if "answers" in arrays:
        columns["answer"] = [found.network.class_name(number) for number in arrays["answers"].tolist()]
        columns["correct"] = [None if one < 0 else bool(one) for one in arrays["correct"].tolist()]
    if "activation" in arrays:
        columns["activation"] = arrays["activation"].tolist()
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _drawn(points: np.ndarray, table: tuple[dict[str, Any], ...], photo: np.ndarray | None) -> np.ndarray:
    """The points as a picture, uint8 `[h w 3]`: the ten most frequent labels in colours, a ring for the photo, a legend."""
    labels = [row["label"] for row in table]
    order = [label for label, _ in Counter(labels).most_common(len(COLOURS)) if label is not None]
    every = points if photo is None else np.vstack([points, photo])
    low, span = every.min(0), max(float(np.ptp(every, 0).max()), 1e-30)
    places = np.rint(_MARGIN + (every - low) / span * (_SIDE - 1 - 2 * _MARGIN)).astype(int)
    drawn = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    for (x, y), label in zip(places, labels, strict=False):
        colour = COLOURS[order.index(label)] if label in order else (GREY, GREY, GREY)
        drawn[_SIDE - 3 - y : _SIDE - y + 2, x - 2 : x + 3] = colour
    if photo is not None:
        down, across = np.ogrid[:_SIDE, :_SIDE]
        apart = np.hypot(down - (_SIDE - 1 - places[-1, 1]), across - places[-1, 0])
        drawn[(apart > 7) & (apart < 11)] = 0
    if not order:
        return drawn
    colours = [*COLOURS[: len(order)].tolist(), *([[GREY] * 3] if set(labels) - set(order) else [])]
    legend = np.full((_SIDE, _LEGEND, 3), 255, np.uint8)
    for row, colour in enumerate(colours):
        legend[_MARGIN + _LINE * row :][: _LINE // 2, : _LINE // 2] = colour
    lines: list[Line] = [
        (_LINE, _MARGIN + _LINE * row - 4, _LEGEND - _LINE - 4, name, _LINE // 2 + 4, (0, 0, 0))
        for row, name in enumerate([*map(str, order), "others"][: len(colours)])
    ]
    return np.hstack([drawn, write_lines(legend, lines)])


def _nothing_to_map(question: Question) -> str | None:
    """Why a question cannot be answered, or None."""
    source = question.require_folder()
    return f"There is no photo in {source.name}." if len(source) == 0 else None


METHOD = Method(
    "atlas", "Atlas", "van der Maaten & Hinton 2008; Venna & Kaski 2001", AtlasParams, atlas, frozenset({"folder"}),
    optional_inputs=frozenset({"picture", "unit"}), incompatibility=_nothing_to_map, memory_hint="a layer with fewer channels",
    shows=(Output("table", "table"),),
)  # fmt: skip
