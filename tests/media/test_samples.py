"""The samples come from installed packages and need no network."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_image

from tests.errors import refuses
from vizapp.media import samples
from vizapp.media.samples import digit_pixels, open_sample, sample_kind, sample_names


def test_photos_and_digits_are_offered() -> None:
    names = sample_names()
    assert len(set(names)) == len(names)
    assert {"astronaut", "chelsea", "coffee", "rocket", "china", "flower"} <= set(names)
    assert [name for name in names if sample_kind(name) == "digit"] == [f"digit {digit}" for digit in range(10)]


@pytest.mark.parametrize("name", sample_names())
def test_every_sample_opens(name: str) -> None:
    picture = open_sample(name)
    assert min(picture.height, picture.width) >= 28
    assert picture.pixels.std() > 5
    assert picture.name.startswith(name + ".")


def test_the_china_photo_is_scikit_learns() -> None:
    assert np.array_equal(open_sample("china").pixels, load_sample_image("china.jpg"))


def test_digits_are_the_first_of_each_class_as_scikit_learn_loads_them() -> None:
    digits = load_digits()
    for digit in range(10):
        first = digits.images[digits.target == digit][0]
        assert np.array_equal(open_sample(f"digit {digit}").pixels, digit_pixels(first))


def test_digit_pixels_are_white_on_black_from_0_to_255() -> None:
    assert (digit_pixels(np.zeros((8, 8))) == 0).all()
    assert (digit_pixels(np.full((8, 8), 16.0)) == 255).all()
    assert (digit_pixels(np.full((8, 8), 8.0)) == 128).all()
    left = digit_pixels(np.repeat([[16.0] * 4 + [0.0] * 4], 8, axis=0))
    assert left.shape == (28, 28, 3)
    assert left.dtype == np.uint8
    assert (left[:, :10] > 240).all()
    assert (left[:, 18:] < 15).all()
    assert (left == left[:, :, :1]).all()
    with pytest.raises(ValueError, match="shape"):
        digit_pixels(np.zeros((28, 28)))


def test_digits_are_enlarged_by_cubic_convolution() -> None:
    row = np.random.default_rng(0).integers(0, 17, 8)
    centres = (np.arange(28)[:, None] + 0.5) * 8 / 28 - 0.5
    far = np.abs(centres - np.arange(8))
    near = far < 1  # Keys' kernel with a = -1/2, cut off at the border and made to sum to 1
    kernel = np.where(near, 1.5 * far**3 - 2.5 * far**2 + 1, -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2) * (far < 2)
    expected = np.clip((kernel / kernel.sum(1, keepdims=True)) @ np.rint(row * 255 / 16), 0, 255)
    assert np.abs(digit_pixels(np.tile(row, (8, 1)))[14, :, 0] - expected).max() <= 1  # Pillow rounds to bytes


def test_an_unknown_sample_is_answered_with_the_nearest() -> None:
    with refuses("no-such-sample", "Did you mean chelsea"):
        open_sample("chelsee")


def test_without_the_packages_there_is_none_and_a_sentence_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_file", samples._file.__wrapped__)  # it remembers what was installed
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    assert {sample_kind(name) for name in sample_names()} == {"shapes"}
    with refuses("no-such-sample", "scikit-image"):
        open_sample("chelsea")


def test_samples_import_none_of_the_heavy_packages() -> None:
    code = "import sys; from vizapp.media import samples as s; s.open_sample('chelsea'); s.open_sample('digit 3'); "
    code += "print(*[name for name in ('skimage', 'sklearn', 'torch', 'cv2') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
