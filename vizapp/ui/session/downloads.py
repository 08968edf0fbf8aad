"""Download buttons for what is shown: a PNG per picture, the raw numbers as NPZ. Files are encoded when clicked.

Streamlit's own button forgets a file that is made when it is clicked as soon as scripts of others end between the click
and the browser's request for it. Here the click itself asks for the file, and the page's next run sends it.
"""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from vizapp.errors import VizError
from vizapp.media.drawing import to_png
from vizapp.ui.session import state
from vizapp.ui.widgets.components import component

KEPT = 10.0  # seconds in which every run sends the file again, as a run that ends early may not reach the browser
LARGEST = 180 * 2**20  # bytes; Streamlit sends no more than 200 MB at once

_LONGEST = 60  # characters of each part of a file's name


def file_name(*parts: str) -> str:
    """Parts as a file name without an ending: letters, digits, `-`, `_` and `.` alone, and not too many of them."""
    joined = "-".join(part[:_LONGEST] for part in parts)
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in joined).strip("-.") or "vizapp"


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as the bytes of a compressed .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@dataclass(frozen=True)
class File:
    """A file to download: what its button says, its name and type, and what makes its bytes."""

    title: str
    name: str
    mime: str
    make: Callable[[], bytes]


def documents(name: str, texts: Mapping[str, str]) -> list[File]:
    """Texts of an answer by file name, such as `table.csv`; `name` begins their file names."""
    kinds = {"csv": ("Table CSV", "text/csv"), "md": ("Table Markdown", "text/markdown")}
    return [
        File(kinds[ending][0], f"{file_name(name)}.{ending}", kinds[ending][1], text.encode)
        for ending, text in ((title.rpartition(".")[2], text) for title, text in texts.items())
    ]


@dataclass
class PendingDownload:
    """A file that was clicked: a name for the click, and its bytes as the browser gets them, once they are made."""

    click: str
    file: File
    packed: bytes = b""
    made: float = 0.0


def buttons(key: str, files: Sequence[File]) -> None:
    """A row of buttons. `key` begins the widget keys. Not in a fragment: a click there does not run the page.

    The keys end with a mark of what is shown: a click that was on its way while the page changed downloads what the person
    saw or nothing, never what has taken its place.
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


def deliver() -> None:
    """Send the browser what was clicked. It keeps each file once.

    Raises:
        VizError: the file is larger than can be sent, or what it is made of has gone.
    """
    now = time.monotonic()
    asked = [given for given in _asked() if not given.packed or now - given.made < KEPT]
    state.save(state.GIVEN, [given for given in asked if given.packed])  # what fails is not tried again
    for given in asked:
        if not given.packed:
            given.packed, given.made = _packed(given), time.monotonic()
            state.save(state.GIVEN, [*_asked(), given])
    with st.container(key="given"):  # in every run: else all that follows would move by one place, and be drawn anew
        for given in asked:
            component("given")(key=f"given.{given.click}", data=given.packed)


def _packed(given: PendingDownload) -> bytes:
    """A line of JSON about the file, and the file."""
    content = given.file.make()
    if len(content) > LARGEST:
        raise VizError(
            f"{given.file.name} would be {len(content) / 2**20:.0f} MB, and a browser is sent {LARGEST / 2**20:.0f} at most. "
            "`python -m vizapp … --out FOLDER` writes files of any size.",
            code="download-too-large",
        )
    told = {"click": given.click, "name": given.file.name, "type": given.file.mime}
    return json.dumps(told).encode() + b"\n" + content


def row(
    key: str, name: str, pictures: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], files: Sequence[File] = (),
) -> None:  # fmt: skip
    """A row of buttons: a PNG per picture, the arrays, further files.

    `key` begins the widget keys, `name` the names of the pictures and the arrays.
    """
    given = [
        File(f"{title} PNG", file_name(name, title.lower()) + ".png", "image/png", partial(to_png, pixels))
        for title, pixels in pictures.items()
    ]
    given.append(File("Arrays NPZ", file_name(name) + ".npz", "application/octet-stream", partial(npz, arrays)))
    buttons(key, [*given, *files])
