"""The search for units by classes: what words mean, average precision as its formula says, and what is shipped for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vizapp
from tests.errors import refuses
from vizapp.gallery import Gallery, open_gallery
from vizapp.gallery.search import TopClasses, require_places, search, shipped_classes, top_classes
from vizapp.media.bundled import open_digits
from vizapp.media.sources import open_folder
from vizapp.methods.gallery import photos_with_classes
from vizapp.zoo.labels import imagenet_categories


def average_precision(labels: list[str | None], wanted: set[str], photos: int) -> float:
    """As textbooks define it, one photo after the other."""
    found, total = 0, 0.0
    for place, label in enumerate(labels, 1):
        if label in wanted:
            found += 1
            total += found / place
    return total / min(len(labels), photos)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty digits in folders named after them, and one photo without a class."""
    from PIL import Image

    root, source = tmp_path_factory.mktemp("digits"), open_digits()
    for number in range(60):
        place = root / f"digit {source.labels[number]}" / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(source.open(number).pixels).save(place)
    Image.fromarray(source.open(61).pixels).save(root / "other.png")
    return root


@pytest.fixture(scope="module")
def lenet() -> vizapp.zoo.network.Network:  # type: ignore[name-defined]
    return vizapp.load("vizapp/lenet5-digits", device="cpu")


@pytest.fixture(scope="module")
def built(lenet, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Gallery:  # type: ignore[no-untyped-def]
    out = tmp_path_factory.mktemp("gallery") / "digits"
    vizapp.ask("gallery", lenet, folder=digits, workers=0, out=str(out))
    return open_gallery(out)


@pytest.mark.parametrize("texts", [["digit 3"], ["digit 3", "digit 8"], ["digit", "-digit 0"]])
def test_units_are_ordered_by_the_average_precision_of_their_strongest_photos(
    built: Gallery, digits: Path, texts: list[str]
) -> None:
    source = open_folder(digits)
    wanted = {"3": {"digit 3"}, "8": {"digit 3", "digit 8"}, "0": {f"digit {n}" for n in range(1, 10)}}[texts[-1][-1]]
    photos = sum(label in wanted for label in source.labels)
    expected = {}
    for site in built.sites:
        for channel in range(len(built.units_of(site))):
            rows, unit = built.rows(site, channel), built.unit(site, channel)
            if unit["dead"] and site != built.sites[-1]:
                continue
            labels = [row.label if row.activation != 0 else None for row in rows.itertuples()]
            score = average_precision(labels, wanted, photos)
            if score:
                expected[(site, channel)] = (score, sum(label in wanted for label in labels), unit["selectivity"])
    known = top_classes(built, source.labels)
    found = search(known, require_places(known.meant(texts), known.labels))
    assert len(found) == len(expected) > 5
    for row in found.itertuples():
        score, hits, selectivity = expected[(row.site, row.channel)]
        assert (row.score, row.hits, row.of) == (pytest.approx(score), hits, 9)
        assert row.selectivity == selectivity
        assert known.units.iloc[row.row][["site", "channel"]].tolist() == [row.site, row.channel]
    keys = [(-row.score, -row.selectivity) for row in found.itertuples()]
    assert keys == sorted(keys)


def test_the_class_scores_find_their_own_class(built: Gallery, digits: Path) -> None:
    known = top_classes(built, open_folder(digits).labels)
    for digit in range(10):
        table = search(known, require_places(known.meant([f"digit {digit}"]), known.labels))
        scores = table[table["site"] == built.sites[-1]]
        assert scores["channel"].iloc[0] == digit


def known_of(top: list[list[int]], counts: list[int], sites: list[str] | None = None) -> TopClasses:
    units = pd.DataFrame({"site": sites or ["a"] * len(top), "channel": range(len(top)), "selectivity": 0.0})
    labels = tuple(f"class {n}" for n in range(len(counts)))
    return TopClasses(units, labels, np.array(top), np.array(counts), sum(counts), "photos")


def test_scores_of_a_few_lists_known_by_hand() -> None:
    known = known_of([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 0], [-1, -1, 1]], [5, 2])
    found = search(known, [1]).set_index("row")["score"]
    assert found.to_dict() == pytest.approx({0: 1 / 2, 1: (1 / 2 + 2 / 3) / 2, 2: 1, 4: (1 / 3) / 2})
    assert search(known, [1])["row"].tolist() == [2, 1, 0, 4]
    assert search(known, [0])["row"].tolist() == [3, 0, 1, 2]  # 1, 7/18, 1/3, 1/9
    assert known.share_of_photos([1]) == pytest.approx(2 / 7)
    assert known.classes_of(0) == {"class 0": 2, "class 1": 1}


