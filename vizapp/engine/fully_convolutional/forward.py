"""Fully convolutional forward pass: one prediction for each position of the training window in a larger input.

The network runs its own `forward` with its own weights. Only the operations named in the plan are replaced, during the
pass and in this thread alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.fully_convolutional import conversion_plan as changes
from vizapp.engine.fully_convolutional.conversion_plan import ConversionPlan, refuse
from vizapp.engine.tap import Trace, first_tensor, qualified_name
from vizapp.errors import VizError

_MANY = 64  # from this many cells on, oneDNN is faster
_SHAPED = frozenset({"view", "reshape", "unflatten", "flatten", "squeeze"})


def dense_scores(module: nn.Module, plan: ConversionPlan, batch: Tensor, finer: int = 1) -> Tensor:
    """Class scores `[N classes h w]` at each position of the training window in `batch` `[N C H W]`.

    Neighbouring cells are `plan.stride / finer` pixels apart. With `finer` > 1 (a factor returned by `plan.shared`) the
    last strided layers run at all offsets (OverFeat's offset pooling, Sermanet et al. 2013, section 3.3), and the maps are
    interleaved. Cells whose window would extend beyond the lower or right edge are then invalid.

    Raises:
        VizError: The pass differs from the one at the training size.
    """
    batch = batch.clone()
    pictures = len(batch)
    twin = _FullyConvolutionalForward(module, plan, pictures, finer)
    try:
        with torch.no_grad(), twin:
            output = module(batch)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error).lower():
            raise
        raise VizError(
            f"This network cannot be made convolutional: its layers do not work on an input of {batch.shape[3]} × "
            f"{batch.shape[2]} pixels ({str(error).splitlines()[0]}).",
            code="not-convolutional",
        ) from error
    tensor = plan.head.pick(output)
    assert tensor is not None, "the pass takes the same path as the plan's"
    cells, (h, w) = twin.as_cells(tensor)
    cells = plan.head.logits(cells)
    scores = cells.reshape(finer, finer, pictures, h, w, plan.classes)  # offsets down and across, images, …
    return scores.permute(2, 5, 3, 0, 4, 1).reshape(pictures, plan.classes, h * finer, w * finer)


class _FullyConvolutionalForward(Trace):
    """Runs the network with the plan's changes. Cells are in the first axis: image by image, row by row."""

    def __init__(self, module: nn.Module, plan: ConversionPlan, pictures: int, finer: int) -> None:
        super().__init__(module)
        self._plan, self._pictures = plan, pictures
        self._finest = plan.stride[0] // finer
        self._number = 0
        self._grids = WeakTensorKeyDictionary()  # cells -> (images, rows, columns)

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number, operation = self._number, qualified_name(function)
        self._number += 1
        if number >= len(self._plan.operations) or operation != self._plan.operations[number]:
            raise refuse(name, "takes another path when its input is larger")
        held = self._plan.constants.get(number, {})
        args = tuple(self._held(name, held, place, value) for place, value in enumerate(args))
        kwargs = {key: self._held(name, held, key, value) for key, value in kwargs.items()}
        change = self._plan.changes.get(number)
        if change is None:
            return function(*args, **kwargs)
        if isinstance(change, changes.IdentityPool):
            return args[0]
        if isinstance(change, changes.Pad):
            kwargs = {key: value for key, value in kwargs.items() if key != "pad"}
            return function(args[0], change.sides, *args[2:], **kwargs)
        if isinstance(change, changes.Pool):
            return self._pool(args[0] if args else kwargs["input"], change)
        if isinstance(change, changes.Unfold):
            cells = self._unfold(args[0] if args else kwargs["input"], change)
            return self._on_cells(name, function, operation, (cells, *args[1:]), kwargs, change.shape)
        if isinstance(change, changes.PerPositionOp):
            return self._on_cells(name, function, operation, args, kwargs, change.shape)
        if isinstance(change, changes.BroadcastGate):
            return function(*self._broadcast_gates(args, change.axes), **kwargs)
        return self._run_at_offsets(function, operation, args, kwargs, change)

    def _held(self, name: str, held: dict[int | str, Any], key: int | str, value: Any) -> Any:
        """The argument, or the constant that it was at the training size."""
        if isinstance(value, Tensor) and key in held and value.shape != held[key].shape:
            raise refuse(name, "combines the map with a value whose shape depends on the size of the input")
        return held.get(key, value)

    def as_cells(self, tensor: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The network's output as cells `[N·h·w classes]`, and (h, w)."""
        if tensor in self._grids:
            _, h, w = self._grids[tensor]
            return tensor.reshape(len(tensor), -1), (h, w)
        _, _, h, w = tensor.shape
        return tensor.permute(0, 2, 3, 1).flatten(0, 2), (h, w)

    def _pool(self, tensor: Tensor, pool: changes.Pool) -> Tensor:
        """Separable: k + k additions per cell instead of k²."""
        x = tensor.movedim(pool.axes, (-2, -1))
        (k, m) = pool.window
        if pool.kind == "max":
            x = F.max_pool2d(F.max_pool2d(x, (k, 1), 1), (1, m), 1)
        else:
            x = F.avg_pool2d(F.avg_pool2d(x, (k, 1), 1), (1, m), 1)
            x = x * (k * m) if pool.kind == "sum" else x
        if pool.keeps:
            return x.movedim((-2, -1), pool.axes)
        cells = x.permute(0, 2, 3, 1).flatten(0, 2)  # [N·h·w C]
        self._grids[cells] = (x.shape[0], x.shape[2], x.shape[3])
        return cells

    def _unfold(self, tensor: Tensor, change: changes.Unfold) -> Tensor:
        """Every position of the window as an item of the batch: `[N·h·w ...]`."""
        (rows, columns), (k, m) = change.axes, change.window
        if tensor.shape[rows] < k or tensor.shape[columns] < m:
            raise VizError("The input is smaller than the network's training input.", code="picture-too-small")
        if change.unused:
            tensor = tensor.narrow(rows, 0, k).narrow(columns, 0, m)
        places = tensor.unfold(rows, k, 1).unfold(columns, m, 1)  # [... h ... w ... k m]
        inner = {rows: tensor.ndim, columns: tensor.ndim + 1}
        places = places.permute(0, rows, columns, *(inner.get(axis, axis) for axis in range(1, tensor.ndim)))
        cells = places.reshape(-1, *places.shape[3:])
        self._grids[cells] = (places.shape[0], places.shape[1], places.shape[2])
        return cells

    def _on_cells(
        self, name: str, function: Callable[..., Any], operation: str, args: Any, kwargs: Any, shape: tuple[int, ...]
    ) -> Any:
        grid = next(self._grids[t] for t in tensors_in((args, kwargs)) if t in self._grids)
        count = math.prod(grid)
        if operation in {"expand", "expand_as"}:
            return args[0]  # the gate is broadcast in the next operation, which applies it to the map
        if operation in _SHAPED:
            output: Any = args[0].reshape(count, *shape[1:])
        elif operation == "linear" and not kwargs:
            output = _linear(*args)
        else:
            output = function(*args, **kwargs)
        first = first_tensor(output)
        if first is None or tuple(first.shape) != (count, *shape[1:]):
            raise refuse(name, "depends on the batch size")
        for made in tensors_in(output):
            self._grids[made] = grid
        return output

    def _broadcast_gates(self, args: tuple[Any, ...], axes: tuple[int, int]) -> tuple[Any, ...]:
        """The arguments with gates expanded to the map: each cell gets the gate of the window around it.

        Cells at the edge get the gate of the nearest window that fits; at the training size all cells get the same one.
        """
        maps = [self._as_map(argument) if isinstance(argument, Tensor) else argument for argument in args]
        large = max((m for m in maps if isinstance(m, Tensor)), key=lambda m: m.shape[axes[0]] * m.shape[axes[1]])
        for place, gate in enumerate(maps):
            if isinstance(gate, Tensor) and gate.ndim == large.ndim:
                for axis in axes:
                    gate = _stretch(gate, axis, large.shape[axis])
                maps[place] = gate
        return tuple(maps)

    def _as_map(self, tensor: Tensor) -> Tensor:
        if tensor not in self._grids:
            return tensor
        n, h, w = self._grids[tensor]
        return tensor.reshape(n, h, w, -1).permute(0, 3, 1, 2)

    def _run_at_offsets(
        self, function: Callable[..., Any], operation: str, args: Any, kwargs: Any, change: changes.Strided
    ) -> Any:
        """Runs the operation at each of its offsets; the results are in the first axis."""
        if change.step <= self._finest:
            return function(*args, **kwargs)
        x, rest = args[0], args[1:]
        rows, columns = x.shape[-2:]
        # Padding is never inside a valid window, but in ceil mode a maximum may extend past the edge.
        outside = -torch.inf if operation == "max_pool2d" else 0.0
        x = F.pad(x, (0, change.stride - 1, 0, change.stride - 1), value=outside)
        offsets = itertools.product(range(change.stride), repeat=2)
        shifted = [function(x[..., y : y + rows, z : z + columns], *rest, **kwargs) for y, z in offsets]
        return self._interleave(shifted, change.stride)

    def _interleave(self, maps: list[Tensor], stride: int) -> Tensor:
        """Stacks maps at offsets, each `[before·before·N C h w]` from earlier offsets; later offsets count more pixels."""
        before = math.isqrt(len(maps[0]) // self._pictures)
        stacked = torch.stack(maps).unflatten(1, (before, before, self._pictures)).unflatten(0, (stride, stride))
        return stacked.transpose(1, 2).flatten(0, 4)  # of [y x before_y before_x N C h w]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer over many cells `[cells in]`.

    On a CPU, oneDNN's product is two to four times as fast as torch's default (676 cells, VGG's first linear layer, AMD
    EPYC), and it does not copy the weights as a convolution would.
    """
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and weight.is_contiguous()
    if plain and x.ndim == 2 and len(x) >= _MANY and not torch.is_grad_enabled():
        known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        if known:
            return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def _stretch(gate: Tensor, axis: int, length: int) -> Tensor:
    short = gate.shape[axis]
    if short == length:
        return gate
    index = torch.arange(length, device=gate.device) - (length - short) // 2
    return gate.index_select(axis, index.clamp(0, short - 1))
