"""The sanity check of Adebayo et al. (2018): does a projection change when weights are randomized?"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import Rule, rule_named
from vizapp.engine.trace.recording import record, value_refs
from vizapp.engine.trace.sites import Unit
from vizapp.media.drawing import signed
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.projection import in_three_channels


@dataclass(frozen=True)
class SanityParams(Params):
    """Which projection is checked."""

    rule: Literal["deconvnet", "guided", "gradient"] = knob("deconvnet", "Backward rule of rectifiers")
    seed: int = knob(0, "Random seed for the weights", low=0, high=2**31 - 1)


def sanity(question: Question, params: SanityParams, job: Job) -> Result:
    """The unit's projection in the trained network, beside those in networks with randomised weights.

    "above" randomises every layer above the unit (for a class, the last layer, which is the unit itself); "upper" the upper
    half of the layers between pixels and unit; "all" every layer. Layers are all that have parameters, those that normalise
    as well; the means and variances that these have measured are no parameters and stay. All three go down from the cell
    that is strongest in the trained network, with seed 1. `arrays`: `projection`, `above`, `upper`, `all` `[H W 3]`;
    `similarity` `[3]`: the rank correlation (Spearman) of their absolute values with the trained projection's, where either
    is not zero; 1 when nothing changes.
    """
    network, unit = question.network, question.require_unit()
    batch, rule = network.prepare(question.require_picture()), rule_named(params.rule)
    (trained,) = project(network.module, batch, [unit], network.sites, rule, "one")
    job.report(0.1)
    fixed = Unit(unit.site, unit.channel, trained.cells[0])
    below = _layers_below(network.module, batch, unit.site, rule)
    every = [name for name, part in network.module.named_modules() if _learns(part)]
    above = [name for name in every if name not in below] or below[-1:]
    chosen = {"above": above, "upper": below[len(below) // 2 :], "all": every}
    arrays = {"projection": in_three_channels(trained.values[0])}
    panels = [Panel("trained", signed(arrays["projection"]), "The trained network.")]
    similarity = []
    for number, (name, layers) in enumerate(chosen.items()):
        job.report(0.2 + 0.8 * number / len(chosen))
        changed = randomised(network.module, layers, params.seed)
        job.report(0.2 + 0.8 * (number + 0.4) / len(chosen))
        (down,) = project(changed, batch, [fixed], network.sites, rule, "one")
        arrays[name] = in_three_channels(down.values[0])
        similarity.append(rank_correlation(np.abs(arrays["projection"]), np.abs(arrays[name])))
        panels.append(Panel(name, signed(arrays[name]), f"{_WORDS[name]}: similarity {similarity[-1]:.2f}."))
    arrays["similarity"] = np.array(similarity, np.float32)
    words = [_WORDS[name] for name in chosen]
    facts = {
        "similarity": "; ".join(f"{w.lower()} {value:.2f}" for w, value in zip(words, similarity, strict=True)),
        "reading": "1 means that the projection does not depend on the randomised weights.",
    }
    if not arrays["projection"].any():
        facts["silent"] = "The projection of the trained network is zero everywhere, so there is nothing to compare."
    table = tuple({"randomised": w, "similarity": value} for w, value in zip(words, similarity, strict=True))
    return Result("sanity", arrays, tuple(panels), facts, table)


_WORDS = {
    "above": "Layers above the unit randomised",
    "upper": "Upper half randomised",
    "all": "All weights randomised",
}


def _learns(part: nn.Module) -> bool:
    return any(True for _ in part.parameters(recurse=False))


def _layers_below(module: nn.Module, batch: Tensor, site: str, rule: Rule) -> list[str]:
    """The layers with parameters that run before the site, in running order."""
    paths = {name for name, part in module.named_modules() if _learns(part)}
    tape = record(module, batch, {site}, rule)
    found: list[str] = []
    for step in tape.steps:
        if next(value_refs((step.args, step.kwargs)), None) is None:
            continue
        parents = step.name, step.name.rpartition("_")[0], step.name.rpartition(".")[0]
        path = next((name for name in parents if name in paths), None)
        if path is not None and path not in found:
            found.append(path)
    return found


def randomised(module: nn.Module, layers: list[str], seed: int) -> nn.Module:
    """A copy in which the weights of these layers are shuffled: the same numbers in another order. The rest is shared."""
    memo = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    changed = copy.deepcopy(module, dict(memo))
    generator = torch.Generator().manual_seed(seed)
    for name in layers:
        part = changed.get_submodule(name)
        for key, parameter in list(part.named_parameters(recurse=False)):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            shuffled = parameter.detach().reshape(-1)[order].reshape(parameter.shape)
            setattr(part, key, nn.Parameter(shuffled, requires_grad=False))
    return changed


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of two arrays where at least one of them is not zero, ties by their mean rank.

    The zeros outside of both would make any two small projections alike. 1 for equal arrays, 0 if one is constant.
    """
    if np.array_equal(a, b):
        return 1.0
    ranks = []
    somewhere = (a != 0) | (b != 0)
    for values in (a[somewhere], b[somewhere]):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    first, second = (rank - rank.mean() for rank in ranks)
    size = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / size) if size > 0 else 0.0


METHOD = Method(
    key="sanity",
    title="Sanity check",
    source="Adebayo et al. 2018",
    params=SanityParams,
    run=sanity,
    needs=frozenset({"picture", "unit"}),
    shows=(
        Output("projection", "signed image", title="Trained"),
        Output("above", "signed image", title="Layers above randomised"),
        Output("upper", "signed image", title="Upper half randomised"),
        Output("all", "signed image", title="All weights randomised"),
        Output("table", "table"),
    ),
)
