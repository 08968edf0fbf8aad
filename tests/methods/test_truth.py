"""The true class of a picture from its label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vizapp
from tests.errors import refuses
from tests.networks import Branching, seeded
from vizapp.media.drawing import to_png
from vizapp.methods.truth import asked_class, is_class_number, true_class, true_classes
from vizapp.zoo.network import Network

NAMES = ["tench", "crane", "Sea_snake", "crane", "4x4"]


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, 72, 65), categories=NAMES)


@pytest.mark.parametrize(
    ("label", "class_"),
    [
        ("tench", 0), ("TENCH ", 0), ("tench, Tinca tinca", 0), ("sea-snake", 2), ("sea  snake", 2), ("4x4", 4), ("3", 3),
        ("crane", None), ("crane, bird", None), ("5", None), ("-1", None), ("trout", None), ("", None), (None, None),
        ("\N{SUPERSCRIPT TWO}", None), ("9" * 5000, None),
    ],
)  # fmt: skip
def test_a_label_means_the_one_class_of_its_name_or_number(network, label, class_) -> None:
    assert true_class(network, label) == class_


def test_a_name_counts_before_a_number() -> None:
    turned = vizapp.wrap(seeded(Branching()), input_size=(3, 72, 65), categories=list("43210"))
    assert [true_class(turned, label) for label in "0123456"] == [4, 3, 2, 1, 0, None, None]
    assert not any(is_class_number(turned, label) for label in "0123456")


def test_a_label_is_told_to_be_a_number_where_no_class_has_that_name(network) -> None:
    labels = ("3", " 03 ", "tench", "4x4", "5", "trout")
    assert [is_class_number(network, label) for label in labels] == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("label", "class_"),
    [
        ("n01440764", 1), ("n01440764 tench", 1), ("n02012849", 0), ("n03126707", 2), ("n99999999", None), ("n0144076", None),
        ("n014407641", None), ("STRASSE", 3), ("Cafe\N{COMBINING ACUTE ACCENT}", 4), ("bee", 6), ("BEE", None),
    ],
)  # fmt: skip
def test_numbers_of_wordnet_case_in_every_script_and_exact_names_count(label: str, class_: int | None) -> None:
    """Both cranes of ImageNet: the bird's name says so, and networks of others list all names of a class."""
    names = [
        "crane bird",
        "tench, Tinca tinca",
        "crane",
        "Stra\N{LATIN SMALL LETTER SHARP S}e",
        "CAF\N{LATIN CAPITAL LETTER E WITH ACUTE}",
        "Bee",
        "bee",
    ]
    network = vizapp.wrap(seeded(Branching(7)), input_size=(3, 72, 65), categories=names)
    assert true_class(network, label) == class_
    assert true_classes(network, [label, None, label]) == [class_, None, class_]


def test_a_label_that_somebody_wrote_and_no_class_has_is_told(network) -> None:
    with refuses("no-such-class", "tensh", "0 to 4", "tench"):
        asked_class(network, "tensh")
    with refuses("no-such-class", "crane"):
        asked_class(network, "crane")


def pictures_in(folder: Path, names: list[str]) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(to_png(rng.integers(0, 256, (80, 70, 3), dtype=np.uint8)))
    return folder


def test_pictures_of_class_folders_and_lists_bring_their_label(tmp_path: Path) -> None:
    folder = pictures_in(tmp_path, ["tench/a.png", "crane/b.png", "loose.png"])
    opened = vizapp.open_folder(folder)
    assert {opened.open(n).name: opened.open(n).label for n in range(3)} == {
        "a.png": "tench", "b.png": "crane", "loose.png": None,
    }  # fmt: skip
    (folder / "list.csv").write_text("file,class\nloose.png,Sea snake\ntench/a.png,\n")
    listed = vizapp.open_folder(folder / "list.csv")
    assert [listed.open(n).label for n in range(2)] == ["Sea snake", None]
    assert vizapp.open_picture(folder / "tench/a.png").label is None, "a picture alone tells nothing"


def test_occlusion_shows_the_true_class_and_marks_it(network, tmp_path: Path) -> None:
    folder = vizapp.open_folder(pictures_in(tmp_path, ["Sea snake/a.png", "trout/b.png"]))
    picture = folder.open(0)
    first = vizapp.ask("occlusion", network, vizapp.open_picture(picture.pixels), stride=24)
    other = (int(first.arrays["class"]) + 1) % 5
    assert first.arrays["true_label"] == -1
    assert "true class" not in first.facts
    assert not any(row["true"] for row in first.table)

    result = vizapp.ask("occlusion", network, picture, stride=24)
    assert result.arrays["class"] == result.arrays["true_label"] == 2
    np.testing.assert_array_equal(result.arrays["probability"], first.arrays["probabilities"][..., 2])
    assert result.arrays["clean_probability"] == first.arrays["clean_probabilities"][2]
    assert result.arrays["clean_label"] == first.arrays["clean_label"]
    assert result.facts["true class"].startswith("Sea_snake (2); the network says ")
    assert [row["class"] for row in result.table if row["true"]] == [2]
    assert "Sea_snake (the true class)" in next(p.caption for p in result.panels if p.title == "d-probability")

    said = vizapp.ask("occlusion", network, picture, stride=24, label=str(other))
    assert said.arrays["class"] == said.arrays["true_label"] == other, "what is said counts before the folder"
    asked = vizapp.ask("occlusion", network, picture, stride=24, unit=vizapp.class_unit(network, other))
    assert (asked.arrays["class"], asked.arrays["true_label"]) == (other, 2)
    unknown = vizapp.ask("occlusion", network, folder.open(1), stride=24)
    assert unknown.facts["true class"] == "The photo's label, 'trout', is not a class of this network."
    assert unknown.arrays["true_label"] == -1
    with refuses("no-such-class", "dog"):
        vizapp.ask("occlusion", network, picture, stride=24, label="dog")
