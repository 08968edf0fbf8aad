"""HTML of the values that notebooks display: cards of text and tables that unfold.

Cards need no script, no style sheet and no network, and take their colours from the page around them, light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from vizapp.errors import plain_name

_LINE = "rgba(128,128,128,.4)"  # seen on white and on black
_LONGEST = 600  # characters of one text
_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"
MOST_ROWS = 20


class Displayed:
    """A value that notebooks display by its `_repr_html_`."""

    def _repr_html_(self) -> str:
        raise NotImplementedError

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}


def card(title: str, subtitle: str, *parts: str) -> str:
    """A framed box with a title (text) and parts (HTML). `subtitle`: HTML."""
    style = f"border:1px solid {_LINE};border-radius:6px;padding:8px 12px;margin:4px 0;max-width:960px;overflow-x:auto"
    return f'<div style="{style}"><div><b>{text(title)}</b> {subtitle}</div>{"".join(parts)}</div>'


def text(value: object, most: int = _LONGEST) -> str:
    """Any value as text on one line, safe to show, of at most `most` characters."""
    return escape(plain_name(" ".join(str(value).split()), most))


def paragraph(html: str) -> str:
    """HTML as a paragraph."""
    return f'<p style="margin:4px 0">{html}</p>'


def code(source: str) -> str:
    """Source code as a block."""
    style = f"margin:6px 0;padding:4px 8px;background:none;border-left:3px solid {_LINE};white-space:pre-wrap"
    return f'<pre style="{style}">{chr(10).join(escape(plain_name(line)) for line in source.splitlines())}</pre>'


def link(address: str, html: str) -> str:
    """A link that opens in a tab of its own."""
    return f'<a href="{escape(address)}" target="_blank" rel="noopener" style="color:inherit">{html}</a>'


def unfolding(title: str, *parts: str, unfolded: bool = False) -> str:
    """Parts (HTML) under a title that unfolds them; nothing if there are none."""
    content, state = "".join(parts), " open" * unfolded
    return content and f'<details{state} style="margin:2px 0"><summary>{text(title)}</summary>{content}</details>'


def pairs(values: Mapping[str, object]) -> str:
    """Names with values as a table of two columns; nothing if there are none."""
    body = "".join(
        f'<tr><th style="{_CELL}">{text(n)}</th><td style="{_CELL}">{text(v)}</td></tr>' for n, v in values.items()
    )
    return body and f"<table><tbody>{body}</tbody></table>"


def table(rows: Sequence[Mapping[str, Any]], most: int = MOST_ROWS) -> str:
    """The first rows as a table with a line about those left out; nothing if there are none."""
    if not rows:
        return ""
    names = list(rows[0])
    head = "".join(f'<th style="{_CELL}">{text(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(_cells(row, names))}</tr>" for row in rows[:most])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more(len(rows) - most, 'row')}"


def _cells(row: Mapping[str, Any], names: Sequence[str]) -> Iterable[str]:
    for name in names:
        value = row.get(name, "")
        yield f'<td style="{_CELL}">{text(f"{value:.4g}" if isinstance(value, float) else value, 300)}</td>'


def more(count: int, one: str, many: str = "") -> str:
    """A line that says how many are not shown; nothing if there are none. `one`, `many`: what is counted."""
    return paragraph(f"… and {count:,} more {one if count == 1 else many or f'{one}s'}") if count > 0 else ""
