"""Non-negative parts: planted ones are found, the error is scikit-learn's, and classes are those of the head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import NMF
from torch import nn

import vizapp
from tests.media.files import noise
from tests.networks import Branching, seeded
from vizapp.methods.cell_features import cell_features
from vizapp.methods.factorization import factorise, head_weights

SIDE, CLASSES = 48, ("cat", "dog", "owl", "fox", "hen")


def tick(share: float) -> None:
    assert 0 <= share <= 1


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two photos `[2 6 6 12]` made of three parts that share neither cells nor channels, and the strengths `[2 3 6 6]`."""
    draw, strengths = np.random.default_rng(seed), np.zeros((2, 3, 6, 6), np.float32)
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        strengths[:, part, rows] = draw.uniform(1, 2, (2, 2, 6)) * (3 - part)
    vectors = np.zeros((3, 12), np.float32)
    for part in range(3):
        vectors[part, 4 * part : 4 * part + 4] = draw.uniform(0.5, 1, 4)
    return np.einsum("pkhw,kc->phwc", strengths, vectors), strengths * np.linalg.norm(vectors, axis=1)[:, None, None]


def error(values: np.ndarray, maps: np.ndarray, vectors: np.ndarray) -> float:
    """‖V − WH‖ / ‖V‖ of the rectified values `[photos h w C]`."""
    rectified = np.maximum(values, 0).astype(np.float64)
    apart = rectified - np.einsum("pkhw,kc->phwc", maps.astype(np.float64), vectors.astype(np.float64))
    return float(np.linalg.norm(apart) / np.linalg.norm(rectified))


@pytest.mark.parametrize("seed", range(3))
def test_planted_parts_are_found_the_strongest_first(seed: int) -> None:
    values, strengths = planted(seed)
    found = factorise(values, 3, 0, tick)
    np.testing.assert_allclose(found.maps, strengths, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-6)
    assert found.error < 1e-3
    assert found.negative == 0
    expected = strengths.mean((0, 2, 3))[:, None] * found.vectors
    np.testing.assert_allclose(found.means(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["noise", "sparse", "smooth", "signed", "large"])
@pytest.mark.parametrize("k", [2, 7])
def test_the_error_is_that_of_scikit_learn_within_a_percent(kind: str, k: int) -> None:
    draw = np.random.default_rng(5)
    values = draw.uniform(size=(2, 8, 8, 20)).astype(np.float32)
    if kind == "sparse":
        values = values * (draw.uniform(size=values.shape) < 0.2)
    elif kind == "smooth":
        values = np.cumsum(np.cumsum(values - 0.45, 1), 2).clip(0)
    elif kind == "signed":
        values -= 0.5
    elif kind == "large":
        values *= 1e6
    found = factorise(values.astype(np.float32), k, 0, tick)
    rows = np.maximum(values, 0).reshape(-1, 20).astype(np.float64)
    best = NMF(k, init="nndsvda", tol=1e-6, max_iter=2000, random_state=1).fit(rows).reconstruction_err_
    assert error(values, found.maps, found.vectors) <= 1.01 * best / np.linalg.norm(rows)
    assert found.error == pytest.approx(error(values, found.maps, found.vectors), rel=1e-4)
    assert found.negative == pytest.approx((values < 0).mean())
    assert (found.maps >= 0).all()
    assert (found.vectors >= 0).all()
    strength = np.square(found.maps).sum((0, 2, 3))
    assert (np.diff(strength) <= 0).all()


def test_the_same_seed_gives_the_same_parts() -> None:
    values = planted()[0] + np.random.default_rng(0).uniform(size=(2, 6, 6, 12)).astype(np.float32)
    first, second = factorise(values, 4, 3, tick), factorise(values, 4, 3, tick)
    assert (first.maps == second.maps).all()
    assert (first.vectors == second.vectors).all()


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 3, 3, 4)),
        np.full((1, 3, 3, 4), -1.0),
        np.ones((1, 1, 1, 5)),
        np.full((1, 4, 4, 6), 2.0),
        np.random.default_rng(0).uniform(size=(1, 3, 3, 1)),
        np.random.default_rng(0).uniform(size=(1, 3, 3, 2)),
    ],
    ids=["zero", "negative", "one cell", "constant", "one channel", "two channels"],
)
def test_more_parts_than_there_are_directions_are_answered(values: np.ndarray) -> None:
    found = factorise(values.astype(np.float32), 5, 0, tick)
    assert found.maps.shape == (values.shape[0], 5, *values.shape[1:3])
    assert np.isfinite(found.maps).all()
    assert np.isfinite(found.vectors).all()
    assert found.error < 0.01
    assert found.maps.any() == (values > 0).any()


def test_a_factorization_can_be_left() -> None:
    def leave(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        factorise(np.random.default_rng(0).uniform(size=(1, 8, 8, 9)).astype(np.float32), 3, 0, leave)


def test_the_weights_of_a_linear_head_behind_an_average_are_found() -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, SIDE, SIDE), categories=CLASSES)
    crop = noise(SIDE, SIDE)
    weight, reason = head_weights(network, network.site("relu_3"), crop)
    assert reason == ""
    assert weight is not None
    module = network.module
    np.testing.assert_array_equal(weight, module.head.weight.numpy())  # type: ignore[operator, union-attr]
    found = factorise(cell_features(network, network.site("relu_3"), [crop], tick), 8, 0, tick)
    with torch.no_grad():
        scores = network.scores(network.batch([crop]))[0] - module.head.bias  # type: ignore[operator, union-attr]
    np.testing.assert_allclose((found.means() @ weight.T).sum(0), scores, atol=0.02 * float(scores.abs().max()))


class OneCell(nn.Module):
    """Its head's weight has the shape of one behind an average, but reads one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU()), nn.Linear(6, 5)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.head(self.body(x)[:, :, 0, 0])


def test_a_layer_whose_mean_is_not_what_the_head_reads_has_no_weights_and_the_reason_names_one_that_has() -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, SIDE, SIDE), categories=CLASSES)
    crop = noise(SIDE, SIDE)
    for site in ("body", "relu"):  # before a ReLU, with as many channels
        weight, reason = head_weights(network, network.site(site), crop)
        assert weight is None
        assert repr(site) in reason
        assert "They are of 'relu_3'." in reason
    flat = vizapp.wrap(seeded(OneCell()), input_size=(3, SIDE, SIDE), categories=CLASSES)
    weight, reason = head_weights(flat, flat.site("body"), crop)
    assert weight is None
    assert "They are of" not in reason
    plain = vizapp.wrap(nn.Conv2d(3, 5, 3), input_size=(3, SIDE, SIDE))
    assert head_weights(plain, plain.sites[0], crop) == (None, f"{plain.name} gives no class scores.")


def test_the_weights_are_those_of_the_network_under_interventions() -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, SIDE, SIDE), categories=CLASSES)
    changed = vizapp.zoo.interventions.under(network, [vizapp.Intervention("mean", [0], "scale", 2.0)])
    weight, reason = head_weights(changed, changed.site("relu_3"), noise(SIDE, SIDE))
    assert weight is None, "the head reads twice the mean of a channel"
    assert "not a linear layer of the mean" in reason
