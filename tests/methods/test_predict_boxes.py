"""Predict for detectors: boxes with labels and scores, drawn where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vizapp
from tests.detectors import BrightSquares, picture, small
from vizapp.media.box_labels import draw_labelled


def test_squares_are_found_with_their_classes_and_scores() -> None:
    pixels = np.zeros((32, 40, 3), np.uint8)
    pixels[8:16, 24:32, 0], pixels[16:24, 8:16, 1] = 153, 255
    network = vizapp.wrap(
        BrightSquares(), input_size=(3, 32, 40), resize=32, categories=["red", "green"], mean=(0, 0, 0), std=(1, 1, 1)
    )
    result = vizapp.ask("predict", network, picture=pixels, threshold=0.7)
    assert result.arrays["boxes"].tolist() == [[16, 8, 24, 16], [8, 24, 16, 32]]
    assert result.arrays["labels"].tolist() == [1, 0]
    assert result.arrays["scores"] == pytest.approx([1, 0.6])
    assert [row["name"] for row in result.table] == ["green"]
    assert result.facts["answer"] == "green 100 %"
    nothing = vizapp.ask("predict", network, picture=np.zeros_like(pixels))
    assert (nothing.facts["answer"], nothing.table) == ("nothing", ())
    weak = vizapp.ask("predict", network, picture=pixels // 2 + 40, threshold=0.9)
    assert weak.facts["answer"].startswith("nothing with a score from 0.9; the strongest is green")


@pytest.mark.parametrize(("kind", "more"), [("maskrcnn", {"masks"}), ("keypointrcnn", {"keypoints"})])
def test_masks_and_keypoints_are_those_of_the_network(kind: str, more: set[str]) -> None:
    pixels = (picture()[0].permute(1, 2, 0) * 255).byte().numpy()
    network = vizapp.wrap(
        small(kind), input_size=(3, 48, 40), resize=40, categories=["no", "a", "b", "c"], mean=(0, 0, 0), std=(1, 1, 1)
    )
    result = vizapp.ask("predict", network, picture=pixels, threshold=0.1)
    with torch.no_grad():
        (expected,) = network.module(network.prepare(pixels))
    assert result.arrays.keys() == {"boxes", "labels", "scores"} | more
    assert result.arrays["boxes"] == pytest.approx(expected["boxes"][:, [1, 0, 3, 2]].numpy(), abs=1e-4)
    if kind == "maskrcnn":
        assert (result.arrays["masks"] == (expected["masks"][:, 0] > 0.5).numpy()).all()
    else:
        assert result.arrays["keypoints"] == pytest.approx(expected["keypoints"][..., [1, 0, 2]].numpy(), abs=1e-4)


def test_labels_stay_on_the_photo() -> None:
    """Each of four boxes at the corners has a label of its colour, whole: as many pixels as that of a box in the middle."""
    grey, colour = np.full((200, 480, 3), 127, np.uint8), (250, 0, 0)
    counts = []
    for box in ([90, 200, 110, 220], [0, 0, 20, 20], [0, 460, 20, 480], [180, 0, 200, 20], [180, 460, 200, 480]):
        drawn = draw_labelled(grey, np.array([box], np.float32), ["a long name 50 %"], [colour])
        assert drawn.shape == grey.shape
        changed = (drawn != grey).any(2)
        changed[box[0] : box[2], box[1] : box[3]] = False
        inside = (drawn != grey).any(2)[box[0] : box[2], box[1] : box[3]]
        counts.append(int(changed.sum() + inside.sum()))
    assert min(counts) > 0.75 * counts[0]
