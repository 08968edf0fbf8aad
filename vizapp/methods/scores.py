"""Scores of all classes as probabilities, and the strongest of them as rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from vizapp.zoo.network import Network


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities float64 of scores `[classes ...]`, over the first axis."""
    powers = np.exp(scores.astype(np.float64) - scores.max(0))
    return powers / powers.sum(0)


def top_rows(network: Network, probabilities: np.ndarray, top: int, **more: np.ndarray) -> tuple[dict[str, Any], ...]:
    """A row for each of the `top` classes, the most probable first, with the further columns `more`, each `[classes]`."""
    return tuple(
        {"class": index, "name": network.class_name(index), "probability": float(probabilities[index])}
        | {name: float(column[index]) for name, column in more.items()}
        for index in np.argsort(-probabilities, kind="stable")[:top].tolist()
    )
