"""Streaming correlation equals NumPy's for any batches; matches equal those found by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vizapp.engine.statistics.correlation import Correlation, best_matches


@pytest.mark.parametrize("parts", [[20], [1] * 20, [7, 2, 11]])
def test_the_correlation_is_that_of_all_pictures_at_once(parts: list[int]) -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((20, 4)) + np.array([0, 1e5, 0, 3])  # a large mean must not swallow the differences
    second = np.stack([first[:, 1] * 2 + 0.1 * rng.standard_normal(20), -first[:, 0], rng.standard_normal(20)], 1)
    found = Correlation()
    for part in np.split(np.arange(20), np.cumsum(parts)[:-1]):
        found.add(first[part], second[part])
    expected = np.corrcoef(first.T, second.T)[:4, 4:]
    np.testing.assert_allclose(found.matrix(), expected, atol=1e-9)
    assert found.pictures == 20


def test_a_unit_that_always_answers_the_same_has_no_match() -> None:
    rng = np.random.default_rng(0)
    first = np.stack([np.full(9, 0.3), rng.random(9)], 1)
    found = Correlation()
    for row in first:
        found.add(row[None], row[None, ::-1])
    assert np.isnan(found.matrix()[0]).all()
    assert np.isnan(found.matrix()[:, 1]).all()
    assert best_matches(found.matrix()).tolist() == [[1, 0]]


def test_best_matches_come_first_and_ties_go_to_the_lower_number() -> None:
    matrix = np.array([[0.1, 0.9, 0.9], [-1.0, -0.2, np.nan], [0.95, 0.0, 0.0]])
    assert best_matches(matrix).tolist() == [[2, 0], [0, 1], [1, 1]]
