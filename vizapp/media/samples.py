"""Sample pictures: photos and digits from the packages scikit-image and scikit-learn, and drawn shapes, without a download."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from vizapp.errors import VizError, nearest
from vizapp.media.picture import Picture, open_picture
from vizapp.media.shapes import draw_shapes

# Package and file of each photo. The files are read directly: importing the packages takes seconds, and some of their
# functions download missing files.
_PHOTOS = {
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "camera": ("skimage", "data/camera.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "coins": ("skimage", "data/coins.png"),
    "moon": ("skimage", "data/moon.png"),
    "hubble deep field": ("skimage", "data/hubble_deep_field.jpg"),
    "retina": ("skimage", "data/retina.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
    "cell": ("skimage", "data/cell.png"),
    "brick": ("skimage", "data/brick.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "page": ("skimage", "data/page.png"),
}
OBJECTS = ("chelsea", "coffee", "camera", "motorcycle", "china", "rocket", "flower")  # the default network names them
_DIGITS = ("sklearn", "datasets/data/digits.csv.gz")
# Seed and largest number of shapes of each drawn sample. No network was trained on these seeds.
_SEEDS = ((8, 4), (10, 4), (16, 4), (37, 4), (24, 4), (7, 1), (2, 1), (11, 1))
_DRAWN = {f"shapes {number}": (2_000_000 + seed, most) for number, (seed, most) in enumerate(_SEEDS, 1)}
_DRAWN_SIDE = 288
_DIGIT_SIDE, _DIGIT_WHITE, _ENLARGED_SIDE = 8, 16, 28


def sample_names() -> list[str]:
    """The names that `open_sample` takes, the most interesting first; without the packages those of drawn shapes alone."""
    photos = [name for name, place in _PHOTOS.items() if _file(*place)]
    return [*photos, *([f"digit {digit}" for digit in range(10)] if _file(*_DIGITS) else []), *_DRAWN]


def sample_kind(name: str) -> str:
    """What a sample is: "digit", "shapes" or "photo"."""
    kind = name.partition(" ")[0]
    return kind if kind in ("digit", "shapes") else "photo"


def open_sample(name: str) -> Picture:
    """The sample of that name.

    Raises:
        VizError: there is none; the message suggests similar names.
    """
    names = sample_names()
    if name not in names:
        photos = any(sample_kind(one) == "photo" for one in names)
        install = "" if photos else " The photos come with the packages scikit-image and scikit-learn: install them."
        raise VizError(f"There is no sample photo {name!r}.{nearest(name, names)}{install}", code="no-such-sample")
    if name in _PHOTOS:
        return open_picture(_file(*_PHOTOS[name]) or "", name=f"{name}{Path(_PHOTOS[name][1]).suffix}")
    if name in _DRAWN:
        seed, most = _DRAWN[name]
        return open_picture(draw_shapes(seed, _DRAWN_SIDE, most).pixels, name=f"{name}.png")
    values, digits = all_digits()
    first = int(np.argmax(digits == int(name[-1])))
    return open_picture(digit_pixels(values[first]), name=f"{name}.png")


@cache
def sample_digest(name: str) -> str:
    """A digest (sha256 hex) of the file of a sample photo."""
    place = _file(*_PHOTOS[name])
    return hashlib.sha256(place.read_bytes() if place else b"").hexdigest()


def digit_pixels(image: np.ndarray) -> np.ndarray:
    """One of scikit-learn's digits (`[8 8]`, 0 to 16) enlarged to uint8 `[28 28 3]`, white on black.

    The bundled LeNet-5 was trained on digits that were enlarged by this function.
    """
    if image.shape != (_DIGIT_SIDE, _DIGIT_SIDE):
        raise ValueError(f"a digit has shape [{_DIGIT_SIDE} {_DIGIT_SIDE}], not {list(image.shape)}")
    grey = np.clip(np.rint(image * (255 / _DIGIT_WHITE)), 0, 255).astype(np.uint8)
    large = Image.fromarray(grey).resize((_ENLARGED_SIDE, _ENLARGED_SIDE), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(large)[:, :, None], 3, axis=2)


@cache
def _file(package: str, path: str) -> Path | None:
    spec = find_spec(package)  # does not import the package
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    return None


@cache
def all_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: values `[1797 8 8]` from 0 to 16, and the digits `[1797]`.

    Raises:
        VizError: scikit-learn is not installed.
    """
    path = _file(*_DIGITS)
    if path is None:
        raise VizError("The digits come with the package scikit-learn: install it.", code="not-installed")
    with gzip.open(path, "rt", encoding="ascii") as lines:
        rows = np.loadtxt(lines, delimiter=",", dtype=np.float64)
    return rows[:, :-1].reshape(-1, _DIGIT_SIDE, _DIGIT_SIDE), rows[:, -1].astype(np.int64)
