"""Where the cells of the input lie in every activation of a pass: maps, channels-last maps, tokens with special tokens.

Every activation has a companion of the same shape that holds, for each number, the row and column of the map that it came
from. Operations that only move numbers (reshape, permute, slice, roll, concatenate) move the companion in the same way.
Convolutions and pools start a new map. So the layout is read off the pass and not guessed from the sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import argument, pair, tensors_in
from vizapp.engine.operations import SHAPE_ONLY
from vizapp.engine.receptive_field.field import ReceptiveFieldTrace
from vizapp.engine.receptive_field.interval import Interval
from vizapp.engine.receptive_field.moves import MOVES
from vizapp.engine.tap import operation_name
from vizapp.engine.trace.constant_tokens import ConstantTokens

Layout = Literal["chw", "hwc", "tokens", "tokens-last", "vector"]
CHANNEL_AXIS: dict[Layout, int] = {"chw": 1, "hwc": 3, "tokens": 2, "tokens-last": 1, "vector": 1}
_ROW = (
    2**16
)  # a cell is row · _ROW + column; a number that belongs to no cell (a class token, padding) has a negative one


@dataclass(frozen=True)
class Arrangement:
    """How an activation of one picture is laid out.

    `grid` is the map's height and width. Of tokens, `prefix` and `suffix` more stand before and after the grid (class,
    distillation and register tokens), called `special`. `located` says whether the cells lie in the order in which they lie in
    the picture.
    """

    layout: Layout
    grid: tuple[int, int]
    prefix: int = 0
    suffix: int = 0
    located: bool = True
    special: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class CellIndex:
    """The cell of each number of an activation; `located` is False if the map has been displaced on the way."""

    index: Tensor
    located: bool = True

    @cached_property
    def arrangement(self) -> Arrangement | None:
        """The layout, or None if the numbers are not a map (regrouped heads, or windows)."""
        return {3: self._tokens, 4: self._map}.get(self.index.ndim, lambda: None)()

    def is_channel(self, axis: int) -> bool:
        """Whether the numbers along an axis belong to one cell (or, after a patch embedding by reshaping, to one patch)."""
        if _is_constant(self.index, axis):
            return True
        return self.arrangement is not None and axis == CHANNEL_AXIS[self.arrangement.layout]

    def _map(self) -> Arrangement | None:
        maps: list[tuple[Layout, Tensor]] = [("chw", self.index[0, 0]), ("hwc", self.index[0, :, :, 0])]
        for layout, cells in maps:
            inner = _without_frame(cells.numpy())
            if _distinct(inner):
                located = self.located and _in_order(inner) and max(_shift(cells.numpy())) <= 1
                return Arrangement(layout, (cells.shape[0], cells.shape[1]), located=located)
        return None

    def next_map(self, shape: tuple[int, ...]) -> CellIndex | None:
        """The cells of a map of that shape which a convolution or a pool computes from this one; None if this is no map.

        Padding on one side displaces the map; a coarser map, by a smaller part of a cell.
        """
        if (before := self.arrangement) is None:
            return None
        axes = (2, 3) if before.layout == "chw" else (1, 2)
        cells = self.index[0, 0] if before.layout == "chw" else self.index[0, :, :, 0]
        grid = cells.numpy()
        shifts = [shift * shape[axis] / size for shift, axis, size in zip(_shift(grid), axes, grid.shape, strict=True)]
        located = self.located and _in_order(_without_frame(grid)) and max(shifts) <= 1
        return CellIndex(_new_map(shape, axes), located)

    def _tokens(self) -> Arrangement | None:
        layouts: list[tuple[Layout, int]] = [("tokens", 1), ("tokens-last", 2)]
        for layout, axis in layouts:
            cells = self.index.select(3 - axis, 0)[0].numpy()
            (places,) = np.nonzero(cells >= 0)
            if len(places) == 0:
                continue
            prefix, end = int(places[0]), int(places[-1]) + 1
            inner = cells[prefix:end]
            if not _distinct(inner):
                continue
            columns = int((inner // _ROW == inner[0] // _ROW).sum())
            grid = inner.reshape(-1, columns) if len(inner) % columns == 0 else inner[None]
            located = self.located and _in_order(grid)
            height, width = grid.shape if located else (1, len(inner))
            if 1 in (height, width) and not _is_constant(self.index, 3 - axis):
                continue  # a map without channels
            return Arrangement(layout, (height, width), prefix, len(cells) - end, located)
        for layout, axis in layouts:  # a window with padding in it, or the same cell several times
            if _is_constant(self.index, 3 - axis) and not _is_constant(self.index, axis):
                return Arrangement(layout, (1, self.index.shape[axis]), located=False)
        return None

    def equals(self, other: CellIndex) -> bool:
        """Whether both say the same of numbers in the same places."""
        return self.located == other.located and torch.equal(self.index, other.index)

    def special(self, arrangement: Arrangement) -> tuple[int, ...]:
        """The numbers, all negative, of the tokens before and after the grid of such an arrangement."""
        if not arrangement.prefix + arrangement.suffix:
            return ()
        tokens = self.index.select(CHANNEL_AXIS[arrangement.layout], 0)[0].tolist()
        return (*tokens[: arrangement.prefix], *tokens[len(tokens) - arrangement.suffix :])


def _frame(cells: np.ndarray) -> list[tuple[int, int]]:
    """The first row and the end of the rows of `[h w]` that hold a cell of the picture; the same of the columns."""
    places = [np.flatnonzero((cells >= 0).any(1 - axis)) for axis in (0, 1)]
    return [(int(each[0]), int(each[-1]) + 1) if len(each) else (0, 0) for each in places]


def _without_frame(cells: np.ndarray) -> np.ndarray:
    """The cells `[h w]` without the rows and columns that pad them."""
    (top, bottom), (left, right) = _frame(cells)
    return cells[top:bottom, left:right]


def _shift(cells: np.ndarray) -> list[int]:
    """How many rows, and columns, more pad the cells `[h w]` on one side than on the other."""
    return [abs(first - (size - end)) for (first, end), size in zip(_frame(cells), cells.shape, strict=True)]


def _distinct(cells: np.ndarray) -> bool:
    several = all(size == 1 or stride for size, stride in zip(cells.shape, cells.strides, strict=True))
    return several and cells.size > 0 and bool((cells >= 0).all()) and len(np.unique(cells)) == cells.size


def _in_order(cells: np.ndarray) -> bool:
    """Whether rows and columns of a grid of cells `[h w]` ascend, each along its own axis."""
    rows, columns = cells // _ROW, cells % _ROW
    straight = (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
    return bool(straight and (np.diff(rows[:, 0]) > 0).all() and (np.diff(columns[0]) > 0).all())


def _ascends(seen: Interval) -> bool:
    """Whether the rows (or columns) of cells lie one after another in the picture; not if all see the same of it."""
    if len(seen.low) == 1:
        return True
    ends = np.stack([seen.low, seen.high])
    return bool(seen.step and seen.step > 0) or bool((np.diff(ends) >= 0).all() and (np.diff(ends).any(0)).all())


def _is_constant(index: Tensor, axis: int) -> bool:
    return index.stride(axis) == 0 or index.shape[axis] == 1 or bool((index == index.narrow(axis, 0, 1)).all())


def _joins_channels(cells: CellIndex, axis: int) -> bool:
    """Whether tensors that are joined along an axis give each cell more channels, not the map more cells."""
    found = cells.arrangement
    return cells.is_channel(axis) and (found is None or axis == CHANNEL_AXIS[found.layout])


def _new_map(shape: tuple[int, ...], axes: tuple[int, int]) -> Tensor:
    """The cells `shape` of a map whose rows and columns are those axes."""
    views = []
    for axis, scale in zip(axes, (_ROW, 1), strict=True):
        view = [1] * len(shape)
        view[axis] = shape[axis]
        views.append(torch.arange(shape[axis], dtype=torch.int32).mul(scale).view(view))
    return (views[0] + views[1]).expand(shape)


def _padded(index: Tensor, sizes: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The cells `shape` after padding by a constant. Axes along which all numbers are of the same cell stay views."""
    for axis in range(index.ndim):
        if index.stride(axis) == 0 and index.shape[axis] == shape[axis]:
            index = index.narrow(axis, 0, 1)
    padded = nn.functional.pad(index, tuple(sizes), value=-1)
    fits = all(size in (1, wanted) for size, wanted in zip(padded.shape, shape, strict=True))
    return padded.expand(shape) if fits else None


