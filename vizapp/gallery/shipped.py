"""Galleries that vizapp ships, so that the first visit shows one: built by `training/galleries.py`.

Their folders are named as in the cache, by everything that the numbers depend on: another network, other photos, layers or
options have another name.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from vizapp.settings import ASSETS

FOLDER = ASSETS / "galleries"


def copy_to(place: Path) -> None:
    """Copy the shipped gallery of that name, if there is one and nothing is at `place`, a folder of the cache."""
    if place.exists() or not (FOLDER / place.name).is_dir():
        return
    with suppress(OSError):  # without space for the copy it is built, which says so
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
            shutil.copytree(FOLDER / place.name, Path(temporary) / place.name, copy_function=shutil.copyfile)
            (Path(temporary) / place.name).rename(place)
