"""A recording of a pass with the numbers that chosen sites were computed from."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.arithmetic.kinds import is_move, is_stage
from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.tap import check_computed
from vizapp.engine.trace.custom_functions import custom_functions
from vizapp.engine.trace.recording import Recording, Step, may_write, storage_of


class _Stored:
    """The numbers of one value; a copy, once its memory is about to be overwritten."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Made(NamedTuple):
    """A value, its numbers, and those of the values that it is explained by."""

    value: int
    stored: _Stored
    operands: dict[int, _Stored]

    @property
    def routing(self) -> dict[int, _Stored]:
        """The masks and indices among the operands: by them numbers are followed back through moves before a sum."""
        return {value: one for value, one in self.operands.items() if not is_number(one.tensor.dtype)}


class OperandRecording(Recording):
    """A recording that keeps the operands of the sites in `wanted`, back to the sum (or selection) that made each.

    An operation that changes each number by itself, or only moves numbers, is looked through: the operands of its input are
    kept too. Of anything else its direct inputs are kept. All other activations are freed as the pass goes on.

    `makers` says for every value which step made it; `numbers` holds the kept values.
    """

    def __init__(self, module: nn.Module, batch: Tensor, wanted: set[str]) -> None:
        self._alive = WeakTensorKeyDictionary()  # tensor -> _Made
        self._memory: dict[StorageWeakRef, weakref.WeakSet[_Stored]] = {}
        self._fresh: dict[int, _Made] = {}  # made by the running operation
        self._views: dict[int, _Made] = {}  # written into through a view, which may be gone when the whole is read
        self.numbers: dict[int, Tensor] = {}
        self._kept: dict[int, _Stored] = {}
        super().__init__(module, batch, wanted, None)
        self._new_made(batch, 0)

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run and record the operation, and keep its operands if its site is wanted."""
        self._keep_overwritten(args[:1] if may_write(function) or kwargs.get("inplace") else (), kwargs.get("out"))
        before = self._before((args, kwargs))
        start = len(self.steps)
        output = super().operate(name, function, args, kwargs)
        self._note_steps(start, before)
        if name in self._wanted and len(self.steps) > start:
            for value in self.steps[-1].outputs:
                made = self._fresh[value]
                self._kept |= {**made.operands, value: made.stored}
        self._fresh = {}
        return output

    def call(self, function: type[Function], forward: Callable[..., Any], args: tuple[Any, ...], enabled: bool) -> Any:
        """Run the forward pass of a custom autograd function, which may write into its arguments."""
        self._keep_overwritten(args, None)
        before, start = self._before(args), len(self.steps)
        output = super().call(function, forward, args, enabled)
        self._note_steps(start, before)
        return output

    def finish(self) -> None:
        """Move the kept numbers to the CPU."""
        self.numbers = {value: stored.tensor.detach().cpu() for value, stored in self._kept.items()}
        for value, kept in self.values.values():
            self.numbers.setdefault(value, kept.cpu())
        self._kept, self._fresh, self._views = {}, {}, {}
        self._alive.clear()

    def _before(self, arguments: Any) -> dict[int, _Made]:
        """The values that the operation reads, before it may overwrite them."""
        found = (self._alive.get(tensor) for tensor in tensors_in(arguments))
        return {made.value: made for made in found if made is not None}

    def _note_steps(self, start: int, before: dict[int, _Made]) -> None:
        """Note who made the values of the steps from `start` on, and what explains them."""
        for step in self.steps[start:]:
            self.makers |= dict.fromkeys(step.outputs, step)
            operands: dict[int, _Stored] = {}
            for value in step.reads:
                made = self._fresh.get(value) or before.get(value) or self._views.get(value)
                if made is not None:
                    operands |= {**(made.operands if looks_through(step) else made.routing), value: made.stored}
            for value in step.outputs:
                if value in self._fresh:
                    self._fresh[value].operands.update(operands)

    def _new(self, tensor: Tensor) -> int:
        value = super()._new(tensor)
        self._new_made(tensor, value)
        return value

    def _new_made(self, tensor: Tensor, value: int) -> None:
        with torch._C.DisableTorchFunction():
            stored = _Stored(tensor.detach())  # another tensor on the same memory, so that the key can be freed
        self._memory.setdefault(storage_of(tensor), weakref.WeakSet()).add(stored)
        self._alive[tensor] = self._fresh[value] = _Made(value, stored, {})

    def _note_write(self, tensor: Tensor) -> None:
        super()._note_write(tensor)
        if tensor.numel() * tensor.element_size() < tensor.untyped_storage().nbytes() or tensor._is_view():
            made = self._alive[tensor]
            self._views[made.value] = made

    def _keep_overwritten(self, *targets: Any) -> None:
        """Copy the numbers that lie where some tensors are about to be overwritten."""
        for tensor in tensors_in(targets):
            for stored in self._memory.pop(storage_of(tensor), ()):
                with torch._C.DisableTorchFunction():
                    stored.tensor = stored.tensor.clone()


def is_number(dtype: torch.dtype) -> bool:
    """Whether values of this type are activations; others are masks and indices."""
    return dtype.is_floating_point or dtype.is_complex


def looks_through(step: Step) -> bool:
    """Whether the numbers of a step are its input's, each changed by itself or moved."""
    return is_move(step) or is_stage(step)


def record_operands(module: nn.Module, batch: Tensor, sites: Collection[str]) -> OperandRecording:
    """A pass over `batch` `[1 C H W]` up to the last of `sites`, with the numbers that explain them.

    Raises:
        VizError: the pass does not compute one of the sites.
    """
    batch = batch.clone()
    with torch.no_grad(), OperandRecording(module, batch, set(sites)) as recording, custom_functions(recording.call):
        module(batch)
    check_computed(sorted(sites), recording.values)
    recording.finish()
    return recording
