"""RISE and occlusion as kinds of attribution, against loops over the papers' formulas and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from tests.networks import Branching, seeded
from vizapp.methods import methods
from vizapp.methods.attribution.perturbations import GRID, RandomMasks

PICTURE = np.random.default_rng(3).integers(0, 256, (60, 50, 3), dtype=np.uint8)


def masks_by_hand(size: tuple[int, int], count: int, seed: int) -> np.ndarray:
    """Petsiuk 2018, section 3.2, step by step; the random numbers are drawn as documented: grids, rows, columns.

    There are half as many of them as masks: a mask with an odd number is the opposite of the one before it.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.rand(-(-count // 2), GRID, GRID, generator=generator) < 0.5).numpy()
    grids = [drawn[n // 2] if n % 2 == 0 else ~drawn[n // 2] for n in range(count)]
    cells = [-(-side // GRID) for side in size]
    drawn_shifts = [torch.randint(cell, (len(drawn),), generator=generator).tolist() for cell in cells]
    shifts = [[each[n // 2] for n in range(count)] for each in drawn_shifts]
    found = np.zeros((count, *size))
    for n in range(count):
        for row in range(size[0]):
            for column in range(size[1]):
                number = 0.0
                y, x = (
                    min(max((shift[n] + pixel + 0.5) * GRID / ((GRID + 1) * cell) - 0.5, 0), GRID - 1)
                    for shift, pixel, cell in zip(shifts, (row, column), cells, strict=True)
                )
                for near_y in (int(y), min(int(y) + 1, GRID - 1)):
                    for near_x in (int(x), min(int(x) + 1, GRID - 1)):
                        part = (1 - abs(y - near_y)) * (1 - abs(x - near_x))
                        twice = (1 + (int(y) == GRID - 1)) * (1 + (int(x) == GRID - 1))
                        number += part * grids[n][near_y, near_x] / twice
                found[n, row, column] = number
    return found


def network_of(module: nn.Module, size: tuple[int, int] = (16, 20)) -> vizapp.Network:
    return vizapp.wrap(seeded(module), input_size=(3, *size))


def test_masks_are_resized_shifted_grids_whatever_the_batch() -> None:
    masks, expected = RandomMasks((17, 23), 6, 5), masks_by_hand((17, 23), 6, 5)
    np.testing.assert_allclose(masks.of(range(6)), expected, atol=1e-6)
    np.testing.assert_allclose(masks.of([4, 1]), expected[[4, 1]], atol=1e-6)
    assert len({tuple(mask.flatten().tolist()) for mask in masks.of(range(6))}) == 6


@pytest.mark.parametrize("unit", [vizapp.Unit("head", 2), vizapp.Unit("body", 3)])
def test_rise_is_the_papers_sum_over_the_same_masks(unit: vizapp.Unit) -> None:
    network, count = network_of(Branching()), 13
    result = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="rise", masks=count, seed=5)
    batch = network.prepare(PICTURE)
    cell: tuple[int, ...] = ()
    if network.site(unit.site).is_map:
        clean = by_pass(network, batch, unit.site)[0, unit.channel]
        cell = tuple(int(place) for place in np.unravel_index(int(clean.argmax()), clean.shape))
    total = np.zeros((16, 20))
    for mask in masks_by_hand((16, 20), count, 5):
        masked = batch * torch.from_numpy(mask).float()
        total += float(by_pass(network, masked, unit.site)[(0, unit.channel, *cell)]) * mask
    expected = total / (count * 0.5)
    np.testing.assert_allclose(result.arrays["attribution"], expected, atol=1e-6 * np.abs(expected).max())
    assert f"{count} masks" in result.facts["note"]


def by_pass(network: vizapp.Network, batch: Tensor, site: str) -> Tensor:
    """The activation at a layer of torch, seen by a hook."""
    seen: list[Tensor] = []
    handle = network.module.get_submodule(site).register_forward_hook(lambda *given: seen.append(given[2].clone()))
    with torch.no_grad():
        network.module(batch.clone())
    handle.remove()
    return seen[0]


def test_the_expectation_of_rise_on_a_linear_network_is_the_closed_form() -> None:
    """E[f(x m) m_i] / p for f(x) = b + Σ w_j x_j, with the second moments of the masks from the interpolation weights.

    A mask is rows · grid · columns; cells are independent with mean p and variance p (1 - p), and shifts are uniform.
    """
    size, count, p = (14, 14), 6000, 0.5
    module = seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 14, 2)))
    network = vizapp.wrap(module, input_size=(3, *size))
    result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.Unit("1", 0), kind="rise", masks=count)
    weight, bias = module[1].weight[0].view(3, -1).double(), float(module[1].bias[0])
    weighted = (weight * network.prepare(PICTURE)[0].flatten(1).double()).sum(0).view(14, 14).numpy()
    side = (GRID + 1) * 2
    basis = F.interpolate(torch.eye(GRID)[None].double(), side, mode="linear")[0].numpy()  # [7 16]
    moments = [basis[:, s : s + 14].T @ basis[:, s : s + 14] for s in range(2)]
    covariance = np.mean([np.einsum("ij,kl->ikjl", down, right) for down in moments for right in moments], 0)
    second = p * p + p * (1 - p) * covariance  # E[m_i m_j], i = (row, column)
    expected = (np.einsum("ikjl,jl->ik", second, weighted) + bias * p) / p
    masks = RandomMasks(size, count, 0).of(range(count)).double().numpy()
    values = bias + np.einsum("nij,ij->n", masks, weighted)
    pairs = (values[:, None, None] * masks / p).reshape(-1, 2, *size).mean(1)  # a mask and its opposite go together
    error = pairs.std(0) / np.sqrt(len(pairs))
    z = (result.arrays["attribution"] - expected) / error
    assert np.abs(z).mean() < 3, "pixels share their masks, so their errors go together"
    assert np.abs(z).max() < 4.5
    assert np.ptp(expected) > 10 * error.mean(), "a map without differences proves nothing"
    told = float(result.facts["error"].partition(": ")[2].partition(" ")[0])
    assert told == pytest.approx(error.mean(), rel=0.05)


def test_a_unit_that_answers_alike_to_all_masks_gets_a_flat_map() -> None:
    """The paper's sum of a constant is the constant times how often a pixel is shown, which must not look like a map."""
    module = seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 14, 2)))
    nn.init.zeros_(module[1].weight)
    nn.init.constant_(module[1].bias, 7.0)
    network = vizapp.wrap(module, input_size=(3, 14, 14))
    result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.Unit("1", 0), kind="rise", masks=20)
    np.testing.assert_allclose(result.arrays["attribution"], 7, rtol=1e-6)
    assert float(result.facts["error"].partition(": ")[2].partition(" ")[0]) == pytest.approx(0, abs=1e-6)


