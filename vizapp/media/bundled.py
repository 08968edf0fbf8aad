"""Collections of pictures that are there at once: scikit-learn's digits, and the sample photos cut into crops."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from vizapp.errors import VizError
from vizapp.media.picture import Picture, open_picture
from vizapp.media.samples import digit_pixels, digits_file, open_sample, sample_names
from vizapp.media.source import ImageRef, Source

PARTS = 2  # a crop's side is this part of the photo's shorter side …
STEPS = 3  # … and this many crops begin within a side


@dataclass(frozen=True)
class Digit:
    """One of the digits of scikit-learn, by its place in the file."""

    index: int

    def open(self) -> Picture:
        """The digit, enlarged as for `vizapp/lenet5-digits`."""
        values, labels = all_digits()
        return open_picture(digit_pixels(values[self.index]), name=f"{labels[self.index]}-{self.index:04d}.png")


@dataclass(frozen=True, eq=False)
class Digits(Source):
    """All 1,797 digits of scikit-learn, in the order of its file, with their ten classes."""

    def image_ref(self, index: int) -> ImageRef:
        """The digit's number."""
        return Digit(index)

    def path(self, index: int) -> str:
        """The digit and its number."""
        return f"{self.labels[index]}/{index:04d}.png"


@dataclass(frozen=True)
class Crop:
    """A square of a sample photo."""

    name: str
    top: int
    left: int
    side: int

    def open(self) -> Picture:
        """The square's pixels."""
        pixels = _sample(self.name).pixels[self.top : self.top + self.side, self.left : self.left + self.side]
        return open_picture(pixels, name=f"{self.name}-{self.top}-{self.left}.png")


@dataclass(frozen=True, eq=False)
class Crops(Source):
    """The sample photos cut into overlapping squares; the photo is the class."""

    crops: tuple[Crop, ...]

    def image_ref(self, index: int) -> ImageRef:
        """The photo and the square."""
        return self.crops[index]

    def path(self, index: int) -> str:
        """The photo and where the square lies in it."""
        crop = self.crops[index]
        return f"{crop.name}/{crop.top}-{crop.left}.png"


def open_digits() -> Digits:
    """scikit-learn's digits. Raises VizError where scikit-learn is not installed."""
    labels = tuple(map(str, all_digits()[1]))
    return Digits(Path("digits"), labels, tuple(map(str, range(10))))


def open_crops() -> Crops:
    """The sample photos in crops of half their shorter side, a third of a crop apart."""
    crops: list[Crop] = []
    for name in sample_names():
        if not name.startswith("digit "):
            photo = _sample(name)
            side = min(photo.height, photo.width) // PARTS
            tops, lefts = (range(0, length - side + 1, max(1, side // STEPS)) for length in (photo.height, photo.width))
            crops += [Crop(name, top, left, side) for top in tops for left in lefts]
    if not crops:
        raise VizError(
            "The samples come with the packages scikit-image and scikit-learn: install them.", code="not-installed"
        )
    labels = tuple(crop.name for crop in crops)
    return Crops(Path("samples"), labels, tuple(dict.fromkeys(labels)), tuple(crops))


@cache
def all_digits() -> tuple[np.ndarray, np.ndarray]:
    """Values `[1797 8 8]`, 0 to 16, and the digits `[1797]`."""
    with gzip.open(digits_file(), "rt", encoding="ascii") as lines:
        rows = np.loadtxt(lines, delimiter=",", dtype=np.float64)
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


@cache
def _sample(name: str) -> Picture:
    return open_sample(name)
