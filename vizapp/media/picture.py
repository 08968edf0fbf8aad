"""Open a picture from a file, bytes or an array, as read-only RGB pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from vizapp.errors import VizError, nearest, quoted, showable
from vizapp.files import local_path
from vizapp.markup import Displayed, card, paragraph, text
from vizapp.media.decoding import check_size, decode, tiff_stack_in, to_rgb
from vizapp.media.figures import figures
from vizapp.media.mapped import bands as strips
from vizapp.media.stacks import as_bands, check_stack, drawn_bands, numpy_stack, shown_bands

_ROUNDING = 1e-3  # of a pixel; floats so close to whole ones hold a photo of 8 bits
_SIBLINGS = 1000  # names that are compared with a misspelt one


@dataclass(frozen=True, eq=False)
class Picture(Displayed):
    """A picture, as `open_picture` gives it.

    Attributes:
        pixels: uint8 `[H W 3]` RGB, read-only.
        name: A display and file name such as `"chelsea.png"`.
        digest: sha256 (hex) of shape, pixels and bands.
        notes: A sentence for each conversion while it was read.
        label: Its class in the data set (its folder, or a column of a list), if any.
        bands: All values of a stack `[H W C]`, of uint8, uint16, int16 or float32, read-only; None of a photo.
        shown: The bands that `pixels` show, if they were chosen or stretched.
    """

    pixels: np.ndarray
    name: str
    digest: str
    notes: tuple[str, ...] = ()
    label: str | None = None
    bands: np.ndarray | None = None
    shown: tuple[int, ...] = ()

    def __repr__(self) -> str:
        bands = "" if self.bands is None else f", {self.bands.shape[2]} bands of {self.bands.dtype}"
        return f"Picture({quoted(self.name)}, {self.width} × {self.height} pixels{bands})"

    def _repr_html_(self) -> str:
        told = "".join(paragraph(text(note)) for note in self.notes)
        label = f" · class {text(self.label)}" if self.label is not None else ""
        size = f"{self.width} × {self.height} pixels"
        return card(self.name, f"{size}{label}", figures([(self.pixels, "")]), told)

    @property
    def nbytes(self) -> int:
        """Memory of the pixels and the bands."""
        return self.pixels.nbytes + (0 if self.bands is None else self.bands.nbytes)

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])


def open_picture(
    source: str | Path | bytes | np.ndarray | Picture,
    name: str = "",
    tick: Callable[[float], None] | None = None,
    bands: Sequence[int] | None = None,
) -> Picture:
    """The picture in a file, in the bytes of a file, or in an array.

    Files: JPEG, PNG, WebP, GIF, BMP, TIFF, PPM and AVIF; the first frame, set upright, alpha on white. NPY, NPZ with one array,
    and TIFF of several bands: stacks, whose values are kept in full (`Picture.bands`) and shown from the 2nd to the 98th
    percentile of each band. Arrays are copied. Photos are uint8, or float from 0 to 1, `[H W 3]` RGB, `[H W 4]` with alpha (not
    in files), `[H W]` or `[H W 1]` grey; of floats and of four channels the values are kept, too. All others are stacks
    `[H W C]` or `[C H W]`: the shortest axis is that of the bands, and a note tells which was taken.

    Args:
        source: the file, its bytes or the array; or a picture, for another name or other bands.
        name: a display name. Default: that of the file.
        tick: called from time to time while a file takes long to decode; it may raise to cancel.
        bands: of a stack, the numbers (from 0) of the bands that are shown as red, green and blue, or of the one that is shown
            in grey. Default: the first three, or the first of two.

    Raises:
        VizError: the file does not exist or is not a picture, the picture is damaged, too small or too large, the array has
            another shape or type or numbers that are not finite, or there are no such bands.
    """
    if isinstance(source, Picture):
        found = source
    elif isinstance(source, (str, Path)):
        found = _from_path(local_path(source, "photo"), tick)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        found = _from_bytes(bytes(source), showable(name), tick)
    elif isinstance(source, np.ndarray):
        found = _from_array(source, showable(name))
    else:
        raise VizError(
            f"A photo cannot be read from {type(source).__name__}; give a path, the bytes of a file or a NumPy array.",
            code="not-a-picture",
        )
    found = replace(found, name=showable(name)) if name else found
    return found if bands is None else _showing(found, tuple(bands))


def _showing(picture: Picture, chosen: tuple[int, ...]) -> Picture:
    """The picture with other bands shown."""
    if picture.bands is None:
        raise VizError(f"{picture.name} is a photo without bands to choose from.", code="no-bands")
    if chosen == picture.shown:
        return picture
    notes = picture.notes[: len(picture.notes) - bool(picture.shown)]
    return _stack(picture.bands, picture.name, notes, chosen, picture.label)


def _stack(
    values: np.ndarray,
    name: str,
    notes: tuple[str, ...],
    chosen: tuple[int, ...] | None = None,
    label: str | None = None,
) -> Picture:
    """The picture of the values `[H W C]`."""
    check_size(values.shape[0], values.shape[1], name)
    chosen = shown_bands(values, chosen, name)
    what = f"bands {', '.join(map(str, chosen))}" if len(chosen) == 3 else f"band {chosen[0]}"
    note = f"Shown, and given to networks for photos: {what}, from the 2nd to the 98th percentile of each."
    return _picture(drawn_bands(values, chosen), name, (*notes, note), values, chosen, label)


def open_thumbnail(path: str | Path, side: int, tick: Callable[[float], None] | None = None) -> np.ndarray:
    """A picture file of which at least `side` pixels of the shorter side are wanted, uint8 `[H W 3]`.

    JPEG files, which photos are, decode up to eight times smaller, and as much faster. Other files are decoded whole.

    Raises:
        VizError: as `open_picture`.
    """
    return _from_path(local_path(path, "photo"), tick, side).pixels


def _from_path(path: Path, tick: Callable[[float], None] | None, side: int = 0) -> Picture:
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
            if (array := _array_in(file, subject, tick)) is not None:
                return _from_array(array, showable(path.name), alpha=False)
            pixels, notes = decode(file, subject, tick, side)
    except OSError as error:
        raise VizError(
            f"{subject} cannot be read: {(error.strerror or 'input/output error').lower()}.", code="unreadable"
        ) from error
    return _picture(pixels, showable(path.name), notes)


def _array_in(file: BinaryIO, subject: str, tick: Callable[[float], None] | None) -> np.ndarray | None:
    """The array of a stack; None if the file is a photo."""
    found = numpy_stack(file, subject)
    return tiff_stack_in(file, subject, tick) if found is None else found


def _siblings(path: Path) -> str:
    try:
        return nearest(path.name, [showable(other.name) for other in islice(path.parent.iterdir(), _SIBLINGS)])
    except OSError:
        return ""


def _from_bytes(data: bytes, name: str, tick: Callable[[float], None] | None) -> Picture:
    subject = name or "The photo"
    if not data:
        raise VizError(f"{subject} is empty (0 bytes).", code="empty-file")
    if (array := _array_in(BytesIO(data), subject, tick)) is not None:
        return _from_array(array, name or "picture", alpha=False)
    pixels, notes = decode(BytesIO(data), subject, tick)
    return _picture(pixels, name or "picture", notes)


def _from_array(array: np.ndarray, name: str, alpha: bool = True) -> Picture:
    """The picture of an array. `alpha`: whether the fourth channel of a photo is its transparency."""
    subject = name or "The array"
    as_photo = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in ((1, 3, 4) if alpha else (1, 3)))
    if as_photo:
        check_size(array.shape[0], array.shape[1], subject)
    check_stack(array.shape, array.dtype, subject)
    if as_photo and (array.dtype == np.uint8 or (array.dtype.kind == "f" and _is_from_0_to_1(array))):
        pixels = (
            array if array.dtype == np.uint8 else np.rint(array.astype(np.float64).clip(0, 1) * 255).astype(np.uint8)
        )
        rgb, notes = to_rgb(Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels))
        if array.shape[2:] != (4,) and (array is pixels or bool((np.abs(pixels - array * 255) <= _ROUNDING).all())):
            return _picture(rgb, name or "picture", tuple(notes))
        values, note = as_bands(array, subject)
        return _picture(rgb, name or "picture", tuple(notes) if array is pixels else (note, *notes), values)
    values, note = as_bands(array, subject)
    return _stack(values, name or "picture", (note,))


def _is_from_0_to_1(array: np.ndarray) -> bool:
    return bool(array.min() >= -1e-6 and array.max() <= 1 + 1e-6)  # false with NaN; 1e-6 is rounding of float32


def _picture(
    pixels: np.ndarray,
    name: str,
    notes: tuple[str, ...],
    values: np.ndarray | None = None,
    shown: tuple[int, ...] = (),
    label: str | None = None,
) -> Picture:
    """The picture of `pixels` and, of a stack, `values`, which become read-only and must not be used elsewhere."""
    frozen = np.ascontiguousarray(pixels)
    frozen.setflags(write=False)
    digest = hashlib.sha256(str(frozen.shape).encode())
    for part in strips(frozen):
        digest.update(part.data)
    if values is not None:
        values.setflags(write=False)
        digest.update(f"{values.shape} {values.dtype} {shown}".encode())
        digest.update(values.data)
    return Picture(frozen, name, digest.hexdigest(), notes, label, values, shown)
