"""Stacks of bands, such as those of satellites and microscopes, in NumPy and TIFF files."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from vizapp.errors import VizError, quoted
from vizapp.media.process import Exceeded, Limits, call
from vizapp.settings import settings

STACK_SUFFIXES = (".npy", ".npz")
MOST_BANDS = 512
ACCEPTED = "[H W C], [C H W] or [H W] of uint8, uint16, int16 or float32"
_KEPT = ("uint8", "uint16", "int16", "float32")
_FEW = 16  # bands; an axis so short is that of the bands if it is the shortest
_SMALL = 2**22  # bytes of a TIFF file that is read without a process of its own, if it is not compressed
_SECONDS, _SPARE = 20, 2**28  # of the processor, and bytes of memory beside the values, for other TIFF files
_COMPRESSED = "compressed"
_SHOWN_VALUES = 2**20  # of a band, from which its percentiles are taken
# TIFF tags of the first image, and the values of those that photos have.
_BITS, _COMPRESSION, _COLOURS, _SAMPLES, _EXTRA, _KIND = 258, 259, 262, 277, 338, 254
_GREY, _RGB, _UNSPECIFIED = 1, 2, 0
_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    NotImplementedError, SyntaxError, TypeError, tokenize.TokenError, ValueError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def numpy_stack(file: BinaryIO, subject: str) -> np.ndarray | None:
    """The array in an NPY file, or the only one in an NPZ file; None if it is neither. Pickled objects are not read.

    Raises:
        VizError: the file is damaged, has several arrays or objects, or is too large. The message begins with `subject`.
    """
    file.seek(0)
    head = file.read(6)
    file.seek(0)
    try:
        if head == b"\x93NUMPY":
            return _read_array(file, subject)
        if head[:4] != b"PK\x03\x04":
            return None
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if not names or any(not name.endswith(".npy") for name in names):
                return None
            if len(names) > 1:
                some = ", ".join(repr(name.removesuffix(".npy"))[:30] for name in names[:5])
                raise VizError(f"{subject} has {len(names)} arrays ({some} …); keep one.", code="several-arrays")
            with archive.open(names[0]) as member:
                return _read_array(member, subject)
    except _ERRORS as error:
        if head[:1] == b"P" and isinstance(error, zipfile.BadZipFile):
            return None  # what else begins like a zip file is named with the other kinds of files
        raise VizError(
            f"{subject} is damaged: it begins like a NumPy array but cannot be read.", code="picture-damaged"
        ) from error


def _read_array(file: Any, subject: str) -> np.ndarray:
    """The array of an open NPY file. Its header is checked before memory for the values is allocated."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise VizError(
            f"{subject} holds pickled Python objects, which can run programs and are not read; save numbers.",
            code="pickled-array",
        )
    check_stack(shape, dtype, subject)
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    content = file.read(count)
    if len(content) < count:
        raise VizError(
            f"{subject} ends too early: {len(content):,} of {count:,} bytes of the array are there, so copy it again.",
            code="picture-incomplete",
        )
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def tiff_stack(
    file: BinaryIO, tags: dict[int, Any], more: bool, subject: str, tick: Callable[[float], None] | None = None
) -> np.ndarray | None:
    """The array in a TIFF file of more than one band; None if it is a photo.

    A stack has 2 samples a pixel or more than 4; 3 or 4 that are not said to be colours and transparency; or equal grey pages.

    Args:
        file: open.
        tags: of its first image.
        more: whether there are more images.
        subject: first words of messages.
        tick: called from time to time; it may raise to cancel.

    Raises:
        VizError: the file is damaged, or compressed in a way that is not read, or too large.
    """
    try:
        samples, colours, kind = (
            int(tags.get(tag, default)) for tag, default in ((_SAMPLES, 1), (_COLOURS, _GREY), (_KIND, 0))
        )
        unnamed, bits = tuple(tags.get(_EXTRA, ()))[:1] == (_UNSPECIFIED,), min(tags.get(_BITS, (1,)))
        photo = colours not in (_GREY, _RGB) or bits < 8
    except (TypeError, ValueError):  # damaged tags
        return None
    several = samples > 4 or (samples > 2 and colours == _GREY) or (samples in (2, 4) and unnamed)
    pages = samples == 1 and more and colours == _GREY and not kind & 1
    if photo or not (several or pages):
        return None
    file.seek(0)
    content = file.read()
    alone = len(content) <= _SMALL and tags.get(_COMPRESSION, 1) == 1
    most = settings().picture_megapixels * 12 * 10**6 + 3 * len(content) + _SPARE
    try:
        found: Any = read_tiff(content, subject, True) if alone else _COMPRESSED
        if isinstance(found, str):
            limits = Limits(_SECONDS, most, ("tifffile",))
            found = call(read_tiff, (content, subject, False), limits, tick)
        return None if found is None else np.asarray(found)
    except Exceeded:
        raise VizError(
            f"{subject} takes more than {_SECONDS} s or {most / 1e9:.1f} GB to read; save it without compression, or as NPY.",
            code="picture-too-slow",
        ) from None


