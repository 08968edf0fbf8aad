"""Table of the classic networks: those implemented here, those taken from timm, and those that torchvision has."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from vizapp.errors import VizError
from vizapp.zoo import timm_zoo
from vizapp.zoo.labels import imagenet_categories, numbered_names
from vizapp.zoo.preprocessing import Preprocessing
from vizapp.zoo.recipe import Recipe

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_INPUTS = {
    "ImageNet": Preprocessing(3, 224, 224, 256),
    "CIFAR-10": Preprocessing(3, 32, 32, 32),
    "MNIST": Preprocessing(1, 32, 32, 32, "bicubic", (0.1307,), (0.3081,)),
}


@dataclass(frozen=True)
class CatalogueEntry:
    """A network implemented in `vizapp.zoo.classic`, with the figures that its paper reports.

    `make`: module and function. `parameters` and `multiply_adds` (at the network's own input size) are checked by the
    tests. `accuracy`: top-1 in percent of a single network, on ImageNet averaged over the paper's crops, on CIFAR-10 with
    standard augmentation. `side`: of the input in pixels; 0 is the usual one for the data.
    """

    make: str
    paper: str
    data: str
    parameters: int
    multiply_adds: int
    accuracy: float | None = None
    side: int = 0
    options: tuple[tuple[str, Any], ...] = ()


def _row(
    make: str, paper: str, data: str, size: tuple[int, int], accuracy: float | None = None, side: int = 0, **options: Any
) -> CatalogueEntry:  # fmt: skip
    return CatalogueEntry(make, paper, data, *size, accuracy, side, tuple(options.items()))


_KRIZHEVSKY, _ZEILER = "Krizhevsky et al. 2012, section 3", "Zeiler & Fergus 2013, section 3"
_SIMONYAN, _SZEGEDY = "Simonyan & Zisserman 2014, Table 1", "Szegedy et al. 2014, Table 1"
_SERMANET = "Sermanet et al. 2013, section 3.2"
_HE, _PRE = "He et al. 2015, Table 1", "He et al. 2016, appendix"
_DROPPED, _WIDE = "Huang et al. 2016 (stochastic depth)", "Zagoruyko & Komodakis 2016, Table 1"
_DENSE = "Huang et al. 2017, section 3"
_I, _C = "ImageNet", "CIFAR-10"
_DSN, _DENSE_NET, _WIDE_NET = "dsn.DeeplySupervisedNet", "densenet.CifarDenseNet", "wide_resnet.WideResNet"
_DROP_NET, _PRE_NET = "stochastic_depth.StochasticDepthResNet", "preactivation_resnet.PreactivationResNet"
ROWS: dict[str, CatalogueEntry] = {
    "lenet5-1998": _row("lenet_1998.LeNet51998", "LeCun et al. 1998, section II.B", "MNIST", (60_000, 416_520), 99.05),
    "alexnet-2012": _row("alexnet.AlexNet2012", _KRIZHEVSKY, _I, (60_965_224, 724_406_816), 59.3),
    "zfnet": _row("zfnet.ZFNet", _ZEILER, _I, (62_357_608, 1_168_032_896), 61.6),
    "zfnet-512-1024-512": _row(
        "zfnet.ZFNet", _ZEILER, _I, (107_627_624, 2_476_704_896), 62.5, channels=(96, 256, 512, 1024, 512)
    ),
    "vgg-a-lrn": _row("vgg.vgg", _SIMONYAN, _I, (132_863_336, 7_609_090_048), 70.3, column="A-LRN"),
    "vgg-c": _row("vgg.vgg", _SIMONYAN, _I, (133_638_952, 11_770_888_192), 71.9, column="C"),
    "overfeat-fast": _row("overfeat.OverFeat", _SERMANET, _I, (145_920_872, 2_801_403_904), side=231, fast=True),
    "overfeat-accurate": _row("overfeat.OverFeat", _SERMANET, _I, (144_656_488, 5_355_446_784), 64.3, side=221),
    "network-in-network-cifar": _row(
        "nin.NetworkInNetwork", "Lin et al. 2013, section 4", _C, (966_986, 222_486_528), 91.19
    ),
    "all-cnn-cifar": _row("all_cnn.AllCNN", "Springenberg et al. 2014, Table 1", _C, (1_369_738, 270_798_336), 92.75),
    "deeply-supervised-cifar": _row(_DSN, "Lee et al. 2015", _C, (966_986, 222_486_528), 92.03),
    "deeply-supervised-companions-cifar": _row(
        _DSN, "Lee et al. 2015", _C, (3_547_496, 225_067_008), 92.03, companions=True
    ),
    "googlenet-2014": _row("googlenet.GoogLeNet", _SZEGEDY, _I, (6_998_552, 1_582_671_872)),
    "googlenet-2014-auxiliary": _row("googlenet.GoogLeNet", _SZEGEDY, _I, (13_378_280, 1_591_044_096), auxiliary=True),
    "inception-v2": _row("inception_v2.InceptionV2", "Ioffe & Szegedy 2015, Figure 5", _I, (11_188_288, 1_934_857_216)),
    "highway19-cifar": _row(
        "highway.HighwayNet", "Srivastava et al. 2015, section 3.2", _C, (2_256_838, 330_826_728), 92.28
    ),
    "resnet50-2015": _row("resnet_2015.resnet_2015", _HE, _I, (25_557_032, 3_857_973_248), depth=50),
    "resnet101-2015": _row("resnet_2015.resnet_2015", _HE, _I, (44_549_160, 7_570_194_432), depth=101),
    "resnet152-2015": _row("resnet_2015.resnet_2015", _HE, _I, (60_192_808, 11_282_415_616), depth=152),
    "stochastic-depth110-cifar": _row(_DROP_NET, _DROPPED, _C, (1_727_962, 252_887_680), 94.77, depth=110),
    "stochastic-depth1202-cifar": _row(_DROP_NET, _DROPPED, _C, (19_421_274, 2_829_238_912), 95.09, depth=1202),
    "preactivation-resnet164-cifar": _row(_PRE_NET, _PRE, _C, (1_703_258, 244_500_992), 94.54, depth=164),
    "preactivation-resnet1001-cifar": _row(_PRE_NET, _PRE, _C, (10_327_706, 1_487_849_984), 95.38, depth=1001),
    "wide-resnet16-8-cifar": _row(_WIDE_NET, _WIDE, _C, (10_961_370, 1_548_145_664), 95.19, depth=16, widening=8),
    "wide-resnet28-10-cifar": _row(_WIDE_NET, _WIDE, _C, (36_479_194, 5_243_328_768), 95.83, depth=28, widening=10),
    "fractalnet-cifar": _row(
        "fractalnet.FractalNet", "Larsson et al. 2016, section 4", _C, (33_734_922, 845_222_912), 95.40
    ),
    "densenet40-12-cifar": _row(_DENSE_NET, _DENSE, _C, (1_019_722, 264_812_928), 94.76, depth=40, growth=12),
    "densenet100-12-cifar": _row(_DENSE_NET, _DENSE, _C, (6_979_642, 1_769_516_448), 95.90, depth=100, growth=12),
    "densenet100-24-cifar": _row(_DENSE_NET, _DENSE, _C, (27_249_082, 6_889_347_744), 96.26, depth=100, growth=24),
    "densenet-bc100-12-cifar": _row(
        _DENSE_NET, _DENSE, _C, (769_162, 287_929_692), 95.49, depth=100, growth=12, bc=True
    ),
    "densenet-bc250-24-cifar": _row(
        _DENSE_NET, _DENSE, _C, (15_324_406, 5_418_785_724), 96.38, depth=250, growth=24, bc=True
    ),
    "densenet-bc190-40-cifar": _row(
        _DENSE_NET, _DENSE, _C, (25_624_430, 9_301_945_740), 96.54, depth=190, growth=40, bc=True
    ),
    "densenet264": _row("densenet.densenet264", "Huang et al. 2017, Table 1", _I, (33_337_704, 5_751_653_376)),
}
# timm has these exactly as published: its name, parameters, multiply-adds at 299 px, the paper's accuracy.
FROM_TIMM = {
    "inception-v4": ("inception_v4", 42_679_816, 12_253_974_624, 80.0),  # Szegedy et al. 2016, section 3
    "xception": ("legacy_xception", 22_855_952, 8_357_403_496, 79.0),  # Chollet 2017, section 4
}
# Networks that torchvision implements as published, in chronological order.
FROM_TORCHVISION = (
    "alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "googlenet", "inception_v3", "resnet18", "resnet34", "resnet50",
    "resnet101", "resnet152", "squeezenet1_0", "squeezenet1_1", "wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d",
    "resnext101_32x8d", "densenet121", "densenet169", "densenet201", "swin_t", "swin_s", "swin_b", "convnext_tiny",
    "convnext_small", "convnext_base", "convnext_large",
)  # fmt: skip


def names() -> list[str]:
    """The names of the networks in `ROWS` and, if timm is installed, in `FROM_TIMM`."""
    return [*ROWS, *(FROM_TIMM if timm_zoo.installed() else ())]


def recipe(name: str) -> Recipe | None:
    """The recipe of a row, or None.

    Raises:
        VizError: the network comes from timm, which is not installed.
    """
    if name in FROM_TIMM:
        return _from_timm(name)
    row = ROWS.get(name)
    if row is None:
        return None
    return Recipe(
        name=f"vizapp/{name}",
        build=partial(_build, row),
        preprocessing=_input(row),
        categories={_I: imagenet_categories, _C: lambda: CIFAR10}.get(row.data, lambda: numbered_names(10))(),
        parameters=row.parameters,
        multiply_adds=row.multiply_adds,
        paper_accuracy=row.accuracy,
        data=row.data,
        facts={"kind": "classification", "data": row.data, "paper": row.paper},
    )


def _input(row: CatalogueEntry) -> Preprocessing:
    usual = _INPUTS[row.data]
    return dataclasses.replace(usual, height=row.side, width=row.side) if row.side else usual


def _from_timm(name: str) -> Recipe:
    there, parameters, multiply_adds, accuracy = FROM_TIMM[name]
    found = timm_zoo.recipe(there) if timm_zoo.installed() else None
    if found is None:
        raise VizError(f"vizapp/{name} requires timm: pip install timm.", code="not-installed")
    return dataclasses.replace(
        found,
        name=f"vizapp/{name}",
        parameters=parameters,
        multiply_adds=multiply_adds,
        paper_accuracy=accuracy,
        data=_I,
    )


def _build(row: CatalogueEntry, classes: int) -> nn.Module:
    file, _, function = row.make.partition(".")
    make: Callable[..., nn.Module] = getattr(importlib.import_module(f"vizapp.zoo.classic.{file}"), function)
    return make(classes=classes, **dict(row.options))
