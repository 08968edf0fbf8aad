"""Trained networks and photos that are not part of the project, in the folder `VIZAPP_SHARED` or next to the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(os.environ.get("VIZAPP_SHARED") or Path(__file__).resolve().parents[3] / "shared")


def shared(path: str) -> Path:
    """The file or folder; the test is skipped where it is absent."""
    found = _ROOT / path
    if not found.exists():
        pytest.skip(f"{path} is not on this machine (VIZAPP_SHARED)")
    return found
