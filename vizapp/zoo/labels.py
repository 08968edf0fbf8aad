"""Class names, from lists, files or torchvision's metadata."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vizapp.errors import VizError, plain_name, quoted
from vizapp.files import local_path, read_file
from vizapp.settings import ASSETS

MOST_CLASSES = 1_000_000
_NUMBERED = re.compile(r"(\d{1,9})\s*[\s,;:=]\s*(\S.*)")
_IMAGENET = ASSETS / "imagenet.classes.txt"  # a class, then its synonyms
_VIEWS = {"body", "easy", "face", "head", "side"}  # what Caltech-101 shows of a thing
_WORDNET = re.compile(r"n\d{8}[\s,;:]+(\S.*)")
_MOST_BYTES = 2**25  # of a labels file; a million names take 20 MB
_MOST_PYTHON = 2**20  # characters of Python literals, which are parsed into a hundred times their size
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
Classes = int | str | Path | Sequence[str] | None


def imagenet_categories() -> tuple[str, ...]:
    """The 1000 class names of ImageNet-1k: of WordNet's synonyms the one in torchvision's metadata."""
    return tuple(imagenet_synonyms())


@cache
def imagenet_synonyms() -> dict[str, str]:
    """The other names of each class of ImageNet-1k, from WordNet: "tench" -> "Tinca tinca"; empty if there are none."""
    lines = _IMAGENET.read_text(encoding="utf-8").splitlines()
    return {name: others for name, _, others in (line.partition(", ") for line in lines)}


def is_background(name: str) -> bool:
    """Whether the name is that of a class that stands for everything else."""
    return name.strip("_").lower() == "background"


def readable(name: str) -> str:
    """The name of a class as English, for people: "grand_piano" -> "grand piano", "car_side" -> "car (side)"."""
    words = name.replace("_", " ").split()
    if "_" in name and len(words) > 1 and words[-1] in _VIEWS:
        words[-1] = f"({words[-1]})"
    return " ".join(words)


def numbered_names(count: int) -> tuple[str, ...]:
    """Names for unnamed classes."""
    return tuple(f"class {number}" for number in range(count))


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names from a file: one per line, or a list or an object from index to name (or name to index).

    Lists and objects are JSON or as Python writes them. Lines may begin with the index or the WordNet ID of the class.

    Raises:
        VizError: the file cannot be read, or holds no names.
    """
    try:
        text = read_file(path, _MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise VizError(f"The labels file {str(path)!r} cannot be read: {reason}.", code="bad-labels-file") from None
    if "\0" in text:  # UTF-16, say
        raise VizError(f"The labels file {str(path)!r} cannot be read: it is not text.", code="bad-labels-file")
    names = None
    _check_count(path, sum(map(text.count, _LINE_ENDS)) // 2)  # a line may end with two of them
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "["):
        names = _names_of_json(path, text)
    if names is None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        _check_count(path, len(lines))
        names = _names_of_lines(lines, path.suffix.lower())
    if not names:
        raise VizError(f"The labels file {str(path)!r} holds no class names.", code="bad-labels-file")
    return tuple(map(plain_name, names))


def _check_count(path: Path, count: int) -> None:
    if count > MOST_CLASSES:
        raise VizError(f"The labels file {str(path)!r} holds more than {MOST_CLASSES:,} names.", code="bad-labels-file")


def _names_of_lines(lines: list[str], suffix: str) -> list[str]:
    """The names in lines, without the indices (then in their order) or WordNet IDs that all lines begin with."""
    if suffix == ".csv" and len(lines) > 1 and not _NUMBERED.match(lines[0]) and _NUMBERED.match(lines[1]):
        lines = lines[1:]  # titles of the columns
    found = [_NUMBERED.match(line) for line in lines]
    pairs = {int(match[1]): match[2] for match in found if match}
    first = min(pairs, default=0)
    if first in (0, 1) and sorted(pairs) == list(range(first, first + len(lines))):
        lines = [pairs[index].strip("\"' ") for index in sorted(pairs)]
    identified = [_WORDNET.match(line) for line in lines]
    return [match[1] for match in identified if match] if all(identified) else lines


def _names_of_json(path: Path, text: str) -> list[str] | None:
    """The names in JSON or a Python literal; None if it is neither and the file is not called JSON."""
    try:
        found = read_json(text)
    except ValueError as error:
        try:
            found = ast.literal_eval(text.strip() if len(text) <= _MOST_PYTHON else "")
            found = {str(key): value for key, value in found.items()} if isinstance(found, dict) else found
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            if path.suffix.lower() != ".json":
                return None
            raise VizError(f"The labels file {str(path)!r} is not JSON: {error}.", code="bad-labels-file") from None
    if isinstance(found, dict | list):
        _check_count(path, len(found))
    if isinstance(found, dict):
        try:
            found = order_names(found)
        except (ValueError, TypeError):
            found = None
    if not isinstance(found, list):
        raise VizError(
            f"The labels file {str(path)!r} must hold a list of names, or an object from index to name.",
            code="bad-labels-file",
        )
    # ImageNet's usual file has ["n01440764", "tench"] under each index
    return [str(name[-1] if isinstance(name, list) and name else name) for name in found]


def read_json(text: str) -> Any:
    """The JSON value. Raises ValueError for any invalid text, including too deep nesting."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def order_names(names: dict[str, object]) -> list[object]:
    """Names in the order of their indices, from index -> name or (as torchvision's `class_to_idx`) name -> index."""
    if all(isinstance(value, int) for value in names.values()):
        pairs = {int(str(index)): name for name, index in names.items()}
    else:
        pairs = {int(index): name for index, name in names.items()}  # type: ignore[misc]
    if sorted(pairs) != list(range(len(names))):
        raise ValueError("the indices are not 0, 1, 2 …")
    return [pairs[index] for index in sorted(pairs)]


def read_classes(classes: Classes) -> tuple[int | None, tuple[str, ...] | None]:
    """The number of classes and their names, from a number, a list of names or a labels file.

    Raises:
        VizError: `classes` is something else, or the file cannot be read.
    """
    if classes is None:
        return None, None
    if isinstance(classes, int) and not isinstance(classes, bool):
        if classes < 1:
            raise VizError(f"A network needs at least one class; {quoted(classes)} was asked for.", code="bad-classes")
        if classes > MOST_CLASSES:
            raise VizError(f"At most {MOST_CLASSES:,} classes are possible.", code="bad-classes")
        return classes, None
    if isinstance(classes, (str, Path)):
        names = read_labels(local_path(classes, "labels file"))
        return len(names), names
    if isinstance(classes, Sequence) and classes and all(isinstance(name, str) for name in classes):
        return len(classes), tuple(classes)
    raise VizError("classes must be a number, a list of names, or the path of a labels file.", code="bad-classes")
