"""Code that tests and benchmarks pass to other processes as text imports existing names."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for folder in ("tests", "benchmarks", "training") for path in sorted((ROOT / folder).rglob("*.py"))]
OTHERS = {"test_layout.py"}  # its strings are code of made-up packages


def imports(text: str) -> Iterator[tuple[str, str]]:
    """Modules of ours, and the names that a string imports of them if it is code."""
    if "import" not in text or "vizapp" not in text:
        return
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vizapp":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "vizapp")


def exists(module: str, name: str) -> bool:
    """Whether there is such a module, and such a name or module in it."""
    try:
        found = importlib.import_module(module)
        return not name or hasattr(found, name) or bool(importlib.import_module(f"{module}.{name}"))
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_strings_import_is_there(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found = [] if path.name in OTHERS else [pair for text in texts for pair in imports(text)]
    assert [pair for pair in found if not exists(*pair)] == []
