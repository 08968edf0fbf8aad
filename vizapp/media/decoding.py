"""Decode picture files to upright RGB, with a note for each conversion."""

from __future__ import annotations

import contextlib
import math
import re
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from vizapp.errors import VizError, one_line
from vizapp.media import mapped
from vizapp.media.formats import format_of, guess_kind, is_truncated, open_header, readable_formats
from vizapp.media.process import Exceeded, Limits, call, is_short
from vizapp.media.refusals import RefusedContent
from vizapp.media.stacks import tiff_stack
from vizapp.settings import settings

SMALLEST = 4  # pixels a side
# Decoding takes 7 to 18 bytes per pixel: few pictures are decoded at a time in one process.
LARGE = 16_000_000  # pixels; larger ones one at a time
_MEDIUM = 4_000_000  # two at a time
_turn, _turns = threading.Lock(), threading.Semaphore(2)
# Pictures that may take seconds to decode are decoded in a process of its own, so that they hold neither the turn nor Python's
# lock and can be cancelled.
_MOST_READS = 20_000  # by Pillow, which reads headers, chunks and frames in small pieces
_MOST_HEADER = 2**20  # bytes
_REPEATED = {"JPEG": (b"Exif\0\0", 50), "PNG": (b"iCCP", 3)}  # parts that take long when there are more of them
_SLOW_PIXELS = {"WEBP": 8_000_000, "AVIF": 8_000_000}  # slower than others; those that are read in one piece
_SLOW_SCANS = 500_000_000  # scans of a JPEG file times pixels
_SLOW_BYTES = 2**18  # of a file that Pillow decodes in Python
_STRIP = 2**20  # pixels that are converted at once
SECONDS = 20  # of the processor, for one of them
_BYTES_PER_PIXEL, _SPARE = 40, 2**28  # memory for one of them
_MOST = 2**30 - 2**26  # bytes beside its file and the libraries; more where larger photos than usual are allowed

# What Pillow's plugins raise on damaged files.
_PILLOW_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, Warning, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_ORIENTATION = 0x0112
_TURNS = {  # whether rows and columns change places, then the steps in which both are read, and the words
    2: (False, 1, -1, "mirrored"),
    3: (False, -1, -1, "turned by 180°"),
    4: (False, -1, 1, "mirrored top to bottom"),
    5: (True, 1, 1, "mirrored and turned by 90°"),
    6: (True, 1, -1, "turned clockwise by 90°"),
    7: (True, -1, -1, "mirrored and turned by 90°"),
    8: (True, -1, 1, "turned counter-clockwise by 90°"),
}
_ON_WHITE = "Transparent parts laid on white."
_WHITE_IS_ZERO = 0
_PHOTOMETRIC, _SUBFILE, _PLANES, _BITS, _DNG_VERSION = 262, 254, 284, 258, 50706
_READ_TAGS = (
    _PHOTOMETRIC,
    _SUBFILE,
    _PLANES,
    _BITS,
    _DNG_VERSION,
    259,
    277,
    338,
)  # and compression, samples, extra samples
_NEXT = -1  # where the next image is
_RAW_COLOURS = (32803, 34892)  # of the colour filters of a sensor, and linear
# What Pillow says of files that are whole and of a kind that it does not read.
_NOT_READ = re.compile(r"unknown|unsupported|unrecognized|not available|not implemented|cannot handle", re.IGNORECASE)


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


