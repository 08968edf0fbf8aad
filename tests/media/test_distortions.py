"""Transformed photos against slices, numpy's rotation, and plain formulas of the corruptions."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
from PIL import Image

from tests.media.files import noise
from vizapp.media.distortions import FAMILIES, ResizedPhoto, resized_photo, usual_amounts
from vizapp.media.transforms import View, gaussian_blur

VIEW = View(40, 40, 52)
WIDE = noise(104, 150)  # resized to 52 × 75


@pytest.fixture(scope="module")
def photo() -> ResizedPhoto:
    return resized_photo(VIEW, WIDE)


@pytest.mark.parametrize(
    "view",
    [VIEW, View(40, 40, 40), View(36, 41, 52), View(40, 40, (44, 61)), View(60, 60, 52), View(33, 80, 52, floor=True)],
)
@pytest.mark.parametrize("pixels", [WIDE, noise(90, 61)])
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_clean_amount_gives_exactly_what_the_network_sees(view: View, pixels: np.ndarray, kind: str) -> None:
    seen = view.apply(pixels)
    found = resized_photo(view, pixels).transformed(kind, FAMILIES[kind].clean)
    assert np.array_equal(found, seen)
    if kind == "rotate":
        assert np.array_equal(resized_photo(view, pixels).transformed(kind, -360), seen)


def by_a_loop(photo: ResizedPhoto, right: int, down: int, edge: str) -> np.ndarray:
    """Each pixel of the crop shows the one of the canvas that many places before it, or what is beyond the canvas."""
    height, width = photo.pixels.shape[:2]
    seen = np.empty((photo.height, photo.width, 3), np.uint8)
    for row in range(photo.height):
        for column in range(photo.width):
            y, x = photo.top + row - down, photo.left + column - right
            if edge == "grey" and not (0 <= y < height and 0 <= x < width):
                seen[row, column] = 128
                continue
            if edge == "repeat":
                y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            while edge == "mirror" and not (0 <= y < height and 0 <= x < width):  # about the outermost pixel
                y, x = -y if y < 0 else y, -x if x < 0 else x
                y = 2 * (height - 1) - y if y >= height else y
                x = 2 * (width - 1) - x if x >= width else x
            seen[row, column] = photo.pixels[y, x]
    return seen


@pytest.mark.parametrize("edge", ["grey", "mirror", "repeat"])
@pytest.mark.parametrize("amount", [-40, -7, 5, 17, 39])
def test_a_shift_moves_the_crop_by_exactly_that_many_pixels(photo: ResizedPhoto, amount: int, edge: str) -> None:
    assert np.array_equal(photo.transformed("shift-x", amount, edge), by_a_loop(photo, amount, 0, edge))
    assert np.array_equal(photo.transformed("shift-y", amount, edge), by_a_loop(photo, 0, amount, edge))


def test_a_shift_brings_in_the_photo_as_far_as_it_goes(photo: ResizedPhoto) -> None:
    """There are 17 or 18 pixels beside the crop, and 6 above and below it."""
    moved = photo.transformed("shift-x", 17)
    assert np.array_equal(moved, photo.pixels[6:46, photo.left - 17 : photo.left + 23])
    assert (photo.transformed("shift-y", 9)[:3] == 128).all()


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
@pytest.mark.parametrize("side", [40, 41])
@pytest.mark.parametrize("edge", ["grey", "mirror", "repeat"])
def test_a_rotation_by_quarters_is_numpys(quarters: int, side: int, edge: str) -> None:
    photo = resized_photo(View(side, side, 52), WIDE)
    assert np.array_equal(photo.transformed("rotate", 90 * quarters, edge), np.rot90(photo.crop, quarters))


def test_what_turns_into_the_corners_is_the_photo_and_beyond_it_the_edge() -> None:
    square = resized_photo(View(40, 40, 40), noise(40, 40))
    assert (square.transformed("rotate", 45)[0, 0] == 128).all()
    assert (square.transformed("rotate", 45, "repeat")[0, 0] != 128).any()
    large = resized_photo(View(40, 40, 80), np.full((80, 80, 3), 200, np.uint8))
    assert (large.transformed("rotate", 45) == 200).all()


@pytest.mark.parametrize(("edge", "mode"), [("mirror", "reflect"), ("repeat", "edge")])
@pytest.mark.parametrize(("kind", "amount"), [("rotate", 33), ("scale", 0.6)])
def test_what_enters_is_as_if_the_photo_went_on(
    photo: ResizedPhoto, kind: str, amount: float, edge: str, mode: str
) -> None:
    wider = np.pad(photo.pixels, ((40, 40), (40, 40), (0, 0)), mode=mode)
    larger = ResizedPhoto(wider, photo.top + 40, photo.left + 40, 40, 40)
    found = photo.transformed(kind, amount, edge).astype(int)
    assert np.abs(found - larger.transformed(kind, amount)).max() <= 1
    assert np.abs(found - photo.transformed(kind, amount)).max() > 50


@pytest.mark.parametrize(("kind", "amount"), [("rotate", 33), ("rotate", 215), ("scale", 1.45), ("scale", 0.8)])
def test_turning_and_enlarging_interpolate_bilinearly(kind: str, amount: float) -> None:
    """Within what sixteenths of a pixel of a smooth picture change."""
    y, x = np.mgrid[:80, :80]
    smooth = np.stack([90 + 60 * np.sin(x / 9), 120 + 50 * np.cos(y / 7), 2.0 * x + y], 2).clip(0, 255).astype(np.uint8)
    photo = resized_photo(View(40, 40, 80), smooth)
    angle, factor = (np.deg2rad(amount), 1.0) if kind == "rotate" else (0.0, amount)
    found = photo.transformed(kind, amount)
    expected = np.empty_like(found)
    for row in range(40):
        for column in range(40):
            across, up = column - 19.5, 19.5 - row
            # the place before the picture was turned anticlockwise: turned clockwise
            back = across * np.cos(angle) + up * np.sin(angle), -across * np.sin(angle) + up * np.cos(angle)
            at_x, at_y = 20 + 19.5 + back[0] / factor, 20 + 19.5 - back[1] / factor
            left, top = int(at_x), int(at_y)
            share_x, share_y = at_x - left, at_y - top
            part = smooth[top : top + 2, left : left + 2].astype(float)
            line = part[0] * (1 - share_y) + part[1] * share_y
            expected[row, column] = np.rint(line[0] * (1 - share_x) + line[1] * share_x)
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_brightness_is_added_to_the_value_of_hsv() -> None:
    pixels = np.array([[[200, 100, 50], [0, 0, 0], [255, 0, 0], [9, 9, 9]]], np.uint8)
    found = ResizedPhoto(pixels, 0, 0, 1, 4).transformed("brightness", 3)
    for one, expected in zip(found[0], pixels[0] / 255, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*expected)
        assert np.abs(one / 255 - colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.3))).max() <= 0.5 / 255 + 1e-9


def test_contrast_and_noise_and_blur_and_jpeg_have_the_published_strengths(photo: ResizedPhoto) -> None:
    canvas, cut = photo.pixels / 255, np.s_[photo.top : photo.top + 40, photo.left : photo.left + 40]
    mean = canvas.mean((0, 1))
    for severity, kept in enumerate((0.4, 0.3, 0.2, 0.1, 0.05), 1):
        expected = (canvas - mean) * kept + mean
        assert np.abs(photo.transformed("contrast", severity) / 255 - expected[cut]).max() <= 0.5 / 255 + 1e-9
    grey = ResizedPhoto(np.full((200, 200, 3), 128, np.uint8), 0, 0, 200, 200)
    for severity, deviation in enumerate((0.08, 0.12, 0.18), 1):  # stronger noise is clipped
        assert (grey.transformed("noise", severity) / 255).std() == pytest.approx(deviation, rel=0.02)
    for severity, sigma in enumerate((1, 2, 3, 4, 6), 1):
        assert np.array_equal(photo.transformed("blur", severity), gaussian_blur(photo.pixels, sigma)[cut])
    for severity, quality in enumerate((25, 18, 15, 10, 7), 1):
        file = io.BytesIO()
        Image.fromarray(photo.pixels).save(file, "JPEG", quality=quality)
        assert np.array_equal(photo.transformed("jpeg", severity), np.asarray(Image.open(file))[cut])


def test_noise_depends_on_the_seed_alone(photo: ResizedPhoto) -> None:
    first, again, other = (photo.transformed("noise", 2, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_usual_amounts_are_those_of_the_papers() -> None:
    assert usual_amounts("rotate", 256) == tuple(range(0, 360, 5))
    assert usual_amounts("shift-x", 256) == tuple(range(-60, 61, 4))
    assert usual_amounts("shift-y", 512) == tuple(range(-120, 121, 8))
    assert usual_amounts("shift-y", 32)[:3] == (-8, -7, -6)
    assert len(set(usual_amounts("shift-x", 32))) == 17
    scale = usual_amounts("scale", 256)
    assert (scale[0], scale[-1], len(scale)) == (1.0, 1.9, 19)
    assert all(
        usual_amounts(kind, 224) == (0, 1, 2, 3, 4, 5) for kind in ("brightness", "contrast", "blur", "noise", "jpeg")
    )
