"""Decode picture files to upright RGB, with a note for each conversion."""

from __future__ import annotations

import contextlib
import re
import struct
import threading
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from vizapp.errors import VizError
from vizapp.media.formats import format_of, guess_kind, is_truncated, open_header, readable_formats
from vizapp.settings import settings

SMALLEST = 4  # pixels a side
LARGE = 16_000_000  # pixels; larger pictures are decoded one at a time, because decoding takes 10 to 36 bytes per pixel
_turn = threading.Lock()

# What Pillow's plugins raise on damaged files.
_PILLOW_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, Warning, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_ORIENTATION = 0x0112
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, "mirrored"),
    3: (Image.Transpose.ROTATE_180, "turned by 180°"),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, "mirrored top to bottom"),
    5: (Image.Transpose.TRANSPOSE, "mirrored and turned by 90°"),
    6: (Image.Transpose.ROTATE_270, "turned clockwise by 90°"),
    7: (Image.Transpose.TRANSVERSE, "mirrored and turned by 90°"),
    8: (Image.Transpose.ROTATE_90, "turned counter-clockwise by 90°"),
}
_WHITE_IS_ZERO = 0


def check_size(height: int, width: int, subject: str) -> None:
    """Raise a VizError if a picture is too small, or larger than the settings allow."""
    if height < SMALLEST or width < SMALLEST:
        raise VizError(
            f"{subject} has {width} × {height} pixels; at least {SMALLEST} × {SMALLEST} are needed.",
            code="picture-too-small",
        )
    most = settings().picture_megapixels
    if height * width > most * 1_000_000:
        megapixels = f"{height * width / 1e6:,.1f}".removesuffix(".0")
        raise VizError(
            f"{subject} has {width:,} × {height:,} pixels ({megapixels} megapixels); at most {most} "
            "megapixels are read, so make it smaller or raise VIZAPP_PICTURE_MEGAPIXELS.",
            code="picture-too-large",
        )


