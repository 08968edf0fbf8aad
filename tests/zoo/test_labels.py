"""Files of class names as people have them, and names in both forms of Unicode."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
import torch

import vizapp
from tests.errors import refuses
from vizapp.methods.truth import true_class
from vizapp.zoo.labels import order_names, read_labels

NAMES = ("tench", "goldfish", "great white shark", "it's", "hen", "ostrich", "junco", "robin", "jay", "magpie", "café")
NUMBERED = dict(enumerate(NAMES))
FILES = {
    "literal.txt": repr(NUMBERED),
    "literal on lines.txt": "{" + ",\n ".join(f"{number}: {name!r}" for number, name in NUMBERED.items()) + "}",
    "list.txt": repr(list(NAMES)),
    "object.json": json.dumps(NUMBERED),
    "object.txt": json.dumps(NUMBERED),
    "backwards.json": json.dumps(dict(reversed(NUMBERED.items()))),
    "by text.json": json.dumps(
        {str(number): NUMBERED[number] for number in sorted(NUMBERED, key=str)}
    ),  # 0, 1, 10, 2 …
    "class_to_idx.json": json.dumps({name: number for number, name in reversed(NUMBERED.items())}),
    "imagenet.json": json.dumps({str(number): [f"n{number:08}", name] for number, name in NUMBERED.items()}),
    "lines.txt": "\n".join(NAMES),
    "numbered.csv": "\n".join(f"{number},{name}" for number, name in NUMBERED.items()),
    "titled.csv": "id,name\n" + "\n".join(f"{number},{name}" for number, name in NUMBERED.items()),
    "from one.txt": "\n".join(f"{number + 1}: {name}" for number, name in NUMBERED.items()),
    "wordnet.txt": "\n".join(f"n{number:08} {name}" for number, name in NUMBERED.items()),
}


@pytest.mark.parametrize("name", FILES)
def test_names_are_read_in_the_order_of_their_indices(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    assert read_labels(tmp_path / name) == NAMES


@pytest.mark.parametrize(
    "content",
    ['{"0": "a", "2": "b"}', '{"a": 1, "b": 2}', '{"a": 0, "b": 0}', '{"x": "a"}', "{0: 'a', 0.5: 'b'}", "{}"],
)
def test_indices_with_gaps_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(content)
    with refuses("bad-labels-file"):
        read_labels(tmp_path / "labels.json")


def test_a_dictionary_beside_the_weights_may_have_numbers_in_any_order() -> None:
    assert order_names({"10": "k", **{str(n): "abcdefghij"[n] for n in reversed(range(10))}}) == list("abcdefghijk")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("known", ["NFC", "NFD"])
def test_a_name_in_either_form_of_unicode_is_the_same_class(known: str, form: str) -> None:
    """File systems of Macs take names apart."""
    name, categories = unicodedata.normalize(form, "Café_Größe"), [unicodedata.normalize(known, "café größe"), "tea"]
    head = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    network = vizapp.wrap(head, input_size=(3, 8, 8), categories=categories)
    assert true_class(network, name) == 0
    assert vizapp.class_unit(network, name.replace("_", " ")).channel == 0
