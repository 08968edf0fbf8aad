"""Linear probes by depth: how well a linear classifier tells a folder's classes apart from the features of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.chunks import check_fits
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, plural, quoted
from vizapp.gallery.collectors import Features, Rows, feature_column, pooled
from vizapp.gallery.photo_table import PhotoTable
from vizapp.media.source import Source, skipped_note
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.collected import folder_table, table_name
from vizapp.methods.linear_probe import FOLDS, STRENGTHS, TICKS, Labelled, Split, distinct, fit_probe, recalls, split
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.probe_chart import chart
from vizapp.methods.shipped_probe import file_of, shipped_result
from vizapp.methods.stages import depth_sites
from vizapp.methods.tables import to_csv
from vizapp.zoo.network import Network
from vizapp.zoo.untrained import untrained

SIDE = 2  # cells of the grid that maps are pooled to
PIXELS = 8  # the same of the photo itself
MOST_TESTED = 50  # photos of a class; as for Caltech-101
_LISTED = 8  # names in a fact
_CPU, _COPIES = torch.device("cpu"), 28  # bytes for each feature of each photo: one in float32, three in float64


@dataclass(frozen=True)
class ProbeParams(Params):
    """Which layers are probed, and how many photos are learned from how often."""

    sites: tuple[str, ...] = knob((), "Layers; empty: six from the first to the last block, and the last hidden layer")
    photos: int = knob(15, "Photos of each class to learn from", low=FOLDS, high=10_000)
    splits: int = knob(3, "Times that photos to learn from are drawn", low=1, high=20)
    seed: int = knob(0, "Random seed of the splits and of the random weights", low=0, high=2**31 - 1)
    curve: tuple[float, ...] = knob(
        (), "Numbers of photos of each class for the curve at the last layer, such as 5,15,30,60; empty: no curve"
    )


class _Pixels(Features):
    """The network's input, averaged over a grid: a column `pixels`, float32 `[n C·8·8]`."""

    def __init__(self) -> None:
        super().__init__((), PIXELS)

    def identity(self) -> dict[str, Any]:
        return {"pixels": PIXELS}

    def start(self, batch: Tensor, crops: int, tick: Callable[[], None] | None) -> Any:
        seen = super().start(batch, crops, tick)
        seen.found["pixels"] = pooled(batch, PIXELS).flatten(1).float()
        return seen

    def take_rows(self) -> Rows:
        taken, self._taken = self._taken, []
        return {"pixels": np.concatenate([part["pixels"].numpy() for part in taken])} if taken else {}


