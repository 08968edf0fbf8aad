"""The networks of drawn shapes are as good on photos that they were not trained on as their cards say, and small."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizapp
from vizapp.media.shapes import SHAPES, draw_shapes
from vizapp.settings import ASSETS
from vizapp.zoo import bundled
from vizapp.zoo.network import Network

HELD_OUT = [draw_shapes(1_500_000 + seed) for seed in range(24)]  # no seed of the training or of its test


def loaded(kind: str) -> Network:
    return vizapp.load(f"vizapp/shapes-{kind}", device="cpu")


def claimed(kind: str, what: str) -> float:
    """A percentage of the card."""
    found = re.search(
        rf"^\| {re.escape(what)} \| ([0-9.]+) %", (ASSETS / f"shapes-{kind}.md").read_text("utf-8"), re.MULTILINE
    )
    assert found is not None
    return float(found[1])


def test_the_segmenter_finds_the_shapes_as_well_as_its_card_says() -> None:
    network = loaded("segmenter")
    assert network.categories == ("background", *SHAPES)
    assert network.task == "class map"
    with torch.no_grad():
        found = network.module(network.batch([photo.pixels for photo in HELD_OUT])).argmax(1).numpy()
    truth = np.stack([photo.labels for photo in HELD_OUT])
    each = [((found == n) & (truth == n)).sum() / ((found == n) | (truth == n)).sum() for n in range(5)]
    assert 100 * np.mean(each) == pytest.approx(claimed("segmenter", "mean IoU"), abs=8)
    assert claimed("segmenter", "mean IoU") > 70


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes x1 y1 x2 y2."""
    wide, high = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = max(wide, 0) * max(high, 0)
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def test_the_detector_puts_boxes_around_the_shapes() -> None:
    network = loaded("detector")
    assert network.categories == SHAPES
    with torch.no_grad():
        found = network.module(network.batch([photo.pixels for photo in HELD_OUT]))
    shown = right = total = 0
    for one, photo in zip(found, HELD_OUT, strict=True):
        assert set(one) == {"boxes", "labels", "scores"}
        assert (one["scores"].diff() <= 0).all()
        sure = one["scores"] > 0.4
        boxes, labels = one["boxes"][sure].numpy(), one["labels"][sure].numpy()
        assert boxes.min(initial=0) >= 0
        assert boxes.max(initial=0) <= 96
        hits = [
            any(
                kind == label and overlap(box, truth) > 0.5
                for truth, kind in zip(photo.boxes, photo.kinds, strict=True)
            )
            for box, label in zip(boxes, labels, strict=True)
        ]
        shown, right, total = shown + len(hits), right + sum(hits), total + len(photo.kinds)
    assert right / shown > 0.7  # precision
    assert right / total > 0.7  # recall
    assert claimed("detector", "AP at IoU 0.5") > 80


def test_the_detectors_box_is_the_one_that_the_maps_of_its_cell_stand_for() -> None:
    module = loaded("detector").module
    sides = torch.zeros(1, 4, 3, 3)
    sides[0, :, 1, 2] = torch.tensor(
        [0.5, 1, 2, 0.25]
    ).log()  # cells to the left, top, right and bottom of (row 1, column 2)
    box = module.boxes(sides)[0, :, 1, 2]  # type: ignore[operator]
    torch.testing.assert_close(box, torch.tensor([10 - 2.0, 6 - 4, 10 + 8, 6 + 1]))


def test_the_embedding_finds_photos_of_the_same_shape() -> None:
    network = loaded("embedding")
    assert network.task == "embedding"
    shapes = (*SHAPES, "cross")
    kinds = np.arange(60) % 5
    photos = [draw_shapes(1_500_000 + n, most=1, shapes=shapes, kind=int(kind)) for n, kind in enumerate(kinds)]
    with torch.no_grad():
        vectors = network.module(network.batch([photo.pixels for photo in photos]))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(60))
    near = (vectors @ vectors.T).fill_diagonal_(-2).argmax(1).numpy()
    assert 100 * (kinds[near] == kinds).mean() == pytest.approx(claimed("embedding", "recall@1"), abs=15)


def multiply_adds(module: nn.Module) -> int:
    """Products of the convolutions and linear layers for one photo."""
    counted: list[int] = []

    def count(part: nn.Module, _: object, output: Tensor) -> None:
        counted.append(output.numel() * part.weight[0].numel())  # type: ignore[index, operator, union-attr]

    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(count)
    module(torch.zeros(1, 3, 96, 96))
    return sum(counted)


def test_their_weights_are_small_and_counted_right() -> None:
    assert (
        sum((ASSETS / f"shapes-{kind}.safetensors").stat().st_size for kind in ("segmenter", "detector", "embedding"))
        < 1e6
    )
    for kind in ("segmenter", "detector", "embedding"):
        recipe = bundled.recipe(f"shapes-{kind}")
        assert recipe is not None
        module = recipe.build(len(recipe.categories)).eval()
        assert sum(parameter.numel() for parameter in module.parameters()) == recipe.parameters
        assert multiply_adds(module) == recipe.multiply_adds
