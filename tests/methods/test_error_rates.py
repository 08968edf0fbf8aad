"""Error rates against scikit-learn, SciPy, and loops over their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import precision_recall_fscore_support

from vizapp.methods import error_rates
from vizapp.methods.error_rates import (
    Answers,
    calibration_curve,
    confusion_matrix,
    expected_calibration_error,
    per_class,
    rates,
    wilson_interval,
)  # fmt: skip

CLASSES, PHOTOS = 7, 300
RNG = np.random.default_rng(5)
TRUE = RNG.integers(0, CLASSES - 1, PHOTOS)  # no photo of the last class
GIVEN = np.where(RNG.random(PHOTOS) < 0.5, TRUE, RNG.integers(1, CLASSES, PHOTOS))
SHARE = np.append(RNG.random(PHOTOS - 3), (0.0, 1.0, 1 / 15)).astype(np.float32)


@pytest.mark.parametrize(("count", "of"), [(0, 1), (1, 1), (0, 30), (30, 30), (3, 10), (799, 2893)])
def test_the_interval_is_wilsons(count: int, of: int) -> None:
    expected = binomtest(count, of).proportion_ci(method="wilson")
    assert wilson_interval(count, of) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= wilson_interval(count, of)[0] <= count / of <= wilson_interval(count, of)[1] <= 1


def test_no_photo_has_no_rate() -> None:
    assert all(map(math.isnan, wilson_interval(0, 0)))


def test_the_matrix_and_the_rates_of_classes_are_those_of_scikit_learn() -> None:
    matrix = confusion_matrix(TRUE, GIVEN, CLASSES)
    np.testing.assert_array_equal(matrix, sklearn_confusion(TRUE, GIVEN, labels=range(CLASSES)))
    precision, recall, _, support = precision_recall_fscore_support(
        TRUE, GIVEN, labels=range(CLASSES), zero_division=np.nan
    )
    told = per_class(matrix)
    np.testing.assert_allclose(told["recall"], recall, equal_nan=True)
    np.testing.assert_allclose(told["precision"], precision, equal_nan=True)
    np.testing.assert_array_equal(told["count"], support)
    for class_ in range(CLASSES):
        wrong = GIVEN[(class_ == TRUE) & (class_ != GIVEN)].tolist()
        most = max(sorted(set(wrong)), key=wrong.count) if wrong else -1
        assert told["confused_with"][class_] == most


def test_calibration_is_that_of_a_loop_over_the_papers_formula() -> None:
    right = RNG.random(PHOTOS) < SHARE
    curve, error = calibration_curve(SHARE, right), 0.0
    assert curve.shape == (15, 3)
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [n for n, p in enumerate(SHARE.tolist()) if low < p <= high or (p == 0 and number == 0)]
        assert curve[number, 2] == len(inside)
        confidence, accuracy = np.mean(SHARE[inside].astype(float)), np.mean(right[inside])
        assert curve[number, :2] == pytest.approx((confidence, accuracy))
        error += len(inside) / PHOTOS * abs(accuracy - confidence)
    assert expected_calibration_error(curve) == pytest.approx(error)
    edge = calibration_curve(np.array([3 / 15]), np.ones(1, bool))
    assert edge[:, 2].nonzero()[0].tolist() == [2], "a bin holds its upper edge"
    empty = calibration_curve(np.full(4, 0.99), np.ones(4, bool))
    assert np.isnan(empty[:14, :2]).all()
    assert expected_calibration_error(empty) == pytest.approx(0.01)


def answers() -> Answers:
    own = np.where(GIVEN == TRUE, SHARE, SHARE / 3)
    rank = np.where(GIVEN == TRUE, 0, RNG.integers(1, 7, PHOTOS))
    return Answers(np.arange(PHOTOS) * 2, TRUE, GIVEN, SHARE, own, rank)


def test_mistakes_come_surest_first_and_equal_ones_in_the_order_of_the_folder() -> None:
    found = answers()
    arrays = rates(found, CLASSES)
    wrong = sorted((-p, n) for n, p in enumerate(SHARE.tolist()) if GIVEN[n] != TRUE[n])
    expected = [(2 * n, TRUE[n], GIVEN[n]) for _, n in wrong]
    np.testing.assert_array_equal(arrays["mistakes"], expected)
    assert arrays["top1"] == len(expected) / PHOTOS
    assert arrays["top5"] == np.mean([rank >= 5 for rank in found.rank])


def test_of_very_many_classes_the_matrix_lists_those_that_occur_most(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, found = rates(answers(), CLASSES), answers()
    monkeypatch.setattr(error_rates, "MOST_CLASSES", 3)
    some = rates(found, CLASSES)
    often = np.bincount(TRUE, minlength=CLASSES) + np.bincount(GIVEN, minlength=CLASSES)
    np.testing.assert_array_equal(some["classes"], np.sort(np.argsort(-often, kind="stable")[:3]))
    np.testing.assert_array_equal(some["confusion"], whole["confusion"][np.ix_(some["classes"], some["classes"])])
    for name in ("recall", "precision", "count", "given"):
        np.testing.assert_array_equal(some[name], whole[name])
    assert set(some["confused_with"].tolist()) <= {*some["classes"].tolist(), -1}
