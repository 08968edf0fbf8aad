"""What each operation sends down: deconvnet (Zeiler & Fergus 2013), guided (Springenberg 2014), gradient (Simonyan 2013).

R is the signal on its way down, F the forward activation. A rectifier passes max(R, 0) (deconvnet), R where R > 0 and
F > 0 (guided), or R where F > 0 (gradient); a max pool sends R to its switches; a convolution, a linear layer, a batch
norm and whatever else is linear send R through their transpose. The paper knows no ReLU6, SiLU, GELU …: these get the
rectifier's rule and are counted apart. Anything else gets its true derivative, and is counted as that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.call_arguments import argument, pair
from vizapp.engine.operations import ACTIVATIONS, BILINEAR, IDENTITIES, LINEAR, OTHER_ACTIVATIONS, RECTIFIERS, WEIGHTED
from vizapp.engine.projection.windowed_signal import WindowedSignal
from vizapp.engine.trace.recording import Step, ValueRef, bind, value_refs

Signal = WindowedSignal | Tensor  # of a value [1 C H W]: a Window; of any other shape s: a tensor [K, *s]
Share = Literal["paper", "extended", "differentiated", "switches", "gates"]


@dataclass(frozen=True)
class Rule:
    """How signals go down. The defaults are those of the papers, or the project's where a paper leaves it open."""

    method: Literal["deconvnet", "guided", "gradient"] = "deconvnet"
    pools: Literal["sum", "overwrite"] = "sum"  # where overlapping windows share a switch
    response_norm: Literal["identity", "derivative"] = "identity"
    gates: Literal["held", "derivative"] = "held"
    extended: bool = True  # whether other activations get the rectifier's rule; else their true derivative

    # ------------------------------------------------------------------------------------------ on the way up

    def run(
        self, operation: str, function: Callable[..., Any], args: Any, kwargs: Any, inputs: list[Tensor],
        opens: tuple[bool, ...],
    ) -> tuple[dict[str, Any], Any]:  # fmt: skip
        """Run the operation unchanged and return what its rule needs on the way down, and its output.

        `opens[i]` says whether input i is made of sigmoids and softmaxes alone, as a gate is.
        """
        base = operation.rstrip("_")
        if base in {"max_pool2d", "adaptive_max_pool2d"}:
            pool = F.max_pool2d_with_indices if base == "max_pool2d" else F.adaptive_max_pool2d_with_indices
            kwargs = {key: value for key, value in kwargs.items() if key != "return_indices"}
            output, switches = pool(*args, **kwargs)
            if base == "max_pool2d":
                return {"taps": _taps(switches, args, kwargs)}, output
            return {"switches": switches}, output
        saved: dict[str, Any] = {}
        activates = base in ACTIVATIONS and _alone(args, kwargs, inputs)
        if activates and self._has_derivative(base):
            saved["slope"] = _slope(function, args, kwargs)
        elif not activates and self._differentiates(base, args, kwargs, inputs):
            saved["at"] = [tensor.clone() for tensor in inputs]
        if base == "mul" and len(inputs) == 2:
            saved["gate"] = _gate(inputs, opens)
            if saved["gate"] is not None:
                saved["held"] = inputs[saved["gate"]].clone()
        output = function(*args, **kwargs)
        if activates and "slope" not in saved and self.method != "deconvnet":
            saved["on"] = output > 0
        return saved, output

    def _has_derivative(self, base: str) -> bool:
        """Whether the operation is an activation that goes down by its own slope."""
        return base in OTHER_ACTIVATIONS and (self.method == "gradient" or not self.extended)

    def _differentiates(self, base: str, args: Any, kwargs: Any, inputs: list[Tensor]) -> bool:
        if base == "local_response_norm":
            return self.method == "gradient" or self.response_norm == "derivative"
        return not _is_linear(base, args, kwargs, inputs)

    # ------------------------------------------------------------------------------------------ on the way down

    def down(
        self, step: Step, signals: list[Signal | None], shapes: list[tuple[int, ...]]
    ) -> tuple[list[Signal | None], Share | None]:
        """The signals at the step's inputs, given those at its outputs, and what the step counts as.

        `shapes[v]` is the shape of value v. Exactly the inputs of `step.inputs`, in that order.
        """
        base = step.operation.rstrip("_")
        signal = signals[0]
        if len(signals) == 1 and signal is not None:
            if (
                base == "mul"
                and step.ctx.get("gate") is not None
                and self.gates == "held"
                and self.method != "gradient"
            ):
                held: list[Signal | None] = [_scaled(signal, step.ctx["held"])]
                held.insert(step.ctx["gate"], None)
                return held, "gates"
            if "at" not in step.ctx:
                found = self._known(base, step, signal, shapes)
                if found is not None:
                    return found
        counted: Share | None = "differentiated" if "at" in step.ctx else None
        return _derivative(step, signals, shapes), counted

    def _known(
        self, base: str, step: Step, signal: Signal, shapes: list[tuple[int, ...]]
    ) -> tuple[list[Signal | None], Share | None] | None:
        """What activations and linear operations send down, where that is cheaper than to run them again; else None."""
        shape = shapes[step.inputs[0]]
        if base in RECTIFIERS:
            return [self._rectified(signal, step)], "differentiated" if self.method == "gradient" else "paper"
        if base in OTHER_ACTIVATIONS:
            by_slope = "slope" in step.ctx
            down = _scaled(signal, step.ctx["slope"]) if by_slope else self._rectified(signal, step)
            return [down], "differentiated" if by_slope else "extended"
        if base in IDENTITIES or base == "local_response_norm":
            passes = isinstance(argument(step.args, step.kwargs, 0, "input", None), ValueRef)
            others = len(step.inputs) - passes  # whose type is taken, as in `x.to(y)`, and nothing else
            return [*[signal] * passes, *[None] * others], None
        if isinstance(signal, WindowedSignal):
            found = self._windowed(base, step, signal, shape, shapes)
            if found is not None:
                return found
        if base in {"add", "sub"} and all(shapes[i] == shapes[step.outputs[0]] for i in step.inputs):
            return _branches(step, signal), None
        return None

    def _rectified(self, signal: Signal, step: Step) -> Signal:
        if self.method == "gradient":
            return _scaled(signal, step.ctx["on"])
        positive = _mapped(signal, lambda values: values.clamp_min(0))
        return _scaled(positive, step.ctx["on"]) if self.method == "guided" else positive

    def _windowed(
        self, base: str, step: Step, signal: WindowedSignal, shape: tuple[int, ...], shapes: list[tuple[int, ...]]
    ) -> tuple[list[Signal | None], Share | None] | None:
        if base == "conv2d" and step.depends_on_input_alone:
            return [_convolution(step, signal, shape)], None
        if base == "batch_norm":
            return [_batch_norm(step, signal)], None
        if base == "max_pool2d":
            return [_max_pool(step, signal, shape, self.pools)], "switches"
        if base == "adaptive_max_pool2d":
            return [_adaptive_max_pool(step, signal, shape, self.pools)], "switches"
        if base == "avg_pool2d":
            down = _average_pool(step, signal, shape)
            return None if down is None else ([down], None)
        if base == "cat" and argument(step.args, step.kwargs, 1, "dim", 0) in {1, -3}:
            return _parts(step, signal, shapes), None
        if base == "truediv" and isinstance(step.args[0], ValueRef) and isinstance(step.args[1], (int, float)):
            return [signal.with_values(signal.values / step.args[1])], None
        if base == "mul" and len(step.inputs) == 1:
            other = next((a for a in step.args if not isinstance(a, ValueRef)), None)
            if isinstance(other, (int, float)) or (isinstance(other, Tensor) and _per_channel(other, shape)):
                return [signal.with_values(signal.values * other)], None
        return None


