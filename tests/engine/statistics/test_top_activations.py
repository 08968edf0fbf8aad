"""The running top k and the statistics equal those of all activations kept in memory."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.errors import refuses
from tests.networks import Branching, seeded
from vizapp.engine.statistics.exact_sum import from_limbs, to_limbs
from vizapp.engine.statistics.top_activations import (
    BINS,
    State,
    TopKTracker,
    bin_edges,
    histogram_bins,
    merge_states,
    read_statistics,
)
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, survey

SIZE = (3, 20, 24)


def photos(count: int = 200) -> Tensor:
    """Pictures of which many are alike, some are black, and some have equal cells."""
    batch = torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(0))
    batch[1::4] = batch[0::4][: len(batch[1::4])]
    batch[7::20] = 0
    batch[9::20] = 1
    return batch


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return seeded(Branching())


@pytest.fixture(scope="module")
def sites(network: nn.Module) -> tuple[Site, ...]:
    return survey(network, photos(1))


def passed(network: nn.Module, sites: tuple[Site, ...], batches: list[tuple[Tensor, Tensor]], top: int) -> State:
    strongest = TopKTracker(sites, top)
    for batch, numbers in batches:
        strongest.update([strongest.observe(network, batch)], numbers)
    return strongest.state()


def cut(pictures: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(pictures.split(size), torch.arange(len(pictures)).split(size), strict=True))


def everything(network: nn.Module, sites: tuple[Site, ...], batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """All activations `[N C cells]` of all pictures, by site."""
    parts = [observe(network, batch, sites) for batch, _ in batches]
    found = {site.name: torch.cat([part[site.name] for part in parts]) for site in sites}
    return {name: value.reshape(*value.shape[:2], -1) for name, value in found.items()}


def best(values: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By sorting the `[N cells]` of one unit: activations, pictures and cells of its top pictures."""
    cells = [int(np.flatnonzero(row == row.max())[0]) for row in values]
    order = sorted(range(len(values)), key=lambda n: (-values[n].max(), n))[:top]
    return values[order].max(1), np.array(order), np.array(cells)[order]


@pytest.mark.parametrize("channels_last", [False, True])
def test_all_units_of_all_sites_equal_sorting_everything(network, sites, channels_last: bool) -> None:
    pictures = photos()
    if channels_last:
        network = seeded(Branching()).to(memory_format=torch.channels_last)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
    batches = cut(pictures, 32)
    state = passed(network, sites, batches, 9)
    kept = everything(network, sites, batches)
    unit, ties = 0, 0
    for site in sites:
        for channel in range(site.channels):
            values, order, cells = best(kept[site.name][:, channel].numpy(), 9)
            np.testing.assert_array_equal(state["values"][unit].numpy(), values)
            np.testing.assert_array_equal(state["pictures"][unit].numpy(), order)
            np.testing.assert_array_equal(state["cells"][unit].numpy(), cells)
            ties += len(values) - len(set(values.tolist()))
            unit += 1
    assert unit == len(state["values"])
    assert ties > unit, "the pictures were meant to bring ties"


def test_statistics_are_those_of_all_activations(network, sites) -> None:
    batches = cut(photos(), 32)
    state = passed(network, sites, batches, 9)
    numbers = read_statistics(state, sites)
    kept = everything(network, sites, batches)
    unit = 0
    for site in sites:
        for channel in range(site.channels):
            values = kept[site.name][:, channel].double().numpy()
            assert numbers["mean"][unit] == pytest.approx(values.mean(), rel=1e-5, abs=1e-6)
            assert numbers["mean_maximum"][unit] == pytest.approx(values.max(1).mean(), rel=1e-12)
            assert numbers["maximum"][unit] == values.max()
            assert numbers["zero_positions"][unit] == (values == 0).mean()
            assert numbers["zero_pictures"][unit] == (values == 0).all(1).mean()
            assert numbers["not_finite"][unit] == 0
            edges = np.array(bin_edges())
            counts = [((values.max(1) >= a) & (values.max(1) < b)).sum() for a, b in pairwise(edges)]
            assert state["histogram"][unit].sum() == len(values)
            if not np.isin(values.max(1), edges).any():
                np.testing.assert_array_equal(state["histogram"][unit, :-1].numpy(), counts)
            unit += 1


