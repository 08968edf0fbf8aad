"""The sanity check of Adebayo et al. (2018): does a projection change when weights are randomized?"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.tap import Trace, first_tensor, operation_name
from vizapp.engine.trace.sites import Unit
from vizapp.media.drawing import signed
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.projection import as_pixels


@dataclass(frozen=True)
class SanityParams(Params):
    """Which projection is checked."""

    rule: Literal["deconvnet", "guided", "gradient"] = knob("deconvnet", "Backward rule of rectifiers")
    seed: int = knob(0, "Random seed for the weights", low=0, high=2**31 - 1)


def sanity(question: Question, params: SanityParams, job: Job) -> Result:
    """The unit's projection in the trained network, beside its projections in networks with randomised weights.

    "above" randomises every layer above the unit (for a class, the last layer, which is the unit itself); "upper" the upper
    half of the layers between pixels and unit; "all" every layer. Layers are all that have parameters, those that normalise
    as well; the means and variances that these have measured are no parameters and stay. All three go down from the cell
    that is strongest in the trained network, with seed 1. `arrays`: `projection`, `above`, `upper`, `all` `[H W 3]`;
    `similarity` `[3]`: the rank correlation (Spearman) of their absolute values with the trained projection's, where either
    is not zero; 1 when nothing changes.
    """
    network, unit = question.network.smooth, question.require_unit()
    batch, rule = network.prepare(question.require_picture()), rule_named(params.rule)
    (trained,) = project(network.module, batch, [unit], network.sites, rule, "one")
    job.report(0.1)
    fixed = Unit(unit.site, unit.channel, trained.cells[0])
    below, above = _parameters_used(network.module, batch, unit.site)
    layers = list(dict.fromkeys(map(_layer_of, below)))
    upper, last = layers[len(layers) // 2 :], layers[-1:]
    chosen = {
        "above": above or [name for name in below if _layer_of(name) in last],
        "upper": [name for name in below if _layer_of(name) in upper],
        "all": [name for name, _ in network.module.named_parameters()],
    }
    arrays = {"projection": as_pixels(trained.values[0])}
    panels = [Panel("trained", signed(arrays["projection"]), "The trained network.")]
    similarity, drawn = [], dict[str, Tensor]()
    for number, (name, parameters) in enumerate(chosen.items()):
        job.report(0.2 + 0.8 * number / len(chosen))
        needed = set(below).intersection(parameters)  # the unit is not computed from the others
        changed = randomised(network.module, needed, params.seed, drawn)
        job.report(0.2 + 0.8 * (number + 0.4) / len(chosen))
        (down,) = project(changed, batch, [fixed], network.sites, rule, "one")
        arrays[name] = as_pixels(down.values[0])
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


_MANY = 2**22  # numbers that are shuffled as a table
_NARROW = 512  # rows that are too few for it
_WORDS = {
    "above": "Layers above the unit randomised",
    "upper": "Upper half randomised",
    "all": "All weights randomised",
}


class _ParameterTrace(Trace):
    """Follows which parameters each value of a pass is computed from, weights that are computed from others included."""

    def __init__(self, module: nn.Module, site: str) -> None:
        super().__init__(module)
        self.used: dict[str, None] = {}  # in the order of first use
        self.below: set[str] = set()
        self._parameters = {id(parameter): name for name, parameter in module.named_parameters()}
        self._of, self._site = WeakTensorKeyDictionary(), site

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation; its results depend on the parameters of all that it reads."""
        read: set[str] = set()
        for tensor in tensors_in((args, kwargs)):
            read |= {self._parameters[id(tensor)]} if id(tensor) in self._parameters else self._of.get(tensor, set())
        output = function(*args, **kwargs)
        self.used |= dict.fromkeys(sorted(read))
        written = [args[0]] if args and isinstance(args[0], Tensor) and operation_name(function) == "setitem" else []
        for result in [*tensors_in(output), *written]:
            self._of[result] = read | self._of.get(result, set())
            if result._base is not None and args and result is args[0]:  # a write into a part of an activation
                self._of[result._base] = read | self._of.get(result._base, set())
        if name == self._site and (made := first_tensor(output)) is not None:
            self.below = self._of[made]
        return output


