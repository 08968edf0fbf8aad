"""A network as notebooks display it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vizapp.engine.trace.sites import Site
from vizapp.errors import plural
from vizapp.markup import MOST_ROWS, card, code, more, pairs, paragraph, table, text, unfolding

ANSWERS = {  # by task
    "classes": "class scores", "embedding": "an embedding", "class map": "a class map", "boxes": "boxes",
    "": "what is no class scores, class map or boxes",
}  # fmt: skip


def network_html(
    name: str, told: Mapping[str, str], facts: Mapping[str, str], sites: Sequence[Site], categories: Sequence[str],
    problem: str, example: Site | None,
) -> str:  # fmt: skip
    """The card of a network.

    Args:
        name: Its name.
        told: What is seen at once, by name.
        facts: What unfolds.
        sites: Its layers.
        categories: Its classes.
        problem: Why it has no layers, if it has none.
        example: The layer that the example of a question names.
    """
    rows = [{"layer": s.name, "kind": s.kind, "shape": " × ".join(map(str, s.shape))} for s in sites]
    asked = ['vizapp.ask("predict", network, "photo.jpg")']
    if example is not None:
        asked.append(f'vizapp.ask("activations", network, "photo.jpg", unit=vizapp.Unit({example.name!r}, channel=0))')
    names = paragraph(", ".join(text(one, 80) for one in categories[:MOST_ROWS])) if categories else ""
    return card(
        name,
        "",
        pairs(told),
        problem and paragraph(text(problem)),
        unfolding(f"Layers ({len(sites):,})", table(rows)),
        unfolding(
            plural(len(categories), "class", "classes"), names, more(len(categories) - MOST_ROWS, "class", "classes")
        ),
        unfolding("Facts", pairs(facts)),
        unfolding(
            "How to ask it", code("\n".join(asked)), paragraph("<code>vizapp.methods()</code> lists the questions.")
        ),
    )
