"""Colours represent the right numbers."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.media.files import noise
from vizapp.media.drawing import (
    COLOURS,
    GREY,
    boxes,
    busiest,
    categorical,
    contrast_limit,
    contrasted,
    crop_box,
    draw_box,
    heat,
    lay_over,
    narrow,
    overlay,
    paste,
    sheet,
    signed,
    tint,
    to_png,
    veil,
)


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE L*, 0 to 100, of uint8 `[... 3]` sRGB."""
    linear = np.where(colours / 255 <= 0.04045, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)


def test_a_png_gives_the_pixels_back_in_rgb() -> None:
    pixels = noise(9, 13)
    for array in (pixels, pixels[:, :, 0]):
        assert np.array_equal(np.asarray(Image.open(BytesIO(to_png(array)))), array)
    frozen = pixels.copy()
    frozen.setflags(write=False)
    assert to_png(frozen) == to_png(pixels)


def test_heat_rises_in_equal_steps_of_lightness() -> None:
    ramp = heat(np.linspace(-3, 7, 256)[None])[0]
    steps = np.diff(lightness(ramp))
    assert steps.min() > -0.3  # 8-bit colours round the lightness by that much
    assert lightness(ramp)[0] < 2
    assert lightness(ramp)[-1] > 95
    tenths = np.diff(lightness(ramp)[::51])
    assert tenths.max() < 1.5 * tenths.min()


def test_heat_is_rgb_and_not_bgr() -> None:
    red, _, blue = heat(np.array([[0.0, 0.6, 1.0]]))[0, 1]
    assert red > blue + 50  # the middle of inferno is orange


def test_heat_is_stretched_over_the_data_or_between_the_limits() -> None:
    values = np.array([[2.0, 3.0, 4.0]])
    ramp = heat(np.linspace(0, 1, 256)[None])[0]
    assert heat(values)[0].tolist() == ramp[[0, 128, 255]].tolist()
    assert heat(values, low=0, high=8)[0].tolist() == ramp[[64, 96, 128]].tolist()
    assert heat(values, low=3)[0].tolist() == ramp[[0, 0, 255]].tolist()
    assert heat(values, high=3)[0].tolist() == ramp[[0, 255, 255]].tolist()
    assert heat(values, low=9, high=9)[0].tolist() == ramp[[0, 0, 0]].tolist()
    assert heat(values.astype(np.float16))[0].tolist() == ramp[[0, 128, 255]].tolist()


@pytest.mark.filterwarnings("error")
def test_heat_takes_constant_missing_and_infinite_numbers() -> None:
    dark, bright = heat(np.array([[0.0, 1.0]]))[0].tolist()
    assert (heat(np.full((3, 4), 7.0)) == dark).all()
    assert heat(np.array([[np.nan, 1.0, 2.0]]))[0].tolist() == [[128] * 3, dark, bright]
    assert (heat(np.full((2, 2), np.nan)) == 128).all()
    assert heat(np.array([[-np.inf, 0.0, 1.0, np.inf]]))[0].tolist() == [dark, dark, bright, bright]
    assert heat(np.zeros((0, 4))).shape == (0, 4, 3)


def test_signed_is_symmetric_about_mid_grey() -> None:
    assert signed(np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]]))[0, :, 0].tolist() == [1, 64, 128, 192, 255]
    assert signed(np.array([[-2.0, 0.0, 1.0]]), scale=1)[0, :, 1].tolist() == [1, 128, 255]
    values = np.random.default_rng(0).normal(size=(5, 6, 3))
    assert (signed(values).astype(int) + signed(-values) == 256).all()
    assert signed(values).shape == (5, 6, 3)
    assert signed(values[:, :, 0]).shape == (5, 6, 3)


def test_full_contrast_is_not_set_by_a_few_pixels_far_above_the_others() -> None:
    values = np.zeros((40, 50, 3))
    values[:20] = np.linspace(-1, 1, 3000).reshape(20, 50, 3)  # the zeros beside them do not count
    values[0, 0] = 1000
    assert contrast_limit(values) == pytest.approx(np.sort(np.abs(values[:20]), axis=None)[int(0.995 * 2999)], abs=1e-3)
    assert (contrasted(values) == signed(values, contrast_limit(values))).all()
    assert contrast_limit(np.array([[0.0, np.nan, np.inf]])) == 0
    assert (contrasted(np.zeros((2, 2, 3))) == 128).all()


@pytest.mark.filterwarnings("error")
def test_signed_takes_zero_missing_and_infinite_numbers() -> None:
    assert (signed(np.zeros((3, 3))) == 128).all()
    assert (signed(np.full((3, 3), np.nan)) == 128).all()
    assert signed(np.array([[np.nan, -np.inf, np.inf, 0.5]]))[0, :, 2].tolist() == [128, 1, 255, 255]


