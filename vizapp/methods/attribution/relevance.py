"""Layer-wise relevance propagation (LRP)."""

from __future__ import annotations

import torch
from torch import Tensor

from vizapp.engine.projection.relevance import Relevances, relevance
from vizapp.engine.projection.relevance_rule import Relevance
from vizapp.methods.attribution.kind import Kind
from vizapp.methods.attribution.request import Request
from vizapp.zoo.network import Network

_NOTES = {
    "composite": "The box rule at the pixels, gamma 0.25 in all convolutions, epsilon in fully connected layers.",
    "depth": "The box rule at the pixels, gamma 0.25 in the lower half of the convolutions, epsilon in the upper, 0 above.",
    "plus": "Positive contributions in all convolutions, epsilon in fully connected layers.",
    "epsilon": "Epsilon in all layers.",
    "zero": "Rule 0 in all layers: with rectifiers it is the gradient times the input.",
}
_TRUSTED = 1e-3  # largest share of the unit's value that may be missing


class Lrp(Kind):
    """The unit's value, handed down from layer to layer in shares of what each number contributed."""

    key, title = "lrp", "LRP"
    source = "Bach et al. 2015, section 3; Montavon et al. 2019, sections 10.2 and 10.3"
    caution = (
        "Its rules favour what speaks for the unit, and its map hardly depends on the later layers (Sixt 2020). Other rules "
        "give other maps, and none is proven right."
    )
    signed = True

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The relevance of each pixel, summed over colours."""
        network, rule = request.network, request.params.rule
        low, high = pixel_bounds(network)
        with torch.no_grad():
            found = relevance(
                network.module,
                request.batch,
                [request.unit],
                network.sites,
                Relevance(composite=rule, low=low, high=high),
            )
        facts = {"note": _NOTES[rule] + " Epsilon is 1e-6 of a layer's root mean square.", "certificate": passed(found)}
        return found.values[0].sum(0), facts | conservation(found)


def pixel_bounds(network: Network) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Black and white in the network's normalised input space, per channel."""
    mean, std = network.preprocessing.mean, network.preprocessing.std
    return tuple((0 - m) / s for m, s in zip(mean, std, strict=True)), tuple(
        (1 - m) / s for m, s in zip(mean, std, strict=True)
    )


def conservation(found: Relevances) -> dict[str, str]:
    """Whether what the pixels, the biases and the stabilisers got adds up to the unit's value."""
    pixels, value, gap = float(found.values[0].double().sum()), float(found.activations[0]), float(found.gap[0])
    facts = {
        "conservation": f"The pixels get {pixels:.4g} of the unit's {value:.4g}, biases {float(found.biases[0]):.4g}, the "
        f"stabilisers {float(found.stabilisers[0]):.2g}; {gap:.1e} of it is missing."
    }
    if not gap <= _TRUSTED:
        facts["caution"] = "Do not trust this map: what it hands down does not add up to the unit's value."
    return facts


def passed(found: Relevances) -> str:
    """How many operations the relevance passed, and by which rules."""
    count = found.counts.get
    layers = ", ".join(
        f"{count(rule)} by {rule}" for rule in ("box", "gamma", "plus", "epsilon", "zero") if count(rule)
    )
    return (
        "; ".join([f"layers: {layers}", *(f"{count(key)} {text}" for key, text in _PASSED.items() if count(key))]) + "."
    )


_PASSED = {
    "folded": "norms folded into them", "affine": "norms as layers of their own",
    "sum": "sums, means and pools in proportion", "rectifiers": "rectifiers",
    "activations": "other activations passed as they are", "switches": "max pools to their switches",
    "gates": "gates held constant", "norms": "divisions held constant (Achtibat 2024)",
    "attention": "products and softmax (Achtibat 2024)", "choices": "choices of a number",
}  # fmt: skip
