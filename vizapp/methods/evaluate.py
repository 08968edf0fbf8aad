"""How often a network is right about the photos of a labelled folder, and where it is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.fully_convolutional.tiles import dense_map
from vizapp.errors import VizError, nearest, plural, showable
from vizapp.gallery.collectors import Predictions
from vizapp.gallery.folder_pass import Input
from vizapp.gallery.mean_table import mean_table
from vizapp.gallery.photo_table import PhotoTable
from vizapp.gallery.store import MANIFEST
from vizapp.media.crops import GoogLeNetCrops, WholePhoto
from vizapp.media.picture import open_picture
from vizapp.media.source import Source, skipped_note
from vizapp.methods import dense
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.collected import folder_table, passes_of, table_name
from vizapp.methods.error_rates import Answers, rates
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.predict import corner_crops
from vizapp.methods.scores import no_classifier
from vizapp.methods.tables import to_csv
from vizapp.methods.truth import fold, is_class_number, true_classes
from vizapp.zoo import load, taught
from vizapp.zoo.network import Network

MOST_MISTAKES = 10_000  # of the table
_PARTS = {"train", "training", "val", "valid", "validation", "test"}  # folders above those of the classes
_CROPS = {
    "one": "the centre crop", "ten": "mean of ten crops", "multi": "mean of 30 crops at three scales",
    "144": "mean of the 144 crops of Szegedy et al. 2014",
    "dense": "every whole crop of the resized photo at the network's stride, logits averaged over the map",
}  # fmt: skip


@dataclass(frozen=True)
class EvaluateParams(Params):
    """`crops`: as for `predict`; "144" are those of Szegedy et al. 2014, section 7; "dense" runs the network converted to a
    fully convolutional one over the resized photo and averages the logits of the map, whose cells see a whole crop each."""

    crops: Literal["one", "ten", "144", "multi", "dense"] = knob(
        "one", "Crops of each photo whose probabilities are averaged; dense: every crop at the network's stride"
    )
    with_networks: tuple[str, ...] = knob(
        (), "More networks with the same classes, by name; the probabilities of all are averaged"
    )
    workers: int = knob(-1, "Processes that decode photos; 0: no extra process, -1: automatic", low=-1, high=256)


def evaluate(question: Question, params: EvaluateParams, job: Job) -> Result:
    """How often the network is right about a labelled folder: error rates, confusions, calibration and the mistakes.

    The class of a photo is the name of its folder, its label in a CSV file, or ImageNet's number in WordNet (n01440764).
    `arrays`: `top1`, `top5`, errors from 0 to 1 over the photos whose class the network has, with `top1_interval` and
    `top5_interval` `[2]` (Wilson, 95 %); `confusion` int64 `[K K]`, rows true, columns given, for the classes `classes` `[K]`
    (all of the network's, or those that occur where it has more than 2,048); `count`, `given`, `recall`, `precision`,
    `confused_with` `[classes]` (see `error_rates.per_class`); `calibration` `[15 3]`: mean confidence, accuracy, photos;
    `calibration_error`; `mistakes` `[m 3]`: number in the folder, true and given class, the surest first; `without_class`: the
    numbers of the photos whose class is not known. `table`: a row per mistake. `store`: the folder of `photos.parquet`, with a
    row per photo (see docs/evaluate.md). An interrupted pass resumes when the same is asked again.

    Raises:
        VizError: no photo has a label that is a class of the network, another network has other classes, or the network has
            none.
    """
    source, networks = question.require_folder(), _networks(question.network, params)
    true = true_classes(question.network, source.labels)
    if all(one is None for one in true):
        raise nothing_to_compare(question.network, source)
    table, notes = _answers(networks, source, params, true, job)
    if table is None:  # a process of torchrun that is not the leader
        return Result("evaluate", {})
    job.report(0.98)
    found, unknown = known_answers(table)
    if not len(found.true):
        raise VizError(
            f"None of the photos in {source.name} whose class is known can be read: {table.unreadable[0]['reason']}",
            code="no-readable-picture",
        )
    arrays = rates(found, question.network.head.classes) | {"without_class": unknown}
    facts = _facts(networks, source, params, arrays, found, table)
    if notes:
        facts["note"] = " ".join(notes)
    documents = {
        "classes.csv": to_csv(class_rows(question.network, arrays)),
        "labels.csv": to_csv(label_rows(question.network, source, true)),
    }
    rows = tuple(_mistakes(question.network, source, found, arrays["mistakes"]))
    return Result("evaluate", arrays, (), facts, rows, table.folder, MANIFEST, documents)


# Networks and their passes


def _networks(network: Network, params: EvaluateParams) -> list[Network]:
    """The network and those that are averaged with it."""
    found = [network]
    if not network.target and (error := no_classifier(network, "Evaluate")) is not None:
        raise error
    if not network.target:
        _ = network.head  # raises if it has no class scores
    if not network.categories:
        raise VizError(
            f"{network.name} has features but no classes; there is nothing to evaluate.", code="no-class-scores"
        )
    wanted = [fold(name.split(",")[0]) for name in network.categories]
    for name in params.with_networks:
        other = load(name, device=network.device)
        if [fold(one.split(",")[0]) for one in other.categories] != wanted:
            raise VizError(
                f"{other.name} has other classes than {network.name} ({len(other.categories)} and {len(wanted)}, or in another "
                "order or with other names), so their probabilities cannot be averaged.",
                code="other-classes",
            )
        found.append(other)
    return found


def _answers(
    networks: Sequence[Network], source: Source, params: EvaluateParams, true: Sequence[int | None], job: Job
) -> tuple[PhotoTable | None, list[str]]:
    """The table of the answers, of several networks that of their mean; and messages."""
    tables, notes = list[PhotoTable | None](), list[str]()
    several = len(networks) > 1
    for number, network in enumerate(networks):
        how = crops_input(network, params.crops)
        if how is not None and params.crops == "dense":
            how = replace(how, scores=_dense_scores(network))
        collector = Predictions(network, true, how.count if how else 1, whole=several)
        share = 0.95 * number / len(networks), 0.95 * (number + 1) / len(networks)
        table, note = folder_table(network, source, [collector], job, share, params.workers, how)
        tables.append(table)
        notes += [note] if note else []
    whole = [table for table in tables if table is not None]
    if not whole:
        return None, notes
    return mean_table(whole, source, passes_of(source)) if several else whole[0], notes


def pass_state(network: Network, source: Source, crops: str) -> tuple[bool, bool]:
    """Whether the pass of one network over these photos was begun, and whether it is finished."""
    how = crops_input(network, crops)
    collector = Predictions(network, true_classes(network, source.labels), how.count if how else 1)
    place = passes_of(source) / table_name(network, source, [collector], how)
    whole = (place / MANIFEST).exists()
    return whole or place.exists(), whole


def crops_input(network: Network, crops: str) -> Input | None:
    """How photos enter the network; None: as their centre crop. The scores of "dense" are left out."""
    if crops == "one":
        return None
    view = network.preprocessing.view
    if crops == "144":
        return Input(GoogLeNetCrops(view), "144 crops", count=144)
    if crops == "dense":
        return Input(WholePhoto(view), "dense")
    several = corner_crops(network, crops)
    return Input(several, f"{crops} crops", count=10 * len(several.scales))


def _dense_scores(network: Network) -> Callable[[np.ndarray], Tensor]:
    """The logits `[1 classes]` of a photo of any size, averaged over the map.

    Raises:
        VizError: the network cannot be converted to a fully convolutional one.
    """
    made = dense.convolutional(network)
    sides = [side + 2 * step for side, step in zip(made.size, made.stride, strict=True)]
    noise = open_picture(np.random.default_rng(0).integers(0, 256, (*sides, 3), dtype=np.uint8))
    dense.dense(
        Question(network, noise), dense.DenseParams(), Job()
    )  # compares cells with crops: refuses what it cannot do

    def scores(pixels: np.ndarray) -> Tensor:
        def read(top: int, left: int, bottom: int, right: int) -> Tensor:
            return network.batch([pixels[top:bottom, left:right]])

        height, width = pixels.shape[:2]
        with torch.no_grad():
            found = dense_map(network.module, made, read, height, width, network.device, keep=[])
        return torch.from_numpy(found.mean)[None]

    return scores


# Numbers


def known_answers(table: PhotoTable) -> tuple[Answers, np.ndarray]:
    """The answers to the photos whose class is known, and the numbers of the other photos."""
    true, numbers = table.matrix("true"), table.matrix("picture")
    known = true >= 0
    return Answers(
        numbers[known], true[known], table.matrix("classes")[known, 0], table.matrix("probabilities")[known, 0],
        table.matrix("true_probability")[known], table.matrix("true_rank")[known],
    ), numbers[~known]  # fmt: skip


# Texts


def class_rows(network: Network, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each class that is true or given for some photo."""
    rows = []
    for number in np.flatnonzero(arrays["count"] + arrays["given"]).tolist():
        recall, precision, other = (arrays[name][number] for name in ("recall", "precision", "confused_with"))
        rows.append({
            "class": number, "name": network.class_name(number), "photos": int(arrays["count"][number]),
            "given": int(arrays["given"][number]),
            "recall": None if np.isnan(recall) else float(recall),
            "precision": None if np.isnan(precision) else float(precision),
            "confused with": "" if other < 0 else network.class_name(int(other)),
        })  # fmt: skip
    return rows


def label_rows(network: Network, source: Source, true: Sequence[int | None]) -> list[dict[str, Any]]:
    """A row for each label of the photos, with the class that it means, if any; labels without a class come first."""
    known = dict(zip(source.labels, true, strict=True))
    counts = Counter(source.labels)
    return [
        {"label": label or "", "photos": counts[label], "class": known[label],
         "name": "" if (class_ := known[label]) is None else network.class_name(class_)}
        for label in sorted(known, key=lambda label: (known[label] is not None, label or ""))
    ]  # fmt: skip


def _mistakes(network: Network, source: Source, found: Answers, mistakes: np.ndarray) -> Iterator[dict[str, Any]]:
    """A row per mistake, the surest first."""
    shown = mistakes[:MOST_MISTAKES]
    places = np.searchsorted(found.picture, shown[:, 0])  # ascending, as in the folder
    for (number, true, given), place in zip(shown.tolist(), places.tolist(), strict=True):
        yield {
            "photo": source.path(number), "right": network.class_name(true), "given": network.class_name(given),
            "probability right": float(found.own[place]), "probability given": float(found.share[place]),
        }  # fmt: skip


def _facts(
    networks: Sequence[Network], source: Source, params: EvaluateParams, arrays: dict[str, np.ndarray], found: Answers,
    table: PhotoTable,
) -> dict[str, str]:  # fmt: skip
    count, lacking = len(found.true), Counter(source.labels[number] for number in arrays["without_class"].tolist())
    facts = {
        "photos": f"{count:,} of {source.name} with a known class, of "
        f"{plural(int(np.count_nonzero(arrays['count'])), 'class', 'classes')}",
        "accuracy": f"{100 * (1 - float(arrays['top1'])):.2f} %; mean over the classes {100 * _mean_recall(arrays):.2f} %",
        "top-1 error": _rate(arrays, "top1", count), "top-5 error": _rate(arrays, "top5", count),
        "calibration error": f"{100 * float(arrays['calibration_error']):.2f} percentage points (15 bins)",
        "crops": _CROPS[params.crops], "output": networks[0].output_description,
    }  # fmt: skip
    if len(networks) > 1:
        facts["networks"] = f"mean of the probabilities of {', '.join(network.name for network in networks)}"
        if networks[0].interventions:
            facts["networks"] += "; only the first is changed"
    if networks[0].head.classes <= 5:
        facts["top-5 error"] = f"0: {networks[0].name} has {plural(networks[0].head.classes, 'class', 'classes')}."
    if taught.is_own(networks[0].name) and (about := taught.describe(networks[0].name)).data == source.name:
        facts["learned from"] = (
            f"{networks[0].name} learned from {plural(about.learned, 'photo')} of {source.name}; only photos that are not "
            "among these "
            "say how often it is right about others."
        )
    as_numbers = [label for label in dict.fromkeys(source.labels) if label and is_class_number(networks[0], label)]
    if as_numbers:
        more = f" and {len(as_numbers) - 1} more" if len(as_numbers) > 1 else ""
        facts["as numbers"] = (
            f"{as_numbers[0]}{more} were taken as numbers of classes, as no class has that name: {as_numbers[0]} is "
            f"{networks[0].class_name(true_classes(networks[0], as_numbers[:1])[0] or 0)}."
        )
    if np.count_nonzero(arrays["count"]) == 1:
        facts["one class"] = "All photos are of one class: a network that always gives it would make no mistake."
    if lacking:
        named = ", ".join(f"{showable(label) if label else 'no label'} ({n:,})" for label, n in lacking.most_common(5))
        more = f" and {plural(len(lacking) - 5, 'more label')}" if len(lacking) > 5 else ""
        facts["without a class"] = (
            f"{plural(sum(lacking.values()), 'photo')} with an answer but not counted: {named}{more}. labels.csv lists all."
        )
    if table.unreadable:
        facts["unreadable"] = skipped_note([row["reason"] for row in table.unreadable])
    if len(arrays["classes"]) < networks[0].head.classes:
        facts["confusion"] = (
            f"of the {len(arrays['classes']):,} classes that occur most, of {networks[0].head.classes:,}"
        )
    if len(arrays["mistakes"]) > MOST_MISTAKES:
        facts["mistakes"] = f"The table has the {MOST_MISTAKES:,} surest of {len(arrays['mistakes']):,}."
    return facts | {"folder": showable(str(table.folder))}


def _mean_recall(arrays: dict[str, np.ndarray]) -> float:
    return float(np.nanmean(arrays["recall"]))


def _rate(arrays: dict[str, np.ndarray], name: str, count: int) -> str:
    rate, (low, high) = float(arrays[name]), arrays[f"{name}_interval"].tolist()
    return f"{100 * rate:.2f} % ({round(rate * count):,} of {count:,}; 95 % interval {100 * low:.2f} to {100 * high:.2f} %)"


def nothing_to_compare(network: Network, source: Source) -> VizError:
    """The error for a network that is no classifier, or photos of which none has a label that is a class of the network."""
    if not network.target and (error := no_classifier(network, "Evaluate")) is not None:
        return error
    if network.quantity != "probability":
        return VizError(
            f"Labels are compared with classes, but toward {network.target} the answer is a {network.quantity}; evaluate the "
            "network without the target.",
            code="target-without-classes",
        )
    if not any(source.labels):
        return VizError(
            f"No photo in {source.name} has a label, so nothing says which answers are right: put the photos of each class "
            "into a folder of its name, or list them in a CSV file with the columns path and label.",
            code="no-labels",
        )
    labels = list(dict.fromkeys(label for label in source.labels if label))
    parts = f" Open one of these folders, such as {showable(labels[0])}." if {*map(fold, labels)} <= _PARTS else ""
    named = ", ".join(map(showable, labels[:3])) + (", …" if len(labels) > 3 else "")
    return VizError(
        f"None of the {len(labels)} labels in {source.name} ({named}) is a class of {network.name}."
        f"{parts or (nearest(labels[0], network.categories) if len(labels) == 1 else '')}",
        code="no-such-class",
    )


def _empty(question: Question) -> str | None:
    """Why a question cannot be answered, or None."""
    if len(question.require_folder()) == 0:
        return f"There is no photo in {question.require_folder().name}."
    return None


METHOD = Method(
    key="evaluate",
    title="Evaluate",
    source="Krizhevsky et al. 2012, section 6; Szegedy et al. 2014, section 7; Guo et al. 2017",
    params=EvaluateParams,
    run=evaluate,
    needs=frozenset({"folder"}),
    incompatibility=_empty,
    memory_hint="fewer crops",
    shows=(Output("table", "table"),),
)