def read_tiff(content: bytes, subject: str, plain: bool) -> np.ndarray | str | None:
    """The first series of equal images in a TIFF file; None if that is one grey image, or several that are no clear stack.

    `plain`: give "compressed" instead of unpacking anything, which may take long.

    Raises:
        VizError: as `tiff_stack`.
    """
    import tifffile  # heavy

    try:
        # Without the kinds whose descriptions name further files, which would be opened.
        with tifffile.TiffFile(BytesIO(content), _multifile=False, is_ome=False, is_mmstack=False) as tiff:
            series = tiff.series[0]
            dtype = np.dtype(series.dtype or "O")
            shape = tuple(length for length in series.shape if length > 1)
            if len(shape) < 3 and len(series.pages) == 1 and tiff.pages[0].samplesperpixel == 1:  # type: ignore[union-attr]
                return None
            if len(series.pages) > 1 and len(shape) == 3 and _band_axis(shape) is None:
                return None
            check_stack(shape, dtype, subject)
            frames = [page.keyframe for page in series.pages if page is not None]
            if plain and any(frame is None or frame.compression != 1 for frame in frames):
                return _COMPRESSED
            return np.asarray(series.asarray(maxworkers=1)).reshape(shape)
    except _ERRORS as error:
        if "imagecodecs" in str(error):
            raise VizError(
                f"{subject} is compressed in a way that is not read for several bands; save it without compression or with "
                "deflate, or as NPY.",
                code="unsupported-format",
            ) from error
        raise VizError(
            f"{subject} is damaged: it begins like a TIFF file but cannot be read.", code="picture-damaged"
        ) from error


def check_stack(shape: tuple[int, ...], dtype: np.dtype, subject: str) -> None:
    """Raise a VizError if an array of that shape and type is no stack, or has more values than photos may have."""
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise VizError(f"{subject} holds {dtype} values; accepted is {ACCEPTED}.", code="bad-array")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise VizError(f"{subject} has shape {list(shape)}; accepted is {ACCEPTED}.", code="bad-array")
    most = settings().picture_megapixels * 3 * 10**6
    if (values := int(np.prod(shape, dtype=np.float64))) > most:
        raise VizError(
            f"{subject} has {values:,} values; at most {most:,} are read, three for each pixel of the largest photo, so make "
            "it smaller or raise VIZAPP_PICTURE_MEGAPIXELS.",
            code="picture-too-large",
        )


