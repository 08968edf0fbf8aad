"""A section of a report as HTML. Texts are escaped, and no element has a style of its own, which the policy forbids."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any
from unicodedata import bidirectional, category

import numpy as np

from vizapp import references
from vizapp.errors import TURNS
from vizapp.report.section import Section, View

MOST_ROWS = 200  # of a table
_LONG_SOURCE = 200  # characters of a source that stands in the fold
_RIGHT = ' class="number"'
_NUMBER = f"<td{_RIGHT}>"
_SMALL = 192  # pixels: narrower pictures are enlarged by whole factors


def text(content: object) -> str:
    """Any text as HTML."""
    return escape(_visible(str(content)))


def _visible(content: str) -> str:
    """The text with U+FFFD for what is no character or acts on others: controls, halves of pairs, turns of direction."""
    plain = content.isascii() and content.isprintable()
    return content if plain else "".join("\ufffd" if _acts(c) else c for c in content)


def _acts(character: str) -> bool:
    return (category(character) in {"Cc", "Cs"} and character not in "\n\t") or bidirectional(character) in TURNS


def linked(content: str) -> str:
    """A text as HTML, with its citations as links to the papers."""
    return "".join(
        f'<a href="{url}">{text(piece)}</a>' if url else text(piece) for piece, url in references.split(content)
    )


def section_html(section: Section, name: str, alone: bool = False) -> Iterator[str]:
    """A section in pieces; `name` is its ID in the document. `alone`: its title is that of the document."""
    yield f'<section id="{name}" class="alone">' if alone else f'<section id="{name}"><h2>{text(section.title)}</h2>'
    is_long = len(section.source) > _LONG_SOURCE
    yield f'<p class="source">{linked(section.source)}</p>' if section.source and not is_long else ""
    yield f'<p class="remark">{text(section.remark)}</p>' if section.remark else ""
    yield _definitions(section.about)
    yield "".join(f'<p class="caution">{linked(sentence)}</p>' for sentence in section.cautions)
    for view in section.views:
        yield from _view(view)
    yield from _figures(section.images, section.pictures, section.captions, section.columns)
    yield from _table(section.table)
    more = dict(section.facts) | ({"sources": section.source} if is_long else {})
    if more:
        unfolded = " open" * (not (section.views or section.pictures or section.table))  # then the facts are the answer
        yield f"<details{unfolded}><summary>More about it</summary>{_definitions(more)}</details>"
    yield _again(section)
    yield "</section>"


def as_json(data: Any) -> str:
    """Data as JSON that can stand in a script element; numbers that are not finite become null."""
    return json.dumps(_finite(data)).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_visible(str(key)): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return _visible(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _view(view: View) -> Iterator[str]:
    yield f'<div class="view" data-component="{view.component}">'
    yield f"<h3>{text(view.heading)}</h3>" if view.heading else ""
    yield '<div class="still">'
    yield from _figures(view.images, view.stills, {})
    yield f'</div><script type="application/json">{as_json(view.data)}</script>'
    if view.legend:
        # A presentation attribute of SVG, because the policy forbids style attributes.
        keys = (
            f'<li><svg viewBox="0 0 1 1"><rect width="1" height="1" fill="{text(c)}"/></svg>{text(w)}'
            for c, w in view.legend
        )
        yield f'<ul class="legend">{"".join(keys)}</ul>'
    yield f'<p class="caption">{linked(view.caption)}</p></div>' if view.caption else "</div>"


def _figures(
    images: Mapping[str, str], pictures: Mapping[str, np.ndarray], captions: Mapping[str, str], columns: int = 0
) -> Iterator[str]:
    if not images:
        return
    yield f'<div class="pictures{f" columns-{columns}" * bool(columns)}">'
    for title, address in images.items():
        width = pictures[title].shape[1]
        shown = width * math.ceil(_SMALL / width)
        small = ' class="coarse"' if shown > width * (1 + bool(columns)) else ""
        named = text(_named(title))
        below = f"<br>{linked(captions[title])}" if captions.get(title) else ""
        yield f'<figure><img{small} width="{shown}" alt="{named}" src="{address}">'
        yield f"<figcaption><b>{named}</b>{below}</figcaption></figure>"
    yield "</div>"


def _named(title: str) -> str:
    """The title of a picture, in which names of layers and classes keep their case."""
    return (title[:1].upper() + title[1:]).replace("-", " ")


def _table(rows: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    if not rows:
        return
    told = {name for row in rows[:MOST_ROWS] for name, value in row.items() if value is not None}
    names = [name for name in dict.fromkeys(name for row in rows[:MOST_ROWS] for name in row) if name in told]
    cells = [[_cell(row.get(name, "")) for name in names] for row in rows[:MOST_ROWS]]
    numbers = [any(cell.startswith(_NUMBER) for cell in column) for column in zip(*cells, strict=True)]
    heads = "".join(
        f"<th{_RIGHT * number}>{text(name.replace('_', ' '))}</th>" for name, number in zip(names, numbers, strict=True)
    )
    yield f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>'
    for row in cells:
        yield f"<tr>{''.join(row)}</tr>"
    yield "</tbody></table></div>"
    if len(rows) > MOST_ROWS:
        yield f'<p class="caption">The first {MOST_ROWS} of {len(rows):,} rows.</p>'


def _cell(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return (
            f"<td>{text('yes' if value is True else 'no' if value is False else '' if value is None else value)}</td>"
        )
    written = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{_NUMBER}{written.replace('-', '−')}</td>"


def _definitions(entries: Mapping[str, str]) -> str:
    if not entries:
        return ""
    rows = (f"<dt>{text(name[:1].upper() + name[1:])}</dt><dd>{linked(told)}</dd>" for name, told in entries.items())
    return f"<dl>{''.join(rows)}</dl>"


def _again(section: Section) -> str:
    is_web = section.link.startswith(("http://", "https://"))
    command = f"<pre><code>{text(section.command)}</code></pre>" if section.command else ""
    link = f'<p><a href="{text(section.link)}">Open it in the app</a></p>' if is_web else ""
    link += f'<p class="caption">{text(section.note)}</p>' if link and section.note else ""
    return f"<details><summary>Make it again</summary>{command}{link}</details>" if command or link else ""
