"""Bars of the most probable classes: name, share, and a note on hover."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

TOP = 5  # classes that are shown unless a page asks for more


def draw(key: str, rows: Iterable[tuple[str, float, str]]) -> None:
    """Draw a bar per row (name, share from 0 to 1, note), the first in the accent colour."""
    data = [{"name": name, "share": share, "more": note} for name, share, note in rows]
    component("bars")(key=key, data={"rows": data})


def draw_classes(
    key: str,
    network: Network,
    probabilities: np.ndarray,
    classes: Sequence[int] | np.ndarray | None = None,
    note: Callable[[int], str] | None = None,
) -> None:
    """Draw the most probable classes of the network.

    Args:
        key: Widget key.
        network: Names the classes.
        probabilities: `[K]`, from 0 to 1.
        classes: The class of each entry of `probabilities`; by default its index.
        note: The note on an entry, by its index; by default the number of the class.
    """
    rows = []
    for place in np.argsort(-probabilities, kind="stable")[:TOP].tolist():
        number = place if classes is None else int(classes[place])
        name = network.class_name(number)
        rows.append((name, float(probabilities[place]), note(place) if note else f"class {number}"))
    draw(key, rows)
