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
from vizapp.zoo import labels
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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\x1c", "\x85", "\u2028"])
def test_more_names_than_a_network_can_have_classes_are_refused(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "MOST_CLASSES", 20)
    path = tmp_path / "names.txt"
    path.write_bytes("".join(f"n{number}{end}" for number in range(20)).encode())
    assert len(read_labels(path)) == 20
    for count in (21, 5000):
        path.write_bytes("".join(f"n{number}{end}" for number in range(count)).encode())
        with refuses("bad-labels-file", "more than 20 names"):
            read_labels(path)


@pytest.mark.parametrize("form", [json.dumps, repr, lambda names: json.dumps(dict(enumerate(names)))])
def test_more_names_in_a_list_or_object_are_refused(form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MOST_CLASSES", 20)
    path = tmp_path / "names.json"
    path.write_text(form([f"n{number}" for number in range(20)]))
    assert len(read_labels(path)) == 20
    path.write_text(form([f"n{number}" for number in range(21)]))
    with refuses("bad-labels-file", "more than 20 names"):
        read_labels(path)


def test_long_literals_of_python_are_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python parses a file of 18 MB into more than 3 GB."""
    parsed = []
    monkeypatch.setattr(labels.ast, "literal_eval", lambda text: parsed.append(len(text)) or ["a"])
    path = tmp_path / "names.json"
    path.write_text("{" + "0:'a'," * 500_000 + "}")
    read_labels(path)
    assert parsed == [0]


@pytest.mark.parametrize(
    "content", [b"tench\0\nhen", "tench\nhen".encode("utf-16-le"), "tench\nhen".encode("utf-16"), b"\xe9"]
)
def test_what_is_no_text_in_utf_8_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with refuses("bad-labels-file", "it is not text"):
        read_labels(tmp_path / "names.txt")
