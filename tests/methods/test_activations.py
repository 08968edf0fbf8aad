"""The pictures of feature maps."""

from __future__ import annotations

import numpy as np
import pytest

import vizapp
from vizapp.media.drawing import heat
from vizapp.media.samples import open_sample
from vizapp.methods.activations import channel_tiles, over_photo, scale_limits


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


@pytest.mark.parametrize("bad", [None, np.nan, np.inf])
def test_a_clipped_scale_ends_at_the_value_that_99_of_100_do_not_exceed(bad: float | None) -> None:
    """By sorting, with the linear interpolation between neighbours that NumPy documents."""
    values = np.random.default_rng(1).exponential(size=(5, 7, 9)).astype(np.float32)
    values[2, 3, 4] = 50.0
    if bad is not None:
        values[0, 0, 0] = bad
    ordered = np.sort(values[np.isfinite(values)].astype(np.float64))
    place = 0.99 * (len(ordered) - 1)
    below, above = ordered[int(place)], ordered[int(place) + 1]
    high = below + (place - int(place)) * (above - below)
    assert scale_limits(values, "clipped") == pytest.approx((ordered[0], high))
    assert scale_limits(values, "layer") == (ordered[0], 50.0)
    tiles = np.stack(channel_tiles(values, "clipped"))
    brightest = heat(np.array([[0.0, 1.0]]), 0, 1)[0, 1]
    finite = np.isfinite(values)
    assert ((tiles == brightest).all(-1)[finite] == (values >= high - (high - ordered[0]) / 510)[finite]).all()


def test_a_clipped_scale_of_a_sparse_layer_ends_at_its_largest_value() -> None:
    values = np.zeros((4, 10, 10), np.float32)
    values[1, 2, 3] = 5.0
    assert scale_limits(values, "clipped") == (0.0, 5.0)
    assert scale_limits(np.full((1, 2, 2), np.nan), "clipped") == (0.0, 1.0)


def test_the_scale_leaves_the_activations_as_they_are() -> None:
    network, picture, unit = vizapp.load("vizapp/lenet5-digits"), open_sample("digit 3"), vizapp.Unit("features.1", 2)
    results = [vizapp.ask("activations", network, picture, unit=unit, scale=scale) for scale in ("layer", "clipped")]
    assert (results[0].arrays["activations"] == results[1].arrays["activations"]).all()
    assert (results[0].panels[0].pixels != results[1].panels[0].pixels).any()
    assert results[0].table == results[1].table


def test_the_photo_shows_through_where_a_channel_is_low() -> None:
    seen = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    drawn = over_photo(seen, np.array([[0.0, 1.0], [0.0, 0.0]]))
    assert (drawn[4:] == seen[4:]).all()
    assert (drawn[:4, 4:] != seen[:4, 4:]).any()
