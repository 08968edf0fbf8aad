"""Small detectors: one whose boxes are known by hand, and one of each of torchvision's designs with few, random weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.ssd import DefaultBoxGenerator
from torchvision.ops import MultiScaleRoIAlign

KINDS = ("fcos", "retinanet", "ssd", "fasterrcnn", "maskrcnn", "keypointrcnn")


class BrightSquares(nn.Module):
    """Finds squares of 8 × 8 pixels on a grid that are brighter than a half in the red (class 0) or green channel (class 1).

    The score is the mean brightness of the square.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 8, stride=8)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.zero_()  # type: ignore[union-attr]
            for channel in range(2):
                self.conv.weight[channel, channel] = 1 / 64

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for maps in self.conv(x):
            label, row, column = torch.where(maps > 0.5)
            boxes = torch.stack([column * 8, row * 8, column * 8 + 8, row * 8 + 8], 1).float()
            found.append({"boxes": boxes, "labels": label, "scores": maps[label, row, column]})
        return found


class Queries(nn.Module):
    """DETR's output: for each of a grid of 4 queries class logits (the last: no object) and a relative box."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, stride=2), nn.Linear(6, classes + 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.head(F.adaptive_avg_pool2d(F.relu(self.conv(x)), 2).flatten(2).transpose(1, 2))
        return {"logits": 9 * found[..., 4:], "pred_boxes": found[..., :4].sigmoid()}


class _Backbone(nn.Module):
    """Two maps, of a quarter and an eighth of the picture's size."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 5, stride=4, padding=2), nn.Conv2d(32, 32, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = F.relu(self.first(x))
        return {"0": first, "1": F.relu(self.second(first))}


def small(kind: str, classes: int = 4, seed: int = 0) -> Any:
    """A detector of one of `KINDS`. It resizes its input of 48 × 40 to 60 × 50 and pads that to 64 × 64."""
    torch.manual_seed(seed)
    backbone = _Backbone()
    sizes: dict[str, Any] = {"min_size": 50, "max_size": 80}
    anchors = AnchorGenerator(((16,), (32,)), ((0.5, 1.0),) * 2)
    if kind == "fcos":
        made: Any = detection.FCOS(
            backbone, classes, anchor_generator=AnchorGenerator(((4,), (8,)), ((1.0,),) * 2), score_thresh=0.02, **sizes
        )
    elif kind == "retinanet":
        made = detection.RetinaNet(backbone, classes, anchor_generator=anchors, score_thresh=0.001, **sizes)
    elif kind == "ssd":
        head = detection.ssd.SSDHead([32, 32], [4, 4], classes)
        boxes = DefaultBoxGenerator([[2], [2]], scales=[0.2, 0.4, 0.6])
        made = detection.ssd.SSD(backbone, boxes, (64, 64), classes, head=head)
    else:
        options: dict[str, Any] = {
            "rpn_anchor_generator": anchors,
            "box_roi_pool": MultiScaleRoIAlign(["0", "1"], 3, 2),
            "box_head": detection.faster_rcnn.TwoMLPHead(288, 16),
            "box_predictor": detection.faster_rcnn.FastRCNNPredictor(16, classes),
            "rpn_post_nms_top_n_test": 30,
            "box_score_thresh": 0.01,
            "box_detections_per_img": 12,
        }
        if kind == "maskrcnn":
            options["mask_head"] = detection.mask_rcnn.MaskRCNNHeads(32, (8,), 1)
            options["mask_predictor"] = detection.mask_rcnn.MaskRCNNPredictor(8, 8, classes)
            made = detection.MaskRCNN(backbone, **options, **sizes)
        elif kind == "keypointrcnn":
            options["keypoint_head"] = detection.keypoint_rcnn.KeypointRCNNHeads(32, (8,))
            options["keypoint_predictor"] = detection.keypoint_rcnn.KeypointRCNNPredictor(8, 3)
            made = detection.KeypointRCNN(backbone, **options, **sizes)
        else:
            made = detection.FasterRCNN(backbone, **options, **sizes)
    for name, part in made.named_modules():  # torchvision begins with numbers so small that all scores are alike
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            size = 0.1 if "bbox" in name or "regression" in name else 1.2  # boxes stay near their anchors
            nn.init.normal_(part.weight, std=size / part.weight[0].numel() ** 0.5)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.1)
    if kind == "fcos":
        nn.init.constant_(made.head.regression_head.bbox_reg.bias, 1.5)  # below 0, all boxes would be empty
    return made.eval().requires_grad_(False)


def picture(count: int = 1, seed: int = 1) -> Tensor:
    """Random pictures `[N 3 48 40]` from 0 to 1."""
    return torch.rand(count, 3, 48, 40, generator=torch.Generator().manual_seed(seed))
