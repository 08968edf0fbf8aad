"""Picture files of every unusual and damaged kind, made on the spot."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image


def saved(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a file of the given Pillow format."""
    stream = BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random pixels, uint8 `[H W 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file written chunk by chunk; `rows` are the uncompressed scan lines with their filter bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png16(values: np.ndarray) -> bytes:
    """A PNG file with 16 bits a channel: uint16 `[H W]` grey or `[H W 3]` RGB."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], rows, 16, 0 if values.ndim == 2 else 2)


def bmp_header(width: int, height: int) -> bytes:
    """A BMP file that promises 24-bit pixels and brings none."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def orientation(value: int) -> Image.Exif:
    """EXIF data with nothing but the orientation."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif
