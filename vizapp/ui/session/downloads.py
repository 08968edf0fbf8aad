"""Download buttons for what is shown: a PNG per picture, the raw numbers as NPZ. Files are encoded when clicked.

Streamlit's own download button loses a file made on click if scripts of other sessions end between the click and the
browser's request for the file. Here the click is remembered, and the next run of the page sends the file.
"""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import streamlit as st

from vizapp.errors import VizError
from vizapp.media.drawing import to_png
from vizapp.media.formats import picture_suffixes
from vizapp.ui.session import state
from vizapp.ui.widgets.components import component

KEPT = 10.0  # seconds in which every run sends the file again, because an interrupted run may not reach the browser
LARGEST = 180 * 2**20  # bytes; Streamlit sends at most 200 MB at once
_LONGEST = 60  # characters of each part of a file's name


def file_name(*parts: str) -> str:
    """Parts joined to a file name without extension: ASCII letters, digits, `-`, `_` and `.`, each part shortened.

    A photo's name loses its extension.
    """
    names = [Path(part).stem if Path(part).suffix.lower() in picture_suffixes() else part for part in parts]
    joined = "-".join(name[:_LONGEST] for name in names)
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in joined).strip("-.") or "vizapp"


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as the bytes of a compressed .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@dataclass(frozen=True)
class File:
    """A file to download: text of the button, file name, MIME type, and a function that makes the bytes."""

    title: str
    name: str
    mime: str
    make: Callable[[], bytes]


def documents(name: str, texts: Mapping[str, str]) -> list[File]:
    """Files for the documents of a result, which come by file name such as `table.csv`; `name` begins the new names."""
    kinds = {"csv": ("Table CSV", "text/csv"), "md": ("Table Markdown", "text/markdown")}
    return [
        File(kinds[ending][0], f"{file_name(name)}.{ending}", kinds[ending][1], text.encode)
        for ending, text in ((title.rpartition(".")[2], text) for title, text in texts.items())
    ]


@dataclass
class PendingDownload:
    """A file whose button was clicked: an ID of the click, and the bytes for the browser once they are made."""

    click: str
    file: File
    packed: bytes = b""
    made: float = 0.0


def buttons(key: str, files: Sequence[File]) -> None:
    """Draw a row of buttons. `key` is the prefix of the widget keys. Not in a fragment: a click there does not run the page.

    The keys end with a fingerprint of what is shown. A click that arrives after the page has changed downloads what the
    user saw, or nothing.
    """
    mark = state.mark()
    with st.container(horizontal=True, key=f"{key}.downloads".replace(".", "_"), gap="small"):
        for file in files:
            st.button(
                file.title, key=f"{key}.{file.title}.{mark}", on_click=_ask, args=(file,), type="tertiary",
                icon=":material/download:",
            )  # fmt: skip


def _asked() -> list[PendingDownload]:
    return list(state.load(state.GIVEN, []))


def _ask(file: File) -> None:
    state.save(state.GIVEN, [*_asked(), PendingDownload(secrets.token_hex(8), file)])


def deliver(key: str = "given") -> None:
    """Send the clicked files to the browser, which saves each of them once. `key`: prefix of the widget keys.

    Raises:
        VizError: a file is too large, or its data are no longer there.
    """
    now = time.monotonic()
    asked = [given for given in _asked() if not given.packed or now - given.made < KEPT]
    state.save(state.GIVEN, [given for given in asked if given.packed])  # no second attempt for a file that fails
    for given in asked:
        if not given.packed:
            given.packed, given.made = _packed(given), time.monotonic()
            state.save(state.GIVEN, [*_asked(), given])
    with st.container(
        key=key.replace(".", "_")
    ):  # in every run, so that what follows keeps its place and is not drawn again
        for given in asked:
            component("given")(key=f"{key}.{given.click}", data=given.packed)


def _packed(given: PendingDownload) -> bytes:
    """A line of JSON that describes the file, followed by the file."""
    content = given.file.make()
    if len(content) > LARGEST:
        raise VizError(
            f"{given.file.name} would be {len(content) / 2**20:.0f} MB; downloads are limited to {LARGEST / 2**20:.0f} MB. "
            "`python -m vizapp … --out FOLDER` writes files of any size.",
            code="download-too-large",
        )
    told = {"click": given.click, "name": given.file.name, "type": given.file.mime}
    return json.dumps(told).encode() + b"\n" + content


def row(
    key: str, name: str, pictures: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], files: Sequence[File] = (),
) -> None:  # fmt: skip
    """Draw a row of buttons: a PNG per picture, the arrays, further files.

    Args:
        key: Prefix of the widget keys.
        name: Prefix of the file names of pictures and arrays.
        pictures: uint8 `[H W 3]` by title.
        arrays: Saved as one NPZ file.
        files: Further files.
    """
    given = [
        File(f"{title} PNG", file_name(name, title.lower()) + ".png", "image/png", partial(to_png, pixels))
        for title, pixels in pictures.items()
    ]
    given.append(File("Arrays NPZ", file_name(name) + ".npz", "application/octet-stream", partial(npz, arrays)))
    buttons(key, [*given, *files])
