"""A layer of layer-wise relevance propagation: a convolution or linear layer with the norms after it, a sum, a pool."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from vizapp.engine.projection.affine import Affine
from vizapp.engine.projection.windowed_signal import Signal, WindowedSignal, scale
from vizapp.engine.trace.recording import Step

LayerRule = Literal["zero", "epsilon", "gamma", "plus", "box"]


@dataclass(eq=False)
class Layer:
    """An affine function z of what the layer reads, made by one operation and then some that scale and shift.

    With contributions a_j w_jk (the scales are part of the weights) and bias b_k:

        R_j = sum_k (alpha a_j w_jk + beta tau_k |a_j w_jk|) / (z'_k + epsilon sign z'_k) R_k

    and z'_k, the sum over j of the numerator and the like of the bias. "zero" and "epsilon": alpha = 1, beta = 0.
    "gamma": alpha = 1 + gamma / 2, beta = gamma / 2, tau = sign z, which is gamma times the contributions of z's own sign.
    "plus": alpha = beta = 1/2, tau = 1, which is the positive contributions. "box": alpha = beta = 1, tau = 1, of pixels that
    are counted from the middle of their range, with its half in place of |a_j|.

    A signal is c = R / z, so that "zero" is the transpose. `factor` is (R_k / z'_k) / c_k.

    `spread` is sum_j |a_j w_jk| of the first of its `steps` alone, `centred` (of a box) its sum_j (a_j - middle_j) w_jk.
    `scales` says what each step does to each number; for a first one that adds up, that is to add its bias.
    `output` is the value now, until it is read.
    """

    rule: LayerRule
    epsilon: float  # relative to the root mean square of z
    gamma: float
    is_affine: bool = False  # scales and shifts alone, without a layer before
    steps: list[Step] = field(default_factory=list)
    scales: list[Affine] = field(default_factory=list)
    spread: Tensor | None = None
    centred: Tensor | None = None
    output: Tensor | None = None
    factor: Tensor | None = None
    negative: Tensor | None = None  # where z < 0; None once it is known that no signal arrives there
    stabiliser: float = 0.0
    finished: bool = False
    rectified: bool = False
    active: Tensor | None = None  # where z > 0, for a rectifier that can no longer count on the factor

    @property
    def composed(self) -> Affine:
        """What all steps together do: the product of the scales, and the bias of the layer."""
        return functools.reduce(Affine.then, self.scales)

    def add(self, step: Step, scales: Affine) -> None:
        """A further step of the layer."""
        self.steps.append(step)
        self.scales.append(scales)

    def only_copies_after(self, step: Step) -> bool:
        """Whether the layer's later steps change no number."""
        after = self.scales[self.steps.index(step) + 1 :]
        return all(isinstance(part, float) for one in after for part in one) and all(one == (1.0, 0.0) for one in after)

    def end_at(self, step: Step, z: Tensor) -> None:
        """End the layer at one of its steps, whose output `z` others read, too; the later steps become transposes."""
        after = self.steps.index(step) + 1
        head = replace(self, steps=self.steps[:after], scales=self.scales[:after], rectified=False)
        for one in head.steps:
            one.ctx["layer"] = head
        self.active = self.factor != 0 if self.rectified and self.factor is not None else self.active
        self.negative = None
        self.rule, self.finished, self.stabiliser, self.factor, self.rectified = "zero", True, 0.0, None, False
        del self.steps[:after], self.scales[:after]
        head.finish(z)

    def finish(self, z: Tensor, rectified: bool = False) -> None:
        """Compute the factor: `z` is the output, and nothing further belongs to the layer.

        If only a rectifier reads it, signals arrive where z is positive alone, and the factor is zero elsewhere.
        """
        self.finished, self.output, self.negative = True, None, None
        if self.rule == "zero":
            return
        self.rectified = rectified
        total, bias = self.composed
        size = z.clamp_min(0) if rectified else z.abs()
        self.stabiliser = self.epsilon * float(torch.linalg.vector_norm(z)) / math.sqrt(max(z.numel(), 1))
        smallest = max(self.stabiliser, torch.finfo(z.dtype).tiny)
        if self.rule in {"epsilon", "gamma"} and not rectified:
            self.negative = z < 0
        if self.rule == "epsilon":
            self.factor = size / (size + smallest)
            return
        assert self.spread is not None
        total = total if isinstance(total, Tensor) else self.spread.new_tensor(total)
        numerator = size if rectified else z
        if self.rule == "box":
            assert self.centred is not None
            self.factor = numerator / (total * self.centred + total.abs() * self.spread + smallest)
            return
        spread = total.abs() * self.spread + _size(bias)
        if self.rule == "gamma":
            self.factor = size / ((1 + self.gamma / 2) * size + (self.gamma / 2) * spread + smallest)
        else:
            self.factor = numerator / ((spread + z) / 2 + smallest)

    @property
    def weights(self) -> tuple[float, float]:
        """alpha and beta."""
        if self.rule == "gamma":
            return 1 + self.gamma / 2, self.gamma / 2
        return {"plus": (0.5, 0.5), "box": (1.0, 1.0)}.get(self.rule, (1.0, 0.0))

    def tau(self, dtype: torch.dtype) -> Tensor | float:
        """tau times the sign of the scales, by which it changes at the weighted operation: one sign per number."""
        total = self.composed.scale
        sign = total.sign() if isinstance(total, Tensor) else math.copysign(1.0, total)
        return sign if self.negative is None else sign * (1 - 2 * self.negative.to(dtype))

    def absorbed(self, signal: Signal) -> tuple[Tensor, Tensor]:
        """The relevance `[K]` that the bias and the stabiliser take from signals, to which the factor was applied."""
        bias, (alpha, beta) = self.composed.shift, self.weights
        signed = signal
        if self.negative is not None and self.factor is not None:
            signed = scale(signal, 1 - 2 * self.negative.to(self.factor.dtype))
        if isinstance(signal, WindowedSignal) and (isinstance(bias, float) or _is_per_channel(bias)):
            totals = signal.values.sum((2, 3))  # the maps are read once
            signed = totals if isinstance(signed, Tensor) or signed is signal else signed.values.sum((2, 3))
            signal, bias = totals, bias.flatten() if isinstance(bias, Tensor) else bias
        stabilised = total_of(signed, self.stabiliser)
        if self.rule == "box" or (isinstance(bias, float) and not bias):
            return torch.zeros_like(stabilised), stabilised
        taken = alpha * total_of(signal, bias)
        return taken + beta * total_of(signed, _size(bias)) if beta else taken, stabilised


def _is_per_channel(number: Tensor) -> bool:
    return number.ndim in {3, 4} and number.shape[-2:].numel() == 1 and number.shape[-3] == number.numel() > 1


def _size(number: Tensor | float) -> Tensor | float:
    return number.abs() if isinstance(number, Tensor) else abs(number)


def total_of(signal: Signal, weight: Tensor | float) -> Tensor:
    """The sum `[K]` of each signal times a forward quantity that broadcasts to the value."""
    values = signal.values if isinstance(signal, WindowedSignal) else signal
    if isinstance(weight, float):
        return weight * values.flatten(1).sum(1) if weight else values.new_zeros(len(values))
    weighted = scale(signal, weight)
    return (weighted.values if isinstance(weighted, WindowedSignal) else weighted).flatten(1).sum(1)
