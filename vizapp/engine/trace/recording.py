"""A recording of one forward pass through any network, along which signals can be sent back.

Autograd's own graph is not used: it would hold one whole pass per signal, at full size. A recording keeps only what the
rule needs (switches, gates), so that many units go back together, each on the window that it sees.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.operations import BILINEAR, KEEPS_SQUASHED, SHAPE_OF_SECOND, SHAPE_ONLY, SQUASHING, canonical_name
from vizapp.engine.tap import Trace, check_computed, qualified_name
from vizapp.engine.trace.custom_functions import custom_functions, differentiates_truly
from vizapp.errors import VizError


@dataclass(frozen=True)
class ValueRef:
    """Replaces a tensor in the recorded arguments of a step: the number of a value that depends on the picture."""

    value: int


@dataclass(eq=False)
class Step:
    """One recorded operation: which function ran, on which values, and what its rule needs on the way back (`ctx`).

    It `reads` values. Signals go to its `inputs`, which a rule may change, of types `dtypes`. Where autocast was on,
    `function` runs under it again. `detached` says whether autograd would stop here: the network detaches the value, or
    computes it without gradients.
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
    detached: bool = False
    reads: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.reads = self.inputs

    @property
    def depends_on_input_alone(self) -> bool:
        """Whether the first argument depends on the picture, and no other (such as a weight) does."""
        return len(self.inputs) == 1 and isinstance(argument(self.args, self.kwargs, 0, "input", None), ValueRef)


class GateOrigin(NamedTuple):
    """Of how many gates a value is computed alone, and whether of squashed ones (or as a product of narrower values)."""

    number: int
    squashed: bool


NO_GATE = GateOrigin(0, False)


