"""The detectors of torchvision: RetinaNet, FCOS and SSD score anchors; Faster, Mask and Keypoint R-CNN score proposals.

They drop most boxes in `postprocess_detections`. A twin ends its pass where that begins: the network's own code computes all
scores, and its activations keep their names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vizapp.engine.detection.boxes import Detections, Proposals, TargetBox
from vizapp.engine.detection.detector import Detector, returned_boxes, twin_of

_LIBRARY = "torchvision.models.detection."
_PIXELS, _ROUNDING = 0.05, 1e-3  # within which a returned box, and its score, are those of a proposal
_TO_PIXELS = [1, 0, 3, 2]  # torchvision's boxes are (left, top, right, bottom)


class _Scored(BaseException):
    """Ends a pass with the arguments of `postprocess_detections`. Not an Exception, so that no network swallows it."""


def _end(*values: Any) -> None:
    raise _Scored(*values)


class _Torchvision(Detector):
    """`kinds`: the names of torchvision's classes that the network's class is, or is derived from."""

    def __init__(self, module: nn.Module, kinds: Collection[str]) -> None:
        super().__init__(module)
        self.kinds = kinds
        self.parts: Any = module  # whose attributes are those of torchvision's classes

    def detections(self, output: Any, batch: Tensor) -> list[Detections]:
        return returned_boxes(output)

    def scored(self, run: Callable[[Tensor], Any], batch: Tensor) -> Any:
        try:
            return run(batch)
        except _Scored as scored:
            return scored.args

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if {"RetinaNet", "FCOS"} & {*self.kinds} else logits.softmax(-1)

    def detected(self, scores: Tensor, objectness: Tensor) -> Tensor:
        """The scores `[P K]` that the network returns boxes with."""
        return scores

    def explains(self, found: Detections, batch: Tensor) -> bool:
        """Whether the boxes that the network returned for a picture `[1 C H W]`, and their scores, are among its proposals."""
        proposals = self.proposals(batch)[0]
        scores = self.detected(proposals.scores, proposals.objectness)
        for box, label, score in zip(found.boxes, found.labels.tolist(), found.scores, strict=True):
            same = (proposals.boxes_of(label) - box).abs().amax(1) < _PIXELS
            if not bool((same & ((scores[:, label] - score).abs() < _ROUNDING)).any()):
                return False
        return True


class _OneStage(_Torchvision):
    def ending(self, finish: Any, **changes: Any) -> nn.Module:
        return super().ending(finish, postprocess_detections=_end, **changes)

    def detected(self, scores: Tensor, objectness: Tensor) -> Tensor:
        return (scores * objectness[:, None]).sqrt() if "FCOS" in self.kinds else scores

    def read(self, scored: Any, batch: Tensor) -> list[Proposals]:
        heads, anchors, sizes = scored
        scores, deltas = self.probabilities(_joined(heads["cls_logits"])), _joined(heads["bbox_regression"])
        centre = (
            _joined(heads["bbox_ctrness"]).sigmoid()[..., 0]
            if "bbox_ctrness" in heads
            else scores.new_ones(scores.shape[:2])
        )
        coder = self.parts.box_coder
        decode = getattr(coder, "decode_single", coder.decode)
        found = []
        for number, size in enumerate(sizes):
            places = anchors[number] if isinstance(anchors[number], Tensor) else torch.cat(list(anchors[number]))
            boxes = _on_input(decode(deltas[number], places)[:, None], size, batch)
            found.append(Proposals(boxes, scores[number], centre[number]))
        return found

    def logit(self, batch: Tensor, index: int, target: TargetBox) -> nn.Module:
        return self.ending(lambda scored, pictures: _joined(scored[0]["cls_logits"])[:, index, target.label, None])


class _TwoStage(_Torchvision):
    def ending(self, finish: Any, **changes: Any) -> nn.Module:
        proposer = self.parts.rpn
        own = {
            "rpn": twin_of(
                proposer, filter_proposals=partial(_with_objectness, type(proposer).filter_proposals, proposer)
            ),
            "roi_heads": twin_of(self.parts.roi_heads, postprocess_detections=_end),
        }
        return super().ending(finish, **own | changes)

    def read(self, scored: Any, batch: Tensor) -> list[Proposals]:
        logits, deltas, regions, sizes = scored
        counts, classes = [len(one) for one in regions], deltas.shape[1] // 4
        boxes = self.parts.roi_heads.box_coder.decode(deltas, regions).reshape(len(logits), classes, 4).split(counts)
        scores = self.probabilities(logits).split(counts)
        return [
            Proposals(_on_input(its, size, batch), score, region.objectness)
            for its, score, region, size in zip(boxes, scores, regions, sizes, strict=True)
        ]

    def logit(self, batch: Tensor, index: int, target: TargetBox) -> nn.Module:
        with torch.no_grad():
            regions = self.ending(lambda scored, pictures: scored[2])(batch.clone())
        fixed = twin_of(self.parts.rpn, filter_proposals=partial(_fixed, regions[0][index][None].clone()))
        return self.ending(lambda scored, pictures: scored[0][:, target.label, None], rpn=fixed)


def _with_objectness(filter_proposals: Any, proposer: nn.Module, *args: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The proposals of a region proposal network, each picture's with its objectness as an attribute: it drops these."""
    boxes, scores = filter_proposals(proposer, *args)
    for its, score in zip(boxes, scores, strict=True):
        its.objectness = score
    return boxes, scores


def _fixed(region: Tensor, proposals: Tensor, *rest: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The same proposal `[1 4]` for every picture, in place of those that were found."""
    own = region.to(proposals)
    return [own] * len(proposals), [own[:, 0]] * len(proposals)


def _joined(levels: Tensor | Sequence[Tensor]) -> Tensor:
    """The anchors `[N A …]` of all levels of the feature pyramid."""
    return levels if isinstance(levels, Tensor) else torch.cat(list(levels), 1)


def _on_input(boxes: Tensor, size: tuple[int, int], batch: Tensor) -> Tensor:
    """Boxes `[P B 4]` on the resized picture as (top, left, bottom, right) in pixels of the network's input."""
    height, width = size
    own = boxes.new_tensor([batch.shape[2] / height, batch.shape[3] / width] * 2)
    return boxes[..., _TO_PIXELS].clamp_min(0).minimum(boxes.new_tensor([height, width] * 2)) * own


def torchvision_detector(module: nn.Module, output: Any, batch: Tensor) -> Detector | None:
    """The detector that a network of torchvision is; None if it is no such, or the boxes that it returned for a picture
    `[1 C H W]` are not among those that it scores, as in networks whose last steps were changed.
    """
    known = {kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith(_LIBRARY)}
    own: _Torchvision | None = None
    if "forward" not in module.__dict__ and known & {"RetinaNet", "FCOS", "SSD"}:
        own = _OneStage(module, known)
    elif "forward" not in module.__dict__ and "GeneralizedRCNN" in known:
        own = _TwoStage(module, known)
    return own if own is not None and own.explains(returned_boxes(output)[0], batch) else None
