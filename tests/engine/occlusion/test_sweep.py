"""A sweep gives the results of whole passes over the occluded pictures, on any network."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.random_networks import Drawn, networks
from tests.networks import Aliasing, Branching, Choosing, seeded
from vizapp.engine.occlusion import rule_table
from vizapp.engine.occlusion.batching import OccluderBatches
from vizapp.engine.occlusion.incremental_plan import BatchState, Box, DirtyRegion, IncrementalPlan, Operate
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.recording import Step
from vizapp.engine.trace.sites import Site, survey


def brute_force(module: nn.Module, clean: Tensor, patch: Tensor, box: Box, site: Site | None = None) -> Tensor:
    """Scores `[classes]` for one occluded picture, by a plain pass over it."""
    picture = clean.clone()
    for row in range(max(box[0], 0), min(box[2], clean.shape[2])):
        for column in range(max(box[1], 0), min(box[3], clean.shape[3])):
            picture[0, :, row, column] = patch[0, :, row, column]
    with torch.no_grad():
        return module(picture)[0]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def grid(size: tuple[int, int], window: tuple[int, int], stride: int) -> list[Box]:
    """From one stride outside of the picture to one outside of it."""
    return [
        (top, left, top + window[0], left + window[1])
        for top in range(-stride, size[0], stride)
        for left in range(-stride, size[1], stride)
    ]


def compare(module: nn.Module, boxes: list[Box], clean: Tensor, patch: Tensor, tolerance: float) -> Sweep:
    """Every place of a sweep against brute force."""
    sweep = Sweep(module, module, clean, patch, boxes)
    found = torch.cat([answers.scores for answers in sweep.batches()])
    expected = torch.stack([brute_force(module, clean, patch, box) for box in boxes])
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance)
    # A plan that fails its own trial falls back to whole passes, which would hide from this test that it was wrong.
    for failure in ("off by", "could not be run", "no plan could be made"):
        assert failure not in sweep.facts["evaluation"]
    return sweep


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.integers(15, 34), st.integers(15, 34))
def test_random_networks_agree_with_whole_passes(data, height: int, width: int) -> None:
    try:
        module = data.draw(networks((height, width)))
    except (RuntimeError, ValueError):  # the maps became too small for the next layer
        assume(False)
    window = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    boxes = grid((height, width), window, data.draw(st.integers(5, 8)))
    clean = noise(1, 3, height, width)
    assume(bool(module(clean).isfinite().all()))  # a max pool that sees nothing but padding gives -inf
    compare(module, boxes, clean, noise(1, 3, height, width, seed=1), 1e-10)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.integers(15, 40), st.integers(15, 40))
def test_many_random_networks_agree_with_whole_passes(data, height: int, width: int) -> None:
    test_random_networks_agree_with_whole_passes.hypothesis.inner_test(data, height, width)


@pytest.mark.parametrize("index", range(13))
def test_each_kind_of_block_is_computed_on_windows(index: int) -> None:
    from tests.engine import random_networks as drawn

    torch.manual_seed(index)
    body = [
        nn.Conv2d(8, 8, 3, 2, 1, groups=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, 1, True, False),
        nn.AvgPool2d(2), drawn.Residual(3, 2), drawn.Concatenation(2), drawn.Shuffle(), drawn.LayerNormLast(),
        drawn.Norms(), nn.ZeroPad2d((1, 2, 0, 1)), nn.PReLU(8),
        nn.Conv2d(8, 8, (2, 4), padding="same"), nn.MaxPool2d(2, 1, 1, dilation=2),
    ][index]  # fmt: skip
    module = Drawn([body, nn.ReLU(inplace=True)], "pool", (47, 41)).double().eval().requires_grad_(False)
    clean, patch = noise(1, 3, 47, 41), noise(1, 3, 47, 41, seed=1)
    sweep = compare(module, grid((47, 41), (7, 5), 9), clean, patch, 1e-10)
    assert "up to adaptive_avg_pool2d (not local)" in sweep.facts["evaluation"]
    assert sweep.bound > 3


def test_a_map_that_is_padded_with_zeros_and_with_nothing() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 1, 1), nn.MaxPool2d(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return torch.cat([self.pool(x), self.conv(x), self.pool(-x)], 1).mean((2, 3))

    module = seeded(Both()).double()
    sweep = compare(module, grid((31, 29), (7, 5), 6), noise(1, 3, 31, 29), noise(1, 3, 31, 29, seed=1), 1e-10)
    assert "Only what an occluder touches" in sweep.facts["evaluation"]


@pytest.mark.parametrize("make", [Branching, Aliasing])
def test_functional_in_place_and_aliased_operations(make: Callable[[], nn.Module]) -> None:
    module = seeded(make()).double()
    compare(
        module, grid((37, 45), (9, 6), 7), noise(1, 3, 37, 45), torch.zeros(1, 3, 37, 45, dtype=torch.float64), 1e-10
    )


class Sharing(nn.Module):
    """Two values of one memory, of which the one that is read later must not be written over."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 4, 3, 2), how

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        same = x.detach()
        if self.how == "a copy is added to":  # which a plan gives the memory of the first
            same = x.clone()
            same += x.relu()
            return (same * x).mean((2, 3))
        if self.how == "the second is rectified":
            return (F.relu(same) + x).mean((2, 3))
        return (F.relu(x) + same).mean((2, 3))


