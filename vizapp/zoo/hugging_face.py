"""Networks for pictures of transformers (optional): a local folder, or `hf:owner/name` on the Hugging Face hub.

A folder holds `config.json`, weights (`model.safetensors`, or a state dict `pytorch_model.bin`) and usually
`preprocessor_config.json`. Code in it is never run: neither Python files nor pickles.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.errors import VizError, plain_name, quoted
from vizapp.files import local_path
from vizapp.media.picture import open_picture
from vizapp.zoo import hub, timm_zoo
from vizapp.zoo.hugging_face_tasks import TASKS, Task, task_of
from vizapp.zoo.labels import MOST_CLASSES, numbered_names, order_names
from vizapp.zoo.preprocessing import Preprocessing
from vizapp.zoo.processor import FILES, beside, centre_square, read_config
from vizapp.zoo.recipe import Published, Recipe

_PREFIXES = ("hf:", "hf-hub:")  # the second is timm's; what kind a repository is, its configuration says
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_LEVELS = 2  # of 255: transformers' faster resizing rounds differently from Pillow's


def handles(name: str) -> bool:
    """Whether the name is one of the hub or the path of a folder."""
    return is_online(name) or Path(name).expanduser().is_dir()


def is_online(name: str) -> bool:
    """Whether the name is one of the hub."""
    return name.startswith(_PREFIXES)


def recipe(name: str, variant: str = "default") -> Recipe:
    """The recipe of the network in a folder or, if the name is `hf:owner/name`, in a repository of the hub.

    The folders and repositories of timm are understood, too. Of a repository only the configuration is downloaded here.

    Raises:
        VizError: there is no configuration, or it is not one of a classifier, detector or segmenter.
    """
    online = is_online(name)
    if variant != "default":
        raise VizError(f'{_shown(name)} has only the weights "default", not {variant!r}.', code="no-such-weights")
    repository = name.partition(":")[2]
    file = partial(hub.hub_file, repository) if online else partial(_local_file, local_path(name, "folder"))
    path = file("config.json")
    if path is None:
        raise VizError(
            f"{_shown(name)} holds no config.json; a folder of Hugging Face has one beside its weights.",
            code="no-configuration",
        )
    config = read_config(path)
    shown = name if online else plain_name(path.parent.resolve().name)
    published = _published(name, file) if online else _local_weights(file)
    if "architecture" in config:
        return replace(timm_zoo.hub_recipe(shown, config), published=published)
    _ = next((found for found in map(file, FILES) if found is not None), None)  # downloads it
    task = _task(name, config)
    shape, described = beside(path.parent, *_input_size(config))
    facts = {"kind": task.kind, "architecture": _architecture(config)}
    squares = described is not None and centre_square(described) is not None
    if described is None:
        facts["preprocessing"] = "The folder does not describe it. ImageNet's mean and standard deviation are used."
    if squares:
        facts["preprocessing"] = "Of a photo the centre square is taken; transformers takes all of it."
    return Recipe(
        name=shown,
        build=partial(_build, task, config),
        preprocessing=shape,
        categories=_categories(config),
        published=published,
        adopt=partial(_adopt, task, config),
        check=(lambda: None) if described is None else partial(_check_processor, path.parent, shape, squares),
        facts=facts,
        channels_last=False,
    )


def _shown(name: str) -> str:
    return name if is_online(name) else f"The folder {plain_name(Path(name).name)!r}"


def _local_file(folder: Path, name: str) -> Path | None:
    path = folder / name
    return path if path.is_file() else None


def _local_weights(file: Callable[[str], Path | None]) -> Published | None:
    path = next((path for path in map(file, _WEIGHTS) if path is not None), None)
    return Published(path.name, path=path) if path is not None else None


def _published(name: str, file: Callable[..., Path | None]) -> Published:
    """The weights on the hub, downloaded when they are asked for."""

    def fetch(tick: Callable[[float], None] | None) -> Path:
        path = next((path for path in (file(weights, tick) for weights in _WEIGHTS) if path is not None), None)
        if path is None:
            raise VizError(f"{name} holds no weights ({', '.join(_WEIGHTS)}).", code="no-published-weights")
        if path.name.endswith(".index.json"):
            for shard in sorted(set(read_config(path).get("weight_map", {}).values())):
                file(str(shard), tick)
        return path

    def cached() -> bool:
        return any(hub.cached_file(name.partition(":")[2], weights) is not None for weights in _WEIGHTS)

    return Published(_WEIGHTS[0], fetch=fetch, cached=cached)


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures") or [""]
    return plain_name(str(named[0])) if isinstance(named, list) else ""


def _task(name: str, config: Mapping[str, Any]) -> Task:
    """What the network answers.

    Raises:
        VizError: it is not one of the tasks, or the configuration does not say of which type it is.
    """
    kind = _architecture(config)
    task = task_of(kind)
    if task is None:
        known = ", ".join(f"…{one.ending}" for one in TASKS)
        raise VizError(
            f"{_shown(name)} holds {kind}, which is none of transformers' networks that can be opened ({known}).",
            code="unsupported-network",
        )
    if not isinstance(config.get("model_type"), str):
        raise VizError(f"The config.json of {_shown(name)} names no model_type.", code="bad-configuration")
    return task


def _input_size(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width, where the processor does not say."""
    size, channels = config.get("image_size", 224), config.get("num_channels", 3)
    sides = size if isinstance(size, list) else [size, size]
    if not all(isinstance(side, int) and 0 < side < 10_000 for side in (*sides, channels)) or len(sides) != 2:
        raise VizError(f"The config.json holds an image_size of {quoted(size)}.", code="bad-configuration")
    return channels, sides[0], sides[1]


