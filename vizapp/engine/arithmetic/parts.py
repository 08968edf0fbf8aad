"""The parts of which an operation made one number: products of weights and numbers of the layer below, and a bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.arithmetic.kinds import JOINS, base_name
from vizapp.engine.arithmetic.origins import NOWHERE, Origins
from vizapp.engine.arithmetic.taps import convolution_taps, pool_taps
from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.operations import BILINEAR, LINEAR, LINEAR_IN_FIRST, SUMS_WITH_PRODUCTS, WEIGHTED
from vizapp.engine.trace.recording import Step, ValueRef, map_leaves, value_refs
from vizapp.errors import VizError

Kind = Literal[
    "convolution", "linear", "mean", "sum", "product", "maximum", "selection", "softmax", "photo", "constant"
]
Floats = np.ndarray
Ints = np.ndarray


@dataclass(frozen=True, eq=False)
class Parts:
    """What one number `z` is the sum of: bias + Σ weights · patch.

    Each of n parts reads the number at `places` `[n]` of the values `values` `[n]` (`NOWHERE`: padding), times `weights`
    `[n]`. `grid`: how they lie, `(C, kernel height, kernel width)`, for a convolution; None: by channel and cell of the layer
    below. `gate`: the value and place of the second factor of a product of two activations. `own`: the part that a softmax
    is of. `words`: the operation for people.
    """

    kind: Kind
    words: str
    values: Ints
    places: Ints
    weights: Floats
    patch: Floats
    bias: float = 0.0
    grid: tuple[int, ...] | None = None
    gate: tuple[int, int] | None = None
    own: int | None = None
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Summed:
    """A number of a pass: place `place` of result `value` of a step."""

    origins: Origins
    step: Step
    value: int
    place: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.origins.shape(self.value)

    @property
    def index(self) -> tuple[int, ...]:
        """The place, by axis."""
        return tuple(int(one) for one in np.unravel_index(self.place, self.shape))

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument of the operation, with the numbers of values that depend on the photo."""
        return self.bound(argument(self.step.args, self.step.kwargs, position, name, default))

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a convolution or linear layer as they are; in double precision they may be too large."""
        given = [argument(self.step.args, self.step.kwargs, *one, None) for one in ((1, "weight"), (2, "bias"))]
        weight, bias = (
            self.origins.recording.numbers[one.value] if isinstance(one, ValueRef) else one for one in given
        )
        return weight.detach(), None if bias is None else bias.detach()

    def bound(self, captured: Any) -> Any:
        """Recorded arguments with numbers in place of references, on the CPU, in double precision."""
        return map_leaves(captured, self._bind)

    def _bind(self, leaf: Any) -> Any:
        if isinstance(leaf, ValueRef):
            leaf = self.origins.recording.numbers[leaf.value]
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().cpu().double() if leaf.is_floating_point() else leaf.detach().cpu()

    def numbers(self, value: int) -> Tensor:
        """The numbers of a value, flat, as the pass computed them."""
        return self.origins.recording.numbers[value].flatten()

    def broadcast(self, value: int) -> int:
        """The place in an operand that is combined with the place in the result."""
        shape = self.origins.shape(value)
        tail = self.index[len(self.shape) - len(shape) :]
        index = tuple(0 if size == 1 else one for size, one in zip(shape, tail, strict=True))
        return int(np.ravel_multi_index(index, shape)) if shape else 0

    def input(self) -> int:
        """The value that is the first argument of the operation."""
        first = argument(self.step.args, self.step.kwargs, 0, "input", None)
        if not isinstance(first, ValueRef):
            raise no_sum(self.step)
        return first.value


def parts_of(origins: Origins, step: Step, value: int, place: int) -> Parts:
    """The parts of a number that a step made.

    Raises:
        VizError: the operation is no sum and no selection.
    """
    name, summed = base_name(step), Summed(origins, step, value, place)
    varying = [ref.value for ref in value_refs((step.args, step.kwargs))]
    rule = _RULES.get(name)
    if rule is not None:
        found = rule(summed)
        if found is not None:
            return found
    linear = name in LINEAR or (
        name in BILINEAR | SUMS_WITH_PRODUCTS | WEIGHTED | LINEAR_IN_FIRST and len(varying) == 1
    )
    if linear and all(origins.recording.dtypes[read].is_floating_point for read in varying):
        return _by_gradient(summed)
    raise no_sum(step)


def no_sum(step: Step) -> VizError:
    where = f" in {step.name!r}" if step.name else ""
    return VizError(
        f"This number is made by the operation {base_name(step)!r}{where}, which is no sum or selection of numbers of the "
        "layer below; choose a convolution, a linear layer, a pool, a norm, an activation or an addition.",
        code="no-sum",
    )


def _convolution(summed: Summed) -> Parts | None:
    """`weight` `[out, in / groups, …]`, or of a transposed one `[in, out / groups, …]`; the input `[N in …]` or `[in …]`."""
    transposed = "transpose" in summed.step.operation
    source, (weight, bias) = summed.input(), summed.weights()
    axes, shape, index = weight.ndim - 2, summed.origins.shape(summed.input()), summed.index
    channel, channels = index[-axes - 1], shape[-axes - 1]
    groups = int(argument(summed.step.args, summed.step.kwargs, 6, "groups", 1))
    taps = convolution_taps(summed.step, weight.shape[2:], shape[-axes:], index[-axes:], transposed)
    out = summed.shape[-axes - 1] // groups
    first = channel // out * (channels // groups)
    read = np.arange(first, first + channels // groups)
    kernel = (weight[first : first + len(read), channel % out] if transposed else weight[channel]).cpu().double()
    batch = index[0] if len(shape) == axes + 2 else 0
    places = (batch * channels + read)[:, None] * int(np.prod(shape[-axes:])) + taps.places[None]
    places = np.where(taps.outside[None], NOWHERE, places).ravel()
    patch = np.where(places == NOWHERE, 0.0, summed.numbers(source)[torch.from_numpy(places.clip(0))].double().numpy())
    sizes = " × ".join(map(str, weight.shape[2:]))
    kind = "transposed convolution" if transposed else "convolution"
    notes = {}
    if groups > 1:
        last = first + channels // groups - 1
        which = f"channels {first} to {last}" if last > first else f"channel {first}"
        notes["group"] = (
            f"The convolution has {groups} groups; this unit reads {which} of the {channels} channels below."
        )
    return Parts(
        "convolution", f"{kind} {sizes}{taps.words}", np.where(places == NOWHERE, NOWHERE, source), places,
        kernel.reshape(-1).numpy(), patch, 0.0 if bias is None else float(bias[channel]),
        (len(read), *weight.shape[2:]), notes=notes,
    )  # fmt: skip


def _linear(summed: Summed) -> Parts | None:
    """`weight` `[out in]` (or `[in]`); the input `[… in]`."""
    source, (weight, bias) = summed.input(), summed.weights()
    count = weight.shape[-1]
    unit = summed.index[-1] if weight.ndim == 2 else 0
    row = summed.place // weight.shape[0] if weight.ndim == 2 else summed.place
    places = row * count + np.arange(count)
    patch = summed.numbers(source)[row * count : (row + 1) * count].double().numpy()
    kernel = (weight[unit] if weight.ndim == 2 else weight).cpu().double().numpy()
    constant = 0.0 if bias is None else float(bias.reshape(-1)[unit])
    return Parts("linear", f"linear, {count} inputs", np.full(count, source), places, kernel, patch, constant)


def _pool(summed: Summed) -> Parts | None:
    """The window of a max pool, with the winner that torch picks."""
    name = base_name(summed.step).removesuffix("_with_indices")
    source, axes = summed.input(), int(name[-2])
    if summed.step.outputs.index(summed.value):
        return None  # the places of the winners
    shape, index = summed.origins.shape(source), summed.index
    taps = pool_taps(summed.step, shape[-axes:], summed.shape[-axes:], index[-axes:])
    size = int(np.prod(shape[-axes:]))
    plane = summed.place // int(np.prod(summed.shape[-axes:]))
    numbers = summed.numbers(source)[plane * size : (plane + 1) * size]
    pool = getattr(F, f"{name}_with_indices")
    args, kwargs = summed.step.args[1:], {key: one for key, one in summed.step.kwargs.items() if key != "input"}
    _, winners = pool(numbers.view(1, *shape[-axes:]).float() if numbers.itemsize < 4 else
                      numbers.view(1, *shape[-axes:]), *args, **kwargs)  # fmt: skip
    winner = int(winners[(0, *index[-axes:])])
    inside = np.flatnonzero(~taps.outside)
    return _winner(summed, "max pool", source, plane * size + taps.places[inside], plane * size + winner)


def _extreme(summed: Summed) -> Parts | None:
    """`amax`, `max` … over whole axes: the first of equals wins."""
    if len(set(summed.step.reads)) > 1:
        return None
    source, dims = summed.input(), argument(summed.step.args, summed.step.kwargs, 1, "dim", None)
    if summed.step.outputs.index(summed.value):
        return None
    places = _reduced(summed, source, dims)
    numbers = summed.numbers(source)[torch.from_numpy(places)]
    smallest = base_name(summed.step).endswith("min")
    winner = int(numbers.argmin() if smallest else numbers.argmax())
    return _winner(summed, "minimum" if smallest else "maximum", source, places, int(places[winner]))


def _winner(summed: Summed, words: str, source: int, places: Ints, winner: int) -> Parts:
    patch = summed.numbers(source)[torch.from_numpy(places)].double().numpy()
    weights = (places == winner).astype(float)
    return Parts("maximum", f"{words} of {len(places)}", np.full(len(places), source), places, weights, patch)


def _larger(summed: Summed) -> Parts | None:
    """The larger (or smaller) of two activations."""
    sides = [argument(summed.step.args, summed.step.kwargs, 0, "input", None),
             argument(summed.step.args, summed.step.kwargs, 1, "other", None)]  # fmt: skip
    if not all(isinstance(side, ValueRef) for side in sides):
        return None
    values, places = zip(*((side.value, summed.broadcast(side.value)) for side in sides), strict=True)
    patch = np.array([float(summed.numbers(v)[p]) for v, p in zip(values, places, strict=True)])
    smaller = base_name(summed.step) in {"minimum", "fmin", "min"}
    weights = np.zeros(2)
    weights[int((-patch if smaller else patch).argmax())] = 1
    words = f"the {'smaller' if smaller else 'larger'} of two"
    return Parts("maximum", words, np.array(values), np.array(places), weights, patch)


def _product(summed: Summed) -> Parts | None:
    """A product (or quotient) of two activations: the first factor, times the second, which is the smaller tensor."""
    sides = [argument(summed.step.args, summed.step.kwargs, 0, "input", None),
             argument(summed.step.args, summed.step.kwargs, 1, "other", None)]  # fmt: skip
    if not all(isinstance(side, ValueRef) for side in sides):
        return None
    quotient = base_name(summed.step) == "truediv"
    first, second = (side.value for side in sides)
    if not quotient and np.prod(summed.origins.shape(first)) < np.prod(summed.origins.shape(second)):
        first, second = second, first
    places = summed.broadcast(first), summed.broadcast(second)
    number, factor = (float(summed.numbers(v)[p]) for v, p in zip((first, second), places, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.array([np.float64(1) / factor if quotient else factor])
    words = "divided by an activation" if quotient else "times a gate"
    return Parts(
        "product", words, np.array([first]), np.array([places[0]]), weight, np.array([number]),
        gate=(second, places[1]),
    )  # fmt: skip


def _softmax(summed: Summed) -> Parts | None:
    """The logits, and in place of weights their exponentials, which the denominator is the sum of."""
    source, dim = summed.input(), argument(summed.step.args, summed.step.kwargs, 1, "dim", None)
    if dim is None:
        dim = 0 if len(summed.shape) in (0, 1, 3) else 1
    places = _reduced(summed, source, dim)
    patch = summed.numbers(source)[torch.from_numpy(places)].double().numpy()
    own = int(np.flatnonzero(places == summed.place)[0])
    words = f"{base_name(summed.step).replace('_', ' ')} of {len(places)}"
    return Parts("softmax", words, np.full(len(places), source), places, np.exp(patch - patch.max()), patch, own=own)


def _join(summed: Summed) -> Parts | None:
    """Which of the joined numbers it is."""
    values, places = summed.origins.moved(summed.step, summed.value, np.array([summed.place]))
    value, place = int(values[0]), int(places[0])
    if value == NOWHERE:
        return constant(float(summed.numbers(summed.value)[summed.place]))
    inputs = list(summed.step.reads)
    words = f"input {inputs.index(value) + 1} of {len(list(_joined(summed)))} of a concatenation"
    patch = np.array([float(summed.numbers(value)[place])])
    return Parts("selection", words, np.array([value]), np.array([place]), np.ones(1), patch)


def _joined(summed: Summed) -> Any:
    tensors = argument(summed.step.args, summed.step.kwargs, 0, "tensors", ())
    return tensors if isinstance(tensors, (tuple, list)) else (tensors,)


def _by_gradient(summed: Summed) -> Parts:
    """The parts of any linear operation: its derivative by what it reads, in double precision, times what it read."""
    step, leaves = summed.step, list[tuple[int, Tensor]]()

    def bind(leaf: Any, zero: bool) -> Any:
        bound = summed.bound(leaf)
        if isinstance(leaf, ValueRef):
            bound = (bound * 0 if zero else bound.contiguous()).requires_grad_(not zero)
            if not zero:
                leaves.append((leaf.value, bound))
            bound = bound * 1  # so that operations in place may write to it
        return bound

    def result(zero: bool) -> Tensor:
        args, kwargs = (map_leaves(part, lambda leaf: bind(leaf, zero)) for part in (step.args, step.kwargs))
        kwargs.pop("dtype", None)
        output = step.function(*args, **kwargs)
        made = list(tensors_in(args[0] if base_name(step) == "setitem" else output))
        return made[step.outputs.index(summed.value)].reshape(-1)[summed.place]

    with torch.enable_grad():
        gradients = torch.autograd.grad(result(False), [leaf for _, leaf in leaves], allow_unused=True)
    with torch.no_grad():
        bias = float(result(True))
    values, places, weights, patch = [], [], [], []
    for (value, leaf), gradient in zip(leaves, gradients, strict=True):
        if gradient is None:
            continue
        flat = gradient.reshape(-1)
        read = flat.nonzero()[:, 0]
        values.append(np.full(len(read), value))
        places.append(read.numpy())
        weights.append(flat[read].numpy())
        patch.append(leaf.detach().reshape(-1)[read].numpy())
    if not values:
        return constant(bias)
    shares = np.concatenate(weights)
    equal = len(leaves) == 1 and np.ptp(shares) < 1e-12 and abs(shares.sum() - 1) < 1e-9
    words = f"mean of {len(shares)}" if equal else _sum_words(base_name(step))
    kind: Kind = "mean" if equal else "sum"
    return Parts(kind, words, np.concatenate(values), np.concatenate(places), shares, np.concatenate(patch), bias)


def _sum_words(name: str) -> str:
    known = {"add": "addition", "iadd": "addition", "sub": "subtraction", "isub": "subtraction", "rsub": "subtraction"}
    return known.get(name, name.replace("_", " ").replace("pool2d", "pool").removeprefix("adaptive "))


def constant(number: float) -> Parts:
    """A number that the photo has no part in, such as one of a padding."""
    none = np.zeros(0, np.int64)
    return Parts("constant", "a constant", none, none, np.zeros(0), np.zeros(0), number)


def photo(value: int, place: int, number: float) -> Parts:
    """A number of the photo itself."""
    return Parts("photo", "the photo", np.array([value]), np.array([place]), np.ones(1), np.array([number]))


def _reduced(summed: Summed, source: int, dims: Any) -> Ints:
    """The places of an input that an operation over whole axes combines into the number."""
    shape = summed.origins.shape(source)
    count = len(shape)
    if dims is None or dims == ():
        dims = range(count)
    gone = {dim % count for dim in (dims if isinstance(dims, (tuple, list, range)) else (dims,))}
    kept = len(summed.shape) == count
    rest = iter(one for axis, one in enumerate(summed.index) if not kept or axis not in gone)
    places = np.arange(int(np.prod(shape))).reshape(shape)
    return places[tuple(slice(None) if axis in gone else next(rest) for axis in range(count))].ravel()


_RULES: dict[str, Callable[[Summed], Parts | None]] = {
    **dict.fromkeys([f"conv{n}d" for n in (1, 2, 3)], _convolution),
    **dict.fromkeys([f"conv_transpose{n}d" for n in (1, 2, 3)], _convolution),
    "linear": _linear,
    **{f"{kind}max_pool{n}d{end}": _pool for kind in ("", "adaptive_") for n in (1, 2, 3) for end in ("", "_with_indices")},
    **dict.fromkeys(["amax", "amin"], _extreme),
    **dict.fromkeys(["max", "min"], lambda summed: _extreme(summed) or _larger(summed)),
    **dict.fromkeys(["maximum", "minimum", "fmax", "fmin"], _larger),
    **dict.fromkeys(["mul", "imul", "truediv"], _product),
    **dict.fromkeys(["softmax", "log_softmax"], _softmax),
    **dict.fromkeys(JOINS, _join),
}  # fmt: skip