@cache
def pooling() -> tuple[nn.Module, tuple[Site, ...]]:
    network = seeded(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return network, survey(network, torch.zeros(1, 3, 6, 6))


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**16))
@pytest.mark.slow
def test_shared_batches_merge_to_the_same_bits(processes: int, top: int, seed: int) -> None:
    network, sites = pooling()
    pictures = torch.randint(-1, 2, (40, 3, 6, 6), generator=torch.Generator().manual_seed(seed)).float()
    pictures[20:] = pictures[:20].flip(0)  # every picture twice, in other batches
    pictures[5::9] = 0
    batches = cut(pictures, 7)
    alone = passed(network, sites, batches, top)
    shares = [passed(network, sites, batches[rank::processes], top) for rank in range(processes)]
    for joined in (merge_states(shares), merge_states(shares[::-1])):
        for name, value in alone.items():
            assert torch.equal(joined[name], value), name


def test_a_process_without_batches_adds_nothing(network, sites) -> None:
    state = passed(network, sites, cut(photos(20), 8), 9)
    joined = merge_states([state, TopKTracker(sites, 9).state()])
    assert all(torch.equal(joined[name], value) for name, value in state.items())


def test_a_state_can_be_gone_on_with(network, sites) -> None:
    batches = cut(photos(), 32)
    strongest = TopKTracker(sites, 9)
    strongest.load(passed(network, sites, batches[:3], 9), torch.device("cpu"))
    for batch, numbers in batches[3:]:
        strongest.update([strongest.observe(network, batch)], numbers)
    whole = passed(network, sites, batches, 9)
    assert all(torch.equal(strongest.state()[name], value) for name, value in whole.items())


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_batch_that_is_looked_at_in_parts_is_known_when_it_is_taken(size: int) -> None:
    network, pictures, numbers = nn.Sequential(nn.ReLU()), photos(20), torch.arange(20)  # rounds nothing
    sites = survey(network, pictures[:1])
    strongest = TopKTracker(sites, 2)
    before = strongest.state()
    parts = [strongest.observe(network, part) for part in pictures.split(size)]
    assert all(torch.equal(strongest.state()[name], value) for name, value in before.items())
    strongest.update(parts, numbers)
    for name, value in passed(network, sites, [(pictures, numbers)], 2).items():
        assert torch.equal(strongest.state()[name], value), name


def test_other_batch_sizes_differ_by_rounding_only(network, sites) -> None:
    a, b = (passed(network, sites, cut(photos(), size), 9) for size in (16, 50))
    torch.testing.assert_close(a["values"], b["values"], rtol=1e-5, atol=1e-5)


def test_fewer_pictures_than_places_leave_places_free(network, sites) -> None:
    state = passed(network, sites, cut(photos(4), 3), 9)
    assert (state["pictures"][:, 4:] == -1).all()
    assert (state["pictures"][:, :4] >= 0).all()


def test_a_rewritten_activation_is_seen_as_it_was_before() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)))
    batch = photos(6)
    sites = survey(network, batch[:1])
    state = passed(network, sites[:1], [(batch, torch.arange(6))], 3)
    with torch.no_grad():
        expected = F.conv2d(batch, network[0].weight, network[0].bias)
    np.testing.assert_array_equal(state["values"][:, 0].numpy(), expected.amax((0, 2, 3)).numpy())
    mean = read_statistics(state, sites[:1])["mean"]
    np.testing.assert_allclose(mean, expected.double().mean((0, 2, 3)).numpy(), rtol=1e-5)
    assert (mean < expected.relu().mean((0, 2, 3)).numpy()).all()


def test_what_is_no_number_takes_no_part() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()))
    batch = torch.rand(5, 3, 4, 4)
    batch[1, 0, 0, 0], batch[3, 0, 0, 0] = float("nan"), float("inf")
    sites = survey(network, batch[:1])[-1:]
    state = passed(network, sites, [(batch, torch.arange(5))], 9)
    assert 1 not in state["pictures"]
    numbers = read_statistics(state, sites)
    assert set(numbers["not_finite"].tolist()) <= {1, 2}
    assert np.isfinite(numbers["mean"]).all()
    assert (state["histogram"][:, BINS - 1] == 1).all()


