"""A network with its weights drawn anew, to compare with the trained one."""

from __future__ import annotations

import copy
from dataclasses import replace

from vizapp.zoo.network import Network, freeze
from vizapp.zoo.recipe import seeded


def untrained(network: Network, seed: int) -> tuple[Network, tuple[str, ...]]:
    """A copy with random weights, and the names of the parameters that could not be drawn and stay as they are.

    Each part initialises itself as it does when it is made (`reset_parameters`); measured means and variances become 0 and 1.
    Parts without that method, or whose weights are computed from other parameters, keep theirs. The copy is of the network
    without interventions.
    """
    clean = network.clean
    module = copy.deepcopy(clean.module).cpu()
    before = {name: parameter._version for name, parameter in module.named_parameters()}
    with seeded(seed):
        for part in module.modules():
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)  # of attention
            if callable(reset):
                reset()
    kept = tuple(name for name, parameter in module.named_parameters() if parameter._version == before[name])
    freeze(module, clean.device, channels_last=False)  # the copy has the layout of the original
    weights = f"random (seed {seed})"
    return replace(clean, module=module, weights=weights, facts={"weights": weights}), kept
