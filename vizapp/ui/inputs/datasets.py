"""The pictures that a gallery is of: bundled ones, a folder of this machine, an uploaded zip file, a data set."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from vizapp.errors import VizError
from vizapp.media.archive import forget_archives
from vizapp.media.datasets import NAMES, is_here
from vizapp.media.source import file_stamp
from vizapp.media.sources import open_folder
from vizapp.service import lru_cache
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import ByteBoundedCache
from vizapp.settings import settings
from vizapp.ui.inputs import images, uploads
from vizapp.ui.session import access, compute, messages, state

if TYPE_CHECKING:
    from vizapp.media.source import Source
    from vizapp.zoo.network import Network

KINDS = {"samples": "Samples", "digits": "Digits", "folder": "Folder", "upload": "Upload", "dataset": "Data set"}
_CAPACITY = 512 * 2**20  # bytes of lists, about
_LEFTOVER = 172_800.0  # seconds after which an upload that nobody listed belongs to a session that ended unnoticed
_DATASET, _UPLOAD = "torchvision/", re.compile(r"upload/([0-9a-f]{32})")


@dataclass(frozen=True, eq=False)
class Collection:
    """Pictures, listed. `text` is what an address calls them, `listing` the digest of the list."""

    text: str
    source: Source
    listing: str

    @property
    def title(self) -> str:
        """A name for showing."""
        return {"samples": "sample crops", "upload": "the uploaded zip file"}.get(kind(self.text), self.source.name)


def kind(text: str) -> str:
    """Which of the `KINDS` an address means: `samples`, `digits`, `torchvision/NAME:part`, `upload/DIGEST`, or a path."""
    if text in ("samples", "digits"):
        return text
    if text.strip().lower().startswith(_DATASET):  # as `open_folder` reads it
        return "dataset"
    return "upload" if _UPLOAD.fullmatch(text) else "folder"


def chosen(network: Network) -> str:
    """What an address calls the chosen pictures; digits for networks of grey pictures and sample crops for others."""
    return state.get(state.DATA) or ("digits" if network.input_size[0] == 1 else "samples")


def choose(network: Network) -> Collection | None:
    """Draw the choice, and list the chosen pictures; None when a sentence in its place says what is missing."""
    text = chosen(network)
    shown = st.session_state.get(state.KIND) or kind(text)
    if shown == "folder":
        access.root()  # tells, in server mode without one, that there are no folders to name
    st.session_state["gallery.kind"] = shown
    kinds = [name for name in KINDS if name != "folder" or access.names_folders()]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="gallery_data"):
        st.segmented_control(
            "Data", kinds, format_func=KINDS.__getitem__, required=True, label_visibility="collapsed",
            key="gallery.kind", on_change=_take_kind,
        )  # fmt: skip
        more = {"folder": _folder, "upload": _upload, "dataset": _dataset}.get(shown)
        if more is not None:
            more(text if kind(text) == shown else "")
    if shown != kind(text):
        if shown == "dataset":
            messages.info("Choose one and open it. It is downloaded into the cache folder if it is not there.")
        return None
    if shown == "dataset" and not _may_be_opened(text):
        return None
    return _listed(text)


def at_hand(network: Network) -> list[Collection]:
    """The pictures that are there without asking for anything: those of galleries, the folder in use, the bundled ones."""
    bundled = "digits" if network.input_size[0] == 1 else "samples"
    origin = images.origin()
    own = [str(origin[1])] if origin[0] == "folder" else []
    texts = [
        t
        for t in (*own, chosen(network), bundled)
        if kind(t) != "dataset" or state.is_wished("download", t) or is_here(t)
    ]
    found = [_listed(text) for text in dict.fromkeys(texts)]
    return [one for one in found if one is not None]


def _may_be_opened(text: str) -> bool:
    """Whether the data set is here or the person wants it downloaded; a link alone downloads nothing."""
    if state.is_wished("download", text) or is_here(text):
        state.wish("download", text)
        return True
    messages.info("This data set is not on this machine yet. It is downloaded once, into the cache folder.")
    st.button(
        "Download", key="gallery.download", type="primary", icon=":material/download:", on_click=_take_dataset,
        args=(text,),
    )  # fmt: skip
    return False


def _take_dataset(text: str) -> None:
    """The person opens a data set, and has it downloaded if it is not there."""
    state.wish("download", text)
    _take(text)


def _take_kind() -> None:
    value = st.session_state["gallery.kind"]
    if value in ("samples", "digits"):
        _take(value)
    else:
        st.session_state[state.KIND] = value


def _take(text: str) -> None:
    st.session_state.pop(state.KIND, None)
    state.put(state.DATA, text)


def _folder(text: str) -> None:
    key = "gallery.folder"
    if key not in st.session_state:
        st.session_state[key] = text or st.session_state.get("sidebar.folder", "")
    elif text and st.session_state.get(state.KIND) is None:
        st.session_state[key] = text
    st.text_input(
        "Folder", key=key, label_visibility="collapsed", width=420, on_change=_take_path, args=(key,),
        placeholder=f"Path of a folder, a zip file or a CSV file {access.place()}",
    )  # fmt: skip
    if not text and st.session_state[key]:
        st.button("Open", key="gallery.open_folder", on_click=_take_path, args=(key,))


def _take_path(key: str) -> None:
    path = st.session_state[key].strip()
    if path:
        _take(path)


def _upload(text: str) -> None:
    megabytes = settings().upload_mb
    file = st.file_uploader(
        f"A zip file of pictures, at most {megabytes} MB; its folders are classes", key="gallery.upload",
        max_upload_size=megabytes, width=420,
    )  # fmt: skip
    if file is None or (text and st.session_state.get(state.UPLOAD) == file.file_id):
        return

    try:
        kept = open_folder(file.getvalue())
    except VizError as error:
        messages.warn(str(error))
        return
    st.session_state[state.UPLOAD] = file.file_id
    if access.shared():
        _remove_leftovers(kept.root.parent)
        uploads.register(("archive", str(kept.root)), file.size, lambda: forget(kept.root))
    _take(f"upload/{kept.root.stem}")
    st.rerun()


def _dataset(text: str) -> None:
    name, _, part = text.strip().partition("/")[2].partition(":")
    names, parts = list(NAMES), ["test", "train"]
    for key, value, known in (("gallery.dataset", name, names), ("gallery.dataset_part", part, parts)):
        if key not in st.session_state:
            st.session_state[key] = value if value in known else known[0]
    picked = st.selectbox("Data set", names, label_visibility="collapsed", width=200, key="gallery.dataset")
    which = st.selectbox("Part", parts, label_visibility="collapsed", width=100, key="gallery.dataset_part")
    wanted = f"{_DATASET}{picked}" + (":train" if which == "train" else "")
    if wanted != text:
        st.button(
            "Open", key="gallery.open_dataset", on_click=_take_dataset, args=(wanted,),
            help="Downloaded into the cache folder if it is not there.",
        )  # fmt: skip


def _listed(text: str) -> Collection | None:
    """The pictures; read again when their folder or file has another date, or when the person asks for it."""
    stamp = ""
    if kind(text) == "folder":
        with contextlib.suppress(VizError):  # told below, when it is opened
            stamp = file_stamp(access.allowed(text))

    def work(tick: Tick) -> Collection:
        source = _open(text, tick)
        return Collection(text, source, source.listing(tick))

    return compute.compute(
        ("collection", text, stamp, str(st.session_state.get(state.READ, 0))), work,
        size=lambda found: 300 * len(found.source), title="Listing the pictures", shelf=_collections(),
    )  # fmt: skip


@st.cache_resource(show_spinner=False)
def _collections() -> ByteBoundedCache[Collection]:
    """The lists of pictures of all sessions."""
    return ByteBoundedCache(_CAPACITY)


def read_again() -> None:
    """Have the pictures listed anew."""
    st.session_state[state.READ] = st.session_state.get(state.READ, 0) + 1


def _open(text: str, tick: Tick) -> Source:
    if kind(text) == "folder":
        return open_folder(access.allowed(text), access.root(), tick)
    match = _UPLOAD.fullmatch(text)
    if match is None:
        return open_folder(text)
    kept = settings().cache / "uploads" / f"{match[1]}.zip"
    if not kept.exists():
        raise VizError("The uploaded zip file of this link is no longer kept; upload it again.")
    with contextlib.suppress(OSError):
        os.utime(kept)  # somebody still looks at it
    return open_folder(kept)


def galleries_of(archive: Path) -> Path:
    """The folder that holds the galleries of an uploaded zip file on a server for others: it goes with the file."""
    return archive.with_suffix(".galleries")


def forget(archive: Path) -> None:
    """Delete an uploaded zip file and its galleries, and drop all that was listed or computed from it."""
    archive.unlink(missing_ok=True)
    shutil.rmtree(galleries_of(archive), ignore_errors=True)
    forget_archives()
    lru_cache.forget(archive.stem)  # the digest of the file, part of its address and of its galleries' folder


def _remove_leftovers(folder: Path) -> None:
    """Uploads and their galleries that a server could not let go of, because it was ended before their sessions were."""
    for archive in folder.glob("*.zip"):
        with contextlib.suppress(OSError):  # another replica may be doing the same
            if time.time() - archive.stat().st_mtime > _LEFTOVER:
                shutil.rmtree(galleries_of(archive), ignore_errors=True)
                archive.unlink()
