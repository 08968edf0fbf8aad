"""Settings are used as they are written, or refused with a message that names them."""

from __future__ import annotations

import pytest

from tests.errors import refuses
from vizapp.settings import settings

WHOLE = {
    "VIZAPP_UPLOAD_MB": "upload_mb", "VIZAPP_CHECKPOINT_MB": "checkpoint_mb", "VIZAPP_PICTURE_MEGAPIXELS": "picture_megapixels",
    "VIZAPP_ANSWER_MB": "answer_mb", "VIZAPP_SESSION_MB": "session_mb",
}  # fmt: skip
BROKEN = {"VIZAPP_NETWORK_GB": "network_gb", "VIZAPP_MEMORY_GB": "memory_gb"}


@pytest.mark.parametrize("name", [*WHOLE, *BROKEN])
@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf", "-inf", "1e999"])
def test_a_size_that_is_none_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with refuses("bad-setting", name, repr(text)):
        settings()


@pytest.mark.parametrize(("name", "field"), WHOLE.items())
def test_a_part_of_one_is_too_little_where_whole_ones_are_counted(
    monkeypatch: pytest.MonkeyPatch, name: str, field: str
) -> None:
    monkeypatch.setenv(name, "0.5")
    with refuses("bad-setting", name, "'0.5'"):
        settings()
    monkeypatch.setenv(name, "1.5")
    assert getattr(settings(), field) == 1


@pytest.mark.parametrize(("name", "field"), BROKEN.items())
def test_gigabytes_may_be_broken(monkeypatch: pytest.MonkeyPatch, name: str, field: str) -> None:
    monkeypatch.setenv(name, "0.5")
    assert getattr(settings(), field) == 0.5
