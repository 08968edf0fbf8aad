"""A network keeps the plans of its last sweep: the next picture starts at once, and gets the same answers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from tests.engine.occlusion.test_sweep import Branching, brute_force, grid, noise, seeded
from vizapp.engine.occlusion import occluder_plans
from vizapp.engine.occlusion.sweep import Sweep

SIZE, BOXES = (37, 45), grid((37, 45), (9, 6), 11)


class Counted(nn.Module):
    """A network with batch norms that counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.second(self.norm(self.first(x)).relu_()).relu().mean((2, 3))


def swept(module: nn.Module, seed: int) -> Sweep:
    """A sweep over the picture of that seed, whose answers are those of whole passes."""
    clean, patch = noise(1, 3, *SIZE, seed=seed), noise(1, 3, *SIZE, seed=seed + 100)
    sweep = Sweep(module, module, clean, patch, BOXES)
    found = torch.cat([answers.scores for answers in sweep.batches()])
    expected = torch.stack([brute_force(module, clean, patch, box) for box in BOXES])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(sweep.clean_scores, module(clean), rtol=0, atol=1e-12)
    return sweep


def passes(module: Counted, seed: int) -> int:
    """How many passes of the network a sweep takes to begin."""
    before = module.passes
    Sweep(module, module, noise(1, 3, *SIZE, seed=seed), noise(1, 3, *SIZE, seed=seed + 100), BOXES)
    return module.passes - before


def test_the_first_picture_takes_a_clean_pass_and_one_over_both_positions_that_are_checked() -> None:
    assert passes(seeded(Counted()).double(), 0) == 2


def test_another_picture_takes_one_pass_to_begin_and_gets_its_own_answers() -> None:
    module = seeded(Counted()).double()
    assert "Checked on 2 positions" in swept(module, 0).facts["evaluation"]
    assert passes(module, 1) == 1
    for seed in (1, 2, 0):
        assert "Checked on another picture" in swept(module, seed).facts["evaluation"]


def other_weights(module: Counted) -> None:
    next(module.parameters()).data = next(module.parameters()).data * 1.5


def weights_in_place(module: Counted) -> None:
    with torch.no_grad():
        next(module.parameters()).mul_(1.5)


def another_layer(module: Counted) -> None:
    name, layer = next((name, layer) for name, layer in module.named_children() if isinstance(layer, nn.Conv2d))
    options = layer.out_channels, layer.kernel_size, layer.stride, layer.padding
    setattr(module, name, nn.Conv2d(layer.in_channels, *options).double().requires_grad_(False))


def other_statistics(module: Counted) -> None:
    for buffer in module.buffers():
        if buffer.dtype.is_floating_point:
            buffer.add_(0.25)


@pytest.mark.parametrize("change", [other_weights, weights_in_place, another_layer, other_statistics])
def test_a_changed_network_gets_new_plans(change: Callable[[Counted], None]) -> None:
    module = seeded(Counted()).double()
    swept(module, 0)
    change(module)
    assert "Checked on 2 positions" in swept(module, 1).facts["evaluation"]


def test_a_network_that_runs_other_operations_now_gets_new_plans() -> None:
    class Turned(Counted):
        turned = False

        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x).tanh() if self.turned else super().forward(x)

    module = seeded(Turned()).double()
    swept(module, 0)
    module.turned = True
    assert "Checked on 2 positions" in swept(module, 1).facts["evaluation"]
    assert "Checked on another picture" in swept(module, 2).facts["evaluation"]


def test_other_positions_another_layer_and_several_pictures_have_their_own_plans() -> None:
    module = seeded(Counted()).double()
    swept(module, 0)
    clean, patch = noise(2, 3, *SIZE, seed=5), noise(2, 3, *SIZE, seed=6)
    boxes = grid(SIZE, (7, 7), 9)
    sweep = Sweep(module, module, clean, patch, boxes)
    found = torch.cat([answers.scores for answers in sweep.batches()])
    expected = [brute_force(module, clean[p : p + 1], patch[p : p + 1], box) for p in range(2) for box in boxes]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-10)


def test_rounded_products_are_checked_on_each_picture() -> None:
    module = seeded(Counted()).float()
    for seed in (0, 1):
        clean, patch = noise(1, 3, *SIZE, seed=seed).float(), noise(1, 3, *SIZE, seed=seed + 9).float()
        facts = Sweep(module, module, clean, patch, BOXES, precision="bf16").facts
        assert "Checked on 2 positions" in facts["evaluation"]
        assert "on those positions" in facts["precision"]


def test_plans_go_with_their_network_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occluder_plans, "_kept", weakref.WeakKeyDictionary())
    module = seeded(Counted()).double()
    swept(module, 0)
    assert len(occluder_plans._kept) == 1
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
    assert len(occluder_plans._kept) == 0
    modules = [seeded(Counted()).double() for _ in range(occluder_plans.MOST_KEPT + 1)]
    for each in modules:
        swept(each, 0)
    assert len(occluder_plans._kept) == occluder_plans.MOST_KEPT
    assert modules[0] not in occluder_plans._kept


def test_two_people_may_share_plans_at_the_same_time() -> None:
    module = seeded(Branching()).double()
    swept(module, 0)
    with ThreadPoolExecutor(4) as people:
        for sweep in people.map(lambda seed: swept(module, seed), range(1, 17)):
            assert "Checked on another picture" in sweep.facts["evaluation"]
