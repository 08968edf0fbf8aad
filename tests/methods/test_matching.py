"""Units of two networks are matched by their activations on the pictures of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vizapp
from tests.errors import refuses
from tests.networks import Branching, seeded
from vizapp.methods import matching
from vizapp.methods.base import Job
from vizapp.methods.matching import match_units


@pytest.fixture
def folder(tmp_path: Path):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) // (1 + number % 4)).save(
            tmp_path / f"{number}.png"
        )
    (tmp_path / "broken.png").write_bytes(b"nothing")
    return vizapp.open_folder(tmp_path)


def shuffled(order: list[int]) -> torch.nn.Module:
    """The network with the channels of its first layer in another order."""
    module = seeded(Branching())
    with torch.no_grad():
        module.stem.weight.copy_(module.stem.weight[order].clone())
        module.stem.bias.copy_(module.stem.bias[order].clone())
    return module


@pytest.mark.parametrize("pool", ["mean", "maximum"])
def test_a_network_with_shuffled_channels_is_matched_channel_by_channel(folder, pool) -> None:
    order = [3, 0, 1, 7, 6, 5, 2, 4]
    first = vizapp.wrap(seeded(Branching()), input_size=(3, 32, 32))
    second = vizapp.wrap(shuffled(order), input_size=(3, 32, 32))
    shares: list[float] = []
    result = match_units((first, second), ("stem", "stem"), folder, Job(shares.append), pool)
    assert {row["first"]: row["second"] for row in result.table} == {c: order.index(c) for c in range(8)}
    assert all(row["correlation"] == pytest.approx(1, abs=1e-5) for row in result.table)
    assert result.facts["pictures"].startswith("20 of 21 in")
    assert result.facts["pictures"].endswith("1 unreadable")
    assert shares[-1] == 1


def test_the_correlation_is_that_of_the_activations(folder) -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, 32, 32))
    result = match_units((network, network), ("stem", "head"), folder, Job(), most=6)
    numbers = np.unique(np.linspace(0, 20, 6).astype(int))
    pictures = [folder.open(i) for i in numbers if folder.paths[i].name != "broken.png"]
    answers = []
    for site in ("stem", "head"):
        maps = [
            vizapp.ask("activations", network, p, unit=vizapp.Unit(site, 0)).arrays["activations"] for p in pictures
        ]
        answers.append(np.array([m.reshape(len(m), -1).mean(1) for m in maps]))
    expected = np.corrcoef(answers[0].T, answers[1].T)[:8, 8:]
    np.testing.assert_allclose(result.arrays["correlation"], expected, atol=1e-4)


def test_correlations_of_wide_layers_are_left_out_and_the_matches_stay(folder, monkeypatch) -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, 32, 32))
    whole = match_units((network, network), ("stem", "head"), folder, Job())
    monkeypatch.setattr(matching, "MOST_CORRELATIONS", whole.arrays["correlation"].size - 1)
    least = match_units((network, network), ("stem", "head"), folder, Job())
    assert set(least.arrays) == {"matches"}
    assert least.table == whole.table
    assert len(whole.table) > 2
    assert "matches alone" in least.facts["correlation"]


def test_two_pictures_are_too_few(folder) -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, 32, 32))
    with refuses("too-few-pictures"):
        match_units((network, network), ("stem", "stem"), folder, Job(), most=2)


class Odd(torch.nn.Module):
    """Maps that are constant, hardly vary around a large mean, or are NaN or infinite on bright pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, bright = self.conv(x), x[:, :1, 1:-1, 1:-1] > 0.9
        odd = [torch.where(bright, value, y[:, :1]) for value in (float("nan"), float("inf"))]
        return torch.relu(torch.cat([y, y[:, :1] * 0 + 0.1, y[:, :1] + 100, *odd], 1))


@pytest.mark.parametrize("pool", ["mean", "maximum"])
def test_correlations_of_odd_units_are_those_of_numpy(tmp_path, pool: str) -> None:
    """37 pictures, so that the last batch is short; some are too bright for the units that are NaN or infinite there."""
    rng = np.random.default_rng(0)
    for number in range(37):
        pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8) // (1 if number % 6 == 3 else 2)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "10.png").write_bytes(b"nothing")
    source, networks, answers = vizapp.open_folder(tmp_path), [], []
    for seed in (0, 1):
        module = seeded(Odd(), seed)
        networks.append(vizapp.wrap(module, input_size=(3, 9, 9), mean=0.0, std=1.0))
        pictures = [picture.pixels for _, picture in source.open_readable(range(len(source)))]
        maps = np.stack(
            [module(torch.from_numpy(one.copy()).permute(2, 0, 1)[None] / 255)[0].detach().numpy() for one in pictures]
        ).astype(np.float64)
        answers.append(maps.mean((2, 3)) if pool == "mean" else maps.max((2, 3)))
    result = match_units((networks[0], networks[1]), ("relu", "relu"), source, Job(), pool)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.corrcoef(answers[0].T, answers[1].T)[:7, 7:]
    constant = [np.ptp(values, 0) == 0 for values in answers]
    expected[constant[0]] = np.nan
    expected[:, constant[1]] = np.nan
    assert np.isfinite(expected).sum() >= 9
    assert np.isnan(expected[3]).all()
    np.testing.assert_allclose(result.arrays["correlation"], expected, atol=2e-4)
    best = {a: int(np.nanargmax(row)) for a, row in enumerate(expected) if not np.isnan(row).all()}
    assert {row["first"]: row["second"] for row in result.table} == best
