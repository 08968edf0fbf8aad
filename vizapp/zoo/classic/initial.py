"""First weights: He et al., "Delving Deep into Rectifiers", 2015: N(0, 2 / fan-in), so that deep networks keep their scale."""

from __future__ import annotations

from torch import nn


def draw_weights(network: nn.Module) -> None:
    """Draw the weights of all convolutions and linear layers; their biases are zero."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
