"""Frequency, orientation, symmetry and duplicates of kernels known by hand, compared with plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import gabor
from vizapp.engine.layers.gratings import correlations, gratings, power, symmetries


def grating(side: int, frequency: float, stripes: float, phase: float) -> np.ndarray:
    """A grating `[3 side side]` in colour; stripes at that angle, anticlockwise from horizontal, rows counting downwards."""
    y, x = np.mgrid[:side, :side]
    angle = np.radians(stripes)
    wave = np.cos(2 * np.pi * frequency * (np.sin(angle) * x + np.cos(angle) * y) + phase)
    return np.stack([wave, 0.5 * wave, -0.2 * wave])


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between two orientations."""
    return np.abs((a - b + 90) % 180 - 90)


@pytest.mark.parametrize("side", [5, 7, 11])
def test_frequency_and_orientation_of_gratings_are_recovered(side: int) -> None:
    frequencies = (0.15, 0.2, 0.27, 0.35, 0.44)[side < 6 :]  # of less than a cycle, a kernel may as well be a blob
    chosen = list(itertools.product(frequencies, range(0, 180, 15), (0.0, 0.9, 1.57, 2.6)))
    kernels = np.array([grating(side, *each) for each in chosen])
    found = gratings(kernels)
    assert (np.abs(found.frequency - [f for f, _, _ in chosen]) <= 0.05 * np.array([f for f, _, _ in chosen])).all()
    assert (apart(found.orientation, np.array([o for _, o, _ in chosen])) <= 5).all()
    assert found.share == pytest.approx(1, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 0.42), st.floats(0, 179), st.floats(0, 6), st.integers(0, 2**31))
def test_noise_and_an_envelope_do_not_mislead(frequency: float, stripes: float, phase: float, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal((1, 1, 15, 15))
    kernel = gabor(15, frequency, stripes, phase).numpy()[None, None] + 0.02 * noise
    found = gratings(kernel)
    assert found.frequency[0] == pytest.approx(frequency, rel=0.05)
    assert apart(found.orientation, np.array([stripes]))[0] <= 5


def test_horizontal_stripes_are_at_0_and_rising_ones_at_45_degrees() -> None:
    rows = np.tile([1.0, -1.0, 1.0, -1.0, 1.0], (5, 1)).T
    rising = np.array(
        [[-(1.0 if (i + j) % 4 < 2 else -1.0) for j in range(8)] for i in range(8)]
    )  # constant along i + j
    assert apart(gratings(rows[None, None]).orientation, np.array([0.0]))[0] < 1e-3
    assert gratings(rows[None, None]).frequency[0] == pytest.approx(0.5)
    found = gratings(rising[None, None])
    assert apart(found.orientation, np.array([45.0]))[0] < 2
    assert found.frequency[0] == pytest.approx(np.hypot(0.25, 0.25), rel=0.05)


def test_a_blob_has_no_orientation_and_nothing_has_no_frequency() -> None:
    blob = np.exp(-((np.mgrid[:7, :7] - 3) ** 2).sum(0) / 20)
    found = gratings(np.stack([blob, np.zeros((7, 7))])[:, None])
    assert found.frequency[0] == 0
    assert np.isnan(found.orientation).all()
    assert np.isnan(found.frequency[1])
    assert np.isnan(gratings(np.ones((3, 4, 1, 1))).frequency).all()


@pytest.mark.parametrize(("ratio", "blob"), [(1.1, True), (0.9, False)])
def test_a_blob_is_what_has_more_constant_than_varying_energy(ratio: float, blob: bool) -> None:
    wave = grating(7, 0.3, 30, 0.5)[0]
    wave -= wave.mean()
    found = gratings((wave + np.sqrt(ratio * (wave**2).mean()))[None, None])
    assert (found.frequency[0] == 0) == blob
    assert blob or found.frequency[0] == pytest.approx(0.3, rel=0.05)


def test_a_kernel_of_one_row_varies_along_it_alone() -> None:
    kernel = np.cos(2 * np.pi * 0.2 * np.arange(7))[None, None, None]
    found = gratings(kernel)
    assert found.frequency[0] == pytest.approx(0.2, rel=0.01)
    assert found.orientation[0] == pytest.approx(90)


def test_many_slices_count_together() -> None:
    rng = np.random.default_rng(0)
    slices = np.stack([a * grating(5, 0.3, 30, p)[0] for a, p in zip(rng.random(60), 6 * rng.random(60), strict=True)])
    found = gratings(slices[None])
    assert found.frequency[0] == pytest.approx(0.3, rel=1e-3)
    assert found.orientation[0] == pytest.approx(30, abs=0.1)
    assert found.share[0] == pytest.approx(1, abs=1e-4)


def test_power_is_the_squared_fourier_transform_summed_over_the_inputs() -> None:
    kernels = np.random.default_rng(0).standard_normal((2, 40, 3, 4))
    found = power(kernels)
    side = found.shape[1]
    for row, column in [(0, 0), (5, 20), (16, 16), (31, 1)]:
        down, across = (row - side // 2) / side, (column - side // 2) / side
        y, x = np.mgrid[:3, :4]
        wave = np.exp(-2j * np.pi * (down * y + across * x))
        expected = (np.abs((kernels * wave).sum((2, 3))) ** 2).sum(1)
        np.testing.assert_allclose(found[:, row, column], expected, rtol=1e-9)


def test_symmetries_are_correlations_with_mirror_images() -> None:
    edge = np.array([[-1.0, 0, 1]] * 3)
    kernels = np.stack([edge, np.ones((3, 3)), edge.T, np.zeros((3, 3))])[:, None]
    np.testing.assert_allclose(symmetries(kernels)[:3], [[-1, 1, -1], [1, 1, 1], [1, -1, -1]])
    assert np.isnan(symmetries(kernels)[3]).all()


def slow_correlation(a: np.ndarray, b: np.ndarray, shifts: int) -> float:
    best = 0.0
    height, width = a.shape[1:]
    for down, across in itertools.product(range(-shifts, shifts + 1), repeat=2):
        total = 0.0
        for y, x in itertools.product(range(height), range(width)):
            if 0 <= y - down < height and 0 <= x - across < width:
                total += float((a[:, y, x] * b[:, y - down, x - across]).sum())
        total /= np.linalg.norm(a) * np.linalg.norm(b)
        best = total if abs(total) > abs(best) else best
    return best


@pytest.mark.parametrize("shifts", [0, 1, 2])
def test_correlations_are_those_of_a_plain_loop(shifts: int) -> None:
    kernels = np.random.default_rng(1).standard_normal((5, 2, 3, 4))
    found = correlations(kernels, shifts)
    for i, j in itertools.permutations(range(5), 2):
        assert found[i, j] == pytest.approx(slow_correlation(kernels[i], kernels[j], shifts), abs=1e-5)


def test_a_moved_copy_is_a_twin_only_when_shifts_are_allowed() -> None:
    kernel = np.zeros((1, 1, 5, 5))
    kernel[0, 0, 1:4, 1:3] = np.random.default_rng(0).standard_normal((3, 2))
    moved = np.roll(kernel, (1, 1), (2, 3))
    pair = np.concatenate([3 * kernel, -moved])
    assert correlations(pair, 1)[0, 1] == pytest.approx(-1)
    assert abs(correlations(pair)[0, 1]) < 0.9
