"""Building galleries from the page: started by a click, watched by a page that stays usable, resumable at any time.

The pass runs in the job service while a page watches it; sessions that want the same gallery share one pass. Checkpoints
are on disk, so leaving the page or stopping the app loses a few batches at most.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import streamlit as st

from vizapp.gallery.build import build
from vizapp.gallery.folder_pass import Progress
from vizapp.gallery.store import MANIFEST, read_manifest
from vizapp.service.jobs import Report
from vizapp.service.runs import RunRequest
from vizapp.ui.inputs.galleries import GalleryRequest, plan
from vizapp.ui.session import compute, memory, messages, progress, state
from vizapp.ui.session.progress import RunView

LOOK = 2.0  # least seconds between two updates of the page


def forget(asked: GalleryRequest) -> None:
    """Delete a damaged gallery and build it again."""
    shutil.rmtree(asked.folder, ignore_errors=True)
    progress.start(asked.key)


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
        own = {asked.network.digest, asked.network.clean.digest}
        if network["name"] == asked.network.name and network["digest"] not in own:
            return "There is a gallery made with other weights of this network; to see it, choose them in the sidebar."
    return ""


def follow(asked: GalleryRequest, draw: Callable[[], None]) -> None:
    """Run the pass, draw its progress and `draw`, and rerun the page when there is more to show. Called last on the page."""
    network, stamp = asked.network, asked.stamp

    def run(report: Report) -> str:
        def go_on() -> str:
            return build(
                network, asked.collection.source, asked.sites, asked.folder, plan(network), lambda now: report(now.share, now)
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