def probe(question: Question, params: ProbeParams, job: Job) -> Result:
    """How well a linear classifier tells a folder's classes apart from the features of each layer, first to last.

    Maps are pooled to 2 × 2 cells (fewer where a side has fewer); features are standardised on the photos that are learned
    from. The classifier is a multinomial logistic regression (see `fit_probe`). Photos with the same pixels count once.
    Of each class `photos` are learned from, and all others, at most 50, are tested on. Accuracies are means over the classes.

    `arrays` (float64, 0 to 1): `accuracy` `[sites splits]`; `accuracy_random` `[sites splits]`, of the same network with
    random weights; `accuracy_pixels` `[splits]`, of the network's input averaged over 8 × 8 cells; `recall` `[sites classes]`,
    means over the splits. With `curve`: `curve_photos` int64 `[n]`, the asked numbers of which every class has more photos;
    `curve`, `curve_random` and `curve_pixels` `[n splits]` at the last layer. `table`: a row per layer.

    Raises:
        VizError: no such layer, or fewer than two classes with enough photos.
    """
    network, source = question.network, question.require_folder()
    sites = chosen_sites(network, params.sites)
    counts = curve_counts(params.curve)
    check_classes(source, params.photos)
    random, kept = untrained(network, params.seed)
    known = shipped_result(shipped_file(network, random, source, params))
    if known is not None:
        return replace(known, panels=_panels(known.arrays, sites))
    table, note = folder_table(network, source, [Features(sites, SIDE), _Pixels()], job, (0.0, 0.35))
    other, _ = folder_table(random, source, [Features(sites, SIDE)], job, (0.35, 0.7))
    if table is None or other is None:
        return Result("probe", {})
    photos = labelled(table, source, params.photos)
    fewest = min(map(len, photos.members))
    without = [count for count in counts if count >= fewest]
    counts = tuple(count for count in counts if count < fewest)
    splits = {
        count: [split(photos.members, [count] * len(photos.classes), MOST_TESTED, params.seed, n) for n in range(params.splits)]
        for count in {params.photos, *counts}
    }  # fmt: skip
    rows = used_rows([one for several in splits.values() for one in several])
    splits = {count: [one.within(rows) for one in several] for count, several in splits.items()}
    asked = [(one, site.name) for one in (table, other) for site in sites] + [(table, "")]
    more = set(counts) - {params.photos}
    fits = _Fits(params.splits * (len(asked) + 3 * len(more)), job)
    at, curves = list[np.ndarray](), list[np.ndarray]()
    for place, (one, name) in enumerate(asked):
        features = matrix(one, rows, network.site(name) if name else None)
        last = not name or place % len(sites) == len(sites) - 1
        found = {count: fits.recalls(features, splits[count]) for count in {params.photos, *(counts if last else ())}}
        at.append(found[params.photos])
        if last:
            curves.append(np.array([found[count].mean(1) for count in counts]).reshape(-1, params.splits))
    every = np.stack(at)  # [asked splits classes]
    reached, count = every.mean(2), len(sites)
    arrays = {
        "accuracy": reached[:count], "accuracy_random": reached[count:-1], "accuracy_pixels": reached[-1],
        "recall": every[:count].mean(1),
    }  # fmt: skip
    if params.curve:
        arrays |= {"curve_photos": np.array(counts, np.int64)}
        arrays |= dict(zip(("curve", "curve_random", "curve_pixels"), curves, strict=True))
    listed = _rows(sites, arrays)
    facts = _facts(network, params, sites, photos, splits[params.photos][0], kept) | {"C": fits.chosen}
    facts |= told_photos(photos, table) | ({"note": note} if note else {})
    if without:
        facts["curve"] = (
            f"The curve stops before {' and '.join(map(str, without))} photos of each class: the smallest class has {fewest}, "
            "and some must be left to test on."
        )
    return Result("probe", arrays, _panels(arrays, sites), facts, listed, documents={"probe.csv": to_csv(listed)})


def _panels(arrays: dict[str, np.ndarray], sites: Sequence[Site]) -> tuple[Panel, ...]:
    return (
        Panel("accuracy", chart(arrays, [site.name for site in sites]), "Accuracy by layer, means over the splits."),
    )


def shipped_file(network: Network, random: Network, source: Source, params: ProbeParams) -> Path:
    """Where the result is if vizapp ships it. `random`: the network with random weights."""
    sites = chosen_sites(network, params.sites)
    tables = [
        table_name(network, source, [Features(sites, SIDE), _Pixels()]),
        table_name(random, source, [Features(sites, SIDE)]),
    ]
    return file_of(tables, params)


class _Fits:
    """Fits probes, and reports the progress. `count`: how many there will be."""

    def __init__(self, count: int, job: Job) -> None:
        self._ticks, self._done, self._job, self._strengths = count * TICKS, 0, job, list[float]()

    def _tick(self) -> None:
        self._job.report(0.7 + 0.3 * self._done / self._ticks)
        self._done += 1

    def recalls(self, features: np.ndarray, splits: Sequence[Split]) -> np.ndarray:
        """The share of right answers in each class `[splits classes]`."""
        found = []
        for one in splits:
            fit = fit_probe(features[one.train], one.train_labels, self._tick)
            self._strengths.append(fit.c)
            found.append(recalls(fit.scores(features[one.test]).argmax(1), one.test_labels))
        return np.stack(found)

    @property
    def chosen(self) -> str:
        """The strengths that were chosen, in words."""
        low, high = min(self._strengths), max(self._strengths)
        span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        return f"{span}, chosen among {', '.join(f'{one:g}' for one in STRENGTHS)} in {FOLDS} folds"


