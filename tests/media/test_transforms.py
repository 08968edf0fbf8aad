"""Resizing and cropping are bit-identical to torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, FiveCrop, InterpolationMode, Resize
from torchvision.transforms import functional as oracle

from tests.errors import refuses
from tests.media.files import noise
from vizapp.media.transforms import Method, centre_crop, five_crops, resize, resize_short_side

MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
    "area": InterpolationMode.BOX,
}
SIZES = [(37, 53), (53, 37), (64, 64), (5, 211), (300, 301), (4, 4)]


@pytest.mark.parametrize("method", MODES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wanted", [(64, 64), (31, 77), (1, 9), (129, 128)])
def test_resize_equals_torchvision(method: Method, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    pixels = noise(*size)
    expected = oracle.resize(Image.fromarray(pixels), list(wanted), MODES[method])
    given = resize(pixels, *wanted, method)
    assert given.dtype == np.uint8
    assert np.array_equal(given, np.asarray(expected))


@pytest.mark.parametrize("method", MODES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [7, 37, 64, 100])
def test_resize_short_side_equals_torchvision(method: Method, size: tuple[int, int], side: int) -> None:
    pixels = noise(*size)
    expected = np.asarray(Resize(side, MODES[method])(Image.fromarray(pixels)))
    assert np.array_equal(resize_short_side(pixels, side, method), expected)


def test_the_long_side_is_torchvisions_for_every_proportion() -> None:
    for height, width in [(333, 500), (500, 333), (427, 640), (99, 100), (224, 225), (11, 57)]:
        pixels = np.zeros((height, width, 3), np.uint8)
        for side in range(50, 60):
            expected = Resize(side, InterpolationMode.NEAREST)(Image.fromarray(pixels)).size[::-1]
            assert resize_short_side(pixels, side, "nearest").shape[:2] == expected


@pytest.mark.parametrize("size", [*SIZES, (41, 40), (43, 42), (39, 90)])
@pytest.mark.parametrize("wanted", [(40, 40), (39, 41), (36, 37), (38, 35), (4, 4), (65, 200)])
def test_centre_crop_equals_torchvision_with_its_rounding_and_padding(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    pixels = noise(*size)
    assert np.array_equal(centre_crop(pixels, *wanted), np.asarray(CenterCrop(wanted)(Image.fromarray(pixels))))


@pytest.mark.parametrize("wanted", [(4, 4), (36, 37), (37, 53), (21, 30)])
def test_five_crops_equal_torchvision(wanted: tuple[int, int]) -> None:
    pixels = noise(37, 53)
    expected = FiveCrop(wanted)(Image.fromarray(pixels))
    given = five_crops(pixels, *wanted)
    assert len(given) == 5
    assert all(np.array_equal(crop, np.asarray(other)) for crop, other in zip(given, expected, strict=True))


def test_grey_and_read_only_pixels_are_taken_and_left_alone() -> None:
    pixels = noise(20, 30)
    pixels.setflags(write=False)
    before = pixels.copy()
    for result in (
        resize(pixels, 10, 10),
        resize(pixels, 20, 30),
        centre_crop(pixels, 20, 30),
        centre_crop(pixels, 9, 9),
    ):
        assert not np.shares_memory(result, pixels) or not result.flags.writeable
    assert np.array_equal(pixels, before)
    assert resize(pixels[:, :, 0], 5, 7).shape == (5, 7)
    assert centre_crop(pixels[:, :, 0], 30, 20).shape == (30, 20)


def test_what_cannot_be_done_is_a_sentence() -> None:
    with refuses("picture-too-small"):
        five_crops(noise(20, 30), 21, 10)
    with refuses("picture-too-large"):  # a panorama whose long side would take a terabyte
        resize_short_side(np.zeros((4, 4_000_000, 3), np.uint8), 224)
