"""Small networks drawn by Hypothesis: branches, strides, dilation, groups, ceil-mode pools, gates, in-place operations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

CHANNELS = 8


class Residual(nn.Module):
    """A sum of a value and its convolution, the sum written over one of the two."""

    def __init__(self, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=dilation * (kernel // 2), dilation=dilation)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        y += x
        return self.relu(y)


class Concatenation(nn.Module):
    """Two branches of different fields, side by side, as in an Inception block."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(CHANNELS, CHANNELS // 2, 1, stride)
        self.wide = nn.Conv2d(CHANNELS, CHANNELS // 2, (3, 5), stride, (1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([self.narrow(x), self.wide(x)], 1))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(F.adaptive_avg_pool2d(x, 1)))


class Shuffle(nn.Module):
    """The halves of the channels: one convolved, both shuffled together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS // 2, CHANNELS // 2, 3, padding=1, groups=CHANNELS // 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        x = torch.cat((a, self.conv(b)), dim=1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class LayerNormLast(nn.Module):
    """ConvNeXt's: channels last, a norm and a linear layer across them, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.scale = nn.Parameter(torch.full((CHANNELS, 1, 1), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.linear(self.norm(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return x - self.scale * y


class Mask(nn.Module):
    """A mask made of the value itself, and a value that is used again after an in-place operation on its copy."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y.clamp_(min=0.1)
        return x * (x > 0) + 0.5 * y


class Norms(nn.Module):
    """Local response norm, a dropout that does nothing, an activation with bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LocalResponseNorm(3), nn.Dropout2d(0.5), nn.ReLU6(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Reversing(nn.Module):
    """Moves cells about, which no window can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * x.flip(3)


@st.composite
def blocks(draw: Any) -> nn.Module:
    kind = draw(st.sampled_from([
        "conv", "conv", "conv", "max", "average", "residual", "cat", "gate", "shuffle", "last", "mask", "norms", "pad", "flip",
    ]))  # fmt: skip
    integer = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    if kind == "conv":
        kernel = (integer(1, 4), integer(1, 4))
        groups = draw(st.sampled_from([1, 2, CHANNELS]))
        padding = draw(st.sampled_from([(integer(0, 2), integer(0, 2)), "same", "valid"]))
        stride = 1 if padding == "same" else (integer(1, 3), integer(1, 2))
        layer = nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, integer(1, 2), groups, bias=draw(st.booleans()))
        tail = draw(st.sampled_from([nn.Identity(), nn.ReLU(inplace=True), nn.BatchNorm2d(CHANNELS), nn.SiLU()]))
        return nn.Sequential(layer, tail)
    if kind in {"max", "average"}:
        kernel = integer(1, 3)
        stride, ceil, padding = integer(1, 3), draw(st.booleans()), integer(0, kernel // 2)
        if kind == "max":
            return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil, dilation=integer(1, 2))
        return nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()))
    if kind == "residual":
        return Residual(draw(st.sampled_from([1, 3, 5])), integer(1, 2))
    if kind == "cat":
        return Concatenation(integer(1, 2))
    if kind == "pad":
        return nn.ZeroPad2d((integer(0, 2), integer(0, 2), integer(0, 2), integer(0, 2)))
    return {
        "gate": Gate, "shuffle": Shuffle, "last": LayerNormLast, "mask": Mask, "norms": Norms, "flip": Reversing,
    }[kind]()  # fmt: skip


class Drawn(nn.Module):
    """A stem, some blocks, a head."""

    def __init__(self, body: list[nn.Module], head: str, size: tuple[int, int]) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Sequential(*body), head
        with torch.no_grad():
            features = self.features(torch.zeros(1, 3, *size)).shape[1]
        self.answer = nn.Linear(features, 5)

    def features(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        if self.head == "flatten":
            return torch.flatten(x, 1)
        if self.head == "mean":
            return x.mean((2, 3))
        return F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.features(x))


@st.composite
def networks(draw: Any, size: tuple[int, int]) -> nn.Module:
    """A network in float64 with random weights and norms, or one that does not fit: raises as torch does."""
    body = draw(st.lists(blocks(), min_size=1, max_size=5))
    network = Drawn(body, draw(st.sampled_from(["flatten", "mean", "pool"])), size).double().eval()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.is_floating_point():
                spread = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(spread * 0.8 + 0.2 if tensor.ndim == 1 else spread - 0.5)
    return network.requires_grad_(False)
