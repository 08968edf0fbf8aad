"""Answers to questions: computed once, kept in a bounded store by digests, with progress and a way out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import streamlit as st

from vizapp.errors import VizError
from vizapp.service.jobs import JobRunner, RunningJob, Tick
from vizapp.service.lru_cache import ByteBoundedCache, Key
from vizapp.settings import settings
from vizapp.ui.session import access_log, memory, messages, state
from vizapp.ui.session.access_log import Clock

if TYPE_CHECKING:
    from vizapp.engine.trace.sites import Unit
    from vizapp.media.picture import Picture
    from vizapp.media.source import Source
    from vizapp.methods.base import Result
    from vizapp.zoo.network import Network

Value = TypeVar("Value")
QUIET = 0.5  # seconds before progress is shown
_BY_NAME = ("network", "time of a pass")  # questions whose keys name a network of the zoo and no digest
_named: dict[str, str] = {}  # digests of networks and their names in the zoo, for the log


@st.cache_resource(show_spinner=False)
def answers() -> ByteBoundedCache[Any]:
    """The store of all sessions."""
    return ByteBoundedCache(settings().answer_mb * 2**20)


@st.cache_resource(show_spinner=False)
def office() -> JobRunner:
    """The work under way of all sessions."""
    return JobRunner(memory.has_room, memory.waits_for_memory)


def key_of(
    method: str,
    network: Network,
    picture: Picture | None = None,
    folder: Source | None = None,
    unit: Unit | None = None,
    **params: Any,
) -> Key:
    """What tells one question from another, as text: digests, names and the parameters in a fixed order."""
    return (
        method,
        network.digest,
        str(network.device),
        picture.digest if picture else "",
        str(folder.root) if folder else "",
        repr(unit),
        repr(sorted(params.items())),
    )


def run(
    method: str,
    network: Network,
    picture: Picture | None = None,
    folder: Source | None = None,
    unit: Unit | None = None,
    **params: Any,
) -> Result | None:
    """The answer of a method, or None when a sentence in its place says why there is none."""
    from vizapp.methods import ask

    return compute(
        key_of(method, network, picture, folder, unit, **params),
        lambda tick: ask(method, network, picture=picture, folder=folder, unit=unit, tick=tick, **params),
        size=lambda result: result.nbytes,
        title="Computing",
        device=str(network.device),
    )


def compute(
    key: Key,
    work: Callable[[Tick], Value],
    size: Callable[[Value], int],
    title: str,
    device: str | None = None,
    shelf: ByteBoundedCache[Value] | None = None,
) -> Value | None:
    """`work(tick)`, from the store if it is there, with progress and a Cancel button after half a second.

    `device` is where the work takes its turns (one computation per device at a time). None when the person
    cancelled, or when a VizError was raised, whose sentence is shown in place.
    """
    place, clock = st.empty(), Clock()
    store = answers() if shelf is None else shelf
    found = store.get(key)
    if found is not None:
        _note(key, clock, "kept", size(found))
        return cast(Value, found)
    name = state.name_of(key)
    if state.is_wished("cancel", key):
        with place.container(horizontal=True, vertical_alignment="center"):
            st.caption("Cancelled.")
            st.button("Run again", key=f"again.{name}", on_click=state.withdraw, args=("cancel", key))
        return None

    def kept(tick: Tick) -> Value:
        answer = memory.retry_after_eviction(lambda: work(tick), opens=key[0] == "network")
        store.put(key, answer, size(answer))
        return answer

    outcome, begun = "left", None
    try:
        with office().waiting(key, kept, device, state.person()) as begun:
            answer = _wait(begun, place, title, key)
        outcome = "computed"
    except VizError as error:
        outcome = "refused"
        # Not in a container: the browser would keep what an earlier container in this place held, the Cancel button.
        messages.warn(str(error), place)
        return None
    finally:
        if outcome == "left" and isinstance(sys.exception(), Exception):
            outcome = "failed"
        nbytes = size(answer) if outcome == "computed" else 0
        _note(key, clock, outcome, nbytes, begun.queued if begun is not None else 0.0)
    place.empty()
    return cast(Value, answer)


@contextmanager
def noted(key: Key, work: Key | None = None) -> Iterator[list[int]]:
    """Write a line for the log about long work that a page has begun by itself and looks at; takes the answer's bytes.

    `key` names method and network, `work` is what the office knows the work by, if not `key`.
    """
    clock, sizes, outcome = Clock(), list[int](), "left"
    try:
        yield sizes
        outcome = "computed"
    finally:
        error = sys.exception()
        if outcome == "left" and isinstance(error, Exception):
            outcome = "refused" if isinstance(error, VizError) else "failed"
        _note(key, clock, outcome, sum(sizes), office().queued(work or key))


def _note(key: Key, clock: Clock, outcome: str, nbytes: int, queued: float = 0.0) -> None:
    """A line for the log. Of the key only what names a method and a network of the zoo."""
    about = key[1] if len(key) > 1 else ""
    network = about if key[0] in _BY_NAME else _named.get(about, "")
    access_log.write(
        "answer", method=key[0], network=network, seconds=clock.seconds, queued=round(queued, 4), bytes=nbytes,
        outcome=outcome,
    )  # fmt: skip


def name_for_log(digest: str, name: str) -> None:
    """Have the log call a network by its name in the zoo."""
    _named[digest] = name


def remembered(key: Key, make: Callable[[], Value], size: Callable[[Value], int]) -> Value:
    """`make()`, from the store if it is there. For drawings that take a fraction of a second."""
    found = answers().get(key)
    if found is None:
        found = make()
        answers().put(key, found, size(found))
    return cast(Value, found)


def _wait(work: RunningJob, place: Any, title: str, key: Key) -> Any:
    """Wait for the work; every `st.*` call in here is a place where the person can leave."""
    started = time.monotonic()
    while not work.future.done() and time.monotonic() - started < QUIET:
        time.sleep(0.01)
    if not work.future.done():
        with place.container(horizontal=True, vertical_alignment="center"):
            bar = st.progress(work.share, text=title)
            st.button("Cancel", key=f"cancel.{state.name_of(key)}", on_click=state.wish, args=("cancel", key))
        while not work.future.done():
            bar.progress(work.share, text=f"{doing(work, title)} · {time.monotonic() - started:.0f} s")
            time.sleep(0.1)
    return work.future.result()


def doing(work: RunningJob | None, title: str) -> str:
    """What the work does now, or what it waits for."""
    if work is None:
        return title
    place = work.place
    if work.paused:
        return f"{title}, taking turns with others"
    if place:
        return f"Waiting, {ordinal(place)} in the queue"
    return "Waiting for memory that other work holds" if work.wants_memory else title


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th` …"""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"
