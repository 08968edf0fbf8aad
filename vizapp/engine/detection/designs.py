"""Which design a detector has, and the designs that are known by what they return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vizapp.engine.detection.boxes import Detections, Proposals, TargetBox, matches
from vizapp.engine.detection.detector import Detector, returned_boxes
from vizapp.engine.detection.stages import torchvision_detector


def detector_of(module: nn.Module, batch: Tensor, classes: int) -> Detector | None:
    """The detector that a network is, from what it returns for a picture `[1 C H W]`; None if that is no boxes.

    `classes`: how many classes have names, 0 if that is not known.
    """
    with torch.no_grad():
        output = module(batch.clone())
    logits, boxes = _field(output, "logits"), _field(output, "pred_boxes")
    if isinstance(logits, Tensor) and isinstance(boxes, Tensor) and logits.ndim == boxes.ndim == 3:
        return _Queries(module, background=logits.shape[2] != classes)
    if not (isinstance(output, (list, tuple)) and len(output) == len(batch) and isinstance(output[0], Mapping)):
        return None
    if not all(isinstance(output[0].get(name), Tensor) for name in ("boxes", "labels", "scores")):
        return None
    known = torchvision_detector(module, output, batch)
    return known or _Returned(module, max([classes, *(output[0]["labels"] + 1).tolist()]))


def _field(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


class _Queries(Detector):
    """DETR and its kin: `logits` `[N Q K]` and `pred_boxes` `[N Q 4]` (centre x, centre y, width, height, from 0 to 1).

    With a `background`, which is the last class, the link is the softmax; without, each class has its sigmoid, and a query
    may be several detections: the best pairs of query and class, as many as there are queries (Zhu et al. 2021).
    """

    def __init__(self, module: nn.Module, background: bool) -> None:
        super().__init__(module)
        self.background = background

    def read(self, scored: Any, batch: Tensor) -> list[Proposals]:
        logits = _field(scored, "logits")
        scores = logits.softmax(-1) if self.background else logits.sigmoid()
        x, y, width, height = _field(scored, "pred_boxes").unbind(-1)
        sides = torch.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1)
        boxes = sides * sides.new_tensor([*batch.shape[2:]] * 2)
        return [
            Proposals(its[:, None], score, torch.ones_like(score[:, 0]))
            for its, score in zip(boxes, scores, strict=True)
        ]

    def detections(self, output: Any, batch: Tensor) -> list[Detections]:
        found = []
        for one in self.read(output, batch):
            scores, classes = one.scores, one.scores.shape[1]
            if self.background:
                labels = scores[:, :-1].argmax(1)
                pairs = torch.arange(len(scores), device=labels.device) * classes + labels
            else:
                pairs = torch.arange(scores.numel(), device=scores.device)
            pairs = pairs[scores.flatten()[pairs].argsort(descending=True, stable=True)][: len(scores)]
            boxes = one.boxes[pairs // classes, 0]
            found.append(Detections(boxes.float(), pairs % classes, scores.flatten()[pairs].float()))
        return found

    def logit(self, batch: Tensor, index: int, target: TargetBox) -> nn.Module:
        return self.ending(lambda scored, pictures: _field(scored, "logits")[:, index, target.label, None])


class _Returned(Detector):
    """Any network that returns a dict with `boxes`, `labels` and `scores` for each picture. All else is hidden.

    A box's score counts as its objectness, because the cosine of class scores with a single number does not see it.
    """

    def __init__(self, module: nn.Module, classes: int) -> None:
        super().__init__(module)
        self.classes = classes

    def detections(self, output: Any, batch: Tensor) -> list[Detections]:
        return returned_boxes(output)

    def read(self, scored: Any, batch: Tensor) -> list[Proposals]:
        found = []
        for one in returned_boxes(scored):
            same = one.labels[:, None] == torch.arange(self.classes, device=one.labels.device)
            found.append(Proposals(one.boxes[:, None], same * one.scores[:, None], one.scores))
        return found

    def logit(self, batch: Tensor, index: int, target: TargetBox) -> nn.Module:
        def score(scored: Any, pictures: Tensor) -> Tensor:
            """That of the box that matches best on each picture, because boxes have no fixed places."""
            each = []
            for one in self.read(scored, pictures):
                found = matches(one, target)
                each.append(one.objectness[found.argmax()] if len(found) else found.sum())
            return torch.stack(each)[:, None]

        return self.ending(score)
