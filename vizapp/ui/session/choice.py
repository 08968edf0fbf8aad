"""A choice of the user: its name in an address, its default, and how it is parsed from an address."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any

from vizapp.errors import VizError, nearest, read_index
from vizapp.media.channels import Channels, read_channel_map
from vizapp.media.stacks import read_bands
from vizapp.zoo.intervention_text import read_intervention
from vizapp.zoo.target_text import read_target

LARGEST = "largest"  # ends a walk: from there on along the largest contributions, to the pixels
_STEP = re.compile(r"([^;]+):([0-9]{1,7})(?:@([0-9]{1,5}),([0-9]{1,5}))?")
_PART = re.compile(r"[^:,]+(:[0-9]{1,6}){4}|[1-9][0-9]{0,4}x[1-9][0-9]{0,4}")


def text(value: str) -> str:
    """Any text."""
    return value


def one_of(*choices: str, aliases: Mapping[str, str] = MappingProxyType({})) -> Callable[[str], str]:
    """A parser that accepts one of these words, or an alias of one."""

    def read(value: str) -> str:
        value = aliases.get(value, value)
        if value not in choices:
            raise VizError(
                f"{value!r} is not one of {', '.join(choices)}.{nearest(value, choices)}", code="no-such-choice"
            )
        return value

    return read


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser for a whole number from `low` to `high`."""

    def read(value: str) -> int:
        number = read_index(value)
        if number is None or number < low or (high is not None and number > high):
            upper = f" to {high}" if high is not None else " or more"
            raise VizError(f"{value!r} is not a whole number of {low}{upper}.", code="not-a-number")
        return number

    return read


def number(value: str) -> float:
    """Parse a finite number, as in `-1.5`."""
    with suppress(ValueError):
        if isfinite(read := float(value)):
            return read
    raise VizError(f"{value!r} is not a finite number.", code="not-a-number")


def cell(value: str) -> tuple[int, int]:
    """Parse a cell of a map, as in `3,5`."""
    row, _, column = value.partition(",")
    try:
        return integer(0)(row.strip()), integer(0)(column.strip())
    except VizError:
        raise VizError(f"{value!r} is not a cell, which is written row,column, as in 3,5.", code="not-a-cell") from None


def bands(value: str) -> str:
    """Check the numbers of bands, as in `3,2,1`."""
    return ",".join(map(str, read_bands(value)))


def channel_map(value: str) -> str:
    """Check a channel map, as in `R,G,B,mean`."""
    entries = read_channel_map(value)
    return ",".join(Channels(len(entries), entries).map)


def unit(value: str) -> str:
    """Check a unit, as in `features.12:17`."""
    site, _, channel = value.rpartition(":")
    if not site or read_index(channel) is None or int(channel) < 0:
        raise VizError(
            f"{value!r} is not a unit, which is written layer:channel, as in features.12:17.", code="not-a-unit"
        )
    return value


def walk(value: str) -> tuple[str, ...]:
    """Check units separated by semicolons, each `layer:channel` or `layer:channel@row,column`; `largest` may end them."""
    steps = tuple(part.strip() for part in value.split(";") if part.strip())
    for number, step in enumerate(steps):
        if not _STEP.fullmatch(step) and not (step == LARGEST and number and number == len(steps) - 1):
            raise VizError(
                f"{step!r} is not a step of a walk, which is written layer:channel@row,column, as in features.12:17@3,5.",
                code="not-a-step",
            )
    return steps


def read_step(text: str) -> tuple[str, int, tuple[int, int] | None]:
    """Layer, channel and cell (None if it has none) of a step that `walk` accepts."""
    found = _STEP.fullmatch(text)
    assert found is not None, "the choice was checked when it was made"
    layer, channel, row, column = found.groups()
    return layer, int(channel), None if row is None else (int(row), int(column))


def interventions(value: str) -> tuple[str, ...]:
    """Parse interventions separated by semicolons, each as the command line's `--set` takes it."""
    parts = tuple(part.strip() for part in value.split(";") if part.strip())
    for part in parts:
        read_intervention(part)
    return parts


def target(value: str) -> str:
    """Check a target, as the command line's `--target` takes it, but without files of the machine."""
    read_target(value, files=False)
    return value


def names(value: str) -> tuple[str, ...]:
    """Parse names separated by commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def parts(value: str) -> tuple[str, ...]:
    """Parse parts of photos, as in `224x224,chelsea:60:70:150:160,coffee:…`.

    Height and width of the crop, then of each photo top, left, bottom and right in its pixels.
    """
    found = names(value)
    for one in found:
        if not _PART.fullmatch(one):
            raise VizError(
                f"{one!r} is not a part of a photo, which is written photo:top:left:bottom:right, as in chelsea:60:70:150:160.",
                code="not-a-part",
            )
    return found


@dataclass(frozen=True)
class Choice:
    """Something that the user chooses."""

    name: str
    default: Any
    read: Callable[[str], Any] = text
    shared: bool = False  # whether the address of every page carries it
    joint: str = ","  # between the parts of a tuple, in an address
    follows: Choice | None = None  # the choice whose value it has while its own is None

    @property
    def key(self) -> str:
        """Its key in the session's state."""
        return f"choice.{self.name}"
