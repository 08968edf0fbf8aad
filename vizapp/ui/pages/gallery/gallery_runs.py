"""Galleries being built: begun by a click, watched by a page that stays usable, left and gone on with at any time.

The pass runs in the office as long as a page of some session watches it, so that two sessions that want the same gallery
share one pass. What it has seen is on the disk: leaving the page, or the end of the app, loses a few batches at most.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from vizapp.errors import VizError
from vizapp.service.jobs import RunningJob, Tick
from vizapp.service.lru_cache import ByteBoundedCache
from vizapp.ui.inputs.datasets import Collection, galleries_of, kind
from vizapp.ui.session import access, compute, memory, messages, state

if TYPE_CHECKING:
    from vizapp.engine.trace.sites import Site
    from vizapp.gallery.build import GalleryOptions, Progress
    from vizapp.gallery.reader import Gallery
    from vizapp.zoo.network import Network

EVERY = 16  # batches between two looks at what is known so far, at most
_CAPACITY = 384 * 2**20  # bytes of galleries kept for all sessions together
LOOK = 2.0  # seconds between two, at least


@dataclass(frozen=True, eq=False)
class GalleryRequest:
    """A gallery that is looked at, or would be if it were there: of what, and the folder that holds it."""

    network: Network
    collection: Collection
    sites: tuple[Site, ...]
    folder: Path

    @property
    def stamp(self) -> str:
        """Changes when there is more to see; empty when there is nothing."""
        from vizapp.gallery.checkpoint import NAME
        from vizapp.gallery.store import MANIFEST, WORK
        from vizapp.media.source import file_stamp

        stamps = [file_stamp(self.folder / place) for place in (MANIFEST, Path(WORK) / NAME)]
        return next((stamp for stamp in stamps if stamp != "gone"), "")

    @property
    def is_whole(self) -> bool:
        """Whether the pass came to its end."""
        from vizapp.gallery.store import read_manifest

        return read_manifest(self.folder) is not None

    @property
    def is_running(self) -> bool:
        """Whether this session wants it to be built now."""
        return state.is_wished("run", str(self.folder))


def gallery_request(network: Network, collection: Collection, sites: tuple[Site, ...]) -> GalleryRequest:
    """The gallery of these layers over these pictures; it has the folder that the command line gives it."""
    from vizapp.methods.base import Question
    from vizapp.methods.gallery import place_for

    names = ",".join(site.name for site in sites)
    folder = compute.remembered(
        ("gallery.place", network.digest, str(network.device), collection.text, collection.listing, names),
        lambda: place_for(network, Question(network, folder=collection.source), sites, _plan(network)),
        size=lambda path: 1000,
    )
    if access.shared() and kind(collection.text) == "upload":  # then it goes with the upload, and nobody else finds it
        folder = galleries_of(collection.source.root) / folder.name
    return GalleryRequest(network, collection, sites, folder)


def _plan(network: Network) -> GalleryOptions:
    from vizapp.methods.gallery import GalleryParams, plan_of

    return plan_of(network, GalleryParams(every=EVERY))


def start(asked: GalleryRequest) -> None:
    """Have the gallery built, from where an earlier pass was left."""
    state.wish("run", str(asked.folder))


def stop(asked: GalleryRequest) -> None:
    """Have the pass ended; what it has seen is kept."""
    state.withdraw("run", str(asked.folder))


def forget(asked: GalleryRequest) -> None:
    """Throw away a gallery that cannot be read, and have it built anew."""
    import shutil

    shutil.rmtree(asked.folder, ignore_errors=True)
    start(asked)


def known(asked: GalleryRequest) -> Gallery | None:
    """The gallery, or what is known of it so far; None when that is nothing, or a sentence says why not."""
    from vizapp.gallery.build import seen_so_far

    stamp = asked.stamp
    if not stamp:
        return None
    return compute.compute(
        ("gallery", str(asked.folder), stamp),
        lambda tick: seen_so_far(asked.network, asked.collection.source, asked.sites, asked.folder),
        size=lambda found: 0 if found is None else 4000 * len(found.units),
        title="Reading the gallery",
        shelf=_galleries(),
    )


@st.cache_resource(show_spinner=False)
def _galleries() -> ByteBoundedCache[Gallery | None]:
    """The galleries that were looked at last, of all sessions; a new checkpoint is a new one."""
    return ByteBoundedCache(_CAPACITY)


def under_way(asked: GalleryRequest) -> Progress | None:
    """How far a pass over this gallery is that other sessions watch now; None when none does."""
    watchers = _watching().get(str(asked.folder), set())
    # A script that was left may take a moment to notice, and would look like somebody else.
    others = any(session != state.person() for session, _ in list(watchers))
    return _told().get(str(asked.folder)) if others else None


@st.cache_resource(show_spinner=False)
def _watching() -> dict[str, set[tuple[str, object]]]:
    """Which sessions watch which pass, once per script that does."""
    return {}


def other_weights(asked: GalleryRequest) -> str:
    """A sentence if there is a gallery of these pictures made with other weights of this network; else nothing."""
    from vizapp.gallery.store import MANIFEST, read_manifest

    for place in asked.folder.parent.glob(f"*/{MANIFEST}"):
        manifest = read_manifest(place.parent)
        if manifest is None or manifest["data"]["listing"] != asked.collection.listing:
            continue
        network = manifest["network"]
        if network["name"] == asked.network.name and network["digest"] != asked.network.digest:
            return "There is one made with other weights of this network; choose them in the sidebar to see it."
    return ""


@st.cache_resource(show_spinner=False)
def _told() -> dict[str, Progress]:
    """How far the passes of all sessions are."""
    return {}


@dataclass(frozen=True, eq=False)
class GalleryRun:
    """A pass that this page watches."""

    asked: GalleryRequest
    work: RunningJob
    place: Any
    stamp: str
    began: float

    def show(self) -> None:
        """Draw the progress as it is now."""
        told = compute.doing(self.work, words(_told().get(str(self.asked.folder))))
        self.place.progress(min(self.work.share, 1.0), text=told)

    def follow(self) -> None:
        """Show the progress until there is more to see; then have the page drawn again. Runs last on the page."""
        while not self.work.future.done():
            self.show()
            time.sleep(0.15)
            if time.monotonic() - self.began > LOOK and self.asked.stamp != self.stamp:
                st.rerun()
        stop(self.asked)  # also where it failed: it is not begun again by itself
        try:
            note = self.work.future.result()
        except VizError as error:
            self.place.empty()
            messages.warn(str(error))
            return
        if "damaged" in note:
            state.note(note)
        st.rerun()


@contextmanager
def watched(asked: GalleryRequest) -> Iterator[GalleryRun]:
    """Watch the pass inside the block, after drawing its progress and a button to cancel it."""
    from vizapp.gallery import build

    def work(tick: Tick) -> str:
        def watch(progress: Progress) -> None:
            _told()[str(asked.folder)] = progress
            tick(progress.share)

        try:
            plan = _plan(asked.network)
            with compute.noted(("gallery.build", asked.network.digest), key):
                return memory.retry_after_eviction(
                    lambda: build(asked.network, asked.collection.source, asked.sites, asked.folder, plan, watch)
                )
        finally:
            _told().pop(str(asked.folder), None)

    key, stamp, began = ("gallery.build", str(asked.folder)), asked.stamp, time.monotonic()
    device = str(asked.network.device)
    with compute.office().waiting(key, work, device, state.person()) as begun:
        with st.container(horizontal=True, vertical_alignment="center", key="gallery_progress"):
            place = st.empty()
            st.button("Cancel", key="gallery.cancel", on_click=stop, args=(asked,))
        watching = GalleryRun(asked, begun, place, stamp, began)
        watchers = _watching().setdefault(str(asked.folder), set())
        me = state.person(), watching
        watchers.add(me)
        try:
            watching.show()
            yield watching
        finally:
            watchers.discard(me)


def words(progress: Progress | None) -> str:
    """How far a pass is, as a line."""
    if progress is None:
        return "Beginning"
    parts = [f"{progress.pictures:,} of {progress.of:,} pictures"]
    if progress.per_second:
        speed = progress.per_second
        parts.append(f"{speed:,.0f} per second" if speed >= 10 else f"{speed:.2g} per second")
    if progress.seconds_left is not None:
        parts.append(f"{messages.duration(progress.seconds_left)} left")
    if progress.unreadable:
        parts.append(f"{progress.unreadable} could not be read")
    return " · ".join(parts)
