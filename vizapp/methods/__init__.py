"""The visualizations, one file each. A file in this folder with a `METHOD` is a method; there is no other list."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vizapp.errors import VizError, nearest
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.params import build

if TYPE_CHECKING:
    from vizapp.engine.sites import Unit
    from vizapp.media.picture import Picture
    from vizapp.media.source import Source
    from vizapp.zoo.network import Network


def methods() -> dict[str, Method]:
    """All methods by key, in alphabetical order."""
    found = {}
    for entry in pkgutil.iter_modules(__path__):
        method = getattr(importlib.import_module(f"{__name__}.{entry.name}"), "METHOD", None)
        if isinstance(method, Method):
            found[method.key] = method
    return dict(sorted(found.items()))


def method(key: str) -> Method:
    """The method of that key.

    Raises:
        VizError: there is none; names the nearest.
    """
    known = methods()
    if key not in known:
        raise VizError(f"There is no method {key!r}.{nearest(key, known)} Methods: {', '.join(known)}.")
    return known[key]


def ask(
    key: str,
    network: Network,
    picture: Picture | None = None,
    folder: Source | None = None,
    unit: Unit | None = None,
    tick: Callable[[float], None] | None = None,
    **params: Any,
) -> Result:
    """The answer of a method to a question about a network.

    `params` are the method's own (`vizapp.methods()[key].params` lists them with defaults and ranges). `tick` is called
    with the share that is done, from 0 to 1, at least twice a second in long work; whatever it raises ends the work.

    Raises:
        VizError: no such method or parameter, a value out of range, or the method cannot answer this question.
    """
    chosen = method(key)
    question = Question(network, picture, folder, unit)
    return chosen.answer(question, build(chosen.params, params, f"method {key!r}"), Job(tick))


class _CallablePackage(types.ModuleType):
    """`vizapp.methods()` lists the methods and `vizapp.methods.base` is a module: both names are promised."""

    def __call__(self) -> dict[str, Method]:
        return methods()


sys.modules[__name__].__class__ = _CallablePackage
