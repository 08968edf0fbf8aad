"""State dicts in pickled checkpoints: `.pth`, `.pt`, `.th`, `.ckpt`. Code in the file is never run.

A pickle is looked through before it is read. One that holds nothing but tensors in dictionaries is read here; its time and
memory are proportional to its size. All others (files of old versions of torch, long or unusual pickles) are read in a process
with limits.
"""

from __future__ import annotations

import argparse
import io
import math
import pathlib
import pickle
import re
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch._weights_only_unpickler import _get_allowed_globals
from torch.serialization import _open_zipfile_reader

from vizapp.engine.memory.chunks import free_memory, is_out_of_memory
from vizapp.errors import VizError, plain_name, quoted
from vizapp.media.formats import guess_kind
from vizapp.media.process import Exceeded, Limits, call
from vizapp.zoo.labels import order_names
from vizapp.zoo.pickle_scan import MOST_BYTES, TooLong, Unsafe, scan

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".ckpt")
_STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights")
_NAME_KEYS = ("classes", "class_names", "categories", "labels", "class_to_idx")
# How torch's unpickler reports a call in a pickle, and of what.
_CALLED = re.compile(r"GLOBAL (\S+)|Unsupported class (\S+)|(?:call|Can only) (?:reduce|build)", re.IGNORECASE)
_SWELLS, _SMALL = 5, 2**25  # largest ratio of memory to file size (8-bit weights: 4); bytes always allowed
MOST_TENSORS = 20_000  # in a file; the largest networks have some thousands
_LEGACY_PICKLES = 5  # at the start of files that torch wrote before 1.6: magic number, version, system, content, keys
_SHORT = 2**21  # bytes of a pickle that is read here: 10,000 weights
_SECONDS, _BYTES_PER_SECOND = 20, 50_000_000  # of the process, and more for large files
_COPIES, _SPARE = 4, 2**30  # its memory: times the file, and bytes
# What a state dict of plain tensors is made of.
_PLAIN = re.compile(
    r"collections OrderedDict|torch (\w*Storage|Size|\w*float\w*|u?int\d+)|torch\._utils _rebuild_(tensor_v2|parameter)"
)
# Harmless values that training scripts save beside the weights.
_ALLOWED = [
    argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath, np.dtype, np.ndarray,
    *((function, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")
      for function, name in ((np._core.multiarray.scalar, "scalar"), (np._core.multiarray._reconstruct, "_reconstruct"))),  # type: ignore[attr-defined]
    *(kind for name, kind in vars(np.dtypes).items() if name.endswith("DType") and name != "ObjectDType"),
]  # fmt: skip
_KNOWN = {f"{name.rpartition('.')[0]} {name.rpartition('.')[2]}" for name in _get_allowed_globals()} | {
    f"{name.rpartition('.')[0]} {name.rpartition('.')[2]}"
    for name in (each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}" for each in _ALLOWED)
}
# What torch.load raises for other kinds of files and for truncated ones.
_DAMAGED = (
    EOFError, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError,
    zipfile.BadZipFile, struct.error,
)  # fmt: skip
_WHAT_TO_DO = "Save only the weights: torch.save(model.state_dict(), path)."


@dataclass(frozen=True)
class Found:
    """The state dict in a file, class names and epoch beside it, and which of several state dicts it is, in words."""

    state: dict[str, Tensor]
    names: tuple[str, ...] | None = None
    which: str = ""
    epoch: int | None = None


def read_pickled(path: Path, tick: Callable[[float], None] | None = None) -> Found:
    """The state dict in a pickled checkpoint. `tick` may raise to cancel.

    Raises:
        VizError: the file is of another kind or damaged, contains code or no weights, or takes too much time or memory.
    """
    _refuse_packed(path)
    return _find(path) if _is_plain(path) else _read_apart(path, tick)


def check_count(path: Path, count: int) -> None:
    """Reject files of so many tensors that reading them takes long."""
    if count > MOST_TENSORS:
        raise VizError(
            f"The weights file {path.name!r} holds {count:,} tensors; at most {MOST_TENSORS:,} are read.",
            code="checkpoint-too-many-tensors",
        )


def check_size(path: Path, state: Mapping[str, Tensor]) -> None:
    """Reject weights that expand in memory: broadcast numbers, or one storage under many names."""
    taken = sum(value.numel() * max(4, value.element_size()) for value in state.values())
    if taken > _SWELLS * path.stat().st_size + _SMALL:
        raise VizError(
            f"The weights in {path.name!r} take {taken / 1e9:,.1f} GB in memory and {path.stat().st_size / 1e6:,.1f} MB in "
            "the file: many share the same numbers. Save plain, separate tensors.",
            code="checkpoint-shares-storage",
        )


def check_dense(path: Path, key: str, value: Tensor) -> None:
    """Reject weights without numbers, and quantised or sparse ones."""
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


def check_finite(file: str, key: str, value: Tensor) -> None:
    """Reject weights with NaN or infinite numbers."""
    # The sum is not finite if any number is not, and is ten times as fast.
    if value.is_floating_point() and not math.isfinite(value.sum().item()) and not bool(torch.isfinite(value).all()):
        raise VizError(
            f"The file {plain_name(file)!r} holds NaN or infinite numbers in {plain_name(key)}; has training diverged?",
            code="checkpoint-not-finite",
        )


def _is_plain(path: Path) -> bool:
    """Whether the file holds a short pickle of tensors and dictionaries alone.

    Raises:
        VizError: it is damaged or contains code, or would take unlimited time or memory.
    """
    try:
        names = _look_through(path, _SHORT)
    except TooLong:
        return False
    foreign = [name for name in names if name and name not in _KNOWN]
    if foreign:
        raise _code(path, foreign[0].replace(" ", "."))
    return all(_PLAIN.fullmatch(name) for name in names)


def _read_apart(path: Path, tick: Callable[[float], None] | None) -> Found:
    """Read the file in a process with limits, which hands the weights over in a safetensors file."""
    size = path.stat().st_size
    limits = Limits(_SECONDS + size // _BYTES_PER_SECOND, _COPIES * size + _SPARE)
    with tempfile.TemporaryDirectory(prefix="vizapp-") as folder:
        out = Path(folder) / "weights"
        try:
            keys, names, which, epoch = call(_write_found, (path, out), limits, tick)
        except Exceeded:
            raise _unsafe(
                path, f"something that takes more than {limits.nbytes / 1e9:.1f} GB or {limits.seconds} s to read"
            ) from None
        with safe_open(str(out), framework="pt") as content:
            return Found({key: content.get_tensor(str(number)) for number, key in enumerate(keys)}, names, which, epoch)


def _write_found(path: Path, out: Path) -> tuple[list[str], tuple[str, ...] | None, str, int | None]:
    """Keys, class names, choice and epoch of the state dict in `path`; its tensors are written to `out`, by number."""
    try:
        _look_through(path, MOST_BYTES)
        with torch.serialization.safe_globals(_ALLOWED):
            found = _find(path)
        check_size(path, found.state)
        for key, value in found.state.items():
            check_dense(path, key, value)
        save_file(
            {str(number): value.detach().contiguous().clone() for number, value in enumerate(found.state.values())}, out
        )
    except TooLong as error:
        raise _unsafe(path, str(error)) from None
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError from None
        raise _damaged(path) from None
    except (KeyError, ValueError):  # a type of numbers that safetensors lacks
        raise odd_type(path, "of a type that is not read") from None
    return list(found.state), found.names, found.which, found.epoch


def _look_through(path: Path, most: int) -> dict[str, None]:
    """The names of the classes and functions in the pickles, which are not read.

    Raises:
        VizError: they are damaged, or would take unlimited time or memory.
        TooLong: they have more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            if not _is_archive(path):
                return scan(file, _LEGACY_PICKLES, most)
            with _open_zipfile_reader(file) as archive:
                return scan(io.BufferedReader(io.BytesIO(archive.get_record("data.pkl"))), 1, most)
    except TooLong:
        raise
    except Unsafe as error:
        raise _unsafe(path, str(error)) from None
    except (*_DAMAGED, RuntimeError):
        raise _damaged(path) from None


def _find(path: Path) -> Found:
    content = _load(path)
    state, which = _find_state(path, content)
    check_count(path, len(state))
    return Found(state, find_names(content), which, find_epoch(content))


def find_epoch(content: Mapping[Any, Any]) -> int | None:
    """The epoch that a training script saved beside the weights: `epoch`, a whole number or its text; None without."""
    epoch = content.get("epoch")
    text = str(epoch) if isinstance(epoch, (int, str, np.integer)) else ""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _refuse_packed(path: Path) -> None:
    """Reject compressed and tar files. torch does not write them, and would unpack them without a limit."""
    if tarfile.is_tarfile(path):
        raise _damaged(path)
    if _is_archive(path):
        try:
            with path.open("rb") as file, _open_zipfile_reader(file) as archive:
                unpacked = sum(map(archive.get_record_size, archive.get_all_records()))
        except (*_DAMAGED, RuntimeError):
            raise _damaged(path) from None
        if unpacked > 2 * path.stat().st_size + _SMALL:
            raise VizError(
                f"The weights file {path.name!r} is compressed; save it with torch.save.", code="checkpoint-compressed"
            )


def _is_archive(path: Path) -> bool:
    """Whether torch reads the file as a zip file. It judges by the beginning alone, and `zipfile` by the end alone.

    What is looked through must be what torch reads, so its own reader reads it: that one ignores the case of names.
    """
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        called = _CALLED.search(str(error))
        if called:
            name = next((group for group in called.groups() if group), "")
            raise _code(path, name.strip("`.,")) from None
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


def _code(path: Path, name: str) -> VizError:
    what = f"code ({name})" if name else "code"
    return VizError(
        f"The weights file {path.name!r} contains {what} and was not run. {_WHAT_TO_DO}", code="checkpoint-unsafe"
    )


def _unsafe(path: Path, what: str) -> VizError:
    return VizError(
        f"The weights file {path.name!r} contains {what} and was not read. {_WHAT_TO_DO}", code="checkpoint-unsafe"
    )


def _damaged(path: Path) -> VizError:
    with path.open("rb") as file:
        kind = guess_kind(file)
    if kind and not kind.startswith(("a ZIP", "pickled")):
        return VizError(
            f"The weights file {path.name!r} is {kind} and no checkpoint of torch; give a file of the kinds "
            f"{', '.join(SUFFIXES)}.",
            code="checkpoint-damaged",
        )
    return VizError(
        f"The weights file {path.name!r} is truncated or not a checkpoint that torch can read; copy it again, or use "
        f"another file ({', '.join(SUFFIXES)}).",
        code="checkpoint-damaged",
    )


def odd_type(path: Path, what: str) -> VizError:
    """The error for weights of a type of numbers that is not read."""
    return VizError(
        f"The weights file {path.name!r} holds numbers {what}; save the weights as float32, float16 or bfloat16.",
        code="checkpoint-odd-type",
    )


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, Tensor) for item in value.values())


def _find_state(path: Path, content: Any) -> tuple[dict[str, Tensor], str]:
    """The state dict in the content, and which one it is where there are several, in words."""
    if not isinstance(content, Mapping):
        raise VizError(
            f"The file {path.name!r} holds no weights but a {type(content).__name__}. {_WHAT_TO_DO}",
            code="checkpoint-without-weights",
        )
    known = [key for key in _STATE_KEYS if isinstance(content.get(key), Mapping)]
    others = [key for key, value in content.items() if isinstance(value, Mapping) and key not in known]
    if any(isinstance(value, Tensor) for value in content.values()):
        keys, others = known, []
    else:
        keys = known + others
    for key in keys:
        if _is_state(content[key]):
            state = _tensors(content[key])
            rest = [other for other in (*keys, *others) if other != key and _rivals(content[other], state)]
            names = " and ".join(plain_name(str(other)) for other in dict.fromkeys(rest))
            return state, f"those of {plain_name(str(key))}, not of {names}" if names else ""
    if _is_state(content):
        return _tensors(content), ""
    nested = [content[key] for key in keys if any(_is_state(item) for item in content[key].values())]
    if nested:
        return _find_state(path, nested[0])
    listed = ", ".join(quoted(key) for key in list(content)[:5]) or "nothing"
    raise VizError(
        f"The file {path.name!r} holds no weights: found {listed}. {_WHAT_TO_DO}", code="checkpoint-without-weights"
    )


def _tensors(value: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(key): item for key, item in value.items() if isinstance(item, Tensor)}


def _rivals(value: Any, state: Mapping[str, Tensor]) -> bool:
    """Whether the value is a state dict of about as many weights as `state`."""
    return _is_state(value) and 2 * len(_tensors(value)) >= len(state)


def find_names(content: Any) -> tuple[str, ...] | None:
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
