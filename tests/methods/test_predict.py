"""The crops of Predict, and where they lie in the photo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import vizapp
from vizapp.media.picture import open_picture
from vizapp.methods.base import Question
from vizapp.methods.predict import crops_of
from vizapp.zoo.network import Preprocessing

SIDE = 56


def ramps(height: int, width: int) -> np.ndarray:
    """A photo whose red tells the row and whose green tells the column, both from 0 to 250; padding has no blue."""
    rows, columns = np.meshgrid(np.linspace(0, 250, height), np.linspace(0, 250, width), indexing="ij")
    return np.rint(np.dstack([rows, columns, np.full((height, width), 255)])).astype(np.uint8)


@pytest.mark.parametrize("crops", ["one", "ten", "multi"])
@pytest.mark.parametrize(
    "shape", [(400, 240), (240, 400), (300, 300), (70, 41)], ids=["portrait", "landscape", "square", "small"]
)
@pytest.mark.parametrize("resize", [64, (SIDE, SIDE), (48, 96)], ids=["short side", "squeezed", "padded"])
def test_the_boxes_say_where_the_pixels_of_the_crops_come_from(
    shape: tuple[int, int], resize: int | tuple[int, int], crops: str
) -> None:
    how = Preprocessing(3, SIDE, SIDE, resize)
    network = replace(vizapp.load("vizapp/lenet5-digits"), preprocessing=how)
    found, boxes = crops_of(Question(network, open_picture(ramps(*shape))), crops)
    assert len(found) == len(boxes) == {"one": 1, "ten": 10, "multi": 30}[crops]
    assert (found[0] == how.seen(ramps(*shape))).all() or crops != "one"
    for number, (crop, (top, left, bottom, right)) in enumerate(zip(found, boxes, strict=True)):
        if number % 10 >= 5:  # mirrored: from the same place
            crop = crop[:, ::-1]
        inside = crop[..., 2] == 255
        assert inside.mean() > 0.8
        place = (np.arange(SIDE) + 0.5) / SIDE
        for channel, (first, last, long) in enumerate(((top, bottom, shape[0]), (left, right, shape[1]))):
            told = crop[..., channel].astype(float) * (long - 1) / 250 + 0.5  # in pixels of the photo
            expected = first + place * (last - first)
            expected = np.broadcast_to(expected[:, None] if channel == 0 else expected[None], inside.shape)
            assert np.abs(told - expected)[inside].max() < 0.012 * long + 0.5 * (last - first) / SIDE


def test_each_crop_has_its_probabilities_and_their_mean_is_the_prediction() -> None:
    network = vizapp.load("vizapp/lenet5-digits")
    photo = open_picture(np.random.default_rng(0).integers(0, 256, (60, 44, 3), dtype=np.uint8))
    arrays = vizapp.ask("predict", network, photo, crops="ten").arrays
    crops, _ = crops_of(Question(network, photo), "ten")
    alone = [vizapp.ask("predict", network, crop).arrays["probabilities"] for crop in crops[:2]]
    np.testing.assert_allclose(arrays["crop_probabilities"][:2], alone, atol=1e-6)
    np.testing.assert_allclose(arrays["crop_probabilities"].mean(0), arrays["probabilities"], atol=1e-6)
