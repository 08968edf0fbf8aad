"""The dialog "Report": the answers of the page as a file, and the report that the user collects from several pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import streamlit as st

from vizapp.errors import VizError, plural
from vizapp.report.document import Report
from vizapp.ui.inputs import images
from vizapp.ui.session import downloads, messages, reports, state
from vizapp.ui.session.reports import Entry, Packed

_TITLE, _REMARK = "report.title", "report.remark"  # fields about this page
_WHOLE_TITLE, _WHOLE_REMARK = "report.whole.title", "report.whole.remark"
_LONGEST_TITLE, _LONGEST_REMARK = 200, 4000  # characters
_HINT = "What is to be seen here"


def is_open() -> bool:
    """Whether the dialog is open on this page."""
    return bool(state.load(state.REPORTING) == state.page())


def show() -> None:
    """Draw the dialog, if it is open."""
    if is_open():
        body = partial(messages.guard, _draw)
        st.dialog("Report", width="large", on_dismiss=partial(state.clear, state.REPORTING))(body)()


def _draw() -> None:
    here, whole = st.columns(2, gap="medium")  # so that both are in sight
    with here, st.container(key="report_page"):
        messages.heading("This page")
        _draw_page()
    entries = reports.collected()
    with whole, st.container(key="report_whole"):
        messages.heading(f"Your report: {plural(len(entries), 'answer')}" if entries else "Your report")
        if entries:
            _draw_whole(entries)
        else:
            messages.info("Collect answers of several pages here, with “Add to report”, for one file.")
    downloads.deliver("report.given")


def _text(key: str) -> str:
    return str(state.load(key) or "").strip()


def _buttons(key: str, label: str, name: str, make: Callable[[], Report]) -> None:
    """Draw the button that downloads a report."""
    file = downloads.File(label, f"{name}.html", "text/html", lambda: make().to_html().encode("utf-8", "replace"))
    downloads.buttons(key, [file])


def _size(nbytes: int) -> str:
    """The size of the file, in words."""
    return f"about {nbytes / 1e6:.1f} MB" if nbytes >= 1e6 else f"about {max(1, round(nbytes / 1e3))} kB"


# This page


def _draw_page() -> None:
    chosen = _choose()
    if not chosen:
        return
    usual = chosen[0].title if len(chosen) == 1 else Report.title
    st.text_input("Title", key=_TITLE, placeholder=usual, max_chars=_LONGEST_TITLE)
    st.text_area("Remark", key=_REMARK, placeholder=_HINT, max_chars=_LONGEST_REMARK, height=68)
    size = reports.nbytes([one.key for one in chosen], lambda: reports.report_of(chosen))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        name = downloads.file_name("report", state.page())
        _buttons("report.page", "Download", name, lambda: reports.report_of(chosen, _text(_TITLE), _text(_REMARK)))
        st.button("Add to report", key="report.add", icon=":material/add:", on_click=_add, args=(chosen,))
        st.caption(f"One HTML file, {_size(size)}, that needs no network")
    said = state.load(state.SAID)
    if said:
        messages.must_know(said)
        state.clear(state.SAID)
    if images.origin()[0] == "given":
        messages.info("The photo is an upload: the link in the report shows it for a day, from this server only.")


def _choose() -> list[Packed]:
    """Draw the answers of the page; returns those that are chosen and still there."""
    answers, there = reports.shown(), []
    if not answers:
        messages.info(
            "There is nothing to report yet: this page has no finished answer. Wait for its numbers, or freeze a live photo, "
            "and open this again."
        )
    with st.container(gap="xxsmall"):
        for one in answers:
            try:
                packed = reports.pack(one)
            except VizError as error:
                messages.warn(str(error))
                continue
            label = messages.escaped(packed.title)
            if len(answers) == 1:
                st.markdown(label)
            if len(answers) == 1 or st.checkbox(label, value=True, key=f"report.chosen.{one.title}"):
                there.append(packed)
    return there


def _add(chosen: Sequence[Packed]) -> None:
    try:
        reports.add(chosen, _text(_TITLE), _text(_REMARK))
    except VizError as error:
        state.save(state.SAID, str(error))
        return
    state.save(state.SAID, f"Added {plural(len(chosen), 'answer')} to your report, which every page shows here.")
    state.save(_TITLE, "")
    state.save(_REMARK, "")


# The collected report


def _draw_whole(entries: list[Entry]) -> None:
    title, remark = reports.title_and_remark()
    _field(st.text_input, "Title", _WHOLE_TITLE, title, _take_whole, placeholder=Report.title)
    _field(st.text_area, "Remark", _WHOLE_REMARK, remark, _take_whole, placeholder="About all of it", height=68)
    there = [one.key for one in entries if one.is_kept]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _buttons("report.all", "Download all", "report", reports.whole_report)
        numbers = [one.number for one in entries]
        st.button(
            "Clear", key="report.clear", icon=":material/delete:", type="tertiary", on_click=_clear, args=(numbers,)
        )
        st.caption(f"One HTML file, {_size(reports.nbytes(there, reports.whole_report))}" if there else "")
    for place, one in enumerate(entries):
        with st.container(border=True, key=f"report_entry_{place}"):
            _draw_entry(one, place, len(entries))


def _draw_entry(entry: Entry, place: int, count: int) -> None:
    number = entry.number
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _field(st.text_input, f"Title of answer {place + 1}", f"report.title.{number}", entry.title, _take, number)
        for name, icon, by, is_off in (("up", "upward", -1, place == 0), ("down", "downward", 1, place == count - 1)):
            st.button(
                "", key=f"report.{name}.{number}", icon=f":material/arrow_{icon}:", help=f"Move {name}", disabled=is_off,
                on_click=reports.move, args=(number, by), type="tertiary",
            )  # fmt: skip
        st.button(
            "", key=f"report.remove.{number}", icon=":material/close:", help="Remove", on_click=reports.remove, args=(number,),
            type="tertiary",
        )  # fmt: skip
    if entry.is_kept:
        name = f"Remark on answer {place + 1}"
        _field(st.text_area, name, f"report.remark.{number}", entry.remark, _take, number, placeholder=_HINT, height=68)
    else:
        messages.info("This answer is not in memory any more, and the file leaves it out. Collect it again.")


def _field(
    draw: Callable[..., Any], label: str, key: str, value: str, take: Callable[..., None], *args: str, **more: Any
) -> None:
    """Draw a field with a text that is kept while the dialog is closed.

    Args:
        draw: Draws it.
        label: Names it for those who hear the page.
        key: Key of the widget.
        value: The text.
        take: Takes over what is entered, called with `args`.
        *args: See `take`.
        **more: For `draw`.
    """
    if not state.has(key):
        state.save(key, value)
    longest = _LONGEST_TITLE if draw is st.text_input else _LONGEST_REMARK
    draw(label, key=key, on_change=take, args=args, max_chars=longest, label_visibility="collapsed", **more)


def _take(number: str) -> None:
    reports.change(number, _text(f"report.title.{number}"), _text(f"report.remark.{number}"))


def _take_whole() -> None:
    state.save(state.WHOLE, (_text(_WHOLE_TITLE), _text(_WHOLE_REMARK)))


def _clear(numbers: list[str]) -> None:
    reports.remove(*numbers)
    for key in (state.WHOLE, _WHOLE_TITLE, _WHOLE_REMARK):
        state.clear(key)
