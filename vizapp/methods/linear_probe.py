"""Linear probes: seeded splits of labelled photos, and multinomial logistic regression on standardised features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of C, the inverse strength of the L2 penalty
FOLDS = 3
TICKS = FOLDS * len(STRENGTHS) + 1  # of a fit
_MOST_STEPS, _TOLERANCE, _FINE = 2000, 1e-4, 1e-7  # of the slope: to choose C, and at the end


@dataclass(frozen=True)
class Labelled:
    """Distinct photos of some classes. `members`: for each class the rows of its photos in a table, at least one more than
    are learned from. `too_few`: classes with fewer, and how many they have. `copies`: photos left out because an earlier one
    has the same pixels; `ambiguous`: because another class has one with the same pixels. `unlabelled`: without a class.
    """

    classes: tuple[str, ...]
    members: tuple[np.ndarray, ...]
    too_few: dict[str, int]
    copies: int
    ambiguous: int
    unlabelled: int


def distinct(labels: Sequence[str | None], digests: Sequence[str], order: Sequence[str], photos: int) -> Labelled:
    """The photos to learn from and to test on, of the classes in `order` with more than `photos` of them.

    No two of them have the same pixels: `digests` tell. `labels`: the class of each photo.
    """
    first, classes = dict[str, int](), dict[str, set[str]]()
    known = [row for row, label in enumerate(labels) if label]
    for row in known:
        first.setdefault(digests[row], row)
        classes.setdefault(digests[row], set()).add(str(labels[row]))
    clear = [row for digest, row in first.items() if len(classes[digest]) == 1]
    ambiguous = sum(len(classes[digests[row]]) > 1 for row in known)
    rows: dict[str, list[int]] = {name: [] for name in order}
    for row in sorted(clear):
        rows[str(labels[row])].append(row)
    used = tuple(name for name in order if len(rows[name]) > photos)
    return Labelled(
        used, tuple(np.array(rows[name]) for name in used),
        {name: len(rows[name]) for name in order if name not in used},
        len(known) - ambiguous - len(clear), ambiguous, len(labels) - len(known),
    )  # fmt: skip


@dataclass(frozen=True)
class Split:
    """The rows to learn from and those to test on, each with the number of its class."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    def within(self, rows: np.ndarray) -> Split:
        """The same rows by their places among the sorted `rows`."""
        return replace(self, train=np.searchsorted(rows, self.train), test=np.searchsorted(rows, self.test))


def split(members: Sequence[np.ndarray], photos: Sequence[int], most: int, seed: int, number: int = 0) -> Split:
    """Some photos of each class to learn from, and all others, at most `most`, to test on. Both are drawn with the seed.

    With more photos to learn from, those of fewer are among them.

    Args:
        members: The rows of each class.
        photos: How many of each class are learned from.
        most: The most to test on of each class.
        seed: Random seed.
        number: Of the split; another number gives another draw.
    """
    random = np.random.default_rng((seed, number))
    orders = [random.permutation(rows) for rows in members]
    train = [order[:count] for order, count in zip(orders, photos, strict=True)]
    test = [order[max(count, len(order) - most) :] for order, count in zip(orders, photos, strict=True)]
    return Split(np.concatenate(train), _labels(train), np.concatenate(test), _labels(test))


def _labels(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of features: scores are `features @ weight.T + bias`, with the standardisation inside.

    `weight` float64 `[classes F]`, `bias` float64 `[classes]`; `c`: the inverse strength of the penalty that was chosen.
    """

    weight: np.ndarray
    bias: np.ndarray
    c: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Float64 `[n classes]` of features `[n F]`; their softmax is the probability."""
        return np.asarray(features.astype(np.float64) @ self.weight.T + self.bias)


def recalls(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of right answers among the photos of each class, float64 `[classes]`."""
    right = np.bincount(labels, answers == labels)
    return np.asarray(right / np.bincount(labels))


def fit_probe(features: np.ndarray, labels: np.ndarray, tick: Callable[[], None] = lambda: None) -> LinearProbe:
    """Multinomial logistic regression with an L2 penalty on features `[n F]` of classes `[n]`, from 0 without gaps.

    Features are standardised; one that does not vary counts nothing. C is the one of `STRENGTHS` with the least mean
    cross-entropy in three folds, so that probabilities are meant as well; the photos of each class go round the folds.

    Each class has at least as many rows as there are folds. `tick` is called between fits; it may raise to cancel.
    """
    exact = features.astype(np.float64)
    mean, deviation = exact.mean(0), exact.std(0)
    # The deviation of a constant is some rounding errors, not 0.
    varies = deviation > len(exact) * np.finfo(np.float64).eps * np.abs(exact).max(0)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    points = (exact - mean) * scale
    with threadpool_limits(1, "blas"):  # several threads mostly wait for each other in products as small as these
        # The weights are combinations of the rows, so nothing is lost in the coordinates of their span, and fits are faster.
        basis = np.linalg.svd(points, full_matrices=False)[2] if points.shape[1] > len(points) else None
        inside = points if basis is None else points @ basis.T
        fold = np.array([(labels[:row] == label).sum() % FOLDS for row, label in enumerate(labels)])
        losses = np.zeros(len(STRENGTHS))
        for part in range(FOLDS):
            for place, c in enumerate(STRENGTHS):
                tick()
                weight, bias = _regression(inside[fold != part], labels[fold != part], c)
                losses[place] += _cross_entropy(inside[fold == part] @ weight.T + bias, labels[fold == part])
        c = STRENGTHS[int(losses.argmin())]
        tick()
        weight, bias = _regression(inside, labels, c, _FINE)
        weight = (weight if basis is None else weight @ basis) * scale
        return LinearProbe(weight, bias - weight @ mean, c)


def _cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Summed over the rows of `scores` `[n classes]`."""
    below = scores - scores.max(1, keepdims=True)
    return float((np.log(np.exp(below).sum(1)) - below[np.arange(len(labels)), labels]).sum())


def _regression(
    points: np.ndarray, labels: np.ndarray, c: float, tolerance: float = _TOLERANCE
) -> tuple[np.ndarray, np.ndarray]:
    """Weight `[classes F]` and bias `[classes]` of the regression; for two classes half the decision function each way."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    model = LogisticRegression(C=c, max_iter=_MOST_STEPS, tol=tolerance).fit(points, labels)
    weight, bias = model.coef_, model.intercept_
    return (weight, bias) if len(weight) > 1 else (np.concatenate([-weight, weight]) / 2, np.append(-bias, bias) / 2)
