"""Read checkpoints without running code in them, and load them into a network with strict key checks."""

from __future__ import annotations

import math
import pickle
import re
import struct
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vizapp.engine.memory.chunks import free_memory, is_out_of_memory
from vizapp.errors import VizError, plain_name, quoted
from vizapp.zoo.labels import order_names, read_json
from vizapp.zoo.pickle_scan import Unsafe, scan
from vizapp.zoo.recipe import Recipe, build_blank

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".ckpt")
_STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights")
_NAME_KEYS = ("classes", "class_names", "categories", "labels", "class_to_idx")
# How torch's unpickler reports a call in a pickle, and of what.
_CALLED = re.compile(r"GLOBAL (\S+)|Unsupported class (\S+)|(?:call|Can only) (?:reduce|build)", re.IGNORECASE)
_SWELLS, _SMALL = 5, 2**25  # largest ratio of memory to file size (8-bit weights: 4); bytes always allowed
_LEGACY_PICKLES = 5  # at the start of files that torch wrote before 1.6: magic number, version, system, content, keys
_LISTED = 20  # keys of each kind in an error message
# What torch.load raises for other kinds of files and for truncated ones.
_DAMAGED = (
    EOFError, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError,
    zipfile.BadZipFile, struct.error,
)  # fmt: skip
_WHAT_TO_DO = "Save only the weights: torch.save(model.state_dict(), path)."


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file (floating-point ones as float32), and its class names if it has any."""

    file: str
    state: dict[str, Tensor]
    categories: tuple[str, ...] | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in a `.pth`, `.pt`, `.th`, `.ckpt` or `.safetensors` file. Code in the file is never run.

    The state dict may be the top-level object or under a common key (`state_dict`, `model` …).

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
    names = None
    if path.suffix.lower() == ".safetensors":
        state, names = _read_safetensors(path)
    else:
        content = _read_pickle(path)
        state = _find_state(path, content)
        names = _find_names(content)
    _check_size(path, state)
    return Checkpoint(plain_name(path.name), {key: _plain(path, key, value) for key, value in state.items()}, names)


def _check_size(path: Path, state: Mapping[str, Tensor]) -> None:
    """Reject weights that expand in memory: broadcast numbers, or one storage under many names."""
    taken = sum(value.numel() * max(4, value.element_size()) for value in state.values())
    if taken > _SWELLS * path.stat().st_size + _SMALL:
        raise VizError(
            f"The weights in {path.name!r} take {taken / 1e9:,.1f} GB in memory and {path.stat().st_size / 1e6:,.1f} MB in "
            "the file: many share the same numbers. Save plain, separate tensors.",
            code="checkpoint-shares-storage",
        )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    try:
        with safe_open(str(path), framework="pt") as content:
            state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 (it is no mapping)
            names = (content.metadata() or {}).get("classes")
    except (SafetensorError, OSError, ValueError) as error:
        if "cannot allocate memory" in str(error).lower():
            raise MemoryError from None
        raise VizError(
            f"The weights file {path.name!r} is damaged or is no safetensors file: {error}.", code="checkpoint-damaged"
        ) from None
    if not state:
        raise VizError(f"The weights file {path.name!r} holds no weights.", code="checkpoint-without-weights")
    try:
        return state, _find_names({"classes": read_json(names)}) if names else None
    except ValueError:
        return state, None


def _refuse_packed(path: Path) -> None:
    """Reject compressed and tar files. torch does not write them, and would unpack them without a limit."""
    if tarfile.is_tarfile(path):
        raise _damaged(path)
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
        except (zipfile.BadZipFile, ValueError, struct.error, OSError):
            raise _damaged(path) from None
        if unpacked > 2 * path.stat().st_size + _SMALL:
            raise VizError(
                f"The weights file {path.name!r} is compressed; save it with torch.save.", code="checkpoint-compressed"
            )


def _scan(path: Path) -> None:
    """Reject pickles that would take unlimited time or memory to read."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.filename.endswith(".pkl"):
                        with archive.open(entry) as file:
                            scan(file)
        else:
            with path.open("rb") as file:
                scan(file, _LEGACY_PICKLES)
    except Unsafe as error:
        raise VizError(
            f"The weights file {path.name!r} contains {error} and was not read. {_WHAT_TO_DO}",
            code="checkpoint-unsafe",
        ) from None
    except _DAMAGED:
        raise _damaged(path) from None


def _read_pickle(path: Path) -> Any:
    _refuse_packed(path)
    _scan(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        called = _CALLED.search(str(error))
        if called:
            name = next((group for group in called.groups() if group), "")
            what = f"code ({name.strip('`.,')})" if name else "code"
            raise VizError(
                f"The weights file {path.name!r} contains {what} and was not run. {_WHAT_TO_DO}",
                code="checkpoint-unsafe",
            ) from None
        raise _damaged(path) from None
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        if "TorchScript" in str(error):
            raise VizError(
                f"The file {path.name!r} is a TorchScript program and was not run. {_WHAT_TO_DO}",
                code="checkpoint-unsafe",
            ) from None
        raise _damaged(path) from None
    except _DAMAGED:
        raise _damaged(path) from None
    except MemoryError:  # a damaged file may request any amount
        if path.stat().st_size > free_memory(torch.device("cpu")):
            raise
        raise _damaged(path) from None


def _damaged(path: Path) -> VizError:
    return VizError(
        f"The weights file {path.name!r} is truncated or not a checkpoint that torch can read; copy it again, or use "
        f"another file ({', '.join(SUFFIXES)}).",
        code="checkpoint-damaged",
    )


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, Tensor) for item in value.values())


