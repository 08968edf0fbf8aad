"""Receptive fields: the input pixels that a cell of any activation can depend on, through any network.

Rows and columns are independent for every operation with a window, so a field is an interval of rows times an interval
of columns. One pass propagates these intervals for each activation. This is exact for convolutions, pools (ceil mode and
adaptive too), sums, concatenations, resizing, padding of all modes, slices, flips and channel shuffles. The result of an
operation that mixes all cells, or that has no rule, sees everything that its inputs see. The tests compare with the
non-zero extent of gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import map_leaves, tensors_in
from vizapp.engine.operations import COUNTING, DECISIONS, METADATA, SHAPE_ONLY
from vizapp.engine.receptive_field.interval import Activation, Interval, ReceptiveField
from vizapp.engine.receptive_field.rules import activations_in, fields_after, full_field, union
from vizapp.engine.tap import Trace, first_tensor, operation_name


def input_field(height: int, width: int) -> ReceptiveField:
    """The field of the input `[N C H W]` itself."""
    rows, columns = np.arange(height), np.arange(width)
    return ReceptiveField(Interval(2, rows, rows + 1, 0, 1, 1), Interval(3, columns, columns + 1, 0, 1, 1))


class ReceptiveFieldTrace(Trace):
    """Propagates fields through a pass. `of(tensor)` is None for tensors that do not depend on the input."""

    def __init__(self, module: nn.Module, batch: Tensor) -> None:
        super().__init__(module)
        self._fields = WeakTensorKeyDictionary()
        self._fields[batch] = input_field(batch.shape[2], batch.shape[3])
        self._read_out: list[Activation] = []  # what was read out of tensors: all that follows may depend on it

    def of(self, tensor: Tensor) -> ReceptiveField | None:
        """The field of a tensor made in this pass."""
        return self._fields.get(tensor)

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation and compute the fields of its results."""
        # Shapes are read before an in-place operation changes them.
        seen_args, seen_kwargs = map_leaves(args, self._seen), map_leaves(kwargs, self._seen)
        given = list(activations_in((seen_args, seen_kwargs)))
        output, operation = function(*args, **kwargs), operation_name(function)
        if given and operation not in SHAPE_ONLY:
            results = list(tensors_in(args[0] if operation == "setitem" else output))
            if operation not in DECISIONS and is_read_out(
                operation, (args, kwargs), results, self._fields.__contains__
            ):
                self._read_out += given
            fields = fields_after(function, seen_args, seen_kwargs, [tuple(made.shape) for made in results])
            read = list(tensors_in((args, kwargs)))
            for made, field in zip(results, fields, strict=True):
                if self._read_out:
                    field = full_field([Activation(tuple(made.shape), field), *self._read_out], tuple(made.shape))
                before, self._fields[made] = self.of(made), field
                if any(made is tensor for tensor in read) and not (before is not None and before.same_as(field)):
                    self._note_write(made, field)
        self.on_operation(name, function, output)
        return output

    def _seen(self, value: Any) -> Any:
        """The activation that stands for a tensor that depends on the input; other values as they are."""
        field = self.of(value) if isinstance(value, Tensor) else None
        return value if field is None else Activation(tuple(value.shape), field)

    def _note_write(self, view: Tensor, field: ReceptiveField) -> None:
        """Other views of memory that was written to see what the written one sees, and so does its base (a padded batch)."""
        written = Activation(tuple(view.shape), field)
        for other in [*self._fields.keys(), view._base]:
            if other is not None and other is not view and _shares_memory(other, view):
                shape, before = tuple(other.shape), self._seen(other)
                together = [before, written] if isinstance(before, Activation) else [written]
                same_cells = _shares_cells(other, view) and field.is_of_last_axes(view.ndim)
                self._fields[other] = union(together, shape) if same_cells else full_field(together, shape)

    def on_operation(self, name: str, function: Callable[..., Any], output: Any) -> None:
        """Hook for subclasses, called after each operation, when the fields of its results are known."""


def _shares_memory(one: Tensor, other: Tensor) -> bool:
    try:
        return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)
    except NotImplementedError:  # sparse tensors have no storage
        return False


def _shares_cells(one: Tensor, other: Tensor) -> bool:
    """Whether views of one memory have the same rows and columns: each is of other channels, or of other pictures."""
    if one.shape[-2:] != other.shape[-2:] or one.stride()[-2:] != other.stride()[-2:]:
        return False
    apart = abs(int(one.storage_offset()) - int(other.storage_offset()))
    return all(
        stride > 0 and apart // stride % length == 0
        for stride, length in zip(one.stride()[-2:], one.shape[-2:], strict=True)
    )


def is_read_out(
    operation: str, arguments: tuple[Any, Any], results: Collection[Tensor], depends: Callable[[Tensor], bool]
) -> bool:
    """Whether the network's own code knows numbers of the image after a call: values, or how many a mask chose.

    `arguments` are positional and keyword arguments of the call, `depends` says whether a tensor depends on the image.
    """
    args, kwargs = arguments
    if not results:
        return operation not in METADATA
    if operation in {"getitem", "repeat_interleave"}:
        chosen = tensors_in((args[1:], kwargs))
        return any(depends(tensor) for tensor in chosen if operation != "getitem" or tensor.dtype in _MASKS)
    return operation in COUNTING or (operation == "where" and len(args) + len(kwargs) == 1)


_MASKS = frozenset({torch.bool, torch.uint8})


def receptive_fields(module: nn.Module, batch: Tensor) -> dict[str, ReceptiveField]:
    """The receptive fields of every operation of a pass over `batch` `[N C H W]`, by site name."""
    found: dict[str, ReceptiveField] = {}

    class Collect(ReceptiveFieldTrace):
        def on_operation(self, name: str, function: Callable[..., Any], output: Any) -> None:
            tensor = first_tensor(output)
            field = None if tensor is None else self.of(tensor)
            if field is not None:
                found[name] = field.on_map()

    batch = batch.clone()
    with torch.no_grad(), Collect(module, batch):
        module(batch)
    return found
