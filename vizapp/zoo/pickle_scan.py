"""Look through a pickle before it is read: a few hundred bytes can ask for hours of work or for all memory.

torch's unpickler runs no foreign code, but it allows nested tuples as keys, whose hash takes time exponential in the depth
and holds Python's lock, and `bytearray(n)`, which takes `n` bytes. State dicts need neither.
"""

from __future__ import annotations

import pickletools
from typing import IO, Any

MOST_BYTES = 2**24  # of a pickle without its numbers; a state dict of 10,000 weights takes 2 MB
MOST_DIMENSIONS = 64  # of a tensor; torch takes time quadratic in them
_MOST_NESTED = 1000  # items of a tuple with those of the tuples in it, each as often as it is hashed
_MOST_LONG = 1000  # integers beyond 64 bits, which can be chosen so that all have the same hash
_ALLOCATING = {"builtins bytearray", "builtins complex"}
_MARK = -1  # on the stack, in place of the size of an object


class Unsafe(ValueError):
    """Reading the pickle could take unlimited time or memory; the message names what it contains."""


class TooLong(Unsafe):
    """The pickle is longer than asked for."""


def scan(file: IO[bytes], pickles: int = 1, most: int = MOST_BYTES) -> dict[str, None]:
    """The names ("module name") of the classes and functions in at most that many consecutive pickles, in their order.

    The pickles are not run. There is an empty name, too, if names are put together on the stack, which may be others, or a
    tuple is longer than the sizes of a tensor.

    Raises:
        Unsafe: A pickle contains nested tuples, many huge integers or a call that allocates.
        TooLong: A pickle has more than `most` bytes.
        ValueError: It is not a pickle, or it is truncated.
    """
    found: dict[str, None] = {}
    for _ in range(pickles):
        if not file.peek(1):  # type: ignore[attr-defined]
            break
        _scan_one(file, most, found)
    return found


def _scan_one(file: IO[bytes], most: int, found: dict[str, None]) -> None:
    """Run the operations on the sizes of objects: 1, or for a tuple the number of items that its hash visits."""
    stack: list[int] = []
    memo: dict[int, int] = {}
    long, names = 0, ["", ""]  # the last two strings, which name a global of protocol 4
    try:
        value: Any
        for operation, value, position in pickletools.genops(file):
            name = operation.name
            if (position or 0) > most:
                raise TooLong(f"more than {most >> 20} MB besides numbers")
            if isinstance(value, str):
                names = [names[1], value]
            called = str(value) if name in ("GLOBAL", "INST") else " ".join(names) if name == "STACK_GLOBAL" else ""
            called = called.replace("__builtin__ ", "builtins ")  # Python 2's name
            if called in _ALLOCATING:
                raise Unsafe(called.replace(" ", "."))
            if called:
                found[called] = None
            if name == "STACK_GLOBAL" or "EXT" in name:
                found[""] = None
            if isinstance(value, int) and value.bit_length() > 64:
                long += 1
                if long > _MOST_LONG:
                    raise Unsafe("many huge integers")
            if name == "MARK":
                stack.append(_MARK)
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif "PUT" in name:
                memo[int(value)] = stack[-1]
            elif "GET" in name:
                stack.append(memo[int(value)])
            else:
                _run(operation, stack)
                if stack and stack[-1] > 3 * MOST_DIMENSIONS:  # sizes, strides and the rest
                    found[""] = None
    except (LookupError, TypeError, OverflowError, UnicodeDecodeError):
        raise ValueError from None  # pickletools and this function meet a stack that no pickler writes


def _run(operation: pickletools.OpcodeInfo, stack: list[int]) -> None:
    """Replace what the operation takes from the stack by what it leaves there."""
    before, taken = operation.stack_before, []
    if pickletools.markobject in before:
        while (top := stack.pop()) != _MARK:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    taken += [stack.pop() for _ in before]
    size = 1 + sum(taken) if "TUPLE" in operation.name else 1
    if size > _MOST_NESTED and any(one > 1 for one in taken):
        raise Unsafe("nested tuples")
    stack.extend([size] * len(operation.stack_after))
