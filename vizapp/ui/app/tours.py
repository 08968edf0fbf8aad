"""Tours: a sequence of links with texts, for talks and museums. `docs/tours.md` describes the files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from vizapp.errors import VizError, nearest, quoted, showable
from vizapp.settings import ASSETS, settings
from vizapp.ui.app.pages import pages
from vizapp.ui.session import access, state, url

FOLDER, ENDING = ASSETS / "tours", ".toml"
_LARGEST = 2**20  # bytes of a file
_SECONDS = 20  # of a step, where the file does not say
_FROM, _TO = 2, 3600  # seconds that a step may take
_TOUR, _STEP = (
    {"title": str, "about": str, "seconds": int, "steps": list},
    {"title": str, "text": str, "link": str, "seconds": int},
)
_OPTIONAL = {"about", "seconds"}
_NEVER = {
    choice.name for choice in (state.TOUR, state.STEP, state.AUTOPLAY, state.PRESENT)
}  # in links copied during a tour
_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*steps[ \t]*\]\]", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A step: the page and the choices that its link names, and what is said about them. `seconds`: while it plays."""

    title: str
    text: str
    page: str
    query: Mapping[str, str]
    seconds: int


@dataclass(frozen=True)
class Tour:
    """A tour. `about`: a sentence for those who choose one."""

    name: str
    title: str
    about: str
    steps: tuple[Step, ...]


def files() -> dict[str, Path]:
    """The tours that are offered, by name: those that come with the app, then those of `VIZAPP_TOURS`."""
    own = settings().tours
    folders = (FOLDER, *([own] if own is not None else []))
    return {path.stem: path for folder in folders for path in sorted(folder.glob(f"*{ENDING}"))}


def open_tour(name: str) -> Tour:
    """The tour of that name; or that of a file, by its path, where users may open files.

    Raises:
        VizError: there is none, its file has an error (the line is named), or the file may not be opened.
    """
    known = files()
    if name not in known and not name.endswith(ENDING):
        offered = ", ".join(known)
        raise VizError(
            f"There is no tour {quoted(name)}.{nearest(name, known) or f' There are {offered}.'}", code="no-such-tour"
        )
    path = known.get(name) or access.allowed(name, "tour")
    try:
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise VizError(f"{showable(path.name)} is larger than a tour may be, 1 MB.", code="bad-tour")
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text in UTF-8"
        raise VizError(f"The tour {showable(path.name)} cannot be read: {reason}.", code="bad-tour") from None
    return read_tour(content, name, showable(path.name))


def read_tour(content: str, name: str, file: str = "") -> Tour:
    """The tour that a file describes.

    Args:
        content: The content of the file.
        name: The name of the tour.
        file: The name of the file, for errors.

    Raises:
        VizError: the file has an error.
    """
    try:
        given = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise VizError(f"The tour {file} cannot be read: {error}.", code="bad-tour") from None
    _check(given, _TOUR, f"The tour {file}")
    if not given["steps"]:
        raise VizError(f"The tour {file} has no [[steps]].", code="bad-tour")
    lines = [content.count("\n", 0, found.start()) + 1 for found in _HEADER.finditer(content)]
    steps = []
    for number, one in enumerate(given["steps"]):
        line = f", line {lines[number]}" if number < len(lines) else ""
        steps.append(_step(one, f"Step {number + 1} of the tour {file}{line},", given.get("seconds", _SECONDS)))
    return Tour(name, given["title"], given.get("about", ""), tuple(steps))


def _step(given: Any, subject: str, seconds: int) -> Step:
    if not isinstance(given, dict):
        raise VizError(f"{subject} is no table; write [[steps]] above it.", code="bad-tour")
    _check(given, _STEP, subject)
    link = urlsplit(given["link"])
    page, known = link.path.strip("/").rpartition("/")[2] or "start", pages()
    if page not in known:
        raise VizError(
            f"{subject} names the page {quoted(page)}, which there is not.{nearest(page, known)}", code="bad-tour"
        )
    query = {name: value for name, value in parse_qsl(link.query, keep_blank_values=True) if name not in _NEVER}
    choices = {choice.name: choice for choice in (*state.CHOICES.values(), *known[page].carried)}
    carried = {choice.name for choice in choices.values() if choice.shared or choice in known[page].carried} | {
        url.FOLDER
    }
    _named(set(query), carried, f"{subject} names", f"which links to {page} do not have")
    for name, value in query.items():
        try:
            if name in choices:
                choices[name].read(value)
        except VizError as error:
            raise VizError(f"{subject} has a wrong {name}. {error}", code="bad-tour") from None
    return Step(given["title"], " ".join(given["text"].split()), page, query, given.get("seconds", seconds))


def _check(given: Mapping[str, Any], wanted: Mapping[str, Any], subject: str) -> None:
    """Raises VizError where keys are missing, unknown or of another type."""
    _named(given, wanted, f"{subject} has", "which tours do not have")
    for key, kind in wanted.items():
        if key not in given and key not in _OPTIONAL:
            raise VizError(f"{subject} has no {key}.", code="bad-tour")
        value: Any = given.get(key, kind())
        if type(value) is not kind or (kind is str and not value.strip() and key not in _OPTIONAL):
            raise VizError(f"{subject} has {quoted(value)} as its {key}.", code="bad-tour")
        if kind is int and key in given and not _FROM <= value <= _TO:
            raise VizError(f"{subject} takes {quoted(value)} seconds; write {_FROM} to {_TO}.", code="bad-tour")


def _named(given: Collection[str], known: Collection[str], subject: str, problem: str) -> None:
    for key in given:
        if key not in known:
            raise VizError(f"{subject} {quoted(key)}, {problem}.{nearest(key, known)}", code="bad-tour")
