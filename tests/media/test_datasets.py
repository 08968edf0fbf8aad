"""torchvision's data sets are read with their classes, from files in torchvision's layout."""

from __future__ import annotations

import bz2
import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import numpy as np
import pytest

from tests.media.files import noise, saved
from vizapp.media import datasets
from vizapp.media.sources import open_folder

PNG, JPEG, PPM = (saved(noise(28, 28), kind) for kind in ("PNG", "JPEG", "PPM"))
Made = tuple[str, str, list[str], tuple[str, ...]]  # its name and part, the labels and the classes that are expected


def put(place: Path, content: bytes | str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content.encode() if isinstance(content, str) else content)


def idx(values: np.ndarray, code: int) -> bytes:
    """As MNIST's files have arrays."""
    head = bytes([0, 0, code, values.ndim]) + b"".join(size.to_bytes(4) for size in values.shape)
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


def qmnist(root: Path) -> Made:
    raw, targets = root / "QMNIST" / "raw", np.arange(24, dtype=np.int32).reshape(3, 8)
    targets[:, 0] = (7, 1, 7)
    put(raw / "qmnist-test-images-idx3-ubyte", idx(np.zeros((3, 28, 28), np.uint8), 8))
    put(raw / "qmnist-test-labels-idx2-int", idx(targets, 12))
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    classes = tuple(f"{number} - {name}" for number, name in enumerate(names))
    return "QMNIST", "", [classes[7], classes[1], classes[7]], classes


def usps(root: Path) -> Made:
    cells = " ".join(f"{n}:-1.0" for n in range(1, 257))
    put(root / "usps.t.bz2", bz2.compress(f"10 {cells}\n1 {cells}\n".encode()))
    return "USPS", "", ["9", "0"], ("0", "9")


def gtsrb(root: Path) -> Made:
    lines = ["Width;Filename;ClassId", "28;a.ppm;10", "28;b.ppm;2"]
    put(root / "gtsrb" / "GT-final_test.csv", "\n".join(lines))
    for name in ("a.ppm", "b.ppm"):
        put(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / name, PPM)
    return "GTSRB", "", ["10", "2"], ("2", "10")


def gtsrb_train(root: Path) -> Made:
    for number in (0, 1):
        put(root / "gtsrb" / "GTSRB" / "Training" / f"{number:05d}" / "a.ppm", PPM)
    return "GTSRB", "train", ["0", "1"], ("0", "1")


def rendered_sst2(root: Path) -> Made:
    for place in ("negative/1.png", "positive/2.png"):
        put(root / "rendered-sst2" / "test" / place, PNG)
    return "RenderedSST2", "", ["negative", "positive"], ("negative", "positive")


def imagenette(root: Path) -> Made:
    for wnid in ("n01440764", "n02979186"):
        put(root / "imagenette2" / "val" / wnid / "a.jpeg", JPEG)
    return "Imagenette", "", ["tench", "cassette player"], ("tench", "cassette player")


def eurosat(root: Path) -> Made:
    for name in ("Forest", "River"):
        put(root / "eurosat" / "2750" / name / "1.jpg", JPEG)
    return "EuroSAT", "", ["Forest", "River"], ("Forest", "River")


def country211(root: Path) -> Made:
    for name in ("AD", "ZW"):
        put(root / "country211" / "test" / name / "1.jpg", JPEG)
    return "Country211", "", ["AD", "ZW"], ("AD", "ZW")


def dtd(root: Path) -> Made:
    for name in ("woven", "banded"):
        put(root / "dtd" / "dtd" / "images" / name / "1.jpg", JPEG)
    put(root / "dtd" / "dtd" / "labels" / "test1.txt", "woven/1.jpg\nbanded/1.jpg\n")
    return "DTD", "", ["woven", "banded"], ("banded", "woven")


def aircraft(root: Path) -> Made:
    data = root / "fgvc-aircraft-2013b" / "data"
    put(data / "variants.txt", "707-320\nA300B4\n")
    put(data / "images_variant_test.txt", "2 A300B4\n1 707-320\n")
    for number in (1, 2):
        put(data / "images" / f"{number}.jpg", JPEG)
    return "FGVCAircraft", "", ["A300B4", "707-320"], ("707-320", "A300B4")


def food101(root: Path) -> Made:
    put(root / "food-101" / "meta" / "test.json", json.dumps({"waffles": ["waffles/2"], "apple_pie": ["apple_pie/1"]}))
    for name in ("waffles/2", "apple_pie/1"):
        put(root / "food-101" / "images" / f"{name}.jpg", JPEG)
    return "Food101", "", ["waffles", "apple_pie"], ("apple_pie", "waffles")


def pets(root: Path) -> Made:
    place = root / "oxford-iiit-pet"
    put(place / "annotations" / "test.txt", "Abyssinian_1 1 1 1\namerican_bulldog_7 2 2 1\n")
    for name in ("Abyssinian_1", "american_bulldog_7"):
        put(place / "images" / f"{name}.jpg", JPEG)
    return "OxfordIIITPet", "", ["Abyssinian", "American Bulldog"], ("Abyssinian", "American Bulldog")


def caltech101(root: Path) -> Made:
    for name in ("BACKGROUND_Google", "accordion", "yin_yang"):
        put(root / "caltech101" / "101_ObjectCategories" / name / "image_0001.jpg", JPEG)
    (root / "caltech101" / "Annotations").mkdir()
    return "Caltech101", "", ["accordion", "yin_yang"], ("accordion", "yin_yang")


@pytest.mark.parametrize(
    "make",
    [
        qmnist, usps, gtsrb, gtsrb_train, rendered_sst2, imagenette, eurosat, country211, dtd, aircraft, food101, pets,
        caltech101,
    ],
)  # fmt: skip
def test_pictures_have_the_classes_that_the_data_set_says(
    make: Callable[[Path], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    name, part, labels, classes = make(tmp_path / "datasets")
    source = open_folder(f"torchvision/{name}" + (f":{part}" if part else ""))
    assert list(source.labels) == labels
    assert source.classes == classes
    assert source.open(1).label == labels[1]
    assert source.path(0) == f"{part or 'test'}/{labels[0]}/0"


def test_a_data_set_is_loaded_once_however_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import USPS

    made, download = list[bool](), list[bool]()
    init = USPS.__init__

    @wraps(init)
    def counted(self: USPS, root: str, **options: bool) -> None:
        made.append(True)
        if options["download"]:
            download.append(True)
            usps(Path(root))
        init(self, root, **options)

    monkeypatch.setattr(USPS, "__init__", counted)
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    assert not datasets.is_downloaded("torchvision/USPS")
    assert not download
    source = open_folder("torchvision/USPS")
    assert len(download) == 1
    before = len(made)
    assert datasets.is_downloaded("torchvision/USPS")
    source.open(0)
    assert len(open_folder("torchvision/USPS")) == 2
    assert len(made) == before
