"""Answers to questions: computed once, kept in a bounded cache by digests, with progress and a way to cancel."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import streamlit as st

from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.media.picture import Picture
from vizapp.media.source import Source
from vizapp.methods.base import Result
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import ByteBoundedCache, Key
from vizapp.service.runs import RunRequest
from vizapp.settings import settings
from vizapp.ui.session import access_log, memory, messages, progress, state
from vizapp.ui.session.access_log import Clock
from vizapp.zoo.network import Network

Value = TypeVar("Value")
Item = TypeVar("Item")
Keep = Callable[[Item, Any], None]
_BY_NAME = ("network", "time of a pass")  # questions whose keys name a network of the zoo and no digest
_named: dict[str, str] = {}  # digests of networks and their names in the zoo, for the log


@st.cache_resource(show_spinner=False)
def answers() -> ByteBoundedCache[Any]:
    """The answers of all sessions."""
    return ByteBoundedCache(settings().answer_mb * 2**20)


def key_of(
    method: str,
    network: Network,
    picture: Picture | None = None,
    folder: Source | None = None,
    unit: Unit | None = None,
    **params: Any,
) -> Key:
    """What tells one question from another, as text.

    Args:
        method: The method, or what else is computed.
        network: Goes by its digest and device.
        picture: Goes by the digest of its pixels.
        folder: Goes by the digest of what it holds, so that a folder that changed is another question.
        unit: Goes by its name.
        **params: In a fixed order.
    """
    return (
        method,
        network.digest,
        str(network.device),
        picture.digest if picture else "",
        folder.listing_digest() if folder else "",
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
    """The answer of a method, or None when a sentence in its place says why there is none.

    Args:
        method: Its key.
        network: The network it is asked of.
        picture: The picture, if it takes one.
        folder: The folder of pictures, if it takes one.
        unit: The unit, if it takes one.
        **params: Its parameters.
    """
    from vizapp.methods import ask  # loads torch

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
    """The answer of `work`, from the cache if it is there; after half a second with progress and a Cancel button.

    None when the person cancelled, or when a VizError was raised, whose sentence is shown in its place.

    Args:
        key: Tells it from other questions.
        work: Computes it, and reports the share that is done.
        size: Bytes of an answer.
        title: What is shown while it is computed.
        device: Where the work takes its turns (one computation per device at a time).
        shelf: The cache, if not that of `answers`.
    """
    place = _place()
    cache = answers() if shelf is None else shelf
    found = cache.get(key)
    if found is not None:
        _log(key, Clock(), "kept", size(found))
        return found

    def keep(tick: Tick) -> Value:
        answer = memory.retry_after_eviction(lambda: work(tick), opens=key[0] == "network")
        cache.put(key, answer, size(answer))
        return answer

    return cast("Value | None", _run_in_place(RunRequest(key, keep, device), size, title, place))


def compute_each(
    keys: Mapping[Item, Key],
    work: Callable[[Tick, list[Item], Keep[Item]], None],
    title: str,
    device: str | None = None,
) -> dict[Item, Any]:
    """An answer per item: from the cache, and the missing ones by one run. None of them when a sentence says why.

    Args:
        keys: The key of each item's answer.
        work: Computes the answers to the items it is given, and keeps each as it comes.
        title: What is shown while they are computed.
        device: Where the work takes its turns.
    """
    place = _place()
    known = {item: found for item, key in keys.items() if (found := answers().get(key)) is not None}
    missing = [item for item in keys if item not in known]
    if missing:
        key = (*keys[missing[0]], *(part for item in missing[1:] for part in keys[item][-1:]), "together")
        made = _run_in_place(RunRequest(key, keeping_each(keys, missing, work), device), _nbytes, title, place)
        if made is None:
            return {}
        known |= made
    return {item: known[item] for item in keys if item in known}


def keeping_each(
    keys: Mapping[Item, Key], items: list[Item], work: Callable[[Tick, list[Item], Keep[Item]], None]
) -> Callable[[Tick], dict[Item, Any]]:
    """A run that keeps the answer to each item as it comes; one that is started again leaves out what is there."""

    def run(tick: Tick) -> dict[Item, Any]:
        made = {item: found for item in items if (found := answers().get(keys[item])) is not None}
        first = len(made)

        def keep(item: Item, value: Any) -> None:
            answers().put(keys[item], value, value.nbytes)
            made[item] = value

        def report(share: float) -> None:
            tick((first + (len(items) - first) * share) / len(items))

        missing = [item for item in items if item not in made]
        if missing:
            memory.retry_after_eviction(lambda: work(report, missing, keep))
        return made

    return run


def _nbytes(made: Mapping[Any, Any]) -> int:
    return sum(value.nbytes for value in made.values())


def _place() -> Any:
    """Where progress is shown. It is there also when the answer is: what follows keeps its place in the browser."""
    return st.empty()


def _run_in_place(request: RunRequest, size: Callable[[Any], int], title: str, place: Any) -> Any:
    """The answer to a request, or None when a sentence in its place says why there is none."""
    key = request.key
    name = state.name_of(key)
    if progress.is_cancelled(key):
        with place.container(horizontal=True, vertical_alignment="center"):
            st.caption("Cancelled.")
            st.button("Run again", key=f"again.{name}", on_click=state.withdraw, args=("cancel", key))
        return None
    try:
        with logged(key) as entry, progress.watch([request]) as watched:
            (job,) = watched.jobs
            try:
                if not watched.wait(progress.QUIET):
                    progress.RunView(watched, [key], title, f"cancel.{name}", place=place).wait()
                answer = job.future.result()
            finally:
                entry.queued = job.queued
            entry.nbytes = size(answer)
    except VizError as error:
        # Not in a container: the browser would keep what an earlier container in this place held, the Cancel button.
        messages.warn(str(error), place)
        return None
    place.empty()
    return answer


@dataclass
class LogEntry:
    """What the log says of an answer besides its outcome: its bytes, and the seconds in the queue."""

    nbytes: int = 0
    queued: float = 0.0


@contextmanager
def logged(key: Key, run_key: Key | None = None) -> Iterator[LogEntry]:
    """Write a line in the log about the work in the block.

    Args:
        key: Names method and network.
        run_key: The key of the run that this is a part of; its time in the queue is then looked up.
    """
    clock, entry, outcome = Clock(), LogEntry(), "left"
    try:
        yield entry
        outcome = "computed"
    finally:
        error = sys.exception()
        if outcome == "left" and isinstance(error, Exception):
            outcome = "refused" if isinstance(error, VizError) else "failed"
        queued = entry.queued if run_key is None else progress.job_runner().queued(run_key)
        _log(key, clock, outcome, entry.nbytes, queued)


def _log(key: Key, clock: Clock, outcome: str, nbytes: int, queued: float = 0.0) -> None:
    """A line in the log. Of the key only what names a method and a network of the zoo."""
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
    """`make()`, from the cache if it is there. For drawings that take a fraction of a second."""
    found = answers().get(key)
    if found is None:
        found = make()
        answers().put(key, found, size(found))
    return cast(Value, found)
