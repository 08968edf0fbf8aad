"""Projections as pictures."""

from __future__ import annotations

import numpy as np

from vizapp.ui.widgets.projection_tiles import nine


def test_small_tiles_are_enlarged_so_that_the_gaps_between_them_stay_narrow() -> None:
    tiles = [np.full((7, 5 + number % 3, 3), 20 * number, np.uint8) for number in range(9)]
    whole = nine(tiles)
    size = 64 // 7
    assert whole.shape == (3 * 7 * size + 4, 3 * 7 * size + 4, 3)
    np.testing.assert_array_equal(whole[: 7 * size, -7 * size :], np.full((7 * size, 7 * size, 3), 40))
    assert (whole[7 * size : 7 * size + 2] == 255).all()
    large = [np.zeros((100, 100, 3), np.uint8)] * 9
    assert nine(large).shape == (304, 304, 3)
