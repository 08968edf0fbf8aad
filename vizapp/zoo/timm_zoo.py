"""timm's networks (optional), described by timm's pretrained configurations."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from vizapp.errors import VizError, plain_name
from vizapp.zoo.labels import imagenet_categories, numbered_names
from vizapp.zoo.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocessing
from vizapp.zoo.recipe import Published, Recipe

_LABELS = ("num_classes", "label_names", "label_descriptions")  # which may be beside the rest of the configuration
_INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest"}


def installed() -> bool:
    """Whether timm can be imported."""
    return importlib.util.find_spec("timm") is not None


def _timm() -> Any:
    import timm  # optional, and takes seconds

    return timm


def names() -> list[str]:
    """All networks of timm, without weight tags."""
    return list(_timm().list_models()) if installed() else []


def recipe(name: str, variant: str = "default") -> Recipe | None:
    """The recipe of a network. timm's tags select other weights than the default ones: `resnet50.a1_in1k`.

    Raises:
        VizError: `variant` is not "default".
    """
    if not installed():
        return None
    base, _, tag = name.partition(".")
    if not _timm().is_model(base):
        return None
    known = variant == "default" and (not tag or name in _timm().list_pretrained(f"{base}.*"))
    if not known:
        raise VizError(f"timm has no weights {tag or variant!r} for {base}; {_tags(base)}", code="no-such-weights")
    config = _timm().models.get_pretrained_cfg(name)
    settings: dict[str, Any] = dataclasses.asdict(config) if config is not None else {}
    classes = int(settings.get("num_classes", 1000))
    facts = {"kind": "classification" if classes else "features (no classes)"}
    if settings.get("tag"):
        facts["published weights"] = f"{base}.{settings['tag']}"
    if settings.get("license"):
        facts["licence of the weights"] = str(settings["license"])
    if settings.get("crop_mode") == "border":
        facts["preprocessing"] = "timm pads photos to a square for this network; here they are cropped."
    return Recipe(
        name=f"timm/{name}",
        build=partial(_build, name),
        preprocessing=_preprocessing(settings),
        categories=imagenet_categories() if classes == 1000 else numbered_names(classes),
        published=_published(name, settings),
        adopt=partial(_adopt, name),
        facts=facts,
    )


def hub_recipe(name: str, config: Mapping[str, Any]) -> Recipe:
    """The recipe of a network whose `config.json` timm has written: in a folder or in a repository of the hub.

    Raises:
        VizError: timm is not installed or has no such architecture.
    """
    if not installed():
        raise VizError(f"{name} requires timm: pip install timm.", code="not-installed")
    architecture, arguments = str(config["architecture"]), config.get("model_args") or {}
    settings = config.get("pretrained_cfg") or config
    if not _timm().is_model(architecture) or not isinstance(settings, Mapping) or not isinstance(arguments, Mapping):
        raise VizError(f"timm has no architecture {plain_name(architecture)!r}.", code="unsupported-network")
    settings = dict(settings) | {key: config[key] for key in _LABELS if key in config}
    names, count = settings.get("label_names"), int(settings.get("num_classes") or 0)
    described = settings.get("label_descriptions") or {}
    if isinstance(names, list) and len(names) == count:
        categories = tuple(plain_name(str(described.get(label, label))) for label in names)
    else:
        categories = imagenet_categories() if count == 1000 else numbered_names(count)
    own = {key: value for key, value in settings.items() if key in _timm().models.PretrainedCfg.__dataclass_fields__}
    facts = {"kind": "classification" if count else "features (no classes)", "architecture": architecture}
    if settings.get("license"):
        facts["licence of the weights"] = plain_name(str(settings["license"]))
    return Recipe(
        name=name,
        build=partial(_build, architecture, arguments=arguments),
        preprocessing=_preprocessing(settings),
        categories=categories,
        adopt=partial(_adopt, architecture, arguments=dict(arguments) | {"num_classes": count, "pretrained_cfg": own}),
        facts=facts,
    )


def _tags(base: str) -> str:
    known = _timm().list_pretrained(f"{base}.*")
    return f"it has {', '.join(known[:5])}{' …' if len(known) > 5 else ''}." if known else "it has none."


def _preprocessing(settings: dict[str, Any]) -> Preprocessing:
    """Resize the shorter side ("squash": both sides) to floor(side / crop_pct), then centre crop."""
    channels, height, width = settings.get("input_size", (3, 224, 224))
    sides = [math.floor(side / float(settings.get("crop_pct") or 0.875)) for side in (height, width)]
    mean, std = tuple(settings.get("mean", IMAGENET_MEAN)), tuple(settings.get("std", IMAGENET_STD))
    return Preprocessing(
        channels,
        height,
        width,
        (sides[0], sides[1]) if settings.get("crop_mode") == "squash" else min(sides),
        _INTERPOLATIONS.get(str(settings.get("interpolation")), "bicubic"),
        mean * channels if len(mean) == 1 else mean,
        std * channels if len(std) == 1 else std,
    )


def _published(name: str, settings: dict[str, Any]) -> Published | None:
    if settings.get("custom_load"):  # NumPy archives that need timm's own loading code
        return None
    hub = settings.get("hf_hub_id")
    if hub:
        file = settings.get("hf_hub_filename") or "model.safetensors"
        own = f"{str(hub).replace('/', '--')}--{file}"
        return Published(file=own, url=f"https://huggingface.co/{hub}/resolve/main/{file}", hub=str(hub))
    url = str(settings.get("url") or "")
    return Published(file=url.rsplit("/", 1)[-1], url=url) if url else None


def _build(name: str, classes: int, arguments: Mapping[str, Any] = MappingProxyType({})) -> nn.Module:
    return _timm().create_model(name, pretrained=False, **dict(arguments) | {"num_classes": classes})


def _adopt(name: str, state: dict[str, Tensor], arguments: Mapping[str, Any] = MappingProxyType({})) -> nn.Module:
    """The network with published weights. timm converts old keys."""
    return _timm().create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **arguments)
