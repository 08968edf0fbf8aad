"""Transposes of linear operations, computed on signal windows where possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.call_arguments import argument, pair, tensors_in
from vizapp.engine.memory.chunks import is_out_of_memory
from vizapp.engine.projection.windowed_signal import Signal, WindowedSignal, as_signal, as_tensor, map_values
from vizapp.engine.trace.custom_functions import FAILURES
from vizapp.engine.trace.recording import Step, ValueRef, bind, value_refs
from vizapp.errors import VizError


def transpose_sum(step: Step, signal: Signal) -> list[Signal | None]:
    """Transpose of a sum or difference: the terms get the signal; the second term of a difference gets it negated."""
    signs = {"add": (1, 1), "sub": (1, -1)}[step.operation.rstrip("_")]
    factor = step.kwargs.get("alpha", 1)
    if getattr(step.function, "__name__", "") == "__rsub__":
        signs = (-1, 1)
    given: list[Signal | None] = []
    for place, item in enumerate(step.args[:2]):
        if isinstance(item, ValueRef):
            sign = signs[place] * (factor if place == 1 else 1)
            given.append(signal if sign == 1 else map_values(signal, lambda values, by=sign: values * by))  # type: ignore[misc]
    if isinstance(step.kwargs.get("other"), ValueRef):
        given.append(map_values(signal, lambda values: values * (signs[1] * factor)))
    return given


def transpose_linear(step: Step, signal: Signal, shapes: list[tuple[int, ...]]) -> Signal:
    """Transpose of a linear layer with constant weights."""
    weight = argument(step.args, step.kwargs, 1, "weight", None)
    values = as_tensor(signal, shapes[step.outputs[0]])
    return as_signal(values @ weight.to(values.dtype), shapes[step.inputs[0]])


def windowed_transpose(step: Step, signal: WindowedSignal, shapes: list[tuple[int, ...]]) -> list[Signal | None] | None:
    """The signals at the inputs of a linear operation, computed on windows.

    None if there is no rule for the operation; `derivative` then computes the same on whole maps.
    """
    name, shape = step.operation.rstrip("_"), shapes[step.inputs[0]]
    if name == "conv2d" and step.depends_on_input_alone:
        return [_convolution(step, signal, shape)]
    if name == "batch_norm":
        return [_batch_norm(step, signal)]
    if name == "avg_pool2d":
        spread = _average_pool(step, signal, shape)
        return None if spread is None else [spread]
    if name == "cat" and argument(step.args, step.kwargs, 1, "dim", 0) in {1, -3}:
        return _split_channels(step, signal, shapes)
    if name == "truediv" and isinstance(step.args[0], ValueRef) and isinstance(step.args[1], (int, float)):
        return [signal.with_values(signal.values / step.args[1])]
    if name == "mul" and len(step.inputs) == 1 and shape == shapes[step.outputs[0]]:
        factor = next((a for a in step.args if not isinstance(a, ValueRef)), None)
        if isinstance(factor, (int, float)) or (isinstance(factor, Tensor) and _per_channel(factor, shape)):
            return [signal.with_values(signal.values * (factor.conj() if isinstance(factor, Tensor) else factor))]
    return None


def _per_channel(factor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a constant factor of a value of that shape has one number per channel or one for all."""
    return factor.shape[-2:].numel() == 1 and factor.numel() in {1, shape[1]} and factor.ndim in {3, 4}


def _convolution(step: Step, signal: WindowedSignal, shape: tuple[int, ...]) -> WindowedSignal:
    weight = argument(step.args, step.kwargs, 1, "weight", None)
    stride = pair(argument(step.args, step.kwargs, 3, "stride", 1))
    dilation = pair(argument(step.args, step.kwargs, 5, "dilation", 1))
    groups = argument(step.args, step.kwargs, 6, "groups", 1)
    padding = argument(step.args, step.kwargs, 4, "padding", 0)
    kernel = weight.shape[-2:]
    if padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    padding = (0, 0) if padding == "valid" else pair(padding)
    weight = weight.to(signal.values.dtype)  # under autocast
    values = F.conv_transpose2d(signal.values, weight, None, stride, 0, 0, groups, dilation)
    top, left = signal.top * stride[0] - padding[0], signal.left * stride[1] - padding[1]
    return WindowedSignal(values, top, left).clipped(shape[2], shape[3])


def _batch_norm(step: Step, signal: WindowedSignal) -> WindowedSignal:
    variance = argument(step.args, step.kwargs, 2, "running_var", None)
    scale = (variance + argument(step.args, step.kwargs, 7, "eps", 1e-5)).rsqrt()
    weight = argument(step.args, step.kwargs, 3, "weight", None)
    scale = scale if weight is None else scale * weight
    return signal.with_values(signal.values * scale[:, None, None].to(signal.values.dtype))


