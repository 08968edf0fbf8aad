"""Receptive fields: the input pixels that a cell of any activation can depend on, through any network.

Rows and columns are independent for every operation with a window, so a field is an interval of rows times an interval
of columns. One pass propagates these intervals for each activation. This is exact for convolutions, pools (ceil mode and
adaptive too), residual sums, concatenations, upsampling, slices and channel shuffles. An operation that mixes all cells
(attention, a linear layer, a global gate, an unknown operation) sees everything that its inputs see. The tests compare
with the non-zero extent of a backward pass with positive weights and no gating.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.operations import SHAPE_ONLY
from vizapp.engine.receptive_field.interval import Interval, ReceptiveField
from vizapp.engine.receptive_field.rules import field_after, full_field
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

    def of(self, tensor: Tensor) -> ReceptiveField | None:
        """The field of a tensor made in this pass."""
        return self._fields.get(tensor)

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation and compute the fields of its results."""
        # Shapes are read before an in-place operation changes them.
        given = [(tuple(t.shape), field) for t in tensors_in((args, kwargs)) if (field := self.of(t)) is not None]
        output, operation = function(*args, **kwargs), operation_name(function)
        if given and operation not in SHAPE_ONLY:
            if operation == "setitem":
                self._fields[args[0]] = full_field(given)
            for made in tensors_in(output):
                self._fields[made] = field = field_after(operation, args, kwargs, given, tuple(made.shape))
                if args and made is args[0]:
                    self._write_through(made, field)
        self.on_operation(name, function, output)
        return output

    def _write_through(self, view: Tensor, field: ReceptiveField) -> None:
        """A write into a view of a constant (a padded batch, say) gives the whole tensor a field."""
        base = view._base
        if base is None or base in self._fields:
            return
        if base.shape[-2:] == view.shape[-2:] and field.rows.axis == view.ndim - 2:
            behind = base.ndim - view.ndim
            rows = replace(field.rows, axis=field.rows.axis + behind)
            self._fields[base] = ReceptiveField(rows, replace(field.columns, axis=base.ndim - 1))
        else:
            self._fields[base] = full_field([(tuple(view.shape), field)])

    def on_operation(self, name: str, function: Callable[..., Any], output: Any) -> None:
        """Hook for subclasses, called after each operation, when the fields of its results are known."""


def receptive_fields(module: nn.Module, batch: Tensor) -> dict[str, ReceptiveField]:
    """The receptive fields of every operation of a pass over `batch` `[N C H W]`, by site name."""
    found: dict[str, ReceptiveField] = {}

    class Collect(ReceptiveFieldTrace):
        def on_operation(self, name: str, function: Callable[..., Any], output: Any) -> None:
            tensor = first_tensor(output)
            field = None if tensor is None else self.of(tensor)
            if field is not None:
                found[name] = field

    batch = batch.clone()
    with torch.no_grad(), Collect(module, batch):
        module(batch)
    return found
