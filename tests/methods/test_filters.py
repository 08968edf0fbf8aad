"""The method `filters` on layers whose kernels are known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from tests.networks import gabor, seeded
from vizapp.engine.layers.gratings import power
from vizapp.media.drawing import signed
from vizapp.methods.diagnosis import diagnose
from vizapp.methods.filters import kernel_tiles, slices_of, tile


def network(kernels: torch.Tensor, stride: int = 1, groups: int = 1) -> vizapp.zoo.Network:  # type: ignore[name-defined]
    layer = nn.Conv2d(kernels.shape[1] * groups, len(kernels), kernels.shape[2], stride, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(kernels)
    module = nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return vizapp.wrap(module, input_size=(layer.in_channels, 32, 32))


@pytest.fixture(scope="module")
def known() -> torch.Tensor:
    """Eight colour kernels 11 × 11: two alike, one their negative, a weak one, a strong one, stripes of three kinds."""
    first = gabor(11, 0.1, 20)
    kernels = [first, 1.1 * first + 0.01 * gabor(11, 0.4, 80), -first, 0.001 * gabor(11, 0.2, 60),
               9 * gabor(11, 0.25, 120), gabor(11, 0.24, 0), gabor(11, 0.45, 90), gabor(11, 0.12, 150)]  # fmt: skip
    return torch.stack([kernel.expand(3, -1, -1) for kernel in kernels])


def test_the_arrays_are_the_layers_kernels_whatever_site_behind_it_is_asked_for(known) -> None:
    for site in ("0", "1", "2"):
        result = vizapp.ask("filters", network(known), unit=vizapp.Unit(site, 3))
        np.testing.assert_array_equal(result.arrays["kernels"], known.numpy())
        assert ("the convolution before" in result.facts["layer"]) == (site != "0")
    assert result.arrays["spectrum"].shape == (8, 32, 32)


def test_without_a_unit_the_first_convolution_is_shown(known) -> None:
    result = vizapp.ask("filters", network(known))
    np.testing.assert_array_equal(result.arrays["kernels"], known.numpy())
    flat = vizapp.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), input_size=(3, 2, 2))
    with refuses("no-convolution"):
        vizapp.ask("filters", flat)


def test_twins_opposites_dead_and_dominating_filters_are_found(known) -> None:
    result = vizapp.ask("filters", network(known), unit=vizapp.Unit("0", 0))
    rows = result.table
    assert [row["filter"] for row in rows if row["duplicate"]] == [0, 1]
    assert [row["filter"] for row in rows if row["opposite"]] == [0, 1, 2]
    assert [row["filter"] for row in rows if row["dead"]] == [3]
    assert (rows[0]["twin"], rows[1]["twin"]) == (1, 0)
    assert rows[0]["norm"] == pytest.approx(float(known[0].norm()), rel=1e-5)
    assert rows[0]["rms"] == pytest.approx(float(known[0].square().mean().sqrt()), rel=1e-5)
    assert "2 of 8 filters are near-duplicates" in result.facts["diagnosis"]
    assert "1 more has an opposite" in result.facts["diagnosis"]
    assert "1 is dead" in result.facts["diagnosis"]
    assert "1 dominates" in result.facts["diagnosis"]


def test_frequencies_fall_into_bands_and_gaps_are_named(known) -> None:
    result = vizapp.ask("filters", network(known[[0, 1, 5, 7, 7, 7, 7, 2]]), unit=vizapp.Unit("0", 0))
    assert result.arrays["bands"].tolist() == [7, 1, 0]
    assert "mid and high frequencies are under-covered (1 and 0 of 8 filters)" in result.facts["diagnosis"]
    assert result.arrays["energy"].sum() == pytest.approx(1, abs=1e-5)
    assert result.arrays["energy"][0] > 0.7
    assert result.table[5]["frequency"] == pytest.approx(0.12, rel=0.05)
    assert result.table[5]["orientation"] == pytest.approx(150, abs=5)


def test_a_stride_aliases_above_half_a_cycle_per_step(known) -> None:
    said = vizapp.ask("filters", network(known, stride=4), unit=vizapp.Unit("0", 0)).facts["diagnosis"]
    assert "stride 4 aliases above 0.125 cycles per pixel (3 filters are tuned to higher frequencies)" in said
    assert "aliases" not in vizapp.ask("filters", network(known), unit=vizapp.Unit("0", 0)).facts["diagnosis"]


def test_thresholds_are_parameters(known) -> None:
    unit = vizapp.Unit("0", 0)
    loose = vizapp.ask("filters", network(known), unit=unit, alike=0.999999, dead=0.0)
    assert not any(row["duplicate"] or row["dead"] for row in loose.table)
    moved = torch.stack([known[5].roll(1, 1), known[5]])  # a quarter of a cycle
    assert not vizapp.ask("filters", network(moved), unit=unit).table[0]["duplicate"]
    assert vizapp.ask("filters", network(moved), unit=unit, shifts=1, alike=0.8).table[0]["duplicate"]


def test_a_gallery_tells_of_channels_that_were_never_above_zero(known) -> None:
    kernels = known.numpy()
    found = diagnose(kernels, power(kernels), silent=[5])
    assert np.flatnonzero(found.dead).tolist() == [3, 5]
    assert sum(found.bands.values()) == 6


def test_zeros_and_single_cells_are_no_trouble() -> None:
    kernels = torch.randn(6, 5, 1, 1)
    kernels[2] = 0
    result = vizapp.ask("filters", network(kernels), unit=vizapp.Unit("0", 2))
    assert result.table[2]["dead"]
    assert result.table[2]["frequency"] is None
    assert "under-covered" not in result.facts["diagnosis"]
    json.dumps(result.summary(), allow_nan=False)


def test_depthwise_kernels_are_asked_for_one_by_one() -> None:
    result = vizapp.ask("filters", network(torch.randn(6, 1, 3, 3), groups=6), unit=vizapp.Unit("0", 0))
    assert result.arrays["kernels"].shape == (6, 1, 3, 3)
    assert result.facts["groups"] == "Each kernel reads one channel."


def test_layers_without_kernels_say_so() -> None:
    with refuses("no-kernels-of-its-own"):
        vizapp.ask("filters", network(torch.randn(4, 3, 3, 3)), unit=vizapp.Unit("3", 0))


def test_colour_kernels_are_drawn_in_colour_deep_ones_as_their_strongest_slices() -> None:
    rng = np.random.default_rng(0)
    colour = rng.standard_normal((3, 5, 5))
    np.testing.assert_array_equal(tile(colour), signed(colour.transpose(1, 2, 0)))
    deep = rng.standard_normal((20, 3, 3)) * np.arange(1, 21)[:, None, None]
    np.testing.assert_array_equal(
        tile(deep)[:3, :3], signed(deep[np.argmax((deep**2).sum((1, 2)))], np.abs(deep).max())
    )
    assert tile(deep).shape == (11, 11, 3)
    assert slices_of(deep).shape[1] == 5 * 3 + 4
    np.testing.assert_array_equal(slices_of(deep)[:3, :3], signed(deep[0], np.abs(deep).max()))


def test_one_scale_for_the_layer_or_one_per_filter() -> None:
    weight = np.ones((2, 3, 3, 3)) * np.array([1, 0.1])[:, None, None, None]
    shared, own = kernel_tiles(weight, "layer"), kernel_tiles(weight, "filter")
    assert shared[1][0, -1].tolist() == [141, 141, 141]
    assert own[1][0, -1].tolist() == [255, 255, 255]


@pytest.mark.slow
def test_a_gallery_says_which_channels_no_picture_excites(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 24 * 24, 2))
    seeded(module)
    with torch.no_grad():
        module[0].bias.copy_(torch.tensor([0.0, -100.0, 0.0]))  # never above zero, though its kernel is as strong
    network = vizapp.wrap(module.eval(), input_size=(1, 28, 28), mean=(0.5,), std=(0.5,))
    vizapp.ask("gallery", network, folder=vizapp.open_folder("digits"), sites=["1"], out=str(tmp_path / "g"))
    before = vizapp.ask("filters", network, unit=vizapp.Unit("0", 0))
    result = vizapp.ask("filters", network, unit=vizapp.Unit("0", 0), gallery=str(tmp_path / "g"))
    assert [row["dead"] for row in before.table] == [False, False, False]
    assert [row["dead"] for row in result.table] == [False, True, False]
    assert result.facts["gallery"].startswith("1 of 3 channels of 1 ")
    deeper = vizapp.ask("filters", network, unit=vizapp.Unit("2", 0), gallery=str(tmp_path / "g"))
    assert deeper.facts["gallery"] == "It has no layer 2."
    other = vizapp.wrap(seeded(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())), input_size=(1, 28, 28))
    with refuses("other-network"):
        vizapp.ask("filters", other, unit=vizapp.Unit("0", 0), gallery=str(tmp_path / "g"))


class Siblings(torch.nn.Module):
    """Two convolutions one after the other in time, of the same picture; then norm and rectifier of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = torch.nn.Conv2d(1, 3, 1), torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3)
        with torch.no_grad():
            for conv, biases in ((self.first, [-1.0, -1.0, 1.0]), (self.second, [-1.0, -1.0, -1.0])):
                conv.weight.zero_()
                conv.bias.copy_(torch.tensor(biases))
            self.norm.bias.copy_(torch.tensor([2.0, 0.0, 0.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        second = self.second(x)
        return torch.relu(self.norm(self.first(x))) + second


def test_a_channel_that_the_norm_lifts_is_not_dead_and_a_sibling_says_nothing(tmp_path: Path) -> None:
    network = vizapp.wrap(Siblings(), input_size=(1, 8, 8))
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.png").write_bytes(saved(noise(8, 8, number)))
    told = {}
    for name, sites in {"all": ["all"], "conv": ["first"], "sibling": ["first"], "wrong": ["norm", "relu"]}.items():
        vizapp.ask("gallery", network, folder=tmp_path / "in", sites=sites, out=str(tmp_path / name))
        unit = vizapp.Unit("second" if name in ("sibling", "wrong") else "first", 0)
        told[name] = vizapp.ask("filters", network, unit=unit, gallery=str(tmp_path / name)).facts["gallery"]
    assert told["all"].startswith("1 of 3 channels of relu ")
    assert told["conv"].startswith("2 of 3 channels of first ")
    assert told["sibling"] == told["wrong"] == "It has no layer second."
