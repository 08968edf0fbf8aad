"""Every kind of picture file becomes upright RGB, or an error message."""

from __future__ import annotations

import hashlib
import os
import resource
import struct
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from tests.media.files import bmp_header, noise, orientation, png, png16, saved
from vizapp.errors import VizError
from vizapp.media import decoding
from vizapp.media.picture import Picture, open_picture

PHOTO = noise(30, 40)
# A file that stores these pixels is upright after the turn that EXIF (2.32, section 4.6.4 A) assigns to the number.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def complaint(source: object, name: str = "") -> str:
    """The sentence with which the source is refused."""
    with pytest.raises(VizError) as caught:
        open_picture(source, name)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert text.rstrip("?").rstrip(".").count(". ") <= 1  # one sentence, and "Did you mean …?"
    return text


# What a picture is


def test_a_picture_has_the_files_pixels_name_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(saved(PHOTO))
    picture = open_picture(path)
    assert np.array_equal(picture.pixels, PHOTO)
    assert picture.pixels.dtype == np.uint8
    assert (picture.name, picture.notes) == ("noise.png", ())
    assert (picture.height, picture.width) == (30, 40)
    assert picture.digest == hashlib.sha256(b"(30, 40, 3)" + PHOTO.tobytes()).hexdigest()


def test_path_text_bytes_and_array_give_the_same_digest(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(saved(PHOTO))
    sources = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), PHOTO, PHOTO / 255]
    assert len({open_picture(source).digest for source in sources}) == 1  # type: ignore[arg-type]


def test_the_digest_tells_shapes_and_pixels_apart() -> None:
    flat, tall = np.zeros((4, 9, 3), np.uint8), np.zeros((9, 4, 3), np.uint8)
    other = flat.copy()
    other[3, 8, 2] = 1
    assert len({open_picture(array).digest for array in (flat, tall, other)}) == 3


def test_nobody_can_change_a_picture() -> None:
    array = PHOTO.copy()
    for source in (array, saved(array)):
        picture = open_picture(source)
        with pytest.raises(ValueError, match="read-only"):
            picture.pixels[0, 0, 0] = 1
    picture = open_picture(array)
    array[:] = 0
    assert np.array_equal(picture.pixels, PHOTO)
    assert array.flags.writeable


def test_a_picture_is_given_back_under_a_new_name_if_one_is_asked_for() -> None:
    picture = open_picture(PHOTO, "first")
    assert open_picture(picture) is picture
    renamed = open_picture(picture, "second")
    assert (renamed.name, renamed.digest) == ("second", picture.digest)


def test_names_are_one_line_of_encodable_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\nb\xff.png")
    path.write_bytes(saved(PHOTO))
    assert open_picture(path).name == "a b?.png"


