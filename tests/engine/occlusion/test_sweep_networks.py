"""Sweeps over the networks of the zoo against whole passes: odd sizes, odd strides, occluders over the border."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.networks import Branching, seeded
from vizapp.engine.occlusion.sweep import Sweep

WINDOWED = [
    "vgg16", "squeezenet1_0", "alexnet", "resnet18", "resnet50", "googlenet", "densenet121", "mobilenet_v2", "inception_v3",
    "convnext_tiny", "regnet_x_400mf", "shufflenet_v2_x0_5",
]  # fmt: skip
GATED = [
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "regnet_y_400mf",
]  # windows up to the first gate
WHOLE = ["vit_b_32"]  # attention


def built(name: str, clean: Tensor) -> nn.Module:
    """Random weights, those of the last layer so large that the probabilities differ (ViT's begin with zeros)."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    if name == "vgg16":  # its two large linear layers are those of alexnet, which has them too
        layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
        module = nn.Sequential(layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 100))
    else:
        module = torchvision.models.get_model(name, weights=None, **options)
    module = module.to(clean.dtype).eval().requires_grad_(False)
    last = [part for part in module.modules() if isinstance(part, (nn.Linear, nn.Conv2d))][-1]
    nn.init.normal_(last.weight)
    if last.bias is not None:  # it would drown what deep layers of random weights say
        nn.init.zeros_(last.bias)
    last.weight.mul_(2 / module(clean).std())
    return module.to(memory_format=torch.channels_last)


def check(
    name: str, size: tuple[int, int], window: tuple[int, int], stride: int, dtype: torch.dtype, places: int
) -> str:
    """Compare some places, the corners among them, and return how the sweep was done."""
    noise = torch.Generator().manual_seed(1)
    clean = torch.randn(1, 3, *size, generator=noise, dtype=dtype).contiguous(memory_format=torch.channels_last)
    patch = torch.randn(1, 3, *size, generator=noise, dtype=dtype)
    module = built(name, clean)
    boxes = [
        (top, left, top + window[0], left + window[1])
        for top in range(-stride, size[0], stride)
        for left in range(-stride // 2, size[1], stride)
    ]
    sweep = Sweep(module, module, clean, patch, boxes)
    last = len(boxes) - 1
    chosen = [0, last, *torch.randperm(last, generator=noise)[: places - 2].tolist()]
    found = sweep.answer(chosen).scores.softmax(1)
    tolerance, effect = 1e-10 if dtype == torch.float64 else 1e-5, 0.0
    for place, row in zip(chosen, found, strict=True):
        expected = whole_pass(module, clean, patch, boxes[place])
        assert float((row - expected).abs().max()) <= tolerance
        assert expected[row.argmax()] >= expected.max() - 1e-6, "the label"
        effect = max(effect, float((expected - sweep.clean_scores[0].softmax(0)).abs().max()))
    # Deep networks of random weights hardly notice a square; it must count for more than what is tolerated.
    assert effect > 5 * tolerance, "squares that change nothing prove nothing"
    del module
    gc.collect()
    return sweep.facts["evaluation"]


def whole_pass(module: nn.Module, clean: Tensor, patch: Tensor, box: tuple[int, ...]) -> Tensor:
    occluded = clean.clone()
    rows, columns = slice(max(box[0], 0), max(box[2], 0)), slice(max(box[1], 0), max(box[3], 0))
    occluded[:, :, rows, columns] = patch[:, :, rows, columns]
    with torch.no_grad():
        return module(occluded)[0].softmax(0)


@pytest.mark.parametrize("name", ["squeezenet1_0", "shufflenet_v2_x0_5"])
def test_small_networks_of_the_zoo(name: str) -> None:
    assert "Only what an occluder touches" in check(name, (131, 97), (15, 21), 13, torch.float64, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", WINDOWED)
def test_networks_that_are_done_by_windows(name: str) -> None:
    assert "Only what an occluder touches" in check(name, (139, 123), (32, 33), 17, torch.float64, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18", "googlenet", "shufflenet_v2_x0_5"])
def test_windows_are_as_exact_as_single_precision(name: str) -> None:
    assert "Only what an occluder touches" in check(name, (171, 155), (32, 33), 17, torch.float32, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", GATED)
def test_networks_with_gates_are_done_by_windows_up_to_the_first_gate(name: str) -> None:
    for dtype in (torch.float64, torch.float32):
        told = check(name, (161, 143), (32, 33), 17, dtype, 4)
        assert "Only what an occluder touches" in told
        assert "avgpool (not local)" in told


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_networks_that_need_whole_passes_say_so(name: str) -> None:
    for dtype in (torch.float64, torch.float32):
        assert "whole pass" in check(name, (224, 224), (32, 33), 17, dtype, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("windows", [True, False])
def test_half_precision_is_as_close_to_double_as_a_loop_over_whole_passes(dtype: torch.dtype, windows: bool) -> None:
    noise = torch.Generator().manual_seed(1)
    clean, patch = (torch.randn(1, 3, 47, 41, generator=noise).to(dtype) for _ in range(2))
    module = seeded(Branching()).to(dtype).requires_grad_(False)
    patch *= 3
    boxes = [(top, left, top + 24, left + 23) for top in range(-5, 47, 9) for left in range(-4, 41, 11)]
    found = torch.cat([part.scores for part in Sweep(module, module, clean, patch, boxes, windows=windows).batches()])
    loop = torch.stack([whole_pass(module, clean, patch, box) for box in boxes])
    exact = copy.deepcopy(module).double()
    truth = torch.stack([whole_pass(exact, clean.double(), patch.double(), box) for box in boxes])
    of_loop, of_sweep = (loop - truth).abs().max(), (found.double().softmax(1) - truth).abs().max()
    assert of_sweep <= 1.5 * of_loop
    assert (truth - truth.mean(0)).abs().max() > 5 * of_loop, "squares that change nothing prove nothing"