def _windows(args: Any, kwargs: Any, index: Tensor, shape: tuple[int, ...], before: Arrangement) -> CellIndex:
    """The cells after `F.unfold`: one per window."""
    given = zip(("kernel_size", "dilation", "padding", "stride"), (1, 1, 0, 1), strict=True)
    sizes = [pair(argument(args, kwargs, place, *one)) for place, one in enumerate(given, 1)]
    rows, columns = (
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, dilation, padding, stride in zip(index.shape[2:], *sizes, strict=True)
    )
    grid = _new_map((rows, columns), (0, 1)).reshape(1, 1, -1)
    return CellIndex(grid.expand(1, shape[1], rows * columns), before.located)


class CellsTrace(ReceptiveFieldTrace):
    """Follows the cells of the input, and their receptive fields, through a pass."""

    def __init__(self, module: nn.Module, batch: Tensor) -> None:
        super().__init__(module, batch)
        self._cells = WeakTensorKeyDictionary()
        self._constants = ConstantTokens(module)
        self._cells[batch] = CellIndex(_new_map(tuple(batch.shape), (2, 3)))

    def cells(self, tensor: Tensor) -> CellIndex | None:
        """The cell of each number of a tensor made in this pass; None if they are lost, or do not depend on the picture."""
        return self._cells.get(tensor)

    def arrangement(self, tensor: Tensor) -> Arrangement | None:
        """How a tensor made in this pass is laid out; None if it is not a map or tokens of a map."""
        cells = self.cells(tensor)
        if cells is None or (found := cells.arrangement) is None:
            return None
        return replace(found, special=self._constants.names(cells.special(found)))

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation and follow the cells into its results."""
        given = [cells for tensor in tensors_in((args, kwargs)) if (cells := self._cells.get(tensor)) is not None]
        output, operation = super().operate(name, function, args, kwargs), operation_name(function)
        base = operation.rstrip("_")
        results = list(tensors_in(args[0] if base == "setitem" else output))
        if not given:
            self._constants.follow(operation, function, args, kwargs, output)
            self._found_again(results)
        if not given or operation in SHAPE_ONLY:
            return output
        if base in _MOVES:
            located = all(cells.located for cells in given)
            moved = self._moved(base, function, args, kwargs, results)
            found = [None if index is None else CellIndex(index, located) for index in moved]
        else:
            found = [self._computed(base, args, kwargs, given, result) for result in results]
        for result, cells in zip(results, found, strict=True):
            if cells is None or cells.index.shape != result.shape or not result.numel():
                self._cells.pop(result, None)
            else:
                self._cells[result] = cells
            if base == "copy" and cells is not None and result._base is not None:
                self._pad(result._base, result, cells)
        self._found_again(results)
        return output

    def _found_again(self, results: list[Tensor]) -> None:
        """Start a new map where the cells are lost, but see parts of the picture that lie one after another."""
        for result in results:
            if result.ndim != 4 or result in self._cells or (seen := self.of(result)) is None:
                continue
            seen = seen.on_map()
            axes = (seen.rows.axis, seen.columns.axis)
            if axes in ((2, 3), (1, 2)) and _ascends(seen.rows) and _ascends(seen.columns):
                self._cells[result] = CellIndex(_new_map(tuple(result.shape), (axes[1] - 1, axes[1])))

    def _pad(self, whole: Tensor, view: Tensor, cells: CellIndex) -> None:
        """A map `[C h w]` that was written into an empty batch `[N C H W]` is padded, as `F.pad` does it."""
        if whole in self._cells or (whole.ndim, cells.index.ndim) != (4, 3) or whole.stride()[1:] != view.stride():
            return
        grid = cells.index[0].numpy()
        if _distinct(grid) and _in_order(grid):
            self._cells[whole] = CellIndex(_new_map(tuple(whole.shape), (2, 3)), cells.located)

    def _index(self, value: Any) -> Any:
        """Arguments with the cells of each tensor in its place."""
        if isinstance(value, Tensor):
            cells: CellIndex | None = self._cells.get(value)
            return value.detach().cpu() if cells is None else cells.index
        if type(value) in (tuple, list):
            return type(value)(self._index(item) for item in value)
        return {key: self._index(item) for key, item in value.items()} if isinstance(value, dict) else value

    def _moved(
        self, base: str, function: Callable[..., Any], args: Any, kwargs: Any, results: list[Tensor]
    ) -> list[Tensor | None]:
        """The cells after an operation that only moves numbers."""
        if base in _RESHAPES:
            return [self._cells[args[0]].index.reshape(results[0].shape)] if args and args[0] in self._cells else [None]
        if base == "setitem":
            whole = self._cells.get(args[0])
            index = torch.full(results[0].shape, -1, dtype=torch.int32) if whole is None else whole.index
            masks = [
                one for one in tensors_in(args[1]) if one.dtype == torch.bool
            ]  # what they choose stays where it is
            if isinstance(args[2], Tensor) and (args[2] in self._cells or not masks):
                index = index.clone()
                function(index, self._index(args[1]), self._part(args[2]))
            return [index]
        arguments, options = self._index(args), self._index(kwargs)
        if function.__name__.endswith("_") and not function.__name__.startswith("__"):
            arguments = (arguments[0].clone(), *arguments[1:])
        try:
            moved = list(tensors_in(function(*arguments, **options)))
        except (RuntimeError, TypeError, IndexError):  # an argument that integers do not have
            moved = []
        return [*moved] if len(moved) == len(results) else [None] * len(results)

    def _computed(self, base: str, args: Any, kwargs: Any, given: list[CellIndex], result: Tensor) -> CellIndex | None:
        """The cells of a result that was computed; None if they are lost."""
        shape, located = tuple(result.shape), all(cells.located for cells in given)
        if base == "pad" and argument(args, kwargs, 2, "mode", "constant") == "constant":
            padded = _padded(given[0].index, argument(args, kwargs, 1, "pad", ()), shape)
            if padded is not None:
                return CellIndex(padded, located)
        if base in _JOINS:
            return CellIndex(self._joined(base, args, kwargs, shape), located)
        if base in _PRODUCTS:
            return self._product(base, args, kwargs, shape)
        same = next((cells for cells in given if tuple(cells.index.shape) == shape), None)
        if same is not None:
            return same
        for cells in given:
            index, before = cells.index, cells.arrangement
            if base == "unfold" and (len(shape), index.ndim) == (3, 4) and before is not None:
                return _windows(args, kwargs, index, shape, before)
            if index.ndim == len(shape) == 4 and before is not None:  # a convolution, a pool, an upsampling …
                return cells.next_map(shape)
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if (
                len(shape) < index.ndim
                and base in _REDUCTIONS
                and dim is not None
                and not isinstance(dim, (bool, Tensor))
            ):
                gone = dim if isinstance(dim, (tuple, list)) else (dim,)
                if all(_is_constant(index, axis) for axis in gone):
                    return CellIndex(index.amax(gone), located)
            elif index.ndim == len(shape):  # the channels changed
                for axis, size in enumerate(shape):
                    if size != index.shape[axis] and cells.is_channel(axis):
                        index = index.narrow(axis, 0, 1).expand(*index.shape[:axis], size, *index.shape[axis + 1 :])
                if tuple(index.shape) == shape:
                    return CellIndex(index, located)
        return None

    def _joined(self, base: str, args: Any, kwargs: Any, shape: tuple[int, ...]) -> Tensor:
        tensors = list(argument(args, kwargs, 0, "tensors", ()))
        dim = argument(args, kwargs, 1, "dim", 0) % len(shape)
        known = [cells for tensor in tensors if (cells := self._cells.get(tensor)) is not None]
        if base == "stack":
            known = [CellIndex(cells.index.unsqueeze(dim), cells.located) for cells in known]
        first = known[0].index.narrow(dim, 0, 1)
        among_special = len(known) < len(tensors) and all(bool((cells.index < 0).all()) for cells in known)
        if not among_special and all(
            _joins_channels(cells, dim) and torch.equal(cells.index.narrow(dim, 0, 1), first) for cells in known
        ):
            return first.expand(shape)
        parts = [self._part(tensor) for tensor in tensors]
        return torch.stack(parts, dim) if base == "stack" else torch.cat(parts, dim)

    def _part(self, tensor: Tensor) -> Tensor:
        """The cells of a tensor that is put beside or into others, of the picture or not."""
        cells = self.cells(tensor)
        return self._constants.index(tensor) if cells is None else cells.index

    def _product(self, base: str, args: Any, kwargs: Any, shape: tuple[int, ...]) -> CellIndex | None:
        """A matrix product keeps the rows of its first factor and the columns of its second; attention, those of its query."""
        first, second = {"addmm": (1, 2), "baddbmm": (1, 2)}.get(base, (0, 1))
        factors = [argument(args, kwargs, first, "query" if "attention" in base else "input", None)]
        if base in {"matmul", "bmm", "mm", "addmm", "baddbmm"}:
            factors.append(argument(args, kwargs, second, "other", None))
        for factor, axis in zip(factors, (-1, -2), strict=False):
            cells = self._cells.get(factor) if isinstance(factor, Tensor) else None
            if cells is None or cells.index.ndim != len(shape) or not cells.is_channel(axis % len(shape)):
                continue
            index = cells.index.narrow(axis, 0, 1)
            if all(a in (1, b) for a, b in zip(index.shape, shape, strict=True)):
                return CellIndex(index.expand(shape), cells.located)
        return None


_RESHAPES = frozenset({
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel", "view_as", "reshape_as",
})  # fmt: skip
_COMPUTED = frozenset({  # these make new cells, or join several
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "row_stack", "column_stack", "pad", "unfold",
    "pixel_shuffle", "pixel_unshuffle", "as_strided", "tril", "triu", "broadcast_tensors",
})  # fmt: skip
_MOVES = (MOVES - _COMPUTED) | {"swapaxes", "swapdims", "moveaxis", "getattr"}
_JOINS = frozenset({"cat", "concat", "concatenate", "stack"})
_PRODUCTS = frozenset({
    "linear", "matmul", "bmm", "mm", "addmm", "baddbmm", "scaled_dot_product_attention", "multi_head_attention_forward",
})  # fmt: skip
_REDUCTIONS = frozenset({"mean", "sum", "amax", "amin", "norm", "std", "var", "logsumexp"})