# Formats and modes


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "AVIF"])
def test_lossless_files_give_their_pixels(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    grey = np.repeat(np.arange(0, 240, 2, dtype=np.uint8).reshape(8, 15, 1), 3, axis=2)
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    pixels = open_picture(saved(grey, kind, **options)).pixels.astype(int)
    assert np.abs(pixels - grey).max() <= (2 if kind == "AVIF" else 0)  # AVIF goes through YCbCr in 8 bits


def test_a_jpeg_is_what_pillow_decodes() -> None:
    data = saved(PHOTO, "JPEG", quality=90)
    assert np.array_equal(open_picture(data).pixels, np.asarray(Image.open(BytesIO(data))))


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_every_exif_orientation_comes_out_upright(number: int, kind: str) -> None:
    upright = np.zeros((16, 24, 3), np.uint8)  # four corners of different colours, in blocks of a JPEG's size
    upright[:8, :8], upright[:8, 16:], upright[8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = np.ascontiguousarray(STORED[number](upright))
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    picture = open_picture(saved(stored, kind, exif=orientation(number), **options))
    assert picture.pixels.shape == upright.shape
    assert np.abs(picture.pixels.astype(int) - upright).max() <= 2  # a JPEG's colours are rounded
    assert len(picture.notes) == (number > 1)
    assert all("upright" in note for note in picture.notes)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_does_not_hide_the_picture() -> None:
    for damaged in (b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0neither of the two byte orders"):
        picture = open_picture(saved(PHOTO, "PNG", exif=damaged))
        assert np.array_equal(picture.pixels, PHOTO)


def test_cmyk_white_is_white_and_ink_takes_light_away() -> None:
    inks = np.zeros((8, 16, 4), np.uint8)
    inks[:, 8:] = (0, 255, 255, 0)  # magenta and yellow: red
    for kind in ("JPEG", "TIFF"):
        picture = open_picture(saved(Image.fromarray(inks, "CMYK"), kind))
        assert picture.pixels[:, :8].min() >= 254
        assert np.abs(picture.pixels[:, 8:].astype(int) - (255, 0, 0)).max() <= 2
        assert any("CMYK" in note for note in picture.notes)


def test_transparent_parts_are_white_and_half_transparent_ones_half_white() -> None:
    rgba = np.full((8, 12, 4), (200, 100, 0, 255), np.uint8)
    rgba[:, 4:8, 3], rgba[:, 8:, 3] = 128, 0
    picture = open_picture(saved(rgba))
    half = [round((colour * 128 + 255 * 127) / 255) for colour in (200, 100, 0)]
    assert picture.pixels[0, ::4].tolist() == [[200, 100, 0], half, [255, 255, 255]]
    assert np.array_equal(open_picture(rgba).pixels, picture.pixels)
    assert picture.notes == open_picture(rgba).notes == ("Transparent parts laid on white.",)


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    rgba = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    for source in (saved(rgba), rgba):
        picture = open_picture(source)
        assert np.array_equal(picture.pixels, PHOTO)
        assert picture.notes == ()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "P"])
def test_transparency_of_every_mode_is_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255)).convert(mode)
    image.paste(Image.new(mode, (4, 8), {"L": 9, "LA": (9, 0), "RGB": (9, 9, 9), "P": 9}[mode]), (0, 0))
    key = {"L": 9, "RGB": (9, 9, 9), "P": 9}.get(mode)
    picture = open_picture(saved(image, "PNG", **({"transparency": key} if key else {})))
    assert (picture.pixels[:, :4] == 255).all()
    assert (picture.pixels[:, 4:] == 0).all()
    assert "Transparent parts laid on white." in picture.notes


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    picture = open_picture(saved(image))
    assert (picture.pixels == (10, 20, 30)).all()
    assert any("palette" in note for note in picture.notes)


def test_grey_and_black_and_white_have_three_equal_channels() -> None:
    grey = PHOTO[:, :, 0]
    picture = open_picture(saved(grey))
    assert np.array_equal(picture.pixels, np.dstack([grey] * 3))
    assert picture.notes == ("Greyscale: the three channels are equal.",)
    picture = open_picture(saved(Image.fromarray(grey > 127)))
    assert np.array_equal(picture.pixels[:, :, 1], np.where(grey > 127, 255, 0))
    assert picture.notes == ("Black and white, 1 bit a pixel.",)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_16_bit_gradient_is_right_to_one_grey_level(channels: int) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    picture = open_picture(png16(ramp if channels == 1 else np.dstack([ramp] * 3)))
    exact = ramp[:, :, None] / 257
    assert np.abs(picture.pixels - exact).max() < (
        0.51 if channels == 1 else 1
    )  # Pillow cuts RGB off, it does not round
    assert "16 bits a channel reduced to 8." in picture.notes


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_tiff_and_pgm_are_scaled(mode: str) -> None:
    ramp = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    stored = Image.frombytes(mode, (32, 32), ramp.astype("<u2" if mode == "I;16" else ">u2").tobytes())
    files = [saved(stored, "TIFF"), b"P5 32 32 65535\n" + ramp.astype(">u2").tobytes()]
    for data in files:
        picture = open_picture(data)
        assert np.abs(picture.pixels[:, :, 0] - ramp / 257).max() < 0.51
        assert "16 bits a channel reduced to 8." in picture.notes


