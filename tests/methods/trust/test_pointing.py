"""The pointing game by hand, and means over photos with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from vizapp.methods.trust.deletion import pixel_ranks
from vizapp.methods.trust.interval import RunningMean, mean_interval, wins
from vizapp.methods.trust.params import merit
from vizapp.methods.trust.pointing import points_at

BOX = (40, 50, 60, 80)  # rows 40 to 59, columns 50 to 79


@pytest.mark.parametrize(
    ("row", "column", "hit"),
    [
        (45, 60, 1), (40, 50, 1), (59, 79, 1),  # inside
        (25, 60, 1), (24, 60, 0), (74, 60, 1), (75, 60, 0),  # 15 and 16 pixels above and below
        (45, 35, 1), (45, 34, 0), (45, 94, 1), (45, 95, 0),  # left and right
        (28, 41, 1), (28, 40, 0), (68, 91, 1), (69, 91, 0),  # 9 and 12 make 15: the distance is Euclidean
    ],
)  # fmt: skip
def test_the_strongest_pixel_hits_within_15_pixels_of_the_box(row: int, column: int, hit: int) -> None:
    values = np.zeros((100, 120))
    values[row, column] = 1
    assert points_at(pixel_ranks(values, 0), BOX) == hit


def test_of_several_strongest_pixels_the_seed_draws_one() -> None:
    values = np.zeros((100, 120))
    values[45, 60] = values[5, 5] = 1
    found = {points_at(pixel_ranks(values, seed), BOX) for seed in range(12)}
    assert found == {0, 1}


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).random((9, 2, 3))
    mean, low, high = mean_interval(values)
    np.testing.assert_allclose(mean, values.mean(0))
    error = values.std(0, ddof=1) / 3
    expected = t.interval(0.95, 8, loc=values.mean(0), scale=error)
    np.testing.assert_allclose((low, high), expected)


def test_photos_without_a_value_are_left_out_of_mean_and_interval() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [np.nan, 7.0, np.nan], [8.0, np.nan, 4.0]])
    mean, low, high = mean_interval(values)
    np.testing.assert_array_equal(mean, [4, 6, 4])
    for column, known in enumerate(([1.0, 3.0, 8.0], [5.0, 7.0])):
        expected = t.interval(0.95, len(known) - 1, np.mean(known), np.std(known, ddof=1) / np.sqrt(len(known)))
        np.testing.assert_allclose((low[column], high[column]), expected)
    assert np.isnan(low[2])
    assert np.isnan(mean_interval(np.full((2, 1), np.nan))[0]).all()


def test_wins_count_strictly_better_photos() -> None:
    values, other = np.array([1.0, 2, 3, np.nan, 5]), np.array([2.0, 2, 1, 1, np.nan])
    assert wins(values, other) == (1, 3)
    assert wins(values + 1.5, other) == (3, 3)


def test_a_correlation_of_minus_one_is_as_bad_as_one() -> None:
    values = np.array([-0.9, 0.1, 0.9])
    np.testing.assert_array_equal(merit("randomisation", values), [-0.9, -0.1, -0.9])
    np.testing.assert_array_equal(merit("deletion", values), -values)
    np.testing.assert_array_equal(merit("insertion", values), values)


def test_a_running_mean_is_that_of_all_without_nan() -> None:
    values = np.random.default_rng(0).random((5, 2, 4))
    values[1:3, 0, 2] = np.nan
    values[:, 1, 1] = np.nan
    running = RunningMean()
    for one in values:
        running.add(one)
    expected = [[np.nanmean(values[:, y, x]) if (y, x) != (1, 1) else np.nan for x in range(4)] for y in range(2)]
    np.testing.assert_allclose(running.mean(), expected, rtol=1e-6)
    assert running.mean().dtype == np.float32
