"""What detectors score, compared with what they return, with D-RISE's formula, and with boxes known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.detectors import KINDS, BrightSquares, Queries, picture, small
from vizapp.engine.detection.boxes import Proposals, TargetBox, match, target_of
from vizapp.engine.detection.designs import detector_of
from vizapp.engine.detection.detector import Detector
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import Gradient
from vizapp.engine.tap import Tap
from vizapp.engine.trace.sites import Unit, survey


def slow_match(proposals: Proposals, target: TargetBox) -> float:
    """D-RISE's similarity, Petsiuk et al. 2021, equations 2 to 5, number by number."""
    best = 0.0
    for boxes, scores, objectness in zip(
        proposals.boxes.tolist(), proposals.scores.tolist(), proposals.objectness.tolist(), strict=True
    ):
        top, left, bottom, right = boxes[target.label] if len(boxes) > 1 else boxes[0]
        own = target.box.tolist()
        common = max(0.0, min(bottom, own[2]) - max(top, own[0])) * max(0.0, min(right, own[3]) - max(left, own[1]))
        union = (bottom - top) * (right - left) + (own[2] - own[0]) * (own[3] - own[1]) - common
        wanted = target.scores.tolist()
        norms = math.sqrt(sum(s * s for s in scores)) * math.sqrt(sum(s * s for s in wanted))
        cosine = sum(s * w for s, w in zip(scores, wanted, strict=True)) / norms if norms else 0.0
        best = max(best, (common / union if common else 0.0) * cosine * objectness)
    return best


def detector(kind: str) -> Detector:
    found = detector_of(small(kind), picture(), 4)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_boxes_that_a_network_returns_are_among_its_proposals_with_their_scores(kind: str) -> None:
    own = detector(kind)
    output, proposals = own.module(picture())[0], own.proposals(picture())[0]
    found = own.found(picture())[0]
    assert len(found.boxes) > 3
    assert found.boxes[:, [1, 0, 3, 2]].allclose(output["boxes"])
    scores = proposals.scores * (proposals.objectness[:, None] if kind == "fcos" else 1)
    scores = scores.sqrt() if kind == "fcos" else scores
    for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
        boxes = proposals.boxes_of(int(label))
        near = ((boxes - box).abs().amax(1) < 1e-3) & ((scores[:, int(label)] - score).abs() < 1e-5)
        assert near.any()
    assert len(proposals.boxes) > len(found.boxes)
    assert float(proposals.objectness.min()) >= 0
    given = (found.masks is not None, found.keypoints is not None)
    assert given == (kind == "maskrcnn", kind == "keypointrcnn")


@pytest.mark.parametrize("kind", KINDS)
def test_the_match_is_the_formula_for_every_picture_of_a_batch(kind: str) -> None:
    own, batch = detector(kind), picture(3, seed=5)
    target = target_of(own.found(picture())[0], 1, own.proposals(picture())[0])
    expected = [slow_match(proposals, target) for proposals in own.proposals(batch)]
    assert own.matcher(target)(batch)[:, 0].tolist() == pytest.approx(expected, abs=1e-5)
    alone = [float(own.matcher(target)(one[None])) for one in batch]
    assert alone == pytest.approx(expected, abs=1e-5)
    assert len({round(one, 4) for one in alone}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_returned_box_matches_itself_by_its_objectness_at_least(kind: str) -> None:
    own = detector(kind)
    proposals, found = own.proposals(picture())[0], own.found(picture())[0]
    for number in range(3):
        target = target_of(found, number, proposals)
        overlaps = (proposals.boxes_of(target.label) - target.box).abs().amax(1) < 1e-3
        assert float(match(proposals, target)) >= float(proposals.objectness[overlaps].min()) - 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_signal_is_the_class_logit_of_one_place_and_follows_the_pixels(kind: str) -> None:
    own, batch = detector(kind), picture()
    proposals = own.proposals(batch)[0]
    target = target_of(own.found(batch)[0], 0, proposals)
    module = own.signal(batch, target)
    best = [slow_match(_only(proposals, i), target) for i in range(len(proposals.scores))]
    index = max(range(len(best)), key=best.__getitem__)
    logit, probability = module(batch), proposals.scores[index, target.label]
    if kind in ("fcos", "retinanet"):
        assert float(logit.sigmoid()) == pytest.approx(float(probability), abs=1e-5)
    else:  # the softmax needs the other logits, too
        others = [own.logit(batch, index, TargetBox(target.box, label, target.scores))(batch) for label in range(4)]
        assert float(torch.cat(others, 1).softmax(1)[0, target.label]) == pytest.approx(float(probability), abs=1e-5)
    pixels = batch.clone().requires_grad_()
    (slope,) = torch.autograd.grad(module(pixels).sum(), pixels)
    step = torch.sign(slope) * 1e-3
    rise = float((module(batch + step) - module(batch - step)).detach().sum()) / 2e-3
    assert rise == pytest.approx(float(slope.abs().sum()), rel=0.05)
    assert rise > 0


def _only(proposals: Proposals, index: int) -> Proposals:
    part = slice(index, index + 1)
    return Proposals(proposals.boxes[part], proposals.scores[part], proposals.objectness[part])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["retinanet", "maskrcnn"])