@pytest.mark.parametrize("how", ["the first is rectified", "the second is rectified", "a copy is added to"])
def test_memory_that_two_values_share_is_not_written_over(how: str) -> None:
    module = seeded(Sharing(how)).double()
    sweep = compare(module, grid((37, 45), (9, 6), 7), noise(1, 3, 37, 45), noise(1, 3, 37, 45, seed=1), 1e-10)
    assert "Only what an occluder touches" in sweep.facts["evaluation"]


class Normed(nn.Module):
    """A convolution whose own result is used beside its norm's, or not."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.twice = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), twice

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.norm(x)
        return (y.relu() + x if self.twice else y.relu()).mean((2, 3))


@pytest.mark.parametrize(("twice", "name"), [(True, None), (False, "conv"), (False, "norm")])
def test_a_convolution_whose_own_result_is_wanted_keeps_its_norm_apart(twice: bool, name: str | None) -> None:
    module = seeded(Normed(twice)).double()
    clean, patch, boxes = noise(1, 3, 37, 45), noise(1, 3, 37, 45, seed=1), grid((37, 45), (9, 6), 7)
    compare(module, boxes, clean, patch, 1e-10)
    site = next((site for site in survey(module, clean) if site.name == name), None)
    sweep = Sweep(module, module, clean, patch, boxes, site)
    found = sweep.answer(range(len(boxes)), None if site is None else 2)
    assert "Only what an occluder touches" in sweep.facts["evaluation"]
    if site is not None and found.sums is not None:
        maps = observe(module, sweep.pictures(range(len(boxes))), [site])[site.name]
        torch.testing.assert_close(found.sums, maps[:, 2].sum((1, 2)), rtol=0, atol=1e-9)


def test_a_course_that_hangs_on_the_picture_is_run_picture_by_picture() -> None:
    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2)
            self.courses: set[bool] = set()

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            self.courses.add(bool(x.mean() > 0))
            return (x if x.mean() > 0 else -2 * x).mean((2, 3))

    module = Turning().double().requires_grad_(False)
    patch = torch.zeros(1, 3, 30, 30, dtype=torch.float64)
    patch[:, :, :15], patch[:, :, 15:] = 30, -30
    sweep = compare(module, grid((30, 30), (9, 9), 8), noise(1, 3, 30, 30), patch, 1e-10)
    assert "depends on the values of the input" in sweep.facts["evaluation"]
    assert module.courses == {True, False}
    together, alone = sweep.answer(range(20)).scores, [sweep.answer([place]).scores for place in range(20)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)
    compare(seeded(Choosing()).double(), grid((30, 30), (9, 9), 8), noise(1, 3, 30, 30), patch, 1e-10)


@pytest.mark.parametrize("plan", [True, False])
def test_the_clean_answers_are_those_of_a_plain_pass_also_where_values_are_overwritten(plan: bool) -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            before = self.conv(x)
            kept = before + 1
            after = nn.functional.relu(before, inplace=True)
            return (self.other(after).square_() + self.other(kept.neg_())).mean((2, 3))

    module = seeded(Overwriting()).double()
    clean, patch = noise(1, 3, 30, 30), noise(1, 3, 30, 30, seed=1)
    for site in survey(module, clean)[:-1]:
        sweep = Sweep(module, module, clean, patch, grid((30, 30), (9, 9), 8), site, windows=plan)
        assert sweep.facts["evaluation"].startswith("Only what" if plan else "A whole pass")
        torch.testing.assert_close(sweep.clean_scores, module(clean), rtol=0, atol=1e-12)
        assert sweep.maps is not None
        torch.testing.assert_close(sweep.maps, observe(module, clean, [site])[site.name], rtol=0, atol=1e-12)
    compare(module, grid((30, 30), (9, 9), 8), clean, patch, 1e-10)


def test_a_course_that_changes_from_picture_to_picture_is_not_repeated() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.passes = nn.Conv2d(3, 4, 3, 2), 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += 1
            x = self.conv(x)
            return (x + x if self.passes % 2 else 4 * x / 2).mean((2, 3))

    module = Counting().double().requires_grad_(False)
    clean, patch, boxes = noise(2, 3, 30, 30), noise(2, 3, 30, 30, seed=1), grid((30, 30), (9, 9), 8)
    sweep = Sweep(module, module, clean, patch, boxes)
    assert "other operations on another input" in sweep.facts["evaluation"]
    found = torch.cat([answers.scores for answers in sweep.batches()])
    expected = [brute_force(module, clean[p : p + 1], patch[p : p + 1], box) for p in range(2) for box in boxes]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("what", ["scores", "sums", "refusal"])
def test_windows_that_come_out_wrong_are_given_up(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    right = rule_table.RULES["conv2d"]

    def wrong(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
        operate = right(plan, step, frames, place)

        def instead(run: BatchState) -> list[Tensor]:
            if what == "refusal":
                raise RuntimeError("no such kernel\nat all")
            assert operate is not None
            return [result * (1 + 1e-4) for result in operate(run)]

        return None if operate is None else instead

    if what == "sums":
        summed = OccluderBatches._summed
        monkeypatch.setattr(OccluderBatches, "_summed", lambda *given: summed(*given) * (1 + 1e-4))
    else:
        monkeypatch.setitem(rule_table.RULES, "conv2d", wrong)
    module = seeded(Branching()).double()
    clean, patch, boxes = noise(1, 3, 37, 45), noise(1, 3, 37, 45, seed=1), grid((37, 45), (9, 6), 11)
    site = next(site for site in survey(module, clean) if site.name == "cat")
    sweep = Sweep(module, module, clean, patch, boxes, site)
    expected = (
        "could not be run on windows (no such kernel)" if what == "refusal" else "windows gave numbers that are off"
    )
    assert expected in sweep.facts["evaluation"]
    found = torch.cat([answers.scores for answers in sweep.batches(channel=0)])
    torch.testing.assert_close(
        found, torch.stack([brute_force(module, clean, patch, box) for box in boxes]), rtol=0, atol=1e-10
    )


def test_what_is_written_into_a_buffer_or_through_a_view_is_run_as_a_whole() -> None:
    class Buffered(nn.Module):
        def __init__(self, view: bool) -> None:
            super().__init__()
            self.conv, self.view = nn.Conv2d(3, 4, 3, 2), view

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            if self.view:
                x[:, :2].relu_()
                return x.mean((2, 3))
            room = torch.zeros(len(x), 4, 40, 40, dtype=x.dtype)
            room[:, :, : x.shape[2], : x.shape[3]] = x
            return room.relu().mean((2, 3))

    for view in (True, False):
        module = Buffered(view).double().requires_grad_(False)
        sweep = compare(module, grid((30, 30), (9, 9), 8), noise(1, 3, 30, 30), noise(1, 3, 30, 30, seed=1), 1e-10)
        assert "whole pass" in sweep.facts["evaluation"]


class TrainingNorm(nn.BatchNorm2d):
    """Takes mean and variance from what it gets, though it has others."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=True, momentum=0.0)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, track_running_stats=False), TrainingNorm(4)])
