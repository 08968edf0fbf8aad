"""Checkpoints of a pass: written atomically, with a checksum to detect damage. The rows are in files of their own."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from vizapp.engine.statistics.top_activations import State, empty_state
from vizapp.files import atomic_write, read_file, remove_leftovers
from vizapp.gallery.row_parts import PATTERN, Part, read_parts

NAME, PREVIOUS = "checkpoint", "checkpoint.previous"
LEFTOVER = 3600.0  # seconds after which a partial file counts as abandoned
_EARLIER = b"vizapp gallery checkpoint 1\n"  # by a version that could miss top pictures
_MAGIC = b"vizapp gallery checkpoint 2\n"


@dataclass(frozen=True)
class Checkpoint:
    """A pass after its first `batches` batches. `identity`: what it depends on. `digest`: order-independent sum over the
    pictures. `failed`: number and error message of each unreadable picture. `parts`: the files with its rows."""

    identity: dict[str, Any]
    batches: int
    state: State
    digest: int = 0
    failed: tuple[tuple[int, str], ...] = field(default=())
    parts: tuple[Part, ...] = field(default=())


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint and keep the previous one."""
    head = {
        "identity": checkpoint.identity,
        "batches": checkpoint.batches,
        "digest": f"{checkpoint.digest:064x}",
        "failed": checkpoint.failed,
        "parts": checkpoint.parts,
    }
    body = json.dumps(head, sort_keys=True).encode() + b"\n" + save(checkpoint.state)
    content = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    folder.mkdir(parents=True, exist_ok=True)
    for name in (NAME, PREVIOUS):  # a folder of that name would block all writes
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    with suppress(FileNotFoundError):
        (folder / NAME).replace(folder / PREVIOUS)
    atomic_write(folder / NAME, content, sync="folder")


def load_checkpoint(folder: Path) -> tuple[Checkpoint | None, str]:
    """The newest valid checkpoint or None, and a message if a damaged or outdated one was found."""
    told = ""
    for name in (NAME, PREVIOUS):
        try:
            content = read_file(folder / name)
        except FileNotFoundError:  # or another process has just renamed it
            continue
        except OSError:
            content = b""
        found = _read(content, folder)
        if found is not None:
            return found, told and f"{told} the one before it was taken, {found.batches} batches into the pass."
        what = "made by an earlier version" if content.startswith(_EARLIER) else "damaged"
        told = told or f"The checkpoint in {folder.name} was {what};"
    return None, told and f"{told} the pass began anew."


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints, and the folder unless another process still writes to it."""
    for name in (NAME, PREVIOUS):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        with suppress(FileNotFoundError):
            (folder / name).unlink()
    for path in folder.glob(PATTERN):
        path.unlink(missing_ok=True)
    remove_leftovers(folder, LEFTOVER)
    with suppress(OSError):
        folder.rmdir()


def _read(content: bytes, folder: Path) -> Checkpoint | None:
    """None if it, or a part of its rows, is missing, truncated, altered or of another version."""
    try:
        if not content.startswith(_MAGIC):
            return None
        digest, _, body = content[len(_MAGIC) :].partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            return None
        line, _, tensors = body.partition(b"\n")
        head = json.loads(line)
        if not isinstance(head, dict) or not isinstance(head["identity"], dict) or not isinstance(head["batches"], int):
            return None
        failed, state = tuple((int(number), str(text)) for number, text in head["failed"]), load(tensors)
        parts = tuple((_own_name(name), str(digest)) for name, digest in head.get("parts", ()))
        if not _is_state(state):
            return None
        for _ in read_parts(folder, parts):
            pass  # checked one by one
        return Checkpoint(head["identity"], head["batches"], state, int(head["digest"], 16), failed, parts)
    except (RecursionError, OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _own_name(name: object) -> str:
    """The name of a file in the folder of the checkpoint. Raises ValueError for others."""
    if not isinstance(name, str) or not fnmatch(name, PATTERN) or "/" in name:
        raise ValueError("it names other files")
    return name


def _is_state(state: State) -> bool:
    """Whether the tensors have the names, shapes and types of a pass's state."""
    values = state.get("values")
    if not state:  # all that it collects is in its rows
        return True
    if values is None or values.dim() != 2 or not values.is_floating_point():
        return False
    blank = empty_state(values.shape[0], values.shape[1], values.dtype)
    return state.keys() == blank.keys() and all(
        state[name].shape == one.shape and state[name].dtype == one.dtype for name, one in blank.items()
    )
