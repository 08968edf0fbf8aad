"""LeNet-5 as published: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, section II.B."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The maps of S2 that each map of C3 reads (Table I): all runs of three, all runs of four (cyclic), three sets of four with
# gaps, all six.
C3_TABLE = (
    *(tuple(sorted((first + step) % 6 for step in range(3))) for first in range(6)),
    *(tuple(sorted((first + step) % 6 for step in range(4))) for first in range(6)),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# Stylised digits, 7 x 12 pixels each: the targets of the output units.
_DIGITS = """\
.#####. ...#... .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
##...## ..##... ##...## ##...## ...###. ##..... .##.... .....## ##...## ##...##
##...## .###... .....## .....## ..####. ##..... ##..... ....##. ##...## ##...##
##...## ...#... .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##
##...## ...#... ....##. ..####. ##..##. ######. ######. ...##.. .#####. ##...##
##...## ...#... ...##.. .....## ##..##. .....## ##...## ...##.. ##...## .######
##...## ...#... ..##... .....## ####### .....## ##...## ..##... ##...## .....##
##...## ...#... .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... .....## ....##. .....## ##...## .##.... ##...## .....##
##...## ...#... ##..... ##...## ....##. ##...## ##...## .##.... ##...## ....##.
.#####. .#####. ####### .#####. ....##. .#####. .#####. .##.... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


def prototypes(classes: int) -> Tensor:
    """The codes of the classes, `[classes 84]` of +1 (ink) and -1: digits for ten classes, else random (seed 0)."""
    if classes == 10:
        rows = [line.split() for line in _DIGITS.splitlines()]
        return torch.tensor([[1.0 if c == "#" else -1.0 for row in rows for c in row[digit]] for digit in range(10)])
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (classes, 84), generator=generator, device="cpu").to(torch.float32) * 2 - 1


class ScaledTanh(nn.Module):
    """A tanh(S x) with A = 1.7159 and S = 2/3, which maps 1 to 1 and -1 to -1."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.tanh(x * (2 / 3)) * 1.7159


class Subsampling(nn.Module):
    """The mean of each 2x2 square, times a trained coefficient, plus a trained bias; one of each per map.

    The paper sums the four inputs; its coefficient is a quarter of the one here.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.ones(maps))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: Tensor) -> Tensor:
        """`[N maps h/2 w/2]` of `[N maps h w]`."""
        return F.avg_pool2d(x, 2) * self.coefficient[:, None, None] + self.bias[:, None, None]


class PartialConvolution(nn.Module):
    """A 5x5 convolution in which output map i reads only the input maps `table[i]`; other kernels do not exist."""

    def __init__(self, inputs: int, table: tuple[tuple[int, ...], ...], kernel: int = 5) -> None:
        super().__init__()
        pairs = [(output, taken) for output, maps in enumerate(table) for taken in maps]
        self.shape = (len(table), inputs, kernel, kernel)
        self.outputs, self.taken = [o for o, _ in pairs], [t for _, t in pairs]
        fan_in = max(map(len, table)) * kernel * kernel
        self.kernels = nn.Parameter(torch.empty(len(pairs), kernel, kernel).uniform_(-2.4 / fan_in, 2.4 / fan_in))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: Tensor) -> Tensor:
        """`[N maps h-4 w-4]` of `[N inputs h w]`."""
        weight = self.kernels.new_zeros(self.shape)
        weight[self.outputs, self.taken] = self.kernels
        return F.conv2d(x, weight, self.bias)


class RadialBasis(nn.Module):
    """Minus the squared distance to the code of each class, so that the largest score is the predicted class.

    The paper's outputs are the distances; the softmax of these scores is its posterior (equation 9 without the constant).
    The codes are fixed, as in the first phase of the paper's training.
    """

    codes: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", prototypes(classes))

    def forward(self, x: Tensor) -> Tensor:
        """`[N classes]` of `[N 84]`."""
        product = F.linear(x, 2 * self.codes)  # -|x - w|² = 2 x·w - |x|² - |w|²
        return product - x.square().sum(1, keepdim=True) - self.codes.square().sum(1)


class LeNet51998(nn.Module):
    """C1, S2, C3, S4, C5, F6 and the radial basis units for 32 x 32 pictures: 60,000 trained numbers."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.c1, self.squash1 = nn.Conv2d(1, 6, 5), ScaledTanh()
        self.s2, self.squash2 = Subsampling(6), ScaledTanh()
        self.c3, self.squash3 = PartialConvolution(6, C3_TABLE), ScaledTanh()
        self.s4, self.squash4 = Subsampling(16), ScaledTanh()
        self.c5, self.squash5 = nn.Conv2d(16, 120, 5), ScaledTanh()
        self.f6, self.squash6 = nn.Linear(120, 84), ScaledTanh()
        self.output = RadialBasis(classes)
        for layer, fan_in in ((self.c1, 25), (self.c5, 400), (self.f6, 120)):
            nn.init.uniform_(layer.weight, -2.4 / fan_in, 2.4 / fan_in)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[N classes]` of pictures `[N 1 32 32]`."""
        x = self.squash1(self.c1(x))  # [N 6 28 28]
        x = self.squash2(self.s2(x))  # [N 6 14 14]
        x = self.squash3(self.c3(x))  # [N 16 10 10]
        x = self.squash4(self.s4(x))  # [N 16 5 5]
        x = self.squash5(self.c5(x))  # [N 120 1 1]
        x = self.squash6(self.f6(torch.flatten(x, 1)))
        return self.output(x)