def test_a_10_bit_pgm_is_scaled_by_its_own_maximum() -> None:
    ramp = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    picture = open_picture(b"P5 32 32 1023\n" + ramp.astype(">u2").tobytes())
    assert np.abs(picture.pixels[:, :, 0] - ramp.astype(int) * 255 / 1023).max() < 0.51
    assert "10 bits a channel reduced to 8." in picture.notes


def test_a_tiff_whose_zero_is_white_is_not_a_negative() -> None:
    data = saved(Image.fromarray(np.full((8, 8), 60000, np.uint16)), "TIFF")
    black_is_zero = b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00"  # tag 262, one short, 1
    assert data.count(black_is_zero) == 1
    inverted = open_picture(data.replace(black_is_zero, black_is_zero[:-2] + b"\x00\x00"))
    assert (inverted.pixels == 255 - open_picture(data).pixels).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([0, 0.5, 1]), [0, 128, 255]),
        (np.float32([0, 100, 255]), [0, 100, 255]),
        (np.float32([-1, 0, 1]), [0, 128, 255]),
        (np.float32([np.nan, 0, 1]), [0, 0, 255]),
        (np.int32([0, 100, 255]), [0, 100, 255]),
        (np.int32([0, 257, 65535]), [0, 1, 255]),
        (np.int32([-100000, 0, 100000]), [0, 128, 255]),
        (np.int32([-7, -7, -7]), [0, 0, 0]),
    ],
)
def test_32_bit_files_are_taken_for_what_their_range_looks_like(values: np.ndarray, expected: list[int]) -> None:
    wide = values.repeat(4)[None].repeat(4, axis=0)
    picture = open_picture(saved(wide, "TIFF"))
    assert picture.pixels[0, ::4, 0].tolist() == expected
    assert any(note.startswith("32-bit numbers") for note in picture.notes)


def test_16_bits_a_pixel_are_not_taken_for_16_a_channel() -> None:
    data = saved(np.zeros((8, 8, 3), np.uint8), "BMP")[:54]
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    data = data[:10] + struct.pack("<I", 66) + data[14:28] + struct.pack("<HI", 16, 3) + data[34:] + masks
    picture = open_picture(data + struct.pack("<H", 0xF800) * 64)
    assert (picture.pixels == (255, 0, 0)).all()
    assert picture.notes == ()


