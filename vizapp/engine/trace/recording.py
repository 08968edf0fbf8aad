"""A pass through any network, written down so that signals can be sent back along it.

Autograd's own graph is not used: it would hold one picture's pass for one signal of full size. The tape keeps only
what the rules need (switches, gates), so that many units go down together, each on the window that it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.operations import SHAPE_ONLY, SQUASHING
from vizapp.engine.tap import StopForward, Trace, operation_name
from vizapp.errors import VizError

if TYPE_CHECKING:
    from vizapp.engine.projection.rules import Rule

_STALE = -1


@dataclass(frozen=True)
class ValueRef:
    """Stands in a step's arguments for a value that depends on the picture."""

    value: int


@dataclass(eq=False)
class Step:
    """One operation: what ran, on which values, and what its rule will need on the way down."""

    name: str
    operation: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ctx: dict[str, Any] = field(default_factory=dict)

    @property
    def depends_on_input_alone(self) -> bool:
        """Whether the first argument depends on the picture and no other, such as a weight, does."""
        return len(self.inputs) == 1 and isinstance(argument(self.args, self.kwargs, 0, "input", None), ValueRef)


class Recording(Trace):
    """Writes down the operations of one pass over `batch` `[1 C H W]` that depend on it.

    `rule` runs each operation unchanged and says what to keep of it for the way down; without one, nothing is kept, and
    masks and indices are followed like other values. `shapes[v]` is the shape of value v; `values[site]` is `(value,
    clone)` for wanted sites. The pass ends above the last wanted site; when none is wanted it runs to its end.
    """

    def __init__(self, module: nn.Module, batch: Tensor, wanted: set[str], rule: Rule | None) -> None:
        super().__init__(module)
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = [tuple(batch.shape)]
        self.values: dict[str, tuple[int, Tensor]] = {}
        self._wanted, self._rule = wanted, rule
        self._ids = WeakTensorKeyDictionary()
        self._ids[batch] = 0
        self._openings: set[int] = set()  # values that are made of squashed ones alone: how far gates are open
        self._enough = StopForward()

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation and write it down if it depends on the picture."""
        if self._wanted and name not in self._wanted and self.values.keys() == self._wanted:
            raise self._enough
        inputs = [tensor for tensor in tensors_in((args, kwargs)) if tensor in self._ids]
        if not inputs or operation_name(function) in SHAPE_ONLY:
            return function(*args, **kwargs)
        numbers = tuple(self._number(tensor) for tensor in inputs)
        operation = operation_name(function)
        noted = self._captured_args(args), self._captured_args(kwargs)
        opens = tuple(number in self._openings for number in numbers)
        saved, output = self._run(operation, function, args, kwargs, inputs, opens)
        results = list(tensors_in(args[0] if operation == "setitem" else output))
        results = [t for t in results if self._rule is None or t.is_floating_point()]
        if not results:
            return output
        for result in results:
            if any(result is tensor for tensor in inputs):
                self._mark_stale(result)
                saved["writes"] = True  # over one of its inputs
            elif args and result is args[0] and result._base is not None:
                self._ids[result._base] = _STALE  # a constant, until a part of it was written to
        made = tuple(self._new(result) for result in results)
        if operation.rstrip("_") in SQUASHING or all(opens):
            self._openings.update(made)
        if made:
            self.steps.append(Step(name, operation, function, *noted, numbers, made, saved))
            if name in self._wanted:
                self.values[name] = (made[0], results[0].clone())
        return output

    def _run(
        self,
        operation: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        opens: tuple[bool, ...],
    ) -> tuple[dict[str, Any], Any]:
        if self._rule is None:
            return {}, function(*args, **kwargs)
        return self._rule.run(operation, function, args, kwargs, inputs, opens)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        super().__exit__(kind, error, trace)
        return error is self._enough

    def _number(self, tensor: Tensor) -> int:
        number: int = self._ids[tensor]
        if number == _STALE:
            raise VizError(
                "This network overwrites a part of an activation through a view and then uses the whole again; a signal "
                "cannot be followed through that."
            )
        return number

    def _new(self, tensor: Tensor) -> int:
        self.shapes.append(tuple(tensor.shape))
        self._ids[tensor] = len(self.shapes) - 1
        return len(self.shapes) - 1

    def _mark_stale(self, written: Tensor) -> None:
        """Other views of the memory that was written to no longer hold the value that was written down for them."""
        first, last = _extent(written)
        for other in list(self._ids.keys()):
            if other is not written and other.device == written.device:
                begin, end = _extent(other)
                if begin < last and first < end:
                    self._ids[other] = _STALE

    def _captured_args(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return ValueRef(self._ids[value]) if value in self._ids else value
        if isinstance(value, (tuple, list)):
            return type(value)(self._captured_args(item) for item in value) if type(value) in (tuple, list) else value
        if isinstance(value, dict):
            return {key: self._captured_args(item) for key, item in value.items()}
        return value


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First and last byte address of a tensor's elements."""
    start = tensor.data_ptr()
    span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return start, start + span * tensor.element_size()


def bind(noted: Any, values: dict[int, Tensor]) -> Any:
    """Arguments as they were written down, with tensors in the slots."""
    if isinstance(noted, ValueRef):
        return values[noted.value]
    if isinstance(noted, (tuple, list)) and type(noted) in (tuple, list):
        return type(noted)(bind(item, values) for item in noted)
    if isinstance(noted, dict):
        return {key: bind(item, values) for key, item in noted.items()}
    return noted


def value_refs(noted: Any) -> Iterator[ValueRef]:
    """All slots inside nested arguments."""
    if isinstance(noted, ValueRef):
        yield noted
    elif isinstance(noted, (tuple, list)):
        for item in noted:
            yield from value_refs(item)
    elif isinstance(noted, dict):
        yield from value_refs(tuple(noted.values()))


def record(module: nn.Module, batch: Tensor, wanted: set[str], rule: Rule) -> Recording:
    """The tape of one pass over `batch` `[1 C H W]`, up to the last wanted site.

    Raises:
        VizError: the pass does not produce a wanted site.
    """
    batch = batch.clone()
    with torch.no_grad(), Recording(module, batch, wanted, rule) as tape:
        module(batch)
    missing = wanted - tape.values.keys()
    if missing:
        raise VizError(f"The network did not compute {min(missing)!r} on this picture; pick another layer.")
    return tape
