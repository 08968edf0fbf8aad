"""What happens to a sum on its way to a site: norms as scale and shift, activation functions as input and output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.arithmetic.kinds import base_name, words
from vizapp.engine.arithmetic.parts import Summed
from vizapp.engine.trace.recording import ValueRef, map_leaves


class Stage(NamedTuple):
    """One number before and after an operation.

    `scale`, `shift`: after = before · scale + shift (NaN where it is another function). `mean`, `deviation`: of the
    photo's own activations, where a norm is by these (NaN where not). `name`: its site.
    """

    name: str
    words: str
    before: float
    after: float
    scale: float = float("nan")
    shift: float = float("nan")
    mean: float = float("nan")
    deviation: float = float("nan")

    @property
    def told(self) -> str:
        """`batch norm × 0.9 − 0.3`."""
        affine = np.isfinite(self.scale) and np.isfinite(self.shift)
        if not affine:
            return self.words
        shift = "" if self.shift == 0 else f" {'−' if self.shift < 0 else '+'} {abs(self.shift):.4g}"
        scale = "" if self.scale == 1 else f" × {signed(self.scale)}"
        word = "" if self.words.endswith("a constant") or self.words == "negated" else self.words
        return f"{word}{scale}{shift}".strip() or self.words


def signed(number: float) -> str:
    """Four digits, with a minus sign of its own."""
    return f"{number:.4g}".replace("-", "−")


class _Affine(NamedTuple):
    scale: float
    shift: float
    mean: float = float("nan")
    deviation: float = float("nan")


def stage_of(summed: Summed, source: int, place: int) -> Stage:
    """The stage that made a number of another one, at `place` of value `source`."""
    rule = _RULES.get(base_name(summed.step))
    before = float(summed.numbers(source)[place])
    after = float(summed.numbers(summed.value)[summed.place])
    affine = (rule(summed, source, place) if rule is not None else None) or _Affine(*[float("nan")] * 2)
    return Stage(summed.step.name, words(summed.step), before, after, *affine)


def _batch_norm(summed: Summed, source: int, place: int) -> _Affine:
    """`F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)`."""
    mean, variance = summed.argument(1, "running_mean"), summed.argument(2, "running_var")
    channel = summed.index[1]
    by_photo = mean is None or bool(summed.argument(5, "training", False))
    if by_photo:
        own = _numbers(summed, source).transpose(0, 1)[channel]
        mean, variance = own.mean(), own.var(unbiased=False)
    else:
        mean, variance = mean[channel], variance[channel]
    return _normed(summed, 3, channel, mean, variance, 7, by_photo)


def _instance_norm(summed: Summed, source: int, place: int) -> _Affine:
    """`F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)`."""
    mean, variance = summed.argument(1, "running_mean"), summed.argument(2, "running_var")
    channel = summed.index[1]
    by_photo = mean is None or bool(summed.argument(5, "use_input_stats", True))
    if by_photo:
        own = _numbers(summed, source)[summed.index[0], channel]
        mean, variance = own.mean(), own.var(unbiased=False)
    else:
        mean, variance = mean[channel], variance[channel]
    return _normed(summed, 3, channel, mean, variance, 7, by_photo)


def _group_norm(summed: Summed, source: int, place: int) -> _Affine:
    """`group_norm(input, num_groups, weight, bias, eps)`."""
    groups, channel = int(summed.argument(1, "num_groups")), summed.index[1]
    x = _numbers(summed, source)[summed.index[0]]
    own = x.unflatten(0, (groups, -1))[channel // (len(x) // groups)]
    return _normed(summed, 2, channel, own.mean(), own.var(unbiased=False), 4, True)


def _layer_norm(summed: Summed, source: int, place: int) -> _Affine:
    """`layer_norm(input, normalized_shape, weight, bias, eps)`."""
    count = len(tuple(summed.argument(1, "normalized_shape")))
    own = _numbers(summed, source)[summed.index[:-count]]
    return _normed(summed, 2, summed.index[-count:], own.mean(), own.var(unbiased=False), 4, True)


def _rms_norm(summed: Summed, source: int, place: int) -> _Affine:
    """`rms_norm(input, normalized_shape, weight, eps)`: no mean, no shift."""
    count = len(tuple(summed.argument(1, "normalized_shape")))
    x, weight = _numbers(summed, source), summed.argument(2, "weight")
    epsilon = summed.argument(3, "eps") or torch.finfo(summed.origins.recording.dtypes[source]).eps
    deviation = float((x[summed.index[:-count]].square().mean() + epsilon).sqrt())
    scale = 1.0 if weight is None else float(weight[summed.index[-count:]])
    return _Affine(scale / deviation, 0.0, 0.0, deviation)


def _normed(
    summed: Summed, weights: int, where: Any, mean: Tensor, variance: Tensor, epsilon: int, by_photo: bool
) -> _Affine:
    weight, bias = summed.argument(weights, "weight"), summed.argument(weights + 1, "bias")
    deviation = float((variance + float(summed.argument(epsilon, "eps", 1e-5))).sqrt())
    scale = (1.0 if weight is None else float(weight[where])) / deviation
    shift = (0.0 if bias is None else float(bias[where])) - float(mean) * scale
    return _Affine(scale, shift, float(mean), deviation) if by_photo else _Affine(scale, shift)


def _by_ratio(summed: Summed, source: int, place: int) -> _Affine | None:
    """A norm that divides by something of the photo's: by how much is read from the number itself."""
    before = float(summed.numbers(source)[place])
    after = float(summed.numbers(summed.value)[summed.place])
    return _Affine(after / before, 0.0) if before else None


def _constant(summed: Summed, source: int, place: int) -> _Affine | None:
    """Plus, minus, times or divided by a constant: scale and shift are read off what the operation does to 0, 1 and 2."""
    step = summed.step

    def result(number: float) -> float:
        def bind(leaf: Any) -> Any:
            if isinstance(leaf, ValueRef):
                return torch.tensor(number, dtype=torch.float64)
            bound = summed.bound(leaf)
            return bound.broadcast_to(summed.shape)[summed.index].clone() if isinstance(bound, Tensor) else bound

        return float(step.function(*map_leaves(step.args, bind), **map_leaves(step.kwargs, bind)))

    zero, one, two = map(result, (0.0, 1.0, 2.0))
    straight = np.isfinite([zero, one, two]).all() and abs(two - 2 * one + zero) <= 1e-9 * (abs(two) + abs(zero))
    return _Affine(one - zero, zero) if straight else None


def _numbers(summed: Summed, source: int) -> Tensor:
    return summed.origins.recording.numbers[source].double()


_RULES: dict[str, Callable[[Summed, int, int], _Affine | None]] = {
    "batch_norm": _batch_norm, "instance_norm": _instance_norm, "group_norm": _group_norm, "layer_norm": _layer_norm,
    "rms_norm": _rms_norm, "local_response_norm": _by_ratio, "normalize": _by_ratio,
    **dict.fromkeys(["neg", "add", "iadd", "sub", "isub", "rsub", "mul", "imul", "truediv", "itruediv"], _constant),
}  # fmt: skip
