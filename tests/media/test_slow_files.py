"""Small files over which Pillow spends many seconds, because they have very many parts: they are decoded in another process."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.errors import refuses
from tests.media.files import noise, orientation, saved
from vizapp.errors import VizError
from vizapp.media import decoding
from vizapp.media.picture import open_picture

PIXELS = noise(20, 24, seed=5)
JPEG, PNG, GIF = (saved(PIXELS, kind) for kind in ("JPEG", "PNG", "GIF"))
PROGRESSIVE = saved(PIXELS, "JPEG", progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
Made = Callable[[int], bytes]


def inserted(whole: bytes, place: int, parts: bytes) -> bytes:
    return whole[:place] + parts + whole[place:]


def segment(number: int, data: bytes) -> bytes:
    return b"\xff" + bytes([number]) + struct.pack(">H", len(data) + 2) + data


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def in_jpeg(part: bytes) -> Made:
    return lambda count: inserted(JPEG, 2, part * count)


def in_png(part: bytes, mark: bytes = b"IDAT") -> Made:
    return lambda count: inserted(PNG, PNG.index(mark) - 4, part * count)


def in_gif(part: bytes) -> Made:
    return lambda count: inserted(GIF, GIF.index(b"\x2c\0\0\0\0"), part * count)


def tiff_numbers(count: int) -> bytes:
    """The resolution is so many numbers."""
    tags = [
        (256, 4, 1, 24),
        (257, 4, 1, 20),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
    ]
    tags += [(278, 4, 1, 20), (279, 4, 1, 480), (282, 5, count, 488 + 2 + 12 * 10 + 4)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", 488) + PIXELS[:, :, 0].tobytes()
    return head + struct.pack("<H", len(tags)) + entries + bytes(4) + b"\1\0\0\0" * (2 * count)


def tiff_frames(order: str, big: bool, last: int = 0) -> Made:
    """Equal frames in which white is 0, or they would be bands; `last` is where the last one says that the next is."""
    tags = [(256, 24), (257, 20), (258, 8), (259, 1), (262, 0), (273, 16), (277, 1), (278, 20), (279, 480)]
    size = 8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4

    def made(count: int) -> bytes:
        start = 16 + 480
        head = b"II" if order == "<" else b"MM"
        head += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, start) if big else (42, start)))
        parts = [head.ljust(16, b"\0") + PIXELS[:, :, 0].tobytes()]
        for number in range(count):
            following = start + size * (number + 1) if number < count - 1 else last
            entries = [
                struct.pack(order + ("HHQQ" if big else "HHII"), tag, 16 if big else 4, 1, value) for tag, value in tags
            ]
            parts.append(struct.pack(order + ("Q" if big else "H"), len(tags)) + b"".join(entries))
            parts.append(struct.pack(order + ("Q" if big else "I"), following))
        return b"".join(parts)

    return made


MANY: dict[str, tuple[Made, int]] = {  # the file with so many parts, and a number of them that is too large
    "JPEG segments": (in_jpeg(segment(0xE4, b"")), 400),
    "JPEG padding": (in_jpeg(b"\xff"), 400),
    "JPEG junk": (in_jpeg(b"\xff\0"), 400),
    "JPEG EXIF": (in_jpeg(segment(0xE1, b"Exif\0\0" + bytes(9))), 60),
    "JPEG resources": (in_jpeg(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\1\0\0\0\0\0\0" * 90)), 40),
    "JPEG scans": (lambda count: PROGRESSIVE[:-2] + LAST_SCAN * count + PROGRESSIVE[-2:], 400),
    "PNG chunks": (in_png(chunk(b"abCd", b"")), 400),
    "PNG empty data": (in_png(chunk(b"IDAT", b"")), 400),
    "PNG chunks after the data": (in_png(chunk(b"tEXt", b"k\0v"), b"IEND"), 400),
    "PNG profiles": (in_png(chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1000)))), 4),
    "GIF comment": (lambda count: in_gif(b"\x21\xfe" + b"\1c" * count + b"\0")(1), 400),
    "GIF comments": (in_gif(b"\x21\xfe\1c\0"), 400),
    "GIF junk": (in_gif(b"\0"), 400),
    "GIF frames": (lambda count: GIF[:-1] + GIF[GIF.index(b"\x2c\0\0\0\0") : -1] * (count - 1) + b"\x3b", 400),
    "PPM comment": (lambda count: b"P6\n#" + b"c" * count + b"\n24 20 255\n" + PIXELS.tobytes(), 400),
    "PPM spaces": (lambda count: b"P6\n" + b" " * count + b"24 20 255\n" + PIXELS.tobytes(), 400),
    "TIFF numbers": (tiff_numbers, 4000),
    "TIFF frames": (tiff_frames("<", False), 400),
    "TIFF frames, big-endian": (tiff_frames(">", False), 400),
    "BigTIFF frames": (tiff_frames("<", True), 400),  # the fourth kind Pillow cannot read
}  # fmt: skip


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With tight limits, the bytes that each call of another process may take; it is made in this one."""
    calls: list[int] = []
    for name, value in (("_MOST_READS", 300), ("_MOST_HEADER", 20_000), ("_SLOW_SCANS", 40 * 20 * 24)):
        monkeypatch.setattr(decoding, name, value)
    monkeypatch.setattr(
        decoding, "call", lambda function, given, limits, *_: calls.append(limits.nbytes) or function(*given)
    )
    return calls


