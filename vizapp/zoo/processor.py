"""Preprocessing as the `preprocessor_config.json` of Hugging Face describes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vizapp.errors import VizError, plain_name, quoted
from vizapp.files import local_path, read_file
from vizapp.zoo.labels import read_json
from vizapp.zoo.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocessing

FILES = ("preprocessor_config.json", "processor_config.json")
_MOST_BYTES = 2**24  # of a configuration; ImageNet's class names take 40 kB
_MOST_SIDE = 10_000
_RESAMPLING: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "area"}  # Pillow's
_KIND = re.compile(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$")


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a configuration file.

    Raises:
        VizError: it cannot be read or is no JSON object.
    """
    try:
        found = read_json(read_file(path, _MOST_BYTES).decode("utf-8-sig"))
        problem = "" if isinstance(found, dict) else "it is no JSON object"
    except OSError as error:
        problem = error.strerror or str(error)
        problem = problem[:1].lower() + problem[1:]
    except ValueError as error:
        problem = f"it is no JSON: {plain_name(str(error))}"
    if problem:
        raise VizError(f"The configuration {path.name!r} cannot be read: {problem}.", code="bad-configuration")
    return dict(found)


def read_preprocessing(path: str | Path, default: Preprocessing) -> Preprocessing:
    """The preprocessing in a file like Hugging Face's `preprocessor_config.json`; what it leaves out is as in `default`.

    Raises:
        VizError: it cannot be read, or asks for something that vizapp does not do.
    """
    return translate(read_config(local_path(path, "preprocessing file")), default)


def translate(config: Mapping[str, Any], default: Preprocessing) -> Preprocessing:
    """The preprocessing of an image processor of transformers, given its configuration.

    Raises:
        VizError: it does something that vizapp does not: it pads, or does not crop to a fixed size.
    """
    config = centre_square(config) or config.get("image_processor", config)
    kind = _KIND.sub("", str(config.get("image_processor_type") or config.get("feature_extractor_type") or ""))
    try:
        height, width, resize = _sizes(kind, config, default)
        method = default.interpolation
        if config.get("resample") is not None:
            method = _RESAMPLING[int(config["resample"])]
        mean, std = _normalization(kind, config, default)
        flipped = default.channels == 3 and config.get("do_flip_channel_order", kind == "MobileViT")
        order = ("B", "G", "R") if flipped else default.channel_map
        return Preprocessing(default.channels, height, width, resize, method, mean, std, floor=True, channel_map=order)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        reason = str(error) if isinstance(error, _Unsupported) else f"a value in it is not understood ({quoted(error)})"
        raise VizError(
            f"The preprocessing {plain_name(kind) or 'in the file'} cannot be translated: {reason}. Give another with "
            "preprocessing=FILE.",
            code="unsupported-preprocessing",
        ) from None


def centre_square(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of a detector's processor, which keeps the proportions of photos, for their centre square alone.

    None if all its photos get one size. A network here has one input size; a square photo loses nothing, and is not padded.
    """
    config = config.get("image_processor", config)
    size = config.get("size")
    short = size.get("shortest_edge") if isinstance(size, Mapping) and "longest_edge" in size else None
    if "max_size" in config and isinstance(size, int):  # of older versions
        short = size
    if short is None:
        return None
    return {**config, "size": {"shortest_edge": short}, "crop_size": short, "do_center_crop": True, "do_pad": False}


class _Unsupported(ValueError):
    """What the processor does, in words."""


def _sizes(kind: str, config: Mapping[str, Any], default: Preprocessing) -> tuple[int, int, int | tuple[int, int]]:
    """Height and width of the input, and what the photo is resized to before the crop."""
    if config.get("do_pad"):
        raise _Unsupported("it pads photos")
    if not config.get("do_resize", True):
        crop = _height_width(config.get("crop_size")) if config.get("do_center_crop") else None
        height, width = crop or (default.height, default.width)
        return height, width, max(height, width)
    if "size" not in config:
        return default.height, default.width, default.resize
    size = config["size"]
    short = size.get("shortest_edge") if isinstance(size, Mapping) else None
    given = config.get("do_center_crop", "crop_size" in config)
    crop = _height_width(config.get("crop_size")) if given else None
    if short is None:
        squeezed = _height_width(size)
        if squeezed is None:
            raise _Unsupported(f"its size is {quoted(size)}")
        if kind == "ConvNext":  # of older versions, where `size` is one number
            short = squeezed[0]
        else:
            return (*(crop or squeezed), squeezed)
    short, share = _side(short), config.get("crop_pct")
    if kind == "ConvNext":
        if short >= 384:
            return short, short, (short, short)
        return short, short, int(short / float(share or 224 / 256))
    if kind == "Levit":
        short = int(256 / 224 * short)
    elif share:
        short = int(short / float(share))
    if crop is None:
        raise _Unsupported("it keeps the proportions of photos and does not crop them")
    return (*crop, short)


def _side(value: Any) -> int:
    number = int(value)
    if not 0 < number <= _MOST_SIDE:
        raise _Unsupported(f"a side has {quoted(value)} pixels")
    return number


def _height_width(size: Any) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        return (_side(size["height"]), _side(size["width"])) if {"height", "width"} <= set(size) else None
    if isinstance(size, Sequence) and len(size) == 2:
        return _side(size[0]), _side(size[1])
    return None if size is None else (_side(size), _side(size))


def _normalization(
    kind: str, config: Mapping[str, Any], default: Preprocessing
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels from 0 to 1, with the processor's rescaling in them."""
    channels = default.channels
    mean, std = [0.0] * channels, [1.0] * channels
    if config.get("do_normalize", kind != "MobileViT"):
        mean = _numbers(config.get("image_mean", default.mean), channels)
        std = _numbers(config.get("image_std", default.std), channels)
    if kind == "EfficientNet" and config.get("include_top", True):  # normalized twice, the second time by std alone
        return tuple(mean), tuple(value * value for value in std)
    factor = 255.0 * float(config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0)
    offset = 1.0 if config.get("rescale_offset") or config.get("offset") else 0.0
    if abs(factor - 1) < 1e-6 and not offset:
        return tuple(mean), tuple(std)
    return tuple((value + offset) / factor for value in mean), tuple(value / factor for value in std)


def _numbers(given: Any, channels: int) -> list[float]:
    values = [float(value) for value in (given if isinstance(given, Sequence) else [given])]
    return values * channels if len(values) == 1 else values


def beside(folder: Path, channels: int, height: int, width: int) -> tuple[Preprocessing, dict[str, Any] | None]:
    """The preprocessing that a file in the folder describes, for a network of that input; and what is in the file, if any.

    Without it: the shorter side is resized to the input's, and ImageNet's mean and standard deviation are used.
    """
    colour = channels == 3
    default = Preprocessing(
        channels,
        height,
        width,
        max(height, width),
        "bilinear",
        IMAGENET_MEAN if colour else (0.0,) * channels,
        IMAGENET_STD if colour else (1.0,) * channels,
    )
    for name in FILES:
        if (folder / name).is_file():
            described = read_config(folder / name)
            return translate(described, default), described
    return default, None
