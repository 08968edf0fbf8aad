"""Collections of pictures: bundled, a folder of this machine, an uploaded zip file, a torchvision data set."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from vizapp.errors import VizError
from vizapp.media import folder
from vizapp.media.archive import close_archives
from vizapp.media.datasets import is_downloaded
from vizapp.media.source import Source, file_stamp
from vizapp.media.sources import open_folder
from vizapp.service import lru_cache
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import ByteBoundedCache
from vizapp.settings import settings
from vizapp.ui.inputs import images, uploads
from vizapp.ui.session import access, compute, state
from vizapp.zoo.network import Network

_CAPACITY = 512 * 2**20  # bytes of listings, approximately
_LEFTOVER = 172_800.0  # seconds without use after which an upload is deleted, because its session must have ended
_AGAIN = 10.0  # a folder is looked at again after that many times as long as that takes
_DATASET, _UPLOAD = "torchvision/", re.compile(r"upload/([0-9a-f]{32})")


@dataclass(frozen=True, eq=False)
class Collection:
    """A listed collection. `text` is its name in an address, `listing` the digest of the list."""

    text: str
    source: Source
    listing: str

    @property
    def title(self) -> str:
        """The name to show."""
        return {"samples": "sample crops", "upload": "the uploaded zip file"}.get(kind(self.text), self.source.name)


def kind(text: str) -> str:
    """Which source of pictures an address means: `samples`, `digits`, `torchvision/NAME:part`, `upload/DIGEST`, or a path."""
    if text in ("samples", "digits"):
        return text
    if text.strip().lower().startswith(_DATASET):  # as `open_folder` parses it
        return "dataset"
    return "upload" if _UPLOAD.fullmatch(text) else "folder"


def chosen_text(network: Network) -> str:
    """The name of the chosen collection in an address; by default digits for grey networks, else sample crops."""
    return state.get(state.DATA) or ("digits" if network.input_size[0] == 1 else "samples")


def available_collections(network: Network) -> list[Collection]:
    """The collections that need no further action: the folder in use, the chosen one, the bundled one."""
    bundled = "digits" if network.input_size[0] == 1 else "samples"
    origin = images.origin()
    own = [str(origin[1])] if origin[0] == "folder" else []
    texts = [
        t
        for t in (*own, chosen_text(network), bundled)
        if kind(t) != "dataset" or state.is_wished("download", t) or is_downloaded(t)
    ]
    found = [list_collection(text) for text in dict.fromkeys(texts)]
    return [one for one in found if one is not None]


def name_and_part(text: str) -> tuple[str, str]:
    """Name and part of a torchvision data set: ("MNIST", "train") for `torchvision/MNIST:train`."""
    name, _, part = text.strip().partition("/")[2].partition(":")
    return name, part


def text_of(name: str, part: str) -> str:
    """The name of a part of a torchvision data set in an address."""
    return f"{_DATASET}{name}" + (":train" if part == "train" else "")


def keep(content: bytes) -> str:
    """Keep an uploaded zip file; returns its name in an address.

    Raises:
        VizError: it is not a zip file of pictures.
    """
    archive = open_folder(content).root
    if access.shared():
        _remove_leftovers(archive.parent)
        uploads.register(("archive", str(archive)), len(content), lambda: forget(archive))
    return f"upload/{archive.stem}"


def list_collection(text: str) -> Collection | None:
    """The collection, listed again when photos of its folder were added, removed or replaced, or its file, or on request."""
    stamp = ""
    if kind(text) == "folder":
        with contextlib.suppress(VizError):  # raised again below, when it is opened
            stamp = _folder_stamp(access.allowed(text))

    def work(tick: Tick) -> Collection:
        source = _open(text, tick)
        return Collection(text, source, source.listing_digest(tick))

    return compute.compute(
        ("collection", text, stamp, str(state.load(state.READ, 0))), work,
        size=lambda found: 300 * len(found.source), title="Listing the photos", shelf=_collections(),
    )  # fmt: skip


def origin_of(collection: Collection, number: int) -> images.Origin | None:
    """Where a photo is from: an upload, unless people may name its folder. None if cancelled; VizError if unreadable."""
    path = collection.source.path(number)
    if kind(collection.text) in ("folder", "samples", "digits") and access.names_folders():
        return ("folder", collection.text, path)
    return images.add_from_collection(collection.source.open(number), path.replace("/", " "))


def _folder_stamp(path: Path) -> str:
    """The date of a file, or what changes with the photos of a folder: see `folder_stamp`."""
    if not path.is_dir():
        return file_stamp(path)
    stamps: dict[str, tuple[float, str, int]] = state.load(state.STAMPS, {})
    start, (until, stamp, most) = time.monotonic(), stamps.get(str(path), (0.0, "", folder.MOST))
    if start >= until:
        stamp, most = folder.folder_stamp(path, access.root(), most)
        now = time.monotonic()
        state.save(state.STAMPS, stamps | {str(path): (now + _AGAIN * (now - start), stamp, most)})
    return stamp


@st.cache_resource(show_spinner=False)
def _collections() -> ByteBoundedCache[Collection]:
    """The listings of all sessions."""
    return ByteBoundedCache(_CAPACITY)


def read_again() -> None:
    """List the pictures again."""
    state.save(state.READ, state.load(state.READ, 0) + 1)


def _open(text: str, tick: Tick) -> Source:
    if kind(text) == "folder":
        return open_folder(access.allowed(text), access.root(), tick)
    match = _UPLOAD.fullmatch(text)
    if match is None:
        return open_folder(text)
    kept = settings().cache / "uploads" / f"{match[1]}.zip"
    if not kept.exists():
        raise VizError("The uploaded zip file of this link is no longer kept. Upload it again.", code="upload-expired")
    with contextlib.suppress(OSError):
        os.utime(kept)  # marks it as in use
    return open_folder(kept)


def galleries_of(archive: Path) -> Path:
    """On a shared server, the folder of the galleries of an uploaded zip file; it is deleted with the file."""
    return archive.with_suffix(".galleries")


def forget(archive: Path) -> None:
    """Delete an uploaded zip file and its galleries, and everything cached about it."""
    archive.unlink(missing_ok=True)
    shutil.rmtree(galleries_of(archive), ignore_errors=True)
    close_archives()
    lru_cache.forget(archive.stem)  # the file's digest, part of its address and of the path of its galleries


def _remove_leftovers(folder: Path) -> None:
    """Delete uploads and galleries of sessions that were open when a server stopped."""
    for archive in folder.glob("*.zip"):
        with contextlib.suppress(OSError):  # another replica may do the same
            if time.time() - archive.stat().st_mtime > _LEFTOVER:
                shutil.rmtree(galleries_of(archive), ignore_errors=True)
                archive.unlink()
