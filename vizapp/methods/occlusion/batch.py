"""Occlusion of several photos by the same square: small maps of each, a table and the mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from vizapp.errors import VizError, plural
from vizapp.media.drawing import sheet, signed
from vizapp.media.picture import Picture
from vizapp.media.source import skipped_note, spread
from vizapp.media.transforms import resize
from vizapp.methods.base import Job, Panel, Question, Result
from vizapp.methods.occlusion.sweep import Occlusion, OcclusionParams, asked_map, sweep_over

TOGETHER = 4  # pictures whose clean activations are held at once
_SHOWN = 112  # pixels of the longer side of a small map
_STACKED = (
    "probability", "logit", "label", "activation", "clean_probability", "clean_logit", "clean_label", "clean_activation",
    "class", "true_label", "projection",
)  # fmt: skip


def occlude_images(question: Question, params: OcclusionParams, job: Job) -> Result:
    """Sweeps over the pictures of the question's folder (at most `params.most`, evenly spaced).

    `arrays` (P pictures, h w positions): `probability`, `logit`, `label`, `activation` `[P h w]` for the class of each
    picture, `class` `[P]` (the unit's, else the true class, else the clean prediction); `clean_…` and `true_label` `[P]`;
    `positions` `[h w 4]`; `projection` `[P H W 3]`, if every picture has one; `picture` `[P]`, numbers in the folder;
    `mean_change` `[h w]`, the mean change of the probability over the pictures. `table`: a row per picture (`row_of`).
    `panels`: the mean change, then photo, (b), (c), (d), (e) of each picture.

    Raises:
        VizError: no picture can be read, or an error of `Occlusion`.
    """
    source = question.require_folder()
    numbers, unreadable, kept = spread(len(source), params.most), list[str](), list[int]()

    def readable() -> Iterator[Picture]:
        for number, picture in source.open_readable(numbers, unreadable):
            kept.append(number)
            yield picture

    parts, table, panels = list[dict[str, np.ndarray]](), list[dict[str, Any]](), list[Panel]()
    facts: dict[str, str] = {}
    for picture, one in sweeps(question, readable(), params, lambda done: job.report(done / len(numbers))):
        name = source.path(kept[len(parts)])
        caption = f"{name}: photo, then {', '.join(panel.title[0] for panel in one.panels if panel.title[0] != 'a')}."
        panels.append(Panel(f"{len(parts):03d}-{name}", strip(question.network.seen(picture), one), caption))
        table.append(row_of(name, one))
        parts.append({key: one.arrays[key] for key in (*_STACKED, "positions") if key in one.arrays})  # not all classes
        facts = facts or one.facts
    if not parts:
        why = unreadable[0] if unreadable else "There is none in it."
        raise VizError(f"No photo of {source.name} can be read. {why}", code="no-readable-pictures")
    arrays = stacked(parts) | {"picture": np.array(kept, np.int64)}
    told = {"pictures": f"{len(kept)} of the {len(source)} of {source.name}"} | summary(
        facts, table, question.network.quantity
    )
    if unreadable:
        told["unreadable"] = skipped_note(unreadable)
    return Result(
        "occlusion", arrays, (mean_panel(arrays["mean_change"], question.network.quantity), *panels), told, tuple(table)
    )


def sweeps(
    question: Question, pictures: Iterable[Picture], params: OcclusionParams, tick: Callable[[float], None]
) -> Iterator[tuple[Picture, Result]]:
    """Each picture with its result, in order; groups of pictures share one sweep and its plans.

    `tick` gets the number of finished pictures, with a fraction for the current one.
    """
    network = question.network
    site = asked_map(question, params)[0]
    left, done = iter(pictures), 0
    while some := list(islice(left, TOGETHER)):
        sweep = sweep_over(network, [network.crop(picture) for picture in some], params, site)
        for number, picture in enumerate(some):
            work = Occlusion(replace(question, picture=picture, folder=None), params, (sweep, number))
            for share in work.run():
                tick(done + 0.95 * share)
            yield picture, work.result()
            done += 1
            tick(done)


def row_of(name: str, result: Result) -> dict[str, Any]:
    """The result of a sweep over one picture as a table row.

    `class`: the class in question. `true`: the true class. `answer`: the clean prediction. `clean`: the probability of the
    class without the square. `lowest`: its lowest probability, at `row` and `column`. `drop`: the mean decrease of the
    probability. `same`: the share of positions with the clean prediction.
    """
    arrays = result.arrays
    values = arrays["probability"]
    row, column = np.unravel_index(int(values.argmin()), values.shape)
    names = {entry["class"]: entry["name"] for entry in result.table}
    true, class_ = int(arrays["true_label"]), int(arrays["class"])
    return {
        "picture": name,
        "true": names.get(true, ""),
        "answer": names[int(arrays["clean_label"])],
        "class": result.facts["class"].rpartition(" (")[0] if class_ not in names else names[class_],
        "clean": float(arrays["clean_probability"]),
        "lowest": float(values[row, column]),
        "row": int(row),
        "column": int(column),
        "drop": float(arrays["clean_probability"] - values.mean()),
        "same": float((arrays["label"] == arrays["clean_label"]).mean()),
    }


def strip(seen: np.ndarray, result: Result) -> np.ndarray:
    """The photo and the existing panels (b) to (e) of one picture side by side: uint8 `[H W 3]`."""
    named = {panel.title[0]: panel.pixels for panel in result.panels}
    return sheet([small(seen), *(small(named[letter]) for letter in "bcde" if letter in named)], 5, gap=3)


def small(pixels: np.ndarray) -> np.ndarray:
    """A picture resized to a small map, uint8 `[h w 3]`."""
    height, width = (max(1, round(side * _SHOWN / max(pixels.shape[:2]))) for side in pixels.shape[:2])
    return resize(pixels, height, width, "area" if max(pixels.shape[:2]) > _SHOWN else "nearest")


def stacked(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of several sweeps stacked, and their `mean_change`: see `occlude_images`."""
    named = [name for name in _STACKED if all(name in one for one in parts)]
    arrays = {name: np.stack([one[name] for one in parts]) for name in named}
    change = (arrays["probability"] - arrays["clean_probability"][:, None, None]).mean(0, dtype=np.float64)
    return arrays | {"positions": parts[0]["positions"], "mean_change": change.astype(np.float32)}


def summary(first: Mapping[str, str], table: Sequence[dict[str, Any]], quantity: str = "probability") -> dict[str, str]:
    """Facts about all sweeps. `first`: the facts of the first one. `quantity`: what was measured."""
    lost, same = (float(np.mean([row[name] for row in table])) for name in ("drop", "same"))
    facts = {
        "summary": f"The square lowers the probability by {100 * lost:.1f} percentage points on average; the prediction stays "
        f"the same at {100 * same:.0f} % of the positions."
        if quantity == "probability"
        else f"The square lowers the {quantity} by {lost:.3f} on average."
    }
    known = [row for row in table if row["true"]]
    if known:
        right = sum(row["true"] == row["answer"] for row in known)
        facts["true class"] = f"Known for {plural(len(known), 'photo')}; the network is right about {right} of them."
    return facts | {name: first[name] for name in ("square", "evaluation", "precision", "caution") if name in first}


def mean_panel(change: np.ndarray, quantity: str = "probability") -> Panel:
    """The mean change of the probability, or another quantity, `[h w]`, with its range."""
    most = float(np.abs(change).max(initial=0))
    ends = (
        f"−{100 * most:.1f} points, white +{100 * most:.1f}"
        if quantity == "probability"
        else f"−{most:.3g}, white +{most:.3g}"
    )
    caption = f"Mean change of the {quantity}: grey none, black {ends}."
    return Panel("mean-change", signed(change).repeat(8, 0).repeat(8, 1), caption)
