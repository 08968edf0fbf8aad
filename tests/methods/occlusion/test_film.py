"""The frames of the film of a sweep."""

from __future__ import annotations

import numpy as np
import pytest

from vizapp.methods.occlusion.film import Film
from vizapp.methods.occlusion.occluder import positions
from vizapp.methods.occlusion.sweep import OcclusionParams

LEFT, RIGHT, TOP, SIDE = 66, 686, 96, 548  # where the two square pictures lie in a frame
PARAMS = OcclusionParams(window=40, stride=50, fill="black")


def film(probability: np.ndarray, inverse: bool = False) -> Film:
    seen = np.full((200, 200, 3), 200, np.uint8)
    where = positions((200, 200), (40, 40), 50)  # squares at 5, 55, 105, 155
    params = OcclusionParams(window=40, stride=50, fill="black", inverse=inverse)
    return Film(seen, params, where, "cup", 0.5, probability, ["cup"] * probability.size)


def at(frame: np.ndarray, left: int, y: float, x: float) -> list[int]:
    """The colour at a pixel (y, x) of the photo of 200 pixels."""
    return frame[TOP + int(y / 200 * SIDE), left + int(x / 200 * SIDE)].astype(int).tolist()


@pytest.mark.parametrize("inverse", [False, True])
def test_a_frame_shows_the_square_and_the_map_as_far_as_it_has_come(inverse: bool) -> None:
    probability = np.full((4, 4), 0.5)
    probability[0, 1], probability[1, 2] = 0.1, 0.9  # hiding hurts here, helps there
    frames = film(probability, inverse)
    assert len(frames) == 16
    hidden, whole = ([200] * 3, [0] * 3) if inverse else ([0] * 3, [200] * 3)
    for place, frame in enumerate(frames):
        assert frame.shape == (720, 1280, 3)
        for cell, (row, column) in enumerate(np.ndindex(4, 4)):
            middle = 25 + 50 * row, 25 + 50 * column
            assert at(frame, LEFT, *middle) == (hidden if cell == place else whole)
            red, green, blue = at(frame, RIGHT, *middle)
            if cell > place or probability[row, column] == 0.5:
                assert (red, green, blue) == (200, 200, 200), "nothing but the photo"
            else:
                assert (red > blue + 90) if probability[row, column] < 0.5 else (blue > red + 90)


def test_class_and_percentage_are_written_and_the_percentage_changes() -> None:
    probability = np.linspace(0.1, 0.9, 16).reshape(4, 4)
    frames = film(probability)
    first, last = frames[0], frames[-1]
    name, number = (slice(30, 80), slice(60, 400)), (slice(650, 690), slice(60, 400))
    assert (first[name] < 100).any()
    assert (first[name] == last[name]).all()
    assert (first[number] < 100).any()
    assert (first[number] != last[number]).any()


def test_the_ends_of_the_colours_have_other_words_where_all_but_the_square_is_hidden() -> None:
    legend = (slice(685, 715), slice(680, 1270))
    hiding, showing = (film(np.full((4, 4), 0.5), inverse)[0][legend] for inverse in (False, True))
    assert (hiding[:, :130] != showing[:, :130]).any()
    assert (hiding[:, 446:] != showing[:, 446:]).any()


def test_a_long_sweep_is_thinned_out_and_keeps_its_ends_and_long_names_are_cut() -> None:
    seen = np.full((30, 40, 3), 200, np.uint8)
    where = positions((30, 40), (4, 4), 1)
    probability = np.full((30, 40), 0.2)
    frames = Film(
        seen, OcclusionParams(window=4, stride=1), where, "word " * 60, 0.5, probability, ["x"] * 1200, most=50
    )
    assert len(frames) == 50
    assert (frames[0][30:80, 622:640] == 255).all()
    for number, reached in ((0, False), (-1, True)):
        red, _, blue = frames[number][TOP + 210, 680 + 280].astype(int)
        assert (red > blue + 90) == reached
    assert len(frames[10:14]) == 4