def test_12_bits_are_scaled_by_their_own_maximum() -> None:
    tags = [(256, 8), (257, 8), (258, 12), (259, 1), (262, 1), (273, 110), (277, 1), (278, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    picture = open_picture(data.ljust(110, b"\0") + b"\x80\x0f\xff" * 32)  # 2048 and 4095 by turns
    assert picture.pixels[0, :2, 0].tolist() == [128, 255]
    assert "12 bits a channel reduced to 8." in picture.notes


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_many_frames_the_first_is_shown(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = open_picture(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert (picture.pixels == (255, 0, 0)).all()
    assert "First of 3 frames." in picture.notes


# Files that are none


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(saved(PHOTO))
    text = complaint(tmp_path / "holliday.png")
    assert "no file" in text
    assert "Did you mean holiday.png?" in text
    assert "no file" in complaint(str(tmp_path / "none" / "x.png"))


def test_places_that_hold_no_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "is a folder" in complaint(tmp_path)
    assert "pipe" in complaint(tmp_path / "pipe.png")
    assert "NUL" in complaint("a\0b.png")
    assert "empty" in complaint("  ")
    assert "home folder" in complaint("~nobody-of-this-name/x.png")
    assert "too long" in complaint("x" * 5000)


def test_a_file_that_may_not_be_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(saved(PHOTO))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # permissions themselves do not stop the superuser
    assert "secret.png cannot be read: permission denied" in complaint(path)


def test_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jpg").touch()
    assert "none.jpg is empty" in complaint(tmp_path / "none.jpg")
    assert "is empty" in complaint(b"")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b"PK\x03\x04" + bytes(40), "ZIP"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\xef\xbb\xbf\n<svg xmlns=''>", "SVG"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"\0\0\0\x18ftypisom" + bytes(20), "film"),
        (b"Dear diary", "text"),
        (b"\xff\x07\x81\x99" * 30, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(data: bytes, kind: str) -> None:
    text = complaint(data, "upload")
    assert kind in text
    assert text.startswith("upload ")
    assert "JPEG, PNG" in text


@pytest.mark.parametrize("kind", ["ICO", "EPS", "TGA", "PCX", "PDF", "JPEG2000"])
def test_formats_that_are_not_on_the_list_are_refused(kind: str) -> None:
    complaint(saved(PHOTO, kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_truncated_file_is_said_to_end_too_early(kind: str) -> None:
    data = saved(PHOTO, kind)
    for part in (0.3, 0.6, 0.9):
        assert "ends too early" in complaint(data[: int(len(data) * part)], "photo")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_cut_anywhere_in_the_header_is_a_truncated_file_too(kind: str) -> None:
    data = saved(PHOTO, kind)
    for length in range(8, 60):
        assert "ends too early" in complaint(data[:length])


def test_damage_in_the_middle_is_told_from_truncation() -> None:
    data = bytearray(saved(PHOTO))
    data[20] ^= 0xFF  # the width in the header: its checksum fails
    assert "damaged" in complaint(bytes(data))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 40), (40, 3)])
def test_pictures_of_less_than_four_pixels_are_refused(height: int, width: int) -> None:
    array = np.zeros((height, width, 3), np.uint8)
    for source in (array, saved(array)):
        assert f"{width} × {height}" in complaint(source)
    open_picture(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        png(30_000, 30_000, bytes(4_000_000)),
        bmp_header(30_000, 30_000),
        b"P6 30000 30000 255\n",
        b"GIF89a" + struct.pack("<HH3x", 30_000, 30_000) + b"," + struct.pack("<HHHH", 0, 0, 9, 9) + b"\0\2\0;",
    ],
    ids=["PNG", "BMP", "PPM", "GIF"],
)
def test_a_bomb_is_refused_by_its_header_and_costs_no_memory(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = complaint(data, "bomb")
    assert "30,000 × 30,000" in text
    assert "900 megapixels" in text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; the pixels would be 2.7 million


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, busy, most = decoding._upright_rgb, Counter[str](), Counter[str]()

    def watched(image: Image.Image, clear: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
        kind = "large" if image.height * image.width > 1200 else "small"
        busy[kind] += 1
        most[kind] = max(most[kind], busy[kind])
        time.sleep(0.05)
        busy[kind] -= 1
        return decoded(image, clear)

    monkeypatch.setattr(decoding, "_upright_rgb", watched)
    monkeypatch.setattr(decoding, "LARGE", 1200)
    files = [saved(noise(30, 40), "PNG"), saved(noise(30, 41), "PNG")] * 4
    with ThreadPoolExecutor(8) as people:
        assert [picture.width for picture in people.map(open_picture, files)] == [40, 41] * 4
    assert most["large"] == 1
    assert most["small"] > 1


def test_the_limit_is_the_owners_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    data, limit = saved(np.zeros((1200, 1000, 3), np.uint8)), Image.MAX_IMAGE_PIXELS
    monkeypatch.setenv("VIZAPP_PICTURE_MEGAPIXELS", "1")
    assert "VIZAPP_PICTURE_MEGAPIXELS" in complaint(data)
    assert "megapixels" in complaint(np.zeros((1200, 1000), np.uint8))
    monkeypatch.setenv("VIZAPP_PICTURE_MEGAPIXELS", "2")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_picture(data).height == 1200
    monkeypatch.undo()
    assert limit == Image.MAX_IMAGE_PIXELS
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# Arrays


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 1)])
def test_grey_arrays_get_three_channels(shape: tuple[int, ...]) -> None:
    array = np.arange(72, dtype=np.uint8).reshape(shape)
    picture = open_picture(array)
    assert np.array_equal(picture.pixels, np.dstack([array.reshape(9, 8)] * 3))
    assert picture.notes == ("Greyscale: the three channels are equal.",)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_scaled_and_rounded(kind: type) -> None:
    array = np.linspace(0, 1, 4 * 64 * 3).reshape(4, 64, 3).astype(kind)
    assert np.array_equal(open_picture(array).pixels, np.rint(array.astype(float) * 255))


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((20, 20, 20), np.uint8), "[20, 20, 20], in which no axis is clearly that of the bands"),
        (np.zeros((20, 3, 20), np.uint8), "[20, 3, 20]"),
        (np.zeros((600, 1400, 1300), np.uint8), "1,092,000,000 values"),
        (np.zeros((600, 1, 1), np.uint8), "1 × 600"),
        (np.zeros((1, 20, 20, 3), np.uint8), "[1, 20, 20, 3]"),
        (np.zeros(20, np.uint8), "[20]"),
        (np.zeros((0, 20, 3), np.uint8), "20 × 0"),
        (np.zeros((20, 20, 3), np.int64), "int64"),
        (np.zeros((20, 20), bool), "bool"),
        (np.zeros((20, 20), complex), "complex128"),
        (np.full((20, 20, 3), np.nan), "1,200 values that are NaN or infinite, the first in band 0 at row 0, column 0"),
        (np.full((20, 20, 2), np.inf), "NaN or infinite"),
        (np.array([["a"] * 9] * 9), "<U1"),
        (None, "NoneType"),
        (3, "int"),
    ],
)
def test_other_arrays_are_refused_with_what_was_found(array: object, found: str) -> None:
    assert found in complaint(array)


