"""The cached list of networks: collected once, again when a package changes, never read half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vizapp.zoo import catalogue as module
from vizapp.zoo import describe, describe_all, list_networks
from vizapp.zoo.catalogue import catalogue
from vizapp.zoo.recipe import Card

CARDS = {
    "vizapp/a": Card("vizapp/a", 5, 91.5, 0.1, (3, 32, 32), True),
    "timm/b": Card("timm/b", None, None, None, (1, 8, 9), False),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ask(asked: list[int]) -> dict[str, Card]:
    asked.append(1)
    return dict(CARDS)


def test_networks_are_asked_once_and_come_back_equal(cache: Path) -> None:
    asked: list[int] = []
    for _ in range(3):
        assert catalogue(lambda: ask(asked)) == CARDS
    assert len(asked) == 1
    assert [path.name for path in cache.iterdir()] == ["networks.json"]


def test_another_package_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    catalogue(lambda: ask(asked))
    version = module.importlib.metadata.version
    monkeypatch.setattr(
        module.importlib.metadata, "version", lambda name: "99" if name == "torchvision" else version(name)
    )
    catalogue(lambda: ask(asked))
    assert len(asked) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "binary", "list", "no cards", "wrong card"])
def test_a_damaged_file_is_asked_anew_and_replaced(cache: Path, damage: str) -> None:
    asked: list[int] = []
    catalogue(lambda: ask(asked))
    file = cache / "networks.json"
    whole = json.loads(file.read_text())
    file.write_bytes(
        {
            "cut": file.read_bytes()[:-20],
            "empty": b"",
            "binary": b"\xff\x00" * 50,
            "list": b"[1]",
            "no cards": json.dumps({"stamp": whole["stamp"], "cards": []}).encode(),
            "wrong card": json.dumps({"stamp": whole["stamp"], "cards": [{"name": 3}]}).encode(),
        }[damage]
    )
    assert catalogue(lambda: ask(asked)) == CARDS
    assert len(asked) == 2
    assert json.loads(file.read_text()) == whole


def test_a_folder_that_cannot_be_written_costs_only_time(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert catalogue(lambda: dict(CARDS)) == CARDS
    assert cache.read_text() == "a file where the folder should be"


def test_it_tells_of_each_network_what_is_told_of_it_alone() -> None:
    cards = describe_all()
    assert list(cards) == list_networks()
    for name in ("vizapp/zfnet", "torchvision/resnet50"):
        assert cards[name] == describe(name)
