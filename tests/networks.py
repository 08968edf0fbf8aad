"""Small networks with the difficulties of real ones, whose results can be computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Branching(nn.Module):
    """Functional and in-place ReLUs, a reused module, a concatenation, a residual sum, a head."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.left = nn.Conv2d(8, 4, 3, padding=2, dilation=2)
        self.right = nn.Conv2d(8, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem(x)))
        x = torch.cat([F.relu(self.left(x)), self.right(x).relu()], 1)
        y = self.body(x)
        y += x
        return self.head(self.relu(y).mean([2, 3]))


class Aliasing(nn.Module):
    """Counts on an in-place ReLU rewriting its input: a tap that clones on the way would change its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = F.relu(x, inplace=True)
        return (x + y).flatten(1)


class Choosing(nn.Module):
    """Data-dependent control flow, which symbolic tracing cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.conv_1 = nn.Conv2d(4, 4, 3)  # a name that looks like a second call of `conv`

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if x.mean() > 1e9:
            return x.flatten(1)
        return self.conv_1(x).mean((2, 3))


class Breaking(nn.Module):
    """Raises in the middle of its pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.conv(x)
        raise ValueError("broken on purpose")


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode with weights that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network.eval().requires_grad_(False)


def gabor(side: int, frequency: float, stripes: float, phase: float = 0.5, width: float = 0.25) -> Tensor:
    """A Gabor pattern `[side side]`: stripes at that angle (degrees anticlockwise from horizontal), fading outwards."""
    y, x = torch.meshgrid(torch.arange(side) - (side - 1) / 2, torch.arange(side) - (side - 1) / 2, indexing="ij")
    angle = torch.deg2rad(torch.tensor(float(stripes)))
    wave = torch.cos(2 * torch.pi * frequency * (torch.sin(angle) * x + torch.cos(angle) * y) + phase)
    return wave * torch.exp(-(x**2 + y**2) / (2 * (width * side) ** 2))


class Detectors(nn.Module):
    """Units whose ideal input is known: a Gabor pattern, a colour blob, and the sum of two channels."""

    def __init__(self, side: int = 15) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 2, side)
        self.relu = nn.ReLU()
        self.head = nn.Linear(2, 2)
        y, x = torch.meshgrid(torch.arange(side) - side // 2, torch.arange(side) - side // 2, indexing="ij")
        blob = torch.exp(-(x**2 + y**2) / (2 * (0.2 * side) ** 2))
        pattern = gabor(side, 0.18, 53)
        with torch.no_grad():
            self.see.weight[0] = pattern - pattern.mean()
            self.see.weight[1] = blob * torch.tensor([1.0, -0.5, -0.5])[:, None, None]
            self.see.bias.zero_()
            self.head.weight.copy_(torch.eye(2))
            self.head.bias.zero_()
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.see(x)).amax((2, 3)))


def saved_run(network: nn.Module, folder: Path) -> str:
    """A folder with two checkpoints of a training run: the weights halved, and as they are."""
    folder.mkdir(exist_ok=True)
    weights = network.state_dict()
    torch.save({key: value / 2 for key, value in weights.items()}, folder / "epoch-1.pt")
    torch.save(weights, folder / "epoch-2.pt")
    return str(folder)


def shapes_photo(side: int = 24) -> Tensor:
    """A white square at rows 3 to 7, columns 4 to 8 and a white plus at rows 12 to 16, columns 14 to 18 on black: `[3 H W]`.

    The plus is the middle row and column of its 5 x 5 pixels.
    """
    photo = torch.zeros(side, side)
    photo[3:8, 4:9] = 1
    photo[12:17, 16] = photo[14, 14:19] = 1
    return photo.expand(3, side, side).clone()


class TwoShapes(nn.Module):
    """A segmenter of the shapes of `shapes_photo`: at each cell, how well the 5 x 5 pixels around it match each.

    A template counts the white pixels where its shape is white, less those where it is black, in 3 colours. Class 1, the
    square, scores that count less 70, class 2, the plus, less 24, and class 0, the ground, 0: each shape is found at its middle
    alone. There the square scores 75 - 70 (and the plus -21 - 24), the plus 27 - 24 (and the square 27 - 70).

    `pooled`: it returns the class scores of a classifier instead, by a global average and a linear layer with the same weights.
    """

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        plus = -torch.ones(5, 5)
        plus[2], plus[:, 2] = 1, 1
        weight, bias = torch.tensor([[0.0, 0], [1, 0], [0, 1]]), torch.tensor([0.0, -70, -24])
        self.match, self.pooled = nn.Conv2d(3, 2, 5, padding=2, bias=False), pooled
        self.classes: nn.Module = nn.Linear(2, 3) if pooled else nn.Conv2d(2, 3, 1)
        self.match.weight.data = torch.stack([torch.ones(5, 5), plus])[:, None].repeat(1, 3, 1, 1)
        self.classes.weight.data = weight if pooled else weight[:, :, None, None]  # type: ignore[union-attr]
        self.classes.bias.data = bias  # type: ignore[union-attr]
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        matches = self.match(x)
        return torch.as_tensor(self.classes(matches.mean((2, 3)) if self.pooled else matches))


class Record(NamedTuple):
    """What a network returns under names."""

    colour: Tensor
    bright: Tensor


class MeanColour(nn.Module):
    """Answers that are plain functions of the mean colour (r, g, b), each from 0 to 1.

    `answer`: "one", the logit 4 r - 2; "several", the sigmoids of 4 r - 2, 4 g - 2 and 4 b - 2; "embedding", the mean colour
    divided by its length; "tuple", "dict" and "record", two heads `colour` (8 r, 8 g, 8 b) and `bright` (0, 2 (r + g + b) - 3).
    """

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer
        self.colour, self.bright = nn.Linear(3, 1 if answer == "one" else 3), nn.Linear(3, 2)
        scale, bias = (4.0, -2.0) if answer in ("one", "several") else (8.0 if answer != "embedding" else 1.0, 0.0)
        self.colour.weight.data = scale * torch.eye(3)[: self.colour.out_features]
        self.colour.bias.data = torch.full((self.colour.out_features,), bias)
        self.bright.weight.data, self.bright.bias.data = torch.tensor([[0.0] * 3, [2.0] * 3]), torch.tensor([0.0, -3.0])
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        x = x.mean((2, 3))
        colour = self.colour(x)
        if self.answer in ("tuple", "dict", "record"):
            made = Record(colour, self.bright(x))
            return {"tuple": tuple(made), "dict": made._asdict(), "record": made}[self.answer]
        return {"one": colour, "several": colour.sigmoid(), "embedding": F.normalize(colour, dim=1)}[self.answer]
