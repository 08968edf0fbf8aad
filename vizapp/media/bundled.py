"""Data sets that need no download: scikit-learn's digits, crops of the sample photos, the samples, and drawn shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vizapp.errors import VizError
from vizapp.media.picture import Picture, open_picture
from vizapp.media.samples import all_digits, digit_pixels, open_sample, sample_digest, sample_kind, sample_names
from vizapp.media.shapes import MORE_SHAPES, SHAPES, SIDE, draw_shapes
from vizapp.media.source import ImageRef, Source

PARTS = 2  # the side of a crop is the shorter side of the photo divided by this …
STEPS = 3  # … and crops start this fraction of a crop apart
_ALL_SHAPES, _DRAWN_FROM, _OF_EACH = (*SHAPES, *MORE_SHAPES), 3_000_000, 10  # the first seed, photos of each shape


@dataclass(frozen=True)
class Digit:
    """A digit of scikit-learn, by its index in the file."""

    index: int

    def open(self, tick: Callable[[float], None] | None = None) -> Picture:
        """The digit, enlarged as for `vizapp/lenet5-digits`."""
        values, labels = all_digits()
        return open_picture(digit_pixels(values[self.index]), name=f"{labels[self.index]}-{self.index:04d}.png")


@dataclass(frozen=True)
class Crop:
    """A square of a sample photo."""

    name: str
    top: int
    left: int
    side: int

    def open(self, tick: Callable[[float], None] | None = None) -> Picture:
        """The pixels of the square."""
        pixels = _sample(self.name).pixels[self.top : self.top + self.side, self.left : self.left + self.side]
        return open_picture(pixels, name=f"{self.name}-{self.top}-{self.left}.png")


@dataclass(frozen=True)
class Sample:
    """A sample photo as it is."""

    name: str

    def open(self, tick: Callable[[float], None] | None = None) -> Picture:
        """The whole photo."""
        return _sample(self.name)


@dataclass(frozen=True)
class Drawn:
    """A drawn photo of one shape."""

    kind: int
    number: int

    def open(self, tick: Callable[[float], None] | None = None) -> Picture:
        """The photo."""
        drawn = draw_shapes(_DRAWN_FROM + self.kind + len(_ALL_SHAPES) * self.number, SIDE, 1, _ALL_SHAPES, self.kind)
        return open_picture(drawn.pixels, name=f"{_ALL_SHAPES[self.kind]}-{self.number:02d}.png")


@dataclass(frozen=True, eq=False)
class Bundled(Source):
    """Bundled pictures: a reference and a path for each."""

    refs: tuple[ImageRef, ...]
    names: tuple[str, ...]

    def image_ref(self, index: int) -> ImageRef:
        """The number of the digit, or the photo and the square."""
        return self.refs[index]

    def path(self, index: int) -> str:
        """Class and number of the digit, or the photo and the position of the crop."""
        return self.names[index]

    def stamp(self, index: int) -> str:
        """The digest of the photo's file: another version of the package may have another."""
        ref = self.refs[index]
        return sample_digest(ref.name) if isinstance(ref, Crop | Sample) else ""


def open_digits() -> Bundled:
    """scikit-learn's 1,797 digits, in the order of its file. Raises VizError where scikit-learn is not installed."""
    labels = tuple(map(str, all_digits()[1]))
    names = tuple(f"{label}/{index:04d}.png" for index, label in enumerate(labels))
    return Bundled(Path("digits"), labels, tuple(map(str, range(10))), tuple(map(Digit, range(len(labels)))), names)


def open_shapes() -> Bundled:
    """80 drawn photos of one shape each. The class is the shape."""
    refs = [Drawn(kind, number) for kind in range(len(_ALL_SHAPES)) for number in range(_OF_EACH)]
    labels = tuple(_ALL_SHAPES[ref.kind] for ref in refs)
    names = tuple(f"{_ALL_SHAPES[ref.kind]}/{ref.number:02d}.png" for ref in refs)
    return Bundled(Path("shapes"), labels, _ALL_SHAPES, tuple(refs), names)


def open_samples() -> Bundled:
    """The sample photos as they are."""
    names = tuple(name for name in sample_names() if sample_kind(name) == "photo")
    return Bundled(Path("sample photos"), (None,) * len(names), (), tuple(map(Sample, names)), names)


def open_crops() -> Bundled:
    """Overlapping square crops of the sample photos, half their shorter side wide. The class is the photo."""
    crops: list[Crop] = []
    for name in sample_names():
        if sample_kind(name) == "photo":
            photo = _sample(name)
            side = min(photo.height, photo.width) // PARTS
            tops, lefts = (range(0, length - side + 1, max(1, side // STEPS)) for length in (photo.height, photo.width))
            crops += [Crop(name, top, left, side) for top in tops for left in lefts]
    if not crops:
        raise VizError(
            "The samples come with the packages scikit-image and scikit-learn: install them.", code="not-installed"
        )
    labels = tuple(crop.name for crop in crops)
    names = tuple(f"{crop.name}/{crop.top}-{crop.left}.png" for crop in crops)
    return Bundled(Path("samples"), labels, tuple(dict.fromkeys(labels)), tuple(crops), names)


@cache
def _sample(name: str) -> Picture:
    return open_sample(name)
