"""The checkpoints of one training run in a folder: their order, and the network with the weights of each."""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vizapp.errors import VizError, plain_name, quoted, showable
from vizapp.files import local_path, natural_key
from vizapp.settings import ASSETS
from vizapp.zoo.checkpoints import KeyMismatch, build_with_state, read_checkpoint
from vizapp.zoo.network import Network
from vizapp.zoo.pickled import SUFFIXES
from vizapp.zoo.recipe import Recipe
from vizapp.zoo.registry import find_recipe

Tick = Callable[[float], None]
_INSIDE = (
    "model.safetensors",
    "pytorch_model.bin",
)  # in a sub-folder of Hugging Face's Trainer; the first counts
_EPOCH = re.compile(r"(?<![a-z])ep(?:och)?s?[-_=. ]*([0-9]{1,9})(?![0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Series:
    """Checkpoints of one training run, in the order of the run.

    `epochs`: the epoch of each, which rises; two files may have the same. `timing`: where the epochs come from, in words.
    `skipped`: names of other files in the folder.
    """

    folder: Path
    files: tuple[Path, ...]
    epochs: tuple[int, ...]
    timing: str
    skipped: tuple[str, ...] = ()

    @property
    def doubled(self) -> str:
        """A sentence about epochs that several files have; empty if there are none."""
        twice = [epoch for epoch, count in Counter(self.epochs).items() if count > 1]
        if not twice:
            return ""
        names = " and ".join(
            checkpoint_name(f) for f, epoch in zip(self.files, self.epochs, strict=True) if epoch == twice[0]
        )
        more = f", and {len(twice) - 1} more epochs have several files" if len(twice) > 1 else ""
        return f"{names} are of the same epoch, {twice[0]}{more}; each is shown."


def bundled_series(network: str) -> Path | None:
    """The folder with the checkpoints of a bundled network's own training, which vizapp ships; None if there is none."""
    folder = ASSETS / f"{network.removeprefix('vizapp/')}-training"
    return folder if network.startswith("vizapp/") and folder.is_dir() else None


def open_series(folder: str | Path, tick: Tick | None = None) -> Series:
    """The checkpoints in a folder, and in its sub-folders as Hugging Face writes them (`checkpoint-500/model.safetensors`).

    The epoch of a file is in its name (`epoch-012.pt`, `ep=3.ckpt`), or else stored in it as `epoch` beside the weights. Where
    one has none, all files are taken in the natural order of their names, and the epochs are 1, 2, 3 ….

    Raises:
        VizError: there is no such folder, or it holds no checkpoints.
    """
    place = local_path(folder, "folder of checkpoints")
    try:
        entries = sorted((path for path in place.iterdir() if not path.name.startswith(".")), key=_natural)
        found = [_checkpoint_at(path) for path in entries]
        files = [path for path in found if path is not None]
    except OSError as error:
        what = "is a file" if place.is_file() else "does not exist" if not place.exists() else str(error.strerror)
        raise VizError(
            f"{quoted(showable(str(folder)))} {what}; give a folder with the checkpoints of one training run.",
            code="no-such-folder",
        ) from None
    if not files:
        count = f"none of its {len(entries)} files is one" if entries else "it is empty"
        raise VizError(
            f"There are no checkpoints in {quoted(showable(place.name))}: {count}. A checkpoint ends in {', '.join(SUFFIXES)}.",
            code="no-checkpoints",
        )
    skipped = tuple(plain_name(path.name) for path, file in zip(entries, found, strict=True) if file is None)
    epochs, timing = _epochs(files, tick)
    order = sorted(
        range(len(files)), key=lambda number: epochs[number]
    )  # stable: equal epochs keep their natural order
    chosen, times = tuple(files[n] for n in order), tuple(epochs[n] for n in order)
    return Series(place, chosen, times, timing, skipped)


def checkpoint_name(file: Path) -> str:
    """The name to show of a checkpoint: that of its sub-folder, where it is in one as Hugging Face writes them."""
    return plain_name(file.parent.name if file.name in _INSIDE else file.name)


def _checkpoint_at(path: Path) -> Path | None:
    """The checkpoint that an entry of the folder is or holds; None if there is none."""
    if path.is_dir():
        return next((path / name for name in _INSIDE if (path / name).is_file()), None)
    return path if path.suffix.lower() in SUFFIXES and path.is_file() else None


def _natural(path: Path) -> tuple[object, ...]:
    return natural_key(path.name)


def _epochs(files: Sequence[Path], tick: Tick | None) -> tuple[list[int], str]:
    """The epoch of each file, and where it comes from."""
    named = [_EPOCH.search(checkpoint_name(path)) for path in files]
    if all(named):
        return [int(found[1]) for found in named if found], "Epochs are those in the names of the files."
    found: list[int] = []
    for number, (path, match) in enumerate(zip(files, named, strict=True)):
        if tick is not None:
            tick(number / len(files))
        epoch = int(match[1]) if match else None
        with suppress(VizError):  # told when its turn comes
            epoch = read_checkpoint(path, tick).epoch if epoch is None else epoch
        if epoch is None:
            return list(range(1, len(files) + 1)), (
                f"{checkpoint_name(path)} has no epoch in its name or beside its weights, so the checkpoints are numbered in "
                "the natural order of their names."
            )
        found.append(epoch)
    return found, "Epochs are those stored in the files, or in their names."


def at_checkpoint(network: Network, file: Path, tick: Tick | None = None) -> Network:
    """The network with the weights of a checkpoint in place of its own: same preprocessing, classes and interventions.

    Raises:
        VizError: the file cannot be read, or is of another network (code "checkpoint-mismatch").
    """
    clean = network.clean
    checkpoint = read_checkpoint(file, tick)
    recipe = Recipe(clean.name, lambda classes: copy.deepcopy(clean.module), clean.preprocessing, clean.categories)
    with suppress(VizError):  # a network of the user's own
        known = find_recipe(clean.name)
        recipe = replace(recipe, rename=known.rename, training_only=known.training_only)
    weights = checkpoint_name(file)
    try:
        module, _ = build_with_state(recipe, checkpoint, len(clean.categories) or None)
    except KeyMismatch as error:
        raise VizError(
            f"{quoted(weights)} belongs to another network than {clean.name}: {error.first}.", code=error.code
        ) from None
    filled = replace(clean, module=module, weights=weights, facts=clean.facts | {"weights": weights})
    if network is clean:
        return filled
    changed = copy.deepcopy(network.module)  # with its interventions, whose values stay those of the network
    changed.load_state_dict(module.state_dict())
    digest = hashlib.sha256(f"{network.digest} {filled.digest}".encode()).hexdigest()
    return replace(
        network, module=changed, unchanged=filled, weights=weights, derived_digest=f"{digest}-{filled.digest}"
    )
