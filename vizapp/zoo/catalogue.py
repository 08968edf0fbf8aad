"""What is known of all networks without building them, kept in the cache folder.

Asking torchvision and timm takes two seconds, most of it to import what is never used; a list of names does not change
until one of the packages does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

from vizapp.files import atomic_write
from vizapp.settings import settings
from vizapp.zoo.recipe import Card

_ROOT = Path(__file__).resolve().parents[2]


def catalogue(ask: Callable[[], dict[str, Card]]) -> dict[str, Card]:
    """The cards of all networks by name: from the cache folder where they are of today's packages, else by `ask()`.

    A file that is damaged, or a folder that cannot be written, costs time and nothing else.
    """
    path = settings().cache / "networks.json"
    stamp = _stamp()
    kept = _read(path, stamp)
    if kept is None:
        kept = ask()
        content = {"stamp": stamp, "cards": [dataclasses.asdict(card) for card in kept.values()]}
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(content).encode())
    return kept


def _stamp() -> str:
    """Changes with the packages that have networks, and with our own networks and their assets."""
    told = hashlib.sha256()
    for package in ("torch", "torchvision", "timm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            told.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    for path in sorted([*Path(__file__).parent.rglob("*.py"), *(_ROOT / "assets").glob("*")]):
        status = path.stat()
        told.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return told.hexdigest()


def _read(path: Path, stamp: str) -> dict[str, Card] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["stamp"] != stamp:
            return None
        cards = [Card(**card | {"input_size": tuple(card["input_size"])}) for card in found["cards"]]
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return {card.name: card for card in cards} or None
