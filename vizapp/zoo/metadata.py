"""Class names and preprocessing that are stored in the file of a network, or beside it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vizapp.errors import VizError
from vizapp.zoo.labels import numbered_names, read_json
from vizapp.zoo.pickled import find_names
from vizapp.zoo.preprocessing import Preprocessing
from vizapp.zoo.processor import beside, read_config, translate

_NAME_KEYS = ("id2label", "names", "classes", "class_names", "categories", "labels", "class_to_idx")
_PREPROCESSING_KEY = "preprocessor_config"


def _value(text: str) -> Any:
    """The JSON value or Python literal that the text is, or its lines."""
    for read in (read_json, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return [line.strip() for line in text.splitlines() if line.strip()]


def names_in(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names in the metadata of a file, whose keys may have a suffix (`classes.txt`); None if there are none."""
    plain = {key.partition(".")[0]: text for key, text in metadata.items()}
    for key in _NAME_KEYS:
        if key in plain and (names := find_names({"classes": _value(plain[key])})):
            return names
    return None


def names_beside(folder: Path) -> tuple[str, ...] | None:
    """The class names in a `config.json` in the folder, as Hugging Face writes it; None if there are none."""
    path = folder / "config.json"
    return find_names({"classes": read_config(path).get("id2label")}) if path.is_file() else None


def categories_of(metadata: Mapping[str, str], folder: Path, classes: int | None) -> tuple[str, ...]:
    """The class names in the metadata of a file or beside it, else numbers. Whether they fit is judged when it is opened."""
    return names_in(metadata) or names_beside(folder) or numbered_names(classes or 0)


def no_other_weights(classes: int) -> nn.Module:
    """What builds a network whose weights are in its file: nothing does."""
    raise VizError("This network holds its weights in the same file.", code="no-such-weights")


def preprocessing_in(
    metadata: Mapping[str, str], folder: Path, input_size: tuple[int, int, int]
) -> tuple[Preprocessing, str]:
    """The preprocessing in the metadata of a file, or in a `preprocessor_config.json` beside it; and where it is from."""
    shape, found = beside(folder, *input_size)
    plain = {key.partition(".")[0]: text for key, text in metadata.items()}
    if isinstance(inside := _value(plain.get(_PREPROCESSING_KEY, "")), dict):
        return translate(inside, shape), "that stored in the file"
    if found:
        return shape, "that of preprocessor_config.json beside the file"
    return shape, "Neither the file nor a preprocessor_config.json beside it describes it. The defaults are used."
