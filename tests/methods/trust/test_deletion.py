"""Deletion and insertion: the order of the pixels, the curve of a linear model in closed form, and a random order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.media.files import noise
from vizapp.methods.trust.deletion import (
    area,
    blur_sigma,
    blurred,
    pixel_ranks,
    pixels_at,
    replaced,
    replacement_curve,
)

SHAPE = (3, 17, 13)  # 221 pixels: no share is a whole number of them


class Linear:
    """A linear score of inputs, in float64; notes the sizes of batches."""

    def __init__(self, seed: int) -> None:
        self.weights = np.random.default_rng(seed).standard_normal(SHAPE)
        self.bias, self.sizes = 0.7, list[int]()

    def __call__(self, batch: Tensor) -> np.ndarray:
        self.sizes.append(len(batch))
        return (batch.double().numpy() * self.weights).sum((1, 2, 3)) + self.bias


def inputs(seed: int) -> tuple[Tensor, Tensor]:
    numbers = torch.from_numpy(np.random.default_rng(seed).random((2, 1, *SHAPE)))
    return numbers[0], numbers[1]


def curve_of(model: Linear, ranks: np.ndarray, start: Tensor, end: Tensor) -> np.ndarray:
    ends = float(model(start)[0]), float(model(end)[0])
    return replacement_curve(ranks, start, end, ends, model, 7, lambda share: None)


def test_pixels_come_from_the_largest_value_down() -> None:
    ranks = pixel_ranks(np.array([[0.5, -3.0, 9.0], [0.25, 2.0, -0.1]], np.float32), seed=0)
    np.testing.assert_array_equal(ranks, [[2, 5, 0], [3, 1, 4]])


def test_equal_values_come_in_an_order_that_the_seed_draws() -> None:
    values = np.zeros((20, 20))
    values[3, 4] = 1
    first, again, other = (pixel_ranks(values, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9
    for ranks in (first, other):
        assert sorted(ranks.reshape(-1)) == list(range(400))
        assert ranks[3, 4] == 0
        # Neither rows nor columns of equal pixels come one after another.
        assert abs(np.corrcoef(ranks.reshape(-1), np.arange(400))[0, 1]) < 0.2


def test_shares_are_rounded_to_whole_pixels() -> None:
    assert [pixels_at(share, 221) for share in (0, 1, 2, 50, 99, 100)] == [0, 2, 4, 111, 219, 221]


def test_the_curve_of_a_linear_model_is_the_sum_of_what_is_left() -> None:
    model, (photo, fill) = Linear(1), inputs(2)
    values = np.random.default_rng(3).standard_normal(SHAPE[1:]).astype(np.float32)
    found = curve_of(model, pixel_ranks(values, 0), photo, fill)
    # In closed form: each pixel of the order takes its own product with it.
    products = (model.weights * (fill - photo)[0].numpy()).sum(0).reshape(-1)
    taken = products[np.argsort(-values, axis=None)].cumsum()
    clean = float(model(photo)[0])
    expected = [clean] + [clean + taken[int(221 * share / 100 + 0.5) - 1] for share in range(1, 101)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found.shape == (101,)
    assert max(model.sizes) == 7


def test_insertion_is_deletion_of_the_other_photo_and_shares_its_ends() -> None:
    model, (photo, fill) = Linear(1), inputs(2)
    ranks = pixel_ranks(np.random.default_rng(3).standard_normal(SHAPE[1:]), 0)
    deletion, insertion = curve_of(model, ranks, photo, fill), curve_of(model, ranks, fill, photo)
    assert (deletion[0], deletion[-1]) == (insertion[-1], insertion[0])
    # Of a linear model the two add up to the scores of the ends, at every share.
    np.testing.assert_allclose(deletion + insertion, deletion[0] + deletion[-1], atol=1e-12)


def test_a_random_order_deletes_a_linear_model_along_a_straight_line() -> None:
    model, (photo, fill) = Linear(4), inputs(5)
    draws = np.stack([curve_of(model, pixel_ranks(np.zeros(SHAPE[1:]), seed), photo, fill) for seed in range(60)])
    start, end = draws[0, [0, -1]]
    shares = np.array([pixels_at(share, 221) / 221 for share in range(101)])
    # The mean of 60 draws lies within 4 of its standard errors of the expectation.
    apart = np.abs(draws.mean(0) - (start + (end - start) * shares))
    assert (apart <= 4 * draws.std(0, ddof=1) / np.sqrt(60) + 1e-12).all()
    assert np.mean([area(curve) for curve in draws]) == pytest.approx((start + end) / 2, abs=0.5)
    assert draws.std(0)[50] > 1  # the draws differ


def test_the_area_is_that_of_trapezoids() -> None:
    assert area(np.linspace(1, 0, 101)) == pytest.approx(0.5)
    assert area(np.array([1.0, 0.0, 0.0])) == pytest.approx(0.25)
    curve = np.random.default_rng(0).random(101)
    assert area(curve) == pytest.approx(np.trapezoid(curve, dx=0.01))


def test_deleted_pixels_show_the_blurred_photo() -> None:
    seen = noise(42, 28, seed=1)
    assert blur_sigma(42, 28) == 3
    assert blur_sigma(224, 224) == 16
    fill = blurred(seen)
    assert fill.std() < 0.2 * seen.std()
    assert fill.mean() == pytest.approx(seen.mean(), abs=2)
    ranks = pixel_ranks(np.random.default_rng(0).random((42, 28)), 0)
    half = replaced(ranks, 50, seen, fill)
    first = ranks < 588
    np.testing.assert_array_equal(half[first], fill[first])
    np.testing.assert_array_equal(half[~first], seen[~first])
    np.testing.assert_array_equal(replaced(ranks, 0, seen, fill), seen)
    np.testing.assert_array_equal(replaced(ranks, 100, seen, fill), fill)
