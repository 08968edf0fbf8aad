"""Parts of several networks: initial weights (He et al., "Delving Deep into Rectifiers", 2015b), and the number of blocks."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn


def block_count(depth: int, layers: int, others: int) -> int:
    """The n of a network of `depth` = `layers`·n + `others` layers. Raises ValueError if there is none."""
    count, rest = divmod(depth - others, layers)
    if rest or count < 1:
        raise ValueError(f"depth must be {layers}n + {others}, not {depth}")
    return count


def draw_weights(network: nn.Module) -> None:
    """Draw the weights of all convolutions and linear layers from N(0, 2 / fan-in), with zero biases.

    This preserves the scale of the activations in deep networks.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def quieten(ends: Collection[nn.Module]) -> None:
    """Scale the weights of the last layers `ends` of L residual branches by L^-1/2.

    Otherwise the sum of hundreds of branches overflows in untrained networks.
    """
    with torch.no_grad():
        for end in ends:
            assert isinstance(end.weight, nn.Parameter)
            end.weight.mul_(len(ends) ** -0.5)
