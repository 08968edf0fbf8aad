"""A small network, a folder of pictures with ties and damaged files, and separate caches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vizapp
from tests.media.files import noise, saved
from tests.networks import Branching, seeded
from vizapp.zoo.network import Network

SIZE = (3, 20, 24)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VIZAPP_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def network() -> Network:
    """Functional and in-place rectifiers, a reused module, a concatenation, a residual sum, a head."""
    return vizapp.wrap(seeded(Branching()), input_size=SIZE, name="branching")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 files in three classes: every fourth a copy of the one before, three that are no pictures."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(70):
        pixels = noise(SIZE[1] + 4, SIZE[2] + 4, number - (number % 4 == 1))
        if number % 10 == 0:
            pixels = np.full_like(pixels, 128)
        content = b"\x89PNG\r\n\x1a\nbroken" if number in (5, 33, 69) else saved(pixels)
        place = root / ("cat", "dog", "owl")[number * 3 // 70] / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
    return root
