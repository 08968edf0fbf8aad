"""Galleries and tables of photos that vizapp ships, so that the first visit shows them: built by `training/galleries.py`.

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
TABLES = ASSETS / "passes"


def copy_to(place: Path) -> None:
    """Copy what is shipped under that name, if anything, and nothing is at `place`, in `galleries` or `passes` of the cache."""
    found = ASSETS / place.parent.name / place.name
    if place.exists() or not found.is_dir():
        return
    with suppress(OSError):  # without space for the copy it is computed, which says so
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
            shutil.copytree(found, Path(temporary) / place.name, copy_function=shutil.copyfile)
            (Path(temporary) / place.name).rename(place)
