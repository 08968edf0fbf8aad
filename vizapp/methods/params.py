"""Parameters of methods. The widgets of the app and the command-line options are generated from them."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from vizapp.errors import VizError, nearest, quoted

P = TypeVar("P", bound="Params")
_WORDS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


@dataclass(frozen=True)
class Params:
    """The parameters of a method: a frozen dataclass whose fields are made with `knob`."""


@dataclass(frozen=True)
class Knob:
    """How one parameter is shown and checked.

    `read`: checks and converts the value instead, where the parameter has no text form of its own. Python gives such a
    value, and the command line the path of a file with it; it is in no form and in no link.
    """

    name: str
    kind: type  # int, float, bool, str, or tuple for a list
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    item: type = str  # of a list: str or float
    read: Callable[[Any], Any] | None = None

    def check(self, value: Any) -> Any:
        """The value converted to the type of the knob; text is parsed, because the command line and links give text.

        Raises:
            VizError: wrong type, out of range, or not one of the choices.
        """
        if self.read is not None:
            return self.read(value)
        if self.choices:
            if value not in self.choices:
                hint = nearest(str(value), self.choices)
                raise VizError(
                    f"{self.name} is {quoted(value)}; it must be one of {', '.join(self.choices)}.{hint}",
                    code="no-such-choice",
                )
            return value
        read = self._read(value)
        if self.kind is tuple:
            return read
        below, above = self.low is not None and read < self.low, self.high is not None and read > self.high
        if below or above or read != read:
            raise VizError(f"{self.name} is {quoted(value)}; it must be {self._range()}.", code="bad-value")
        return read

    def _read(self, value: Any) -> Any:
        wrong = VizError(f"{self.name} is {quoted(value)}; it must be {self._range()}.", code="bad-value")
        if self.kind is bool:
            value = _WORDS.get(value.lower(), value) if isinstance(value, str) else value
            if not isinstance(value, bool):
                raise wrong
            return value
        if self.kind is tuple:
            parts = value.split(",") if isinstance(value, str) else value
            if self.item is float:
                return self._numbers(parts, wrong)
            if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
                raise wrong
            return tuple(part.strip() for part in parts if part.strip())
        if self.kind is str:
            if value is None and self.default == "":
                return ""
            if isinstance(value, int) and not isinstance(value, bool):  # stride=16 for stride="16"
                return str(value)
            if not isinstance(value, str):
                raise wrong
            return value
        if isinstance(value, bool):
            raise wrong
        try:
            read = self.kind(value)
        except (TypeError, ValueError, OverflowError):
            raise wrong from None
        if self.kind is int and not isinstance(value, str) and read != value:
            raise wrong
        return read

    def _numbers(self, parts: Any, wrong: VizError) -> tuple[float, ...]:
        """A list of finite numbers; of a text, its empty parts are left out."""
        try:
            if any(isinstance(part, bool) for part in parts):
                raise wrong
            read = tuple(float(part) for part in parts if not isinstance(part, str) or part.strip())
        except (TypeError, ValueError, OverflowError):
            raise wrong from None
        if not all(map(math.isfinite, read)):
            raise wrong
        return read

    @property
    def allowed(self) -> str:
        """The values that it takes, for people."""
        return ", ".join(self.choices) or ("see the help" if self.read is not None else self._range())

    def _range(self) -> str:
        nouns = {int: "a whole number", float: "a number", bool: "yes or no", str: "a text"}
        lists = {
            str: "a list of texts, or one text with commas",
            float: "a list of finite numbers, or a text with commas",
        }
        noun = nouns.get(self.kind, lists[self.item])
        if self.low is not None and self.high is not None:
            noun += f" from {self.low:g} to {self.high:g}"
        elif self.low is not None:
            noun += f" of at least {self.low:g}"
        elif self.high is not None:
            noun += f" of at most {self.high:g}"
        return f"{noun} {self.unit}".rstrip()


def knob(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    read: Callable[[Any], Any] | None = None,
) -> Any:
    """A field of a `Params` class.

    Args:
        default: The default.
        help: A short description.
        low: Smallest value.
        high: Largest value.
        unit: Unit of the number, such as "pixels".
        read: Checks and converts a value that only Python and a file give; see `Knob`.
    """
    metadata = {"help": help, "low": low, "high": high, "unit": unit, "read": read}
    return dataclasses.field(default=default, metadata=metadata)


def knobs(params: type[Params]) -> dict[str, Knob]:
    """The knobs of a `Params` class by name, in the order of the class. A `Literal` annotation gives the choices."""
    types = typing.get_type_hints(params)
    found = {}
    for field in dataclasses.fields(params):
        kind = types[field.name]
        choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
        item = next((one for one in typing.get_args(kind) if one is float), str)
        kind = str if choices else typing.get_origin(kind) or kind
        found[field.name] = Knob(field.name, kind, field.default, **field.metadata, choices=choices, item=item)
    return found


def build(params: type[P], values: dict[str, Any], owner: str) -> P:
    """The parameters with the checked `values`, and defaults for the rest. `owner` is named in errors.

    Raises:
        VizError: an unknown name, or an invalid value.
    """
    known = knobs(params)
    for name in values:
        if name not in known:
            listed = f" It has: {', '.join(known)}." if known else " It has none."
            raise VizError(
                f"The {owner} has no parameter {name!r}.{nearest(name, known)}{listed}", code="no-such-parameter"
            )
    return params(**{name: known[name].check(value) for name, value in values.items()})
