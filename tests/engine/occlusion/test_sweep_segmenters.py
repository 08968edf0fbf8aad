"""Sweeps over segmentation networks toward cells and regions, against whole passes over occluded pictures."""

from __future__ import annotations

import numpy as np
import pytest
import segmentation_models_pytorch
import torch
from torch import nn
from torchvision.models import segmentation

import vizapp
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.zoo.target import Target, toward

SIDE, WINDOW = 96, 14
PHOTO = vizapp.open_picture(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
TARGETS = [Target(1, cell=(40, 50)), Target(2, region=(20, 10, 50, 40)), Target(0, region="whole")]
# Boxes in corners, at the border, beside and over the target.
BOXES = [(0, 0, 14, 14), (-7, 30, 7, 44), (34, 44, 48, 58), (90, 90, 104, 104), (60, 10, 74, 24)]


def built(name: str) -> nn.Module:
    """Random weights, with the batch norms' statistics of noise, so that every layer says something, in float64.

    ResNet-50 takes long in float64; in float32 its statistics are random, because those of noise amplify rounding.
    """
    torch.manual_seed(0)
    if name == "unet":
        module = segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, classes=4)
    else:
        module = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=4)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    if name != "fcn_resnet50":
        with torch.no_grad():
            module.double().train()(torch.randn(4, 3, SIDE, SIDE).double())
    return module.eval()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("lraspp_mobilenet_v3_large", marks=pytest.mark.slow),
        pytest.param("unet", marks=pytest.mark.slow),
        pytest.param("deeplabv3_mobilenet_v3_large", marks=pytest.mark.slow),
        pytest.param("fcn_resnet50", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_windows_equal_whole_passes(name: str) -> None:
    network = vizapp.wrap(built(name), (3, SIDE, SIDE), name=name)
    batch = network.prepare(PHOTO)
    hidden = batch.repeat(len(BOXES), 1, 1, 1)
    for one, (top, left, bottom, right) in zip(hidden, BOXES, strict=True):
        one[:, max(top, 0) : bottom, max(left, 0) : right] = 0
    answers = torch.cat([_map(network.module(one[None])) for one in hidden]).double()
    for target in TARGETS:
        aimed, unit = toward(network, target, PHOTO)
        assert unit is not None
        sweep = Sweep(aimed.module, aimed.scores, batch, torch.zeros_like(batch), BOXES)
        assert sweep.facts["evaluation"].startswith("Only what an occluder touches"), sweep.facts
        assert sweep.bound > 1
        found = sweep.answer(range(len(BOXES))).scores.double()
        if target.cell is not None:
            right_scores = answers[:, :, target.cell[0], target.cell[1]]
        else:
            top, left, bottom, right = (0, 0, SIDE, SIDE) if target.region == "whole" else target.region  # type: ignore[misc]
            right_scores = answers[:, :, top:bottom, left:right].mean((2, 3))
        size = right_scores.abs().max()
        assert (found - right_scores).abs().max() <= 1e-5 * size
        assert (found.softmax(1) - right_scores.softmax(1)).abs().max() <= 1e-5
        assert (right_scores - sweep.clean_scores).abs().max() > 1e-3 * size, "hiding changes nothing"


def _map(output: object) -> torch.Tensor:
    found = output["out"] if isinstance(output, dict) else output
    assert isinstance(found, torch.Tensor)
    return found
