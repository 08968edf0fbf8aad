"""The pictures of feature maps."""

from __future__ import annotations

import numpy as np
import pytest

from vizapp.methods.activations import channel_tiles, over_photo


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_leaves_the_scale_of_the_layer_to_the_others(bad: float) -> None:
    values = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    values[0, 0, 0], values[2, 3, 4] = 0.0, 1.0
    expected = channel_tiles(values)
    values[1, 2, 3] = bad
    tiles = channel_tiles(values)
    same = np.ones((3, 4, 5), bool)
    same[1, 2, 3] = False
    assert (np.stack(tiles)[same] == np.stack(expected)[same]).all()
    assert np.stack(tiles)[same].std() > 10


def test_a_channel_lies_over_the_photo_cell_by_cell() -> None:
    seen = np.full((8, 8, 3), 100, np.uint8)
    drawn = over_photo(seen, np.array([[0.0, 1.0], [2.0, 3.0]]))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 4
    for rows in (slice(0, 4), slice(4, 8)):
        for columns in (slice(0, 4), slice(4, 8)):
            assert (drawn[rows, columns] == drawn[rows, columns][0, 0]).all()
