"""Boxes: (top, left, bottom, right) in pixels of the network's own input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes that a detector returns for one picture, the highest scores first.

    `boxes` `[n 4]`, `labels` `[n]` (indices of classes) and `scores` `[n]` from 0 to 1. `masks` `[n H W]` from 0 to 1 and
    `keypoints` `[n k 3]` (row, column, and whether it is visible) if it returns any.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None
    keypoints: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Proposals:
    """All boxes that a detector scored for one picture, before thresholds and the suppression of overlapping boxes.

    `boxes` `[P B 4]`: one for all classes (B = 1), or one for each. `scores` `[P K]`: the probabilities of all classes,
    "background" or "no object" included where these are among its classes. `objectness` `[P]`: the probability that there
    is an object at all; 1 where a detector does not say.
    """

    boxes: Tensor
    scores: Tensor
    objectness: Tensor

    def boxes_of(self, label: int) -> Tensor:
        """The boxes `[P 4]` for one class."""
        return self.boxes[:, label if self.boxes.shape[1] > 1 else 0]


@dataclass(frozen=True, eq=False)
class TargetBox:
    """A box `[4]` with its class and its class scores `[K]`, which proposals are compared with."""

    box: Tensor
    label: int
    scores: Tensor


def iou(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union `[P]` of boxes `[P 4]` with one box `[4]`; 0 where they do not overlap."""
    common = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp_min(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return torch.where(common > 0, common / (areas - common), torch.zeros_like(common))


def matches(proposals: Proposals, target: TargetBox) -> Tensor:
    """How well each proposal matches a box, `[P]` from 0 to 1 (D-RISE: Petsiuk et al. 2021, section 3.2).

    The product of the boxes' intersection over union, the cosine of their class scores, and the proposal's objectness.
    """
    cosine = torch.cosine_similarity(proposals.scores, target.scores[None], dim=1)
    return iou(proposals.boxes_of(target.label), target.box) * cosine * proposals.objectness


def match(proposals: Proposals, target: TargetBox) -> Tensor:
    """The match of the proposal that matches best, a single number; 0 if there are no proposals."""
    found = matches(proposals, target)
    return found.max() if len(found) else found.sum()


def target_of(found: Detections, number: int, proposals: Proposals) -> TargetBox:
    """A returned box with the class scores of the proposal that it was made of."""
    box, label = found.boxes[number], int(found.labels[number])
    overlap = iou(proposals.boxes_of(label), box)
    same = overlap >= overlap.max() - 1e-3
    source = proposals.scores[:, label].where(same, overlap.new_tensor(-1.0)).argmax()
    return TargetBox(box, label, proposals.scores[source])
