"""Cells as colours and their likeness, beside NumPy's SVD and a loop over cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vizapp
from tests.errors import refuses
from tests.media.files import noise
from tests.networks import Branching, seeded
from vizapp.methods.cell_features import (
    CellColours,
    cell_features,
    check_cells,
    colour_cells,
    default_site,
    likeness,
)

SIDE = 48


def tick(share: float) -> None:
    assert 0 <= share <= 1


def maps(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Correlated channels, whose principal components differ clearly in size."""
    draw = np.random.default_rng(seed)
    mixing = draw.normal(size=(shape[-1], shape[-1])) * 0.5 ** np.arange(shape[-1])[:, None]
    return (draw.normal(size=shape) @ mixing + 3).astype(np.float32)


def by_svd(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Components, axes and shares of the variance by NumPy's SVD, the largest loading of each axis positive."""
    rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
    centred = rows - rows.mean(0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.stack([axis if axis[np.abs(axis).argmax()] > 0 else -axis for axis in axes[:3]])
    return (centred @ axes.T).reshape(*features.shape[:3], 3), axes, (values**2 / (values**2).sum())[:3]


@pytest.mark.parametrize("shape", [(1, 5, 7, 12), (3, 6, 6, 12), (1, 2, 3, 40)])
def test_colours_are_the_components_of_an_svd_from_their_1st_to_their_99th_percentile(shape: tuple[int, ...]) -> None:
    features = maps(shape)
    found = colour_cells(features, tick)
    components, axes, explained = by_svd(features)
    np.testing.assert_allclose(found.components, components, atol=1e-4 * np.abs(components).max())
    np.testing.assert_allclose(found.axes, axes, atol=1e-6)
    np.testing.assert_allclose(found.explained, explained, rtol=1e-6)
    for colour in range(3):
        values = np.sort(components[..., colour].ravel())
        low, high = np.interp([0.01, 0.99], np.linspace(0, 1, len(values)), values)
        expected = 255 * np.clip((components[..., colour] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(found.pixels[..., colour], expected, atol=0.51)


def test_the_foreground_is_where_the_first_component_is_positive_and_its_other_side_where_it_is_negative() -> None:
    features = maps((2, 5, 5, 8))
    found = colour_cells(features, tick)
    first = by_svd(features)[0][..., 0]
    assert (found.shown("positive") == (first > 0)).all()
    assert (found.shown("negative") == (first < 0)).all()
    assert found.shown("off").all()
    assert 0 < found.shown("positive").mean() < 1


def test_a_photo_twice_has_equal_colours_and_the_order_of_photos_does_not_matter() -> None:
    features = maps((4, 6, 5, 9))
    twice = colour_cells(features[[0, 1, 2, 0]], tick)
    assert (twice.pixels[0] == twice.pixels[3]).all()
    order = [2, 0, 3, 1]
    found, permuted = colour_cells(features, tick), colour_cells(features[order], tick)
    scale = np.abs(found.components).max()
    np.testing.assert_allclose(permuted.components, found.components[order], atol=1e-5 * scale)
    assert np.abs(permuted.pixels.astype(int) - found.pixels[order]).max() <= 1
    alone = colour_cells(features[:1], tick)
    assert not np.allclose(alone.axes, found.axes, atol=0.01), "the basis is that of all photos"


GREY = [128, 128, 128]


@pytest.mark.parametrize(
    ("features", "varying"),
    [
        (np.full((1, 1, 1, 5), 2.0), 0),
        (np.full((1, 4, 4, 5), 0.1), 0),
        (np.zeros((2, 3, 3, 4)), 0),
        (maps((1, 4, 4, 1)), 1),
        (maps((1, 4, 4, 2)), 2),
        (maps((1, 1, 2, 6)), 1),
        (np.repeat(maps((1, 1, 30, 1)), 9, axis=3).reshape(1, 5, 6, 9), 1),
    ],
    ids=["one cell", "constant", "zero", "one channel", "two channels", "two cells", "equal channels"],
)
def test_what_does_not_vary_is_grey(features: np.ndarray, varying: int) -> None:
    found = colour_cells(features.astype(np.float32), tick)
    assert np.isfinite(found.components).all()
    assert (found.pixels[..., varying:] == 128).all()
    assert not found.components[..., varying:].any()
    assert (found.explained[varying:] == 0).all()
    assert found.explained[:varying].sum() == pytest.approx(1 if varying else 0)
    assert all(np.ptp(found.pixels[..., colour]) == 255 for colour in range(varying))


def test_the_rounding_of_constant_cells_is_no_colour() -> None:
    features = np.full((1, 6, 6, 16), 5.0, np.float32)
    features *= 1 + np.random.default_rng(0).choice([0, 1e-7], features.shape).astype(np.float32)
    assert np.ptp(features) > 0
    assert (colour_cells(features, tick).pixels == GREY).all()


def test_likeness_is_the_cosine_with_every_cell_and_1_with_itself() -> None:
    features = maps((3, 4, 5, 7)) - 3
    found = likeness(features, 1, (2, 3))
    chosen = features[1, 2, 3].astype(np.float64)
    for photo, row, column in np.ndindex(3, 4, 5):
        other = features[photo, row, column].astype(np.float64)
        expected = chosen @ other / np.linalg.norm(chosen) / np.linalg.norm(other)
        assert found[photo, row, column] == pytest.approx(expected, abs=1e-6)
    assert found[1, 2, 3] == pytest.approx(1, abs=1e-6)
    assert found.min() < 0
    np.testing.assert_allclose(likeness(1e3 * features, 1, (2, 3)), found, atol=1e-6)


def test_a_cell_of_zeros_is_like_nothing() -> None:
    features = maps((1, 2, 2, 5))
    features[0, 0, 1] = 0
    assert not likeness(features, 0, (0, 1)).any()
    assert likeness(features, 0, (0, 0))[0, 0, 1] == 0


class Tokens(nn.Module):
    """A transformer's tokens: a class token, which alone is read, then one per patch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix, self.head = nn.Conv2d(3, 6, 8, stride=8), nn.Linear(6, 6), nn.Linear(6, 4)
        self.token = nn.Parameter(torch.ones(1, 1, 6))

    def forward(self, x):  # type: ignore[no-untyped-def]
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1)
        return self.head(self.mix(tokens)[:, 0])


def test_special_tokens_are_left_out_and_cells_lie_as_in_the_photo() -> None:
    network = vizapp.wrap(seeded(Tokens()), input_size=(3, SIDE, 2 * SIDE))
    crops = [noise(SIDE, 2 * SIDE, seed=n) for n in range(3)]
    site = network.site("mix")
    assert site.prefix_tokens == 1
    found = cell_features(network, site, crops, tick)
    module: Any = network.module
    expected = module.mix(module.patches(network.batch(crops)).permute(0, 2, 3, 1)).detach().numpy()
    assert found.shape == (3, 6, 12, 6)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_features_that_are_not_finite_are_refused() -> None:
    class Dividing(nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x / (x > 0).float()

    network = vizapp.wrap(Dividing(), input_size=(3, 8, 8))
    with refuses("not-finite", "truediv"):
        cell_features(network, network.site("truediv"), [np.zeros((8, 8, 3), np.uint8)], tick)


def test_a_layer_without_cells_is_refused_with_a_near_one_that_has_some() -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, SIDE, SIDE))
    with refuses("no-cells", "'head'", "vector without cells", "'relu_3'"):
        check_cells(network, network.site("head"))
    check_cells(network, network.site("body"))


@pytest.mark.parametrize(("side", "site"), [(64, "relu_3"), (32, "relu"), (8, "relu_3")])
def test_the_layer_without_a_choice_is_the_last_with_cells_enough_for_a_picture(side: int, site: str) -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, side, side))
    assert default_site(network).name == site


def test_colours_know_their_memory() -> None:
    found = colour_cells(maps((2, 5, 5, 8)), tick)
    assert isinstance(found, CellColours)
    assert found.nbytes == 2 * 25 * 3 * (4 + 1) + 3 * 8 * 8
