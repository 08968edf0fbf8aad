"""Reading the arguments of a torch function from `args` and `kwargs`, as a call was made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: Any) -> Any:
    """The argument of a call, by position or by name.

    An explicit None, such as a pool's `stride`, gives the default as well, because torch's functions use None for an
    argument that was left out.

    Args:
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        position: Position of the argument.
        name: Name of the argument.
        default: The value if it was not passed, or is None.
    """
    value = args[position] if len(args) > position else kwargs.get(name, default)
    return default if value is None else value


def pair(value: Any) -> tuple[int, int]:
    """(rows, columns) of an argument that torch takes as one number for both, a tuple of one, or two numbers."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    return (int(values[0]), int(values[-1]))


def tensors_in(value: Any) -> Iterable[Tensor]:
    """All tensors inside nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with `change` applied to everything inside nested tuples, lists and dicts."""
    if isinstance(value, (tuple, list)):
        changed = [map_leaves(item, change) for item in value]
        return tuple(changed) if isinstance(value, tuple) else changed
    if isinstance(value, dict):
        return {key: map_leaves(item, change) for key, item in value.items()}
    return change(value)
