"""Several crops of a photo: those of torchvision, those of the papers in a loop with Pillow, and the whole photo."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import FiveCrop, Resize

from tests.media.files import noise
from vizapp.media.crops import CornerCrops, GoogLeNetCrops, WholePhoto
from vizapp.media.transforms import View

TALL, WIDE, SQUARE = (90, 60), (47, 80), (64, 64)


@pytest.mark.parametrize("shape", [TALL, WIDE, SQUARE])
def test_ten_crops_are_those_of_torchvision(shape: tuple[int, int]) -> None:
    photo, view = noise(*shape), View(32, 24, 40)
    five = np.stack([np.asarray(one) for one in FiveCrop((32, 24))(Resize(40)(Image.fromarray(photo)))])
    np.testing.assert_array_equal(CornerCrops(view).apply(photo), np.concatenate([five, five[:, :, ::-1]]))


def test_crops_at_three_scales_are_as_large_as_the_input_and_their_boxes_lie_in_the_photo() -> None:
    photo, crops = noise(*WIDE), CornerCrops(View(32, 32, 40), (1.0, 1.25, 1.5))
    assert crops.apply(photo).shape == (30, 32, 32, 3)
    boxes = crops.boxes(*WIDE)
    for number, side in enumerate((40, 50, 60)):
        height, width = side, int(side * 80 / 47)
        rows, columns = 47 / height, 80 / width
        expected = [(0, 0), (0, width - 32), (height - 32, 0), (height - 32, width - 32)]
        corners = [(top * rows, left * columns, (top + 32) * rows, (left + 32) * columns) for top, left in expected]
        np.testing.assert_allclose(boxes[10 * number : 10 * number + 4], corners, rtol=1e-6)
    np.testing.assert_array_equal(boxes[:5], boxes[5:10])


def test_a_photo_that_is_squeezed_into_the_input_gets_a_margin_for_its_crops() -> None:
    assert CornerCrops(View(56, 56, (56, 56))).sides(100, 50) == [64]


@pytest.mark.parametrize("shape", [TALL, WIDE, SQUARE])
def test_144_crops_are_those_of_the_paper(shape: tuple[int, int]) -> None:
    """Szegedy et al. 2014, section 7, for an input of 56 pixels: a quarter of theirs."""
    photo, expected = Image.fromarray(noise(*shape)), []
    for side in (64, 72, 80, 88):
        factor = side / min(photo.size)
        size = tuple(side if length == min(photo.size) else int(length * factor + 1e-9) for length in photo.size)
        resized = photo.resize(size, Image.Resampling.BICUBIC)
        across, down = size[0] - side, size[1] - side
        for place in (0, 0.5, 1):
            left, top = round(across * place), round(down * place)
            square = resized.crop((left, top, left + side, top + side))
            rest = side - 56
            corners = [(0, 0), (rest, 0), (0, rest), (rest, rest), (rest // 2, rest // 2)]  # left, top
            six = [square.crop((x, y, x + 56, y + 56)) for x, y in corners]
            six.append(square.resize((56, 56), Image.Resampling.BICUBIC))
            expected += six + [one.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for one in six]
    found = GoogLeNetCrops(View(56, 56, 64, "bicubic")).apply(np.asarray(photo))
    assert len(expected) == 144
    np.testing.assert_array_equal(found, np.stack([np.asarray(one) for one in expected]))


def test_sides_are_the_papers_at_its_input_size_and_in_proportion_at_others() -> None:
    """The resized square of a constant photo is as large as the input whatever that is; a wide input takes its longer side."""
    for view in (View(28, 28, 28), View(24, 40, 44)):
        crops = GoogLeNetCrops(view).apply(noise(60, 50))
        assert crops.shape == (144, view.height, view.width, 3)


def test_the_whole_photo_is_resized_and_not_cropped_and_a_small_one_is_padded() -> None:
    photo, view = noise(*WIDE), View(32, 32, 40)
    whole = WholePhoto(view).apply(photo)
    np.testing.assert_array_equal(whole, np.asarray(Resize(40)(Image.fromarray(photo))))
    np.testing.assert_array_equal(WholePhoto(View(48, 32, 40)).apply(photo)[4:44], whole)
    assert not WholePhoto(View(48, 32, 40)).apply(photo)[:4].any()


@pytest.mark.parametrize(
    "crops", [CornerCrops(View(32, 24, 40)), GoogLeNetCrops(View(28, 28, 32)), WholePhoto(View(8, 8, 9))]
)
def test_decoding_processes_get_them_by_pickle(crops: CornerCrops) -> None:
    assert pickle.loads(pickle.dumps(crops)) == crops