def decode(file: BinaryIO, subject: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels uint8 `[H W 3]`, upright, and notes. The size is checked before memory for the pixels is allocated.

    Raises:
        VizError: not a picture, an unsupported format, damaged, incomplete, too small or too large. The message begins
            with `subject`.
    """
    key = format_of(file)
    if key is None:
        kind = guess_kind(file)
        found = f"looks like {kind}" if kind else "is not an image"
        raise VizError(f"{subject} {found}; supported formats: {readable_formats()}.", code="unsupported-format")
    try:
        image = open_header(file, key)
        check_size(image.height, image.width, subject)
        with _turn if image.height * image.width > LARGE else contextlib.nullcontext():
            return _upright_rgb(image)
    except _PILLOW_ERRORS as error:
        raise _decoding_error(error, file, key, subject) from error


def _decoding_error(error: BaseException, file: BinaryIO, key: str, subject: str) -> VizError:
    if isinstance(error, MemoryError):
        return VizError(f"{subject} does not fit into memory; make the photo smaller.", code="picture-too-large")
    if isinstance(error, Image.DecompressionBombError):
        return VizError(f"{subject} contains too many pixels; make the photo smaller.", code="picture-too-large")
    cause = error.__cause__ or error  # Pillow raises a SyntaxError for any error in a header
    at_end = isinstance(cause, (EOFError, IndexError, struct.error)) or "truncated" in str(cause).lower()
    if at_end or is_truncated(file, key):
        return VizError(
            f"{subject} ends too early: a part of the {key} file is missing, so copy or download it again.",
            code="picture-incomplete",
        )
    return VizError(f"{subject} is damaged: it begins like a {key} file but cannot be decoded.", code="picture-damaged")


def _upright_rgb(image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    coded = str(getattr(image, "tile", ""))  # how the file stores the samples; cleared by loading
    inverted = isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == _WHITE_IS_ZERO
    claimed = _orientation(image)
    image.load()
    remaining = _orientation(image)  # Pillow has already rotated TIFF files
    first, notes = to_rgb(image, coded, inverted)
    frames = 1
    with contextlib.suppress(*_PILLOW_ERRORS):  # a later frame may be damaged; only the first one is of interest
        frames = int(getattr(image, "n_frames", 1))
    if frames > 1:
        notes.insert(0, f"First of {frames} frames.")
    if claimed in _TURNS:
        notes.append(f"Set upright as its EXIF orientation asks: {_TURNS[claimed][1]}.")
    if remaining in _TURNS:
        first = first.transpose(_TURNS[remaining][0])
    return np.array(first), tuple(notes)


def _orientation(image: Image.Image) -> int:
    with contextlib.suppress(*_PILLOW_ERRORS):  # ignore damaged EXIF data
        value = image.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) else 1
    return 1


def to_rgb(image: Image.Image, coded: str = "", inverted: bool = False) -> tuple[Image.Image, list[str]]:
    """The loaded image in mode RGB, transparent parts on white, and notes about the conversions.

    `coded`: Pillow's description of the samples in the file, which tells 12 and 16 bits. `inverted`: whether white is zero.
    """
    mode, notes = image.mode, []
    if mode in ("I", "F") or mode.startswith("I;"):
        grey, note = _grey_of_many_bits(np.asarray(image), coded, image.format == "PPM")
        image, mode = Image.fromarray(255 - grey if inverted else grey), "L"
        notes.append(note)
    elif _bits(coded) > 8:
        notes.append(f"{_bits(coded)} bits a channel reduced to 8.")
    if mode == "1":
        notes.append("Black and white, 1 bit a pixel.")
    elif mode in ("L", "LA", "La"):
        notes.append("Greyscale: the three channels are equal.")
    elif mode in ("P", "PA"):
        notes.append("Colours come from a palette.")
    elif mode in ("CMYK", "LAB"):
        notes.append(f"{mode} converted to RGB without the file's colour profile.")
    if image.has_transparency_data:
        image, transparent = _on_white(image)
        notes += ["Transparent parts laid on white."] if transparent else []
    return image if image.mode == "RGB" else image.convert("RGB"), notes


def _bits(coded: str) -> int:
    """Bits per channel, from Pillow's raw mode (`"RGB;16B"`; in `"BGR;16"`, bits per pixel) or the maximum of a PPM file."""
    if found := re.search(r"(?<!BGR);(12|16)", coded):
        return int(found[1])
    if found := re.search(r"\('(?:L|I|RGB)', (\d+)\)", coded):
        return int(found[1]).bit_length()
    return 8


def _grey_of_many_bits(values: np.ndarray, coded: str, full_range: bool) -> tuple[np.ndarray, str]:
    """Uint8 of grey values with more than 8 bits, `[H W]` in any number type.

    16-bit files (and PPM's integers, which Pillow scales to 16 bits) range from 0 to 65535. For 32 bits no format defines
    white: values within 0…1 (floats), 0…255 or 0…65535 are read as that range, all others are stretched.
    """
    is_float = values.dtype.kind == "f"
    if values.dtype.itemsize == 2 or (full_range and not is_float):
        top = 4095 if ";12" in coded else 65535
        return _scale(values, 0, top), f"{_bits(coded) if _bits(coded) > 8 else 16} bits a channel reduced to 8."
    kind = "32-bit numbers"
    finite = values[np.isfinite(values)] if is_float else values
    if finite.size == 0:
        return np.zeros(values.shape, np.uint8), f"{kind}, none of them finite: black."
    low, high = float(finite.min()), float(finite.max())
    for top in (1, 255, 65535) if is_float else (255, 65535):
        if low >= 0 and high <= top:
            return _scale(values, 0, top), f"{kind} from {low:g} to {high:g}; {top} is taken for white."
    return _scale(values, low, high), f"{kind}: {low:g} to {high:g} stretched from black to white."


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Uint8 in which `low` is 0 and `high` is 255. NaN is 0."""
    scaled = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.clip(np.rint((scaled - low) * (255 / max(high - low, 1e-300))), 0, 255).astype(np.uint8)


def _on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image in RGB on white, and whether any pixel was not opaque."""
    if image.mode == "La":
        image = image.convert("LA")
    over = image.convert("RGBA")
    if over.getchannel("A").getextrema() == (255, 255):
        return over.convert("RGB"), False
    white = Image.new("RGBA", over.size, (255, 255, 255, 255))
    white.alpha_composite(over)
    return white.convert("RGB"), True