def test_a_norm_over_the_pictures_of_a_batch_does_not_mix_places(norm: nn.Module) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten())
    sweep = compare(
        module.double().eval().requires_grad_(False), grid((20, 20), (5, 5), 6), noise(1, 3, 20, 20),
        noise(1, 3, 20, 20, seed=1), 1e-10,
    )  # fmt: skip
    assert "whole pass" in sweep.facts["evaluation"]


def test_several_pictures_in_one_pass() -> None:
    module = seeded(Branching()).double()
    clean, patch, boxes = noise(3, 3, 37, 45), noise(3, 3, 37, 45, seed=1), grid((37, 45), (9, 6), 11)
    site = next(site for site in survey(module, clean[:1]) if site.name == "cat")
    sweep = Sweep(module, module, clean, patch, boxes, site)
    found = list(sweep.batches(channel=3))
    expected = [brute_force(module, clean[p : p + 1], patch[p : p + 1], box) for p in range(3) for box in boxes]
    torch.testing.assert_close(torch.cat([a.scores for a in found]), torch.stack(expected), rtol=0, atol=1e-10)
    maps = observe(module, sweep.pictures(range(len(sweep))), [site])["cat"]
    sums = torch.cat([a.sums for a in found if a.sums is not None])
    torch.testing.assert_close(sums, maps[:, 3].sum((1, 2)), rtol=0, atol=1e-9)
    assert "Only what an occluder touches" in sweep.facts["evaluation"]


