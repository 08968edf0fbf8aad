"""torchvision's labelled data sets, by name."""

from __future__ import annotations

import inspect
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vizapp.errors import VizError, nearest
from vizapp.media.picture import Picture, open_picture
from vizapp.media.source import ImageRef, Source, classes_of
from vizapp.settings import settings

# Data sets with one picture and one class per item that can be downloaded without an account.
NAMES = (
    "CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST", "QMNIST", "USPS", "SVHN", "STL10", "Caltech101",
    "Caltech256", "Flowers102", "OxfordIIITPet", "Food101", "DTD", "EuroSAT", "GTSRB", "Country211", "FGVCAircraft",
    "RenderedSST2", "Imagenette",
)  # fmt: skip
# What torchvision raises for files that are missing, damaged or cannot be downloaded: RuntimeError where it checks them,
# the parsers' own errors where it does not. Only torchvision code runs where these are caught.
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

    def open(self, tick: Callable[[float], None] | None = None) -> Picture:
        """The picture."""
        try:
            image = _dataset(self.name, self.part, _root())[self.index][0]
        except (_UnavailableError, *_TORCHVISION_ERRORS) as error:
            raise VizError(
                f"Item {self.index} of {self.name} cannot be read: {_reason(error)}.", code="picture-damaged"
            ) from None
        if not isinstance(image, Image.Image):
            raise VizError(f"Item {self.index} of {self.name} is not an image.", code="not-a-picture")
        return open_picture(np.asarray(image.convert("RGB")), name=f"{self.name}-{self.index}.png")


@dataclass(frozen=True, eq=False)
class Dataset(Source):
    """A part of a data set of torchvision."""

    part: str

    def image_ref(self, index: int) -> ImageRef:
        """The data set and the number of the picture."""
        return Item(self.root.name, self.part, index)

    def path(self, index: int) -> str:
        """Split, class and number of the picture."""
        label = self.labels[index]
        return f"{self.part}/{label}/{index}" if label is not None else f"{self.part}/{index}"


def open_dataset(text: str) -> Dataset:
    """The data set `torchvision/NAME` or `torchvision/NAME:train`, downloaded into the cache folder if necessary.

    Raises:
        VizError: the data set or split does not exist, or it cannot be downloaded.
    """
    asked, name, part = _parse(text)
    if name is None:
        raise VizError(
            f"There is no data set {asked!r}.{nearest(asked, NAMES)} Available: {', '.join(NAMES)}.",
            code="no-such-dataset",
        )
    if part not in {"train", "test"}:
        raise VizError(f"{name} has no split {part!r}; use train or test.", code="no-such-split")
    try:
        found = _available(name, part)
    except _UnavailableError as error:
        raise VizError(
            f"The data set {name} is not in {_root()} and could not be downloaded ({error}).",
            code="dataset-unavailable",
        ) from None
    targets = _targets(found)
    given = getattr(found, "classes", None) or getattr(found, "categories", None) or ()
    names = [str(label[0] if isinstance(label, tuple) else label) for label in given]  # Imagenette's have synonyms
    known = [names[target] if 0 <= target < len(names) else str(target) for target in targets]
    labels = tuple(known) if known else (None,) * len(found)
    classes = tuple(names) or classes_of(known)
    return Dataset(Path("torchvision") / name, labels, classes, part)


def _parse(text: str) -> tuple[str, str | None, str]:
    """The name as given, the data set's name (None if unknown) and the split of `torchvision/NAME:SPLIT`."""
    asked, _, part = text.partition("/")[2].partition(":")
    name = {known.lower(): known for known in NAMES}.get(asked.strip().lower())
    return asked, name, part.strip().lower() or "test"


def _reason(error: BaseException) -> str:
    return ((str(error).strip().splitlines() or [""])[0] or type(error).__name__).rstrip(".")


def is_downloaded(text: str) -> bool:
    """Whether `open_dataset(text)` needs no download. True for invalid names."""
    _, name, part = _parse(text)
    if name is None or part not in {"train", "test"}:
        return True  # nothing to download: opening it reports the error
    try:
        _dataset(name, part, _root())
    except _UnavailableError:
        return False
    return True


def _targets(found: Any) -> list[int]:
    """The class index of each picture, if available without decoding; else an empty list."""
    kept = [getattr(found, name, None) for name in ("targets", "labels", "_labels", "y")]
    samples = getattr(found, "_samples", None)  # a path and a class each
    if samples is not None:
        kept.append([target for _, target in samples])
    for values in kept:
        if values is not None and len(values) == len(found):
            table = np.asarray(values)
            # QMNIST's are [N 8]: the class comes first, then data about the writer.
            return [int(value) for value in (table[:, 0] if table.ndim == 2 else table)]
    return []


def _root() -> Path:
    return settings().cache / "datasets"


@lru_cache(maxsize=2)
def _dataset(name: str, part: str, root: Path) -> Any:
    """The data set in the folder `root`, as torchvision returns it. Raises _UnavailableError."""
    return _construct(name, part, root, download=False)


def _available(name: str, part: str) -> Any:
    """The data set, downloaded if it is missing. Only `_dataset` caches it, so it is in memory once."""
    root = _root()
    try:
        return _dataset(name, part, root)
    except _UnavailableError:
        root.mkdir(parents=True, exist_ok=True)
        _construct(name, part, root, download=True)
    return _dataset(name, part, root)


def _construct(name: str, part: str, root: Path, download: bool) -> Any:
    """The data set from its constructor, which selects the part by an option `train` or `split`."""
    from torchvision import datasets  # takes 1 s and imports torch, which decoding processes do not need

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
