"""An exported network as a module: its graph, run step by step in the scopes of its original modules."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_MOST_DEPTH = 64  # of modules in modules
_SIZED = {"view", "reshape", "expand", "_unsafe_view"}  # whose sizes hold the batch size


@dataclass(frozen=True)
class Value:
    """The result of an earlier step."""

    name: str


@dataclass(frozen=True)
class Batch:
    """This many for each picture of the batch."""

    times: int


class Home:
    """The device of the pictures."""


@dataclass
class Step:
    """A call of a function of torch.

    `scope`: path of the module that it is in. `operation`: its ATen name. `outputs`: names of its results, None for those that
    nobody reads; `several`: whether it returns a tuple. `stack`: the innermost module, as torch.export writes it.
    """

    scope: str
    function: Callable[..., Any]
    operation: str
    arguments: list[Any]
    keywords: dict[str, Any]
    outputs: list[str | None]
    several: bool = False
    stack: str = ""


@dataclass
class Graph:
    """The graph of an exported program. `several`: whether it returns a tuple. `weights`: path and number of each value."""

    steps: list[Step]
    input: str
    outputs: list[str]
    several: bool
    weights: dict[str, tuple[str, Tensor]]
    input_size: tuple[int, int, int]
    classes: int | None
    fixed_batch: int | None
    shapes: dict[str, tuple[int, ...]]
    digest: str
    extra: dict[str, str]


class Scope(nn.Module):
    """A module of the original network: its weights, and the place where its operations run."""

    def __init__(self, one_operation: bool = False) -> None:
        super().__init__()
        self.one_operation = one_operation  # it is named as a layer of torch is

    def forward(self, function: Callable[..., Any], arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """The function's result."""
        return function(*arguments, **keywords)


