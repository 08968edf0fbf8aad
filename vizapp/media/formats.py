"""The supported picture formats, and what other files probably are."""

from __future__ import annotations

from functools import cache
from io import SEEK_END
from typing import BinaryIO

from PIL import Image, ImageFile, features

from vizapp.media.stacks import STACK_SUFFIXES

# Formats that Pillow decodes itself. Not included: formats that it passes to another program (EPS to Ghostscript), and
# containers whose header does not contain the size of the picture (ICO, ICNS).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_SPELLING = {"WEBP": "WebP"}
_PREFIX = 64  # bytes that identify the format
_FAR = 512  # bytes that identify other kinds of files
_TAIL = 1024  # bytes that are searched for the end mark: some programs append their own data
_END_MARK = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\x3b"}
_PROMISE = {
    "WEBP": (4, 8),
    "BMP": (2, 0),
}  # offset of the file size in the header, and the bytes that it does not count

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript drawing"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript drawing"),
    (0, b"PK\x03\x04", "a ZIP archive (office documents and PyTorch checkpoints are such files, too)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"8BPS", "a Photoshop document"),
    (4, b"ftyphei", "a HEIC photo"),
    (4, b"ftyphev", "a HEIC photo"),
    (4, b"ftypmif1", "a HEIC photo"),
    (4, b"ftypmsf1", "a HEIC photo"),
    (4, b"ftypavi", "an AVIF image"),
    (4, b"ftypcrx ", "a raw photo of a camera"),
    (4, b"ftyp", "a film"),
    (0, b"\x1aE\xdf\xa3", "a film"),
    (0, b"FUJIFILMCCD-RAW", "a raw photo of a camera"),
    (0, b"II*\0\x10\0\0\0CR", "a raw photo of a camera"),
    (0, b"IIRO", "a raw photo of a camera"),
    (0, b"IIRS", "a raw photo of a camera"),
    (0, b"MMOR", "a raw photo of a camera"),
    (0, b"IIU\0", "a raw photo of a camera"),
    (0, b"FOVb", "a raw photo of a camera"),
    (0, b"\0MRM", "a raw photo of a camera"),
    (8, b"AVI ", "a film"),
    (8, b"WAVE", "a sound recording"),
    (0, b"ID3", "a sound recording"),
    (0, b"OggS", "a sound recording"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (4, b"jP  \r\n", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"JXL \r\n", "a JPEG XL image"),
    (0, b"II\xbc", "a JPEG XR image"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"DDS ", "a DirectDraw image"),
    (0, b"qoif", "a QOI image"),
    (0, b"P7\n", "a PAM image"),
    (0, b"SIMPLE  =", "a FITS file"),
    (128, b"DICM", "a DICOM file"),
    (0, b"gimp xcf", "a GIMP document"),
    (0, b"icns", "an icon"),
    (0, b"AT&TFORM", "a DjVu document"),
    (0, b"\xfd7zXZ", "an XZ archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ARROW1", "an Arrow file"),
    (0, b"GGUF", "a GGUF file"),
    (4, b"TFL3", "a TensorFlow Lite file"),
    (0, b"version https://git-lfs", "a pointer of Git LFS (fetch the file itself with git lfs pull)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x80\x02", "pickled Python data"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
)
_MARKUP: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "an SVG drawing"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
)
_TEXT = frozenset(range(32, 127)) | {9, 10, 13}


@cache
def _formats() -> tuple[str, ...]:
    """The supported formats that this build of Pillow can read."""
    Image.init()
    optional = {"WEBP": "webp", "AVIF": "avif"}
    return tuple(
        key for key in _FORMATS if key in Image.OPEN and (key not in optional or features.check(optional[key]))
    )


def readable_formats() -> str:
    """The supported formats, for messages: `"JPEG, PNG, …, NPY or NPZ"`."""
    names = [_SPELLING.get(key, key) for key in _formats()]
    return f"{', '.join(names)}, NPY or NPZ"


@cache
def picture_suffixes() -> frozenset[str]:
    """The file name suffixes of the supported formats, in lower case and with the dot."""
    registered = {suffix for suffix, key in Image.registered_extensions().items() if key in _formats()}
    return frozenset({*registered, *STACK_SUFFIXES, ".mpo"})  # MPO: several JPEG pictures, of which the first is read


def format_of(file: BinaryIO) -> str | None:
    """The format (`"JPEG"`, `"PNG"`, …) according to the first bytes of the file, or None."""
    file.seek(0)
    prefix = file.read(_PREFIX).ljust(_PREFIX, b"\0")  # older plugins index into it without checking its length
    for key in _formats():
        accept = Image.OPEN[key][1]
        if accept is None or accept(prefix) is True:
            return key
    return None


def open_header(file: BinaryIO, key: str) -> ImageFile.ImageFile:
    """Pillow's image of format `key`, with only the header read.

    Not `Image.open`, which warns about large pictures or refuses them, by a limit for the whole process, before their size
    can be read. Raises whatever Pillow's plugin raises on a damaged header.
    """
    file.seek(0)
    return Image.OPEN[key][0](file, "")


def is_truncated(file: BinaryIO, key: str) -> bool:
    """Whether the end of a damaged file of format `key` is missing: the end mark, or bytes that the header announces."""
    size = file.seek(0, SEEK_END)
    if key in _END_MARK:
        file.seek(max(0, size - _TAIL))
        return _END_MARK[key] not in file.read()
    if key in _PROMISE:
        offset, more = _PROMISE[key]
        file.seek(offset)
        return int.from_bytes(file.read(4), "little") + more > size
    return False


def guess_kind(file: BinaryIO) -> str:
    """`"a PDF document"`, `"text"`, …, or an empty string if the first bytes are not known."""
    file.seek(0)
    prefix = file.read(_FAR)
    for offset, magic, kind in _MAGIC:
        if prefix[offset : offset + len(magic)] == magic:
            return kind
    begin = prefix.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for tag, kind in _MARKUP:
        if begin.startswith(tag):
            return kind
    return "text" if prefix and _TEXT.issuperset(prefix) else ""