def _find_state(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        under = [content[key] for key in _STATE_KEYS if isinstance(content.get(key), Mapping)]
        if not any(isinstance(value, Tensor) for value in content.values()):
            under += [value for value in content.values() if isinstance(value, Mapping)]
        for value in (*under, content):
            if _is_state(value):
                return {str(key): item for key, item in value.items() if isinstance(item, Tensor)}
        nested = [value for value in under if any(_is_state(item) for item in value.values())]
        if nested:
            return _find_state(path, nested[0])
        keys = ", ".join(repr(key) for key in list(content)[:5]) or "nothing"
        raise VizError(
            f"The file {path.name!r} holds no weights: found {keys}. {_WHAT_TO_DO}", code="checkpoint-without-weights"
        )
    raise VizError(
        f"The file {path.name!r} holds no weights but a {type(content).__name__}. {_WHAT_TO_DO}",
        code="checkpoint-without-weights",
    )


def _find_names(content: Any) -> tuple[str, ...] | None:
    """Class names stored next to the weights, if any."""
    for key in _NAME_KEYS:
        names = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(names, Mapping):
            try:
                names = order_names({str(index): name for index, name in names.items()})
            except (ValueError, TypeError):
                continue
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return tuple(map(plain_name, names))
    return None


def _plain(path: Path, key: str, value: Tensor) -> Tensor:
    """The weight as a dense float32 tensor; integers are unchanged."""
    if value.is_meta:
        raise VizError(
            f"The file {path.name!r} holds the shape of {key} and not its numbers; save the weights themselves.",
            code="checkpoint-without-weights",
        )
    if value.is_quantized or value.layout != torch.strided:
        raise VizError(
            f"The file {path.name!r} holds quantised or sparse weights ({key}); save plain float ones.",
            code="checkpoint-not-dense",
        )
    if not value.is_floating_point():
        return value
    value = value.to(torch.float32)
    # The sum is not finite if any number is not, and is ten times as fast.
    if not math.isfinite(value.sum().item()) and not bool(torch.isfinite(value).all()):
        raise VizError(
            f"The file {path.name!r} holds NaN or infinite numbers in {key}; has training diverged?",
            code="checkpoint-not-finite",
        )
    return value


def build_with_state(recipe: Recipe, checkpoint: Checkpoint, classes: int | None) -> tuple[nn.Module, int]:
    """The recipe's network with the weights of the checkpoint, and its number of classes.

    The number of classes is `classes`, or that of the checkpoint. Common prefixes of all keys that the network lacks
    (`module.`, `_orig_mod.`, `model.` …) are removed. `num_batches_tracked` may be missing.

    Raises:
        VizError: keys are missing, unexpected or of another shape; the message lists the first twenty of each.
    """
    count = classes or len(recipe.categories)
    module = build_blank(recipe, count)
    state = _fitting_keys(checkpoint.state, module.state_dict().keys(), recipe)
    if classes is None:
        found = _classes_of(recipe, module, state)
        if found is not None:
            module, count = build_blank(recipe, found), found
    _check(recipe.name, checkpoint.file, module, state)
    own = module.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    # A state dict carries format versions of its layers, which torchvision's MNASNet checks.
    complete = type(own)(counters | state)
    complete._metadata = own._metadata  # type: ignore[attr-defined]
    module.load_state_dict(complete)
    return module, count


def _fitting_keys(state: Mapping[str, Tensor], wanted: Collection[str], recipe: Recipe) -> dict[str, Tensor]:
    """The state with the number of common prefixes removed that matches most of the network's keys."""
    best = {recipe.rename(key): value for key, value in state.items()}
    stripped = dict(state)
    while True:
        prefixes = {key.split(".", 1)[0] for key in stripped}
        if len(prefixes) != 1 or not all("." in key for key in stripped):
            break
        stripped = {key.split(".", 1)[1]: value for key, value in stripped.items()}
        renamed = {recipe.rename(key): value for key, value in stripped.items()}
        if _known(renamed, wanted) > _known(best, wanted):
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


def _check(network: str, file: str, module: nn.Module, state: Mapping[str, Tensor]) -> None:
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} is {_by(value.shape)} and not {_by(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    wrong = [
        f"{len(keys)} {what} ({', '.join(keys[:_LISTED])}{', …' if len(keys) > _LISTED else ''})"
        for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if keys
    ]
    if wrong:
        raise VizError(
            f"The checkpoint {file!r} does not fit {network}; keys: {'; '.join(wrong)}. Does it belong to another network?",
            code="checkpoint-mismatch",
        )


def _by(shape: Sequence[int]) -> str:
    return "×".join(str(side) for side in shape) if math.prod(shape) != 1 or len(shape) else "one number"