@pytest.mark.parametrize("windows", [True, False])
def test_a_busy_machine_answers_the_same_squares_together_and_gives_the_same_bits(windows: bool) -> None:
    module = seeded(Branching())
    clean, patch = noise(1, 3, 37, 45, dtype=torch.float32), noise(1, 3, 37, 45, seed=1, dtype=torch.float32)
    boxes = grid((37, 45), (9, 6), 3)

    def swept(delay: float) -> tuple[list[int], Tensor]:
        def scores(batch: Tensor) -> Tensor:
            time.sleep(delay)
            return module(batch)

        parts = list(Sweep(module, scores, clean, patch, boxes, windows=windows).batches())
        return [len(part.positions) for part in parts], torch.cat([part.scores for part in parts])

    (sizes, expected), (slow, found) = swept(0.0), swept(0.02)
    assert slow == sizes
    assert (found == expected).all()


def test_the_more_a_square_costs_the_fewer_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = seeded(Branching())
    clean, patch = noise(1, 3, 37, 45, dtype=torch.float32), noise(1, 3, 37, 45, seed=1, dtype=torch.float32)
    sweep = Sweep(module, module, clean, patch, grid((37, 45), (9, 6), 3))
    cost = float(sweep._batches.plans._planner.work_per_occluder().mean())  # all squares of this grid are asked for
    monkeypatch.setattr("vizapp.engine.occlusion.sweep.WORK", 10 * cost)
    sizes = [len(part.positions) for part in sweep.batches()]
    assert len(sizes) == -(-len(sweep) // 10)
    assert max(sizes) - min(sizes) <= 1, "they are of one size, and none is small"
    monkeypatch.setattr("vizapp.engine.occlusion.sweep.WORK", 0.01 * cost)
    assert {len(part.positions) for part in sweep.batches()} == {1}


@pytest.mark.parametrize("mistake", [AttributeError, KeyError, TypeError])
@pytest.mark.parametrize("when", ["planning", "running"])
def test_a_mistake_in_a_rule_is_not_hidden_by_whole_passes(
    monkeypatch: pytest.MonkeyPatch, when: str, mistake: type[Exception]
) -> None:
    def broken(*given: object) -> Operate:
        if when == "planning":
            raise mistake("conv2d")
        return raising

    def raising(run: BatchState) -> list[Tensor]:
        raise mistake("conv2d")

    monkeypatch.setitem(rule_table.RULES, "conv2d", broken)
    module = seeded(Branching()).double()
    with pytest.raises(mistake, match="conv2d"):
        Sweep(module, module, noise(1, 3, 37, 45), noise(1, 3, 37, 45, seed=1), grid((37, 45), (9, 6), 11))


@pytest.mark.parametrize("name", ["stem", "pool", "cat", "add", "relu_1"])
def test_sums_of_a_map_at_a_site(name: str) -> None:
    module = seeded(Branching()).double()
    clean, patch, boxes = noise(1, 3, 37, 45), noise(1, 3, 37, 45, seed=1), grid((37, 45), (9, 6), 11)
    site = next(site for site in survey(module, clean) if site.name == name)
    sweep = Sweep(module, module, clean, patch, boxes, site)
    sums = torch.cat([a.sums for a in sweep.batches(channel=3) if a.sums is not None])
    maps = observe(module, sweep.pictures(range(len(boxes))), [site])[name]
    torch.testing.assert_close(sums, maps[:, 3].sum((1, 2)), rtol=0, atol=1e-9)
    assert "Only what an occluder touches" in sweep.facts["evaluation"]


def test_the_order_of_places_is_kept_and_the_work_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizapp.engine.occlusion.sweep.WORK", 1e6)
    module = seeded(Branching()).double()
    clean, patch, boxes = noise(1, 3, 37, 45), noise(1, 3, 37, 45, seed=1), grid((37, 45), (9, 6), 4)
    sweep = Sweep(module, module, clean, patch, boxes)
    everything = torch.cat([answers.scores for answers in sweep.batches()])
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0)).tolist()[:40]
    some = list(sweep.batches(order))
    assert [place for answers in some for place in answers.positions] == order
    torch.testing.assert_close(torch.cat([a.scores for a in some]), everything[order], rtol=0, atol=1e-12)
    first = next(Sweep(module, module, clean, patch, boxes).batches())
    assert 0 < len(first.positions) < len(boxes)


