"""torchvision's data sets by name, as collections of pictures with their classes."""

from __future__ import annotations

import inspect
import pickle
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vizapp.errors import VizError, nearest
from vizapp.files import natural_key
from vizapp.media.picture import Picture, open_picture
from vizapp.media.source import ImageRef, Source
from vizapp.settings import settings

# Data sets of one picture and one class per item that can be downloaded without an account.
NAMES = (
    "CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST", "QMNIST", "USPS", "SVHN", "STL10", "Caltech101",
    "Caltech256", "Flowers102", "OxfordIIITPet", "Food101", "DTD", "EuroSAT", "GTSRB", "Country211", "FGVCAircraft",
    "RenderedSST2", "Imagenette",
)  # fmt: skip
# What torchvision raises for files that are missing, cannot be downloaded, or are damaged: it says RuntimeError where it
# checks them, and passes on the errors of the parsers where it does not. Nothing but torchvision runs where it is caught.
_TORCHVISION_ERRORS = (
    OSError, RuntimeError, ValueError, ImportError, EOFError, LookupError, struct.error, zlib.error, pickle.UnpicklingError,
    tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip


class _UnavailableError(Exception):
    """The data set is not on this machine, or is damaged; the text is torchvision's reason."""


@dataclass(frozen=True)
class Item:
    """One picture of a data set."""

    name: str
    part: str
    index: int

    def open(self) -> Picture:
        """The picture."""
        try:
            image = _item(_dataset(self.name, self.part, _root()), self.index)
        except _UnavailableError as error:
            raise VizError(
                f"Item {self.index} of {self.name} cannot be read: {error}.", code="picture-damaged"
            ) from None
        if not isinstance(image, Image.Image):
            raise VizError(f"Item {self.index} of {self.name} is not a picture.", code="not-a-picture")
        return open_picture(np.asarray(image.convert("RGB")), name=f"{self.name}-{self.index}.png")


@dataclass(frozen=True, eq=False)
class Dataset(Source):
    """A part of a data set of torchvision."""

    part: str

    def image_ref(self, index: int) -> ImageRef:
        """The data set's name and the picture's number."""
        return Item(self.root.name, self.part, index)

    def path(self, index: int) -> str:
        """The picture's number, under its class."""
        label = self.labels[index]
        return f"{self.part}/{label}/{index}" if label is not None else f"{self.part}/{index}"


def open_dataset(text: str) -> Dataset:
    """The data set `torchvision/NAME` or `torchvision/NAME:train`, downloaded into the cache folder if need be.

    Raises:
        VizError: there is none of that name, or it is not there and cannot be downloaded.
    """
    asked, _, part = text.partition("/")[2].partition(":")
    name = {known.lower(): known for known in NAMES}.get(asked.strip().lower())
    if name is None:
        raise VizError(
            f"There is no data set {asked!r}.{nearest(asked, NAMES)} Known are: {', '.join(NAMES)}.",
            code="no-such-dataset",
        )
    part = part.strip().lower() or "test"
    if part not in {"train", "test"}:
        raise VizError(f"{name} was asked for its part {part!r}; it must be train or test.", code="no-such-split")
    try:
        found = _available(name, part)
    except _UnavailableError as error:
        raise VizError(
            f"The data set {name} is not in {_root()} and could not be downloaded ({error}); put it there, or give a folder "
            "of pictures.",
            code="dataset-unavailable",
        ) from None
    targets = _targets(found)
    given = getattr(found, "classes", None) or getattr(found, "categories", None) or ()
    names = [str(label[0] if isinstance(label, tuple) else label) for label in given]  # Imagenette's have synonyms
    known = [names[target] if 0 <= target < len(names) else str(target) for target in targets]
    labels = tuple(known) if known else (None,) * len(found)
    classes = tuple(names) if names else tuple(sorted(set(known), key=natural_key))
    return Dataset(Path("torchvision") / name, labels, classes, part)


def _reason(error: BaseException) -> str:
    return ((str(error).strip().splitlines() or [""])[0] or type(error).__name__).rstrip(".")


def is_downloaded(text: str) -> bool:
    """Whether the data set that `open_dataset` takes can be opened without downloading anything; true of wrong names."""
    asked, _, part = text.partition("/")[2].partition(":")
    name = {known.lower(): known for known in NAMES}.get(asked.strip().lower())
    part = part.strip().lower() or "test"
    if name is None or part not in {"train", "test"}:
        return True  # there is nothing to download either: opening it tells what is wrong
    try:
        _dataset(name, part, _root())
    except _UnavailableError:
        return False
    return True


def _item(found: Any, index: int) -> Any:
    try:
        return found[index][0]
    except _TORCHVISION_ERRORS as error:
        raise _UnavailableError(_reason(error)) from error


def _targets(found: Any) -> list[int]:
    """The class of each picture, where the data set knows them without decoding."""
    kept = [getattr(found, name, None) for name in ("targets", "labels", "_labels", "y")]
    samples = getattr(found, "_samples", None)  # a path and a class each
    if samples is not None:
        kept.append([target for _, target in samples])
    for values in kept:
        if values is not None and len(values) == len(found):
            table = np.asarray(values)
            # QMNIST's are [N 8]: what is known of the writer stands behind the class.
            return [int(value) for value in (table[:, 0] if table.ndim == 2 else table)]
    return []


def _root() -> Path:
    return settings().cache / "datasets"


@lru_cache(maxsize=2)
def _dataset(name: str, part: str, root: Path) -> Any:
    """The data set in the folder `root`, as torchvision returns it. Raises _UnavailableError."""
    return _construct(name, part, root, download=False)


def _available(name: str, part: str) -> Any:
    """The data set, downloaded if it is not there. It is kept in memory once, whether it was downloaded or not."""
    root = _root()
    try:
        return _dataset(name, part, root)
    except _UnavailableError:
        root.mkdir(parents=True, exist_ok=True)
        _construct(name, part, root, download=True)
    return _dataset(name, part, root)


def _construct(name: str, part: str, root: Path, download: bool) -> Any:
    """The data set from its constructor, which selects the part by an option `train` or `split`."""
    from torchvision import datasets  # 1 s, and torch, which the decoding processes do not need

    make = getattr(datasets, name)
    takes = inspect.signature(make).parameters
    options: dict[str, Any] = {}
    if "train" in takes:
        options["train"] = part == "train"
    elif "split" in takes:
        options["split"] = _split(name, part)
    try:
        return make(str(root), download=download, **options)
    except _TORCHVISION_ERRORS as error:
        raise _UnavailableError(_reason(error)) from error


def _split(name: str, part: str) -> str:
    other = {"OxfordIIITPet": ("trainval", "test"), "Imagenette": ("train", "val")}
    return other.get(name, ("train", "test"))[part == "test"]
