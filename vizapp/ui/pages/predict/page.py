"""Predict: what the network says about the photo, whatever kind of answer it gives."""

from __future__ import annotations

from vizapp.ui.pages.predict import boxes, class_map, classes, embedding
from vizapp.ui.widgets import layout, live

_SENTENCE = "What the network says about the photo, and which part of it mattered."
_DRAWN_BY = {"class map": class_map.draw, "boxes": boxes.draw, "embedding": embedding.draw}


def page() -> None:
    """Draw the page."""
    layout.page_title("Predict", _SENTENCE)
    asked = layout.answer_and_picture()
    if asked is None:
        return
    network, picture = asked[0].untargeted or asked[0], asked[1]
    if live.draw(network):
        return
    _DRAWN_BY.get(network.task, classes.draw)(network, picture)


if __name__ == "__main__":
    page()
