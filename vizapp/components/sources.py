"""The scripts and styles of the components in this folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent


@cache
def script(name: str) -> str:
    """The script of a component: a module whose default export draws it, given `data`, `parentElement`, `setTriggerValue`."""
    return _read("elements.js") + _read(f"{name}.js")


@cache
def style(name: str) -> str:
    """The styles of a component."""
    return _read("elements.css") + _read(f"{name}.css")


def _read(file: str) -> str:
    return (_FOLDER / file).read_text("utf-8")


def bundle(names: Sequence[str]) -> str:
    """Some components as one script without modules: `COMPONENTS` has the function that draws each, by name."""
    parts = [f"  {name}: (() => {{\n{_read(f'{name}.js')}\n}})()," for name in names]
    return "\n".join([_read("elements.js"), "const COMPONENTS = {", *parts, "};"]).replace(
        "export default function (component)", "return function (component)"
    )
