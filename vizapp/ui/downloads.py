"""Buttons that give away what is shown: a PNG per picture, the raw numbers as NPZ. Encoded when they are clicked."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from vizapp.media.drawing import to_png

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
    """Something to give away: what its button says, its name and type, and what makes its bytes."""

    title: str
    name: str
    mime: str
    make: Callable[[], bytes]


def documents(name: str, texts: Mapping[str, str]) -> list[File]:
    """Texts of an answer by file name, such as `table.csv`; `name` begins the names that they are given away by."""
    kinds = {"csv": ("Table CSV", "text/csv"), "md": ("Table Markdown", "text/markdown")}
    return [
        File(kinds[ending][0], f"{file_name(name)}.{ending}", kinds[ending][1], text.encode)
        for ending, text in ((title.rpartition(".")[2], text) for title, text in texts.items())
    ]


def buttons(key: str, files: Sequence[File]) -> None:
    """A row of buttons. `key` begins the widget keys."""
    with st.container(horizontal=True, key=f"{key}.downloads".replace(".", "_"), gap="small"):
        for file in files:
            st.download_button(
                file.title, file.make, file.name, file.mime, key=f"{key}.{file.title}", on_click="ignore",
                type="tertiary", icon=":material/download:",
            )  # fmt: skip


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
