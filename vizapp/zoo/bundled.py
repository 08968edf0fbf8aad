"""The networks that vizapp brings along: those with weights, a function each and a row in the table at the end; and the
classic ones of `classics.py`.

A new network is one function that returns a `Recipe`, and its row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vizapp.errors import VizError
from vizapp.zoo import classics
from vizapp.zoo.classic.cifar_resnet import CifarResNet
from vizapp.zoo.classic.lenet import LeNet5
from vizapp.zoo.classic.zfnet import zfnet_mini
from vizapp.zoo.classics import CIFAR10
from vizapp.zoo.labels import numbered_names, read_labels
from vizapp.zoo.preprocessing import Preprocessing
from vizapp.zoo.recipe import Published, Recipe

ASSETS = Path(__file__).resolve().parents[2] / "assets"
DIGITS = Preprocessing(1, 28, 28, 28, "bicubic", (0.3,), (0.38,))
_CIFAR_WEIGHTS = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"


def _categories(file: str, classes: int) -> tuple[str, ...]:
    path = ASSETS / f"{file}.classes.txt"
    return read_labels(path) if path.is_file() else numbered_names(classes)


def _accuracy(file: str) -> float | None:
    """Top-1 in percent, from the model card beside the weights."""
    card = ASSETS / f"{file}.md"
    found = re.search(r"top-1 accuracy \| ([0-9.]+) %", card.read_text(encoding="utf-8")) if card.is_file() else None
    return float(found[1]) if found else None


def _size(path: Path) -> float | None:
    return round(path.stat().st_size / 1e6, 2) if path.is_file() else None


def _lenet5_digits() -> Recipe:
    path = ASSETS / "lenet5-digits.safetensors"
    return Recipe(
        name="vizapp/lenet5-digits",
        build=LeNet5,
        preprocessing=DIGITS,
        categories=_categories("lenet5-digits", 10),
        published=Published(path.name, path=path),
        parameters=44_426,
        multiply_adds=281_640,
        data="digits",
        accuracy=_accuracy("lenet5-digits"),
        size_mb=_size(path),
        facts={"kind": "classification", "data": "scikit-learn's handwritten digits"},
    )


def _zfnet_mini() -> Recipe:
    path = ASSETS / "zfnet-mini.safetensors"
    return Recipe(
        name="vizapp/zfnet-mini",
        build=zfnet_mini,
        preprocessing=Preprocessing(3, 160, 160, 176),
        categories=_categories("zfnet-mini", 101),
        published=Published(path.name, path=path),
        parameters=4_146_181,
        multiply_adds=313_635_456,
        data="Caltech-101",
        accuracy=_accuracy("zfnet-mini"),
        size_mb=_size(path),
        facts={"kind": "classification", "data": "Caltech-101"},
    )


def _cifar_resnet(depth: int, parameters: int, multiply_adds: int, digest: str, accuracy: float) -> Recipe:
    file = f"resnet{depth}-{digest}.th"
    return Recipe(
        name=f"vizapp/resnet{depth}-cifar",
        build=lambda classes: CifarResNet(depth, classes),
        preprocessing=Preprocessing(3, 32, 32, 32),
        categories=CIFAR10,
        published=Published(file, _CIFAR_WEIGHTS + file),
        parameters=parameters,
        multiply_adds=multiply_adds,
        data="CIFAR-10",
        accuracy=accuracy,
        facts={"kind": "classification", "data": "CIFAR-10", "paper": "He et al. 2015, section 4.2"},
    )


_ROWS: dict[str, Callable[[], Recipe]] = {
    "lenet5-digits": _lenet5_digits,
    "zfnet-mini": _zfnet_mini,
    "resnet20-cifar": partial(_cifar_resnet, 20, 269_722, 40_551_040, "12fca82f", 91.73),
    "resnet32-cifar": partial(_cifar_resnet, 32, 464_154, 68_862_592, "d509ac18", 92.63),
    "resnet44-cifar": partial(_cifar_resnet, 44, 658_586, 97_174_144, "014dd654", 93.10),
    "resnet56-cifar": partial(_cifar_resnet, 56, 853_018, 125_485_696, "4bfd9763", 93.39),
    "resnet110-cifar": partial(_cifar_resnet, 110, 1_727_962, 252_887_680, "1d1ed7c2", 93.68),
}


def names() -> list[str]:
    """The names of the table and of the classic networks."""
    return [*_ROWS, *classics.names()]


def recipe(name: str, variant: str = "default") -> Recipe | None:
    """The recipe of a row.

    Raises:
        VizError: `variant` is not "default".
    """
    found = _ROWS[name]() if name in _ROWS else classics.recipe(name)
    if found is None:
        return None
    if variant != "default":
        raise VizError(
            f'vizapp/{name} has one set of weights, "default"; {variant!r} was asked for.', code="no-such-weights"
        )
    return found
