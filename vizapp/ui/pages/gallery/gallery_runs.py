"""Building galleries from the page: started by a click, watched by a page that stays usable, resumable at any time.

The pass runs in the job service while a page watches it; sessions that want the same gallery share one pass. Checkpoints
are on disk, so leaving the page or stopping the app loses a few batches at most.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.gallery.build import GalleryOptions, Progress, build, open_partial_gallery
from vizapp.gallery.checkpoint import NAME
from vizapp.gallery.reader import Gallery
from vizapp.gallery.store import MANIFEST, WORK, read_manifest
from vizapp.media.source import file_stamp
from vizapp.methods.base import Question
from vizapp.methods.gallery import GalleryParams, place_for, plan_of
from vizapp.service.jobs import Report
from vizapp.service.lru_cache import ByteBoundedCache, Key
from vizapp.service.runs import RunRequest
from vizapp.ui.inputs.datasets import Collection, galleries_of, kind
from vizapp.ui.session import access, compute, memory, messages, progress, state
from vizapp.ui.session.progress import RunView
from vizapp.zoo.network import Network

EVERY = 16  # batches between checkpoints
_CAPACITY = 384 * 2**20  # bytes of galleries kept for all sessions together
LOOK = 2.0  # least seconds between two updates of the page


@dataclass(frozen=True, eq=False)
class GalleryRequest:
    """A requested gallery, built or not: its inputs and its folder."""

    network: Network
    collection: Collection
    sites: tuple[Site, ...]
    folder: Path

    @property
    def key(self) -> Key:
        """The key of its run."""
        return ("gallery.build", str(self.folder))

    @property
    def stamp(self) -> str:
        """Changes when there is more to show; empty if there is nothing."""
        stamps = [file_stamp(self.folder / place) for place in (Path(WORK) / NAME, MANIFEST)]
        return next((stamp for stamp in stamps if stamp != "gone"), "")

    @property
    def is_whole(self) -> bool:
        """Whether the pass is complete."""
        return read_manifest(self.folder) is not None


def gallery_request(network: Network, collection: Collection, sites: tuple[Site, ...]) -> GalleryRequest:
    """The gallery of these layers over these pictures, in the same folder as on the command line."""
    names = tuple(site.name for site in sites)
    folder = compute.remembered(
        compute.key_of("gallery.place", network, text=collection.text, listing=collection.listing, sites=names),
        lambda: place_for(network, Question(network, folder=collection.source), sites, _plan(network)),
        size=lambda path: 1000,
    )
    if access.shared() and kind(collection.text) == "upload":  # deleted with the upload, and private
        folder = galleries_of(collection.source.root) / folder.name
    return GalleryRequest(network, collection, sites, folder)


def _plan(network: Network) -> GalleryOptions:
    return plan_of(network, GalleryParams(every=EVERY))


def forget(asked: GalleryRequest) -> None:
    """Delete a damaged gallery and build it again."""
    shutil.rmtree(asked.folder, ignore_errors=True)
    progress.start(asked.key)


def load_known(asked: GalleryRequest) -> Gallery | None:
    """The gallery as far as it is built; None if there is nothing, or a message explains why."""
    stamp = asked.stamp
    if not stamp:
        return None
    return compute.compute(
        ("gallery", str(asked.folder), stamp),
        lambda tick: open_partial_gallery(asked.network, asked.collection.source, asked.sites, asked.folder),
        size=lambda found: 0 if found is None else 4000 * len(found.units),
        title="Reading the gallery",
        shelf=_galleries(),
    )


@st.cache_resource(show_spinner=False)
def _galleries() -> ByteBoundedCache[Gallery | None]:
    """The galleries opened last, of all sessions; each checkpoint has its own entry."""
    return ByteBoundedCache(_CAPACITY)


def progress_of_others(asked: GalleryRequest) -> Progress | None:
    """The progress of a pass that other sessions watch now; None if there is none."""
    job = progress.job_runner().find(asked.key)
    found: Progress | None = job.partial if job is not None and job.is_watched_by_others(state.person()) else None
    return found


def other_weights(asked: GalleryRequest) -> str:
    """A sentence if there is a gallery of these pictures made with other weights of this network; else nothing."""
    for place in asked.folder.parent.glob(f"*/{MANIFEST}"):
        manifest = read_manifest(place.parent)
        if manifest is None or manifest["data"]["listing"] != asked.collection.listing:
            continue
        network = manifest["network"]
        if network["name"] == asked.network.name and network["digest"] != asked.network.digest:
            return "There is a gallery made with other weights of this network; to see it, choose them in the sidebar."
    return ""


def follow(asked: GalleryRequest, draw: Callable[[], None]) -> None:
    """Run the pass, draw its progress and `draw`, and rerun the page when there is more to show. Called last on the page."""
    network, stamp = asked.network, asked.stamp

    def run(report: Report) -> str:
        def go_on() -> str:
            return build(
                network, asked.collection.source, asked.sites, asked.folder, _plan(network), lambda now: report(now.share, now)
            )  # fmt: skip

        with compute.logged(("gallery.build", network.digest), asked.key):
            return memory.retry_after_eviction(go_on)

    def has_more() -> bool:
        """At once for the first units, later at intervals."""
        return (not stamp or watched.seconds > LOOK) and asked.stamp != stamp

    with progress.watch([RunRequest(asked.key, run, str(network.device))]) as watched:
        with st.container(horizontal=True, vertical_alignment="center", key="gallery_progress"):
            view = RunView(watched, [asked.key], "Building", "gallery.cancel", lambda now: words(now.partial))
        draw()
        if not view.wait(has_more):
            st.rerun()
        state.withdraw("run", asked.key)  # also after an error, so that it does not restart by itself
        for error in watched.refusals().values():
            view.clear()
            messages.warn(str(error))
            return
        (note,) = (job.future.result() for job in watched.jobs)
        if "damaged" in note or "earlier version" in note:
            state.note(note)
        st.rerun()


def words(progress: Progress | None) -> str:
    """The progress of a pass as a line."""
    if progress is None:
        return "starting"
    parts = [f"{progress.pictures:,} of {progress.of:,} photos"]
    if progress.per_second:
        speed = progress.per_second
        parts.append(f"{speed:,.0f} per second" if speed >= 10 else f"{speed:.2g} per second")
    if progress.seconds_left is not None:
        parts.append(f"{messages.duration(progress.seconds_left)} left")
    if progress.unreadable:
        parts.append(f"{progress.unreadable} could not be read")
    return " · ".join(parts)