# ---------------------------------------------------------------------------------------------------- one family each


def _alone(args: Any, kwargs: Any, inputs: list[Tensor]) -> bool:
    """Whether an operation's first argument depends on the picture and nothing else does."""
    return len(inputs) == 1 and argument(args, kwargs, 0, "input", None) is inputs[0]


def _is_linear(base: str, args: Any, kwargs: Any, inputs: list[Tensor]) -> bool:
    """Whether an operation is linear in `inputs`, the values that depend on the picture, given all others."""
    if base in WEIGHTED:
        factors = [argument(args, kwargs, place, name, None) for place, name in enumerate(("input", "weight"))]
        return not all(any(factor is tensor for tensor in inputs) for factor in factors)
    if base in BILINEAR:
        return len(inputs) == 1
    if base == "truediv":
        return not any(argument(args, kwargs, 1, "other", None) is tensor for tensor in inputs)
    if base == "batch_norm":
        return _alone(args, kwargs, inputs) and not argument(args, kwargs, 5, "training", False)
    return base in IDENTITIES | LINEAR


def _per_channel(factor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a constant factor of a value of that shape is one number for each channel, or one for all."""
    return factor.shape[-2:].numel() == 1 and factor.numel() in {1, shape[1]} and factor.ndim in {3, 4}


def _mapped(signal: Signal, change: Callable[[Tensor], Tensor]) -> Signal:
    return signal.with_values(change(signal.values)) if isinstance(signal, WindowedSignal) else change(signal)


def _scaled(signal: Signal, factor: Tensor) -> Signal:
    """The signal times a forward quantity `[1 …]` of the same value (or one that broadcasts to it)."""
    if isinstance(signal, WindowedSignal):
        return signal.with_values(signal.values * signal.crop(factor[(None,) * (4 - factor.ndim)]))
    return signal * factor


def _slope(function: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
    """The derivative of an elementwise function at its input."""
    with torch.enable_grad():
        at = argument(args, kwargs, 0, "input", None).detach().clone().requires_grad_()
        value = function(at.clone(), *args[1:], **{name: given for name, given in kwargs.items() if name != "input"})
        return torch.autograd.grad(value.sum(), at)[0]


def _gate(inputs: list[Tensor], opens: tuple[bool, ...]) -> int | None:
    """Which of two factors is a gate: the one that broadcasts over the cells of the other, or that alone was squashed.

    The second kind are gates as large as what they gate: Highway's H(x) T(x), x sigmoid(x). Of two that broadcast over each
    other (numbers of channels times numbers of cells) neither is one.
    """
    a, b = inputs
    if a.numel() == b.numel():
        return opens.index(True) if opens[0] != opens[1] else None
    gated = max(inputs, key=Tensor.numel)
    if torch.broadcast_shapes(a.shape, b.shape) != gated.shape:
        return None
    return 1 if gated is a else 0


def _branches(step: Step, signal: Signal) -> list[Signal | None]:
    """A sum copies the signal to its terms, a difference turns the sign of the second."""
    signs = {"add": (1, 1), "sub": (1, -1)}[step.operation.rstrip("_")]
    factor = step.kwargs.get("alpha", 1)
    if getattr(step.function, "__name__", "") == "__rsub__":
        signs = (-1, 1)
    given: list[Signal | None] = []
    for place, item in enumerate(step.args[:2]):
        if isinstance(item, ValueRef):
            sign = signs[place] * (factor if place == 1 else 1)
            given.append(signal if sign == 1 else _mapped(signal, lambda values, by=sign: values * by))  # type: ignore[misc]
    if isinstance(step.kwargs.get("other"), ValueRef):
        given.append(_mapped(signal, lambda values: values * (signs[1] * factor)))
    return given


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
    values = F.conv_transpose2d(signal.values, weight, None, stride, 0, 0, groups, dilation)
    top, left = signal.top * stride[0] - padding[0], signal.left * stride[1] - padding[1]
    return WindowedSignal(values, top, left).clipped(shape[2], shape[3])


def _batch_norm(step: Step, signal: WindowedSignal) -> WindowedSignal:
    variance = argument(step.args, step.kwargs, 2, "running_var", None)
    scale = (variance + argument(step.args, step.kwargs, 7, "eps", 1e-5)).rsqrt()
    weight = argument(step.args, step.kwargs, 3, "weight", None)
    scale = scale if weight is None else scale * weight
    return signal.with_values(signal.values * scale[:, None, None].to(signal.values.dtype))


def _pool_geometry(args: Any, kwargs: Any) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, padding and dilation of a max pool."""
    kernel = argument(args, kwargs, 1, "kernel_size", 1)
    stride = argument(args, kwargs, 2, "stride", kernel) or kernel
    return (
        pair(kernel),
        pair(stride),
        pair(argument(args, kwargs, 3, "padding", 0)),
        pair(argument(args, kwargs, 4, "dilation", 1)),
    )


def _taps(switches: Tensor, args: Any, kwargs: Any) -> Tensor:
    """Which place of its own window each maximum was at, counted row by row: `[1 C h w]`, one byte each if that is enough."""
    kernel, stride, padding, dilation = _pool_geometry(args, kwargs)
    width = argument(args, kwargs, 0, "input", None).shape[-1]
    rows, columns = (torch.arange(n, device=switches.device) for n in switches.shape[-2:])
    row = torch.div(switches, width, rounding_mode="floor") - (rows * stride[0] - padding[0])[:, None]
    column = switches % width - (columns * stride[1] - padding[1])
    taps = torch.div(row, dilation[0], rounding_mode="floor") * kernel[1] + torch.div(
        column, dilation[1], rounding_mode="floor"
    )
    return taps.to(torch.uint8 if kernel[0] * kernel[1] < 256 else torch.int32)


def _max_pool(step: Step, signal: WindowedSignal, shape: tuple[int, ...], pools: str) -> WindowedSignal:
    """Each number at the place of its region's maximum, one place of the window after the other.

    Where regions overlap the numbers add up, or that of the last region in reading order stays.
    """
    kernel, stride, padding, dilation = _pool_geometry(step.args, step.kwargs)
    units, channels, h, w = signal.values.shape
    taps = signal.crop(step.ctx["taps"])
    size = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip((h, w), stride, kernel, dilation, strict=True)]
    down = signal.values.new_zeros(units, channels, *size)
    for tap in reversed(range(kernel[0] * kernel[1])):  # a later region reaches a pixel with an earlier place
        y, x = tap // kernel[1] * dilation[0], tap % kernel[1] * dilation[1]
        part = down[:, :, y : y + (h - 1) * stride[0] + 1 : stride[0], x : x + (w - 1) * stride[1] + 1 : stride[1]]
        here = taps == tap
        if pools == "sum":
            part += signal.values * here
        else:
            part.copy_(torch.where(here, signal.values, part))
    top, left = signal.top * stride[0] - padding[0], signal.left * stride[1] - padding[1]
    return WindowedSignal(down, top, left).clipped(shape[2], shape[3])


