"""Tokens that are parameters of the network: class, distillation and register tokens, followed until they join the patches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import map_leaves, tensors_in
from vizapp.engine.operations import POINTWISE
from vizapp.engine.receptive_field.moves import MOVES

_WORDS = {
    "cls": "class",
    "class": "class",
    "dist": "distillation",
    "reg": "register",
    "mask": "mask",
    "det": "detection",
}
_NONE = -1  # the number of a token of unknown origin


class ConstantTokens:
    """Gives each token that does not depend on the picture a negative number, and knows the parameter that it comes from.

    A sum of parameters counts as the one with the fewest numbers: a class token, not the places that are added to it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = {id(one): name for name, one in module.named_parameters() if one.ndim <= 3}
        self._origins: dict[str, int] = {}  # the number of a parameter's first token
        self._names: list[str] = []
        self._found = WeakTensorKeyDictionary()  # the numbers of a tensor's tokens, and the size of their parameter

    def names(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """What the tokens with these numbers are called."""
        return tuple("unknown" if number == _NONE else self._names[-2 - number] for number in numbers)

    def index(self, tensor: Tensor) -> Tensor:
        """The number of the token that each number of a tensor belongs to."""
        found = self._of(tensor)
        return torch.full(tensor.shape, _NONE, dtype=torch.int32) if found is None else found[0]

    def follow(self, operation: str, function: Callable[..., Any], args: Any, kwargs: Any, output: Any) -> None:
        """Follow tokens through an operation on tensors that do not depend on the picture.

        Args:
            operation: Its name.
            function: What ran.
            args: Its arguments.
            kwargs: Its named arguments.
            output: What it returned.
        """
        given = [found for tensor in tensors_in((args, kwargs)) if (found := self._of(tensor)) is not None]
        base, results = operation.rstrip("_"), list(tensors_in(output))
        if not given or not results:
            return
        if base in POINTWISE or base == "to":
            index, size = min(given, key=lambda one: one[1])
            moved = [index.broadcast_to(results[0].shape)] if _broadcasts(index, results[0]) else []
        elif base in MOVES and operation != "setitem":
            size = min(one[1] for one in given)
            moved = self._moved(function, args, kwargs)
        else:
            return
        if [one.shape for one in moved] == [one.shape for one in results]:
            for result, one in zip(results, moved, strict=True):
                self._found[result] = one, size

    def _moved(self, function: Callable[..., Any], args: Any, kwargs: Any) -> list[Tensor]:
        def numbers(leaf: Any) -> Any:
            return self.index(leaf) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

        try:
            return list(tensors_in(function(*map_leaves(args, numbers), **map_leaves(kwargs, numbers))))
        except (RuntimeError, TypeError, IndexError, ValueError):  # an argument that integers do not have
            return []

    def _of(self, tensor: Tensor) -> tuple[Tensor, int] | None:
        name = self._parameters.get(id(tensor))
        if name is None:
            return self._found.get(tensor)
        count = math.prod(tensor.shape[:-1])
        if name not in self._origins:
            self._origins[name] = -2 - len(self._names)
            words = spoken(name)
            self._names += [words] if count == 1 else [f"{words} {number}" for number in range(1, count + 1)]
        tokens = self._origins[name] - torch.arange(count, dtype=torch.int32)
        return tokens.view(*tensor.shape[:-1], 1).expand(tensor.shape), tensor.numel()


def spoken(parameter: str) -> str:
    """A token's name from that of its parameter: "class" of `embeddings.cls_token`; the parameter's own if it tells nothing."""
    last = parameter.rpartition(".")[2]
    return next((word for part in last.split("_") for start, word in _WORDS.items() if part.startswith(start)), last)


def _broadcasts(index: Tensor, result: Tensor) -> bool:
    sizes = zip(reversed(index.shape), reversed(result.shape), strict=False)
    return index.ndim <= result.ndim and all(own in (1, size) for own, size in sizes)
