"""Networks to visualize: torchvision, timm, classic architectures, checkpoints and the user's own modules."""

from __future__ import annotations

from vizapp.zoo.network import Network, Preprocessing, class_unit
from vizapp.zoo.recipe import Card
from vizapp.zoo.registry import describe, describe_all, group_networks, list_networks, load, local_networks
from vizapp.zoo.wrapping import wrap

__all__ = [
    "Card", "Network", "Preprocessing", "class_unit", "describe", "describe_all", "group_networks",
    "list_networks", "load", "local_networks", "wrap",
]  # fmt: skip