def _categories(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label")
    try:
        if isinstance(names, dict) and names:
            return tuple(
                plain_name(str(name)) for name in order_names({str(key): str(name) for key, name in names.items()})
            )
        count = int(config.get("num_labels", 2))  # transformers' default
        if 0 < count <= MOST_CLASSES:
            return numbered_names(count)
    except (TypeError, ValueError):
        pass
    raise VizError(
        "The config.json holds class names (id2label) that are not numbered 0, 1, 2 …", code="bad-configuration"
    )


@cache
def _transformers() -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise VizError("Networks of Hugging Face require transformers: pip install transformers.", code="not-installed")
    import transformers  # optional, and takes seconds

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _configured(task: Task, config: Mapping[str, Any], classes: int) -> tuple[type[Any], Any]:
    """The class of the network, which returns its answer alone, and its configuration."""
    library, kind = _transformers(), str(config["model_type"])
    try:
        configured = library.AutoConfig.for_model(
            kind, **{key: value for key, value in config.items() if key != "model_type"}
        )
        if configured.num_labels != classes:
            configured.num_labels = classes
        known = getattr(library, task.mapping)[type(configured)]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        own = " It needs its own Python code, which is not run." if config.get("auto_map") else ""
        raise VizError(
            f"This version of transformers has no {task.kind} network of the type {plain_name(kind)!r}, or its configuration "
            f"is not understood ({plain_name(str(error).splitlines()[0] if str(error) else type(error).__name__)}).{own}",
            code="unsupported-network",
        ) from None
    options = known if isinstance(known, (tuple, list)) else (known,)
    chosen = next((option for option in options if option.__name__ == _architecture(config)), options[0])
    return _answering(chosen, task), configured


@cache
def _answering(kind: type[Any], task: Task) -> type[Any]:
    """The class with a forward pass that takes pictures and returns the task's answer."""

    class Answering(kind):  # type: ignore[misc]
        def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:
            super().__init__(config, *arguments, **options)
            self.described = json.dumps(config.to_dict(), sort_keys=True, default=str)  # becomes part of the digest

        def forward(self, pixel_values: Tensor) -> Any:
            return task.answer(super().forward(pixel_values))

    Answering.__name__ = Answering.__qualname__ = kind.__name__
    Answering.__module__ = kind.__module__  # transformers renames keys of old weights for its own classes alone
    return Answering


def _build(task: Task, config: Mapping[str, Any], classes: int) -> nn.Module:
    kind, configured = _configured(task, config, classes)
    return kind(configured)


def _adopt(task: Task, config: Mapping[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """The network with the weights. transformers converts keys of old versions."""
    kind, configured = _configured(task, config, len(_categories(config)))
    module, report = kind.from_pretrained(None, config=configured, state_dict=state, output_loading_info=True)
    wrong = [
        f"{len(report[what])} {what.partition('_')[0]} ({', '.join(sorted(map(str, report[what]))[:5])})"
        for what in ("missing_keys", "mismatched_keys", "unexpected_keys")
        if report[what]
    ]
    if wrong:
        raise LookupError(f"keys: {'; '.join(wrong)}.")
    return module


def _check_processor(folder: Path, shape: Preprocessing, squares: bool) -> None:
    """Check the translated preprocessing against the pixels that the folder's own processor gives for two photos, or `squares`.

    Raises:
        VizError: they differ.
    """
    try:
        processor = _transformers().AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, backend="pil"
        )
        for size in ((3 * shape.height // 2 + 5, shape.width + 9), (shape.height + 2, 2 * shape.width + 1)):
            photo = np.random.default_rng(0).integers(0, 256, (*(size[:1] * 2 if squares else size), 3), dtype=np.uint8)
            wanted = torch.as_tensor(np.asarray(processor(photo, return_tensors="np")["pixel_values"][0]))
            given = shape.normalize([shape.crop(open_picture(photo))], torch.device("cpu"), torch.float32)[0]
            level = _LEVELS / 255 / min(shape.std)
            if wanted.shape != given.shape or float((wanted - given).abs().max()) > level:
                raise ValueError(f"its pixels for a photo of {photo.shape[1]} × {photo.shape[0]} are others")
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VizError(
            f"The preprocessing of {plain_name(folder.name)!r} cannot be translated: {plain_name(reason)}. Give another with "
            "preprocessing=FILE.",
            code="unsupported-preprocessing",
        ) from None
