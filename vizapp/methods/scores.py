"""Scores of all classes as probabilities, and the strongest of them as rows of a table."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from vizapp.errors import VizError
from vizapp.zoo.network import Network

# What networks that are no classifiers return, and what shows it.
_OTHERS = {
    "class map": ("a class map", "Predict shows the class of every place"),
    "boxes": ("boxes", "Predict shows the boxes"),
    "embedding": ("features but no classes", "Predict shows the photos most like this one"),
}


def probabilities(network: Network, logits: np.ndarray, log_sum: np.ndarray | float | None = None) -> np.ndarray:
    """Probabilities float64 of the network's logits `[classes ...]`: their softmax or sigmoid, as its head says.

    `log_sum` `[...]` is that of all classes, for logits of some classes alone.
    """
    return probabilities_of(network.head.link, logits, log_sum)


def probabilities_of(link: str, logits: np.ndarray, log_sum: np.ndarray | float | None = None) -> np.ndarray:
    """As `probabilities`, by the link of the head."""
    exact = logits.astype(np.float64)
    if link == "sigmoid":
        return np.exp(-np.logaddexp(0, -exact))
    if link == "identity":
        return exact
    return np.exp(exact - (_log_sum(exact) if log_sum is None else log_sum))


def log_sum_of(network: Network, logits: np.ndarray) -> np.ndarray:
    """What a softmax subtracts from logits `[classes ...]`, float64 `[...]`: the logarithm of the sum of their exponentials.

    0 for others, which subtract nothing.
    """
    if network.head.link != "softmax":
        return np.zeros(logits.shape[1:])
    return _log_sum(logits)


def _log_sum(logits: np.ndarray) -> np.ndarray:
    most = logits.max(0).astype(np.float64)
    return np.asarray(np.log(np.exp(logits - most).sum(0)) + most)


class Measured(Protocol):
    """What has a quantity: a network, or a view of its answer."""

    @property
    def quantity(self) -> str: ...


def in_words(network: Measured, share: float, digits: int = 1) -> str:
    """A probability in percent; another quantity of the network, such as a cosine, as a number."""
    if network.quantity == "probability":
        return f"{100 * share:.{digits}f} %"
    return f"{share:.{digits + 2}f}".replace("-", "−")


def no_classifier(network: Network, title: str) -> VizError | None:
    """The error of a method, by its title, for networks that return a class map, boxes or an embedding; None for others."""
    if network.task not in _OTHERS:
        return None
    returns, instead = _OTHERS[network.task]
    return VizError(
        f"{network.name} returns {returns}. {title} takes a classification network; {instead}.", code="no-class-scores"
    )


def name_in_text(network: Network, class_: int) -> str:
    """What a sentence calls a class; of a network toward a box or an embedding, "the match" or "the cosine"."""
    name = network.readable_name(class_)
    return name if network.quantity == "probability" else f"the {name}"


def top_rows(network: Network, probabilities: np.ndarray, top: int, **more: np.ndarray) -> tuple[dict[str, Any], ...]:
    """A row for each of the `top` classes, the most probable first, with the further columns `more`, each `[classes]`."""
    return tuple(
        {"class": index, "name": network.class_name(index), "probability": float(probabilities[index])}
        | {name: float(column[index]) for name, column in more.items()}
        for index in np.argsort(-probabilities, kind="stable")[:top].tolist()
    )