def _adaptive_max_pool(step: Step, signal: WindowedSignal, shape: tuple[int, ...], pools: str) -> WindowedSignal:
    """Each number at the location of its region's maximum; regions of irregular size, on the whole map."""
    height, width = step.ctx["switches"].shape[2:]
    values = signal.dense(height, width).flatten(2)
    index = step.ctx["switches"].flatten(2).expand(signal.units, -1, -1)
    down = values.new_zeros(signal.units, values.shape[1], shape[2] * shape[3])
    if pools == "sum":
        down.scatter_add_(2, index, values)
    else:
        for region in range(height * width):  # in reading order, so that the last one stays
            here = index[:, :, region : region + 1]
            down.scatter_(2, here, values[:, :, region : region + 1])
    zero = torch.zeros_like(signal.top)
    return WindowedSignal(down.unflatten(2, (shape[2], shape[3])), zero, zero)


def _average_pool(step: Step, signal: WindowedSignal, shape: tuple[int, ...]) -> WindowedSignal | None:
    """The transpose of an average: each number spread evenly over its window. None for irregular windows."""
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


def _parts(step: Step, signal: WindowedSignal, shapes: list[tuple[int, ...]]) -> list[Signal | None]:
    """A concatenation of channels splits the signal again; constant parts take nothing."""
    parts: list[Signal | None] = []
    start = 0
    for item in argument(step.args, step.kwargs, 0, "tensors", ()):
        channels = shapes[item.value][1] if isinstance(item, ValueRef) else item.shape[1]
        if isinstance(item, ValueRef):
            parts.append(signal.with_values(signal.values[:, start : start + channels]))
        start += channels
    return parts


