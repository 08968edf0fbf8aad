"""A recording of one forward pass through any network, along which signals can be sent back.

Autograd's own graph is not used: it would hold one whole pass per signal, at full size. A recording keeps only what the
rule needs (switches, gates), so that many units go back together, each on the window that it sees.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.operations import SHAPE_OF_SECOND, SHAPE_ONLY, SQUASHING, canonical_name
from vizapp.engine.tap import Trace, check_computed, qualified_name
from vizapp.errors import VizError

_STALE = -1


@dataclass(frozen=True)
class ValueRef:
    """Replaces a tensor in the recorded arguments of a step: the number of a value that depends on the picture."""

    value: int


@dataclass(eq=False)
class Step:
    """One recorded operation: which function ran, on which values, and what its rule needs on the way back (`ctx`).

    `dtypes` are the types of the inputs. Where autocast was on, `function` runs under it again.
    """

    name: str
    operation: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ctx: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[torch.dtype, ...] = ()

    @property
    def depends_on_input_alone(self) -> bool:
        """Whether the first argument depends on the picture, and no other (such as a weight) does."""
        return len(self.inputs) == 1 and isinstance(argument(self.args, self.kwargs, 0, "input", None), ValueRef)


@dataclass(frozen=True)
class Call:
    """An operation that is about to run.

    `operation` has no trailing `_`. `inputs` are the arguments that depend on the picture. `squashed[i]` says whether
    input i is computed from sigmoids and softmaxes alone, as a gate is; `sloped[i]`, whether it has a derivative by the
    picture (masks and indices have none).
    """

    operation: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    squashed: tuple[bool, ...]
    sloped: tuple[bool, ...]

    @property
    def depends_on_input_alone(self) -> bool:
        """Whether the first argument depends on the picture, and no other (such as a weight) does."""
        return len(self.inputs) == 1 and argument(self.args, self.kwargs, 0, "input", None) is self.inputs[0]

    def run(self) -> Any:
        """The output of the operation."""
        return self.function(*self.args, **self.kwargs)


class CaptureRule(Protocol):
    """What a recording asks of a rule (see `projection.rules`)."""

    def capture(self, call: Call) -> tuple[dict[str, Any], Any]:
        """Run the operation unchanged; what to keep of it in `Step.ctx`, and its output."""

    def refine(self, steps: list[Step]) -> None:
        """Correct the steps of a whole pass where what follows an operation says how it is meant."""


class Recording(Trace):
    """Records the operations of one pass over `batch` `[1 C H W]` that depend on it.

    `rule` runs each operation and says what to keep of it; without a rule nothing is kept. Masks and indices are values
    like others, but no signal goes through them: `sloped[v]` says whether value v has a derivative. `shapes[v]` is its
    shape; `values[site]` is `(v, clone)` for wanted sites. The pass ends after the last wanted site, or at its own end if
    none is wanted.
    """

    def __init__(self, module: nn.Module, batch: Tensor, wanted: set[str], rule: CaptureRule | None) -> None:
        super().__init__(module)
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = [tuple(batch.shape)]
        self.sloped = [True]
        self.values: dict[str, tuple[int, Tensor]] = {}
        self._wanted, self._rule = wanted, rule
        self._ids = WeakTensorKeyDictionary()
        self._ids[batch] = 0
        self._squashed: set[int] = set()  # values that are computed from squashed ones alone

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation, and record it if it depends on the picture."""
        if self._wanted and name not in self._wanted and self.values.keys() == self._wanted:
            raise self.enough
        operation = canonical_name(qualified_name(function))
        if operation in SHAPE_OF_SECOND and len(args) == 2:
            args = (args[0], args[1].new_zeros(()).expand(args[1].shape))
        inputs = [tensor for tensor in tensors_in((args, kwargs)) if tensor in self._ids]
        if not inputs or operation in SHAPE_ONLY:
            return function(*args, **kwargs)
        numbers, dtypes = tuple(map(self._number, inputs)), tuple(tensor.dtype for tensor in inputs)
        captured = self._captured_args(args), self._captured_args(kwargs)
        squashed = tuple(number in self._squashed for number in numbers)
        sloped = tuple(self.sloped[number] for number in numbers)
        call = Call(operation.rstrip("_"), function, args, kwargs, inputs, squashed, sloped)
        keeps = self._rule is not None and any(sloped)
        ctx, output = self._rule.capture(call) if self._rule is not None and keeps else ({}, call.run())
        results = list(tensors_in(args[0] if operation == "setitem" else output))
        if not results:
            return output
        if keeps and not any(map(_has_slope, results)):
            ctx = {}
        for result in results:
            if any(result is tensor for tensor in inputs):
                self._mark_stale(result)
                ctx["writes"] = True  # into one of its inputs
            elif args and result is args[0] and result._base is not None:
                self._ids[result._base] = _STALE  # a constant, until a part of it was written to
        made = tuple(self._new(result) for result in results)
        self.sloped += [any(sloped) and _has_slope(result) for result in results]
        if call.operation in SQUASHING or all(squashed):
            self._squashed.update(made)
        function = _under_autocast(function, inputs[0].device.type)
        self.steps.append(Step(name, operation, function, *captured, numbers, made, ctx, dtypes))
        if name in self._wanted:
            self.values[name] = (made[0], results[0].clone())
        return output

    def _number(self, tensor: Tensor) -> int:
        number: int = self._ids[tensor]
        if number == _STALE:
            raise VizError(
                "This network overwrites part of an activation through a view and then uses the whole again. Signals "
                "cannot be followed through that.",
                code="overwritten-view",
            )
        return number

    def _new(self, tensor: Tensor) -> int:
        self.shapes.append(tuple(tensor.shape))
        self._ids[tensor] = len(self.shapes) - 1
        return len(self.shapes) - 1

    def _mark_stale(self, written: Tensor) -> None:
        """Other views of memory that was written to no longer hold the value that was recorded for them."""
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


def _has_slope(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _under_autocast(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """The function as it runs here: under autocast, if that is on."""
    if not torch.is_autocast_enabled(device):
        return function
    dtype = torch.get_autocast_dtype(device)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype):
            return function(*args, **kwargs)

    return run


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Address of a tensor's first byte, and of the one after its last."""
    start = tensor.data_ptr()
    span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return start, start + span * tensor.element_size()


def bind(captured: Any, values: dict[int, Any]) -> Any:
    """Recorded arguments with tensors in place of their `ValueRef`s."""
    if isinstance(captured, ValueRef):
        return values[captured.value]
    if isinstance(captured, (tuple, list)) and type(captured) in (tuple, list):
        return type(captured)(bind(item, values) for item in captured)
    if isinstance(captured, dict):
        return {key: bind(item, values) for key, item in captured.items()}
    return captured


def value_refs(captured: Any) -> Iterator[ValueRef]:
    """All `ValueRef`s inside recorded arguments."""
    if isinstance(captured, ValueRef):
        yield captured
    elif isinstance(captured, (tuple, list)):
        for item in captured:
            yield from value_refs(item)
    elif isinstance(captured, dict):
        yield from value_refs(tuple(captured.values()))


def record(module: nn.Module, batch: Tensor, wanted: set[str], rule: CaptureRule) -> Recording:
    """The recording of one pass over `batch` `[1 C H W]`, up to the last wanted site.

    Raises:
        VizError: the pass does not produce a wanted site.
    """
    batch = batch.clone()
    with torch.no_grad(), Recording(module, batch, wanted, rule) as recording:
        module(batch)
    check_computed(sorted(wanted), recording.values)
    rule.refine(recording.steps)
    return recording
