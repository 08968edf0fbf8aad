"""Teach: a network learns the classes of a folder; its last layer is replaced by a probe of its last hidden features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vizapp.errors import VizError, plural
from vizapp.gallery.collectors import Features
from vizapp.media.source import Source
from vizapp.methods import ask
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.collected import folder_table
from vizapp.methods.linear_probe import FOLDS, STRENGTHS, TICKS, LinearProbe, Split, fit_probe, recalls, split
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.probe import check_classes, labelled, matrix, told_photos, used_rows
from vizapp.methods.tables import to_csv
from vizapp.zoo import taught
from vizapp.zoo.network import Network
from vizapp.zoo.new_head import LastLayer, find_last_layer
from vizapp.zoo.registry import load
from vizapp.zoo.taught import Taught, network_with, weights_digest

_HELD_OUT = 4  # one photo in so many of each class is tested on, not learned from


@dataclass(frozen=True)
class TeachParams(Params):
    """The name of the new network."""

    name: str = knob(
        "", "Name under which the network is kept, as own/NAME: letters, digits, - and _; empty: it is not kept"
    )
    replace: bool = knob(False, "Replace a network of that name")
    seed: int = knob(0, "Random seed of the photos that are held out", low=0, high=2**31 - 1)


def teach_head(question: Question, params: TeachParams, job: Job) -> Result:
    """A network that knows the classes of your folder: its last layer is learned anew from your photos.

    The new layer is the multinomial logistic regression of `probe` on the last hidden features (of maps, their means), with
    the standardisation inside. One photo in four of each class is held out and tested on. Photos with the same pixels count
    once; classes with fewer than four are left out.

    `arrays`: `weight` float32 `[classes F]` and `bias` float32 `[classes]`; `recall` float64 `[classes]` and `accuracy`, its
    mean, on the photos that were held out (0 to 1). `table`: a row per class. With a name, `load("own/NAME")` opens it.

    Raises:
        VizError: the class scores do not come from one linear layer; fewer than two classes with enough photos; the name is
            taken or not allowed; or the network could not be opened again by its name.
    """
    network, source = question.network, question.require_folder()
    layer = find_last_layer(network)
    check_classes(source, FOLDS)
    name = _checked_name(network, params)
    table, note = folder_table(network, source, [Features([layer.features], 1)], job, (0.0, 0.8))
    if table is None:
        return Result("teach", {})
    photos = labelled(table, source, FOLDS)
    counts = [len(rows) - len(rows) // _HELD_OUT for rows in photos.members]
    on = split(photos.members, counts, max(map(len, photos.members)), params.seed)
    rows = used_rows([on])
    features, on = matrix(table, rows, layer.features, 1), on.within(rows)
    done = 0

    def tick() -> None:
        nonlocal done
        job.report(0.8 + 0.2 * done / TICKS)
        done += 1

    fit = fit_probe(features[on.train], on.train_labels, tick)
    right = recalls(fit.scores(features[on.test]).argmax(1), on.test_labels)
    weight, bias = (np.ascontiguousarray(part, np.float32) for part in (fit.weight, fit.bias))
    if name:
        taught.keep(
            name, _told(network, layer, photos.classes, fit, float(right.mean()), on, params.seed, source), weight, bias
        )
    listed = _rows(photos.classes, on, right)
    facts = {
        "taught": f"{taught.SOURCE}/{name}" if name else "not kept, as it has no name",
        "classes": ", ".join(photos.classes),
        "accuracy": f"{100 * right.mean():.1f} % of {plural(len(on.test), 'photo')} that it did not learn from, as mean over "
        f"{len(photos.classes)} classes",
        "layer": f"{layer.path}, on {layer.features.name} ({layer.features.channels} features)",
        "photos": f"{len(on.train)} learned from, {len(on.test)} held out with seed {params.seed}",
        "C": f"{fit.c:g}, chosen among {', '.join(f'{one:g}' for one in STRENGTHS)} in {FOLDS} folds",
    } | told_photos(photos, table)
    arrays = {"weight": weight, "bias": bias, "recall": right, "accuracy": np.array(right.mean())}
    return Result(
        "teach",
        arrays,
        facts=facts | ({"note": note} if note else {}),
        table=listed,
        documents={"teach.csv": to_csv(listed)},
    )


def teach(
    network: Network,
    folder: Source | str | Path | bytes,
    name: str = "",
    replace: bool = False,
    seed: int = 0,
    tick: Callable[[float], None] | None = None,
) -> Network:
    """A network with the classes of a folder, which every method takes; see the method `teach`.

    Args:
        network: The network whose last layer is learned anew. It stays as it is.
        folder: Photos with classes, or anything that `open_folder` takes.
        name: The network is kept under it, and `load("own/NAME")` opens it again. Without a name it is not kept.
        replace: Whether it may replace a network of that name.
        seed: Random seed of the photos that are held out.
        tick: Called with the progress from 0 to 1; it may raise to cancel.

    Raises:
        VizError: as the method.
    """
    result = ask("teach", network, folder=folder, tick=tick, name=name, replace=replace, seed=seed)
    if name:
        return load(result.facts["taught"], device=network.device)
    tensors = {key: torch.from_numpy(result.arrays[key]) for key in ("weight", "bias")}
    classes = tuple(str(row["class"]) for row in result.table)
    return network_with(network, find_last_layer(network), tensors, classes)


def _checked_name(network: Network, params: TeachParams) -> str:
    """The name to keep the network under; empty for none.

    Raises:
        VizError: it is taken or not allowed, or the network could not be opened again.
    """
    if not params.name.strip():
        return ""
    name = taught.check_name(params.name, params.replace)
    if taught.is_own(network.name):
        raise VizError(
            f"{network.name} was taught itself; teach {taught.describe(network.name).network}, on which it is built.",
            code="cannot-be-kept",
        )
    again: Network | None = None
    if not network.interventions:
        try:
            again = load(network.name, network.weights, "cpu")
        except VizError:
            again = None
    if again is None or again.digest != network.digest:
        raise VizError(
            f"{network.name} with its weights ({network.weights}) cannot be opened again by its name alone, so what it learns "
            "cannot be kept; teach it without a name, or a network of `list_networks` with its own weights.",
            code="cannot-be-kept",
        )
    return name


def _told(
    network: Network, layer: LastLayer, classes: Sequence[str], fit: LinearProbe, accuracy: float, on: Split, seed: int,
    source: Source,
) -> Taught:  # fmt: skip
    head = network.module.get_submodule(layer.path)
    fewer = sum(parameter.numel() for parameter in head.parameters())
    return Taught(
        network=network.name, weights=network.weights, digest=weights_digest(network.module), path=layer.path,
        features=layer.features.name, activations=layer.activations, classes=tuple(classes), c=fit.c, accuracy=accuracy,
        learned=len(on.train), tested=len(on.test), seed=seed, data=source.name,
        parameters=network.parameters - fewer + fit.weight.size + fit.bias.size,
    )  # fmt: skip


def _rows(classes: Sequence[str], on: Split, right: np.ndarray) -> tuple[dict[str, Any], ...]:
    learned, tested = np.bincount(on.train_labels), np.bincount(on.test_labels)
    return tuple(
        {"class": name, "learned from": int(learned[n]), "tested on": int(tested[n]), "right": float(right[n])}
        for n, name in enumerate(classes)
    )


METHOD = Method(
    key="teach",
    title="Teach",
    source="Zeiler & Fergus 2013, section 5.2",
    params=TeachParams,
    run=teach_head,
    needs=frozenset({"folder"}),
    takes_long=True,
    shows=(Output("table", "table"),),
)
