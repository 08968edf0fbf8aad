"""The report of this session: the answers that the page shows now, and those that the user has collected from several pages.

Of an answer on the page the session holds a weak reference, because the cache may evict it. A collected answer is a section
of a report, compressed in a bounded cache of its own; the session holds its key, title and remark.
"""

from __future__ import annotations

import pickle
import secrets
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import streamlit as st

from vizapp.errors import VizError
from vizapp.methods import methods
from vizapp.methods.base import Panel, Question, Result, facts_about
from vizapp.methods.params import build
from vizapp.report.document import Report
from vizapp.report.section import Section
from vizapp.service.lru_cache import ByteBoundedCache
from vizapp.ui.session import compute, state, url

MOST = 64 * 2**20  # bytes of the collected answers of a session, compressed
CAPACITY = (
    512 * 2**20
)  # bytes of those of all sessions; what was used longest ago, as by a session that ended, goes first
_LEVEL = 1  # of the compression: most of a section is compressed already
_NOTHING: tuple[str, bool, dict[str, Offer]] = ("", False, {})


@st.cache_resource(show_spinner=False)
def _store() -> ByteBoundedCache[bytes]:
    """The collected sections of all sessions, by session and key."""
    return ByteBoundedCache(CAPACITY, min_kept_under_pressure=None)


# The answers on the page


@dataclass(frozen=True)
class Offer:
    """An answer that the page shows."""

    title: str
    result: weakref.ref[Result]
    columns: int = 0  # of its pictures, see `Section`


@dataclass(frozen=True)
class Packed:
    """The section of an answer, compressed."""

    key: str
    title: str
    content: bytes
    result: weakref.ref[Result]


def begin() -> None:
    """Forget what the page showed: it is drawn again."""
    state.save(state.OFFERED, (state.page(), False, {}))


def end() -> None:
    """Note that the page is drawn."""
    page, _, there = state.load(state.OFFERED, _NOTHING)
    state.save(state.OFFERED, (page, True, there))


def is_drawn() -> bool:
    """Whether all answers of the page are known from the last time that it was drawn."""
    page, whole, _ = state.load(state.OFFERED, _NOTHING)
    return bool(whole and page == state.page())


def offer(result: Result, title: str = "") -> None:
    """Note that the page shows this result, which a cache holds. `title` tells it from others of its method."""
    page, whole, there = state.load(state.OFFERED, _NOTHING)
    if any(one.result() is result for one in there.values()):
        return
    title = title or methods()[result.method].title
    state.save(state.OFFERED, (page, whole, there | {title: Offer(title, weakref.ref(result))}))


def offer_drawn(
    method: str, title: str, pictures: Mapping[str, np.ndarray], table: Sequence[dict[str, Any]] = (),
    facts: Mapping[str, str] = MappingProxyType({}), asked: Question | None = None, params: Mapping[str, Any] | None = None,
    captions: Mapping[str, str] = MappingProxyType({}), columns: int = 0,
) -> None:  # fmt: skip
    """Note what the page has put together itself; it is kept with the results.

    Args:
        method: The method that it belongs to. Empty: it is the page as a whole, and comes first.
        title: Its title.
        pictures: uint8 `[H W 3]` by title.
        table: Rows.
        facts: Sentences by name.
        asked: What it is about.
        params: Parameters with which the method makes the same; None if it does not.
        captions: The words below the pictures, by title.
        columns: How many pictures stand beside each other; 0: as many as fit.
    """
    known, told = methods().get(method), None
    if asked is not None and known is not None:
        told = known.provenance(asked, build(known.params, dict(params or {}), method))
        told = replace(told, shows=(), views=None, repeatable=told.repeatable and params is not None)
    if asked is not None:
        facts = facts_about(asked) | dict(facts)
    panels = tuple(Panel(name, pixels, captions.get(name, "")) for name, pixels in pictures.items())
    result = Result(method, {}, panels, dict(facts), tuple(table), provenance=told)
    compute.answers().put(("report.drawn", state.person(), state.page(), title), result, result.nbytes)
    page, whole, there = state.load(state.OFFERED, _NOTHING)
    made = {title: Offer(title, weakref.ref(result), columns)}
    state.save(state.OFFERED, (page, whole, there | made if method else made | there))


def shown() -> list[Offer]:
    """The answers that the page shows, in their order."""
    return list(state.load(state.OFFERED, _NOTHING)[2].values())


