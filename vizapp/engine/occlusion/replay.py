"""A recording of a clean pass that can be run again, on many changed pictures at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.multiprocessing.reductions import StorageWeakRef

from vizapp.engine.call_arguments import argument, map_leaves, tensors_in
from vizapp.engine.receptive_field.field import input_field, is_read_out
from vizapp.engine.receptive_field.interval import Activation, ReceptiveField
from vizapp.engine.receptive_field.rules import fields_after
from vizapp.engine.tap import operation_name
from vizapp.engine.trace.constant_norms import factor_and_shift, with_norm
from vizapp.engine.trace.recording import CaptureRule, Recording, Step, ValueRef, bind, may_write, storage_of

_PRODUCTS = frozenset({"conv2d", "conv_transpose2d", "linear"})


class NotReplayable(Exception):
    """Why a pass cannot be run again from its recording; the caller then runs the network itself."""


class ReplayRecording(Recording):
    """Records a whole pass over one picture `[1 C H W]`, masks and indices included.

    Attributes:
        clean: `clean[v]` is value v as the pass computed it, for the numbers that are kept (0 is the picture).
        numbers: `numbers[name]` is the value that the operation of that name gave.
        picture: The input of the pass.

    Args:
        module: The network.
        batch: The picture.
        keep: The numbers of the values to keep; None: all.
        rule: How signals will go back, along the recording that `take_signals` then gives; None for no signals.
        until: The site that these start at.
    """

    def __init__(
        self, module: nn.Module, batch: Tensor, keep: Collection[int] | None = None, rule: CaptureRule | None = None,
        until: str = "",
    ) -> None:  # fmt: skip
        self._until, self._signal_steps = until, 0
        self._keep = None if keep is None else frozenset(keep)
        self.clean: dict[int, Tensor] = {0: batch.clone()} if keep is None or 0 in keep else {}
        self._kept_in: dict[StorageWeakRef, list[int]] = {}  # the numbers of the values that lie there
        self.picture = batch  # the input of the pass
        super().__init__(module, batch, set(), rule)

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation and record it.

        Raises:
            NotReplayable: what follows may depend on the values of the input, or a constant was written to.
        """
        if self._signal_steps and name != self._until:
            self._rule = None  # what follows the site passes no signal
        operation = operation_name(function)
        depends = any(tensor in self._ids for tensor in tensors_in((args, kwargs)))
        if may_write(function) or kwargs.get("inplace"):
            self._copy_kept(args[:1])
        output = super().operate(name, function, args, kwargs)
        if name == self._until:
            self._signal_steps = len(self.steps)
        results = [*tensors_in(args[0] if operation == "setitem" else output)]
        if depends and is_read_out(operation, (args, kwargs), results, self._ids.__contains__):
            raise NotReplayable("what it computes next depends on the values of the input")
        if self.steps and self.steps[-1].ctx.get("checked") is None:
            step = self.steps[-1]
            step.ctx["checked"] = True
            written = operation == "setitem" or (bool(args) and output is args[0])
            if written and not isinstance(step.args[0] if step.args else None, ValueRef):
                raise NotReplayable("it writes what it sees into a buffer of its own")
            if kwargs.get("out") is not None:
                raise NotReplayable("it writes results into tensors that it keeps")
        return output

    def call(self, function: type[Function], forward: Callable[..., Any], args: tuple[Any, ...], enabled: bool) -> Any:
        """Run the forward pass of a custom autograd function, which may write into its arguments."""
        self._copy_kept(args)
        return super().call(function, forward, args, enabled)

    def _copy_kept(self, overwritten: Any) -> None:
        """Copy the kept values that lie where some tensors are about to be overwritten."""
        for tensor in tensors_in(overwritten):
            for number in self._kept_in.pop(storage_of(tensor), ()):
                self.clean[number] = self.clean[number].clone()

    def number(self, tensor: Tensor) -> int:
        """The number of a value that the pass computed.

        Raises:
            NotReplayable: it does not depend on the picture.
        """
        number = self._current(tensor)
        if number is None:
            raise NotReplayable("its answer does not depend on the input")
        return number

    @property
    def numbers(self) -> dict[str, int]:
        """The value that each operation gave, by the operation's name."""
        return {step.name: step.outputs[0] for step in self.steps}

    def take_signals(self, rule: CaptureRule) -> Recording:
        """What `trace.recording.record` gives for the site, whose value is kept.

        The steps of this recording then keep nothing for the rule.
        """
        signals, value = copy.copy(self), self.numbers[self._until]
        signals.clean, signals.makers, signals.values = {}, {}, {self._until: (value, self.clean[value])}
        signals.steps = self.steps[: self._signal_steps]
        self.steps = [_without_rule(step) for step in self.steps]
        rule.refine(signals.steps)
        return signals

    def _new(self, tensor: Tensor) -> int:
        number = super()._new(tensor)
        if self._keep is None or number in self._keep:
            self.clean[number] = tensor
            self._kept_in.setdefault(storage_of(tensor), []).append(number)
        return number


