"""What a pass has seen so far, in a file that survives being killed at any moment and knows when it is damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from vizapp.engine.statistics.top_activations import State, empty_state
from vizapp.files import atomic_write, remove_leftovers

NAME, PREVIOUS = "checkpoint", "checkpoint.previous"
LEFTOVER = 3600.0  # seconds after which a half-written file belongs to no living process
_MAGIC = b"vizapp gallery checkpoint 1\n"


@dataclass(frozen=True)
class Checkpoint:
    """A pass after its first `batches` batches. `identity` says of what; `digest` is of the pictures seen (a sum, so
    that their order does not matter), `failed` the (number, sentence) of those that could not be read."""

    identity: dict[str, Any]
    batches: int
    state: State
    digest: int = 0
    failed: tuple[tuple[int, str], ...] = field(default=())


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Put the checkpoint into the folder; the one before is kept until the next one."""
    head = {
        "identity": checkpoint.identity,
        "batches": checkpoint.batches,
        "digest": f"{checkpoint.digest:064x}",
        "failed": checkpoint.failed,
    }
    body = json.dumps(head, sort_keys=True).encode() + b"\n" + save(checkpoint.state)
    content = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    folder.mkdir(parents=True, exist_ok=True)
    for name in (NAME, PREVIOUS):  # of ours alone; a folder in its place would be in the way for ever
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    with suppress(FileNotFoundError):
        (folder / NAME).replace(folder / PREVIOUS)
    atomic_write(folder / NAME, content, sync="folder")


def load_checkpoint(folder: Path) -> tuple[Checkpoint | None, str]:
    """The newest checkpoint that is whole, or None; and a sentence if one was found damaged."""
    told = ""
    for name in (NAME, PREVIOUS):
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:  # also where another process has just made it the one before
            continue
        except OSError:
            content = b""
        found = _read(content)
        if found is not None:
            return found, told and f"{told} the one before it was taken, {found.batches} batches into the pass."
        told = told or f"The checkpoint in {folder.name} was damaged;"
    return None, told and f"{told} the pass began anew."


def remove_checkpoints(folder: Path) -> None:
    """Remove them, after the work is done; and the folder, unless another process still writes into it."""
    for name in (NAME, PREVIOUS):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        with suppress(FileNotFoundError):
            (folder / name).unlink()
    remove_leftovers(folder, LEFTOVER)
    with suppress(OSError):
        folder.rmdir()


def _read(content: bytes) -> Checkpoint | None:
    """None where it is cut, altered, or of another version."""
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
        if not _is_state(state):
            return None
        return Checkpoint(head["identity"], head["batches"], state, int(head["digest"], 16), failed)
    except (RecursionError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _is_state(state: State) -> bool:
    """Whether the tensors are what a pass knows, by their names, shapes and types."""
    values = state.get("values")
    if values is None or values.dim() != 2 or not values.is_floating_point():
        return False
    blank = empty_state(values.shape[0], values.shape[1], values.dtype)
    return state.keys() == blank.keys() and all(
        state[name].shape == one.shape and state[name].dtype == one.dtype for name, one in blank.items()
    )