def test_photos_that_do_not_excite_a_unit_do_not_count() -> None:
    rows = pd.DataFrame(
        {
            "channel": [0, 0, 1, 1], "rank": [0, 1, 0, 1], "activation": [3.0, 0.0, -1.0, -2.0],
            "label": ["cat", "dog", "dog", None], "dead": [False, False, True, True],
        }
    )  # fmt: skip
    units = pd.DataFrame({"site": ["a", "a", "fc", "fc"], "channel": [0, 1, 0, 1], "selectivity": 0.5})
    manifest = {"sites": [{"name": "a", "kind": "norm"}, {"name": "fc", "kind": "linear"}], "top": 2}
    known = top_classes(
        Gallery(Path(), manifest, units, {"a": rows, "fc": rows}, 5), ["dog", "cat", None, "dog", "cat"]
    )
    assert known.labels == ("dog", "cat")
    assert known.counts.tolist() == [2, 2]
    # Of zero for the dog; dead; of zero again; a class score, which means the same below zero.
    assert known.top.tolist() == [[1, -1], [-1, -1], [1, -1], [0, -1]]


def test_what_no_photo_is_of_is_told_with_what_there_is() -> None:
    labels = ["dalmatian", "Chihuahua", "goldfish"]
    known = known_of([[0, 1, 2]], [1, 1, 1])
    known = TopClasses(known.units, tuple(labels), known.top, known.counts, 3, "photos")
    with refuses("no-such-class", "golden retriever", "Try 'dog': 2 classes are"):
        require_places(known.meant(["dog", "golden retriever"]), known.labels)
    with refuses("no-such-class", "Did you mean goldfish"):
        require_places(known.meant(["goldfsh"]), known.labels)
    with refuses("no-such-class", "No class is left"):
        require_places(known.meant(["dog", "-dog"]), known.labels)
    assert require_places(known.meant(["dog", "-Chihuahua", "fish"]), known.labels) == [0, 2]


# What vizapp ships


def test_the_default_network_has_units_for_dogs_birds_and_snakes() -> None:
    network = vizapp.load("vizapp/efficientnet-lite0", device="cpu")
    known = shipped_classes(network.digest)
    assert known is not None, "outdated: run python training/galleries.py --imagenet FOLDER"
    assert set(known.labels) <= set(imagenet_categories())
    assert (known.top.shape[1], known.photos, len(known.labels)) == (32, 750, 750)
    for text, fewest in {"dog": 30, "bird": 30, "snake": 10}.items():
        places = require_places(known.meant([text]), known.labels)
        table = search(known, places)
        hidden = table[table["site"] != "fc"]
        assert hidden["hits"].iloc[0] >= fewest
        assert hidden["score"].iloc[0] > 5 * known.share_of_photos(places)
    scores = known.top[known.units["site"] == "fc"]
    classes = [imagenet_categories().index(label) for label in known.labels]
    first = sum(scores[number, 0] == place for place, number in enumerate(classes))
    among = sum(place in scores[number] for place, number in enumerate(classes))
    assert first > 0.7 * len(classes), "the photo of a class has the largest score of it"
    assert among > 0.98 * len(classes)


def test_photos_with_classes_are_searched_themselves_and_sample_crops_are_not(
    built: Gallery, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = vizapp.load("vizapp/efficientnet-lite0", device="cpu")
    source = open_folder(digits)
    assert photos_with_classes(network, built, source, ["digit 3"]).photos == 61
    assert photos_with_classes(network, built, source, ["dog"]).photos == 750  # no class of these photos is a dog
    assert photos_with_classes(network, built, source, []).photos == 61
    flat = open_folder(digits / "digit 3")
    assert photos_with_classes(network, built, flat, []).photos == 750
    crops = open_folder("samples")
    assert photos_with_classes(network, built, crops, ["camera"]).about == "750 ImageNet photos"


def test_the_command_and_python_give_the_same_units(lenet, digits: Path, built: Gallery, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = vizapp.ask("gallery", lenet, folder=digits, out=str(built.folder), search=["digit 3"])
    known = top_classes(built, open_folder(digits).labels)
    table = search(known, require_places(known.meant(["digit 3"]), known.labels))
    assert [(row["site"], row["channel"], row["score"]) for row in result.table] == list(
        zip(table["site"], table["channel"], table["score"], strict=True)
    )
    assert result.facts["classes"] == "digit 3: digit 3"
    assert [panel.title for panel in result.panels] == ["found"]
    with refuses("no-such-class"):
        vizapp.ask("gallery", lenet, folder=digits, out=str(built.folder), search=["giraffe"])
