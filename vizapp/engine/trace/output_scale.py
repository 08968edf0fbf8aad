"""What class scores are: probabilities, logarithms of probabilities, or logits.

It is read from their numbers, so that equal functions get the same answer however they are written: a softmax, a softmax
that is clamped or whose classes are reordered, `1 / (1 + exp(-x))`. Scores are

- **probabilities** if they stay between 0 and 1 whatever the last weighted layers compute. Further passes replace the results
  of these layers by random numbers of several sizes, up to 10,000. Excepted are constants and vectors of length 1, as of
  normalized features;
- **log-probabilities** if the same is true of their exponentials, and these sum to 1 or a logarithm is among the operations
  behind the last weighted layers (negative distances have none);
- **logits** otherwise.

Probabilities that always sum to 1 over the classes have the link softmax, all others the link sigmoid. If a weighted layer
mixes probabilities (to those of coarser classes, say), their sum on random pictures shows it.

The further passes are made only if the first one does not show logits already: most networks need none, a softmax or
sigmoid inside the network needs four.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import is_out_of_memory
from vizapp.engine.operations import WEIGHTED
from vizapp.engine.tap import Trace, operation_name

Key = tuple[str | int, ...]  # of a tensor in nested dicts, tuples and records
Link = Literal["softmax", "sigmoid", "identity"]  # what makes probabilities of logits; "identity": the scores are shown
Scale = Literal["logits", "probabilities", "log-probabilities"]

_SCALES: tuple[Scale, Scale] = ("probabilities", "log-probabilities")
_LINKS: tuple[Link, ...] = ("softmax", "sigmoid")
_SIZES = (1e4, -1e4, 1.0, 8.0)  # of the numbers that replace results; the second ones are minus the first
_BROKEN = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AssertionError)  # by such numbers
_PICTURES = (1.0, 100.0)  # sizes of the numbers of random pictures
_ERROR = 2e-4  # of probabilities and their sum, in float32


def class_scores(output: Any, pictures: int) -> Tensor | None:
    """The scores `[N classes]` in a tensor `[N]`, `[N classes]` or `[N classes 1 1]`; None if it is something else."""
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != pictures or not output.is_floating_point():
        return None
    return (output.flatten(1) if output.ndim > 1 else output[:, None]) if output.shape[2:].numel() == 1 else None


def pick(output: Any, path: Key) -> Tensor | None:
    """The tensor with that key; None if it is not there."""
    for key in path:
        try:
            output = getattr(output, key) if is_record(output) and isinstance(key, str) else output[key]
        except (LookupError, TypeError, AttributeError):
            return None
    return output if isinstance(output, Tensor) else None


def is_record(output: Any) -> bool:
    """Whether it is a named tuple or a dataclass that is no dict."""
    return (hasattr(output, "_fields") or dataclasses.is_dataclass(output)) and not isinstance(output, Mapping)


def rounding(dtype: torch.dtype) -> float:
    """The largest rounding error of probabilities and of their sum."""
    return max(_ERROR, 4 * torch.finfo(dtype).eps)


def are_inside(chance: Tensor, error: float) -> bool:
    """Whether all numbers are between 0 and 1."""
    return bool(((chance >= -error) & (chance <= 1 + error)).all())


def as_chance(scale: Scale, scores: Tensor) -> Tensor:
    """Probabilities of scores that are probabilities or their logarithms."""
    return scores.exp() if scale == "log-probabilities" else scores


def apply_link(link: Link, logits: Tensor) -> Tensor:
    """Probabilities of logits `[N classes]`."""
    if link == "identity":
        return logits
    return logits.softmax(1) if link == "softmax" else logits.sigmoid()


class VariedPasses:
    """Class scores in the first pass and in further ones, which are made when they are needed.

    `found`: the tensors of class scores in the first pass, by key. `weighted`: the names of the last weighted operations.
    """

    def __init__(self, module: nn.Module, batch: Tensor, found: dict[Key, Tensor], weighted: frozenset[str]) -> None:
        self._module, self._batch, self._found, self._weighted = module, batch, found, weighted
        self._made = {(0.0, False): self._exact(found)}

    def scale(self, path: Key, logarithm: bool) -> tuple[Scale, Link | None]:
        """What the scores are, as the module's docstring defines it, and the link of probabilities."""
        error = rounding(self._found[path].dtype)
        for scale in _SCALES:
            first = self._chance(path, scale, (0.0,), False)
            told = scale == "probabilities" or logarithm
            if not are_inside(first, error) or not (told or _sum_to_1(first, error)):
                continue
            steered = self._chance(path, scale, _SIZES, True)
            if len(steered) and are_inside(steered, error):
                if _sum_to_1(torch.cat([first, steered]), error):
                    return scale, "softmax"
                if told and _vary(steered, error) and not _are_unit_vectors(steered, error):
                    return scale, "sigmoid"
            elif len(first) and _sum_to_1(first, error):
                pictures = torch.cat([first, self._chance(path, scale, _PICTURES, False)])
                differ = (pictures - pictures[0]).abs().max() > error
                if differ and are_inside(pictures, error) and _sum_to_1(pictures, error):
                    return scale, "softmax"
        return "logits", None

    def link(self, path: Key, other: Key, scale: Scale) -> Link | None:
        """The link if the scores `other`, in their scale, are the probabilities of the logits `path` in all passes."""
        pairs = [(seen[path], seen[other]) for seen in self._made.values() if {path, other} <= seen.keys()]
        if scale != "logits" and all(logits.shape == chance.shape for logits, chance in pairs):
            logits, chance = map(torch.cat, zip(*pairs, strict=True))
            for link in _LINKS:
                off = apply_link(link, logits) - as_chance(scale, chance)
                if off.abs().max() < rounding(self._found[other].dtype):
                    return link
        return None

    def _chance(self, path: Key, scale: Scale, sizes: tuple[float, ...], steered: bool) -> Tensor:
        """Probabilities `[passes classes]` for random numbers of these sizes, until some are no probabilities."""
        found = [torch.empty(0, self._found[path].shape[1:].numel())]
        for size in sizes:
            if are_inside(found[-1], rounding(self._found[path].dtype)) and path in (
                scores := self._pass(size, steered)
            ):
                found.append(as_chance(scale, scores[path]))
        return torch.cat(found)

    def _pass(self, size: float, steered: bool) -> dict[Key, Tensor]:
        """The scores for numbers between -size and size as the picture, or as the results of the weighted operations."""
        if (size, steered) not in self._made:
            steer = _Steer(self._module, self._weighted if steered else frozenset(), size)
            picture = steer.noise(self._batch, 1.0 if steered and self._weighted else size)
            output: Any = None
            try:
                with torch.no_grad(), steer:
                    output = self._module(picture)
            except _BROKEN as error:
                if is_out_of_memory(error):
                    raise
            self._made[size, steered] = self._exact({path: pick(output, path) for path in self._found})
        return self._made[size, steered]

    def _exact(self, given: Mapping[Key, Tensor | None]) -> dict[Key, Tensor]:
        """Scores float64 `[N classes]`, without those that are not a number (the quotient of two overflows, say)."""
        found = {path: class_scores(tensor, len(self._batch)) for path, tensor in given.items()}
        return {
            path: scores.cpu().double()
            for path, scores in found.items()
            if scores is not None and scores.numel() == self._found[path].numel() and not scores.isnan().any()
        }


