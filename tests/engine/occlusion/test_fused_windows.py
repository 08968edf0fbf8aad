"""On a CPU in float32, windows are computed by fused convolutions; the answers are those of whole passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.engine.occlusion.test_repeated_passes import NETWORKS, drawn
from tests.engine.occlusion.test_sweep import compare, grid, noise
from vizapp.engine.occlusion.fused_convolutions import CONVOLUTION_AND_SUM, FusedConvolution
from vizapp.engine.occlusion.sweep import Sweep


def fused_of(sweep: Sweep) -> list[tuple[str, bool]]:
    """Of each fused convolution the operation, and whether a plan for one occluder runs it on windows."""
    assert sweep._batches is not None
    planner = sweep._batches.plans._planner
    plan = planner.plan([3], [3])
    return [
        (step.operation, step.outputs[0] in plan.regions)
        for step in planner.steps
        if isinstance(step.function, FusedConvolution)
    ]


def clamped() -> nn.Module:
    """Strides, groups, a kernel that is not square, and rectifiers that end at 6."""
    layers = [nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU6(), nn.Conv2d(6, 6, (3, 1), groups=6, padding=(1, 0)), nn.ReLU6()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(("build", "sums"), [(NETWORKS["norms"], True), (NETWORKS["residual"], True), (clamped, False)])
def test_fused_convolutions_on_windows_give_the_answers_of_whole_passes(
    build: Callable[[], nn.Module], sums: bool
) -> None:
    module = drawn(build())
    clean, patch = (noise(1, 3, 48, 52, seed=seed, dtype=torch.float32) for seed in (0, 1))
    sweep = compare(module, grid((48, 52), (7, 5), 6), clean, patch, 1e-5)
    assert "Only what an occluder touches" in sweep.facts["evaluation"]
    found = fused_of(sweep)
    assert ("conv2d", True) in found
    assert ((CONVOLUTION_AND_SUM, True) in found) == sums


def test_clean_maps_inside_fused_convolutions_are_not_kept() -> None:
    module = drawn(NETWORKS["residual"]())
    clean, patch = (noise(1, 3, 48, 52, seed=seed, dtype=torch.float32) for seed in (0, 1))
    boxes = grid((48, 52), (7, 5), 6)
    kept = []
    for number in (torch.float32, torch.float64):  # of which only the first has fused convolutions
        sweep = Sweep(module.to(number), module, clean.to(number), patch.to(number), boxes)
        assert sweep._batches is not None
        kept.append(len(sweep._batches.plans.needed))
    assert kept[0] <= kept[1] - 3
