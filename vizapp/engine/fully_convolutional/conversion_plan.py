"""What has to be changed in a classifier's pass so that it becomes a convolution of itself, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vizapp.engine.receptive_field.interval import ReceptiveField
from vizapp.errors import VizError


@dataclass(frozen=True)
class Pool:
    """Mean, sum or maximum over the whole map, `window` at training: the same over each place of the window."""

    window: tuple[int, int]
    axes: tuple[int, int]
    kind: Literal["mean", "sum", "max"]
    keeps: bool  # whether rows and columns stay as axes


@dataclass(frozen=True)
class IdentityPool:
    """An adaptive pool that changed nothing at the training size."""


@dataclass(frozen=True)
class Pad:
    """Padding by so much at training. Some networks pad by what the size asks for, which would move the cells."""

    sides: tuple[int, ...]


@dataclass(frozen=True)
class Unfold:
    """The end of the map: each place of `window` becomes a cell, then the operation runs; `shape` is its training result."""

    window: tuple[int, int]
    axes: tuple[int, int]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PerPositionOp:
    """An operation on cells; `shape` is its result in training, where there was one cell."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class BroadcastGate:
    """A gate meets the map it was made from. `axes`: rows and columns in the result."""

    axes: tuple[int, int]


@dataclass(frozen=True)
class Strided:
    """An operation with a stride that may be run at all its offsets, because nothing above it pads."""

    stride: int
    step: int  # input pixels between cells of the result


Change = Pool | IdentityPool | Pad | Unfold | PerPositionOp | BroadcastGate | Strided


@dataclass(frozen=True)
class ConversionPlan:
    """What has to be changed in a pass over larger input.

    `changes`: by number of the operation; `operations`: the names of all, to notice a pass that takes another way.
    `field`: what cell (0, 0) of the result sees, unclipped; its step is the native stride. `size`: height and width of
    the training input. `gates`: how many gates there are, `padded`: whether anything pads, `pixel_bytes` and
    `cell_bytes`: memory that a pass takes at its widest per input pixel, and the head per cell.
    """

    changes: dict[int, Change]
    operations: list[str]
    field: ReceptiveField
    size: tuple[int, int]
    classes: int
    gates: int
    padded: bool
    pixel_bytes: float
    cell_bytes: int
    output: int  # which of the tensors that the network returns

    @property
    def stride(self) -> tuple[int, int]:
        """Input pixels between neighbouring cells, down and across."""
        rows, columns = self.field.rows.step, self.field.columns.step
        assert rows, "a plan is made of regular fields only"
        assert columns
        return rows, columns

    def shared(self, factor: int) -> int:
        """The largest part of `factor` by which the map can be made finer inside of one pass."""
        steps = [(c.step // c.stride, c.step) for c in self.changes.values() if isinstance(c, Strided)]
        native = self.stride[0]
        fits = [
            part
            for part in range(1, factor + 1)
            if factor % part == 0
            and native % part == 0
            and any(below == native // part for below, _ in steps)
            and all(below >= native // part or above <= native // part for below, above in steps)
        ]
        return max(fits, default=1)


def refuse(name: str, why: str) -> VizError:
    """The sentence for a network that cannot be made convolutional."""
    return VizError(f"This network cannot be made convolutional: at {name!r} it {why}.", code="not-convolutional")
