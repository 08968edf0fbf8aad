"""Bars of the most probable classes: name, share, and a note on hover."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from vizapp.methods.base import Result
from vizapp.methods.scores import in_words
from vizapp.ui.session import state
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_LABEL = "Classes and their shares"
TOP = 5  # classes that are shown unless a page asks for more


def draw(key: str, rows: Iterable[tuple[str, float, str]]) -> None:
    """Draw a bar per row (name, share from 0 to 1, note), the first in the accent colour."""
    data = [{"name": name, "share": share, "more": note} for name, share, note in rows]
    component("bars")(key=key, data={"rows": data, "label": _LABEL})


def draw_prediction(
    key: str, network: Network, result: Result, chosen: int | None = None, opens: Callable[[int], None] | None = None,
    true: int | None = None,
) -> None:  # fmt: skip
    """Draw the classes of the network in a result of the method `predict`.

    Args:
        key: Widget key.
        network: Names the classes.
        result: The result.
        chosen: The class in the accent colour, in a row of its own if it is not among those of the result; a click on a row
            then chooses its class. None: the first, with nothing to click.
        opens: What a click on a row does instead, called with the class.
        true: The right class, which is marked, in a row of its own if it is not among those of the result.
    """
    rows = [(int(row["class"]), float(row["probability"]), float(row["logit"])) for row in result.table]
    for more in (true, chosen):
        if more is not None and more not in [class_ for class_, _, _ in rows]:
            rows.append((more, float(result.arrays["probabilities"][more]), float(result.arrays["logits"][more])))
    drawn, clickable = [], chosen is not None or opens is not None
    for class_, share, logit in rows:
        row = _row(network, class_, share, f"logit {logit:.3f}") | ({"item": class_} if clickable else {})
        drawn.append(row | ({"mark": "the right class"} if class_ == true else {}))
    take = partial(_take, key, opens or partial(_choose, rows[0][0]))
    data = {"rows": drawn, "chosen": rows[0][0] if chosen is None else chosen, "label": _LABEL}
    component("bars")(key=key, data=data, on_item_change=take)


def _take(key: str, act: Callable[[int], None]) -> None:
    clicked = state.clicked(key, "item")
    if clicked is not None:
        act(int(clicked))


def _choose(top: int, clicked: int) -> None:
    """Choose the clicked class; the most probable one stands for whatever is most probable, on other photos as well."""
    state.put(state.CLASS, None if clicked == top else clicked)


def _row(network: Network, class_: int, share: float, note: str) -> dict[str, Any]:
    """The row of a class, with WordNet's other names of it before the note; of a network toward a box or an embedding the row
    of its one score, which is no share and has no note."""
    if network.quantity != "probability":
        return {"name": network.readable_name(class_), "share": share, "told": in_words(network, share), "more": ""}
    others = network.synonyms(class_)
    return {
        "name": network.readable_name(class_),
        "share": share,
        "more": f"also {others} · {note}" if others else note,
    }


def draw_classes(
    key: str,
    network: Network,
    probabilities: np.ndarray,
    classes: np.ndarray | None = None,
    others: np.ndarray | None = None,
    word: str = "",
) -> None:
    """Draw the most probable classes of the network.

    Args:
        key: Widget key.
        network: Names the classes.
        probabilities: `[K]`, from 0 to 1.
        classes: The class of each entry of `probabilities`; by default its index.
        others: Other probabilities `[K]`, shown on hover in place of the number of the class.
        word: Stands before the other probability.
    """
    rows = []
    for place in np.argsort(-probabilities, kind="stable")[:TOP].tolist():
        number = place if classes is None else int(classes[place])
        note = f"class {number}" if others is None else f"{word} {100 * float(others[place]):.1f} %"
        rows.append(_row(network, number, float(probabilities[place]), note))
    component("bars")(key=key, data={"rows": rows, "label": _LABEL})
