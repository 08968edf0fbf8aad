"""How a classifier is turned into a convolution of itself: a plan, decided by what its own pass shows.

One pass at the training size is watched. As long as an activation has rows and columns that follow the input's at a
fixed step, its operations run on larger input as they are. Where the whole map is pooled or laid out in a row, the map
ends and each place at which the trained window fits becomes a cell (Long et al. 2015, section 3.1; Sermanet et al. 2013,
section 3.5). From there on the cells stand where pictures of a batch stood, so that the rest of the head, whatever it is, runs
on its own weights, unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import argument, pair, tensors_in
from vizapp.engine.fully_convolutional.conversion_plan import (
    BroadcastGate,
    Change,
    ConversionPlan,
    IdentityPool,
    Pad,
    PerPositionOp,
    Pool,
    Strided,
    Unfold,
    refuse,
)
from vizapp.engine.memory.peak import PeakMemory
from vizapp.engine.operations import SHAPE_ONLY, WEIGHTED
from vizapp.engine.receptive_field.field import ReceptiveFieldTrace
from vizapp.engine.receptive_field.interval import Interval, ReceptiveField
from vizapp.engine.tap import first_tensor, operation_name
from vizapp.errors import VizError

_ATTENTION = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
_PRODUCTS = frozenset({"matmul", "bmm", "einsum", "baddbmm"})
_WHOLE_MAP = frozenset({"group_norm", "instance_norm", "interpolate", "upsample"})
_CELLWISE = frozenset({"add", "sub", "mul", "truediv", "div", "maximum", "minimum", "where", "addcmul", "pow"})
_ROWS = frozenset({"flatten", "view", "reshape", "squeeze"})
_WINDOWED = frozenset({"conv2d", "max_pool2d", "avg_pool2d"})
_ORDINARY = 3  # a pool of at most that many cells over a map of its own size is taken for an ordinary pool


def plan_conversion(module: nn.Module, batch: Tensor) -> ConversionPlan:
    """The plan of a classifier, from one pass over `batch` `[1 C H W]` of the training size.

    Raises:
        VizError: it cannot be made convolutional; the sentence says why.
    """
    batch = batch.clone()
    with torch.no_grad(), _ConversionWatcher(module, batch) as watch:
        output = module(batch)
    return watch.plan(output)


@dataclass(frozen=True)
class _OperationRecord:
    """One operation of the watched pass: its inputs from the picture, their fields and sizes, its result."""

    name: str
    number: int
    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: list[Tensor]
    before: list[ReceptiveField]
    sizes: list[tuple[int, int] | None]
    result: Tensor


class _ConversionWatcher(ReceptiveFieldTrace):
    """Follows rows and columns through one pass and writes the plan."""

    def __init__(self, module: nn.Module, batch: Tensor) -> None:
        super().__init__(module, batch)
        self._changes: dict[int, Change] = {}
        self._operations: list[str] = []
        self._cells = WeakTensorKeyDictionary()  # what is past the end of the map -> the field of its one cell
        self._size = int(batch.shape[2]), int(batch.shape[3])
        self._strided: dict[int, Strided] = {}
        self._blocked = -1  # the last operation above which nothing may run at offsets
        self._padded = False
        self._gates = self._cell_bytes = 0
        self._memory = PeakMemory()
        self._input_bytes = 2 * batch.numel() * batch.element_size()  # as it is given, and a copy to write into

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number, operation = len(self._operations), operation_name(function)
        self._operations.append(operation)
        given = [t for t in tensors_in((args, kwargs)) if self.of(t) is not None or t in self._cells]
        if not given or operation in SHAPE_ONLY:
            return function(*args, **kwargs)
        operation = operation.rstrip("_")
        if operation in _ATTENTION or (operation in _PRODUCTS and len(given) > 1):
            raise refuse(name, "compares all positions with each other (attention)")
        if operation in WEIGHTED and any(argument(args, kwargs, 1, "weight", None) is tensor for tensor in given):
            raise refuse(name, "computes its weights from the whole picture, so that each place would need its own")
        before = [self._cells.get(t) or self.of(t) for t in given]
        sizes = [_extent(tensor, found) for tensor, found in zip(given, before, strict=True)]
        in_cells = [t in self._cells for t in given]
        output = super().operate(name, function, args, kwargs)
        result = first_tensor(output)
        if result is None or not result.is_floating_point():
            return output
        for made in tensors_in(output):
            self._memory.track(made)
        known = _OperationRecord(name, number, operation, args, kwargs, given, before, sizes, result)  # type: ignore[arg-type]
        if all(in_cells) or (any(in_cells) and operation in {"expand", "expand_as"}):
            self._on_cells(known, output)
        elif any(in_cells):
            self._broadcast_gate(known)
        else:
            self._on_map(known, output)
        return output

    # ------------------------------------------------------------------------------------------------ past the map

    def _on_cells(self, known: _OperationRecord, output: Any) -> None:
        cell = next(f for t, f in zip(known.given, known.before, strict=True) if t in self._cells)
        self._changes[known.number] = PerPositionOp(tuple(known.result.shape))
        size = sum(t.numel() * t.element_size() for t in (*known.given, known.result))
        self._cell_bytes = max(self._cell_bytes, size)
        self._mark_as_cells(output, cell)

    def _mark_as_cells(self, output: Any, cell: ReceptiveField) -> None:
        for made in tensors_in(output):
            self._cells[made] = cell

    # ------------------------------------------------------------------------------------------------- on the map

    def _on_map(self, known: _OperationRecord, output: Any) -> None:
        if known.operation in _WHOLE_MAP:
            raise refuse(known.name, "takes the whole map at once (a norm over all positions, or a fixed size)")
        pooled = _whole_map_pool(known)
        if pooled is not None:
            self._pool(known, pooled)
            return
        if known.operation == "pad":
            sides = tuple(argument(known.args, known.kwargs, 1, "pad", ()))
            self._changes[known.number] = Pad(sides)
            if not any(sides):
                self._fields[known.result] = known.before[0]
                return
        elif known.operation.startswith("adaptive") and known.sizes[0] == _extent(known.result, known.before[0]):
            self._changes[known.number] = IdentityPool()
            self._fields[known.result] = known.before[0]
            return
        if known.operation in _CELLWISE:
            self._check_constants(known)
            if len({size for size in known.sizes if size}) > 1:
                self._broadcast_gate(known)
                return
        found = self.of(known.result)
        if found is not None and _has_regular_grid(found) and not known.operation.startswith("adaptive"):
            self._note_window(known, found)
            return
        self._unfold_map(known, output)

    def _pool(self, known: _OperationRecord, pool: Pool) -> None:
        self._changes[known.number] = pool
        before = known.before[0]
        seen = ReceptiveField(_widen(before.rows, pool.window[0]), _widen(before.columns, pool.window[1]))
        if pool.keeps:
            self._fields[known.result] = seen
        else:
            self._cells[known.result] = seen

    def _unfold_map(self, known: _OperationRecord, output: Any) -> None:
        """Lays the trained window out in a row: the end of the map."""
        tensor, before, window = known.given[0], known.before[0], known.sizes[0]
        shape = tuple(known.result.shape)
        vector = shape[0] == tensor.shape[0] and sum(extent > 1 for extent in shape[1:]) <= 1
        adaptive = known.operation.startswith("adaptive")
        if window is None or len(known.given) > 1 or not (adaptive or (known.operation in _ROWS and vector)):
            size = f"{window[0]} × {window[1]} positions" if window else "positions"
            raise refuse(
                known.name,
                f"regroups or mixes all of its {size}, as attention over tokens or windows does, and takes no other number",
            )
        self._changes[known.number] = Unfold(window, _axes(before), shape)
        self._cell_bytes = max(self._cell_bytes, 2 * tensor.numel() * tensor.element_size())
        cell = ReceptiveField(_widen(before.rows, window[0]), _widen(before.columns, window[1]))
        self._mark_as_cells(output, cell)

    def _broadcast_gate(self, known: _OperationRecord) -> None:
        """A gate, pooled to one cell, meets its map."""
        maps = [i for i, tensor in enumerate(known.given) if tensor not in self._cells]
        large = max(maps, key=lambda i: math.prod(known.sizes[i] or (0,)))
        window = known.sizes[large]
        gates = [i for i in range(len(known.given)) if i not in maps or known.sizes[i] != window]
        single = all(known.sizes[i] in {(1, 1), None} for i in gates if i in maps)
        if known.operation not in _CELLWISE or window is None or not single or known.result.ndim != 4:
            raise refuse(known.name, "joins the map with a summary of the map in a way that is not a gate")
        rows, columns = known.before[large].rows, known.before[large].columns
        for i in gates:
            rows = _widen_by_gate(rows, known.before[i].rows, window[0] - 1)
            columns = _widen_by_gate(columns, known.before[i].columns, window[1] - 1)
        met = ReceptiveField(rows, columns)
        self._changes[known.number] = BroadcastGate(_axes(met))
        self._fields[known.result] = met
        self._cells.pop(known.result, None)
        self._gates += 1
        self._blocked = known.number

    def _check_constants(self, known: _OperationRecord) -> None:
        """A learned number for each position fixes the number of positions."""
        axes = known.before[0].rows.axis, known.before[0].columns.axis
        for constant in tensors_in((known.args, known.kwargs)):
            if any(constant is tensor for tensor in known.given):
                continue
            for axis in axes:
                from_right = None if axis is None else known.result.ndim - axis
                if from_right and constant.ndim >= from_right and constant.shape[-from_right] > 1:
                    raise refuse(known.name, "adds or multiplies a learned number for each position")

    def _note_window(self, known: _OperationRecord, found: ReceptiveField) -> None:
        """Padding and strides, for finer maps and for what is said about them."""
        padding: Any = 0
        if known.operation == "conv2d":
            padding = argument(known.args, known.kwargs, 4, "padding", 0)
        elif known.operation in _WINDOWED:
            padding = argument(known.args, known.kwargs, 3, "padding", 0)
        pads = padding not in (0, "valid", (0, 0), [0, 0]) or known.operation == "pad"
        self._padded = self._padded or pads
        before, after = _steps(known.before[0]), _steps(found)
        strided = after != before
        # Offsets are the same down and across, so rows and columns have to be passed over alike.
        oblong = before[0] != before[1] or after[0] != after[1]
        if pads or (strided and (oblong or known.operation not in _WINDOWED or _averages_over_edge(known))):
            self._blocked = known.number
        elif strided and before[0] and after[0]:
            self._strided[known.number] = Strided(after[0] // before[0], after[0])

    # ---------------------------------------------------------------------------------------------------- the plan

    def plan(self, output: Any) -> ConversionPlan:
        """The plan, when the pass is over and has given `output`."""
        for output_number, tensor in enumerate(tensors_in(output)):  # noqa: B007 - it is used after the loop
            answers = tensor.ndim in (2, 4) and tensor.shape[0] == 1 and math.prod(tensor.shape[2:]) == 1
            found = self._cells.get(tensor) or self.of(tensor)
            if answers and found is not None and _has_regular_grid(found):
                break
        else:
            raise VizError(
                "This network cannot be made convolutional: it gives no scores of classes but something else "
                "(a map, or boxes).",
                code="no-class-scores",
            )
        strided = {number: change for number, change in self._strided.items() if number > self._blocked}
        return ConversionPlan(
            changes=self._changes | strided,
            operations=self._operations,
            field=found,
            size=self._size,
            classes=int(tensor.shape[1]),
            gates=self._gates,
            padded=self._padded,
            pixel_bytes=(self._memory.peak + self._input_bytes) / math.prod(self._size),
            cell_bytes=self._cell_bytes,
            output=output_number,
        )


def _extent(tensor: Tensor, found: ReceptiveField | None) -> tuple[int, int] | None:
    """Rows and columns of a map, None of what has none. Taken before an in-place operation changes the tensor."""
    if found is None or found.rows.axis is None or found.columns.axis is None or tensor.ndim < 3:
        return None
    if max(found.rows.axis, found.columns.axis) >= tensor.ndim:
        return None  # the one cell of a vector
    return int(tensor.shape[found.rows.axis]), int(tensor.shape[found.columns.axis])


def _axes(found: ReceptiveField) -> tuple[int, int]:
    """The axes of rows and columns, of what has them."""
    rows, columns = found.rows.axis, found.columns.axis
    assert rows is not None
    assert columns is not None
    return rows, columns


def _has_regular_grid(found: ReceptiveField) -> bool:
    spans = (found.rows, found.columns)
    return all(span.axis is not None and span.step is not None and span.size is not None for span in spans)


def _steps(found: ReceptiveField) -> tuple[int | None, int | None]:
    """Input pixels between cells, down and across; None where they are not at a fixed distance."""
    return found.rows.step, found.columns.step


def _widen(span: Interval, window: int) -> Interval:
    """What one place of a window of cells sees; its neighbour is one step on."""
    assert span.start is not None
    assert span.size is not None
    assert span.step is not None
    return replace(
        span,
        low=span.low.min(keepdims=True),
        high=span.high.max(keepdims=True),
        size=span.size + (window - 1) * span.step,
    )


def _widen_by_gate(span: Interval, gate: Interval, reach: int) -> Interval:
    """The cells of a map after a gate: each also sees the window of `reach` + 1 cells around it, the gate's own.

    At the photo's edge that window is moved inside; what it reaches there the whole training window reaches anyway.
    """
    assert span.start is not None
    assert span.size is not None
    assert span.step is not None
    assert gate.start is not None
    assert gate.size is not None
    start = min(span.start, gate.start - reach // 2 * span.step)
    end = max(span.start + span.size, gate.start + gate.size - reach // 2 * span.step)
    return replace(span, start=start, size=end - start)


def _whole_map_pool(known: _OperationRecord) -> Pool | None:
    """The pool over the whole map that this operation is, if it is one."""
    window, before, operation = known.sizes[0], known.before[0], known.operation
    if window is None or len(known.given) > 1 or not _has_regular_grid(before):
        return None
    axes = _axes(before)
    if operation in {"adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d"}:
        if known.result.ndim != 4 or tuple(known.result.shape[2:]) != (1, 1):
            return None
        if not operation.startswith("adaptive"):
            kernel = pair(argument(known.args, known.kwargs, 1, "kernel_size", 1))
            if kernel != window or max(kernel) <= _ORDINARY:
                return None
        return Pool(window, axes, "mean" if "avg" in operation else "max", True)
    kinds: dict[str, Literal["mean", "sum", "max"]] = {"mean": "mean", "sum": "sum", "amax": "max"}
    if operation not in kinds or known.given[0].ndim != 4:
        return None
    dims = known.kwargs.get("dim", known.args[1] if len(known.args) > 1 else ())
    gone = {dim % 4 for dim in (dims if isinstance(dims, (tuple, list)) else (dims,))}
    return Pool(window, axes, kinds[operation], known.result.ndim == 4) if gone == set(axes) else None


def _averages_over_edge(known: _OperationRecord) -> bool:
    """Whether a strided operation cannot simply be run at offsets: a mean over a window that hangs over the edge."""
    ceil = argument(known.args, known.kwargs, 4, "ceil_mode", False)
    return known.operation == "avg_pool2d" and bool(ceil)
