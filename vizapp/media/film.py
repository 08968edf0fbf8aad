"""Animations of pictures, as GIF and WebM files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vizapp.errors import VizError

_SAMPLED = 16  # frames that the colours of a GIF are taken from, evenly spread


def to_gif(frames: Sequence[np.ndarray], per_second: float = 12) -> bytes:
    """A GIF file of frames, each uint8 `[H W 3]` of one size, that loops; 256 colours in all.

    All frames share one palette, so that unchanged pixels take no space. GIF counts time in hundredths of a second:
    `per_second` is rounded to that, and is at most 50.
    """
    _check(frames)
    some = [frames[int(n)] for n in np.linspace(0, len(frames) - 1, min(_SAMPLED, len(frames)))]
    step = max(1, min(frames[0].shape[:2]) // 64)
    colours = Image.fromarray(np.concatenate([frame[::step, ::step] for frame in some])).quantize(256)
    pictures = [Image.fromarray(frame).quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    file = BytesIO()
    each = max(20, round(100 / per_second) * 10)  # ms; players treat shorter delays as invalid and take 100 ms
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=each, loop=0, optimize=False)
    return file.getvalue()


def to_webm(frames: Sequence[np.ndarray], per_second: float = 12) -> bytes:
    """A WebM file (VP8) of frames, each uint8 `[H W 3]` of one size: all browsers and most players show it.

    OpenCV as it is published writes no H.264, and its VP9 is two hundred times as slow. Sides of an odd number of pixels
    are extended by one, which the format needs.

    Raises:
        VizError: this installation of OpenCV cannot write films, or the disk is full.
    """
    _check(frames)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _write(frames, per_second, Path(folder) / "film.webm")
    except OSError as error:
        raise VizError(
            f"The film cannot be written on this machine: {error.strerror or error}.", code="film-not-written"
        ) from None


def _write(frames: Sequence[np.ndarray], per_second: float, path: Path) -> bytes:
    """The film's bytes, written to `path` and read again: OpenCV reports no error when the disk is full."""
    height, width = (side + side % 2 for side in frames[0].shape[:2])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), per_second, (width, height))
    try:
        if not writer.isOpened():
            raise VizError("OpenCV cannot write WebM films on this machine; take the GIF.", code="film-not-written")
        for frame in frames:
            around = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
            writer.write(cv2.cvtColor(np.pad(frame, around, "edge"), cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    reader = cv2.VideoCapture(str(path))
    count = 0
    while reader.grab():  # WebM's own count of frames is an estimate
        count += 1
    reader.release()
    if count != len(frames):
        raise VizError(
            f"Only {count} of {len(frames)} frames of the film could be written; is the disk full?",
            code="film-not-written",
        )
    return path.read_bytes()


def _check(frames: Sequence[np.ndarray]) -> None:
    shapes = {(frame.shape, str(frame.dtype)) for frame in frames}
    shape, kind = next(iter(shapes), ((), ""))
    if len(shapes) != 1 or kind != "uint8" or len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"a film is made of uint8 [H W 3] of one size, not {sorted(map(str, shapes))}")