def as_bands(array: np.ndarray, subject: str) -> tuple[np.ndarray, str]:
    """The values `[H W C]`, read-only, in the type in which they are kept, and a sentence about them.

    The shortest axis is that of the bands.

    Raises:
        VizError: it is not clear which axis that is, the values are of another type, or some are not finite.
    """
    check_stack(array.shape, array.dtype, subject)
    values = array[:, :, None] if array.ndim == 2 else array
    axis = _band_axis(values.shape)
    if array.ndim == 3 and axis is None:
        raise VizError(
            f"{subject} has shape {list(array.shape)}, in which no axis is clearly that of the bands; accepted is [H W C] or "
            "[C H W] with fewer bands than rows and columns.",
            code="ambiguous-axes",
        )
    order = "[H W]" if array.ndim == 2 else "[H W C]"
    if array.ndim == 3 and axis == 0:
        values, order = values.transpose(1, 2, 0), "[C H W]"
    if values.shape[2] > MOST_BANDS:
        raise VizError(f"{subject} has {values.shape[2]:,} bands; at most {MOST_BANDS} are read.", code="bad-array")
    if array.dtype in (np.float16, np.float64):
        values = values.astype(np.float32)
    kept = values.dtype.newbyteorder("=")
    if kept.name not in _KEPT:
        raise VizError(f"{subject} holds {array.dtype} values; accepted is {ACCEPTED}.", code="bad-array")
    values = np.array(values, kept, order="C")
    if kept.kind == "f" and not (finite := np.isfinite(values)).all():
        row, column, band = (int(place) for place in np.argwhere(~finite)[0])
        raise VizError(
            f"{subject} has {int((~finite).sum()):,} values that are NaN or infinite, the first in band {band} at row {row}, "
            f"column {column}; replace them by numbers.",
            code="not-finite",
        )
    values.setflags(write=False)
    noun = "1 band" if values.shape[2] == 1 else f"{values.shape[2]} bands"
    return values, f"{noun} of {kept.name}, read as {order}."


def _band_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of the bands, 0 or 2: the shortest of the three; None if that is not clear."""
    first, middle, last = shape
    shortest = min(first, last)
    clear = first != last and shortest < middle and (shortest <= _FEW or 2 * shortest <= sorted(shape)[1])
    return (0 if first < last else 2) if clear else 2 if last == 1 else None


def read_bands(text: str) -> tuple[int, ...]:
    """The numbers of bands in a text such as `"3,2,1"`.

    Raises:
        VizError: it has another form.
    """
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise VizError(
            f"bands are three numbers, for red, green and blue, or one, such as 3,2,1; {quoted(text)} was given.",
            code="bad-bands",
        ) from None


def shown_bands(values: np.ndarray, chosen: tuple[int, ...] | None, subject: str) -> tuple[int, ...]:
    """The bands that are shown as red, green and blue, or the one that is shown in grey.

    Raises:
        VizError: a band of `chosen` is missing, or these are neither one nor three.
    """
    count = values.shape[2]
    if chosen is None:
        return (0, 1, 2) if count > 2 else (0,)
    if len(chosen) not in (1, 3):
        raise VizError(
            f"bands are three numbers, for red, green and blue, or one; {list(chosen)} was given.", code="bad-bands"
        )
    missing = [band for band in chosen if not 0 <= band < count]
    if missing:
        raise VizError(f"{subject} has bands 0 to {count - 1}, not {missing[0]}.", code="no-such-band")
    return chosen


def drawn_bands(values: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    """Some bands of `[H W C]` as a picture, uint8 `[H W 3]`: each from its 2nd percentile, black, to its 98th, white."""
    pixels = np.empty((*values.shape[:2], 3), np.uint8)
    for channel, band in enumerate(chosen if len(chosen) == 3 else chosen * 3):
        pixels[:, :, channel] = pixels[:, :, 0] if channel and len(chosen) == 1 else stretched(values[:, :, band])
    return pixels


def shown_values(values: np.ndarray) -> np.ndarray:
    """A network's crop `[H W C]` as a picture: uint8 `[H W 3]` as it is; else its first bands, as those of a stack."""
    if values.dtype == np.uint8 and values.shape[2] == 3:
        return values
    return drawn_bands(values, (0, 1, 2) if values.shape[2] > 2 else (0,))


def stretched(band: np.ndarray) -> np.ndarray:
    """A band `[H W]` from its 2nd percentile, black, to its 98th, white: uint8. A band of one value is grey."""
    step = max(1, int((band.size / _SHOWN_VALUES) ** 0.5))
    low, high = (float(value) for value in np.percentile(band[::step, ::step], (2, 98)))
    if not high > low:
        low, high = float(band.min()), float(band.max())
    if not high > low:
        return np.full(band.shape, 128, np.uint8)
    return np.clip(np.rint((band.astype(np.float32) - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
