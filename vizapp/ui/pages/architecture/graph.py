"""A network as a graph in the DOT language of Graphviz, laid out by the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_BOXES = 160
_COLOURED = ("convolution", "linear", "pool", "norm", "activation")


@dataclass(frozen=True)
class Palette:
    """Fill per kind of layer ("other" for the rest), text and lines."""

    fills: Mapping[str, str]
    text: str
    line: str


LIGHT = Palette(
    {"convolution": "#c3d3e6", "linear": "#d5cde4", "pool": "#c8decd", "norm": "#e4e5e7", "activation": "#efe4c4",
     "other": "#e4e5e7"}, "#22262b", "#a3a8ae",
)  # fmt: skip
DARK = Palette(
    {"convolution": "#3a5272", "linear": "#50456e", "pool": "#3b5a46", "norm": "#383c43", "activation": "#6b5b33",
     "other": "#383c43"}, "#e4e5e3", "#6b7078",
)  # fmt: skip


def fits(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a graph of the `table` would be readable: not too many boxes or arrows."""
    arrows = sum(row["from"].count(",") + 1 for row in rows)
    return len(rows) <= MOST_BOXES and arrows <= 2 * len(rows) + 40


def dot(rows: Sequence[Mapping[str, Any]], palette: Palette = LIGHT) -> str:
    """The graph of the `table` of an architecture, from top to bottom, in the DOT language."""
    lines = [
        "digraph network {",
        'bgcolor="transparent"; rankdir=TB; nodesep=0.18; ranksep=0.24;',
        f'node [shape=box style="filled,rounded" color="transparent" fontname="Helvetica" fontsize=11 '
        f'fontcolor="{palette.text}" margin="0.12,0.06" height=0.3];',
        f'edge [color="{palette.line}" arrowsize=0.55];',
        f'"picture" [label="picture" fillcolor="transparent" color="{palette.line}"];',
    ]
    for row in rows:
        kind = row["kind"] if row["kind"] in _COLOURED else "other"
        lines.append(f'{_quoted(row["layer"])} [label={_quoted(_label(row))} fillcolor="{palette.fills[kind]}"];')
        lines += [f"{_quoted(name)} -> {_quoted(row['layer'])};" for name in row["from"].split(", ")]
    return "\n".join([*lines, "}"])


def _label(row: Mapping[str, Any]) -> str:
    """Name, kind and output shape: three short lines at most."""
    window = f"{row['kernel']} / {row['stride']}".replace(" × ", "×") if row["kernel"] else ""
    what = row["kind"] if row["kind"] != "other" else ""
    below = " ".join(part for part in (what, window) if part)
    return "\n".join(part for part in (row["layer"], below, row["output"].replace(" × ", "×")) if part)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
