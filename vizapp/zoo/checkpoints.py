"""Read checkpoints without running code in them, and load them into a network with strict key checks."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vizapp.errors import VizError, plain_name, quoted
from vizapp.zoo.labels import read_json
from vizapp.zoo.pickle_scan import MOST_DIMENSIONS
from vizapp.zoo.pickled import (
    Found,
    check_count,
    check_dense,
    check_finite,
    check_size,
    find_epoch,
    find_names,
    odd_type,
    read_pickled,
)
from vizapp.zoo.processor import read_config
from vizapp.zoo.recipe import Recipe, build_blank

_LISTED = 20  # keys of each kind in an error message
_ROLES = {
    "mean": ("mean",), "variance": ("var",), "bias": ("bias", "beta"), "weight": ("weight", "gamma", "kernel", "scale"),
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file (floating-point ones as float32), and its class names and epoch if it has any."""

    file: str
    state: dict[str, Tensor]
    categories: tuple[str, ...] | None = None
    which: str = ""  # of several state dicts in the file, in words
    epoch: int | None = None


class KeyMismatch(VizError):
    """The weights of a checkpoint are not those that a network has. `first`: the first that differs, in words."""

    def __init__(self, file: str, network: str, keys: str, first: str) -> None:
        super().__init__(f"The checkpoint {file!r} does not fit {network}; keys: {keys}", code="checkpoint-mismatch")
        self.first = first


def read_checkpoint(path: Path, tick: Callable[[float], None] | None = None) -> Checkpoint:
    """The weights in a `.pth`, `.pt`, `.th`, `.ckpt` or `.safetensors` file. Code in the file is never run.

    The state dict may be the top-level object or under a common key (`state_dict`, `model` …). `tick` may raise to cancel.

    Raises:
        VizError: the file is missing, damaged, contains code or no weights, or a weight is not finite.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is a device or a pipe" if path.exists() else "does not exist"
        raise VizError(
            f'The weights file {quoted(str(path))} {what}. Use a checkpoint file, "default" or "none".',
            code="no-such-file",
        )
    if path.stat().st_size == 0:
        raise VizError(f"The weights file {path.name!r} is empty (0 bytes).", code="empty-file")
    if path.name.endswith(".safetensors.index.json"):
        return _read_shards(path)
    found = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else read_pickled(path, tick)
    check_size(path, found.state)
    state = {key: _plain(path, key, value) for key, value in found.state.items()}
    return Checkpoint(plain_name(path.name), state, found.names, found.which, found.epoch)


def _read_shards(path: Path) -> Checkpoint:
    """The weights in several safetensors files, which Hugging Face lists in a file beside them."""
    files = read_config(path).get("weight_map")
    if not isinstance(files, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in files.values()
    ):
        raise VizError(f"The list of weights {path.name!r} names no files beside it.", code="bad-configuration")
    state: dict[str, Tensor] = {}
    for file in sorted(set(files.values())):
        state |= read_checkpoint(path.with_name(file)).state
    return Checkpoint(plain_name(path.name), state)


def _read_safetensors(path: Path) -> Found:
    try:
        with safe_open(str(path), framework="pt") as content:
            keys = content.keys()
            check_count(path, len(keys))
            if any(len(content.get_slice(key).get_shape()) > MOST_DIMENSIONS for key in keys):
                raise odd_type(path, f"in more than {MOST_DIMENSIONS} dimensions")
            state = {key: content.get_tensor(key) for key in keys}
            told = content.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        if "cannot allocate memory" in str(error).lower():
            raise MemoryError from None
        if unknown := re.search(r"Dtype not understood: (\w+)", str(error)):
            raise odd_type(path, f"of the type {unknown[1]}") from None
        raise VizError(
            f"The weights file {path.name!r} is damaged or is no safetensors file: {error}.", code="checkpoint-damaged"
        ) from None
    if not state:
        raise VizError(f"The weights file {path.name!r} holds no weights.", code="checkpoint-without-weights")
    try:
        names = find_names({"classes": read_json(told["classes"])}) if told.get("classes") else None
    except ValueError:
        names = None
    return Found(state, names, epoch=find_epoch(told))


def _plain(path: Path, key: str, value: Tensor) -> Tensor:
    """The weight as a dense float32 tensor; integers and complex numbers are unchanged."""
    check_dense(path, key, value)
    if not value.is_floating_point():
        return value
    try:
        value = value.to(torch.float32)
    except NotImplementedError:
        raise odd_type(path, f"of the type {str(value.dtype).removeprefix('torch.')} ({key})") from None
    check_finite(path.name, key, value)
    return value


def build_with_state(
    recipe: Recipe, checkpoint: Checkpoint, classes: int | None, in_order: bool = False
) -> tuple[nn.Module, int]:
    """The recipe's network with the weights of the checkpoint, and its number of classes.

    The number of classes is `classes`, or that of the checkpoint. Prefixes of the network's keys that the network lacks
    (`module.`, `_orig_mod.`, `model.` …) are removed. `num_batches_tracked` may be missing. Keys without that prefix belong
    to the training (`criterion.weight`, `n_averaged`) and are left out. `in_order`: if the names are foreign, weights are
    matched by their order (see `match_in_order`).

    Raises:
        KeyMismatch: keys are missing, unexpected or of another shape; the message lists the first twenty of each.
    """
    count = classes or len(recipe.categories)
    module = build_blank(recipe, count)
    state = _fitting_keys(checkpoint.state, module.state_dict().keys(), recipe)
    pairs = match_in_order(recipe, checkpoint) if _missing(module, state) else []
    if pairs and in_order:
        state = {own: checkpoint.state[foreign] for foreign, own in pairs}
    if classes is None:
        found = _classes_of(recipe, module, state)
        if found is not None:
            module, count = build_blank(recipe, found), found
    _check(recipe.name, checkpoint.file, module, state, pairs)
    own = module.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    # A state dict carries format versions of its layers, which torchvision's MNASNet checks.
    complete = type(own)(counters | state)
    complete._metadata = own._metadata  # type: ignore[attr-defined]
    module.load_state_dict(complete)
    return module, count


def match_in_order(recipe: Recipe, checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Pairs of a key of the checkpoint and the key of the network at the same place; empty if they do not match.

    They match if there are equally many, all shapes are equal (except where they depend on the number of classes), and no
    name contradicts its partner's: a running mean is no bias. Counters of batches do not count.
    """
    count = len(recipe.categories)
    own, more = (build_blank(recipe, classes).state_dict() for classes in (count, count + 1))
    keys = [key for key in own if not key.endswith("num_batches_tracked")]
    foreign = [key for key, value in checkpoint.state.items() if value.ndim or value.is_floating_point()]
    if len(keys) != len(foreign):
        return []
    for key, name in zip(keys, foreign, strict=True):
        here, there = own[key], checkpoint.state[name]
        same = here.shape == there.shape or (
            here.ndim == there.ndim
            and all(a == b or a != c for a, b, c in zip(here.shape, there.shape, more[key].shape, strict=True))
        )
        roles = {role for role in (_role(key), _role(name)) if role}
        if not same or len(roles) > 1 or here.is_floating_point() != there.is_floating_point():
            return []
    return list(zip(foreign, keys, strict=True))