def decode(
    file: BinaryIO, subject: str, tick: Callable[[float], None] | None = None, side: int = 0
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels uint8 `[H W 3]`, upright, and notes. The size is checked before memory for the pixels is allocated.

    `tick` is called from time to time while a picture takes long; it may raise to cancel. With it, large pictures are decoded
    in another process, too. `side`: a JPEG is decoded at the smallest scale with so many pixels on its shorter side.

    Raises:
        VizError: not a picture, an unsupported format, damaged, incomplete, too small or too large. The message begins
            with `subject`.
    """
    metered = _Metered(file, math.inf if tick is None else LARGE)
    try:
        return _decode(metered, subject, side)
    except _Slow:
        return _decode_apart(metered, subject, tick)


def tiff_stack_in(file: BinaryIO, subject: str, tick: Callable[[float], None] | None) -> np.ndarray | None:
    """The array in a TIFF file of several bands; None if the file is a photo. Raises VizError as `tiff_stack`."""
    if format_of(file) != "TIFF":
        return None
    tags = _tiff_tags(file)
    if tags.get(_PHOTOMETRIC) in _RAW_COLOURS or _DNG_VERSION in tags:
        return None
    return tiff_stack(file, tags, tags.get(_NEXT, 0) != 0, subject, tick)


class _Slow(Exception):
    """Decoding may take seconds."""


class _Metered:
    """A file of which Pillow may read only so many pieces and bytes; then it raises _Slow.

    `pixels`: of the picture; those of a large one until its header is read. `most`: pixels of a picture that is not slow.
    `still`: the EXIF orientation of a WebP file that is no animation.
    """

    still: int | None = None

    def __init__(self, file: BinaryIO, most: float) -> None:
        self._file, self._reads, self.nbytes, self.pixels, self.most = file, _MOST_READS, math.inf, LARGE, most

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._reads -= 1
        self.nbytes -= len(content)
        if self._reads < 0 or self.nbytes < 0:
            raise _Slow
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _decode(file: Any, subject: str, side: int = 0) -> tuple[np.ndarray, tuple[str, ...]]:
    """What `decode` returns. Raises _Slow if that may take seconds and the file is metered."""
    key = format_of(file)
    if key is None:
        kind = guess_kind(file)
        raise _not_read(subject, f"looks like {kind}" if kind else "is not an image")
    metered = isinstance(file, _Metered)
    try:
        if metered:
            _check_parts(file, key)
        tags = _tiff_tags(file) if key == "TIFF" else {}
        if tags.get(_PHOTOMETRIC) in _RAW_COLOURS:
            raise _not_read(subject, "is a raw photo of a camera")
        image = open_header(file, key)
        check_size(image.height, image.width, subject)
        if metered:
            _check_pixels(file, key, image)
        if side:
            image.draft(image.mode, (side, side))
        with _turn_of(image.height * image.width):
            pixels, notes = _upright_rgb(image, _transparent_16(image, file))
    except _PILLOW_ERRORS as error:
        if isinstance(error, MemoryError) and not metered:
            raise
        raise _decoding_error(error, file, key, subject) from error
    if tags.get(_SUBFILE, 0) & 1 or _DNG_VERSION in tags:
        notes = (f"Preview in a raw photo, {pixels.shape[1]} × {pixels.shape[0]} pixels.", *notes)
    return pixels, notes


def _turn_of(pixels: int) -> contextlib.AbstractContextManager[Any]:
    return _turn if pixels > LARGE else _turns if pixels > _MEDIUM else contextlib.nullcontext()


def _check_parts(file: _Metered, key: str) -> None:
    """Raise _Slow if the file has too many parts that take long, and limit the bytes of its header."""
    mark, most = _REPEATED.get(key, (b"", 0))
    if mark and _content(file).count(mark) > most:
        raise _Slow
    if key not in _SLOW_PIXELS:
        file.nbytes = _MOST_HEADER


def _check_pixels(file: _Metered, key: str, image: ImageFile.ImageFile) -> None:
    """Raise _Slow if the pixels take long."""
    file.nbytes = math.inf
    file.pixels = pixels = image.height * image.width
    if key == "WEBP":
        file.seek(0)
        head = file.read(21)
        extended = head[12:16] == b"VP8X"
        # Where header and pixels differ about alpha, Pillow trusts the pixels and OpenCV the header.
        odd = extended and (head[20] & 2 or bool(head[20] & 16) != (image.mode == "RGBA"))
        file.still = None if odd else _orientation(image)
    if (
        pixels > min(file.most, _SLOW_PIXELS.get(key, math.inf))
        or (key == "JPEG" and _content(file).count(b"\xff\xda") * pixels > _SLOW_SCANS)
        or (any(tile.codec_name in Image.DECODERS for tile in image.tile) and len(_content(file)) > _SLOW_BYTES)
    ):
        raise _Slow


def _content(file: Any) -> bytes:
    file.seek(0)
    return bytes(file.read())


def _decode_apart(
    file: _Metered, subject: str, tick: Callable[[float], None] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    content, pixels = _content(file._file), file.pixels
    most = max(_MOST, 10 * settings().picture_megapixels * 10**6)
    limits = Limits(SECONDS, min(_BYTES_PER_PIXEL * pixels + 2 * len(content) + _SPARE, most), ("cv2",))
    too_slow = VizError(
        f"{subject} takes more than {SECONDS} s or {limits.nbytes / 1e9:.1f} GB to decode; save it as PNG or JPEG, or make it "
        "smaller.",
        code="picture-too-slow",
    )
    refused = RefusedContent(content, str(limits))
    if refused.is_remembered():
        raise too_slow
    with contextlib.ExitStack() as stack:
        room = mapped.Reservation(3 * pixels, subject, tick)
        stack.callback(room.release)
        files = [stack.enter_context(file) for file in mapped.new_files()]
        descriptors = [file.fileno() for file in files]
        try:
            asked = (content, subject, descriptors, pixels, file.still)
            found, notes, index = call(decode_slowly, asked, limits, tick, descriptors)
        except Exceeded:
            refused.remember()
            raise too_slow from None
        if index is None:
            return found, notes
        found = mapped.read(files[index], found)
        room.keep_for(found)
    return found, notes


def decode_slowly(
    content: bytes, subject: str, descriptors: list[int], size: int, still: int | None
) -> tuple[np.ndarray | tuple[int, ...], tuple[str, ...], int | None]:
    """What `decode` returns, computed in this process however long it takes.

    The pixels are written to the first of the open files that has room; then the answer has their shape, and its index.

    Args:
        content: of the file.
        subject: first words of messages.
        descriptors: of the open files.
        size: pixels of the picture.
        still: of a WebP file that is no animation, as `_Metered` has it.

    Raises:
        VizError: as `decode`.
        MemoryError: the picture does not fit into the limits of this process.
    """
    try:
        pixels, notes = _decode(BytesIO(content), subject) if still is None else _decode_webp(content, subject, still)
    except VizError:
        if is_short(4 * size):  # decoders call a file damaged that they have no memory for
            raise MemoryError from None
        raise
    index = mapped.write(pixels, descriptors)
    return pixels if index is None else pixels.shape, notes, index


def _decode_webp(content: bytes, subject: str, orientation: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """What `decode` returns for a WebP file that is no animation.

    Pillow decodes it like a film, in 18 bytes a pixel; OpenCV takes 7, and gives the same pixels.
    """
    import cv2  # heavy

    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)  # [H W 3], or [H W 4] with alpha
    except cv2.error:
        pixels = None
    if pixels is None:
        raise _decoding_error(OSError(), BytesIO(content), "WEBP", subject)
    transparent = False
    if pixels.shape[2] == 4:
        for part in mapped.bands(pixels):
            over, found = _on_white(Image.fromarray(part[:, :, [2, 1, 0, 3]]))
            part[:, :, 2::-1] = np.asarray(over)
            transparent |= found
    notes = [_ON_WHITE] if transparent else []
    return _turned(pixels[:, :, 2::-1], orientation, orientation, notes), tuple(notes)


def _not_read(subject: str, found: str) -> VizError:
    return VizError(f"{subject} {found}; supported formats: {readable_formats()}.", code="unsupported-format")


def _tiff_tags(file: BinaryIO) -> dict[int, Any]:
    """The tags of the first image in a TIFF file; none if they are damaged."""
    with contextlib.suppress(*_PILLOW_ERRORS):
        file.seek(0)
        head = file.read(16)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head[:8] if head[2] != 43 else head)
        file.seek(tags.next)
        tags.load(file)
        found = {tag: tags[tag] for tag in _READ_TAGS if tag in tags} | {_NEXT: tags.next}
        return found | ({_DNG_VERSION: b""} if head[8:10] == b"CR" else {})  # Canon's mark
    return {}


def _transparent_16(image: ImageFile.ImageFile, file: BinaryIO) -> np.ndarray | None:
    """Where a PNG file of 16 bits a channel has its transparent colour, bool `[H W]`; None if it has none.

    Pillow compares the colour with the pixels after it has reduced them to 8 bits.
    """
    colour = image.info.get("transparency")
    if image.format != "PNG" or colour is None or ";16" not in str(image.tile):
        return None
    import cv2  # heavy

    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.shape[:2] != (image.height, image.width) or values.dtype != np.uint16:
        return None
    del image.info["transparency"]
    if values.ndim == 2:
        return values == colour
    return (values[:, :, 2::-1] == np.array(colour, np.uint16)).all(2)


def _decoding_error(error: BaseException, file: BinaryIO, key: str, subject: str) -> VizError:
    if isinstance(error, MemoryError):
        return VizError(f"{subject} does not fit into memory; make the photo smaller.", code="picture-too-large")
    if isinstance(error, Image.DecompressionBombError):
        return VizError(f"{subject} contains too many pixels; make the photo smaller.", code="picture-too-large")
    cause = error.__cause__ or error  # Pillow raises a SyntaxError for any error in a header
    if _NOT_READ.search(f"{error} {cause}"):
        return _not_read(subject, f"is a {key} file of a kind that is not read ({one_line(str(error)).strip('.')})")
    at_end = isinstance(cause, (EOFError, IndexError, struct.error)) or "truncated" in str(cause).lower()
    if at_end or is_truncated(file, key):
        return VizError(
            f"{subject} ends too early: a part of the {key} file is missing, so copy or download it again.",
            code="picture-incomplete",
        )
    return VizError(f"{subject} is damaged: it begins like a {key} file but cannot be decoded.", code="picture-damaged")


def _upright_rgb(image: ImageFile.ImageFile, clear: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels and notes; `clear` tells which pixels are transparent, where Pillow cannot."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.tile = [_mended(image, tile) for tile in image.tile]
    coded = str(getattr(image, "tile", ""))  # how the file stores the samples; cleared by loading
    inverted = isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == _WHITE_IS_ZERO
    claimed = _orientation(image)
    image.load()
    remaining = _orientation(image)  # Pillow has already rotated TIFF files
    pixels, notes = to_rgb(image, coded, inverted)
    if clear is not None and clear.any():
        pixels[clear] = 255
        notes.append(_ON_WHITE)
    frames = 1
    with contextlib.suppress(*_PILLOW_ERRORS):  # a later frame may be damaged; only the first one is of interest
        frames = int(getattr(image, "n_frames", 1))
    if frames > 1:
        notes.insert(0, f"First of {frames} frames.")
    return _turned(pixels, claimed, remaining, notes), tuple(notes)


def _turned(pixels: np.ndarray, claimed: int, remaining: int, notes: list[str]) -> np.ndarray:
    """The pixels upright, a view; a note is added if the file `claimed` an EXIF orientation."""
    if claimed in _TURNS:
        notes.append(f"Set upright as its EXIF orientation asks: {_TURNS[claimed][3]}.")
    swap, down, across, _ = _TURNS.get(remaining, (False, 1, 1, ""))
    return (pixels.swapaxes(0, 1) if swap else pixels)[::down, ::across]


def _mended(image: TiffImagePlugin.TiffImageFile, tile: Any) -> Any:
    """The tile with the right raw mode, where Pillow's is wrong."""
    mode = str(tile.args[0])
    if tile.codec_name == "raw" and image.tag_v2.get(_PLANES) == 2 and max(image.tag_v2.get(_BITS, (8,))) == 16:
        mode += f";16{'B' if image.tag_v2.prefix == b'MM' else 'L'}" if len(mode) == 1 else ""
    # libtiff swaps the bytes itself, and Pillow knows that of unsigned 16 bits alone.
    if tile.codec_name == "libtiff" and sys.byteorder == "little":
        mode = {"I;16BS": "I;16S", "I;32BS": "I;32S", "F;32BF": "F;32F"}.get(mode, mode)
    return tile._replace(args=(mode, *tile.args[1:]))


def _orientation(image: Image.Image) -> int:
    with contextlib.suppress(*_PILLOW_ERRORS):  # ignore damaged EXIF data
        value = image.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) else 1
    return 1


