"""torchvision's networks, described by the metadata of their published weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from torch import nn

from vizapp.errors import VizError
from vizapp.zoo.preprocessing import Interpolation, Preprocessing
from vizapp.zoo.recipe import Published, Recipe

_SOURCE = "torchvision"
# Old DenseNet checkpoints have keys like `denselayer1.norm.1.weight` instead of `denselayer1.norm1.weight`.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")
# Trained with batch norm epsilon 0 (torchvision's overwrite_eps).
_NO_EPSILON = {f"{head}_resnet50_fpn" for head in ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet")}
_SIZED = {"maxvit_t"}  # networks that take `input_size` when they are built, as ViTs take `image_size`
_DETECTION_SIDES = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": 320, "ssdlite320_mobilenet_v3_large": 320, "ssd300_vgg16": 300,
}  # fmt: skip


def _models() -> Any:
    from torchvision import models  # takes a second

    return models


def names() -> list[str]:
    """All classification, segmentation and detection networks."""
    return sorted(_tasks())


@cache
def _tasks() -> dict[str, str]:
    """Network -> "classification", "segmentation" or "detection"."""
    kinds = dict.fromkeys(_models().list_models(module=_models()), "classification")
    kinds |= dict.fromkeys(_models().list_models(module=_models().segmentation), "segmentation")
    kinds |= dict.fromkeys(_models().list_models(module=_models().detection), "detection")
    return kinds


def _unsupported_reason(name: str) -> str:
    if name.startswith("quantized_") or name in _models().list_models(module=_models().quantization):
        return "it computes with 8-bit integers and cannot be traced; use the network without 'quantized_'"
    if name in _models().list_models(module=_models().video):
        return "it takes videos, not photos"
    return "it takes pairs of video frames (optical flow), not photos"


def recipe(name: str, variant: str = "default") -> Recipe | None:
    """The recipe of a network, with its default weights or those of another published `variant` (`IMAGENET1K_V1`).

    Raises:
        VizError: the network does not take photos, or has no such variant, or that has no classes.
    """
    if name not in _models().list_models():
        return None
    if name not in _tasks():
        raise VizError(
            f"torchvision's {name} is not supported: {_unsupported_reason(name)}.", code="unsupported-network"
        )
    weights = _weights(name, variant)
    if not weights.meta["categories"]:
        raise VizError(
            f"The weights {weights.name} of torchvision/{name} are of its features alone; they give no class scores.",
            code="no-class-scores",
        )
    kind, meta, shape = _tasks()[name], weights.meta, _preprocessing(name, weights)
    metrics = next(iter(meta["_metrics"].values()))
    accuracy = metrics.get("acc@1") if kind == "classification" else None
    facts = {"kind": kind, "published weights": str(weights), "recipe": str(meta.get("recipe") or "")}
    return Recipe(
        name=f"{_SOURCE}/{name}",
        build=_builder(name, kind, shape),
        preprocessing=shape,
        categories=tuple(meta["categories"]),
        published=Published(file=weights.url.rsplit("/", 1)[-1], url=weights.url),
        parameters=meta["num_params"],
        accuracy=accuracy,
        size_mb=round(meta["_file_size"] * 1.048576, 1),  # torchvision counts in MiB
        training_only=("aux_classifier.", "AuxLogits.", "aux1.", "aux2."),
        rename=partial(_OLD_DENSENET.sub, r"\1\2") if name.startswith("densenet") else (lambda key: key),
        multiply_adds=round(meta["_ops"] * 1e9),
        data="ImageNet" if kind == "classification" else "COCO",
        finish=_remove_epsilon if name in _NO_EPSILON and weights.name == "COCO_V1" else (lambda module: None),
        facts={key: text for key, text in facts.items() if text},
    )


def variant_of_file(name: str, file: str) -> str:
    """The published variant whose weights have this file name, or "default"."""
    if name not in _tasks():
        return "default"
    return next(
        (entry.name for entry in _models().get_model_weights(name) if entry.url.endswith("/" + file)), "default"
    )


def _weights(name: str, variant: str) -> Any:
    entries = _models().get_model_weights(name)
    if variant == "default":
        return entries.DEFAULT
    if variant in entries.__members__:
        return entries[variant]
    raise VizError(
        f"torchvision/{name} has no weights called {variant!r}; it has {', '.join(entries.__members__)}.",
        code="no-such-weights",
    )


def _preprocessing(name: str, weights: Any) -> Preprocessing:
    """From the transforms of the weights. Segmentation and detection networks take any size and get squares here.

    Detection networks resize and normalize internally; at these sides their resizing has no effect.
    """
    kind, preset = _tasks()[name], weights.transforms()
    if kind == "detection":
        side = _DETECTION_SIDES.get(name, 800)
        return Preprocessing(3, side, side, side, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    (resize,) = preset.resize_size
    side = preset.crop_size[0] if kind == "classification" else resize
    method: Interpolation = "bicubic" if preset.interpolation.value == "bicubic" else "bilinear"
    return Preprocessing(3, side, side, resize, method, tuple(preset.mean), tuple(preset.std))


def _builder(name: str, kind: str, shape: Preprocessing) -> Callable[[int], nn.Module]:
    options: dict[str, Any] = {}
    if kind != "classification":
        options["weights_backbone"] = None  # otherwise torchvision downloads them
    if kind == "segmentation" and not name.startswith("lraspp"):
        options["aux_loss"] = False  # a head for training
    if name in {"googlenet", "inception_v3"}:
        # As published: the input is converted to TensorFlow's normalization. The auxiliary heads are for training only.
        options |= {"aux_logits": False, "transform_input": True, "init_weights": False}
    if name.startswith("vit_"):
        options["image_size"] = shape.height
    if name in _SIZED:
        options["input_size"] = (shape.height, shape.width)
    return partial(_build, name, options)


def _build(name: str, options: dict[str, Any], classes: int) -> nn.Module:
    return _models().get_model(name, weights=None, num_classes=classes, **options)


def _remove_epsilon(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0.0
