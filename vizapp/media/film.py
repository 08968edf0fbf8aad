"""Animations as GIF and WebM files."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import overload

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vizapp.errors import VizError

_SAMPLED = 16  # evenly spaced frames from which the palette of a GIF is made
_MATROSKA = b"\x42\x82\x88matroska"  # the element DocType of a file's header
_WEBM = b"\x42\x82\x84webm" + b"\xec\x82\0\0"  # the same for WebM, and an empty element in the room that is left


Line = tuple[
    int, int, int, str, int, tuple[int, int, int]
]  # left, top, largest width, words, height of letters, colour


class Frames(Sequence[np.ndarray]):
    """The frames of a film, uint8 `[H W 3]` of one size, each drawn when it is read. Subclasses say how many and `draw` one."""

    @abstractmethod
    def draw(self, number: int) -> np.ndarray:
        """The frame of that number, from 0."""

    @overload
    def __getitem__(self, number: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, number: slice) -> list[np.ndarray]: ...
    def __getitem__(self, number: int | slice) -> np.ndarray | list[np.ndarray]:
        """One frame, or those of a slice."""
        chosen = range(len(self))[number]
        return self.draw(chosen) if isinstance(chosen, int) else list(map(self.draw, chosen))


def write_lines(frame: np.ndarray, lines: Sequence[Line]) -> np.ndarray:
    """A frame, uint8 `[H W 3]`, with lines of text. Lines that are too wide are cut, with "…" at their end."""
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    for left, top, width, words, size, colour in lines:
        while draw.textlength(words, _font(size)) > width:
            words = words[:-2].rstrip(" …") + "…"
        draw.text((left, top), words, colour, _font(size))
    return np.array(image)


def draw_curve(frame: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], width: int = 2) -> None:
    """Draw a line through points `[n 2]` (x, y) into a frame, uint8 `[H W 3]`; points that are not finite are left out."""
    known = points[np.isfinite(points).all(1)]
    fine = np.rint(known * 16).astype(np.int32)  # OpenCV takes sixteenths of a pixel
    cv2.polylines(frame, [fine], False, colour, width, cv2.LINE_AA, 4)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def to_gif(frames: Sequence[np.ndarray], per_second: float = 12) -> bytes:
    """A looping GIF file of frames, each uint8 `[H W 3]` of one size, with 256 colours in all.

    All frames share one palette, so that unchanged pixels take no space. GIF measures delays in hundredths of a second, so
    `per_second` is rounded, and is at most 50.
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
    """A WebM file (VP8), which all browsers and most players show, of frames, each uint8 `[H W 3]` of one size.

    The published builds of OpenCV have no H.264 encoder, and their VP9 encoder is two hundred times as slow. The format
    needs an even number of pixels, so odd sides are extended by one. WebM is a kind of Matroska: the film is written as
    that, because OpenCV warns on stderr about each WebM file, and then renamed in its header.

    Raises:
        VizError: this installation of OpenCV cannot write films, or the disk is full.
    """
    _check(frames)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _write(frames, per_second, Path(folder) / "film.mkv").replace(_MATROSKA, _WEBM, 1)
    except OSError as error:
        raise VizError(
            f"The film cannot be written on this machine: {error.strerror or error}.", code="film-not-written"
        ) from None


def _write(frames: Sequence[np.ndarray], per_second: float, path: Path) -> bytes:
    """The bytes of the Matroska file, written to `path`. Frames are counted, because OpenCV reports no error on a full disk."""
    height, width = (side + side % 2 for side in frames[0].shape[:2])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), per_second, (width, height))
    try:
        if not writer.isOpened():
            raise VizError("OpenCV cannot write WebM films on this machine; use GIF.", code="film-not-written")
        for frame in frames:
            around = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
            writer.write(cv2.cvtColor(np.pad(frame, around, "edge"), cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    reader = cv2.VideoCapture(str(path))
    count = 0
    while reader.grab():  # the frame count in the header is an estimate
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
