"""Layer-wise relevance propagation as a rule of the tape: R goes down in shares of what each number contributed.

Bach et al. 2015; the rules by depth are those of Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview",
sections 10.2 and 10.3. A signal is c = R / a, so that moves of numbers, max pools and rectifiers are those of the gradient.

- Scales and shifts after a convolution or linear layer (batch norms, however they are written) belong to it; those before one
  do, too. Other norms of this kind are layers of their own.
- Sums, means, pools and interpolations share by their summands, with the stabiliser.
- Other activations than ReLU pass the relevance as it is. So does local response norm, and a product with a gate.
- Attention (Achtibat et al. 2024, AttnLRP, section 3): both factors of a product get half, softmax is differentiated, and a
  divisor or the deviation in a layer norm is a constant.
- Everything else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.operations import (
    BILINEAR,
    IDENTITIES,
    LINEAR_IN_FIRST,
    METADATA,
    POINTWISE,
    SUMS_WITH_PRODUCTS,
    WEIGHTED,
)  # fmt: skip
from vizapp.engine.projection.affine import Affine, affine
from vizapp.engine.projection.pixel_range import PixelRange
from vizapp.engine.projection.relevance_layer import Layer, LayerRule, total_of
from vizapp.engine.projection.relevance_products import balance, divisors, refusal, shared
from vizapp.engine.projection.rules import Family, Rule, Shapes
from vizapp.engine.projection.windowed_signal import Signal, WindowedSignal, added, map_values, scale
from vizapp.engine.trace.recording import Call, Step, map_leaves
from vizapp.errors import VizError

Composite = Literal["composite", "depth", "plus", "epsilon", "zero"]
# Linear operations that add numbers up.
_SUMS = frozenset({
    "add", "sub", "rsub", "mean", "sum", "nansum", "trace", "cumsum", "diff", "interpolate", "upsample", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "index_add",
    "scatter_add", "sum_to_size", "trapezoid", "trapz", "lerp",
}) | WEIGHTED | (BILINEAR - {"mul"}) | SUMS_WITH_PRODUCTS | LINEAR_IN_FIRST  # fmt: skip
_FILLING = frozenset({"masked_fill", "setitem", "index_fill", "pad", "lerp", "scatter"})
# Linear operations that may put constants beside what they read, or fill in numbers.
_WITH_CONSTANTS = SUMS_WITH_PRODUCTS | frozenset({
    "add", "sub", "rsub", "cat", "stack", "hstack", "vstack", "dstack", "column_stack", "where", "masked_fill", "setitem",
    "index_put", "index_fill", "masked_scatter", "pad", "lerp", "copy", "scatter", "index_copy",
})  # fmt: skip


@dataclass(frozen=True)
class Relevance(Rule):
    """The rules of each layer, by its place.

    Args:
        composite: "composite": box at the pixels, gamma for convolutions, epsilon for vectors. "depth": box at the pixels,
            gamma for the layers named by `lower`, epsilon for other convolutions, zero for vectors (as Montavon et al. divide
            VGG-16). "plus": positive contributions for convolutions, epsilon for vectors. "epsilon", "zero": everywhere.
        epsilon: The stabiliser, as a share of the root mean square of the layer's output.
        gamma: What contributions of the output's sign are favoured by.
        low: The pixel values of black in the network's input space, per channel; empty: no box.
        high: Those of white.
        lower: Names of the layers that "depth" gives to gamma.
    """

    composite: Composite = "composite"
    epsilon: float = 1e-6
    gamma: float = 0.25
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    lower: frozenset[str] = frozenset()

    def family(self, call: Call) -> Family:
        """As for other rules; functions of single numbers are activations, and so is local response norm."""
        family = super().family(call)
        lone = family == "other" and call.operation in POINTWISE - {"where"} and call.depends_on_input_alone
        return "activation" if lone or call.operation == "local_response_norm" else family

    def capture(self, call: Call) -> tuple[dict[str, Any], Any]:
        """Run an operation unchanged; end the layers that it reads, and begin or continue one."""
        family, ctx = self.classify(call)
        if call.operation in METADATA:
            return self.run(family, ctx, call)
        scales = affine(call) if family in {"linear", "identity"} and "merged" not in ctx else None
        weighted = family == "linear" and call.operation in WEIGHTED and call.depends_on_input_alone
        open_layer = self._read(call, scales is not None, weighted, family == "rectifier" and "merged" not in ctx)
        pixels = PixelRange.after(call, self.low, self.high) if family in {"linear", "identity"} else None
        layer = None
        if scales is not None:
            layer = open_layer or (None if call.operation in IDENTITIES else self._affine(scales))
        elif family == "linear":
            layer = self._layer(call, weighted, ctx)
        root = self._root(call) if family == "activation" else None
        ctx, output = self.run(family, ctx, call)
        if root is not None:
            made = next(iter(tensors_in(call.args[0] if call.operation == "setitem" else output)))
            ctx |= _ratio(made, root)
        elif family == "activation":
            ctx["gone"] = True  # an error where relevance gets here: boxes are computed beside the scores
        if call.operation in {"mul", "truediv"} and family == "other":
            ctx["divisors"] = divisors(call)
        if pixels is not None:
            ctx["pixels"] = pixels
        if layer is not None:
            layer.add(call.step, scales or Affine(1.0, ctx.pop("bias", 0.0)))
            ctx["layer"] = layer
            layer.output = None if layer.finished else next(iter(tensors_in(output)), None)
        return ctx, output

    def _read(self, call: Call, scales: bool, weighted: bool, rectifies: bool) -> Layer | None:
        """End the layers that the call reads, unless it continues one, which is returned."""
        for value, tensor in zip(call.step.reads, call.inputs, strict=True):
            maker = call.recording.makers.get(value)
            layer: Layer | None = None if maker is None else maker.ctx.get("layer")
            if maker is None or layer is None:
                continue
            layer.output = None
            if maker is not layer.steps[-1]:
                layer.end_at(maker, tensor)
            elif scales and not layer.finished:
                return layer
            elif not layer.finished and not (weighted and layer.is_affine):
                layer.finish(tensor, rectifies)
            elif layer.rectified and not rectifies:
                layer.finish(tensor)
                layer.active = tensor > 0
        for value in set(call.step.inputs) - set(call.step.reads):  # where an activation starts that is written out
            maker, root = call.recording.makers.get(value), call.recording.tensor_of(value)
            layer = None if maker is None else maker.ctx.get("layer")
            if maker is None or layer is None or maker is layer.steps[-1]:
                continue
            if root is not None:
                layer.end_at(maker, root)
            elif layer.only_copies_after(maker):  # what the layer gives is the same
                (last,) = layer.steps[-1].outputs
                call.step.inputs, call.step.dtypes = (last,), (call.recording.dtypes[last],)
            else:
                raise _gone(call.step)
        return None

    def _affine(self, scales: Affine) -> Layer:
        shifts = not isinstance(scales.shift, float) or scales.shift != 0
        return Layer("zero" if self.composite == "zero" or not shifts else "epsilon", self.epsilon, 0.0, is_affine=True)

    def _layer(self, call: Call, weighted: bool, ctx: dict[str, Any]) -> Layer | None:
        """The layer that a linear operation begins; what it needs on the way back is added to `ctx`."""
        if weighted:
            return self._weighted(call, ctx)
        adds = call.operation in _SUMS
        given = sum(1 for _ in tensors_in((call.args, call.kwargs)))
        if call.operation in _FILLING or (call.operation in _WITH_CONSTANTS and given > len(call.inputs)):
            ctx["bias"] = _offset(call)
        if not adds and isinstance(ctx.get("bias", 0.0), float):
            return None
        rule: LayerRule = "epsilon" if adds and self.composite != "zero" else "zero"
        return Layer(rule, self.epsilon, 0.0)

    def _weighted(self, call: Call, ctx: dict[str, Any]) -> Layer:
        x, weight = call.inputs[0], argument(call.args, call.kwargs, 1, "weight", None)
        bias = argument(call.args, call.kwargs, 2, "bias", None)
        maps = x.ndim == 4 and x.shape[1:3].numel() > 1 if call.operation == "linear" else x[0, 0].numel() > 1
        box = PixelRange.of(call.step.reads[0], call, self.low, self.high)
        rule = self._rule_of(call.step.name, maps, box is not None)
        layer = Layer(rule, self.epsilon, self.gamma)
        ctx["weight"] = weight
        if bias is not None:
            ctx["bias"] = bias.detach().view(-1, *(1,) * (0 if call.operation == "linear" else x.ndim - 2)).clone()
        if rule in {"zero", "epsilon"}:
            return layer
        if rule == "box":
            assert box is not None
            layer.centred = _run_with(call, x - box.middle, weight)
            layer.spread = _run_with(call, box.half.abs().expand_as(x), weight.abs())
            ctx |= {"box": box, "offset": x - box.middle}
            box.enter(call)
            return layer
        maker = call.recording.makers.get(call.step.reads[0])
        before: Layer | None = None if maker is None else maker.ctx.get("layer")
        if before is not None and before.is_affine and not before.finished:  # a norm before the layer
            shift = torch.as_tensor(before.composed.shift, dtype=x.dtype, device=x.device).expand_as(x)
            x, ctx["shift"] = x - shift, before.composed.shift
            ctx["bias"] = ctx.get("bias", 0.0) + _run_with(call, shift, weight)
        layer.spread = _run_with(call, x.abs(), weight.abs())
        below = x < 0
        if below.any():
            ctx["below"] = below
        return layer

    def _rule_of(self, name: str, maps: bool, box: bool) -> LayerRule:
        if self.composite in {"zero", "epsilon"}:
            return self.composite
        if box and self.composite != "plus":
            return "box"
        if self.composite == "depth":
            return "zero" if not maps else "gamma" if name in self.lower else "epsilon"
        return "epsilon" if not maps else "plus" if self.composite == "plus" else "gamma"

    def _root(self, call: Call) -> Tensor | None:
        """The numbers that an activation reads, before they can be overwritten; None if they are gone."""
        (root,) = call.step.inputs
        for value, tensor in zip(call.step.reads, call.inputs, strict=True):
            if value == root:
                return tensor.clone()
        found = call.recording.tensor_of(root)
        return None if found is None else found.clone()

    def keep(self, family: Family, call: Call, output: Any) -> dict[str, Any]:
        """Where a rectifier is active, unless the factor of the layer below says so."""
        if family != "rectifier":
            return {}
        maker = call.recording.makers.get(call.step.inputs[0])
        below: Layer | None = None if maker is None else maker.ctx.get("layer")
        if below is not None and below.rectified and maker is below.steps[-1]:
            return {"below_layer": below, "one_sided": True}
        return {"ratio": output > 0, "one_sided": True}

    def refine(self, steps: list[Step]) -> None:
        """End the layers that nothing reads, and see which of them get signals only where they are positive."""
        users: dict[int, list[Step]] = {}
        for step in steps:
            for value in step.inputs:
                users.setdefault(value, []).append(step)
        for step in steps:
            layer: Layer | None = step.ctx.get("layer")
            if layer is None or step is not layer.steps[-1]:
                continue
            if layer.output is not None and not layer.finished:
                layer.finish(layer.output)
            layer.output = None
            readers = users.get(step.outputs[0], [])
            if (
                layer.factor is not None
                and readers
                and all(r.ctx.get("one_sided") and not r.ctx.get("negated") for r in readers)
            ):
                layer.negative = None
        super().refine(steps)

    def backward(
        self, step: Step, signals: list[Signal | None], shapes: Shapes
    ) -> tuple[list[Signal | None], str | None]:
        """The signals at the inputs of a step. What biases and stabilisers took `[K]` is left in `step.ctx["absorbed"]`."""
        layer: Layer | None = step.ctx.get("layer")
        family, signal = step.ctx["family"], signals[0]
        if family in {"flat", "custom"}:
            raise refusal(step)
        if family == "other":
            below, told = shared(step, signals, shapes)
            step.ctx["absorbed"] = balance(step, signals, below, shapes)
            return below, told
        if signal is None:
            return super().backward(step, signals, shapes)
        if "gone" in step.ctx:
            raise _gone(step)
        if layer is not None and step is layer.steps[-1]:
            signal = signal if layer.factor is None else scale(signal, layer.factor)
            step.ctx["absorbed"] = layer.absorbed(signal)
        if "weight" in step.ctx:
            assert layer is not None
            return self._to_contributions(step, layer, signal, shapes), layer.rule
        if "lost" in step.ctx:
            step.ctx["absorbed"] = total_of(signal, step.ctx["lost"]), total_of(signal, 0.0)
        below, _ = super().backward(step, [signal, *signals[1:]], shapes)
        if layer is not None and step is layer.steps[0]:
            return below, "affine" if layer.is_affine else "sum"
        if layer is not None:
            return below, "folded" if step.operation.rstrip("_") not in IDENTITIES else None
        return below, _COUNTED.get(family)

    def rectifier(self, signal: Signal, step: Step) -> Signal:
        """The relevance passes: R / z below is R / a above times a / z."""
        below: Layer | None = step.ctx.get("below_layer")
        if below is None:
            return scale(signal, step.ctx["ratio"])
        return signal if below.active is None else scale(signal, below.active)

    def _to_contributions(self, step: Step, layer: Layer, signal: Signal, shapes: Shapes) -> list[Signal | None]:
        """The signal below a layer with weights, from that at the first of its operations."""
        (alpha, beta), weight = layer.weights, step.ctx["weight"]
        if not beta:
            return self.linear(signal, step, shapes)
        dtype = (signal.values if isinstance(signal, WindowedSignal) else signal).dtype
        tau = layer.tau(dtype)
        by_output = _by_output(tau, step)
        if layer.rule != "box" and "below" not in step.ctx and by_output is not None:
            joined = alpha * weight + beta * by_output * weight.abs()
            return self._without_shift(step, self.linear(signal, with_weight(step, joined), shapes))
        (plain,) = self.linear(signal, with_weight(step, weight), shapes)
        (sized,) = self.linear(_times(signal, tau), with_weight(step, weight.abs()), shapes)
        assert plain is not None
        assert sized is not None
        if layer.rule == "box":
            box: PixelRange = step.ctx["box"]
            relevance = added(scale(plain, step.ctx["offset"]), scale(sized, box.half.abs()))
            return [box.to_picture(relevance, step.reads[0], self, shapes)]
        sized = _times(sized, beta)
        if "below" in step.ctx:
            sized = scale(sized, 1 - 2 * step.ctx["below"].to(dtype))
        return self._without_shift(step, [added(_times(plain, alpha), sized)])

    def _without_shift(self, step: Step, down: list[Signal | None]) -> list[Signal | None]:
        """The signals; what the norm before will count of its shift is taken from what the layer counts of it."""
        if "shift" in step.ctx and down[0] is not None:
            bias, stabiliser = step.ctx.get("absorbed", (0.0, total_of(down[0], 0.0)))
            step.ctx["absorbed"] = bias - total_of(down[0], step.ctx["shift"]), stabiliser
        return down


_COUNTED = {"rectifier": "rectifiers", "activation": "activations", "max pool": "switches", "gate": "gates"}


def _gone(step: Step) -> VizError:
    return VizError(
        f"LRP cannot follow how this network writes an activation at {step.name!r}: its input is gone by then.",
        code="no-relevance",
    )


def _times(signal: Signal, factor: Tensor | float) -> Signal:
    return scale(signal, factor) if isinstance(factor, Tensor) else map_values(signal, lambda values: values * factor)


def _by_output(number: Tensor | float, step: Step) -> Tensor | float | None:
    """A factor of a layer's output as one of its weights: one for each output channel; None if it varies over cells."""
    if isinstance(number, float) or number.numel() == 1:
        return number
    if step.operation == "linear":
        return number[:, None] if number.ndim == 1 else None
    per_channel = number.ndim in {3, 4} and number.shape[-3] == number.numel() and "transpose" not in step.operation
    return number.view(-1, *(1,) * (step.ctx["weight"].ndim - 1)) if per_channel else None