def chosen_sites(network: Network, names: Sequence[str]) -> tuple[Site, ...]:
    """The layers of these names; without names six from the first to the last block, and the last hidden layer.

    Raises:
        VizError: no such layer, or the network has none of those.
    """
    if names:
        return tuple(dict.fromkeys(map(network.site, names)))
    last = network.last_hidden_layer()
    found = tuple(dict.fromkeys([*depth_sites(network), *([last] if last else [])]))
    if not found:
        raise VizError(
            f"{network.name} has neither feature maps nor a last hidden layer; name layers (sites=… in Python, --sites on the "
            "command line).",
            code="no-feature-map",
        )
    return found


def curve_counts(given: Sequence[float]) -> tuple[int, ...]:
    """The numbers of photos of the curve, in ascending order.

    Raises:
        VizError: one is not a whole number, or less than the folds need.
    """
    for count in given:
        if count != int(count) or count < FOLDS:
            raise VizError(
                f"curve has {quoted(count)}; it must be whole numbers of photos, each at least {FOLDS}.",
                code="bad-value",
            )
    return tuple(sorted({int(count) for count in given}))


def check_classes(source: Source, photos: int) -> None:
    """Raise a VizError unless two classes of the folder have more photos than are learned from; no photo is read."""
    if not source.classes:
        raise VizError(
            f"The {len(source)} photos of {source.name} have no classes; put them into a sub-folder for each class, or list "
            "them with their classes in a CSV file.",
            code="no-labels",
        )
    if len(source.classes) == 1:
        raise VizError(
            f"All photos of {source.name} are of one class, {source.classes[0]}; it takes two to tell apart.",
            code="one-class",
        )
    counts = dict.fromkeys(source.classes, 0)
    for label in source.labels:
        if label is not None:
            counts[label] += 1
    _check_enough([name for name, count in counts.items() if count > photos], counts, source, photos)


def _check_enough(used: Sequence[str], counts: dict[str, int], source: Source, photos: int) -> None:
    if len(used) > 1:
        return
    name, most = max(counts.items(), key=lambda pair: pair[1])
    raise VizError(
        f"{'Only one' if used else 'None'} of the {len(source.classes)} classes of {source.name} has more than {photos} "
        "distinct photos, to "
        f"learn from {photos} and test on the others; the largest, {name}, has {most}. Learn from fewer, or add photos.",
        code="too-few-photos",
    )


def labelled(table: PhotoTable, source: Source, photos: int) -> Labelled:
    """The photos of a table to learn from and to test on.

    Raises:
        VizError: fewer than two classes have enough.
    """
    frame = table.frame(["digest", "label"])
    labels = [label if isinstance(label, str) else None for label in frame["label"]]
    found = distinct(labels, frame["digest"].tolist(), source.classes, photos)
    have = {name: len(rows) for name, rows in zip(found.classes, found.members, strict=True)} | found.too_few
    _check_enough(found.classes, have, source, photos)
    return found


def used_rows(splits: Sequence[Split]) -> np.ndarray:
    """The rows of a table that are used at all, sorted."""
    return np.unique(np.concatenate([part for one in splits for part in (one.train, one.test)]))