def test_neither_network_nor_picture_is_changed() -> None:
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    module = seeded(module)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    clean, patch = noise(1, 3, 20, 20, dtype=torch.float32), noise(1, 3, 20, 20, seed=1, dtype=torch.float32)
    kept = clean.clone(), patch.clone()
    list(Sweep(module, module, clean, patch, grid((20, 20), (5, 5), 6)).batches())
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert torch.equal(clean, kept[0])
    assert torch.equal(patch, kept[1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 5))
def test_batch_norms_folded_into_convolutions_change_nothing(kinds: list[int], seed: int) -> None:
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3)]
    for kind in kinds:
        layers += [[nn.BatchNorm2d(4)], [nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False)], [nn.ReLU()],
                   [nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)]][kind]  # fmt: skip
    module = seeded(nn.Sequential(*layers, nn.Flatten()), seed).double()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.uniform_(0.2, 2, generator=torch.Generator().manual_seed(seed))
            part.running_mean.normal_(generator=torch.Generator().manual_seed(seed))
    compare(module, grid((24, 24), (5, 5), 9), noise(1, 3, 24, 24), noise(1, 3, 24, 24, seed=1), 1e-10)


def test_rounded_arithmetic_states_its_error() -> None:
    module = seeded(Branching())
    clean, patch = noise(1, 3, 64, 64, dtype=torch.float32), noise(1, 3, 64, 64, seed=1, dtype=torch.float32)
    boxes = grid((64, 64), (9, 9), 16)
    sweep = Sweep(module, module, clean, patch, boxes, precision="bf16")
    assert sweep.facts["precision"].startswith("bf16: probabilities off by up to ")
    found, expected = (
        sweep.answer(range(len(boxes))).scores.float(),
        sweep.answer_by_whole_passes(range(len(boxes))).scores,
    )
    error = (found.softmax(1) - expected.softmax(1)).abs().max()
    assert 1e-6 < error < 0.05, "bfloat16 has 8 bits: about 0.4 % per product"
    assert not torch.is_autocast_enabled("cpu")
