"""The imports among the files of vizapp, read from their source without importing them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NO_REASON = re.compile(r"noqa(: *[A-Z0-9, ]+\b)?|fmt: *\w+|type: *ignore(\[[^]]*\])?|pragma: *[\w ]+")
_Nested = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, the line, whether a function body holds it, and its trailing comment."""

    name: str
    line: int
    in_function: bool
    reason: str


def module_paths(root: Path = ROOT) -> dict[str, Path]:
    """The file of each module of vizapp, by dotted name; a package is its `__init__.py`."""
    paths = sorted((root / "vizapp").rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file. Several tests read it."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(module: str, path: Path, known: Iterable[str]) -> list[Import]:
    """What a file imports: at the top, in functions, under TYPE_CHECKING, and by name (`import_module`, `lazy_loader.load`).

    `from a import b` is the module `a.b` where that is one of `known`, else the module `a`.
    """
    text, modules = path.read_text(encoding="utf-8"), set(known)
    source = text.splitlines()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node, in_function in _walk(parsed(path)):
        for name in _names(node, package, modules):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            commented = any("#" in source[line - 1] for line in lines)  # few are, and to find the comments takes long
            reason = " ".join(filter(None, map(_comments(text).get, lines))) if commented else ""
            found.append(Import(name, node.lineno, in_function, reason))
    return found


def import_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """The modules of vizapp that each module of vizapp imports, wherever in the file the import stands."""
    paths = module_paths(root)
    return {
        module: {each.name for each in imports_of(module, path, paths) if each.name in paths} - {module}
        for module, path in paths.items()
    }


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of modules that reach each other (strongly connected components of more than one module)."""
    reach = {module: _reachable(graph, module) for module in graph}
    found = {frozenset({other for other in reach[module] if module in reach[other]}) for module in graph}
    return {circle for circle in found if len(circle) > 1}


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        new = graph.get(left.pop(), set()) - seen
        seen |= new
        left += new
    return seen


def _walk(tree: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """Each node in the order of the source, and whether a function holds it."""
    left = [(tree, False)]
    while left:
        node, in_function = left.pop()
        yield node, in_function
        within = in_function or isinstance(node, _Nested)
        left += [(child, within) for child in reversed(list(ast.iter_child_nodes(node)))]


def _names(node: ast.AST, package: str, modules: set[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*parts, *filter(None, [node.module])])
        full = [f"{base}.{alias.name}" for alias in node.names]
        return sorted({name if name in modules else base for name in full})
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called, value = ast.unparse(node.func), node.args[0].value
        if re.fullmatch(r"(importlib\.)?import_module|lazy(_loader)?\.load", called) and isinstance(value, str):
            return [value]
    return []


@cache
def _comments(text: str) -> dict[int, str]:
    """The comment on each line, without what speaks to tools (`noqa`, `fmt: skip`)."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = _NO_REASON.sub("", token.string).strip("# ")
    return found
