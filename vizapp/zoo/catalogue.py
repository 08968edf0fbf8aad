"""The cards of all networks, cached on disk.

Collecting them from torchvision and timm takes two seconds, mostly imports. They change only with these packages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

from vizapp.files import atomic_write, read_file
from vizapp.settings import ASSETS, settings
from vizapp.zoo.recipe import Card


def catalogue(ask: Callable[[], dict[str, Card]]) -> dict[str, Card]:
    """The cards of all networks by name: from the cache if the packages are unchanged, else from `ask()`.

    A damaged file or a read-only folder only costs time.
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
    """A digest that changes with torch, torchvision, timm, vizapp's own networks and the assets."""
    told = hashlib.sha256()
    for package in ("torch", "torchvision", "timm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            told.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    for path in sorted([*Path(__file__).parent.rglob("*.py"), *ASSETS.glob("*")]):
        status = path.stat()
        told.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return told.hexdigest()


def _read(path: Path, stamp: str) -> dict[str, Card] | None:
    try:
        found = json.loads(read_file(path))
        if found["stamp"] != stamp:
            return None
        cards = [Card(**card | {"input_size": tuple(card["input_size"])}) for card in found["cards"]]
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return {card.name: card for card in cards} or None