def _sum_to_1(chance: Tensor, error: float) -> bool:
    """Whether the probabilities of several classes sum to 1."""
    return chance.shape[1] > 1 and bool(((chance.sum(1) - 1).abs() < error).all())


def _vary(chance: Tensor, error: float) -> bool:
    """Whether they are not the same in all passes. (The softmax of one class is always 1, and its probability.)"""
    differ = bool(((chance - chance[0]).abs() > error * chance.abs().amax(0)).any())
    return differ or (chance.shape[1] == 1 and bool(chance.eq(1).all()))


def _are_unit_vectors(chance: Tensor, error: float) -> bool:
    """Whether they are features divided by their length (or zero), and not only zeros and ones."""
    length = chance.square().sum(1)
    unit = bool((((length - 1).abs() < 2 * error) | (length == 0)).all())
    return chance.shape[1] > 1 and unit and bool((chance * (1 - chance)).abs().max() > error)


class _Steer(Trace):
    """Replaces the results of weighted operations by random numbers, equal ones by equal numbers."""

    def __init__(self, module: nn.Module, weighted: frozenset[str], size: float) -> None:
        super().__init__(module)
        self._weighted, self._size = weighted, size
        self._random = torch.Generator().manual_seed(abs(int(size)))
        self._replaced: list[tuple[Tensor, Tensor]] = []

    def noise(self, tensor: Tensor, size: float, channels: int = 1) -> Tensor:
        """Numbers between -size and size in the form of a tensor; most of each is that of its channel."""
        each = [1] * tensor.ndim
        each[channels] = tensor.shape[channels]
        unit = torch.rand(tensor.shape, generator=self._random) + 3 * torch.rand(each, generator=self._random)
        return torch.empty_like(tensor).copy_((unit / 2 - 1) * size)

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output, operation = function(*args, **kwargs), operation_name(function)
        if name not in self._weighted or operation not in WEIGHTED:
            return output
        for other, noise in self._replaced:
            if other.shape == output.shape and bool((other == output).all()):
                return noise.clone()
        self._replaced.append((output, self.noise(output, self._size, -1 if operation == "linear" else 1)))
        return self._replaced[-1][1].clone()
