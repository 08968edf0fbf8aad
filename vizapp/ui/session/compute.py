"""Results, computed once and kept in a bounded cache, with a progress bar and a Cancel button."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar, cast

import streamlit as st
from streamlit.errors import StreamlitDuplicateElementKey

from vizapp import methods
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
from vizapp.zoo.network import Network

Value = TypeVar("Value")
Item = TypeVar("Item")
Keep = Callable[[Item, Any], None]


@dataclass(frozen=True)
class Refusal:
    """Why a part of a request has no result; kept with the results, so that it is not asked again."""

    sentence: str
    nbytes: int = 1000


_NBYTES: Callable[[Any], int] = attrgetter("nbytes")
_GRACE = 5.0  # seconds that the work for a dialog goes on between two looks at it
_BY_NAME = ("network", "time of a pass")  # keys that name a network of the zoo instead of a digest
_named: dict[str, str] = {}  # names in the zoo by network digest, for the log


@st.cache_resource(show_spinner=False)
def answers() -> ByteBoundedCache[Any]:
    """The cached results of all sessions."""
    return ByteBoundedCache(settings().answer_mb * 2**20)


def key_of(
    method: str,
    network: Network,
    picture: Picture | None = None,
    folder: Source | None = None,
    unit: Unit | None = None,
    **params: Any,
) -> Key:
    """The cache key of a result.

    Args:
        method: The method, or whatever else is computed.
        network: Identified by its digest and device.
        picture: Identified by the digest of its pixels.
        folder: Identified by the digest of its listing, so a changed folder gives another key.
        unit: Identified by its repr.
        **params: Sorted by name.
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
    """The result of a method, or None where a message explains why there is none.

    Args:
        method: Key of the method.
        network: The network.
        picture: The picture, if the method takes one.
        folder: The folder of pictures, if the method takes one.
        unit: The unit, if the method takes one.
        **params: Parameters of the method.
    """
    return compute(
        key_of(method, network, picture, folder, unit, **params),
        lambda tick: methods.ask(method, network, picture=picture, folder=folder, unit=unit, tick=tick, **params),
        device=str(network.device),
    )


def poll(
    method: str, network: Network, picture: Picture | None = None, unit: Unit | None = None, title: str = "Computing",
    **params: Any,
) -> Result | None:  # fmt: skip
    """As `run`, for a dialog: None also while it is computed, with its progress; the page reruns at its end.

    Streamlit handles a click in a dialog only when the script of the dialog has ended, so that Cancel needs a short one.

    Args:
        method: Key of the method.
        network: The network.
        picture: The picture, if the method takes one.
        unit: The unit, if the method takes one.
        title: Title of the progress bar.
        **params: Parameters of the method.
    """
    found: Result | None = poll_work(
        key_of(method, network, picture, None, unit, **params),
        lambda tick: methods.ask(method, network, picture=picture, unit=unit, tick=tick, **params),
        title, str(network.device),
    )  # fmt: skip
    return found


def poll_work(key: Key, work: Callable[[Tick], Any], title: str, device: str | None = None) -> Any:
    """As `poll`, for any work whose result has `nbytes`. It ends soon after the dialog is closed.

    Args:
        key: The cache key.
        work: Computes the result and reports the finished share.
        title: Title of the progress bar.
        device: Where the work queues.
    """
    found = answers().get(key)
    if found is not None:
        return found
    name, refused, began = state.name_of(key), ("refused", *key), time.perf_counter()
    refusal = answers().get(refused)
    if refusal or progress.is_cancelled(key):
        messages.info(refusal or "Cancelled.")
        st.button("Run again", key=f"poll.again.{name}", on_click=_ask_again, args=(key, refused))
        return None

    def keep(tick: Tick) -> Any:
        if earlier := answers().get(refused):  # since the page looked above
            raise VizError(earlier, code="refused-before")
        try:
            answer = memory.retry_after_eviction(lambda: work(tick))
        except VizError as error:
            if time.perf_counter() - began > progress.QUIET:  # nobody may be looking now
                answers().put(refused, str(error), sys.getsizeof(str(error)))
            raise
        answers().put(key, answer, answer.nbytes)
        return answer

    request = RunRequest(key, keep, device, grace=_GRACE)

    def look_again() -> None:
        if progress.is_cancelled(key) or answers().get(key) is not None or answers().get(refused):
            st.rerun()
        with progress.watch([request]) as watched:
            if not watched.done:  # drawn at once, so that it does not fade
                progress.RunView(watched, [key], title, f"poll.cancel.{name}", lambda now: f"{100 * now.share:.0f} %")
                if not watched.wait(progress.QUIET):
                    return
            watched.refusals()
        st.rerun()

    with logged(key) as entry, progress.watch([request]) as watched:
        if watched.wait(progress.QUIET):
            try:
                (job,) = watched.jobs
                answer = job.future.result()
                entry.nbytes = answer.nbytes
                return answer
            except VizError as error:
                messages.info(str(error))
                return None
    st.fragment(lambda: messages.guard(look_again), run_every=progress.EVERY)()
    return None


def _ask_again(key: Key, refused: Key) -> None:
    answers().put(refused, "", 0)
    progress.start(key)