# ------------------------------------------------------------------------------------------------------- anything else


def lifted(values: Tensor, shape: tuple[int, ...]) -> Signal:
    """Signals `[K, *shape]` as a Signal of a value of that shape."""
    if len(shape) == 4 and shape[0] == 1:
        zero = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        return WindowedSignal(values[:, 0], zero, zero)
    return values


def spread(signal: Signal, shape: tuple[int, ...]) -> Tensor:
    """A Signal of a value of that shape as a tensor `[K, *shape]`."""
    return signal.dense(shape[2], shape[3])[:, None] if isinstance(signal, WindowedSignal) else signal


def _derivative(step: Step, signals: list[Signal | None], shapes: list[tuple[int, ...]]) -> list[Signal | None]:
    """The true derivative of the operation, for all units at once, by running it again under autograd."""
    given = next(signal for signal in signals if signal is not None)
    like = given.values if isinstance(given, WindowedSignal) else given
    if "at" in step.ctx:
        at = [tensor.detach().clone() for tensor in step.ctx["at"]]
    else:  # linear: the derivative is the same everywhere
        at = [like.new_zeros(shapes[value]) for value in step.inputs]
    numbers = list(dict.fromkeys(slot.value for slot in value_refs((step.args, step.kwargs))))
    by_value: dict[int, Tensor] = {}
    for value, tensor in zip(step.inputs, at, strict=True):
        by_value.setdefault(value, tensor.requires_grad_())
    with torch.enable_grad():
        # An in-place function writes into a copy, never into the point of differentiation.
        copies = {value: by_value[value].clone() for value in numbers}
        args, kwargs = bind(step.args, copies), bind(step.kwargs, copies)
        output = step.function(*args, **kwargs)
    produced = args[0] if step.operation == "setitem" else output
    results = [produced] if isinstance(produced, Tensor) else [t for t in produced if isinstance(t, Tensor)]
    results = [result for result in results if result.is_floating_point()]
    pairs = [
        (result, spread(signal, shapes[value]))
        for result, signal, value in zip(results, signals, step.outputs, strict=True)
        if signal is not None and result.requires_grad
    ]
    if not pairs:
        return [None] * len(step.inputs)
    leaves = list(by_value.values())
    gradients = torch.autograd.grad(
        [result for result, _ in pairs], leaves, [r for _, r in pairs], is_grads_batched=True, allow_unused=True
    )
    found = dict(zip(by_value, gradients, strict=True))
    down: list[Signal | None] = []
    for value in step.inputs:
        gradient = found.pop(value, None)  # a value that stands twice among the inputs gets its whole signal once
        down.append(None if gradient is None else lifted(gradient, shapes[value]))
    return down
