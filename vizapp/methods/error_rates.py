"""What a classifier's answers to labelled photos say: error rates, confusions, calibration. NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BINS = 15  # of the reliability curve, as in Guo et al. 2017
MOST_CLASSES = 2048  # of the confusion matrix: 32 MB
_Z = 1.959963984540054  # of the normal distribution, for 95 %


@dataclass(frozen=True)
class Answers:
    """The answers to the photos with a known class, each `[n]`.

    `picture`: their numbers in the folder. `true`, `given`: classes. `share`, `own`: the probabilities of the given and of the
    true class. `rank`: how many classes come before the true one.
    """

    picture: np.ndarray
    true: np.ndarray
    given: np.ndarray
    share: np.ndarray
    own: np.ndarray
    rank: np.ndarray


def wilson_interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) for the rate `count / of`; from 0 to 1, not a number if `of` is 0."""
    if of == 0:
        return math.nan, math.nan
    rate, square = count / of, _Z**2 / of
    centre, half = rate + square / 2, _Z * math.sqrt(rate * (1 - rate) / of + square / (4 * of))
    low, high = (centre - half) / (1 + square), (centre + half) / (1 + square)
    return 0.0 if count == 0 else low, 1.0 if count == of else high


def confusion_matrix(true: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    """How many photos of each class (rows) were given each class (columns), int64 `[classes classes]`.

    `true` and `given` are class indices `[n]` below `classes`.
    """
    places = true.astype(np.int64) * classes + given
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def calibration_curve(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean confidence, accuracy and number of photos in 15 equal-width bins, float64 `[15 3]` (Guo et al. 2017, section 2).

    `confidence` `[n]` is the probability of the given class, from 0 to 1, and `right` `[n]` whether that is the true one. Bin m
    holds confidences above m / 15 up to (m + 1) / 15, the first one also 0. Empty bins have no mean and no accuracy (NaN).
    """
    place = np.clip(
        np.searchsorted(np.linspace(0, 1, BINS + 1), confidence.astype(np.float64), "left") - 1, 0, BINS - 1
    )
    count = np.bincount(place, minlength=BINS)
    sums = (np.bincount(place, weights=values.astype(np.float64), minlength=BINS) for values in (confidence, right))
    with np.errstate(invalid="ignore"):
        means = [total / count for total in sums]
    return np.stack([*means, count.astype(np.float64)], 1)


def expected_calibration_error(curve: np.ndarray) -> float:
    """The mean of |accuracy − mean confidence| over the photos (Guo et al. 2017, equation 3), of a `calibration_curve`."""
    filled = curve[curve[:, 2] > 0]
    return float((np.abs(filled[:, 1] - filled[:, 0]) * filled[:, 2]).sum() / max(1.0, curve[:, 2].sum()))


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """What a confusion matrix `[classes classes]` says of each class, `[classes]`.

    `count`: photos of the class; `given`: photos that were given it; `recall` and `precision`, float64, NaN where there are
    none; `confused_with`: the class that its other photos were given most often, -1 if all were right.
    """
    count, given, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    wrong = confusion - np.diag(right)
    with np.errstate(invalid="ignore"):
        recall, precision = right / count, right / given
    most = np.where(wrong.any(1), wrong.argmax(1), -1)
    return {"count": count, "given": given, "recall": recall, "precision": precision, "confused_with": most}


def rates(found: Answers, classes: int) -> dict[str, np.ndarray]:
    """The arrays of `evaluate` but `without_class`; of a network with so many classes."""
    right = found.given == found.true
    wrong = int((~right).sum()), int((found.rank >= 5).sum())
    listed = np.arange(classes)
    if classes > MOST_CLASSES:
        listed = _most_frequent(found, classes)
    place = np.full(classes, -1)
    place[listed] = np.arange(len(listed))
    inside = (place[found.true] >= 0) & (place[found.given] >= 0)
    confusion = confusion_matrix(place[found.true[inside]], place[found.given[inside]], len(listed))
    told = _per_class(found, confusion, listed, classes)
    curve = calibration_curve(found.share, right)
    order = np.flatnonzero(~right)
    order = order[np.argsort(-found.share[order], kind="stable")]
    return {
        "top1": np.array(wrong[0] / len(right)), "top1_interval": np.array(wilson_interval(wrong[0], len(right))),
        "top5": np.array(wrong[1] / len(right)), "top5_interval": np.array(wilson_interval(wrong[1], len(right))),
        "confusion": confusion, "classes": listed, **told,
        "calibration": curve, "calibration_error": np.array(expected_calibration_error(curve)),
        "mistakes": np.stack([found.picture[order], found.true[order], found.given[order]], 1).astype(np.int64),
    }  # fmt: skip


def _most_frequent(found: Answers, classes: int) -> np.ndarray:
    """The classes that occur most often among the true and given ones."""
    counts = np.bincount(found.true, minlength=classes) + np.bincount(found.given, minlength=classes)
    order = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    return np.sort(order[counts[order] > 0])


def _per_class(found: Answers, confusion: np.ndarray, listed: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """`per_class` for all classes of the network; where the matrix lists some, recall and precision count the others, too."""
    told = per_class(confusion)
    told["confused_with"] = np.where(told["confused_with"] < 0, -1, listed[told["confused_with"]])
    if len(listed) == classes:
        return told
    count, given = (np.bincount(values, minlength=classes) for values in (found.true, found.given))
    right = np.bincount(found.true[found.true == found.given], minlength=classes)
    most = np.full(classes, -1)
    most[listed] = told["confused_with"]
    with np.errstate(invalid="ignore"):
        shares = {"recall": right / count, "precision": right / given}
    return {"count": count, "given": given, **shares, "confused_with": most}