def to_rgb(image: Image.Image, coded: str = "", inverted: bool = False) -> tuple[np.ndarray, list[str]]:
    """Uint8 `[H W 3]` of the loaded image, transparent parts on white, and notes about the conversions.

    `coded`: Pillow's description of the samples in the file, which tells 12 and 16 bits. `inverted`: whether white is zero.
    """
    mode, notes, transparent = image.mode, [], False
    many_bits = mode in ("I", "F") or mode.startswith("I;")
    black, white = 0.0, 255.0
    if many_bits:
        black, white, note = _range(image, coded)
        notes.append(note)
    elif _bits(coded) > 8:
        notes.append(f"{_bits(coded)} bits a channel reduced to 8.")
    if mode == "1":
        notes.append("Black and white, 1 bit a pixel.")
    elif many_bits or mode in ("L", "LA", "La"):
        notes.append("Greyscale: the three channels are equal.")
    elif mode in ("P", "PA"):
        notes.append("Colours come from a palette.")
    elif mode in ("CMYK", "LAB"):
        notes.append(f"{mode} converted to RGB without the file's colour profile.")
    pixels, top = np.empty((image.height, image.width, 3), np.uint8), 0
    for part in _strips(image):
        rows = pixels[top : top + part.height]
        if many_bits:
            grey = _scale(np.asarray(part), black, white)
            rows[:] = (255 - grey if inverted else grey)[:, :, None]
        elif part.has_transparency_data:
            over, found = _on_white(part)
            rows[:], transparent = np.asarray(over), transparent or found
        else:
            rows[:] = np.asarray(part.convert("RGB"))
        top += part.height
    return pixels, notes + ([_ON_WHITE] if transparent else [])


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """The image in strips of rows: conversions of a whole one would take several times its memory."""
    width, rows = image.width, max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        # `crop` refuses what is above Pillow's own limit.
        yield image.resize((width, bottom - top), Image.Resampling.NEAREST, box=(0, top, width, bottom))