def _parameters_used(module: nn.Module, batch: Tensor, site: str) -> tuple[list[str], list[str]]:
    """The parameters that the site is computed from, and those that are only used above it; each in running order."""
    with torch.no_grad(), _ParameterTrace(module, site) as trace:
        module(batch.clone())
    return [name for name in trace.used if name in trace.below], [n for n in trace.used if n not in trace.below]


def _layer_of(parameter: str) -> str:
    """The path of the layer that has the parameter: `0` for `0.weight` and `0.parametrizations.weight.original0`."""
    owner = f".{parameter}".partition(".parametrizations.")[0]
    return (owner.rpartition(".")[0] if owner == f".{parameter}" else owner).strip(".")


def randomised(
    module: nn.Module, names: Collection[str], seed: int, drawn: dict[str, Tensor] | None = None
) -> nn.Module:
    """A copy in which these parameters are shuffled: the same numbers in another order. The rest is shared.

    A weight that is computed from parameters (weight norm, spectral norm, pruning) is shuffled itself. The order depends on
    the seed and the parameter's name alone. `drawn`: what calls with this module and seed have shuffled; it is added to.
    """
    known, drawn = {name for name, _ in module.named_parameters()}, {} if drawn is None else drawn
    module = _without_reparametrisations(module, {_layer_of(name) for name in names})
    memo: dict[int, Any] = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    for name, parameter in module.named_parameters():
        if name in names or name not in known:
            if name not in drawn:
                generator = torch.Generator().manual_seed((seed + zlib.crc32(name.encode())) % 2**32)
                drawn[name] = shuffled(parameter.detach().reshape(-1), generator).reshape(parameter.shape)
            memo[id(parameter)] = nn.Parameter(drawn[name], requires_grad=False)  # wherever it is used
    return copy.deepcopy(module, memo)


def shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    """The values `[n]` in a random order that is the same on every device.

    A permutation of very many takes seconds to draw, as each step waits for memory. They are laid out as a table instead, of
    which each row is turned by a random number of places, then each column, then each row: a Feistel network of three rounds
    (Luby and Rackoff 1988). One in so many neighbours as the table has rows stays beside its neighbour.
    """
    rows = next(d for d in range(math.isqrt(len(values)), 0, -1) if len(values) % d == 0) if len(values) > _MANY else 1
    if rows < _NARROW:
        return values[torch.randperm(len(values), generator=generator).to(values.device)]
    table = values.reshape(rows, -1)
    for last in (False, False, True):
        places = torch.randint(table.shape[1], (len(table),), generator=generator).tolist()
        table = torch.stack([row.roll(place) for row, place in zip(table, places, strict=True)])
        table = table if last else table.t().contiguous()
    return table.reshape(-1)


class _Constant(nn.Module):
    """A parametrization that gives a weight as it is."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())

    def forward(self) -> Tensor:
        return self.weight


def _without_reparametrisations(module: nn.Module, layers: set[str]) -> nn.Module:
    """A copy in which the weights of these layers are plain parameters; the rest is shared."""
    own = {id(tensor) for layer in layers for tensor in module.get_submodule(layer).parameters()}
    shared = [*module.parameters(), *module.buffers()]
    copied = copy.deepcopy(module, {id(tensor): tensor for tensor in shared if id(tensor) not in own})
    for part in map(copied.get_submodule, layers):
        if parametrize.is_parametrized(part):  # `remove_parametrizations` changes the class, which the copy shares
            for name in list(part.parametrizations):  # type: ignore[arg-type]
                part.parametrizations[name] = _Constant(getattr(part, name))  # type: ignore[assignment, operator]
        for key, hook in list(part._forward_pre_hooks.items()):
            if isinstance(hook, (WeightNorm, SpectralNorm, BasePruningMethod)):
                hook.remove(part)
                del part._forward_pre_hooks[key]
    return copied.requires_grad_(False)


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
