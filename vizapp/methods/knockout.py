"""Knock out: what a class loses when each unit of a layer alone is silenced, and the fewest units that change the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vizapp.engine.memory.chunks import check_fits
from vizapp.engine.occlusion.ablation import Ablation
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, plural
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.scores import in_words, probabilities
from vizapp.zoo.network import Network

_CPU, _COPIES = torch.device("cpu"), 4  # of the scores of all units, in float64
CAUTION = (
    "Silencing a unit also takes what other units need beside it, and gives the layers above an input that they never saw; a "
    "unit with a large effect here need not be one that the class needs on other photos."
)


@dataclass(frozen=True)
class KnockoutParams(Params):
    """The layer, what its units are multiplied by, and whether the fewest that change the answer are searched."""

    site: str = knob("", "Layer whose units are silenced; by default the unit's, or the last feature map")
    factor: float = knob(0.0, "What a unit's activations are multiplied by; 0 silences it", low=0, high=3)
    fewest: bool = knob(False, "Search the fewest units that change the answer together, one after another")


def knockout(question: Question, params: KnockoutParams, job: Job) -> Result:
    """How much a class loses when one unit of a layer is silenced, for each unit.

    The class is that of the unit, if the unit is a class, else the network's answer for the photo. Each unit is multiplied by
    `factor` everywhere, on its own. `arrays` (C units): `logit_change`, `probability_change` float32 `[C]` of the class;
    `rank` int64 `[C]`, the place of the class after the change (1: the answer); `label` int64 `[C]`, the answer after it;
    `order` int64 `[C]`, units by the change of the logit, the largest loss first, ties to the lower number; `class`, and
    without a change `clean_logits` float32 `[classes]`, `clean_probability` of the class and `clean_label`. `table`: a row
    per unit, in that order.

    `fewest`: int64 `[k]`, units whose joint change alters the answer, found greedily: each step changes the unit that lowers
    the margin of the class most, and all are computed again. `fewest_curve`: float32 `[k + 1]`, the margin (the logit of the
    class less that of the best other class) without a change and after each step; it ends at 0 or below where the answer
    changed. Without `fewest`, and for a class that is not the answer, k is 0.
    """
    network, picture = question.network, question.require_picture()
    site, class_ = _asked(question, params)
    if params.fewest and network.head.classes < 2:
        raise VizError(
            f"{network.name} has one class, so there is no other that its answer could change to; leave out 'fewest'.",
            code="one-class",
        )
    ablation = Ablation(network.module, network.scores, network.prepare(picture), site, network.footprint)
    clean = ablation.clean_scores.double().cpu().numpy()
    class_ = int(clean.argmax()) if class_ is None else class_
    units = ablation.live if params.factor != 1 else []
    check_fits(8 * _COPIES * len(units) * len(clean), _CPU, f"the scores of {len(units)} units", "an earlier layer")
    share = 0.5 if params.fewest else 0.95
    changed = _scores(ablation, ablation.without(units, params.factor), job, (0.0, share))
    logits = np.repeat(clean[None], site.channels, 0)  # a unit that is zero everywhere changes nothing
    logits[units] = changed
    chance = probabilities(network, logits.T)[class_]
    before = probabilities(network, clean)
    arrays = {
        "logit_change": (logits[:, class_] - clean[class_]).astype(np.float32),
        "probability_change": (chance - before[class_]).astype(np.float32),
        "rank": 1 + (logits > logits[:, class_, None]).sum(1),
        "label": logits.argmax(1),
        "class": np.array(class_),
        "clean_logits": clean.astype(np.float32),
        "clean_probability": np.array(before[class_], np.float32),
        "clean_label": np.array(int(clean.argmax())),
    }
    still = [unit for unit in range(site.channels) if unit not in set(units)]
    arrays["probability_change"][still] = 0
    arrays["order"] = np.argsort(arrays["logit_change"], kind="stable")
    facts = _facts(network, site, class_, before, units, params) | ablation.facts
    found, curve = list[int](), [float(_margin(clean[None], class_)[0])]
    if params.fewest:
        found, curve, label = _fewest(ablation, units, class_, params.factor, changed, job)
        facts["fewest"] = _told(network, class_, found, curve, label, params.factor)
    arrays |= {"fewest": np.array(found, np.int64), "fewest_curve": np.array(curve, np.float32)}
    return Result("knockout", arrays, facts=facts | {"caution": CAUTION}, table=_table(network, arrays))


def _asked(question: Question, params: KnockoutParams) -> tuple[Site, int | None]:
    """The layer, and the requested class or None.

    Raises:
        VizError: the network has no classes, or the layer is that of the classes.
    """
    network, unit = question.network, question.unit
    if not network.heads:
        raise VizError(
            f"{network.name} returns no class scores that a unit could change; use a classification network.",
            code="no-class-scores",
        )
    _ = network.head
    if not network.categories:
        raise VizError(f"{network.name} has features but no classes to lose.", code="no-class-scores")
    its, class_ = None, None
    if unit is not None:
        its = network.site(unit.site)
        if its == network.class_site:
            its, class_ = None, unit.channel
    site = network.site(params.site) if params.site else its or network.last_feature_map()
    if site is None:
        raise VizError(
            f"{network.name} has no feature maps; give a layer (site=… in Python, --site on the command line).",
            code="no-feature-map",
        )
    if network.class_names(site) and math.prod(site.shape) == site.channels:
        raise VizError(
            f"Layer {site.name!r} is that of the classes, where silencing a unit only removes its class; choose an earlier "
            "layer.",
            code="class-layer",
        )
    return site, class_


def _scores(ablation: Ablation, factors: torch.Tensor, job: Job, part: tuple[float, float]) -> np.ndarray:
    """The scores float64 `[N classes]` for each row of `factors`; reports progress from the first to the second of `part`."""
    found, (start, end) = [np.zeros((0, len(ablation.clean_scores)))], part
    for some in ablation.scores(factors):
        found.append(some.double().cpu().numpy())
        job.report(start + (end - start) * sum(map(len, found)) / len(factors))
    return np.concatenate(found)


def _margin(logits: np.ndarray, class_: int) -> np.ndarray:
    """The logit of the class less that of the best other class, if there is another: `[N]` of `[N classes]`."""
    others = np.delete(logits, class_, 1)
    return logits[:, class_] - (others.max(1) if others.shape[1] else 0)


def _fewest(
    ablation: Ablation, units: list[int], class_: int, factor: float, first: np.ndarray, job: Job
) -> tuple[list[int], list[float], int]:
    """The greedy set in the order in which it was found, the margins from clean on, and the answer at the end.

    Args:
        ablation: Gives scores.
        units: Units that change something, in order.
        class_: The class.
        factor: What a unit is multiplied by.
        first: The scores `[units classes]` when each alone is changed.
        job: For progress and cancelling.
    """
    logits = ablation.clean_scores.double().cpu().numpy()
    effects = first - logits  # where these add up, they stay those of the first step
    left, chosen = list(range(len(units))), list[int]()
    row = ablation.without([units[0]], 1.0) if units else torch.ones(0)
    curve, done = [float(_margin(logits[None], class_)[0])], 0.5
    while left and logits.argmax() == class_:
        if ablation.affine or not chosen:
            candidates = logits + effects[left]
        else:
            rows = row.repeat(len(left), 1)
            rows[torch.arange(len(left)), [units[n] for n in left]] = factor
            candidates = _scores(ablation, rows, job, (done, done))
        best = int(_margin(candidates, class_).argmin())
        unit = units[left.pop(best)]
        chosen.append(unit)
        row[0, unit] = factor
        logits = _scores(ablation, row, job, (done, done))[0] if ablation.affine else candidates[best]
        curve.append(float(_margin(logits[None], class_)[0]))
        done = max(done, 0.5 + 0.45 * min(1, max(1 - curve[-1] / (curve[0] or 1), len(chosen) / len(units))))
        job.report(done)
    return chosen, curve, int(logits.argmax())


def _facts(
    network: Network, site: Site, class_: int, chance: np.ndarray, units: list[int], params: KnockoutParams
) -> dict[str, str]:
    best = int(chance.argmax())
    answer = "" if best == class_ else f"; the answer is {network.class_name(best)}, {in_words(network, chance[best])}"
    facts = {
        "class": f"{network.class_name(class_)} ({class_}), {in_words(network, chance[class_])}{answer}",
        "layer": f"{site.name}, {site.kind}, {site.channels} units",
        "change": "each unit silenced" if params.factor == 0 else f"each unit multiplied by {params.factor:g}",
        "output": network.output_description,
    }
    zero = site.channels - len(units)
    if zero:
        facts["zero"] = f"Unchanged: {zero} of {plural(site.channels, 'unit')}, zero everywhere or multiplied by 1."
    return facts


def _told(network: Network, class_: int, found: list[int], curve: list[float], label: int, factor: float) -> str:
    """What the greedy search found, in a sentence. `label`: the answer at its end."""
    name = network.readable_name(class_)
    if label == class_:
        return f"The answer stays {name}, even with all {len(found)} units changed that are not zero everywhere."
    if not found:
        return f"{name} is not the answer, so there is nothing to change."
    many = "1 unit" if len(found) == 1 else f"{len(found)} units together"
    does = "Silencing" if factor == 0 else "Scaling"
    return (
        f"{does} {many} turns the answer from {name} into {network.readable_name(label)}; the margin falls from "
        f"{curve[0]:.4g} to {curve[-1]:.4g}."
    )


def _table(network: Network, arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], ...]:
    columns = zip(
        *(arrays[name].tolist() for name in ("logit_change", "probability_change", "rank", "label")), strict=True
    )
    rows = [
        {
            "channel": channel, "logit change": logit, "probability change": chance, "rank": rank,
            "answer": network.class_name(label),
        }
        if network.quantity == "probability"
        else {"channel": channel, f"{network.quantity} change": logit}
        for channel, (logit, chance, rank, label) in enumerate(columns)
    ]  # fmt: skip
    return tuple(rows[channel] for channel in arrays["order"])


METHOD = Method(
    key="knockout",
    title="Knock out",
    source="Zhou et al. 2018; Morcos et al. 2018; Zeiler & Fergus 2013, table 3",
    params=KnockoutParams,
    run=knockout,
    optional_inputs=frozenset({"unit"}),
    memory_hint="a later layer",
    shows=(
        Output("logit_change", "curves", title="Change of the logit, by unit"),
        Output("fewest_curve", "curves", title="Margin while more units are silenced"),
        Output("table", "table"),
    ),
)