def _bits(coded: str) -> int:
    """Bits per channel, from Pillow's raw mode (`"RGB;16B"`; in `"BGR;16"`, bits per pixel) or the maximum of a PPM file."""
    if found := re.search(r"(?<!BGR);(12|16)", coded):
        return int(found[1])
    if found := re.search(r"\('(?:L|I|RGB)', (\d+)\)", coded):
        return int(found[1]).bit_length()
    return 8


def _range(image: Image.Image, coded: str) -> tuple[float, float, str]:
    """The values of black and white in a grey image with more than 8 bits, and a note.

    16-bit files (and PPM's integers, which Pillow scales to 16 bits) range from 0 to 65535. For 32 bits no format defines
    white: values within 0…1 (floats), 0…255 or 0…65535 are read as that range, all others are stretched.
    """
    is_float = image.mode == "F"
    if image.mode not in ("I", "F") or (image.format == "PPM" and not is_float):
        top = 4095 if ";12" in coded else 65535
        return 0, top, f"{_bits(coded) if _bits(coded) > 8 else 16} bits a channel reduced to 8."
    kind, low, high = "32-bit numbers", math.inf, -math.inf
    for part in _strips(image):
        values = np.asarray(part)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        return 0, 0, f"{kind}, none of them finite: black."
    for top in (1, 255, 65535) if is_float else (255, 65535):
        if low >= 0 and high <= top:
            return 0, top, f"{kind} from {low:g} to {high:g}; {top} is taken for white."
    return low, high, f"{kind}: {low:g} to {high:g} stretched from black to white."


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