def test_layers_keep_their_names_in_a_pass_toward_a_box(kind: str) -> None:
    own = detector(kind)
    target = target_of(own.found(picture())[0], 0, own.proposals(picture())[0])
    known = {site.name: site.shape for site in survey(own.module, picture()) if site.is_map}
    for twin in (own.matcher(target), own.signal(picture(), target)):
        sites = {site.name: site.shape for site in survey(twin, picture())}
        assert sites["target"] == (1,)
        backbone = {
            name: shape for name, shape in sites.items() if name.startswith(("transform", "backbone", "rpn.head"))
        }
        assert len(backbone) > 5
        assert backbone.items() <= known.items()


def test_a_network_whose_returned_boxes_are_others_is_judged_by_these() -> None:
    class Moved(type(small("fcos"))):  # type: ignore[misc]
        def forward(self, images: Tensor, targets: None = None) -> list[dict[str, Tensor]]:
            found = super().forward(images, targets)
            return [one | {"boxes": one["boxes"] + 3} for one in found]

    module = small("fcos")
    module.__class__ = Moved
    own = detector_of(module, picture(), 4)
    assert own is not None
    assert len(own.proposals(picture())[0].boxes) == len(own.found(picture())[0].boxes) > 0


def test_bright_squares_match_by_hand() -> None:
    """A red square at rows 8 to 16 and columns 24 to 32, in a picture of 32 × 40, and a green one below it."""
    batch = torch.zeros(1, 3, 32, 40)
    batch[0, 0, 8:16, 24:32], batch[0, 1, 16:24, 24:32] = 0.8, 1.0
    own = detector_of(BrightSquares().eval(), batch, 2)
    assert own is not None
    found = own.found(batch)[0]
    assert found.boxes.tolist() == [[16, 24, 24, 32], [8, 24, 16, 32]]
    assert found.labels.tolist() == [1, 0]
    shifted = TargetBox(torch.tensor([8.0, 24, 16, 36]), 0, torch.tensor([1.0, 0]))
    # The red square fills 64 of 96 pixels of that box, is of its class, and has a score of 0.8.
    assert float(own.matcher(shifted)(batch)) == pytest.approx(64 / 96 * 0.8)
    green = TargetBox(torch.tensor([8.0, 24, 16, 36]), 1, torch.tensor([0, 1.0]))
    assert float(own.matcher(green)(batch)) == 0
    assert float(own.signal(batch, shifted)(batch)) == pytest.approx(0.8)
    assert own.matcher(shifted)(torch.zeros(2, 3, 32, 40)).tolist() == [[0], [0]]


def test_queries_are_boxes_relative_to_the_picture() -> None:
    torch.manual_seed(3)
    module, batch = Queries().eval(), picture()
    own = detector_of(module, batch, 3)
    assert own is not None
    with torch.no_grad():
        output = module(batch)
    proposals, found = own.proposals(batch)[0], own.found(batch)[0]
    x, y, width, height = output["pred_boxes"][0, 2].tolist()
    assert proposals.boxes[2, 0].tolist() == pytest.approx(
        [48 * (y - height / 2), 40 * (x - width / 2), 48 * (y + height / 2), 40 * (x + width / 2)], abs=1e-4
    )
    assert proposals.scores.shape == (4, 4)
    assert found.labels.max() < 3
    best = output["logits"][0].softmax(1)[:, :3].max(1).values
    assert found.scores.tolist() == pytest.approx(sorted(best.tolist(), reverse=True))
    target = target_of(found, 0, proposals)
    assert float(own.matcher(target)(batch)) == pytest.approx(1)
    assert float(own.signal(batch, target)(batch)) == pytest.approx(
        float(output["logits"][0, best.argmax(), target.label])
    )
    sigmoids = detector_of(module, batch, 4)  # as many logits as classes: no background
    assert sigmoids is not None
    assert sigmoids.proposals(batch)[0].scores.allclose(output["logits"][0].sigmoid())


def test_other_networks_are_no_detectors() -> None:
    assert detector_of(torch.nn.Conv2d(3, 2, 3), picture(), 2) is None


def test_cells_of_a_padded_batch_lie_where_they_are_in_the_picture() -> None:
    """Of 48 × 40 pixels, 60 × 50 after resizing, in a batch of 64 × 64: cell 4,6 is centred at row 16 and column 24 there."""
    module, batch = small("fasterrcnn"), picture()
    sites = survey(module, batch)
    assert all(site.located for site in sites if site.name.startswith("backbone"))
    (down,) = project(module, batch, [Unit("backbone.first", 0, (4, 6))], sites, Gradient(), "one")
    rows, columns = torch.where(down.values[0].abs().amax(0) > 0)
    assert (int(rows.min()), int(rows.max())) == (
        11,
        15,
    )  # 1.25 pixels there for one here, and the kernel reaches 2 far
    assert (int(columns.min()), int(columns.max())) == (17, 21)
    pixels = batch.clone().requires_grad_()
    value = observe_with_gradient(module, pixels)
    (slope,) = torch.autograd.grad(value, pixels)
    assert down.values[0].allclose(slope[0], atol=1e-6)


def observe_with_gradient(module: torch.nn.Module, batch: Tensor) -> Tensor:
    with Tap(module, {"backbone.first"}) as tap:
        module(batch)
    return tap.kept["backbone.first"][0, 0, 4, 6]
