"""A file that took too long to decode is refused at once the next time, in this process and in others."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.errors import refuses
from tests.media.files import noise, saved
from vizapp.media import decoding, refusals
from vizapp.media.picture import open_picture
from vizapp.media.process import Exceeded
from vizapp.settings import settings

SLOW = saved(noise(30, 30))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Each decoding of a picture, which is counted as slow and exceeds its limits."""
    made: list[Any] = []

    def call(function: object, given: object, *_: object) -> None:
        made.append(given)
        raise Exceeded

    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(refusals, "_recent", {})
    monkeypatch.setattr(decoding, "LARGE", 100)
    monkeypatch.setattr(decoding, "call", call)
    return made


def refused(content: bytes = SLOW, name: str = "slow.png") -> None:
    with refuses("picture-too-slow", name):
        open_picture(content, name=name, tick=lambda share: None)


def test_it_is_decoded_once(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    refused()
    refused(name="copy.png")
    assert len(calls) == 1
    refused(saved(noise(31, 31)))
    assert len(calls) == 2
    monkeypatch.setattr(refusals, "_recent", {})  # as in another process
    refused()
    assert len(calls) == 2
    monkeypatch.setattr(decoding, "SECONDS", 21)  # other limits
    refused()
    assert len(calls) == 3


def test_after_a_week_it_is_tried_again(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    refused()
    (mark,) = (settings().cache / "slow-photos").iterdir()
    old = time.time() - refusals.SECONDS - 1
    os.utime(mark, (old, old))
    monkeypatch.setattr(refusals, "_recent", {})
    refused()
    assert len(calls) == 2
    os.utime(mark, (old, old))
    refused(saved(noise(31, 31)))
    assert mark not in list((settings().cache / "slow-photos").iterdir())


def test_a_cache_folder_that_cannot_be_written_is_no_matter(calls: list[Any], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    refused()
    refused()
    assert len(calls) == 1


def test_a_photo_that_is_read_or_cancelled_is_not_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoding, "LARGE", 100)

    def leave(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_picture(SLOW, tick=leave)
    assert open_picture(SLOW, tick=lambda share: None).width == 30
    assert not (settings().cache / "slow-photos").exists()
