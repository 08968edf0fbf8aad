"""The method `trust`: measures of attribution maps, of one photo or over a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.media.picture import Picture
from vizapp.media.source import skipped_note
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.tables import to_csv
from vizapp.methods.trust.facts import told_facts
from vizapp.methods.trust.interval import RunningMean, mean_interval, wins
from vizapp.methods.trust.params import TrustParams, chosen_box, chosen_kinds, chosen_measures, merit
from vizapp.methods.trust.photo import MapScores, measured, with_random_weights
from vizapp.methods.truth import true_class
from vizapp.methods.views import curves_data
from vizapp.report.section import View
from vizapp.zoo.network import Network, class_unit

_NONE = np.zeros(0)


def trust(question: Question, params: TrustParams, job: Job) -> Result:
    """How well attribution maps find what a network uses: deletion, insertion, ROAD, pointing game and other measures.

    `docs/attribution.md` defines the measures. K kinds, M measures, in the order of the facts "kinds" and "measures". The unit
    is the question's; without one the class that is true, if it is known, or the network's answer. `arrays`, float32 unless
    said: `scores` `[K M]`; `curves` `[K M 101]`, the score with 0, 1, … 100 % of the pixels replaced, for deletion and
    insertion; `road` `[K 2 9]`, the score with 10, … 90 % removed, most relevant first and least relevant first; `maps`
    `[K H W]`, those of the method `attribution`. NaN where something is not defined; a fact says why. `wins` and `compared`
    int64 `[K M]`: on how many photos a map is better than the random one, of how many; only with the kind "random".
    `table`: a row per kind.

    Of a folder (at most `photos`; a picture given beside it comes first) these are means over the photos, and the maps are
    those of the first photo. Further arrays: `per_photo` `[photos K M]`; `low` and `high` `[K M]`, the 95 % interval of the
    mean; `picture` int64 `[photos]`, numbers in the folder, -1 if beside it; `class` int64 `[photos]`, -1 if a unit was given.

    Raises:
        VizError: no such kind or measure, a bad box, no class, no readable photo, or no kind is defined for the network.
    """
    network = question.network
    kinds, box = chosen_kinds(params), chosen_box(question, params)
    measures = chosen_measures(params, box)
    random = with_random_weights(network, params.seed) if "randomisation" in measures else None
    unreadable: list[str] = []
    numbers, classes, found = list[int](), list[int](), list[MapScores]()
    first, curves, road = None, RunningMean(), RunningMean()
    pictures, count = question.pictures(params.photos, unreadable)
    for number, picture in pictures:
        done = len(numbers) + len(unreadable)
        unit, class_ = _unit(question, picture, params)
        asked = replace(question, picture=picture, folder=None, unit=unit)
        seed = (params.seed + max(number, 0)) % 2**31

        def tick(share: float, done: int = done) -> None:
            job.report((done + share) / count)

        one = measured(asked, kinds, measures, box, seed, random, tick)
        first = first or one
        curves.add(one.curves)
        road.add(one.road)
        found.append(replace(one, maps=_NONE, curves=_NONE, road=_NONE))  # those of many photos would fill the memory
        numbers.append(number)
        classes.append(class_)
    if first is None:
        why = unreadable[0] if unreadable else "There is none in it."
        raise VizError(f"No photo of {question.require_folder().name} can be read. {why}", code="no-readable-pictures")
    if all(set(kinds) <= set(one.undefined) for one in found):
        raise VizError(first.undefined[kinds[0]], code="no-map")
    per_photo = np.stack([one.scores for one in found])
    mean, low, high = (values.astype(np.float32) for values in mean_interval(per_photo))
    arrays = {"scores": mean, "curves": curves.mean(), "road": road.mean(), "maps": first.maps}
    if "random" in kinds:
        merits = np.stack([merit(name, per_photo[..., column]) for column, name in enumerate(measures)], -1)
        chance = merits[:, [kinds.index("random")]]
        arrays |= dict(zip(("wins", "compared"), wins(merits, chance), strict=True))
    if question.folder is not None:
        arrays |= {"per_photo": per_photo.astype(np.float32), "low": low, "high": high}
        arrays |= {"picture": np.array(numbers, np.int64), "class": np.array(classes, np.int64)}
    table = _table(arrays, kinds, measures)
    facts = {"kinds": ",".join(kinds), "measures": ",".join(measures)}
    facts |= told_facts(question, params, kinds, measures, box, found, classes, arrays)
    if question.folder is not None:
        facts["photos"] = f"{len(numbers)} of the {count} asked for, of {question.folder.name}"
    if unreadable:
        facts["unreadable"] = skipped_note(unreadable)
    return Result("trust", arrays, facts=facts, table=table, documents={"trust.csv": to_csv(table)})


def _unit(question: Question, picture: Picture, params: TrustParams) -> tuple[Unit, int]:
    """The unit to explain on a photo, and its class; -1 for a unit that the question names."""
    network = question.network
    if question.unit is not None:
        return question.unit, -1
    class_ = true_class(network, picture.label) if params.about == "true" else None
    if class_ is None:
        class_ = _answer(network, picture)
    return class_unit(network, class_), class_


def _answer(network: Network, picture: Picture) -> int:
    """The class that the network gives the photo."""
    with torch.no_grad():
        return int(network.scores(network.prepare(picture))[0].argmax())


def _table(arrays: dict[str, np.ndarray], kinds: Sequence[str], measures: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """A row per kind: each measure, over a folder with half the width of its interval and the photos where it beats random."""
    rows = []
    for number, kind in enumerate(kinds):
        row: dict[str, Any] = {"kind": kind}
        for place, measure in enumerate(measures):
            row[measure] = _number(arrays["scores"][number, place])
            if "low" not in arrays:
                continue
            row[f"{measure} ±"] = _number((arrays["high"] - arrays["low"])[number, place] / 2)
            if "wins" in arrays and kind != "random" and arrays["compared"][number, place]:
                won, of = arrays["wins"][number, place], arrays["compared"][number, place]
                row[f"{measure}, beats random"] = f"{won} of {of}"
        rows.append(row)
    return tuple(rows)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def views(result: Result) -> tuple[View, ...]:
    """The curves of deletion, insertion and ROAD, for reports."""
    kinds, measures = (result.facts[name].split(",") for name in ("kinds", "measures"))
    found = []
    for number, measure in enumerate(measures):
        lines = result.arrays["curves"][:, number]
        if np.isfinite(lines).any():
            done = {"deletion": "deleted", "insertion": "inserted"}.get(measure, "replaced")
            title = f"{measure.capitalize()}: the score while pixels are {done}"
            data = curves_data(np.arange(lines.shape[1]), lines, kinds, title, f"Pixels {done}, percent")
            found.append(View("curves", data, title))
    for end, lines in zip(("most", "least"), result.arrays["road"].swapaxes(0, 1), strict=True):
        if np.isfinite(lines).any():
            title = f"ROAD: the score while pixels are removed, the {end} relevant first"
            data = curves_data(np.arange(10, 100, 10), lines, kinds, title, "Pixels removed, percent")
            found.append(View("curves", data, title))
    return tuple(found)


METHOD = Method(
    key="trust",
    title="Trust",
    source="Petsiuk et al. 2018, section 4; Rong et al. 2022 (ROAD); Zhang et al. 2018 (pointing game); Adebayo et al. 2018 "
    "(randomisation)",
    params=TrustParams,
    run=trust,
    optional_inputs=frozenset({"unit", "folder"}),
    memory_hint="fewer photos",
    shows=(
        Output("table", "table"),
        Output("maps", "support map", reading="Row by row, in the order of the table."),
    ),
    views=views,
)