def pack(one: Offer) -> Packed:
    """The section of an answer, kept with the results.

    Raises:
        VizError: the answer was evicted.
    """
    result, link = one.result(), url.address()
    if result is None:
        raise VizError(
            f"{one.title} is not in memory any more. Close this dialog: the page computes it again.",
            code="answer-evicted",
        )
    cached = ("report.section", str(id(result)), one.title, link)
    found: Packed | None = compute.answers().get(cached)
    if found is None or found.result() is not result:  # the ID may be that of one that is gone
        method = methods().get(result.method)
        named = "" if method is not None and method.title == one.title else one.title
        section = replace(result.section(named, link=link), columns=one.columns)
        found = Packed(secrets.token_hex(8), section.title, zlib.compress(pickle.dumps(section), _LEVEL), one.result)
        compute.answers().put(cached, found, len(found.content))
    return found


def report_of(chosen: Sequence[Packed], title: str = "", remark: str = "") -> Report:
    """The report of some answers of the page."""
    sections = tuple(_unpacked(one.content) for one in chosen)
    return Report(sections, title or (sections[0].title if len(sections) == 1 else Report.title), remark)


def _unpacked(content: bytes) -> Section:
    section: Section = pickle.loads(zlib.decompress(content))
    return section


def nbytes(keys: Sequence[str], make: Callable[[], Report]) -> int:
    """About how many bytes the file of a report has, whose sections have these keys."""
    return compute.remembered(("report.size", *keys), lambda: make().nbytes, lambda size: 8)


# What was collected


@dataclass(frozen=True)
class Entry:
    """A collected answer. `number` tells entries of the same section apart."""

    number: str
    key: str
    nbytes: int
    title: str
    remark: str = ""

    @property
    def cache_key(self) -> tuple[str, ...]:
        """The key of its section in the cache."""
        return ("report", state.person(), self.key)

    @property
    def is_kept(self) -> bool:
        """Whether its section is still there."""
        return _store().get(self.cache_key) is not None


def collected() -> list[Entry]:
    """The collected answers, in their order."""
    return list(state.load(state.COLLECTED, ()))


def title_and_remark() -> tuple[str, str]:
    """Title and remark of the collected report."""
    title, remark = state.load(state.WHOLE, ("", ""))
    return title, remark


def add(chosen: Sequence[Packed], title: str = "", remark: str = "") -> None:
    """Collect answers. `title` is that of a single one, and comes before those of several; the first has the remark.

    Raises:
        VizError: the report would become too large.
    """
    there = collected()
    sizes = {one.key: one.nbytes for one in there} | {one.key: len(one.content) for one in chosen}
    if sum(sizes.values()) > MOST:
        raise VizError(
            f"A report holds at most {MOST / 2**20:.0f} MB of answers. Download it, and remove some of them.",
            code="report-full",
        )
    for place, one in enumerate(chosen):
        told = one.title if not title else title if len(chosen) == 1 else f"{title}: {one.title}"
        entry = Entry(secrets.token_hex(4), one.key, len(one.content), told, "" if place else remark)
        _store().put(entry.cache_key, one.content, len(one.content))
        there.append(entry)
    state.save(state.COLLECTED, there)


def change(number: str, title: str, remark: str) -> None:
    """Change title and remark of an entry."""
    entries = collected()
    state.save(
        state.COLLECTED,
        [replace(one, title=title, remark=remark) if one.number == number else one for one in entries],
    )


def move(number: str, by: int) -> None:
    """Move an entry up (-1) or down (1)."""
    entries = collected()
    place = next((place for place, one in enumerate(entries) if one.number == number), -1)
    if place >= 0 and 0 <= place + by < len(entries):
        entries.insert(place + by, entries.pop(place))
        state.save(state.COLLECTED, entries)


def remove(*numbers: str) -> None:
    """Remove entries."""
    rest = [one for one in collected() if one.number not in numbers]
    for one in collected():
        if one.key not in {other.key for other in rest}:
            _store().drop(one.cache_key)
    state.save(state.COLLECTED, rest)


def whole_report() -> Report:
    """The report of all collected answers that are still there.

    Raises:
        VizError: none of them is.
    """
    there = [(one, content) for one in collected() if (content := _store().get(one.cache_key)) is not None]
    if not there:
        raise VizError(
            "None of the collected answers is in memory any more. Collect them again.", code="report-evicted"
        )
    sections = tuple(replace(_unpacked(content), title=one.title, remark=one.remark) for one, content in there)
    title, remark = title_and_remark()
    return Report(sections, title or Report.title, remark)