def test_a_tint_is_red_above_zero_blue_below_and_clear_at_zero() -> None:
    colours = tint(np.array([[2.0, 1.0, 0.0, np.nan, -1.0, -9.0]]), 2.0)[0].astype(int)
    red, blue, opacity = colours[:, 0], colours[:, 2], colours[:, 3]
    assert opacity[[0, 2, 3, 5]].tolist() == [255, 0, 0, 255]
    assert opacity[1] == opacity[4]
    assert 127 < opacity[1] < 255
    assert (red[:2] > blue[:2] + 90).all()
    assert (blue[4:] > red[4:] + 90).all()
    drawn = tint(np.array([[1.0, -0.2]]), 1.0)
    file = to_png(drawn)
    assert np.asarray(Image.open(BytesIO(file))).tolist() == drawn.tolist()


def test_a_sheet_places_tiles_row_by_row() -> None:
    tiles = [np.full((2, 3, 3), 10 * number, np.uint8) for number in range(5)]
    whole = sheet(tiles, columns=2, gap=1, background=200)
    assert whole.shape == (3 * 2 + 2, 2 * 3 + 1, 3)
    assert whole[:, :, 0].tolist() == [
        [0, 0, 0, 200, 10, 10, 10],
        [0, 0, 0, 200, 10, 10, 10],
        [200] * 7,
        [20, 20, 20, 200, 30, 30, 30],
        [20, 20, 20, 200, 30, 30, 30],
        [200] * 7,
        [40, 40, 40, 200, 200, 200, 200],
        [40, 40, 40, 200, 200, 200, 200],
    ]


def test_a_sheet_enlarges_without_blur_and_centres_small_tiles() -> None:
    tile = noise(2, 3)
    assert np.array_equal(sheet([tile], columns=9, enlarge=4), np.kron(tile, np.ones((4, 4, 1), np.uint8)))
    both = sheet([np.zeros((3, 3, 3), np.uint8), np.full((1, 1, 3), 7, np.uint8)], columns=2, gap=0)
    assert both[:, 3:, 0].tolist() == [[255] * 3, [255, 7, 255], [255] * 3]
    with pytest.raises(ValueError, match="0 tiles"):
        sheet([], columns=3)


def test_overlay_mixes_the_stretched_map_into_the_photo() -> None:
    photo, over = noise(8, 12), noise(2, 3, seed=1)
    large = np.kron(over, np.ones((4, 4, 1), np.uint8))
    assert np.array_equal(overlay(photo, over, 0, "nearest"), photo)
    assert np.array_equal(overlay(photo, over, 1, "nearest"), large)
    mixed = overlay(photo, over, 0.25, "nearest")
    assert np.abs(mixed - (0.75 * photo + 0.25 * large)).max() <= 0.5
    assert overlay(photo, over).shape == photo.shape
    with pytest.raises(ValueError, match="opacity"):
        overlay(photo, over, 2)


def test_a_box_is_a_frame_on_its_inner_edge() -> None:
    pixels = np.zeros((7, 8, 3), np.uint8)
    drawn = draw_box(pixels, (1, 2, 6, 7), (9, 8, 7), thickness=1)
    frame = [[int(row in (1, 5) or column in (2, 6)) for column in range(2, 7)] for row in range(1, 6)]
    assert np.array_equal(drawn[1:6, 2:7], np.array(frame)[:, :, None] * [9, 8, 7])
    assert drawn.sum() == 16 * (9 + 8 + 7)
    assert pixels.sum() == 0


def test_a_box_is_clipped_to_the_picture() -> None:
    pixels = np.zeros((5, 5, 3), np.uint8)
    assert np.array_equal(draw_box(pixels, (-9, -9, 99, 99)), draw_box(pixels, (0, 0, 5, 5)))
    assert np.array_equal(draw_box(pixels, (3, -4, 9, 2)), draw_box(pixels, (3, 0, 5, 2)))
    assert draw_box(pixels, (9, 9, 12, 12)).sum() == 0
    assert (draw_box(pixels, (1, 1, 4, 4), (1, 1, 1), thickness=5)[1:4, 1:4] == 1).all()


@pytest.mark.parametrize(
    "box",
    [
        (2, 3, 5, 6), (-3, 2, 4, 9), (8, 7, 15, 12), (0, 0, 11, 9), (-4, -4, 2, 2),
        (20, 20, 24, 24), (-9, 0, -5, 4), (3, -9, 7, -5), (0, 10, 4, 14), (0, 0, 12, 10), (-5, 4, 7, 14),
    ],
)  # fmt: skip
@pytest.mark.parametrize("outside", [GREY, 0])
def test_a_part_is_cut_out_and_what_lies_beyond_the_border_is_filled(box: tuple[int, ...], outside: int) -> None:
    pixels = noise(12, 10)
    padded = np.pad(pixels, ((30, 30), (30, 30), (0, 0)), constant_values=outside)
    top, left, bottom, right = (place + 30 for place in box)
    expected = padded[top:bottom, left:right]
    for values in (pixels, pixels.astype(np.float32)):
        found = crop_box(values, box, outside)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(crop_box(pixels[..., 0], box, outside), expected[..., 0])


