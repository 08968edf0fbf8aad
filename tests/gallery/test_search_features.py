"""Exact search among features, beside brute force in float64."""

from __future__ import annotations

import numpy as np
import pytest

from vizapp.gallery.search_features import Metric, Nearest, nearest

RNG = np.random.default_rng(0)


def brute_force(rows: np.ndarray, wanted: np.ndarray, metric: Metric) -> list[tuple[float, int, int]]:
    """(distance, row, cell) of all vectors of `[n F cells]` with finite numbers, in order, one after the other."""
    found, one = [], wanted.astype(np.float64)
    for row, cell in np.ndindex(len(rows), rows.shape[2]):
        other = rows[row, :, cell].astype(np.float64)
        if np.isfinite(other).all():
            if metric == "cosine":
                sizes = np.linalg.norm(one) * np.linalg.norm(other)
                found.append((1 - one @ other / sizes if sizes else 1.0, row, cell))
            else:
                found.append((np.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True))), row, cell))
    return sorted(found)


def in_parts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def check(found: Nearest, expected: list[tuple[float, int, int]], k: int) -> None:
    assert list(zip(found.rows.tolist(), found.cells.tolist(), strict=True)) == [one[1:] for one in expected[:k]]
    np.testing.assert_allclose(found.distances, [one[0] for one in expected[:k]], rtol=1e-9, atol=1e-12)
    assert found.compared == len(expected)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("size", "k"), [(7, 1), (50, 9), (1000, 60)])
def test_it_is_brute_force_in_float64(metric: Metric, size: int, k: int) -> None:
    rows, wanted = RNG.normal(size=(200, 24)).astype(np.float32), RNG.normal(size=24).astype(np.float32)
    check(nearest(in_parts(rows, size), wanted, k, metric), brute_force(rows[:, :, None], wanted, metric), k)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_all_cells_of_all_photos_are_compared(metric: Metric) -> None:
    rows, wanted = RNG.normal(size=(30, 5, 6)).astype(np.float32), RNG.normal(size=5).astype(np.float32)
    check(nearest(in_parts(rows, 8), wanted, 25, metric), brute_force(rows, wanted, metric), 25)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("offset", [0.0, 3e3])  # far from zero, |a|² + |b|² - 2ab has no digits left
def test_a_duplicate_comes_first_at_distance_zero_and_near_ones_follow_in_order(metric: Metric, offset: float) -> None:
    rows = (RNG.normal(size=(300, 256)) + offset).astype(np.float32)
    wanted = rows[170].copy()
    rows[[44, 201]] = wanted
    for number in range(1, 6):  # from near to nearer, below the rounding errors of float32 products
        rows[number] = wanted
        rows[number, :2] += np.float32([9, -9]) * np.spacing(np.abs(wanted[:2])) * (6 - number)
    found = nearest(in_parts(rows, 64), wanted, 8, metric)
    assert found.rows.tolist() == [44, 170, 201, 5, 4, 3, 2, 1]
    assert found.distances[:3].tolist() == [0, 0, 0]
    assert (found.distances[3:] > 0).all()


def test_another_order_of_the_rows_gives_the_same_rows() -> None:
    rows, wanted = RNG.normal(size=(90, 12)).astype(np.float32), RNG.normal(size=12).astype(np.float32)
    order = RNG.permutation(90)
    here, there = (nearest(in_parts(some, 20), wanted, 10) for some in (rows, rows[order]))
    assert order[there.rows].tolist() == here.rows.tolist()
    assert there.distances.tolist() == here.distances.tolist()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_equal_distances_are_in_the_order_of_the_rows(metric: Metric) -> None:
    rows = np.ones((3000, 4), np.float32)
    found = nearest(in_parts(rows, 700), np.float32([1, 2, 3, 4]), 5, metric)
    assert found.rows.tolist() == [0, 1, 2, 3, 4]


def test_fewer_rows_than_asked_for_are_all_there() -> None:
    rows = np.float32([[3], [1], [2]])
    found = nearest([rows], np.float32([0]), 9)
    assert (found.rows.tolist(), found.distances.tolist(), found.compared) == ([1, 2, 0], [1, 2, 3], 3)
    assert nearest([], np.float32([0]), 9).rows.tolist() == []


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_vectors_that_are_not_finite_are_left_out_and_counted_and_large_ones_are_not(metric: Metric) -> None:
    rows = RNG.normal(size=(40, 6)).astype(np.float32)
    rows[3, 2], rows[9, 0], rows[11, 5] = np.nan, np.inf, -np.inf
    rows[20] *= np.float32(1e25)  # whose squares are beyond float32
    rows[21] *= np.float32(1e-25)
    rows[22] = 0
    found = nearest(in_parts(rows, 16), rows[5], 40, metric)
    check(found, brute_force(rows[:, :, None], rows[5], metric), 40)
    assert (found.not_finite, found.compared) == (3, 37)
    assert nearest([rows], rows[20], 1, metric).rows.tolist() == [20]


def test_the_work_can_be_left_after_each_block() -> None:
    class Leave(Exception):
        pass

    seen = list[int]()

    def tick(rows: int) -> None:
        seen.append(rows)
        if len(seen) == 3:
            raise Leave

    with pytest.raises(Leave):
        nearest([np.zeros((10_000, 256), np.float32)], np.zeros(256, np.float32), 1, tick=tick)
    assert seen == [1024, 2048, 3072]
