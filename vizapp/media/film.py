"""Pictures one after the other, as a GIF, WebM or MP4 file."""

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
    """A GIF file of frames, each uint8 `[H W 3]` of one size, that repeats for ever; 256 colours in all.

    All frames share their colours, so that what does not move takes no room and is not drawn anew.

    A GIF counts time in hundredths of a second: `per_second` is rounded to what that allows, 50 at most.
    """
    _check(frames)
    some = [frames[int(n)] for n in np.linspace(0, len(frames) - 1, min(_SAMPLED, len(frames)))]
    step = max(1, min(frames[0].shape[:2]) // 64)
    colours = Image.fromarray(np.concatenate([frame[::step, ::step] for frame in some])).quantize(256)
    pictures = [Image.fromarray(frame).quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    file = BytesIO()
    each = max(20, round(100 / per_second) * 10)  # milliseconds; players take less for a mistake and go slowly
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=each, loop=0, optimize=False)
    return file.getvalue()


def to_mp4(frames: Sequence[np.ndarray], per_second: float = 12) -> bytes:
    """An MP4 file (MPEG-4 part 2) of frames, each uint8 `[H W 3]` of one size: for players; few browsers show it.

    OpenCV as it is published writes no H.264, and VP9 took it 95 s for 240 frames of 902 x 224 pixels (this: 0.4 s).
    Sides of an odd number of pixels are prolonged by one, which the format needs.

    Raises:
        VizError: this installation of OpenCV cannot write films, or there is no room for one on the disk.
    """
    return _film(frames, per_second, "mp4v", "mp4")


def to_webm(frames: Sequence[np.ndarray], per_second: float = 12) -> bytes:
    """A WebM file (VP8) of frames, each uint8 `[H W 3]` of one size: for browsers, all of which show it.

    Takes four times as long as MP4. Sides are prolonged as there.

    Raises:
        VizError: this installation of OpenCV cannot write films, or there is no room for one on the disk.
    """
    return _film(frames, per_second, "VP80", "webm")


def _film(frames: Sequence[np.ndarray], per_second: float, codec: str, ending: str) -> bytes:
    _check(frames)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _written(frames, per_second, codec, Path(folder) / f"film.{ending}")
    except OSError as error:
        raise VizError(
            f"The film cannot be written on this machine: {error.strerror or error}.", code="film-not-written"
        ) from None


def _written(frames: Sequence[np.ndarray], per_second: float, codec: str, path: Path) -> bytes:
    """The film's bytes, written to `path` and read again: OpenCV does not tell when the disk is full."""
    height, width = (side + side % 2 for side in frames[0].shape[:2])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), per_second, (width, height))
    try:
        if not writer.isOpened():
            raise VizError(
                f"OpenCV cannot write {path.suffix} films on this machine; take the GIF.", code="film-not-written"
            )
        for frame in frames:
            around = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
            writer.write(cv2.cvtColor(np.pad(frame, around, "edge"), cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    reader = cv2.VideoCapture(str(path))
    there = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    reader.release()
    if there != len(frames):
        raise VizError(
            f"The film could not be written whole ({there} of {len(frames)} frames): is the disk full?",
            code="film-not-written",
        )
    return path.read_bytes()


def _check(frames: Sequence[np.ndarray]) -> None:
    shapes = {(frame.shape, str(frame.dtype)) for frame in frames}
    shape, kind = next(iter(shapes), ((), ""))
    if len(shapes) != 1 or kind != "uint8" or len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"a film is made of uint8 [H W 3] of one size, not {sorted(map(str, shapes))}")
