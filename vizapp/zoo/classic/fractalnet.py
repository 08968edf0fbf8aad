"""FractalNet: Larsson et al., "FractalNet: Ultra-Deep Neural Networks without Residuals", 2016, section 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vizapp.zoo.classic.initial import draw_weights


class Column(nn.Sequential):
    """Convolution, dropout, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Dropout(dropout),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class FractalBlock(nn.Module):
    """Columns of 1, 2, 4 … convolutions in parallel, joined by their mean at the end of each shorter one.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        columns: Number of columns.
        dropout: Dropout in each convolution.
        drop: Probability of local drop-path: in training each input of a join is dropped, but never all of them.
    """

    def __init__(self, inputs: int, outputs: int, columns: int = 3, dropout: float = 0.0, drop: float = 0.15) -> None:
        super().__init__()
        self.rows, self.drop = 2 ** (columns - 1), drop
        self.columns = nn.ModuleList()
        self.counts = [2**column for column in range(columns)]  # convolutions of each column
        for count in self.counts:  # the first column is the shortest: one convolution for all rows
            self.columns.append(
                nn.ModuleList(Column(inputs if number == 0 else outputs, outputs, dropout) for number in range(count))
            )

    def forward(self, x: Tensor) -> Tensor:
        """`[N outputs h w]` of `[N inputs h w]`."""
        below = [x] * len(self.columns)
        for row in range(1, self.rows + 1):
            ending = []
            for number, column in enumerate(self.columns):
                step = self.rows // self.counts[number]  # rows per convolution of this column
                if row % step == 0:
                    below[number] = column.get_submodule(str(row // step - 1))(below[number])
                    ending.append(number)
            joined = self._join([below[number] for number in ending])
            for number in ending:
                below[number] = joined
        return below[-1]

    def _join(self, branches: list[Tensor]) -> Tensor:
        if self.training and len(branches) > 1:
            kept = [branch for branch in branches if torch.rand(()) >= self.drop]
            branches = kept or [branches[int(torch.randint(len(branches), ()))]]
        total = branches[0]
        for branch in branches[1:]:
            total = total + branch
        return total / len(branches) if len(branches) > 1 else total


class FractalNet(nn.Module):
    """A fractal block per entry of `maps`, each followed by a 2x2 max pool: 5 · 2^(columns-1) layers and a linear layer."""

    def __init__(self, classes: int = 10, maps: Sequence[int] = (64, 128, 256, 512, 512), columns: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        inputs = 3
        for number, outputs in enumerate(maps):
            self.blocks.append(FractalBlock(inputs, outputs, columns, dropout=0.1 * number))
            inputs = outputs
        self.pool = nn.MaxPool2d(2, 2)
        self.linear = nn.Linear(inputs, classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 32 32]`."""
        for block in self.blocks:
            x = self.pool(block(x))
        return self.linear(x.mean((2, 3)))  # at 32 px the map has one cell
