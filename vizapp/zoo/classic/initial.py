"""First weights: He et al., "Delving Deep into Rectifiers", 2015b: N(0, 2 / fan-in), so that deep networks keep their scale."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn


def draw_weights(network: nn.Module) -> None:
    """Draw the weights of all convolutions and linear layers; their biases are zero."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def quieten(ends: Collection[nn.Module]) -> None:
    """Scale the weights of the last layer of each of L residual branches by L^-1/2.

    Untrained batch norm does not hold the sum of hundreds of branches; it would overflow.
    """
    with torch.no_grad():
        for end in ends:
            assert isinstance(end.weight, nn.Parameter)
            end.weight.mul_(len(ends) ** -0.5)