def compute(
    key: Key,
    work: Callable[[Tick], Value],
    size: Callable[[Value], int] = _NBYTES,
    title: str = "Computing",
    device: str | None = None,
    shelf: ByteBoundedCache[Value] | None = None,
    raises: bool = False,
) -> Value | None:
    """The result of `work`, from the cache if it is there. After half a second, a progress bar and Cancel are shown.

    None if the user cancelled it, or if `work` raised a VizError, which is shown instead.

    Args:
        key: The cache key.
        work: Computes the result and reports the finished share.
        size: Bytes of a result; by default its `nbytes`.
        title: Title of the progress bar.
        device: Where the work queues (each device runs one computation at a time); None: no queue.
        shelf: The cache; by default `answers()`.
        raises: Whether a VizError is raised and not shown.
    """
    place = st.empty()  # also for cached results, so that everything below keeps its place in the browser
    cache = answers() if shelf is None else shelf
    found = cache.get(key)
    if found is not None:
        _log(key, time.perf_counter(), "kept", size(found))
        return found

    def keep(tick: Tick) -> Value:
        answer = memory.retry_after_eviction(lambda: work(tick), opens=key[0] == "network")
        cache.put(key, answer, size(answer))
        return answer

    return cast("Value | None", _run_in_place(RunRequest(key, keep, device), size, title, place, raises))


def compute_each(
    keys: Mapping[Item, Key],
    work: Callable[[Tick, list[Item], Keep[Item]], None],
    title: str,
    device: str | None = None,
) -> dict[Item, Any]:
    """A result per item: from the cache, and the missing ones from one run. Empty where a message explains why.

    Args:
        keys: The cache key of each item.
        work: Computes the results of the items that it is given, and keeps each one when it is ready.
        title: Title of the progress bar.
        device: Where the work queues.
    """
    place = st.empty()
    known = {item: found for item, key in keys.items() if (found := answers().get(key)) is not None}
    missing = [item for item in keys if item not in known]
    if missing:
        key = (*keys[missing[0]], *(part for item in missing[1:] for part in keys[item][-1:]), "together")
        request = RunRequest(key, keeping_each(keys, missing, work), device)
        made = _run_in_place(request, lambda made: sum(value.nbytes for value in made.values()), title, place)
        if made is None:
            return {}
        known |= made
    return {item: known[item] for item in keys if item in known}


def keeping_each(
    keys: Mapping[Item, Key], items: list[Item], work: Callable[[Tick, list[Item], Keep[Item]], None]
) -> Callable[[Tick], dict[Item, Any]]:
    """A run that keeps the result of each item when it is ready. A restarted run skips the items that are in the cache."""

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


def _run_in_place(request: RunRequest, size: Callable[[Any], int], title: str, place: Any, raises: bool = False) -> Any:
    """The result of a request, or None where a message explains why there is none."""
    key = request.key
    name = state.name_of(key)
    if progress.is_cancelled(key):
        with place.container(horizontal=True, vertical_alignment="center"):
            st.caption("Cancelled.")
            with suppress(StreamlitDuplicateElementKey):  # several parts of the page ask for it
                st.button("Run again", key=f"again.{name}", on_click=progress.start, args=(key,))
        return None
    try:
        with logged(key) as entry, progress.watch([request]) as watched:
            (job,) = watched.jobs
            before, began = job.queued, time.perf_counter()
            entry.joined = before > 0
            try:
                if not watched.wait(progress.QUIET):
                    progress.RunView(watched, [key], title, f"cancel.{name}", place=place).wait()
                answer = job.future.result()
            finally:
                entry.queued = min(job.queued - before, time.perf_counter() - began)
            entry.nbytes = size(answer)
    except VizError as error:
        if raises:
            place.empty()
            raise
        # Not in a container: the browser would keep the Cancel button of the container that was here before.
        messages.warn(str(error), place)
        return None
    place.empty()
    return answer


@dataclass
class LogEntry:
    """What the log says about a result: its bytes, the seconds in the queue, and whether the run had already started."""

    nbytes: int = 0
    queued: float = 0.0
    joined: bool = False


@contextmanager
def logged(key: Key, run_key: Key | None = None) -> Iterator[LogEntry]:
    """Write a line to the access log about the work in the block.

    Args:
        key: Cache key, which names method and network.
        run_key: Key of the run that this is part of, to look up its time in the queue.
    """
    began, entry, outcome = time.perf_counter(), LogEntry(), "left"
    try:
        yield entry
        outcome = "joined" if entry.joined else "computed"
    finally:
        error = sys.exception()
        if outcome == "left" and isinstance(error, Exception):
            outcome = "refused" if isinstance(error, VizError) else "failed"
        queued = entry.queued if run_key is None else progress.job_runner().queued(run_key)
        _log(key, began, outcome, entry.nbytes, queued)


def _log(key: Key, began: float, outcome: str, nbytes: int, queued: float = 0.0) -> None:
    """Write a line to the access log. Of the key it holds only the names of the method and of a network of the zoo."""
    about = key[1] if len(key) > 1 else ""
    network = about if key[0] in _BY_NAME else _named.get(about, "")
    access_log.write(
        "answer", method=key[0], network=network, seconds=time.perf_counter() - began, queued=queued, bytes=nbytes,
        outcome=outcome,
    )  # fmt: skip


def name_for_log(digest: str, name: str) -> None:
    """Give the log the name of a network in the zoo."""
    _named[digest] = name


def remembered(key: Key, make: Callable[[], Value], size: Callable[[Value], int] = _NBYTES) -> Value:
    """`make()`, cached. For drawings that take a fraction of a second."""
    found = answers().get(key)
    if found is None:
        found = make()
        answers().put(key, found, size(found))
    return cast(Value, found)