@pytest.mark.parametrize("scale", [1e-45, 1e-37, 1e-20, 1e20, 1e36, 1e60, 1e300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_of_very_small_and_very_large_activations(scale: float, dtype: torch.dtype) -> None:
    """What a sum cannot hold counts as not finite, and nothing wraps around."""
    pictures = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype).clamp_min(0.1) * scale
    network = nn.Sequential(nn.ReLU())
    sites = survey(network, pictures[:1])
    state = passed(network, sites, cut(pictures, 7), 3)
    numbers = read_statistics(state, sites)
    values = pictures.double().numpy()
    fits = np.isfinite(values).all() and values.max() < 1e37
    assert (numbers["not_finite"] == (0 if fits else 20)).all()
    if fits:  # parts below 2^-152 are dropped
        np.testing.assert_allclose(numbers["mean"], values.mean((0, 2, 3)), 1e-6, 2.0**-151)
        np.testing.assert_allclose(numbers["mean_maximum"], values.max((2, 3)).mean(0), 1e-6, 2.0**-151)
    else:
        assert np.isnan(numbers["mean"]).all()


class _Twice(nn.Module):
    """A layer of two operations, as some of torch's own are: the second gives the result."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0.9, torch.nan, -torch.sign(x) * x)


def test_a_layer_of_several_operations_counts_with_its_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Twice, "__module__", "torch.nn.modules.twice")
    network, pictures = nn.Sequential(_Twice()), torch.rand(12, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    sites = survey(network, pictures[:1])
    assert [site.name for site in sites] == ["0"]
    state = passed(network, sites, cut(pictures, 5), 4)
    values = network(pictures).flatten(2).numpy()
    for channel in range(2):
        known = [number for number in range(12) if not np.isnan(values[number, channel]).any()]
        _, order, cells = best(values[known, channel], 4)
        taken = state["pictures"][channel].tolist()
        assert [picture for picture in taken if picture >= 0] == [known[n] for n in order]
        assert state["cells"][channel].tolist()[: len(cells)] == cells.tolist()


def test_half_precision_and_double() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        network = seeded(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())).to(dtype)
        batch = photos(30).to(dtype)
        sites = survey(network, batch[:1])[-1:]
        state = passed(network, sites, [(batch, torch.arange(30))], 4)
        values = network(batch)
        assert state["values"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        expected = values.amax((2, 3)).to(state["values"].dtype).sort(0, descending=True).values[:4].T
        assert torch.equal(state["values"], expected)


def test_a_site_that_is_not_computed_is_told(network, sites) -> None:
    from dataclasses import replace

    for wrong in (replace(sites[0], name="nowhere"), replace(sites[0], shape=(7, 1, 1))):
        with refuses("layer-not-computed"):
            TopKTracker([wrong], 9).observe(network, photos(2))


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20))
def test_sums_are_exact_and_do_not_depend_on_the_order(values: list[float]) -> None:
    from fractions import Fraction

    numbers = torch.tensor(values, dtype=torch.float64)
    forth = sum(to_limbs(number) for number in numbers)
    back = sum(to_limbs(number) for number in numbers.flip(0))
    assert torch.equal(forth, back)
    exact = float(sum(map(Fraction, values)))
    assert float(from_limbs(forth)) == pytest.approx(exact, rel=1e-15, abs=len(values) * 2.0**-119)


@given(st.floats(width=32, allow_nan=False))
def test_bins_hold_what_lies_between_their_edges(value: float) -> None:
    edges = bin_edges()
    place = int(histogram_bins(torch.tensor([value]))[0])
    assert len(edges) == BINS
    assert edges == sorted(edges)
    # On the negative side a bin holds its upper edge and not its lower one, as magnitudes are counted.
    assert edges[place] <= value <= edges[place + 1]
    assert int(histogram_bins(torch.tensor([float("nan")]))[0]) == BINS - 1


@pytest.mark.gpu
def test_the_gpu_finds_the_same_pictures(network, sites) -> None:
    batches = cut(photos(), 32)
    on_cpu = passed(network, sites, batches, 9)
    on_gpu = passed(seeded(Branching()).cuda(), sites, [(batch.cuda(), n) for batch, n in batches], 9)
    torch.testing.assert_close(on_gpu["values"], on_cpu["values"], rtol=1e-3, atol=1e-3)
    assert torch.equal(on_gpu["counts"][:, 0], on_cpu["counts"][:, 0])
