"""The visualizations, one file each. Every file in this folder that has a `METHOD` is a method; there is no other list.

Other packages add methods with entry points in the group `vizapp.methods`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError, nearest
from vizapp.markup import Displayed
from vizapp.media.picture import Picture, open_picture
from vizapp.media.source import Source
from vizapp.media.sources import open_folder
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.notebook import methods_html
from vizapp.methods.params import build
from vizapp.methods.plugins import plugins
from vizapp.progress import notebook_progress
from vizapp.zoo.interventions import Intervention, under
from vizapp.zoo.network import Network
from vizapp.zoo.target import Target, toward


class _Methods(Displayed, dict[str, Method]):
    """Methods by key, which notebooks display as a table."""

    def _repr_html_(self) -> str:
        rows = ((key, method, sorted(method.needs), sorted(method.optional_inputs)) for key, method in self.items())
        return methods_html(
            [{"key": key, "needs": ", ".join(needs), "can use": ", ".join(more), "what it does": method.summary}
             for key, method, needs, more in rows]
        )  # fmt: skip


def methods() -> dict[str, Method]:
    """All methods by key, in alphabetical order: those that come with vizapp and those of other packages."""
    found = _bundled()
    return _Methods(sorted((found | plugins(tuple(sys.path), frozenset(found)).methods).items()))


def problems() -> tuple[str, ...]:
    """A sentence for each method of another package that cannot be used."""
    return plugins(tuple(sys.path), frozenset(_bundled())).problems


@cache
def _bundled() -> dict[str, Method]:
    """The methods of this folder by key."""
    found = {}
    for entry in pkgutil.iter_modules(__path__):
        method = getattr(importlib.import_module(f"{__name__}.{entry.name}"), "METHOD", None)
        if isinstance(method, Method):
            found[method.key] = method
    return found


def method(key: str) -> Method:
    """The method of that key.

    Raises:
        VizError: there is none; the message suggests similar ones.
    """
    known = methods()
    if key not in known:
        told = "".join(f" {problem}" for problem in problems() if repr(key) in problem)
        raise VizError(
            f"There is no method {key!r}.{told}{nearest(key, known)} Methods: {', '.join(known)}.",
            code="no-such-method",
        )
    return known[key]


def ask(
    key: str,
    network: Network,
    picture: Picture | str | Path | bytes | np.ndarray | None = None,
    folder: Source | str | Path | bytes | None = None,
    unit: Unit | None = None,
    tick: Callable[[float], None] | None = None,
    interventions: Sequence[Intervention] = (),
    target: Target | None = None,
    **params: Any,
) -> Result:
    """The result of a method for a network.

    Args:
        key: Key of the method.
        network: What `vizapp.load` or `vizapp.wrap` returns.
        picture: A picture, or anything that `open_picture` takes.
        folder: A collection of pictures, or anything that `open_folder` takes.
        unit: The unit, if the method takes one.
        tick: Called with the progress from 0 to 1, at least twice a second in long work. If it raises, the work ends.
            Without one, a notebook shows a progress bar.
        interventions: What is changed in every pass, with any method.
        target: What of the network's output is explained, if it is no unit: a cell or region of a class map, a box, an
            embedding, a head, a class.
        **params: Parameters of the method; `vizapp.methods()[key].params` lists them with defaults and ranges.

    Raises:
        VizError: no such method or parameter, a value out of range, or the method cannot answer this question.
    """
    chosen = method(key)
    question = _question(network, picture, folder, unit)
    with notebook_progress(tick, chosen.title) as tick:
        if interventions:
            question = replace(question, network=under(question.network, interventions, question.folder, tick))
        if target is not None:
            aimed, of_class = toward(question.network, target, question.picture)
            question = replace(question, network=aimed, unit=question.unit or of_class)
        built = chosen.fit(build(chosen.params, params, f"method {key!r}"), question.network, params)
        return chosen.answer(question, built, Job(tick))


def _question(network: Any, picture: Any, folder: Any, unit: Any) -> Question:
    """The question, from the arguments of `ask`."""
    if not isinstance(network, Network):
        raise VizError(
            f"network is {_told(network)}; give what vizapp.load or vizapp.wrap returns.", code="not-a-network"
        )
    picture = None if picture is None else open_picture(picture)
    folder = folder if folder is None or isinstance(folder, Source) else open_folder(folder)
    return Question(network, picture, folder, None if unit is None else _whole(unit))


def _whole(unit: Any) -> Unit:
    """The unit with its numbers as Python integers."""
    if not isinstance(unit, Unit):
        raise VizError(
            f"unit is {_told(unit)}; give vizapp.Unit(site, channel) or vizapp.class_unit(network, class).",
            code="not-a-unit",
        )
    try:
        channel, cell = index(unit.channel), None if unit.cell is None else tuple(map(index, unit.cell))
        if cell is not None and len(cell) != 2:
            raise TypeError
    except TypeError:
        raise VizError(
            f"{unit} is not a unit: channel is a whole number, and cell is (row, column) or None.", code="not-a-unit"
        ) from None
    return replace(unit, channel=channel, cell=cell)


def _told(value: object) -> str:
    return repr(value) if isinstance(value, str) else f"a {type(value).__name__}"


class _CallablePackage(types.ModuleType):
    """Makes the package callable: `vizapp.methods()` lists the methods, and `vizapp.methods.base` is still a module."""

    def __call__(self) -> dict[str, Method]:
        return methods()


sys.modules[__name__].__class__ = _CallablePackage