def _average_pool(step: Step, signal: WindowedSignal, shape: tuple[int, ...]) -> WindowedSignal | None:
    """Spreads each value evenly over its window. None for irregular windows."""
    kernel = argument(step.args, step.kwargs, 1, "kernel_size", 1)
    stride = pair(argument(step.args, step.kwargs, 2, "stride", kernel) or kernel)
    kernel, padding = pair(kernel), pair(argument(step.args, step.kwargs, 3, "padding", 0))
    ceil = argument(step.args, step.kwargs, 4, "ceil_mode", False)
    counts_padding = argument(step.args, step.kwargs, 5, "count_include_pad", True)
    if ceil or (any(padding) and not counts_padding) or argument(step.args, step.kwargs, 6, "divisor_override", None):
        return None
    channels = signal.values.shape[1]
    weight = signal.values.new_full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
    values = F.conv_transpose2d(signal.values, weight, None, stride, 0, 0, channels)
    top, left = signal.top * stride[0] - padding[0], signal.left * stride[1] - padding[1]
    return WindowedSignal(values, top, left).clipped(shape[2], shape[3])


def _split_channels(step: Step, signal: WindowedSignal, shapes: list[tuple[int, ...]]) -> list[Signal | None]:
    """Splits the signal of a concatenation of channels; constant parts are dropped."""
    parts: list[Signal | None] = []
    start = 0
    for item in argument(step.args, step.kwargs, 0, "tensors", ()):
        channels = shapes[item.value][1] if isinstance(item, ValueRef) else item.shape[1]
        if isinstance(item, ValueRef):
            parts.append(signal.with_values(signal.values[:, start : start + channels]))
        start += channels
    return parts


def derivative(step: Step, signals: list[Signal | None], shapes: list[tuple[int, ...]]) -> list[Signal | None]:
    """The derivative of the operation for all units at once: runs it again under autograd."""
    function, given_args = step.ctx.get("instead", (step.function, step.args))
    given_kwargs = {} if "instead" in step.ctx else step.kwargs
    if "at" in step.ctx:
        at = [tensor.detach().clone() for tensor in step.ctx["at"]]
    else:  # linear: the derivative is the same everywhere
        signal = next(signal for signal in signals if signal is not None)
        device = (signal.values if isinstance(signal, WindowedSignal) else signal).device
        at = [
            torch.zeros(shapes[value], dtype=dtype, device=device)
            for value, dtype in zip(step.inputs, step.dtypes, strict=True)
        ]
    numbers = list(dict.fromkeys(slot.value for slot in value_refs((given_args, given_kwargs))))
    by_value: dict[int, Tensor] = {}
    for value, tensor in zip(step.inputs, at, strict=True):
        by_value.setdefault(value, tensor.requires_grad_(tensor.is_floating_point() or tensor.is_complex()))
    with torch.enable_grad():
        # In-place functions write into a copy, not into the point of differentiation.
        copies = {value: by_value[value].clone() for value in numbers}
        args, kwargs = bind(given_args, copies), bind(given_kwargs, copies)
        kwargs.pop("out", None)  # autograd allows no tensor that is written to
        with _naming(step):
            output = function(*args, **kwargs)
    results = tensors_in(args[0] if step.operation == "setitem" else output)
    pairs = [
        (result, as_tensor(signal, shapes[value]))
        for result, signal, value in zip(results, signals, step.outputs, strict=True)
        if signal is not None and result.requires_grad
    ]
    if not pairs:
        return [None] * len(step.inputs)
    leaves = {value: tensor for value, tensor in by_value.items() if tensor.requires_grad}
    ends, given = [result for result, _ in pairs], [signal for _, signal in pairs]
    with _naming(step):
        if step.ctx["family"] == "custom":
            gradients: Sequence[Tensor | None] = _one_by_one(ends, list(leaves.values()), given)
        else:
            gradients = torch.autograd.grad(
                ends, list(leaves.values()), given, is_grads_batched=True, allow_unused=True
            )
    found = dict(zip(leaves, gradients, strict=True))
    down: list[Signal | None] = []
    for value in step.inputs:
        gradient = found.pop(value, None)  # a value that occurs twice among the inputs gets its whole signal once
        down.append(None if gradient is None else as_signal(gradient, shapes[value]))
    return down


def _one_by_one(results: list[Tensor], leaves: list[Tensor], signals: list[Tensor]) -> tuple[Tensor | None, ...]:
    """Gradients of several signals; the backward pass of a custom function may do what torch cannot do on batches."""
    rows = [
        torch.autograd.grad(results, leaves, [signal[k] for signal in signals], retain_graph=True, allow_unused=True)
        for k in range(len(signals[0]))
    ]
    return tuple(None if column[0] is None else torch.stack(column) for column in zip(*rows, strict=True))


@contextmanager
def _naming(step: Step) -> Iterator[None]:
    """A block in which torch may find that it has no derivative of the operation, or a custom backward pass may fail."""
    try:
        yield
    except FAILURES as error:
        if step.ctx["family"] == "custom" and not is_out_of_memory(error):
            raise VizError(
                f"The backward pass of {step.operation!r}, a custom autograd function of this network, fails: "
                f"{(str(error).strip().splitlines() or [type(error).__name__])[0][:200]}",
                code="custom-backward",
            ) from error
        if "derivative for" not in str(error):
            raise
        raise VizError(
            f"Torch has no derivative of {step.operation!r}, which this network uses between the unit and the pixels.",
            code="no-derivative",
        ) from error