def test_a_map_far_above_zero_is_drawn_from_its_lowest_value() -> None:
    (output,) = methods()["attribution"].shows
    far = np.linspace(14, 16, 12).reshape(3, 4)
    assert output.limits(far) == (14, 16)
    assert len(np.unique(output.draw(far).reshape(-1, 3), axis=0)) == 12
    assert output.limits(far - 13.9) == (0, far.max() - 13.9), "nearly 0"
    assert output.limits(np.full((3, 4), 5.0))[0] == 0, "no differences to show"


def test_rise_reports_its_progress_and_can_be_cancelled() -> None:
    network, shares = network_of(Branching()), list[float]()
    ask = {"unit": vizapp.Unit("head", 2), "kind": "rise", "masks": 100}
    vizapp.ask("attribution", network, PICTURE, **ask, tick=shares.append)
    assert shares == sorted(shares)
    assert len([share for share in shares if 0.1 < share < 1]) >= 3

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vizapp.ask("attribution", network, PICTURE, **ask, tick=stop)


@pytest.mark.parametrize("unit", [vizapp.Unit("head", 1), vizapp.Unit("body", 3)])
def test_occlusion_is_the_mean_drop_under_grey_squares(unit: vizapp.Unit) -> None:
    network = network_of(Branching())
    result = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="occlusion")
    batch = network.prepare(PICTURE)
    clean = by_pass(network, batch, unit.site)[0, unit.channel]
    cell = np.unravel_index(int(clean.argmax()), clean.shape) if clean.ndim else ()
    grey = network.batch([np.full((16, 20, 3), 128, np.uint8)])
    total, count = np.zeros((16, 20)), np.zeros((16, 20))
    side, stride = 2, 1  # a seventh of 16 pixels, and half of it
    for top in range(-1, 15, stride):
        for left in range(-1, 19, stride):
            rows, columns = slice(max(top, 0), top + side), slice(max(left, 0), left + side)
            hidden = batch.clone()
            hidden[:, :, rows, columns] = grey[:, :, rows, columns]
            drop = float(clean[cell] - by_pass(network, hidden, unit.site)[0, unit.channel][cell])
            total[rows, columns] += drop
            count[rows, columns] += 1
    expected = total / count
    found = result.arrays["attribution"]
    np.testing.assert_allclose(found, expected, atol=2e-5 * float(clean.abs().max()))
    assert np.abs(expected).max() > 1e-3 * float(clean.abs().max())
    assert "square of 2 pixels at 320 places, 1 pixels apart" in result.facts["note"]
