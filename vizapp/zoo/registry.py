"""The zoo's front door: what networks there are, what is known about them, and loading them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import nn

from vizapp.engine.memory.budget import memory_budget
from vizapp.engine.memory.chunks import DoesNotFit, convert_out_of_memory, is_out_of_memory
from vizapp.errors import VizError, nearest, plain_name
from vizapp.files import natural_key
from vizapp.zoo import bundled, timm_zoo, torchvision_zoo
from vizapp.zoo.catalogue import catalogue
from vizapp.zoo.checkpoints import Checkpoint, build_with_state, read_checkpoint
from vizapp.zoo.devices import choose_device
from vizapp.zoo.labels import Classes, numbered_names, read_classes
from vizapp.zoo.network import Network, freeze
from vizapp.zoo.recipe import Card, Recipe, Source, build_random
from vizapp.zoo.weights import download_again, find_weights, is_damaged_copy

Tick = Callable[[float], None]
_WHILE_OPENING = 2.2  # times the weights: the network, what was read from the file, and the largest layer laid out anew
_SOURCES: dict[str, Source] = {
    "vizapp": bundled,
    "torchvision": torchvision_zoo,
    "timm": timm_zoo,
}  # in order of look-up


@cache
def _all_names() -> tuple[str, ...]:
    names = [f"{source}/{name}" for source, zoo in _SOURCES.items() for name in zoo.names()]
    return tuple(sorted(names, key=natural_key))


def list_networks() -> list[str]:
    """The names of all networks: "torchvision/resnet50", "vizapp/zfnet", and "timm/…" if timm is installed."""
    return list(_all_names())


def find_recipe(name: str, variant: str = "default") -> Recipe:
    """The recipe of a network; a bare name is looked up in vizapp's own, then torchvision, then timm.

    Raises:
        VizError: there is no such network (the sentence suggests the nearest names), or it cannot be used.
    """
    source, slash, bare = str(name).strip().partition("/")
    if slash and source in _SOURCES:
        found = _SOURCES[source].recipe(bare, variant)
        if found is not None:
            return found
        if source == "timm" and not timm_zoo.installed():
            raise VizError(
                f"{name} is one of timm's networks, and timm is not installed: pip install timm.", code="not-installed"
            )
    elif not slash:
        for zoo in _SOURCES.values():
            found = zoo.recipe(source, variant)
            if found is not None:
                return found
    similar = nearest(str(name), [*_all_names(), *(known.split("/", 1)[1] for known in _all_names())])
    raise VizError(
        f"There is no network called {str(name)!r}.{similar} `list_networks` lists all.", code="no-such-network"
    )


def describe(name: str) -> Card:
    """What is known about a network without building it.

    Raises:
        VizError: there is no such network.
    """
    recipe = find_recipe(name)
    shape = recipe.preprocessing
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
    )


def describe_all() -> dict[str, Card]:
    """What is known about every network, by name, in the order of `list_networks`. At once but for the first time."""
    return dict(_cards())


@cache
def _cards() -> dict[str, Card]:
    return catalogue(lambda: {name: describe(name) for name in _all_names()})


def load(
    name: str,
    weights: str | Path = "default",
    device: str | torch.device = "auto",
    classes: Classes = None,
    tick: Tick | None = None,
) -> Network:
    """A network of the zoo, ready to be asked.

    Args:
        name: as in `list_networks`, or without its source.
        weights: "default" (the published ones), "none" (random, the same each time), the path of a checkpoint, or the
            name of other published weights (torchvision's `IMAGENET1K_V1`).
        device: "auto" is the one of `VIZAPP_DEVICE`, else the first GPU, else the CPU.
        classes: their number, a list of their names, or the path of a labels file. By default those of the weights.
        tick: is told the share that is done of a download.

    Raises:
        VizError: what was asked for is not there or does not fit.
    """
    where = choose_device(device)
    count, labels = read_classes(classes)
    named = str(weights)
    kind = "published" if _is_variant(weights) else "file" if named != "none" else "none"
    recipe = find_recipe(name, _variant(name, named, kind))
    checkpoint, what = None, f"opening {recipe.name}"
    path = find_weights(recipe, tick) if kind == "published" else Path(named).expanduser() if kind == "file" else None
    with memory_budget().reserve(_opening_bytes(recipe, path, where), what, tick), convert_out_of_memory(what):
        if path is None:
            found = count or len(recipe.categories)
            module = build_random(recipe, found)
        elif kind == "published":
            checkpoint = _read_published(recipe, path, tick)
            module, found = _build_published(recipe, checkpoint, count)
        else:
            checkpoint = read_checkpoint(path)
            module, found = build_with_state(recipe, checkpoint, count)
        freeze(module, where, channels_last=True)
    return Network(
        name=recipe.name,
        module=module,
        device=where,
        preprocessing=recipe.preprocessing,
        categories=labels or _categories(recipe, found, checkpoint),
        weights=plain_name(Path(named).name) if kind == "file" else named,
        facts=_facts(recipe, kind, checkpoint),
    )


def _opening_bytes(recipe: Recipe, path: Path | None, device: torch.device) -> dict[torch.device, int]:
    """Bytes that opening takes on each device: the weights, and what was read of the file as long as they are filled."""
    size = 4 * (recipe.parameters or 0)
    if path is not None and path.is_file():
        size = max(size, path.stat().st_size)
    spent = {torch.device("cpu"): int(_WHILE_OPENING * size) if path is not None else size}
    return spent if device.type == "cpu" else spent | {device: size}


def _read_published(recipe: Recipe, path: Path, tick: Tick | None) -> Checkpoint:
    """The published weights; a damaged file of the cache is fetched again."""
    try:
        return read_checkpoint(path)
    except DoesNotFit:
        raise
    except VizError as error:
        if not is_damaged_copy(recipe, path):
            raise
        told = str(error)
    try:
        return read_checkpoint(download_again(recipe, tick))
    except VizError as error:
        raise VizError(f"{told} It could not be replaced: {error}", code=error.code) from None


def _is_variant(weights: str | Path) -> bool:
    """Whether `weights` names published weights rather than a file."""
    text = str(weights)
    if text in {"default", "none"}:
        return text == "default"
    known = not isinstance(weights, Path) and re.fullmatch(r"[A-Z][A-Z0-9_]+", text) is not None
    return known and not Path(text).exists()


def _variant(name: str, weights: str, kind: str) -> str:
    """Which published weights decide on preprocessing: those asked for, or those whose file this is."""
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
            f"The published weights of {recipe.name} know {known} classes; {classes} were asked for. "
            'Use weights="none" or a checkpoint with that many.',
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
    """Names from the checkpoint, else those of the published weights, if there are as many; else numbers."""
    for names in (checkpoint.categories if checkpoint else None, recipe.categories):
        if names is not None and len(names) == count:
            return names
    return numbered_names(count)


def _facts(recipe: Recipe, kind: str, checkpoint: Checkpoint | None) -> dict[str, str]:
    """What the reader of a picture should know about the network that made it."""
    facts = dict(recipe.facts)
    if kind != "published":
        facts.pop("published weights", None)
    if kind == "none":
        facts["weights"] = "random (seed 0): nothing was learned"
    elif checkpoint is not None:
        facts["weights"] = checkpoint.file
    if kind == "published" and recipe.accuracy is not None:
        facts["accuracy"] = f"{recipe.accuracy:.2f} % top-1, as published"
    return facts
