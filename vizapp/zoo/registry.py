"""List, describe and load the networks of the zoo."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vizapp.engine.memory.budget import memory_budget
from vizapp.engine.memory.chunks import DoesNotFit, convert_out_of_memory, is_out_of_memory
from vizapp.errors import VizError, nearest, plain_name, quoted
from vizapp.files import local_path, natural_key
from vizapp.progress import notebook_progress
from vizapp.zoo import bundled, exported, hugging_face, onnx_zoo, taught, timm_zoo, torchvision_zoo
from vizapp.zoo.catalogue import catalogue
from vizapp.zoo.checkpoints import Checkpoint, build_with_state, match_in_order, read_checkpoint
from vizapp.zoo.devices import choose_device
from vizapp.zoo.labels import Classes, numbered_names, read_classes
from vizapp.zoo.network import Network, check_probabilities, freeze
from vizapp.zoo.pickled import SUFFIXES
from vizapp.zoo.preprocessing import Preprocessing
from vizapp.zoo.processor import read_preprocessing
from vizapp.zoo.recipe import Card, Folder, Recipe, Source, build_random
from vizapp.zoo.weights import download_published, find_local, find_weights, is_damaged_copy
from vizapp.zoo.wrapping import name_classes

Tick = Callable[[float], None]
DEFAULT = "vizapp/efficientnet-lite0"  # trained on ImageNet, installed with vizapp
OWN = "own"  # options or weights that have no text on the command line
GROUPS = ("On this machine", "Needs download", "No published weights")
_WHILE_OPENING = 2.2  # peak memory / weights: the network, the state dict that was read, a copy of the largest layer
_SOURCES: dict[str, Source] = {"vizapp": bundled, "torchvision": torchvision_zoo, "timm": timm_zoo}  # in look-up order
ZOOS = tuple(_SOURCES)
_FILES: tuple[Folder, ...] = (hugging_face, onnx_zoo, exported)  # networks named by a path, or by the hub's name


@cache
def _all_names() -> tuple[str, ...]:
    names = [f"{source}/{name}" for source, zoo in _SOURCES.items() for name in zoo.names()]
    return tuple(sorted(names, key=natural_key))


def list_networks() -> list[str]:
    """The names of all networks: "torchvision/resnet50", "vizapp/zfnet", "timm/…" if timm is installed, "own/…" if taught."""
    return [*taught.names(), *_all_names()]


def find_recipe(name: str | Path, variant: str = "default") -> Recipe:
    """The recipe of a network; a bare name is looked up in vizapp's own, then torchvision, then timm.

    A path or a name of the Hugging Face hub (`hf:owner/name`) names a network outside of these.

    Raises:
        VizError: there is no such network (the sentence suggests the nearest names), or it cannot be used.
    """
    if taught.is_own(name):
        return taught.recipe(str(name), find_recipe)
    if isinstance(name, Path) or is_path(str(name)):
        return _recipe_of_path(str(name), variant)
    source, slash, bare = str(name).strip().partition("/")
    if slash and source in _SOURCES:
        found = _SOURCES[source].recipe(bare, variant)
        if found is not None:
            return found
        if source == "timm" and not timm_zoo.installed():
            raise VizError(f"{name} requires timm: pip install timm.", code="not-installed")
    elif not slash:
        for zoo in _SOURCES.values():
            found = zoo.recipe(source, variant)
            if found is not None:
                return found
    if os.path.exists(name):
        return _recipe_of_path(name, variant)
    similar = nearest(str(name), [*_all_names(), *(known.split("/", 1)[1] for known in _all_names())])
    raise VizError(f"There is no network {str(name)!r}.{similar} `list_networks` lists all.", code="no-such-network")


def is_path(name: str) -> bool:
    """Whether the name is certainly a path, or one of the hub."""
    return (
        name.startswith(("/", "./", "../", "~", ".\\", "..\\"))
        or name.lower().endswith((onnx_zoo.SUFFIX, exported.SUFFIX))
        or hugging_face.is_online(name)
    )


def _recipe_of_path(name: str, variant: str) -> Recipe:
    path = local_path(name, "network")
    for source in _FILES:
        if source.handles(name):
            return source.recipe(name, variant)
    if not path.exists():
        raise VizError(f"There is no file or folder {quoted(name)}.", code="no-such-file")
    what = "a checkpoint" if path.suffix.lower() in SUFFIXES else "not a network"
    raise VizError(
        f"The file {path.name!r} is {what}; a network is a folder of Hugging Face, an .onnx or a .pt2 file, or a name of "
        "`list_networks`, whose weights may be a checkpoint (weights=FILE).",
        code="not-a-network",
    )


def describe(name: str | Path) -> Card:
    """What is known about a network without building it.

    Raises:
        VizError: there is no such network.
    """
    recipe = find_recipe(name)
    shape, weights = recipe.preprocessing, recipe.published
    remote = weights if weights is not None and weights.path is None else None
    return Card(
        name=recipe.name,
        parameters=recipe.parameters,
        accuracy=recipe.accuracy,
        size_mb=recipe.size_mb,
        input_size=(shape.channels, shape.height, shape.width),
        published=recipe.published is not None,
        multiply_adds=recipe.multiply_adds,
        paper_accuracy=recipe.paper_accuracy,
        data=recipe.data,
        task=recipe.facts.get("kind", ""),
        file=remote.file if remote else "",
        url=remote.url if remote else "",
        hub=remote.hub if remote else "",
    )


def local_networks() -> frozenset[str]:
    """The names of the networks of `list_networks` whose published weights are on this machine."""
    return find_local(describe_all().values())


def group_networks() -> dict[str, list[Card]]:
    """The cards of all networks by where their published weights are (`GROUPS`); in a group by source, the default first."""
    cards, sources = describe_all(), [taught.SOURCE, *_SOURCES]
    here = find_local(cards.values())
    found: dict[str, list[Card]] = {group: [] for group in GROUPS}
    for card in sorted(cards.values(), key=lambda one: (one.name != DEFAULT, sources.index(one.name.split("/")[0]))):
        found[GROUPS[0 if card.name in here else 1 if card.published else 2]].append(card)
    return found


def describe_all() -> dict[str, Card]:
    """The cards of all networks by name, in the order of `list_networks`. The first call may take seconds.

    Taught networks that cannot be opened any more are left out.
    """
    own: dict[str, Card] = {}
    for name in taught.names():
        with suppress(VizError):
            own[name] = describe(name)
    return own | _cards()


@cache
def _cards() -> dict[str, Card]:
    return catalogue(lambda: {name: describe(name) for name in _all_names()})


def load(
    name: str | Path = DEFAULT,
    weights: str | Path = "default",
    device: str | torch.device = "auto",
    classes: Classes = None,
    tick: Tick | None = None,
    output: str | None = None,
    probabilities: str | None = None,
    preprocessing: Preprocessing | str | Path | None = None,
    rename: str | None = None,
) -> Network:
    """Load a network.

    Args:
        name: as in `list_networks`, or without its source; or the path of a folder of Hugging Face, of an `.onnx` or a `.pt2`
            file; or `hf:owner/name`, a repository of the Hugging Face hub; or `own/NAME`, a taught network, which takes no
            further arguments than `weights`, `device` and `tick`. Default: EfficientNet-Lite0, trained on ImageNet.
        weights: "default" (published), "none" (random, always the same), the path of a checkpoint, or the name of
            other published weights (torchvision's `IMAGENET1K_V1`).
        device: "auto" takes `VIZAPP_DEVICE` if set, else the first GPU, else the CPU.
        classes: the number of classes, a list of names, or the path of a labels file. Default: those of the weights.
        tick: called with the progress of a download, from 0 to 1. Without one, a notebook shows a progress bar.
        output: which of several outputs the class scores are, as for `wrap`.
        probabilities: "softmax", "sigmoid" or "none", as for `wrap`.
        preprocessing: in place of the network's own; or the path of a `preprocessor_config.json`.
        rename: "order" loads a checkpoint with foreign key names, if all its shapes are the network's in order.

    Raises:
        VizError: the network, the weights, the labels, the device or the output cannot be found or do not fit.
    """
    if taught.is_own(name):
        if (classes, output, probabilities, preprocessing, rename) != (None,) * 5:
            raise VizError(
                f"{name} is opened as it was taught; leave out classes, output, probabilities, preprocessing and rename.",
                code="own-as-it-is",
            )
        return taught.network_of(str(name), partial(load, device=device, tick=tick), str(weights))
    if rename not in (None, "order"):
        raise VizError(f'rename is "order" or None, not {quoted(rename)}.', code="bad-rename")
    where, chosen = choose_device(device), check_probabilities(probabilities)
    count, labels = read_classes(classes)
    named = str(weights)
    kind = "published" if _is_variant(weights) else "file" if named != "none" else "none"
    recipe = find_recipe(name, _variant(str(name), named, kind))
    if preprocessing is None:
        recipe.check()
    else:
        own = recipe.preprocessing
        given = preprocessing if isinstance(preprocessing, Preprocessing) else read_preprocessing(preprocessing, own)
        recipe = replace(recipe, preprocessing=given)
    checkpoint, what = None, f"opening {recipe.name}"
    with notebook_progress(tick, f"Opening {recipe.name}") as tick:
        path = (
            find_weights(recipe, tick)
            if kind == "published"
            else local_path(named, "weights file")
            if kind == "file"
            else None
        )
        with memory_budget().reserve(_opening_bytes(recipe, path, where), what, tick), convert_out_of_memory(what):
            if recipe.open is not None:
                if kind != "published":
                    raise VizError(
                        f'{recipe.name} holds its weights in the same file; use weights="default".',
                        code="no-such-weights",
                    )
                module, found = recipe.open(), count or len(recipe.categories)
            elif path is None:
                found = count or len(recipe.categories)
                module = build_random(recipe, found)
            elif kind == "published":
                checkpoint = _read_published(recipe, path, tick)
                module, found = _build_published(recipe, checkpoint, count)
            else:
                checkpoint = read_checkpoint(path, tick)
                module, found = build_with_state(recipe, checkpoint, count, in_order=rename == "order")
            freeze(module, where, channels_last=recipe.channels_last)
    network = Network(
        name=recipe.name,
        module=module,
        device=where,
        preprocessing=recipe.preprocessing,
        categories=labels or _categories(recipe, found, checkpoint),
        weights=plain_name(Path(named).name) if kind == "file" else named,
        facts=_facts(recipe, kind, checkpoint) | _options(classes, probabilities, preprocessing, rename),
        output=output,
        probabilities=chosen,
    )
    if recipe.open is not None:
        network = name_classes(network, count)
    if output is not None or chosen is not None:
        _ = network.head  # raises if there is none of that name, or it returns something else
    return network


def _options(classes: Classes, probabilities: str | None, preprocessing: Any, rename: str | None) -> dict[str, str]:
    """What `load` was given, as a fact: options of the command line, or `OWN` if it has no text there."""
    named = {"classes": classes, "probabilities": probabilities, "preprocessing": preprocessing, "rename": rename}
    given = {name: value for name, value in named.items() if value is not None}
    if not all(isinstance(value, (str, int, Path)) for value in given.values()):
        return {"options": OWN}
    texts = (f"--{name} {shlex.quote(plain_name(Path(str(value)).name))}" for name, value in given.items())
    return {"options": " ".join(texts)} if given else {}


def match_checkpoint(name: str | Path, weights: str | Path) -> list[tuple[str, str]]:
    """What `load` with `rename="order"` pairs: keys of a checkpoint with keys of the network; empty if the orders differ.

    Raises:
        VizError: the network or the checkpoint cannot be read.
    """
    recipe = find_recipe(name, _variant(str(name), str(weights), "file"))
    return match_in_order(recipe, read_checkpoint(local_path(weights, "weights file")))


def _opening_bytes(recipe: Recipe, path: Path | None, device: torch.device) -> dict[torch.device, int]:
    """Peak number of bytes on each device while the network is opened."""
    size = 4 * (recipe.parameters or 0)
    if path is not None and path.is_file():
        size = max(size, path.stat().st_size)
    spent = {torch.device("cpu"): int(_WHILE_OPENING * size) if path is not None else size}
    return spent if device.type == "cpu" else spent | {device: size}


def _read_published(recipe: Recipe, path: Path, tick: Tick | None) -> Checkpoint:
    """The published weights. A damaged file in torch's cache is downloaded again."""
    try:
        return read_checkpoint(path)
    except DoesNotFit:
        raise
    except VizError as error:
        if not is_damaged_copy(recipe, path):
            raise
        told = str(error)
    try:
        return read_checkpoint(download_published(recipe, tick))
    except VizError as error:
        raise VizError(f"{told} It could not be replaced: {error}", code=error.code) from None


def _is_variant(weights: str | Path) -> bool:
    """Whether `weights` names published weights rather than a file."""
    text = str(weights)
    if text in {"default", "none"}:
        return text == "default"
    known = not isinstance(weights, Path) and re.fullmatch(r"[A-Z][A-Z0-9_]+", text) is not None
    return known and not os.path.exists(text)


def _variant(name: str, weights: str, kind: str) -> str:
    """The published weights whose preprocessing applies: the requested ones, or those that the file belongs to."""
    if kind == "published":
        return weights
    source, _, bare = str(name).rpartition("/")
    if kind == "file" and source in {"", "torchvision"}:
        return torchvision_zoo.variant_of_file(bare, Path(weights).name)
    return "default"


def _build_published(recipe: Recipe, checkpoint: Checkpoint, classes: int | None) -> tuple[nn.Module, int]:
    known = len(recipe.categories)
    if classes is not None and classes != known:
        raise VizError(
            f"The published weights of {recipe.name} have {known} classes, not {classes}. "
            'Use weights="none" or a checkpoint with that many classes.',
            code="class-count-mismatch",
        )
    if recipe.adopt is None:
        module, known = build_with_state(recipe, checkpoint, known)
        recipe.finish(module)
        return module, known
    try:
        return recipe.adopt(checkpoint.state), known
    except (RuntimeError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VizError(
            f"The file {checkpoint.file!r} does not fit {recipe.name}: {reason}", code="checkpoint-mismatch"
        ) from None


def _categories(recipe: Recipe, count: int, checkpoint: Checkpoint | None) -> tuple[str, ...]:
    """Names from the checkpoint or the published weights if their number matches, else numbered names."""
    for names in (checkpoint.categories if checkpoint else None, recipe.categories):
        if names is not None and len(names) == count:
            return names
    return numbered_names(count)


def _facts(recipe: Recipe, kind: str, checkpoint: Checkpoint | None) -> dict[str, str]:
    """Facts about the network that are shown next to results."""
    facts = dict(recipe.facts)
    if kind != "published":
        facts.pop("published weights", None)
    if kind == "none":
        facts["weights"] = "random (seed 0), untrained"
    elif checkpoint is not None:
        facts["weights"] = checkpoint.file
        if checkpoint.which:
            facts["weights taken"] = checkpoint.which
    if kind == "published" and recipe.accuracy is not None:
        facts["accuracy"] = f"{recipe.accuracy:.2f} % top-1, as published"
    return facts