def matrix(table: PhotoTable, rows: np.ndarray, site: Site | None, side: int = SIDE) -> np.ndarray:
    """The features of some rows at a layer, pooled to `side` × `side`, float32 `[n F]`; of no layer: the pixels.

    Raises:
        VizError: some are not finite, or there is not enough memory.
    """
    column = feature_column(site.name) if site else "pixels"
    width = math.prod((site.channels, *(min(side, cells) for cells in site.shape[1:]))) if site else 0
    check_fits(
        _COPIES * width * len(rows), _CPU, f"{width:,} features of {len(rows):,} photos", "a layer with fewer channels"
    )
    found, begin = list[np.ndarray](), 0
    for part in table.parts(column):
        found.append(part[rows[(rows >= begin) & (rows < begin + len(part))] - begin])
        begin += len(part)
    features = np.concatenate(found)
    if not np.isfinite(features).all():
        where = site.name if site else "the photos"
        raise VizError(f"Some features of {where} are not finite; leave that layer out.", code="not-finite")
    return features


def told_photos(photos: Labelled, table: PhotoTable) -> dict[str, str]:
    """Facts about the photos that were left out."""
    facts = {}
    if photos.too_few:
        listed = [f"{name} ({count})" for name, count in photos.too_few.items()]
        more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        facts["left out"] = (
            f"{len(listed)} of {len(photos.classes) + len(listed)} classes with too few distinct photos: "
            f"{', '.join(listed[:_LISTED])}{more}."
        )
    for name, count, why in (
        ("copies", photos.copies, "with the same pixels as an earlier one, counted once"),
        ("ambiguous", photos.ambiguous, "in several classes with the same pixels, left out"),
        ("unlabelled", photos.unlabelled, "without a class, left out"),
    ):
        facts |= {name: f"{plural(count, 'photo')} {why}."} if count else {}
    if table.unreadable:
        facts["unreadable"] = skipped_note([row["reason"] for row in table.unreadable])
    return facts


def _facts(
    network: Network, params: ProbeParams, sites: Sequence[Site], photos: Labelled, one: Split, kept: Sequence[str]
) -> dict[str, str]:
    drawn = f"seed {params.seed}; every layer initialised as when it is made, measured means and variances 0 and 1"
    if kept:
        named = ", ".join(kept[:_LISTED]) + (" …" if len(kept) > _LISTED else "")
        drawn += f"; {len(kept)} parameters without a way to initialise them keep their values: {named}"
    most = int(np.bincount(one.test_labels).max())
    return {
        "layers": ", ".join(f"{site.name} ({_shape(site)})" for site in sites),
        "photos": f"{params.photos} of each of {len(photos.classes)} classes to learn from, at most {most} others to test on, "
        f"drawn {params.splits} times with seed {params.seed}",
        "classes": ", ".join(photos.classes),
        "chance": f"{100 / len(photos.classes):.1f} %",
        "random weights": drawn,
        "pixels": f"the network's input averaged over {PIXELS} × {PIXELS} cells",
    }


def _shape(site: Site) -> str:
    """The features of a layer: channels, and the cells of the grid."""
    return " × ".join(map(str, (site.channels, *(min(SIDE, side) for side in site.shape[1:]))))


def _rows(sites: Sequence[Site], arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], ...]:
    rows = [("pixels", "", arrays["accuracy_pixels"], None)] + [
        (site.name, _shape(site), arrays["accuracy"][n], arrays["accuracy_random"][n]) for n, site in enumerate(sites)
    ]
    return tuple(
        {"layer": name, "features": shape, "accuracy": float(own.mean()), "lowest": float(own.min())}
        | {"highest": float(own.max())}
        | ({} if random is None else {"random weights": float(random.mean())})
        for name, shape, own, random in rows
    )  # fmt: skip


METHOD = Method(
    key="probe",
    title="What each layer knows",
    source="Zeiler & Fergus 2013, section 5.2 and table 7; Alain & Bengio 2016",
    params=ProbeParams,
    run=probe,
    needs=frozenset({"folder"}),
    takes_long=True,
    shows=(Output("accuracy", "curves", title="Accuracy by layer"), Output("table", "table")),
)
