"""The frames of the film of a transform."""

from __future__ import annotations

import numpy as np

from tests.media.files import noise
from vizapp.media.distortions import resized_photo
from vizapp.media.drawing import COLOURS
from vizapp.media.transforms import View
from vizapp.methods.transform import TransformParams
from vizapp.methods.transform_film import Film, amount_text


def test_a_frame_shows_the_photo_at_its_amount_and_the_curves_so_far() -> None:
    photo = resized_photo(View(60, 60, 60), noise(60, 60) // 2)
    params = TransformParams("rotate", (0.0, 90.0, 180.0, 270.0))
    frames = Film(photo, params, [("relu", np.array([0, 1, 1, 1.0]))], [("cup", np.array([1, 0.5, 0, 0]))], ["cup"] * 4)
    assert len(frames) == 4
    first = COLOURS[5]
    grown = []
    for number, frame in enumerate(frames):
        assert (frame.shape, frame.dtype) == ((720, 1280, 3), np.uint8)
        shown = frame[96:644, 60:608].reshape(548, 548, 3)[4::9, 4::9].astype(int)[:60, :60]
        turned = np.rot90(photo.crop, number).astype(int)
        near, far = (np.abs(shown - np.rot90(other, number)).mean() for other in (photo.crop.astype(int), 255 - turned))
        assert near < 0.5 * far
        grown.append(int((frame[90:300, 720:1221] == first).all(2).sum()))
    assert grown[0] < grown[1] < grown[2] < grown[3]


def test_amounts_have_their_units() -> None:
    assert [amount_text(*one) for one in (("rotate", 90.0), ("shift-x", -8.0), ("scale", 1.25), ("blur", 3.0))] == [
        "90°", "-8 pixels", "1.25 times", "severity 3",
    ]  # fmt: skip
