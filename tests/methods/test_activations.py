"""The pictures of feature maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizapp
from vizapp.media.drawing import heat
from vizapp.media.samples import open_sample
from vizapp.methods.activations import channel_tiles, over_photo, scale_limits


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_leaves_the_scale_of_the_layer_to_the_others(bad: float) -> None:
    values = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    values[0, 0, 0], values[2, 3, 4] = 0.0, 1.0
    expected = channel_tiles(values)
    values[1, 2, 3] = bad
    tiles = channel_tiles(values)
    same = np.ones((3, 4, 5), bool)
    same[1, 2, 3] = False
    assert (np.stack(tiles)[same] == np.stack(expected)[same]).all()
    assert np.stack(tiles)[same].std() > 10


def test_a_channel_lies_over_the_photo_cell_by_cell() -> None:
    seen = np.full((8, 8, 3), 100, np.uint8)
    drawn = over_photo(seen, np.array([[0.0, 1.0], [2.0, 3.0]]))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 4
    for rows in (slice(0, 4), slice(4, 8)):
        for columns in (slice(0, 4), slice(4, 8)):
            assert (drawn[rows, columns] == drawn[rows, columns][0, 0]).all()


@pytest.mark.parametrize("bad", [None, np.nan, np.inf])
def test_a_clipped_scale_ends_at_the_value_that_99_of_100_do_not_exceed(bad: float | None) -> None:
    """By sorting, with the linear interpolation between neighbours that NumPy documents."""
    values = np.random.default_rng(1).exponential(size=(5, 7, 9)).astype(np.float32)
    values[2, 3, 4] = 50.0
    if bad is not None:
        values[0, 0, 0] = bad
    ordered = np.sort(values[np.isfinite(values)].astype(np.float64))
    place = 0.99 * (len(ordered) - 1)
    below, above = ordered[int(place)], ordered[int(place) + 1]
    high = below + (place - int(place)) * (above - below)
    assert scale_limits(values, "clipped") == pytest.approx((ordered[0], high))
    assert scale_limits(values, "layer") == (ordered[0], 50.0)
    tiles = np.stack(channel_tiles(values, "clipped"))
    brightest = heat(np.array([[0.0, 1.0]]), 0, 1)[0, 1]
    finite = np.isfinite(values)
    assert ((tiles == brightest).all(-1)[finite] == (values >= high - (high - ordered[0]) / 510)[finite]).all()


class Around(nn.Module):
    """Patches of 8 x 8 pixels, a class token before them and two register tokens behind them; then the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 5, 8, 8), nn.Linear(5, 3)
        self.cls_token, self.reg_token = nn.Parameter(torch.randn(1, 1, 5)), nn.Parameter(torch.randn(1, 2, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x, self.reg_token.expand(len(x), -1, -1)], 1)
        x = torch.tanh(x)
        return self.head(x.mean(1))


def test_special_tokens_are_given_beside_the_map_with_their_names() -> None:
    torch.manual_seed(0)
    module = Around().eval()
    network = vizapp.wrap(module, input_size=(3, 16, 40))
    picture = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    result = vizapp.ask("activations", network, picture, unit=vizapp.Unit("tanh", 2))
    own = torch.cat([module.cls_token[0], module.reg_token[0]]).T
    np.testing.assert_allclose(result.arrays["tokens"], torch.tanh(own).detach().numpy(), atol=1e-6)
    expected = torch.tanh(module.patches(network.prepare(picture)))[0].detach().numpy()
    np.testing.assert_allclose(result.arrays["activations"], expected, atol=1e-6)
    assert result.facts["tokens"] == (
        "The patch tokens are laid out as a map of 2 x 5; special tokens, in the array tokens: class, register 1, register 2."
    )
    before = vizapp.ask("activations", network, picture, unit=vizapp.Unit("patches", 2))
    assert set(before.arrays) == {"activations"}


def test_a_map_whose_cells_have_no_place_in_the_photo_is_not_laid_over_it() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.conv(x).flip(3)).mean((2, 3))

    network = vizapp.wrap(Turned().eval(), input_size=(3, 16, 40))
    picture = np.random.default_rng(0).integers(0, 256, (16, 40, 3), dtype=np.uint8)
    result = vizapp.ask("activations", network, picture, unit=vizapp.Unit("tanh", 1))
    np.testing.assert_array_equal(result.panels[1].pixels, heat(result.arrays["activations"][1]))
    assert "not positions in the photo" in result.facts["cells"]


def test_a_clipped_scale_of_a_sparse_layer_ends_at_its_largest_value() -> None:
    values = np.zeros((4, 10, 10), np.float32)
    values[1, 2, 3] = 5.0
    assert scale_limits(values, "clipped") == (0.0, 5.0)
    assert scale_limits(np.full((1, 2, 2), np.nan), "clipped") == (0.0, 1.0)


def test_the_scale_leaves_the_activations_as_they_are() -> None:
    network, picture, unit = vizapp.load("vizapp/lenet5-digits"), open_sample("digit 3"), vizapp.Unit("features.1", 2)
    results = [vizapp.ask("activations", network, picture, unit=unit, scale=scale) for scale in ("layer", "clipped")]
    assert (results[0].arrays["activations"] == results[1].arrays["activations"]).all()
    assert (results[0].panels[0].pixels != results[1].panels[0].pixels).any()
    assert results[0].table == results[1].table


def test_the_photo_shows_through_where_a_channel_is_low() -> None:
    seen = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    drawn = over_photo(seen, np.array([[0.0, 1.0], [0.0, 0.0]]))
    assert (drawn[4:] == seen[4:]).all()
    assert (drawn[:4, 4:] != seen[:4, 4:]).any()