@dataclass(frozen=True)
class Call:
    """An operation that is about to run.

    `operation` has no trailing `_`. `inputs` are the arguments that depend on the picture. `gates[i]` says what input i is
    as a gate; `sloped[i]`, whether it has a derivative by the picture (masks and indices have none). `step` is what will be
    recorded, without its outputs; a rule may replace the values that signals go to (`step.inputs` and their `dtypes`).
    """

    operation: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    gates: tuple[GateOrigin, ...]
    sloped: tuple[bool, ...]
    step: Step
    recording: Recording

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
    like others, but no signal goes through them: `sloped[v]` says whether value v has a derivative. `shapes[v]` and
    `dtypes[v]` are its shape and type, `makers[v]` the step that made it; `values[site]` is `(v, clone)` for wanted sites. The
    pass ends after the last wanted site, or at its own end if none is wanted.

    Writes in place are followed through memory: a tensor that shares memory with one that was written to becomes a new
    value, made of its old one and of what was written, when it is used next.

    A pass with gradients enabled shows where the network disables them; the recorded operations run without.
    """

    def __init__(self, module: nn.Module, batch: Tensor, wanted: set[str], rule: CaptureRule | None) -> None:
        super().__init__(module)
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = [tuple(batch.shape)]
        self.dtypes = [batch.dtype]
        self.makers: dict[int, Step] = {}
        self.sloped = [True]
        self.values: dict[str, tuple[int, Tensor]] = {}
        self._wanted, self._rule = wanted, rule
        self._ids = WeakTensorKeyDictionary()  # tensor -> its value, and how many of the writes below that includes
        self._ids[batch] = 0, 0
        self._writes: dict[StorageWeakRef, list[_Write]] = {}
        self._constants: set[StorageWeakRef] = set()  # memory that recorded arguments refer to
        self.gates: dict[int, GateOrigin] = {}  # of the values that are computed from gates alone
        self._followed = True  # by autograd: the running operation
        self._inside = False  # of a custom function that is followed by autograd

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            return func(*args)
        self._followed = torch.is_grad_enabled() or self._inside
        with torch.no_grad():
            return super().__torch_function__(func, types, args, kwargs)

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation, and record it if it depends on the picture."""
        if self._wanted and name not in self._wanted and self.values.keys() == self._wanted:
            raise self.enough
        operation, out = canonical_name(qualified_name(function)), kwargs.get("out")
        if operation in SHAPE_OF_SECOND and len(args) == 2 and isinstance(args[1], Tensor):
            args = (args[0], args[1].new_zeros(()).expand(args[1].shape))
        if isinstance(out, Tensor):
            kwargs = {key: value for key, value in kwargs.items() if key != "out"}
        tensors = list(tensors_in((args, kwargs)))
        numbers = {id(tensor): self._current(tensor) for tensor in tensors}
        inputs = [tensor for tensor in tensors if numbers[id(tensor)] is not None]
        target = out if isinstance(out, Tensor) else args[0] if args and may_write(function) else None
        overwritten = self._keep_constants(target) if isinstance(target, Tensor) else None
        if not inputs or operation in SHAPE_ONLY:
            return function(*args, **kwargs, **({"out": out} if isinstance(out, Tensor) else {}))

        def capture_leaf(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            number = numbers[id(leaf)]
            if number is not None:
                return ValueRef(number)
            kept = leaf if leaf is not target or overwritten is None else overwritten
            self._constants.add(StorageWeakRef(kept.untyped_storage()))
            return kept

        given = tuple(self._ids[tensor][0] for tensor in inputs)
        dtypes, versions = tuple(tensor.dtype for tensor in inputs), list(map(_version, tensors))
        arguments = map_leaves(args, capture_leaf), map_leaves(kwargs, capture_leaf)
        gates = tuple(self.gates.get(number, NO_GATE) for number in given)
        sloped = tuple(self.sloped[number] for number in given)
        step = Step(
            name, operation, _under_autocast(function, inputs[0].device.type), *arguments, given, (), {}, dtypes
        )
        call = Call(operation.rstrip("_"), function, args, kwargs, inputs, gates, sloped, step, self)
        keeps = self._rule is not None and any(sloped)
        step.ctx, output = self._rule.capture(call) if self._rule is not None and keeps else ({}, call.run())
        if isinstance(out, Tensor):
            output = out.resize_(output.shape).copy_(output)
        results = list(tensors_in(args[0] if operation == "setitem" else output))
        if not results:
            return output
        if keeps and not any(map(_has_slope, results)):
            step.ctx = {}
        step.outputs = made = tuple(map(self._new, results))
        self.makers |= dict.fromkeys(made, step)
        self.sloped += [any(sloped) and _has_slope(result) for result in results]
        for tensor, version in zip(tensors, versions, strict=True):
            if version != _version(tensor) and any(tensor is result for result in results):
                step.ctx["writes"] = True  # into one of its inputs
                self._note_write(tensor)
        if isinstance(out, Tensor):
            self._note_write(out)
        origin = step.ctx.pop("origin", None) or _gate_origin(call)
        if origin is not None:
            self.gates |= dict.fromkeys(made, origin)
        step.detached = call.operation == "detach" or not self._followed
        self.steps.append(step)
        if name in self._wanted:
            self.values[name] = (made[0], results[0].clone())
        return output

    def call(self, function: type[Function], forward: Callable[..., Any], args: tuple[Any, ...], enabled: bool) -> Any:
        """Run the forward pass of a custom autograd function, for `custom_functions`.

        If the function's backward pass is the derivative of that, its operations are recorded. If not, its results are
        recorded as those of one operation.
        """
        followed = enabled or self._inside
        with torch._C.DisableTorchFunction():
            numbers = {id(tensor): self._current(tensor) for tensor in tensors_in(args)}
            inputs = [tensor for tensor in tensors_in(args) if numbers[id(tensor)] is not None]
            given = tuple(self._ids[tensor][0] for tensor in inputs)
            sloped = [tensor for tensor, number in zip(inputs, given, strict=True) if self.sloped[number]]
            opened = not sloped or differentiates_truly(function, args, sloped)
            at, dtypes = [tensor.clone() for tensor in inputs], tuple(tensor.dtype for tensor in inputs)
            versions = {id(tensor): _version(tensor) for tensor in inputs}
        before, self._inside = self._inside, followed and opened
        try:
            output = forward(*args)
        finally:
            self._inside = before
        if opened:
            return output

        def separate(leaf: Any) -> Any:  # torch would do so later: an input that is returned as it is
            return leaf.view_as(leaf) if id(leaf) in versions and versions[id(leaf)] == _version(leaf) else leaf

        def capture_leaf(leaf: Any) -> Any:
            number = numbers.get(id(leaf))
            return leaf if number is None else ValueRef(number)

        output = map_leaves(output, separate)
        with torch._C.DisableTorchFunction():
            results = list(tensors_in(output))
            replaced = [self._ids.get(result, (None,))[0] for result in results]
            made = tuple(map(self._new, results))
            self.sloped += map(_has_slope, results)
            for result in results:
                if id(result) in versions:  # the function has written into it
                    self._note_write(result)
        ctx, arguments = {"family": "custom", "at": at}, map_leaves(args, capture_leaf)
        name = function.__name__
        self.steps.append(Step("", name, function.apply, arguments, {}, given, made, ctx, dtypes, not followed))
        for site, (value, kept) in self.values.items():
            if value in replaced:
                self.values[site] = made[replaced.index(value)], kept
        return output

    def tensor_of(self, value: int) -> Tensor | None:
        """The tensor that holds a value now; None if it is gone."""
        return next(
            (tensor for tensor, (number, _) in self._ids.items() if number == value == self._current(tensor)), None
        )

    def _current(self, tensor: Tensor) -> int | None:
        """The value that a tensor holds now; None if it does not depend on the picture."""
        number, seen = self._ids.get(tensor, (None, 0))
        if not self._writes:
            return number
        for write in self._writes.get(storage_of(tensor), [])[seen:]:
            positions = _overlap(write, tensor)
            if positions is not None:
                number = self._overlay(tensor, number, write, positions)
        return number

    def _overlay(self, tensor: Tensor, number: int | None, write: _Write, positions: Tensor) -> int:
        """Record that a part of a tensor was overwritten through another one."""

        def overlay(old: Tensor, written: Tensor) -> Tensor:
            return torch.where(positions < 0, old, written.flatten()[positions.clamp_min(0)])

        args = (tensor.clone() if number is None else ValueRef(number), ValueRef(write.value))
        inputs = (write.value,) if number is None else (number, write.value)
        made = self._new(tensor)
        self.sloped.append(any(self.sloped[value] for value in inputs))
        ctx = {"family": "linear"} if self._rule is not None and self.sloped[made] else {}
        self.steps.append(Step("", "overlay", overlay, args, {}, inputs, (made,), ctx, (tensor.dtype,) * len(inputs)))
        return made

    def _new(self, tensor: Tensor) -> int:
        self.shapes.append(tuple(tensor.shape))
        self.dtypes.append(tensor.dtype)
        self._ids[tensor] = len(self.shapes) - 1, len(self._writes.get(storage_of(tensor), ()))
        return len(self.shapes) - 1

    def _note_write(self, tensor: Tensor) -> None:
        """Remember that a tensor's memory now holds its value, for others that share it."""
        value, storage = self._ids[tensor][0], storage_of(tensor)
        writes = self._writes.setdefault(storage, [])
        writes.append(
            _Write(value, tensor.shape, tensor.stride(), int(tensor.storage_offset()), tensor.dtype, tensor.is_conj())
        )
        self._ids[tensor] = value, len(writes)

    def _keep_constants(self, target: Tensor) -> Tensor | None:
        """Replace recorded constants whose memory is about to be overwritten by copies; a copy of `target`, if constant."""
        storage = storage_of(target)

        def copy_shared(leaf: Any) -> Any:
            return leaf.clone() if isinstance(leaf, Tensor) and storage_of(leaf) == storage else leaf

        if storage in self._constants:
            for step in self.steps:
                step.args, step.kwargs = map_leaves(step.args, copy_shared), map_leaves(step.kwargs, copy_shared)
            self._constants.discard(storage)
        return None if target in self._ids else target.clone()


def _gate_origin(call: Call) -> GateOrigin | None:
    """What the output is as a gate, by how it is computed."""
    if call.operation in SQUASHING:
        return GateOrigin(1, True)
    mixes = call.operation in BILINEAR and len(call.inputs) > 1
    if not all(origin.number for origin in call.gates) or not (mixes or call.operation in KEEPS_SQUASHED):
        return None
    numbers = [origin.number for origin in call.gates]
    return GateOrigin(sum(numbers) if mixes else max(numbers), all(origin.squashed for origin in call.gates))


class _Write(NamedTuple):
    """A value that was written into memory, and where it lies there."""

    value: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    conjugate: bool


def _overlap(write: _Write, tensor: Tensor) -> Tensor | None:
    """For each element of a tensor which element of the written value lies there, or -1; None if there is no overlap.

    Raises:
        VizError: the two read the same memory as different types.
    """
    length = tensor.untyped_storage().nbytes() // write.dtype.itemsize
    places = torch.full((length,), -1, device=tensor.device)
    order = torch.arange(math.prod(write.shape), device=tensor.device).view(write.shape)
    places.as_strided(write.shape, write.stride, write.offset).copy_(order)
    if (write.dtype, write.conjugate) != (tensor.dtype, tensor.is_conj()):
        raise VizError(
            "This network overwrites part of an activation through a view of another type. Signals cannot be followed "
            "through that.",
            code="overwritten-view",
        )
    found = places.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    return found.clone() if bool((found >= 0).any()) else None


def storage_of(tensor: Tensor) -> StorageWeakRef:
    """The memory of a tensor, as a key."""
    return StorageWeakRef(tensor.untyped_storage())


def _version(tensor: Tensor) -> int:
    """Changes when the tensor is written to; always, where torch does not count (in inference mode)."""
    return next(_UNCOUNTED) if tensor.is_inference() else tensor._version


_UNCOUNTED = itertools.count(-1, -1)


def may_write(function: Callable[..., Any]) -> bool:
    """Whether the name of a function says that it writes into its first argument."""
    name = str(getattr(function, "__name__", "")).partition(".")[0]
    return name == "__setitem__" or name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


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


def map_leaves(arguments: Any, change: Callable[[Any], Any]) -> Any:
    """Nested tuples, lists and dicts with `change` applied to everything else inside."""
    if isinstance(arguments, (tuple, list)):
        changed = [map_leaves(item, change) for item in arguments]
        plain = type(arguments) in (tuple, list) or any(True for _ in tensors_in(arguments))
        return (changed if isinstance(arguments, list) else tuple(changed)) if plain else arguments
    if isinstance(arguments, dict):
        return {key: map_leaves(item, change) for key, item in arguments.items()}
    return change(arguments)


def bind(captured: Any, values: dict[int, Any]) -> Any:
    """Recorded arguments with tensors in place of their `ValueRef`s."""
    return map_leaves(captured, lambda leaf: values[leaf.value] if isinstance(leaf, ValueRef) else leaf)


def value_refs(captured: Any) -> Iterator[ValueRef]:
    """All `ValueRef`s inside recorded arguments."""
    found: list[ValueRef] = []
    map_leaves(captured, lambda leaf: found.append(leaf) if isinstance(leaf, ValueRef) else None)
    return iter(found)


def record(module: nn.Module, batch: Tensor, wanted: set[str], rule: CaptureRule) -> Recording:
    """The recording of one pass over `batch` `[1 C H W]`, up to the last wanted site.

    Raises:
        VizError: the pass does not produce a wanted site.
    """
    batch = batch.clone()
    with torch.enable_grad(), Recording(module, batch, wanted, rule) as recording, custom_functions(recording.call):
        module(batch)
    check_computed(sorted(wanted), recording.values)
    rule.refine(recording.steps)
    return recording