def _without_rule(step: Step) -> Step:
    """The step as it is recorded without a rule."""
    return replace(step, inputs=step.reads, ctx={"writes": True} if "writes" in step.ctx else {})


def receptive_fields_of(steps: list[Step], shapes: list[tuple[int, ...]]) -> dict[int, ReceptiveField]:
    """What each value of a recorded pass sees of the picture `shapes[0]` `[1 C H W]`."""
    found = {0: input_field(*shapes[0][2:])}
    for step in steps:
        seen = {value: Activation(shapes[value], found[value]) for value in step.inputs}
        args, kwargs = bind(step.args, seen), bind(step.kwargs, seen)
        found |= zip(
            step.outputs, fields_after(step.function, args, kwargs, [shapes[v] for v in step.outputs]), strict=True
        )
    return found


def fold_batch_norm(steps: list[Step], kept: Collection[int]) -> list[Step]:
    """The same steps with batch norms inside the convolutions before them, whose weights are private to these steps.

    A norm stays where its convolution's own result is `kept` or used by something else.
    """
    used: dict[int, int] = {}
    for step in steps:
        for value in step.inputs:
            used[value] = used.get(value, 0) + 1
    makers = {
        step.outputs[0]: position
        for position, step in enumerate(steps)
        if step.operation == "conv2d" and step.depends_on_input_alone
    }
    answer: list[Step | None] = list(steps)
    for position, step in enumerate(steps):
        if step.operation != "batch_norm" or len(step.inputs) != 1 or step.inputs[0] not in makers:
            continue
        value, maker = step.inputs[0], makers[step.inputs[0]]
        scale = None if used[value] > 1 or value in kept else factor_and_shift(step.args, step.kwargs)
        if scale is not None:
            answer[maker] = None
            answer[position] = _with_norm(steps[maker], step, *scale)
    return [step for step in answer if step is not None]


def round_weights(steps: list[Step], dtype: torch.dtype) -> list[Step]:
    """The same steps with the weights of products rounded once: autocast would round those of a frozen network at each call.

    Autocast leaves float64 as it is.
    """

    def rounded(leaf: Any) -> Any:
        single = isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dtype != torch.float64
        return leaf.to(dtype) if single else leaf

    return [
        replace(step, args=map_leaves(step.args, rounded), kwargs=map_leaves(step.kwargs, rounded))
        if step.operation in _PRODUCTS
        else step
        for step in steps
    ]


def _with_norm(convolution: Step, norm: Step, factor: Tensor, shift: Tensor) -> Step:
    args, kwargs = convolution.args, convolution.kwargs
    weight = argument(args, kwargs, 1, "weight", None)
    weight, bias = with_norm(weight, argument(args, kwargs, 2, "bias", None), factor, shift)
    new_args = (
        argument(args, kwargs, 0, "input", None),
        weight,
        bias,
        argument(args, kwargs, 3, "stride", 1),
        argument(args, kwargs, 4, "padding", 0),
        argument(args, kwargs, 5, "dilation", 1),
        argument(args, kwargs, 6, "groups", 1),
    )
    return Step(norm.name, "conv2d", convolution.function, new_args, {}, convolution.inputs, norm.outputs)
