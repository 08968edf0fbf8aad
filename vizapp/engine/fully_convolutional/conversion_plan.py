"""The conversion plan: which operations of a classifier change so that it runs fully convolutionally."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vizapp.engine.receptive_field.interval import ReceptiveField
from vizapp.engine.trace.outputs import Head
from vizapp.errors import VizError


@dataclass(frozen=True)
class Pool:
    """Mean, sum or maximum over the whole map, whose size at training was `window`: becomes a sliding window."""

    window: tuple[int, int]
    axes: tuple[int, int]
    kind: Literal["mean", "sum", "max"]
    keeps: bool  # whether rows and columns remain axes


@dataclass(frozen=True)
class IdentityPool:
    """An adaptive pool that is the identity at the training size."""


@dataclass(frozen=True)
class Pad:
    """Padding, fixed to its amounts at training: padding that depends on the input size would move the cells."""

    sides: tuple[int, ...]


@dataclass(frozen=True)
class Unfold:
    """The end of the map: each position of `window` becomes a cell. `shape` is the result at training.

    Of cells that the class scores do not depend on (those of an auxiliary classifier), only the first is computed.
    """

    window: tuple[int, int]
    axes: tuple[int, int]
    shape: tuple[int, ...]
    unused: bool = False


@dataclass(frozen=True)
class PerPositionOp:
    """An operation on cells. `shape` is its result at training, where there was one cell."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class BroadcastGate:
    """A gate applied to the map from which it was computed. `axes`: rows and columns in the result."""

    axes: tuple[int, int]


@dataclass(frozen=True)
class Strided:
    """A strided operation that may run at all offsets, because no later operation pads."""

    stride: int
    step: int  # input pixels between cells of the result


Change = Pool | IdentityPool | Pad | Unfold | PerPositionOp | BroadcastGate | Strided


@dataclass(frozen=True)
class ConversionPlan:
    """The operations to change in a pass over larger input."""

    changes: dict[int, Change]  # by number of the operation
    constants: dict[int, dict[int | str, Any]]  # arguments of pointwise operations that do not depend on the image
    operations: list[str]  # the names of all operations, to detect a pass that takes another path
    field: ReceptiveField  # of cell (0, 0) of the result, unclipped; its step is the native stride
    size: tuple[int, int]  # height and width of the training input
    classes: int
    gates: int  # number of gates
    padded: bool  # whether any operation pads
    pixel_bytes: float  # peak memory of a pass per input pixel
    cell_bytes: int  # peak memory of the head per cell, without those that are unused
    head: Head  # the class scores among the tensors that the network returns

    @property
    def stride(self) -> tuple[int, int]:
        """Input pixels between neighbouring cells, down and across."""
        return self.field.rows.regular()[2], self.field.columns.regular()[2]

    def shared(self, factor: int) -> int:
        """The largest divisor of `factor` by which one pass can refine the map."""
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
    """The error for a network that cannot be converted: operation `name` does `why`."""
    return VizError(f"This network cannot be made convolutional: at {name!r} it {why}.", code="not-convolutional")