def with_weight(step: Step, weight: Tensor) -> Step:
    """The step of a layer with other weights, without bias; signals go to what it reads."""
    args, kwargs = _weight_in(step.args, step.kwargs, weight)
    return replace(step, args=args, kwargs=kwargs, inputs=step.reads)


def _run_with(call: Call, x: Tensor, weight: Tensor) -> Tensor:
    """The output of a layer for another input and other weights, without bias."""
    args, kwargs = _weight_in(call.args, call.kwargs, weight)
    args, kwargs = (map_leaves(part, lambda leaf: x if leaf is call.inputs[0] else leaf) for part in (args, kwargs))
    output: Tensor = call.function(*args, **kwargs)
    return output


def _weight_in(args: Any, kwargs: Any, weight: Tensor) -> tuple[Any, Any]:
    args = tuple(weight if place == 1 else None if place == 2 else item for place, item in enumerate(args))
    given = {"weight": weight, "bias": None}
    return args, {name: given.get(name, value) for name, value in kwargs.items()}


def _offset(call: Call) -> Tensor | float:
    """What a linear operation computes from zeros: its constants."""
    zeros = {id(tensor): torch.zeros_like(tensor) for tensor in call.inputs}
    args, kwargs = (map_leaves(part, lambda leaf: zeros.get(id(leaf), leaf)) for part in (call.args, call.kwargs))
    output = call.function(*args, **kwargs)
    made = next(iter(tensors_in(args[0] if call.operation == "setitem" else output)))
    return made if made.any() else 0.0


def _ratio(output: Tensor, root: Tensor) -> dict[str, Any]:
    """Output over input of a function of each number, and what it makes of zeros, which no ratio shows."""
    zero = root == 0
    ratio = torch.where(zero, 0, output / torch.where(zero, 1, root))
    found: dict[str, Any] = {"ratio": ratio, "one_sided": not bool(((root < 0) & (output != 0)).any())}
    at_zero = torch.where(zero, output, 0)
    return found | ({"lost": at_zero} if at_zero.any() else {})
