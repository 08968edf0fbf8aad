"""Results and methods as notebooks display them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from vizapp.errors import plain_name, plural, without_folders
from vizapp.markup import card, code, link, pairs, paragraph, table, text, unfolding
from vizapp.media.figures import figures
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knobs
from vizapp.methods.section import CAUTIONS, Answer
from vizapp.references import split

_UNFOLDED = 15  # rows of a table that is seen at once
_MOST_VALUES = 2**24  # of an array whose range is told


def result_text(result: Answer) -> str:
    """A result on one line, without the values of its arrays."""
    arrays = ", ".join(f"{name} {a.dtype} {list(a.shape)}" for name, a in result.arrays.items())
    parts = [f"arrays {plain_name(arrays, 600)}"] if arrays else []
    parts += [plural(count, one) for count, one in ((len(result.panels), "panel"), (len(result.table), "row")) if count]
    return f"Result({', '.join([repr(result.method), *parts])})"


def result_html(result: Answer) -> str:
    """The card of a result: its pictures and what must be known of them, then what unfolds."""
    asked, arrays = result.provenance, result.arrays
    facts = {name: without_folders(fact) for name, fact in result.facts.items()}
    cautions = [facts.pop(name) for name in CAUTIONS if name in facts]
    title, command = ([asked.title, asked.picture or asked.folder], asked.command) if asked else ([result.method], "")
    pictures = [(p.pixels, f"{p.title}: {p.caption}" if p.caption else p.title) for p in result.panels]
    rows = [{"name": n, "type": a.dtype, "shape": " × ".join(map(str, a.shape)) or "one number", "range": _range(a)}
            for n, a in arrays.items()]  # fmt: skip
    size = f"Table ({plural(len(result.table), 'row')})"
    return card(
        " · ".join(filter(None, title)),
        f"· {text(facts['network'])}" if "network" in facts else "",
        figures(pictures),
        *(paragraph(f"⚠ {cited(caution)}") for caution in cautions),
        unfolding(size, table(result.table), unfolded=not pictures or len(result.table) <= _UNFOLDED),
        unfolding("Facts", pairs(facts), unfolded=not pictures),
        unfolding("The same on the command line", command and code(command)),
        unfolding(f"Arrays ({len(arrays)})", table(rows)),
        paragraph('<code>result.save("folder")</code> · <code>result.to_html()</code>'),
    )


def method_html(
    title: str, summary: str, source: str, call: str, params: type[Params], shows: Sequence[Output]
) -> str:  # fmt: skip
    """The card of a method.

    Args:
        title: Its title.
        summary: What it does.
        source: The paper that defines it.
        call: How it is asked in Python.
        params: Its parameters.
        shows: Its arrays.
    """
    given = [{"parameter": k.name, "default": _default(k.default), "takes": k.allowed, "what it is": k.help}
             for k in knobs(params).values()]  # fmt: skip
    arrays = [{"array": output.array, "kind": output.kind, "shown as": output.label} for output in shows]
    return card(
        title,
        "",
        paragraph(text(summary)),
        paragraph(f"Source: {cited(source)}"),
        code(call),
        unfolding(f"Parameters ({len(given)})", table(given, most=len(given)), unfolded=len(given) <= _UNFOLDED),
        unfolding(f"Arrays ({len(arrays)})", table(arrays)),
    )


def methods_html(listed: Sequence[Mapping[str, Any]]) -> str:
    """The table of all methods."""
    return card("Methods", plural(len(listed), "method"), table(listed, most=len(listed)))


def cited(words: str) -> str:
    """A text with its citations as links to the papers."""
    pieces = ((escape(plain_name(piece, 2000)), address) for piece, address in split(words))
    return "".join(piece if address is None else link(address, piece) for piece, address in pieces)


def _default(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _range(values: np.ndarray) -> str:
    """The smallest and the largest number of an array."""
    if values.dtype.kind not in "biuf" or not 0 < values.size <= _MOST_VALUES:
        return ""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "not finite"
    beyond = "" if finite.size == values.size else f", {plural(values.size - finite.size, 'value')} not finite"
    return f"{finite.min():.4g} to {finite.max():.4g}{beyond}"
