"""Open a picture from a file, bytes or an array, as read-only RGB pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from vizapp.errors import VizError, nearest, showable
from vizapp.files import local_path
from vizapp.media.decoding import check_size, decode, to_rgb
from vizapp.media.mapped import bands

_ACCEPTED = "uint8 (0…255) or float (0…1) of shape [H W 3], [H W 4], [H W 1] or [H W]"
_SIBLINGS = 1000  # names that are compared with a misspelt one


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture.

    `pixels`: uint8 `[H W 3]` RGB, read-only. `name`: a display and file name such as `"chelsea.png"`. `digest`: sha256
    (hex) of shape and pixels. `notes`: a sentence for each conversion while it was read. `label`: its class in the data
    set (its folder, or a column of a list), if any.
    """

    pixels: np.ndarray
    name: str
    digest: str
    notes: tuple[str, ...] = ()
    label: str | None = None

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])


def open_picture(
    source: str | Path | bytes | np.ndarray | Picture, name: str = "", tick: Callable[[float], None] | None = None
) -> Picture:
    """The picture in a file, in the bytes of a file, or in an array.

    Files: JPEG, PNG, WebP, GIF, BMP, TIFF, PPM and AVIF; the first frame, set upright, alpha on white. Arrays: uint8,
    or float from 0 to 1, `[H W 3]` RGB, `[H W 4]` with alpha, `[H W]` or `[H W 1]` grey; they are copied.
    `tick` is called from time to time while a file takes long to decode; it may raise to cancel.

    Raises:
        VizError: the file does not exist or is not a picture, the picture is damaged, too small or too large, or the
            array has another shape or type.
    """
    if isinstance(source, Picture):
        return replace(source, name=showable(name)) if name else source
    if isinstance(source, (str, Path)):
        return _from_path(local_path(source, "photo"), showable(name), tick)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), showable(name), tick)
    if isinstance(source, np.ndarray):
        return _from_array(source, showable(name))
    raise VizError(
        f"A photo cannot be read from {type(source).__name__}; give a path, the bytes of a file or a NumPy array.",
        code="not-a-picture",
    )


def open_thumbnail(path: str | Path, side: int, tick: Callable[[float], None] | None = None) -> np.ndarray:
    """A picture file of which at least `side` pixels of the shorter side are wanted, uint8 `[H W 3]`.

    JPEG files, which photos are, decode up to eight times smaller, and as much faster. Other files are decoded whole.

    Raises:
        VizError: as `open_picture`.
    """
    return _from_path(local_path(path, "photo"), "", tick, side).pixels


def _from_path(path: Path, name: str, tick: Callable[[float], None] | None, side: int = 0) -> Picture:
    subject = showable(str(path))
    try:
        if path.is_dir():
            raise VizError(f"{subject} is a folder; give a photo in it, or open it as a folder.", code="not-a-file")
        if not path.exists():
            raise VizError(f"There is no file {subject}.{_siblings(path)}", code="no-such-file")
        if not path.is_file():
            raise VizError(f"{subject} is a device or a pipe; give an image file.", code="not-a-file")
        with path.open("rb") as file:
            if not file.read(1):
                raise VizError(f"{subject} is empty (0 bytes).", code="empty-file")
            pixels, notes = decode(file, subject, tick, side)
    except OSError as error:
        raise VizError(
            f"{subject} cannot be read: {(error.strerror or 'input/output error').lower()}.", code="unreadable"
        ) from error
    return _picture(pixels, name or showable(path.name), notes)


def _siblings(path: Path) -> str:
    try:
        return nearest(path.name, [showable(other.name) for other in islice(path.parent.iterdir(), _SIBLINGS)])
    except OSError:
        return ""


def _from_bytes(data: bytes, name: str, tick: Callable[[float], None] | None) -> Picture:
    subject = name or "The photo"
    if not data:
        raise VizError(f"{subject} is empty (0 bytes).", code="empty-file")
    pixels, notes = decode(BytesIO(data), subject, tick)
    return _picture(pixels, name or "picture", notes)


def _from_array(array: np.ndarray, name: str) -> Picture:
    subject = name or "The array"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        advice = " (channels come last: array.transpose(1, 2, 0))" if first else ""
        raise VizError(f"{subject} has shape {list(array.shape)}; accepted is {_ACCEPTED}{advice}.", code="bad-array")
    check_size(array.shape[0], array.shape[1], subject)
    pixels = _bytes_of(array, subject)
    rgb, notes = to_rgb(Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels))
    return _picture(rgb, name or "picture", tuple(notes))


def _bytes_of(array: np.ndarray, subject: str) -> np.ndarray:
    """A copy of the values as uint8; floats from 0 to 1 are scaled and rounded."""
    if array.dtype == np.uint8:
        return np.array(array)
    if array.dtype.kind != "f":
        raise VizError(f"{subject} holds {array.dtype} values; accepted is {_ACCEPTED}.", code="bad-array")
    low, high = float(array.min()), float(array.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # not(…): NaN is out of range as well; 1e-6 is rounding of float32
        raise VizError(f"{subject} holds floats from {low:g} to {high:g}; accepted is {_ACCEPTED}.", code="bad-array")
    return np.clip(np.rint(array.astype(np.float64) * 255), 0, 255).astype(np.uint8)


def _picture(pixels: np.ndarray, name: str, notes: tuple[str, ...]) -> Picture:
    """The picture of `pixels`, which become read-only and must not be used elsewhere."""
    frozen = np.ascontiguousarray(pixels)
    frozen.setflags(write=False)
    digest = hashlib.sha256(str(frozen.shape).encode())
    for part in bands(frozen):
        digest.update(part.data)
    return Picture(frozen, name, digest.hexdigest(), notes)
