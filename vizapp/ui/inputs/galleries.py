"""Galleries on disk: of a network over a collection, opened as far as they are built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.gallery.build import GalleryOptions, open_partial_gallery
from vizapp.gallery.checkpoint import NAME
from vizapp.gallery.reader import Gallery
from vizapp.gallery.store import MANIFEST, WORK, read_manifest
from vizapp.media.source import file_stamp
from vizapp.methods.base import Question
from vizapp.methods.gallery import GalleryParams, place_for, plan_of
from vizapp.service.lru_cache import ByteBoundedCache, Key
from vizapp.ui.inputs.datasets import Collection, galleries_of, kind
from vizapp.ui.session import access, compute
from vizapp.zoo.network import Network

EVERY = 16  # batches between checkpoints
CAPACITY = 384 * 2**20  # bytes of galleries kept for all sessions together


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
        lambda: place_for(network, Question(network, folder=collection.source), sites, plan(network)),
        size=lambda path: 1000,
    )
    if access.shared() and kind(collection.text) == "upload":  # deleted with the upload, and private
        folder = galleries_of(collection.source.root) / folder.name
    return GalleryRequest(network, collection, sites, folder)


def plan(network: Network) -> GalleryOptions:
    """How galleries are built from the app."""
    return plan_of(network, GalleryParams(every=EVERY))


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
        shelf=galleries(),
    )


@st.cache_resource(show_spinner=False)
def galleries() -> ByteBoundedCache[Gallery | None]:
    """The galleries opened last, of all sessions; each checkpoint has its own entry."""
    return ByteBoundedCache(CAPACITY)
