"""Kinds of picture files that Pillow reads wrongly, slowly or not at all."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from itertools import product

import numpy as np
import pytest
import tifffile

from tests.errors import refuses
from tests.media.files import bmp_header, noise
from vizapp.media import decoding
from vizapp.media.picture import open_picture

PIXELS = noise(20, 24, seed=5)


def tiff(values: np.ndarray, order: str = "<", **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values.astype(values.dtype.newbyteorder(order)), byteorder=order, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("order", "compression", "tile", "planes", "kind"),
    product("<>", (None, "zlib"), (None, (16, 16)), ("contig", "separate"), ("u1", "u2")),
)
def test_colours_of_tiff_files_are_right_however_they_are_stored(
    order: str, compression: str | None, tile: tuple[int, int] | None, planes: str, kind: str
) -> None:
    values = PIXELS.astype(kind) * (257 if kind == "u2" else 1)
    values = np.moveaxis(values, 2, 0) if planes == "separate" else values
    data = tiff(values, order, photometric="rgb", planarconfig=planes, compression=compression, tile=tile)
    picture = open_picture(data)
    assert np.array_equal(picture.pixels, PIXELS)
    assert ("16 bits a channel reduced to 8." in picture.notes) is (kind == "u2")


@pytest.mark.parametrize(
    ("order", "compression", "kind"), product("<>", (None, "zlib"), ("u1", "i2", "u2", "i4", "u4", "f4"))
)
def test_grey_tiff_files_are_right_or_refused(order: str, compression: str | None, kind: str) -> None:
    grey = PIXELS[:, :, 0].copy()
    grey.flat[:2] = 0, 255
    values = (grey / 255).astype(kind) if kind == "f4" else grey.astype(kind) * (257 if kind == "u2" else 1)
    data = tiff(values, order, photometric="minisblack", compression=compression)
    if (kind, order) == ("u4", ">"):
        with refuses("unsupported-format", "TIFF file of a kind that is not read"):
            open_picture(data)
        return
    assert np.abs(open_picture(data).pixels[:, :, 0].astype(int) - grey).max() <= 1


@pytest.mark.parametrize("kind", ["f2", "f8", "u8", "c8"])
def test_tiff_files_of_other_numbers_are_not_called_damaged(kind: str) -> None:
    with refuses("unsupported-format", "TIFF file of a kind that is not read"):
        open_picture(tiff(PIXELS[:, :, 0].astype(kind), photometric="minisblack"))
    with refuses("unsupported-format", "TIFF file of a kind that is not read"):
        open_picture(tiff(PIXELS.astype("f4"), photometric="rgb"))


def png_with_transparent(colour: int, pixels: np.ndarray, clear: np.ndarray) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    parts = (
        (b"IHDR", head),
        (b"tRNS", np.array(clear, ">u2").tobytes()),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


@pytest.mark.parametrize("colour", [0, 2])
def test_the_transparent_colour_of_16_bits_is_compared_in_16_bits(colour: int) -> None:
    shape = (6, 6) if colour == 0 else (6, 6, 3)
    pixels = np.full(shape, 1000, np.uint16)
    pixels[1], pixels[2] = 1001, 40_000  # in 8 bits the first is equal to the transparent colour
    picture = open_picture(png_with_transparent(colour, pixels, pixels[0, 0]))
    assert (picture.pixels[0] == 255).all()
    assert (picture.pixels[1] == 3).all() or (picture.pixels[1] == 4).all()
    assert (picture.pixels[2] < 160).all()
    assert picture.notes[-1] == "Transparent parts laid on white."
    opaque = open_picture(png_with_transparent(colour, pixels, pixels[0, 0] + 7))
    assert "Transparent parts laid on white." not in opaque.notes


# Raw photos and other kinds


def test_a_raw_photo_is_refused_or_its_preview_is_named_one() -> None:
    preview = tiff(PIXELS, photometric="rgb", extratags=[(50706, 1, 4, b"\1\4\0\0", True)])  # DNGVersion
    assert open_picture(preview).notes[0] == "Preview in a raw photo, 24 × 20 pixels."
    reduced = tiff(PIXELS, photometric="rgb", subfiletype=1)  # as NEF and ARW begin
    assert open_picture(reduced).notes[0] == "Preview in a raw photo, 24 × 20 pixels."
    assert not open_picture(tiff(PIXELS, photometric="rgb")).notes
    with refuses("unsupported-format", "raw photo"):
        open_picture(tiff(PIXELS[:, :, 0].astype("u2"), photometric=32803))  # colour filters
    with refuses("unsupported-format", "raw photo"):
        open_picture(tiff(PIXELS.astype("u2"), photometric=34892))  # linear


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypcrx ", "raw photo"), (b"FUJIFILMCCD-RAW 0201", "raw photo"), (b"IIRO\x08\0\0\0", "raw photo"),
        (b"IIU\0\x18\0\0\0", "raw photo"), (b"FOVb\0\0\3\0", "raw photo"), (b"\0MRM\0\0", "raw photo"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"), (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"), (b"v/1\x01\2\0\0\0", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance"), (b"DDS |\0\0\0", "DirectDraw"), (b"qoif\0\0\0\x10", "QOI"), (b"P7\nWIDTH 4", "PAM"),
        (b"SIMPLE  =                    T", "FITS"), (bytes(128) + b"DICM", "DICOM"), (b"gimp xcf v011", "GIMP"),
        (bytes(257) + b"ustar", "tar"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)  # fmt: skip
def test_other_kinds_are_called_by_their_names(head: bytes, kind: str) -> None:
    with refuses("unsupported-format", kind):
        open_picture(head + bytes(range(1, 200)))


# Slow decoders


def rle_bitmap(side: int) -> bytes:
    """A bitmap with a run for each pixel, which Pillow decodes in Python."""
    rows = b"\x01\x07" * side + b"\0\0"
    head = bytearray(bmp_header(side, side))
    struct.pack_into("<H", head, 28, 8)
    struct.pack_into("<I", head, 30, 1)  # run lengths
    start = 54 + 1024
    struct.pack_into("<I", head, 10, start)
    body = bytes(head[:54]) + bytes([value for n in range(256) for value in (n, n, n, 0)]) + rows * side + b"\0\1"
    return body[:2] + struct.pack("<I", len(body)) + body[6:]


SLOW = {
    "RLE bitmap": lambda: rle_bitmap(600),
    "plain PPM": lambda: b"P3 300 300 255\n" + b"7 " * (3 * 300 * 300) + b" " * 2**19,
    "PPM of 12 bits": lambda: b"P6 330 330 4095\n" + (112).to_bytes(2, "big") * (3 * 330 * 330),
}


class Taken:
    """A turn that never comes."""

    def __enter__(self) -> None:
        pytest.fail("the picture waits for its turn")

    def __exit__(self, *error: object) -> None: ...


@pytest.mark.parametrize("kind", SLOW)
def test_slow_pictures_are_decoded_apart_without_the_turn_of_large_ones(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, calls = SLOW[kind](), []
    monkeypatch.setattr(decoding, "call", lambda *given, call=decoding.call: calls.append(given) or call(*given))
    monkeypatch.setattr(decoding, "LARGE", 1)
    monkeypatch.setattr(decoding, "_turn", Taken())
    assert (open_picture(data).pixels == 7).all()
    assert len(calls) == 1


def test_a_picture_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "SECONDS", -1)
    with refuses("picture-too-slow"):
        open_picture(rle_bitmap(1200))


def test_a_slow_picture_can_be_cancelled() -> None:
    class Left(Exception):
        pass

    def leave(share: float) -> None:
        raise Left

    before = threading.active_count()
    with pytest.raises(Left):
        open_picture(rle_bitmap(600), tick=leave)
    assert threading.active_count() <= before + 1


def test_a_damaged_slow_picture_is_refused_as_any_other() -> None:
    with refuses("picture-damaged"):
        open_picture(SLOW["PPM of 12 bits"]()[: 2**19 + 100])
