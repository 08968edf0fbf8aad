"""Correlation equals NumPy's for any batches and blocks; matches equal those found by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vizapp.engine.statistics import correlation
from vizapp.engine.statistics.correlation import BestMatches, Correlation


def whole(found: Correlation) -> np.ndarray:
    blocks = list(found.blocks())
    assert np.concatenate([np.arange(99)[rows] for rows, _ in blocks]).tolist() == list(
        range(sum(len(b) for _, b in blocks))
    )
    return np.concatenate([block for _, block in blocks])


def best(*blocks: np.ndarray) -> list[list[int]]:
    found = BestMatches()
    for block in blocks:
        found.add(block)
    matches, values = found.sorted()
    assert values.tolist() == [np.concatenate(blocks)[a, b] for a, b in matches]
    return matches.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("block", [2**23, 7, 1])
@pytest.mark.parametrize("parts", [[20], [1] * 20, [7, 2, 11]])
def test_the_correlation_is_that_of_all_pictures_at_once(
    parts: list[int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correlation, "_BLOCK", block)
    rng = np.random.default_rng(0)
    first = rng.standard_normal((20, 4)) + np.array([0, 1e5, 0, 3])  # a large mean must not swallow the differences
    second = np.stack([first[:, 1] * 2 + 0.1 * rng.standard_normal(20), -first[:, 0], rng.standard_normal(20)], 1)
    found = Correlation()
    for part in np.split(np.arange(20), np.cumsum(parts)[:-1]):
        found.add(first[part], second[part])
    expected = np.corrcoef(first.T, second.T)[:4, 4:]
    np.testing.assert_allclose(whole(found), expected, atol=1e-9)
    assert found.pictures == 20


def test_a_unit_that_always_answers_the_same_has_no_match() -> None:
    rng = np.random.default_rng(0)
    first = np.stack([np.full(9, 0.3), rng.random(9)], 1)
    found = Correlation()
    for row in first:
        found.add(row[None], row[None, ::-1])
    assert np.isnan(whole(found)[0]).all()
    assert np.isnan(whole(found)[:, 1]).all()
    assert best(whole(found)) == [[1, 0]]


def test_best_matches_come_first_and_ties_go_to_the_lower_number() -> None:
    matrix = np.array([[0.1, 0.9, 0.9], [-1.0, -0.2, np.nan], [0.95, 0.0, 0.0]])
    assert best(matrix) == best(matrix[:1], matrix[1:]) == [[2, 0], [0, 1], [1, 1]]