def _role(key: str) -> str:
    """What the weight is in its layer, if its name says so."""
    name = key.rpartition(".")[2].rpartition("/")[2].lower()
    return next((role for role, words in _ROLES.items() if any(word in name for word in words)), "")


def _missing(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    return [key for key in module.state_dict() if key not in state and not key.endswith("num_batches_tracked")]


def _fitting_keys(state: Mapping[str, Tensor], wanted: Collection[str], recipe: Recipe) -> dict[str, Tensor]:
    """The state with the prefix removed that matches most of the network's keys.

    Keys without the prefix are left out if those with it are all of the network's.
    """
    best = {recipe.rename(key): value for key, value in state.items()}
    stripped, some = dict(state), False
    while _known(best, wanted) < len(wanted):
        prefixes = Counter(key.split(".", 1)[0] for key in stripped if "." in key)
        if not prefixes:
            break
        prefix = f"{prefixes.most_common(1)[0][0]}."
        inside = {key.removeprefix(prefix): value for key, value in stripped.items() if key.startswith(prefix)}
        renamed = {recipe.rename(key): value for key, value in inside.items()}
        stripped, some = inside, some or len(inside) < len(stripped)
        whole = all(key in renamed for key in wanted if not key.endswith("num_batches_tracked"))
        if _known(renamed, wanted) > _known(best, wanted) and (whole or not some):
            best = renamed
    return {key: value for key, value in best.items() if not key.startswith(recipe.training_only) or key in wanted}


def _known(keys: Iterable[str], wanted: Collection[str]) -> int:
    return sum(key in wanted for key in keys)


def _classes_of(recipe: Recipe, module: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """The checkpoint's number of classes, or None if it is the module's or unknown.

    Building the network with one more class shows which weights depend on the number of classes.
    """
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    if not any(key in own and tuple(value.shape) != own[key] for key, value in state.items()):
        return None
    count = len(recipe.categories)
    more = {key: tuple(value.shape) for key, value in build_blank(recipe, count + 1).state_dict().items()}
    for key, shape in own.items():
        if key in state and len(state[key].shape) == len(shape) and more.get(key, shape) != shape:
            found, here, there = (s[0] for s in (tuple(state[key].shape), shape, more[key]))
            extra, rest = divmod(found - here, max(1, there - here))
            if rest == 0 and count + extra > 0:
                return int(count + extra)
    return None


def _check(
    network: str, file: str, module: nn.Module, state: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]
) -> None:
    own, missing = module.state_dict(), _missing(module, state)
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} is {_by(value.shape)} and not {_by(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    shapes += [
        f"{key} has {'complex' if value.is_complex() else 'whole'} numbers"
        for key, value in state.items()
        if key in own and own[key].is_floating_point() and not value.is_floating_point()
    ]
    wrong = [
        f"{len(keys)} {what} ({', '.join(keys[:_LISTED])}{', …' if len(keys) > _LISTED else ''})"
        for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape or type"))
        if keys
    ]
    if wrong:
        shown = ", ".join(f"{plain_name(foreign)} → {own}" for foreign, own in pairs[:3])
        hint = (
            f'All {len(pairs)} shapes match in order ({shown} …): if they belong together, use rename="order" (--rename order).'
            if pairs
            else "Does it belong to another network?"
        )
        first = f"it lacks {missing[0]}" if missing else shapes[0] if shapes else f"it has {unexpected[0]} besides"
        raise KeyMismatch(file, network, f"{'; '.join(wrong)}. {hint}", first)


def _by(shape: Sequence[int]) -> str:
    return "×".join(str(side) for side in shape) if math.prod(shape) != 1 or len(shape) else "one number"
