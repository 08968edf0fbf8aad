"""Convolutions with 3 x 3 weights and a quarter of the multiplications, on a CPU.

Winograd's F(4 x 4, 3 x 3) as in Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4: a tile of
4 x 4 outputs comes from 36 products per pair of channels, where the definition takes 144. What is multiplied are polynomials at
five points and infinity, so sums are made before and after. With the points of the paper (0, 1, -1, 2, -2), rounding is off by
four times as much as with those here, which were chosen by trial (Barabasz et al. 2020); these round about as well as the
definition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

A, B = 5 / 8, 3 / 2  # the points are 0, A, -A, B and -B; in float32 both are exact, and so are their squares
_TILES = 256  # at once: many, because weights are read for each such group; few, so that sums stay in caches
_NARROW, _WIDE = 64, 128  # fewest channels on the narrower and on the wider side: sums must be few beside products
_SAVED = 2.5  # times fewer products, at least; 4 where tiles fit the map
_Limits = tuple[float | None, float | None]


def pays(weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int, made: Sequence[int]) -> bool:
    """Whether a convolution may be computed so and is faster, by shapes.

    Nothing is measured, so that the same call always gives the same bytes.

    Args:
        weight: Its weights.
        stride: Its strides along rows and columns.
        dilation: Its dilations along rows and columns.
        groups: Its number of groups.
        made: The shape of its result, `[N K h w]`.
    """
    saved = 4 * math.prod(made[2:]) / (16 * math.prod(-(-length // 4) for length in made[2:]))
    narrow, wide = sorted(weight.shape[:2])
    plain = [*stride, *dilation, groups] == [1] * 5 and tuple(weight.shape[2:]) == (3, 3)
    return plain and narrow >= _NARROW and wide >= _WIDE and saved >= _SAVED


class WinogradConvolution:
    """A convolution of stride 1 with weights `[K C 3 3]`, which are transformed once, to four times their size."""

    def __init__(self, weight: Tensor) -> None:
        points = torch.tensor([0, A, -A, B, -B], dtype=torch.float64)
        factors = [1 / math.prod(float(p - q) for q in points if q != p) for p in points]
        scale = torch.tensor(factors, dtype=torch.float64) * torch.tensor([1, A, A, B, B])  # as `_gather` divides
        powers = torch.stack([points**power for power in range(3)], 1) * scale[:, None]
        matrix = torch.cat([powers, torch.tensor([[0.0, 0.0, 1.0]])])  # the last is infinity
        outputs, channels = weight.shape[:2]
        by_cell = weight.detach().permute(2, 3, 1, 0).reshape(9, -1)
        self._weight = (torch.kron(matrix, matrix).to(weight.dtype) @ by_cell).view(36, channels, outputs)

    def __call__(
        self, x: Tensor, bias: Tensor | None, padding: tuple[int, int], added: Tensor | None, limits: _Limits
    ) -> Tensor:
        """The convolution, `[N K h w]` with channels last.

        Args:
            x: What is convolved, `[N C h w]`, in any layout.
            bias: A number for each channel of the result, `[K]`, or None.
            padding: Zeros on each side of rows and columns.
            added: What is added to the result, `[N K h w]`, or None.
            limits: The lowest and highest number of the sum; None for no limit.
        """
        (top, left), (channels, outputs) = padding, self._weight.shape[1:]
        maps, (height, width) = x.permute(0, 2, 3, 1), (x.shape[2] + 2 * top - 2, x.shape[3] + 2 * left - 2)
        found = x.new_empty(len(x), height, width, outputs)
        rows, columns = -(-height // 4), -(-width // 4)  # of tiles
        pictures = min(len(x), max(1, _TILES // (rows * columns)))  # at once
        some = min(rows, max(1, _TILES // (pictures * columns)))  # rows of tiles at once
        memory = x.new_empty(2, 36 * pictures * some * (columns + 1) * max(channels, outputs))
        for first in range(0, len(x), pictures):
            for row in range(0, rows, some):
                start, end = 4 * row - top, 4 * min(row + some, rows) + 2 - top
                inside = maps[first : first + pictures, max(start, 0) : max(end, 0)]
                above, right = min(max(-start, 0), end - start), 4 * columns + 4 - left - maps.shape[2]
                below = end - start - above - inside.shape[1]
                sums = self._sums(F.pad(inside, (0, 0, left, right, above, below)), memory)
                for i in range(4):
                    for j in range(4):
                        cells = (
                            slice(first, first + pictures),
                            slice(4 * row + i, 4 * (row + some), 4),
                            slice(j, None, 4),
                        )
                        target = found[cells]
                        value = sums[i, j][:, : target.shape[1], : target.shape[2]]
                        if bias is None:
                            target.copy_(value)
                        else:
                            torch.add(value, bias, out=target)
                        if added is not None:
                            target += added.permute(0, 2, 3, 1)[cells]
                        if limits != (None, None):
                            target.clamp_(*limits)
        return found.permute(0, 3, 1, 2)

    def _sums(self, padded: Tensor, memory: Tensor) -> Tensor:
        """The outputs of tiles `[4 4 N rows columns K]` on maps `[N 4*rows+2 4*columns+4 C]`. `memory`: to work in."""
        n, height, width, channels = padded.shape
        rows, columns, outputs = height // 4, width // 4 - 1, self._weight.shape[2]
        tiles, (one, two) = n * rows * columns, memory

        def part(of: Tensor, *shape: int) -> Tensor:
            return of[: math.prod(shape)].view(shape)

        down = part(two, 6, n, rows, columns + 1, 4, channels)
        _spread([padded[:, i : i + 4 * rows - 3 : 4].unflatten(2, (-1, 4)) for i in range(6)], down.unbind())
        points = part(one, 6, 6, n, rows, columns, channels)
        _spread([down[:, :, :, j // 4 : j // 4 + columns, j % 4] for j in range(6)], points.unbind(1))
        products = part(two, 36, tiles, outputs)
        torch.bmm(points.view(36, tiles, channels), self._weight, out=products)
        gathered, spare = part(one, 6, 6, tiles * outputs).split((4, 2))
        _gather(products.view(6, 6, -1).unbind(), gathered.unbind(), spare)
        sums, spare = part(two, 6, 4, tiles * outputs).split((4, 2))
        _gather(gathered.unbind(1), sums.unbind(1), spare)
        return sums.view(4, 4, n, rows, columns, outputs)


def _spread(given: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Six sums of six neighbours, one for each point."""
    d0, d1, d2, d3, d4, d5 = given
    s0, s1, s2, s3, s4, s5 = into
    for point, other, plus, minus in ((A, B, s1, s2), (B, A, s3, s4)):
        even = torch.add(d4, d2, alpha=-(other**2), out=s0)
        odd = torch.add(d3, d1, alpha=-(other**2), out=s5)
        torch.add(even, odd, alpha=point, out=plus)
        torch.add(even, odd, alpha=-point, out=minus)
    s0.add_(d2, alpha=-(B**2)).add_(d0, alpha=(A * B) ** 2)  # from d4 - A² d2
    torch.add(d5, s5, alpha=-(B**2), out=s5).add_(d3, alpha=-(A**2))  # from d3 - A² d1


def _gather(given: Sequence[Tensor], into: Sequence[Tensor], memory: Tensor) -> None:
    """Four neighbouring outputs from products at six points."""
    p0, p1, p2, p3, p4, p5 = given
    y0, y1, y2, y3 = into
    a, b = torch.add(p1, p2, out=memory[0]), torch.add(p3, p4, out=memory[1])
    torch.add(p0, a, alpha=1 / A, out=y0).add_(b, alpha=1 / B)
    torch.mul(a, A, out=y2).add_(b, alpha=B)
    a, b = torch.sub(p1, p2, out=memory[0]), torch.sub(p3, p4, out=memory[1])
    torch.add(a, b, out=y1)
    torch.add(p5, a, alpha=A**2, out=y3).add_(b, alpha=B**2)
