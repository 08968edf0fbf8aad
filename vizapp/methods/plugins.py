"""Methods of other packages, found by their entry points in the group `vizapp.methods`."""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Collection
from dataclasses import dataclass

from vizapp.errors import one_line
from vizapp.methods.base import Method
from vizapp.methods.params import knobs

GROUP = "vizapp.methods"
_KEY = re.compile(r"[a-z][a-z0-9_]*")  # it is part of addresses and of the command line
_COMMANDS = {"app", "methods", "networks", "report", "sites"}  # of the command line, which are no methods


@dataclass(frozen=True)
class Plugins:
    """The methods of other packages by key, and a sentence for each that cannot be used."""

    methods: dict[str, Method]
    problems: tuple[str, ...]


@functools.lru_cache(maxsize=1)
def plugins(path: tuple[str, ...], taken: frozenset[str]) -> Plugins:
    """The methods of the packages on `path`, which is `sys.path`. Keys in `taken` cannot be used."""
    found: dict[str, Method] = {}
    problems = []
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        owner = entry.dist.name if entry.dist is not None else entry.module
        try:
            method = entry.load()
            reason = _reason_against(method, taken | set(found))
        except Exception as error:  # noqa: BLE001 importing a plugin may raise anything
            reason = f"it cannot be loaded ({type(error).__name__}: {one_line(str(error))[:200]})"
        if reason:
            problems.append(f"The method {entry.name!r} of the package {owner} is not available: {reason}.")
        else:
            found[method.key] = method
    return Plugins(found, tuple(problems))


def _reason_against(method: object, taken: Collection[str]) -> str:
    """Why this cannot be used as a method, or an empty string."""
    if not isinstance(method, Method):
        return f"its entry point names a {type(method).__name__}, not a vizapp.methods.base.Method"
    if not _KEY.fullmatch(method.key):
        return f"its key {method.key!r} does not consist of lower-case letters, digits and underscores"
    if method.key in _COMMANDS:
        return f"its key {method.key!r} is a command of vizapp"
    if method.key in taken:
        return f"there is already a method {method.key!r}"
    knobs(method.params)  # raises for invalid parameters
    return ""
