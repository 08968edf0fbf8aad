"""Three small networks for 96 px photos of shapes: a segmenter, a detector and an embedding (`training/shapes.py`)."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CERTAIN, _OVERLAP, _MOST = 0.05, 0.5, 50  # least score of a box, largest IoU of two of a class, most boxes of a photo


def _convolution(inputs: int, outputs: int, stride: int, batch_norm: bool) -> nn.Sequential:
    """A 3x3 convolution and a ReLU. Batch norm is for training only; `fold_batch_norm` removes it."""
    layers = OrderedDict[str, nn.Module](conv=nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not batch_norm))
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(outputs)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ShapesSegmenter(nn.Module):
    """A U-Net (Ronneberger et al. 2015) with three sizes of maps, 48 to 12 cells wide, whose class map is enlarged twice.

    Args:
        classes: Number of classes, with the background.
        batch_norm: Whether batch norm follows each convolution.
    """

    def __init__(self, classes: int = 5, batch_norm: bool = False) -> None:
        super().__init__()
        self.down2 = nn.Sequential(_convolution(3, 16, 2, batch_norm), _convolution(16, 20, 1, batch_norm))
        self.down4 = nn.Sequential(_convolution(20, 40, 2, batch_norm), _convolution(40, 40, 1, batch_norm))
        self.down8 = nn.Sequential(_convolution(40, 56, 2, batch_norm), _convolution(56, 56, 1, batch_norm))
        self.middle = _convolution(56, 56, 1, batch_norm)
        self.up4 = _convolution(56 + 40, 40, 1, batch_norm)
        self.up2 = _convolution(40 + 20, 24, 1, batch_norm)
        self.classes = nn.Conv2d(24, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes H W]` of each pixel of photos `[N 3 H W]`, whose sides are multiples of 8."""
        two = self.down2(x)
        four = self.down4(two)
        x = self.middle(self.down8(four))
        x = self.up4(torch.cat([_double(x), four], 1))
        x = self.up2(torch.cat([_double(x), two], 1))
        return F.interpolate(self.classes(x), scale_factor=2.0, mode="bilinear", align_corners=False)


class ShapesDetector(nn.Module):
    """A one-stage detector without anchors, after FCOS (Tian et al. 2019), with one map of a cell per 4 x 4 pixels.

    `classes` gives the logit of each class at each cell, `sides` the logarithms of the distances, in cells, from the middle of
    the cell to the left, top, right and bottom of its box.

    Args:
        classes: Number of classes; there is none for the background.
        batch_norm: Whether batch norm follows each convolution.
    """

    stride = 4

    def __init__(self, classes: int = 4, batch_norm: bool = False) -> None:
        super().__init__()
        self.down2 = nn.Sequential(_convolution(3, 16, 2, batch_norm), _convolution(16, 24, 1, batch_norm))
        self.down4 = nn.Sequential(_convolution(24, 48, 2, batch_norm), _convolution(48, 48, 1, batch_norm))
        self.down8 = nn.Sequential(_convolution(48, 64, 2, batch_norm), _convolution(64, 64, 1, batch_norm))
        self.middle = _convolution(64, 64, 1, batch_norm)
        self.up4 = _convolution(64 + 48, 48, 1, batch_norm)
        self.classes = nn.Conv2d(48, classes, 1)
        self.sides = nn.Conv2d(48, 4, 1)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of `classes` `[N classes h w]` and of `sides` `[N 4 h w]`, for photos whose sides are multiples of 8."""
        fine = self.down4(self.down2(x))
        x = self.middle(self.down8(fine))
        x = self.up4(torch.cat([_double(x), fine], 1))
        return self.classes(x), self.sides(x)

    def boxes(self, sides: Tensor) -> Tensor:
        """The boxes `[N 4 h w]` (x1, y1, x2, y2 in pixels) that the output of `sides` stands for."""
        rows, columns = (
            (torch.arange(count, dtype=sides.dtype, device=sides.device) + 0.5) * self.stride
            for count in sides.shape[2:]
        )
        reach = sides.exp() * self.stride
        x, y = columns[None, None, :], rows[None, :, None]
        return torch.stack([x - reach[:, 0], y - reach[:, 1], x + reach[:, 2], y + reach[:, 3]], 1)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """The boxes of each photo of `[N 3 H W]` as a dict, the most certain first, as the detectors of torchvision do.

        `boxes` `[n 4]` (x1, y1, x2, y2 in pixels), `labels` `[n]`, indices of the classes, and `scores` `[n]` from 0 to 1.
        """
        classes, sides = self.maps(x)
        limits = torch.tensor([x.shape[3], x.shape[2]] * 2, device=x.device, dtype=x.dtype)[:, None, None]
        boxes = self.boxes(sides).clamp_min(0).minimum(limits).flatten(2).transpose(1, 2)  # [N h*w 4]
        return [self._kept(one, box) for one, box in zip(classes.sigmoid().flatten(2), boxes, strict=True)]

    def _kept(self, scores: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """The boxes that remain of all cells of a photo: `scores` `[classes h*w]`, `boxes` `[h*w 4]`."""
        from torchvision.ops import batched_nms  # takes a second, and only the detector needs it

        labels, cells = torch.nonzero(scores > _CERTAIN, as_tuple=True)
        found, boxes = scores[labels, cells], boxes[cells]
        kept = batched_nms(boxes, found, labels, _OVERLAP)[:_MOST]
        return {"boxes": boxes[kept], "labels": labels[kept], "scores": found[kept]}


class ShapesEmbedding(nn.Module):
    """Photos of the same shape as vectors of length 1 that are near each other; it has no classes.

    Args:
        size: Length of the vector.
        batch_norm: Whether batch norm follows each convolution.
    """

    def __init__(self, size: int = 32, batch_norm: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(3, 16, 2, batch_norm),
            _convolution(16, 24, 1, batch_norm),
            _convolution(24, 48, 2, batch_norm),
            _convolution(48, 48, 1, batch_norm),
            _convolution(48, 64, 2, batch_norm),
            _convolution(64, 64, 1, batch_norm),
        )
        self.embedding = nn.Linear(64, size)

    def forward(self, x: Tensor) -> Tensor:
        """The vectors `[N size]` of photos `[N 3 H W]`."""
        return F.normalize(self.embedding(self.features(x).amax((2, 3))), dim=1)


def fold_batch_norm(trained: nn.Module, plain: nn.Module) -> None:
    """Give `plain`, built without batch norm, the weights of `trained` with its batch norms folded into them."""
    for name, part in plain.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            source = trained.get_submodule(name).eval()
            norm = trained.get_submodule(name.rpartition(".")[0])._modules.get("norm")
            if isinstance(source, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                source = nn.utils.fusion.fuse_conv_bn_eval(source, norm.eval())
            part.load_state_dict(source.state_dict())
    plain.eval()