@pytest.mark.filterwarnings("ignore:Metadata Warning")
@pytest.mark.parametrize("kind", MANY)
def test_files_of_very_many_parts_are_decoded_apart(kind: str, apart: list[int]) -> None:
    made, many = MANY[kind]
    few = open_picture(made(3))
    assert not apart
    picture = open_picture(made(many))
    assert len(apart) == 1
    assert apart[0] < 10**9
    assert np.array_equal(picture.pixels, np.asarray(Image.open(io.BytesIO(made(many))).convert("RGB")))
    assert np.array_equal(few.pixels, picture.pixels) or kind == "JPEG scans"  # each of them adds to the picture
    if "frames" in kind:
        assert (few.notes[0], picture.notes[0]) == ("First of 3 frames.", f"First of {many} frames.")
        assert few.notes[1:] == picture.notes[1:]
    else:
        assert few.notes == picture.notes


@pytest.mark.parametrize("kind", ["JPEG segments", "PNG chunks", "PPM comment"])
def test_one_that_is_damaged_is_refused_as_any_other(kind: str, apart: list[int]) -> None:
    made, many = MANY[kind]
    with refuses("picture-incomplete"):
        open_picture(made(many)[: -200 if kind != "PPM comment" else -900])
    assert apart


def test_one_that_has_too_few_pixels_is_refused_as_any_other(apart: list[int]) -> None:
    with refuses("picture-too-small"):
        open_picture(b"P6\n#" + b"c" * 400 + b"\n2 2 255\n" + bytes(12))
    assert apart


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_kinds_that_take_long_are_decoded_apart_from_some_size_on(
    kind: str, apart: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(PIXELS, kind)
    monkeypatch.setitem(decoding._SLOW_PIXELS, kind, 480)
    assert open_picture(data).pixels.shape == (20, 24, 3)
    assert not apart
    monkeypatch.setitem(decoding._SLOW_PIXELS, kind, 479)
    assert np.array_equal(open_picture(data).pixels, np.asarray(Image.open(io.BytesIO(data))))
    assert apart


def test_large_pictures_are_decoded_apart_where_somebody_may_cancel(
    apart: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pass over many photos a process for each would take longer than the photos."""
    monkeypatch.setattr(decoding, "LARGE", 479)
    assert np.array_equal(open_picture(PNG).pixels, PIXELS)
    assert not apart
    assert np.array_equal(open_picture(PNG, tick=lambda share: None).pixels, PIXELS)
    assert apart == [40 * 480 + 2 * len(PNG) + 2**28]


def test_a_loop_of_frames_ends(apart: list[int]) -> None:
    assert open_picture(tiff_frames("<", False, last=16 + 480)(2)).notes[0] == "First of 2 frames."
    assert not apart


def test_a_raw_preview_in_a_long_file_is_named_one(apart: list[int]) -> None:
    """What is found in the tags does not depend on the process."""
    whole = tiff_frames("<", False)(400)
    reduced = whole.replace(struct.pack("<HHII", 279, 4, 1, 480), struct.pack("<HHII", 254, 4, 1, 1))
    assert reduced != whole
    assert open_picture(reduced).notes[0] == "Preview in a raw photo, 24 × 20 pixels."
    assert apart


SHADES = np.linspace(0, 255, 480).astype(np.uint8).reshape(20, 24)
CLEAR = Image.fromarray(np.dstack([PIXELS, SHADES]))
WEBP: dict[str, Callable[..., bytes]] = {
    "lossy": lambda **more: saved(PIXELS, "WEBP", **more),
    "lossless": lambda **more: saved(PIXELS, "WEBP", lossless=True, **more),
    "transparent": lambda **more: saved(CLEAR, "WEBP", **more),
    "lossless, transparent": lambda **more: saved(CLEAR, "WEBP", lossless=True, exact=True, **more),
    "opaque with alpha": lambda **more: saved(Image.fromarray(PIXELS).convert("RGBA"), "WEBP", lossless=True, **more),
}


def of_webp(content: bytes, apart: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, object]:
    """The pixels and notes, or the complaint, of the path for large files or of Pillow's."""
    with monkeypatch.context() as patch:
        if apart:
            patch.setitem(decoding._SLOW_PIXELS, "WEBP", 0)
        try:
            picture = open_picture(content)
        except VizError as error:
            return b"", (error.code, str(error))
        return picture.pixels.tobytes(), (picture.pixels.shape, picture.notes)


@pytest.mark.parametrize("kind", WEBP)
@pytest.mark.parametrize("turned", range(1, 9))
def test_large_webp_files_have_the_pixels_and_notes_of_small_ones(
    kind: str, turned: int, apart: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV decodes the large ones, Pillow the small ones."""
    monkeypatch.setattr(decoding, "mapped", Strips(decoding.mapped))
    content = WEBP[kind](exif=orientation(turned))
    expected = of_webp(content, False, monkeypatch)
    assert not apart
    monkeypatch.setattr(decoding, "_upright_rgb", None)  # of Pillow's path
    assert of_webp(content, True, monkeypatch) == expected
    assert apart
    assert ("upright" in str(expected)) == (turned > 1)
    assert ("on white" in str(expected)) == ("transparent" in kind)


class Strips:
    """`mapped`, in which bands have a row each."""

    def __init__(self, module: object) -> None:
        self._module = module

    def bands(self, pixels: np.ndarray) -> list[np.ndarray]:
        return [pixels[row : row + 1] for row in range(len(pixels))]

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


def test_an_animated_webp_file_gives_its_first_frame_however_large(
    apart: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [Image.fromarray(noise(20, 24, seed)) for seed in range(3)]
    content = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    monkeypatch.setattr(decoding, "_decode_webp", None)
    pixels, notes = of_webp(content, True, monkeypatch)
    assert apart
    assert pixels == np.asarray(frames[0]).tobytes()
    assert notes == ((20, 24, 3), ("First of 3 frames.",))


@pytest.mark.parametrize("kind", ["lossless", "lossless, transparent", "transparent"])
def test_where_the_header_of_a_webp_file_is_wrong_about_alpha_large_ones_are_as_small_ones(
    kind: str, apart: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(WEBP[kind](exif=orientation(2)))
    assert content[12:16] == b"VP8X"
    content[20] ^= 0x10
    assert of_webp(bytes(content), True, monkeypatch) == of_webp(bytes(content), False, monkeypatch)
    assert apart


@pytest.mark.parametrize("kind", WEBP)
def test_a_large_webp_file_of_pixels_alone_is_as_a_small_one(
    kind: str, apart: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = of_webp(WEBP[kind](), False, monkeypatch)
    monkeypatch.setattr(decoding, "_upright_rgb", None)
    assert of_webp(WEBP[kind](), True, monkeypatch) == expected


@pytest.mark.parametrize("kind", WEBP)
def test_damaged_webp_files_are_refused_alike_however_large(
    kind: str, apart: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, numbers, refused = WEBP[kind](), np.random.default_rng(0), 0
    for _ in range(150):
        content = bytearray(whole)
        content[numbers.integers(12, len(content))] ^= int(numbers.integers(1, 256))
        expected = of_webp(bytes(content), False, monkeypatch)
        assert of_webp(bytes(content), True, monkeypatch) == expected
        refused += not expected[0]
    for length in range(30, len(whole), 37):
        expected = of_webp(whole[:length], False, monkeypatch)
        assert expected[1][0] == "picture-incomplete"
        assert of_webp(whole[:length], True, monkeypatch) == expected
    assert refused


FLAT = Image.new("RGB", (3000, 3000), (200, 30, 60))
LARGE: dict[str, Callable[[], bytes]] = {  # 9 megapixels each
    "WebP": lambda: saved(FLAT, "WEBP", quality=1, method=0),
    "lossless WebP": lambda: saved(FLAT, "WEBP", lossless=True, quality=0, method=0),
    "transparent WebP": lambda: saved(transparent(), "WEBP", lossless=True, quality=0, method=0),
    "JPEG": lambda: saved(FLAT, "JPEG", progressive=True),
    "PNG": lambda: saved(FLAT, "PNG"),
    "transparent PNG": lambda: saved(transparent(), "PNG"),
    "PNG of 16 bits": lambda: saved(Image.new("I;16", FLAT.size, 30_000), "PNG"),
    "GIF": lambda: saved(FLAT, "GIF"),
    "TIFF of floats": lambda: saved(Image.new("F", FLAT.size, 0.5), "TIFF", compression="tiff_deflate"),
}


def transparent() -> Image.Image:
    image = FLAT.convert("RGBA")
    image.putalpha(100)
    return image


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.slow
def test_large_pictures_take_ten_bytes_a_pixel_and_what_has_less_memory_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A decoder without memory says that the file is damaged."""
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    monkeypatch.setattr(decoding, "LARGE", 1)
    content = LARGE[kind]()
    monkeypatch.setattr(decoding, "_BYTES_PER_PIXEL", 10)
    monkeypatch.setattr(decoding, "_SPARE", 2**25)
    assert open_picture(content, tick=lambda share: None).pixels.shape == (3000, 3000, 3)
    monkeypatch.setattr(decoding, "_BYTES_PER_PIXEL", 3)
    monkeypatch.setattr(decoding, "_SPARE", 0)
    with refuses("picture-too-slow"):
        open_picture(content, tick=lambda share: None)
