"""ROAD: imputation against a dense solution of the paper's system, and the shares that are removed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.ndimage import gaussian_filter
from scipy.sparse.linalg import spsolve
from torch import Tensor

from vizapp.methods.trust.imputation import _laplacian, impute
from vizapp.methods.trust.road import SHARES, combined, noise_like, removal_curves, removed

RANDOM = np.random.default_rng(0)


def dense(pixels: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Rong et al. 2022, pixel by pixel: a missing one is the weighted mean of its neighbours."""
    height, width = missing.shape
    places = [(int(y), int(x)) for y, x in np.argwhere(missing)]
    system, known = np.zeros((len(places), len(places))), np.zeros((len(places), pixels.shape[2]))
    for row, (y, x) in enumerate(places):
        weights = {}
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                if (down or right) and 0 <= y + down < height and 0 <= x + right < width:
                    weights[y + down, x + right] = 1 / 12 if down and right else 1 / 6
        system[row, row] = 1
        for place, weight in weights.items():
            if missing[place]:
                system[row, places.index(place)] -= weight / sum(weights.values())
            else:
                known[row] += weight / sum(weights.values()) * pixels[place]
    filled = pixels.copy()
    filled[missing] = np.linalg.solve(system, known)
    return filled


def masks(height: int, width: int) -> list[np.ndarray]:
    """Scattered pixels, a blob with a border in it, all but one pixel, every second pixel, and a row."""
    blob = np.zeros((height, width), bool)
    blob[: height // 2, 2:] = True
    one, second, row = np.ones((height, width), bool), np.zeros((height, width), bool), np.zeros((height, width), bool)
    one[4, 3] = False
    second[1::2, 1::2] = True
    row[5] = True
    return [RANDOM.random((height, width)) < 0.6, blob, one, second, row]


@pytest.mark.parametrize("number", range(5))
def test_imputed_pixels_solve_the_papers_system(number: int) -> None:
    pixels, missing = RANDOM.standard_normal((11, 9, 3)), masks(11, 9)[number]
    np.testing.assert_allclose(impute(pixels, missing), dense(pixels, missing), atol=1e-9)


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("smooth", [0, 2, 12])
def test_a_large_system_is_solved_as_exactly_as_directly(share: float, smooth: float) -> None:
    """Large enough for several levels of the multigrid; an odd and an even side."""
    values = gaussian_filter(RANDOM.standard_normal((97, 120)), smooth)
    missing = values > np.quantile(values, 1 - share)
    pixels = gaussian_filter(RANDOM.standard_normal((97, 120, 3)), (4, 4, 0)) * 15
    assert np.ptp(pixels) > 5
    unknown = missing.reshape(-1)
    rows, flat = _laplacian(97, 120)[unknown], pixels.reshape(-1, 3)
    direct = spsolve(rows[:, unknown].tocsc(), -(rows[:, ~unknown] @ flat[~unknown]))
    found = impute(pixels, missing)
    np.testing.assert_allclose(found[missing], direct, atol=1e-5)
    np.testing.assert_array_equal(found[~missing], pixels[~missing])


@pytest.mark.parametrize("number", range(4))
def test_imputation_agrees_with_that_of_grad_cam(number: int) -> None:
    pixels, missing = RANDOM.standard_normal((11, 9, 3)).astype(np.float32), masks(11, 9)[number]
    kept = torch.from_numpy((~missing).astype(np.float32))
    peer = NoisyLinearImputer(noise=0)(torch.from_numpy(pixels).permute(2, 0, 1), kept)
    np.testing.assert_allclose(impute(pixels.astype(float), missing), peer.permute(1, 2, 0), atol=1e-5)


def test_nothing_missing_and_a_black_photo_stay_as_they_are() -> None:
    pixels = RANDOM.random((8, 8, 1))
    np.testing.assert_array_equal(impute(pixels, np.zeros((8, 8), bool)), pixels)
    black = np.zeros((64, 64, 3))
    np.testing.assert_array_equal(impute(black, RANDOM.random((64, 64)) < 0.8), black)


def test_noise_is_a_hundredth_of_the_range_from_black_to_white_and_only_on_removed_pixels() -> None:
    photo = torch.from_numpy(RANDOM.random((1, 3, 60, 60)))
    std = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)[:, None, None]
    noise = noise_like(photo, std, seed=3)
    for channel, expected in zip(noise, (0.05, 0.02, 0.01), strict=True):
        assert float(channel.std()) == pytest.approx(expected, rel=0.05)
    assert torch.equal(noise, noise_like(photo, std, seed=3))
    assert not torch.equal(noise, noise_like(photo, std, seed=4))
    missing = RANDOM.random((60, 60)) < 0.5
    found = removed(photo, missing, noise)[0].permute(1, 2, 0).numpy()
    pixels = photo[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found[~missing], pixels[~missing])
    expected = impute(pixels, missing) + noise.permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found[missing], expected[missing], atol=1e-12)


def test_the_most_and_the_least_relevant_pixels_are_removed() -> None:
    """The photo has a value of its own at each pixel, so what was removed is seen in the batches."""
    photo = torch.from_numpy(RANDOM.permutation(200).reshape(1, 1, 10, 20)).double()
    ranks = RANDOM.permutation(200).reshape(10, 20)
    noise, changed = torch.full((1, 10, 20), 0.31), list[np.ndarray]()

    def score(batch: Tensor) -> np.ndarray:
        changed.extend((batch[:, 0] != photo[0, 0]).numpy())
        return batch.new_tensor([len(changed) - len(batch) + n for n in range(len(batch))]).numpy()

    shares: list[float] = []
    found = removal_curves(ranks, photo, noise, score, 4, shares.append)
    assert len(changed) == 18
    for place, share in enumerate(SHARES):
        np.testing.assert_array_equal(changed[place], ranks < 2 * share)
        np.testing.assert_array_equal(changed[9 + place], ranks >= 200 - 2 * share)
    np.testing.assert_array_equal(found, np.arange(18).reshape(2, 9))
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_score_is_half_the_difference_of_the_means() -> None:
    assert combined(np.array([[0.1] * 9, [0.5] * 9])) == pytest.approx(0.2)
    assert combined(np.array([np.arange(9.0), np.zeros(9)])) == pytest.approx(-2)