@pytest.mark.parametrize("box", [(-4, -4, 20, 20), (3, 3, 16, 5), (3, -8, 5, 3)])
def test_of_a_box_that_exceeds_the_picture_the_whole_is_cut(box: tuple[int, ...]) -> None:
    pixels = noise(12, 10)
    np.testing.assert_array_equal(crop_box(pixels, box), pixels)


def test_the_busiest_square_has_the_largest_sum_of_all() -> None:
    values = np.random.default_rng(0).normal(size=(9, 12, 3)) ** 3
    sums = {(top, left): np.abs(values[top : top + 4, left : left + 4]).sum() for top in range(6) for left in range(9)}
    top, left = max(sums, key=lambda place: sums[place])
    assert busiest(values, 4) == (top, left, top + 4, left + 4)


@pytest.mark.parametrize(
    ("side", "spot", "shown"),
    [(80, 6, 20), (80, 24, 26), (80, 36, 40), (80, 60, 80), (32, 4, 32)],
    ids=["quarter", "third", "half", "whole", "small"],
)
def test_projections_are_shown_without_their_empty_surroundings(side: int, spot: int, shown: int) -> None:
    values = []
    for top, left in ((0, side - spot), (side // 5, 1)):
        one = np.zeros((side, side, 3))
        one[top : top + spot, left : left + spot] = -1
        values.append(one)
    boxes = narrow(values)
    assert {box[2] - box[0] for box in boxes} == {box[3] - box[1] for box in boxes} == {shown}
    for one, (top, left, bottom, right) in zip(values, boxes, strict=True):
        assert np.abs(one[top:bottom, left:right]).sum() == np.abs(one).sum()


def test_other_arrays_are_refused() -> None:
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            to_png(wrong)
        with pytest.raises(ValueError, match="uint8"):
            draw_box(wrong, (0, 0, 1, 1))
    with pytest.raises(ValueError, match="uint8"):
        draw_box(np.zeros((4, 4, 4), np.uint8), (0, 0, 1, 1))
    with pytest.raises(ValueError, match="heat takes"):
        heat(np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="signed takes"):
        signed(np.zeros((2, 2, 4, 1)))


def test_of_other_than_three_channels_the_mean_of_the_magnitudes_is_drawn() -> None:
    values = np.random.default_rng(0).normal(0, 1, (5, 6, 4))
    assert np.array_equal(signed(values, 2), signed(np.abs(values).mean(2), 2))


def test_a_map_is_placed_over_a_part_of_the_photo_also_where_that_reaches_out() -> None:
    photo, colours = noise(20, 30), noise(4, 5)
    whole = np.repeat(np.repeat(colours, 4, 0), 4, 1)  # 16 × 20 pixels
    assert np.array_equal(paste(photo, colours, (2, 3, 18, 23), 1.0)[2:18, 3:23], whole)
    outside = paste(photo, colours, (-6, -8, 10, 12), 1.0)
    assert np.array_equal(outside[:10, :12], whole[6:, 8:])
    assert np.array_equal(outside[10:], photo[10:])
    assert np.array_equal(paste(photo, colours, (-6, -8, 10, 12), 0.0), photo)


def test_categories_have_colours_of_their_own_and_the_rest_is_grey() -> None:
    drawn = categorical(np.array([[0, 1, 2], [2, 1, 3]]), 2)
    assert np.array_equal(drawn[0, :2], COLOURS[:2])
    assert (drawn[0, 2] == GREY).all()
    assert (drawn[1, 2] == GREY).all()


def test_a_veil_is_the_heat_and_as_opaque_as_the_value_is_high() -> None:
    values = np.array([[0.0, 1.0, 2.0], [4.0, 8.0, np.nan]])
    drawn = veil(values, 0, 4)
    np.testing.assert_array_equal(drawn[..., :3], heat(values, 0, 4))
    assert drawn[..., 3].tolist() == [[0, 64, 128], [255, 255, 128]]
    again = np.asarray(Image.open(BytesIO(to_png(drawn))))
    np.testing.assert_array_equal(again, drawn)
    photo = noise(2, 3)
    over = lay_over(photo, drawn, 0.5, "nearest")
    share = 0.5 * drawn[..., 3:] / 255
    np.testing.assert_allclose(over, (1 - share) * photo + share * drawn[..., :3], atol=0.51)
    assert (over[0, 0] == photo[0, 0]).all()


@pytest.mark.parametrize("middle", [False, True])
def test_boxes_stand_on_the_ground_or_in_the_middle_and_keep_their_proportions(middle: bool) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    drawn = boxes([1.0, 0.5, 0.0], [1, 2, 1], colours, (40, 80), middle)
    found = [(drawn == colour).all(2) for colour in colours]
    assert [mask.any(1).sum() for mask in found] == [40, 20, 1]
    assert [mask.any(0).sum() for mask in found] == [19, 39, 19]  # one pixel is the gap
    assert [np.flatnonzero(mask.any(0))[0] for mask in found] == [0, 20, 60]
    rows = np.flatnonzero(found[1].any(1))
    assert (rows[0], rows[-1]) == ((10, 29) if middle else (20, 39))
    assert (drawn[~np.any(found, 0)] == 255).all()
