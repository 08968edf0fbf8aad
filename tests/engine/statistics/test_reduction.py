"""Maxima, sums, numbers of zeros and cells of maxima equal those of a loop over all values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vizapp.engine.statistics import reduction
from vizapp.engine.statistics.reduction import Reduction, Runs, argmax_cells, has_zero, topk_indices


def maps(shape: tuple[int, ...], last: bool, seed: int = 0) -> Tensor:
    """Small whole numbers and halves without a zero: many ties, and sums without rounding."""
    numbers = torch.randint(-6, 6, shape, generator=torch.Generator().manual_seed(seed)) + 0.5
    return numbers.contiguous(memory_format=torch.channels_last) if last else numbers


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("piece", [64, 1000, 2**20])
def test_maxima_sums_and_zeros_are_those_of_all_cells(monkeypatch, last: bool, piece: int) -> None:
    monkeypatch.setattr(reduction, "_PIECE", piece)
    reduce = Reduction()
    for seed, shape in enumerate([(4, 6, 12, 12), (3, 5, 7, 7), (4, 6, 12, 12), (2, 3, 40, 40)]):
        batch = maps(shape, last, seed)
        for picture, channel in ((0, 1), (2 % len(batch), 2)):  # other pieces have none
            batch[picture, channel, ::2] = 0.0
            batch[picture, channel, 1, 1] = -0.0
        runs = Runs.of(batch)
        found = reduce(runs.values, torch.float32)
        peaks, sums, zeros = (part.view(len(batch), runs.runs, -1) for part in found)
        cells = batch.flatten(2)
        assert torch.equal(peaks.amax(1), cells.amax(2))
        assert torch.equal(sums.sum(1), cells.sum(2))
        assert torch.equal(zeros.sum(1), (cells == 0).sum(2).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_single_zero_of_either_sign_is_found_anywhere(dtype: torch.dtype, zero: float) -> None:
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    others = [1.0, -1.0, tiny, -tiny, float("inf"), float("-inf"), float("nan"), -float("nan")]
    numbers = torch.tensor(others * 5, dtype=dtype).view(5, 8)
    assert not has_zero(numbers)
    assert not has_zero(numbers.T)
    for place in range(40):
        one = numbers.clone()
        one.view(-1)[place] = zero
        assert has_zero(one)
        assert has_zero(one.T)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (12, 14), (36, 40)])
def test_the_first_of_equal_cells_is_found(monkeypatch, last: bool, dtype: torch.dtype, size: tuple[int, int]) -> None:
    monkeypatch.setattr(reduction, "_GATHER", 300)
    batch = maps((3, 5, *size), last).to(dtype)
    number, channel = (torch.ones(3, 5) > 0).nonzero(as_tuple=True)
    runs = Runs.of(batch)
    peaks, _, _ = Reduction()(runs.values, torch.float64 if dtype == torch.float64 else torch.float32)
    cells = batch.flatten(2).float().numpy()
    expected = [np.flatnonzero(cells[n, c] == cells[n, c].max())[0] for n in range(3) for c in range(5)]
    assert argmax_cells(runs, peaks, number, channel).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_are_those_of_a_stable_sort(dtype: torch.dtype) -> None:
    infinite = float("inf")
    chosen = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38, infinite, -infinite], dtype=dtype)
    picked = torch.randint(0, len(chosen), (300, 25), generator=torch.Generator().manual_seed(0))
    values = chosen[picked]
    found = topk_indices(values, 9).tolist()
    for row, order in zip(values.tolist(), found, strict=True):
        assert order == sorted(range(25), key=lambda place: (-row[place], place))[:9]