class Program(nn.Module):
    """An exported network as a module: its graph, run step by step in the scopes of its original modules."""

    def __init__(self, described: Graph) -> None:
        super().__init__()
        self._steps = described.steps
        self._adjust: Callable[[Step, list[Any]], list[Any]] | None = None
        self._input, self._outputs, self._spec = described.input, described.outputs, described.several
        self._weights: dict[str, tuple[str, str]] = {}
        self._digest = described.digest
        self._last = _last_uses(self._steps, self._outputs)
        counts = Counter(step.stack for step in self._steps)
        for step in self._steps:
            if step.scope:
                single = counts[step.stack] == 1 and step.stack.rpartition(",")[2].startswith("torch.nn.modules.")
                self._scope(step.scope).one_operation |= single
        for name, (path, tensor) in described.weights.items():
            scope, _, own = path.rpartition(".")
            self._weights[name] = (scope, own)
            place = self._scope(scope) if scope else self
            if isinstance(tensor, nn.Parameter):
                place.register_parameter(own, tensor)
            else:
                place.register_buffer(own, tensor)

    def extra_repr(self) -> str:
        """A digest of the graph, which is part of the network's digest."""
        return f"graph={self._digest}"

    def _scope(self, path: str) -> Scope:
        """The scope of that path, made with those around it if it does not exist."""
        parts, place = path.split("."), self
        if len(parts) > _MOST_DEPTH:
            raise ValueError("modules are nested too deeply")
        for part in parts:
            if part not in place._modules:
                place.add_module(part, Scope())
            place = place._modules[part]  # type: ignore[assignment]
        return place  # type: ignore[return-value]

    def free_batch(self, batch: int, input_size: tuple[int, int, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Replace the batch size in the sizes that steps reshape to, found in a pass over twice as many pictures.

        Args:
            batch: the batch size that the graph was exported with.
            input_size: channels, height and width.
            shapes: of all values at that batch size, by name.
        """

        merged: dict[str, int] = {}

        def adjust(step: Step, arguments: list[Any]) -> list[Any]:
            result = step.outputs[0] or ""
            if step.operation in _SIZED and isinstance(step.arguments[0], Value):
                before, after = shapes.get(step.arguments[0].name, ()), shapes.get(result, ())
                outer = merged.get(step.arguments[0].name, 0)
                place = _batch_place(step, before, tuple(arguments[0].shape), after, batch, outer)
                if place is not None:
                    if math.prod(after[:place]) != (leading := outer or _leading(before, tuple(arguments[0].shape))):
                        merged[result] = leading
                    sizes = list(step.arguments[1])
                    sizes[place] = Batch(sizes[place] // batch) if sizes[place] % batch == 0 else sizes[place]
                    step.arguments[1] = sizes
                    return [arguments[0], _resolved(sizes, {}, pictures), *arguments[2:]]
                return arguments
            for name in _names_read(step) & merged.keys():
                if shapes.get(name, ())[:1] == shapes.get(result, ())[:1]:
                    merged[result] = merged[name]
            return arguments

        pictures = torch.zeros(2 * batch, *input_size)
        dtype = next((t.dtype for t in self.state_dict().values() if t.is_floating_point()), torch.float32)
        self._adjust = adjust
        with (
            torch.no_grad(),
            contextlib.suppress(RuntimeError, ValueError, TypeError, LookupError),
        ):  # `check_batches` reports
            self(pictures.to(dtype))
        self._adjust = None

    def forward(self, pictures: Tensor) -> Any:
        """What the exported network returns for pictures `[N C H W]`."""
        values: dict[str, Any] = {self._input: pictures}
        for name, (scope, own) in self._weights.items():
            values[name] = getattr(self.get_submodule(scope) if scope else self, own)
        for number, step in enumerate(self._steps):
            arguments = [_resolved(argument, values, pictures) for argument in step.arguments]
            keywords = {key: _resolved(argument, values, pictures) for key, argument in step.keywords.items()}
            if self._adjust is not None:
                arguments = self._adjust(step, arguments)
            if step.scope:
                found = self.get_submodule(step.scope)(step.function, arguments, keywords)
            else:
                found = step.function(*arguments, **keywords)
            for result, value in zip(step.outputs, found if step.several else [found], strict=False):
                if result is not None:
                    values[result] = value
            for name in self._last[number]:
                values.pop(name, None)
        answers = [values[name] for name in self._outputs]
        return tuple(answers) if self._spec else answers[0]


def _leading(before: tuple[int, ...], now: tuple[int, ...]) -> int:
    """How many numbers are before the axis that has grown."""
    axis = next((axis for axis, (old, new) in enumerate(zip(before, now, strict=False)) if old != new), 0)
    return math.prod(before[:axis])


def _batch_place(
    step: Step, before: tuple[int, ...], now: tuple[int, ...], after: tuple[int, ...], batch: int, outer: int
) -> int | None:
    """The place of the batch size among the sizes that a step reshapes to; None if it has none, or that is -1.

    Args:
        step: a step that reshapes or expands.
        before: the shape of its input at the exported batch size.
        now: the same with twice as many pictures.
        after: the shape of its result at the exported batch size.
        batch: the exported batch size.
        outer: how many numbers are before that of the batch inside of its axis, as in [17 N, 768]; 0 if it is not merged.
    """
    sizes = step.arguments[1]
    grown = [axis for axis, (old, new) in enumerate(zip(before, now, strict=False)) if old != new]
    if step.operation == "expand":
        place = grown[0] + len(sizes) - len(before) if len(grown) == 1 else 0
        of_weights = not grown and sizes[0] == batch and (len(before) < len(sizes) or before[0] == 1)
        return place if of_weights or (grown and sizes[place] != -1) else None
    if len(grown) != 1 or len(after) != len(sizes):
        return None
    leading, rest = outer or _leading(before, now), math.prod(before[grown[0] + 1 :])
    exact = [place for place in range(len(after)) if math.prod(after[:place]) == leading and after[place] % batch == 0]
    merged = [
        place
        for place in range(len(after))
        if math.prod(after[: place + 1]) == leading * batch and math.prod(after[place + 1 :]) == rest
    ]
    alone = [place for place in exact if after[place] == batch]
    found = alone or (merged if len(after) < len(before) else exact) or exact or merged
    return found[0] if found and sizes[found[0]] != -1 else None


def _resolved(argument: Any, values: Mapping[str, Any], pictures: Tensor) -> Any:
    if isinstance(argument, Value):
        return values[argument.name]
    if isinstance(argument, Batch):
        return argument.times * len(pictures)
    if isinstance(argument, Home):
        return pictures.device
    return [_resolved(one, values, pictures) for one in argument] if isinstance(argument, list) else argument


def _read_values(argument: Any) -> Iterator[str]:
    if isinstance(argument, Value):
        yield argument.name
    elif isinstance(argument, list):
        for one in argument:
            yield from _read_values(one)


def _names_read(step: Step) -> set[str]:
    return set(_read_values([*step.arguments, *step.keywords.values()]))


def _last_uses(steps: list[Step], outputs: list[str]) -> list[list[str]]:
    """The values that nothing reads after each step."""
    seen, last = set(outputs), []
    for step in reversed(steps):
        read = _names_read(step) | {name for name in step.outputs if name is not None}
        last.append(sorted(read - seen))
        seen |= read
    return last[::-1]


def needed_steps(steps: list[Step], wanted: set[str]) -> list[Step]:
    """The steps that the outputs need: those that count batches or check shapes are left out."""
    kept = []
    for step in reversed(steps):
        if wanted & {name for name in step.outputs if name is not None} or step.operation.endswith("_"):
            kept.append(step)
            wanted |= _names_read(step)
    return kept[::-1]