# Whatever the bytes


def picture_or_sentence(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged EXIF data
        patch.setenv("VIZAPP_PICTURE_MEGAPIXELS", "1")  # a mutated header may promise millions of pixels
        try:
            picture = open_picture(data)
        except VizError:
            return
    assert isinstance(picture, Picture)
    assert picture.pixels.shape == (picture.height, picture.width, 3)
    assert picture.pixels.dtype == np.uint8


SMALL = noise(12, 16)
VALID = [
    *(saved(SMALL, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP")),
    saved(SMALL, "JPEG", exif=orientation(6)),
    saved(SMALL, "TIFF", compression="tiff_lzw"),
    saved(SMALL, "GIF", save_all=True, append_images=[Image.fromarray(SMALL[::-1])]),
    png16(np.arange(64, dtype=np.uint16).reshape(8, 8)),
]
MAGIC = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"P6 ",
    b"RIFF\0\0\0\0WEBPVP8 ",
]
UNHURRIED = settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow])


@UNHURRIED
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=300))
def test_arbitrary_bytes_are_a_picture_or_a_sentence(magic: bytes, rest: bytes) -> None:
    picture_or_sentence(magic + rest)


@UNHURRIED
@given(
    data=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    header=st.booleans(),
    cut=st.floats(0.5, 1),
)
def test_mutated_files_are_a_picture_or_a_sentence(
    data: bytes, changes: list[tuple[float, int]], header: bool, cut: float
) -> None:
    mutated = bytearray(data)
    for place, value in changes:
        mutated[int(place * (min(len(data), 200) if header else len(data)))] = value
    picture_or_sentence(bytes(mutated[: int(len(mutated) * cut)]))
