"""Every error that a user can meet, in one file: `tests/sentences.txt` lists code and sentence of each.

After a change of a sentence, rewrite the file and read the difference:  python -m tests.test_sentences
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.import_graph import ROOT, module_paths

SNAPSHOT = Path(__file__).with_name("sentences.txt")
CODE = re.compile(r"[a-z]+(-[a-z]+)*")
MOST_WITHOUT_CODE = 46  # to become 0
COMMON = {
    "the",
    "and",
    "has",
    "for",
    "with",
    "this",
    "that",
    "was",
    "not",
    "are",
    "can",
    "its",
    "from",
    "which",
    "there",
    "take",
    "give",
    "asked",
    "error",
    "str",
}
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Sentence:
    """An error that some line of vizapp constructs. `code` is empty where the source has no literal one."""

    file: str
    line: int
    code: str
    text: str


@cache
def sentences(root: Path = ROOT) -> list[Sentence]:
    """The errors of all files, in the order of the files and their lines.

    Found are calls of `VizError`, what a class derived from it hands to `super().__init__`, and the text that is handed to
    a function which returns such an error (`refuse`). `code=error.code`, the code of a caught error, is listed as `*`.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(module_paths(root).values())}
    classes = _derived(trees.values())
    makers = dict(_makers(trees.values(), classes))
    found = []
    for path, tree in trees.items():
        for call in _calls(tree, classes, makers):
            codes = [word.value for word in call.keywords if word.arg == "code"]
            for text in _alternatives(_text(call, makers)):
                name = makers.get(_name(call.func)) or (_code(codes[0]) if codes else "")
                found.append(Sentence(path.relative_to(root).as_posix(), call.lineno, name, _template(text)))
    return sorted(found, key=lambda each: (each.file, each.line))


def _derived(trees) -> set[str]:
    """The names of VizError and of all classes derived from it."""
    bases = {
        node.name: {_name(base) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"VizError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def _makers(trees, classes: set[str]) -> Iterator[tuple[str, str]]:
    """Functions that return a new error, with the code of that error; they take a part of its sentence."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, _FUNCTIONS) and node.returns is not None and ast.unparse(node.returns) in classes:
                for call in ast.walk(node):
                    if (
                        isinstance(call, ast.Call)
                        and _name(call.func) == "VizError"
                        and "why" in ast.unparse(node.args)
                    ):
                        yield node.name, next((_code(word.value) for word in call.keywords if word.arg == "code"), "")


def _calls(tree: ast.Module, classes: set[str], makers: dict[str, str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in {"VizError", *makers}:
            yield node
        if isinstance(node, ast.ClassDef) and node.name in classes - {"VizError"}:
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__":
                    yield call


def _text(call: ast.Call, makers: dict[str, str]) -> ast.expr:
    return call.args[-1] if _name(call.func) in makers else call.args[0]


def _alternatives(text: ast.expr) -> list[ast.expr]:
    return [*_alternatives(text.body), *_alternatives(text.orelse)] if isinstance(text, ast.IfExp) else [text]


def _code(value: ast.expr) -> str:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    return "*" if isinstance(value, ast.Attribute) and value.attr == "code" else ""


def _template(text: ast.expr) -> str:
    """The sentence, with what is filled in as `{its source}`."""
    if isinstance(text, ast.Constant):
        return str(text.value)
    if isinstance(text, ast.JoinedStr):
        return "".join(_template(part) for part in text.values)
    return "{" + ast.unparse(text.value if isinstance(text, ast.FormattedValue) else text) + "}"


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def snapshot() -> str:
    """What the file should hold."""
    lines, file = [], ""
    for each in sentences():
        if each.file != file:
            lines += ["", file := each.file]
        lines.append(f"    {each.code or '(no code)'} | {each.text}")
    return "\n".join(lines[1:]) + "\n"


def test_the_sentences_are_those_that_were_read() -> None:
    assert snapshot() == SNAPSHOT.read_text(encoding="utf-8"), "rewrite the file: python -m tests.test_sentences"


def test_every_error_has_a_literal_code() -> None:
    bare = [f"{each.file}:{each.line}" for each in sentences() if not each.code]
    assert len(bare) <= MOST_WITHOUT_CODE, bare
    wrong = [each for each in sentences() if each.code not in {"", "*"} and not CODE.fullmatch(each.code)]
    assert not wrong


def test_a_code_stands_for_one_mistake() -> None:
    """Sentences of one code speak of the same thing: each shares a word with another one."""
    by_code: dict[str, list[Sentence]] = {}
    for each in sentences():
        by_code.setdefault(each.code, []).append(each)
    for code in by_code.keys() - {"", "*"}:
        words = [set(re.findall(r"[a-z]{3,}", each.text.lower())) - COMMON for each in by_code[code]]
        for number, one in enumerate(words):
            others = set().union(*words[:number], *words[number + 1 :])
            assert len(words) == 1 or one & others, f"{code}: {by_code[code][number]}"


def test_errors_are_found_however_they_are_made(tmp_path: Path) -> None:
    (tmp_path / "vizapp").mkdir()
    (tmp_path / "vizapp" / "x.py").write_text(
        "raise VizError('A.', code='a')\n"
        "raise VizError(f'B {x + 1!r:>3}.' if x else 'C.', code=code)\n"
        "raise errors.VizError(str(error), code=error.code)\n"
        "class Derived(VizError):\n    def __init__(self):\n        super().__init__('D.', code='d')\n"
        "def refuse(name, why) -> VizError:\n    return VizError(f'{name} {why}.', code='e')\n"
        "raise refuse('name', 'is E')\n"
        "raise Derived()\n"
    )
    assert [(each.line, each.code, each.text) for each in sentences(tmp_path)] == [
        (1, "a", "A."),
        (2, "", "B {x + 1}."),
        (2, "", "C."),
        (3, "*", "{str(error)}"),
        (6, "d", "D."),
        (8, "e", "{name} {why}."),
        (9, "e", "is E"),
    ]


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
