"""Texts that no file, user or number can have, wherever a person gives a text; and pipes, which would be waited for."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vizapp
from tests.media.files import noise, saved
from tests.test_corpus import is_sentence
from vizapp.__main__ import main
from vizapp.errors import LONGEST_SENTENCE, VizError
from vizapp.files import read_file
from vizapp.gallery import open_gallery
from vizapp.gallery.checkpoint import NAME, load_checkpoint
from vizapp.gallery.store import MANIFEST, read_manifest
from vizapp.methods.base import Result
from vizapp.settings import settings
from vizapp.zoo.labels import read_labels

NET = "vizapp/lenet5-digits"
ODD = {
    "long": "x" * 5000, "deep": "a/" * 3000, "long part": "a/" + "x" * 256, "multi-byte": "é" * 130, "nul": "a\0b",
    "surrogate": "\ud800", "no user": "~nosuchuser/x", "digits": "9" * 5000, "arabic digits": "٣" * 5000, "empty": "",
    "half a pair": "a\udbff/b", "tildes": "~" * 300,
}  # fmt: skip


def answer() -> Result:
    return Result("predict", {"a": np.zeros(1)})


PLACES: dict[str, Callable[[str], object]] = {
    "weights": lambda text: vizapp.load(NET, weights=text, device="cpu"),
    "network": lambda text: vizapp.load(text, weights="none", device="cpu"),
    "classes": lambda text: vizapp.load(NET, weights="none", device="cpu", classes=text),
    "device": lambda text: vizapp.load(NET, weights="none", device=text or "?"),
    "picture": lambda text: vizapp.open_picture(text),
    "folder": lambda text: vizapp.open_folder(text),
    "data set": lambda text: vizapp.open_folder(f"torchvision/{text}"),
    "gallery": lambda text: open_gallery(text),
    "answer": lambda text: answer().save(text),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_text_is_refused_with_a_sentence(
    place: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VizError) as caught:
        PLACES[place](ODD[kind])
    assert caught.value.code
    assert is_sentence(str(caught.value)), str(caught.value)
    assert list(tmp_path.iterdir()) == []


OPTIONS = {
    "--weights": [], "--classes": [], "--picture": [], "--device": [], "--class": [], "--unit": [], "--output": [],
    "--probabilities": [], "--out": [],
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", ["long", "deep", "surrogate", "no user", "digits", "arabic digits"])
def test_an_odd_text_on_the_command_line_gives_one_line_and_status_2(
    option: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"--network": NET, "--picture": "digit 3", "--device": "cpu"} | {option: ODD[kind]}
    method = "activations" if option in ("--class", "--unit") else "predict"
    assert main([method, *(text for pair in given.items() for text in pair)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert is_sentence(err.removeprefix("vizapp: ").removesuffix("\n"))


@pytest.mark.parametrize("name", ["channel", "top", "classes", "class", "cell"])
def test_a_number_of_5000_digits_is_refused_in_python_too(name: str) -> None:
    huge = 10**5000
    network = vizapp.load(NET, weights="none", device="cpu")
    picture = vizapp.open_picture(saved(noise(28, 28)))
    asks: dict[str, Callable[[], object]] = {
        "channel": lambda: vizapp.ask("activations", network, picture, unit=vizapp.Unit("features.0", huge)),
        "cell": lambda: vizapp.ask("activations", network, picture, unit=vizapp.Unit("features.0", 0, (huge, 0))),
        "top": lambda: vizapp.ask("predict", network, picture, top=huge),
        "classes": lambda: vizapp.load(NET, weights="none", device="cpu", classes=huge),
        "class": lambda: vizapp.class_unit(network, huge),
    }
    with pytest.raises(VizError):
        asks[name]()


@pytest.mark.parametrize("name", ["VIZAPP_CACHE", "VIZAPP_WEIGHTS", "VIZAPP_ROOT"])
@pytest.mark.parametrize("kind", ["long", "long part", "no user"])
def test_a_setting_that_is_no_path_is_told(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, ODD[kind])
    with pytest.raises(VizError):
        settings()


def test_a_folder_whose_name_is_not_text_takes_a_gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        (photos / f"{number}.png").write_bytes(saved(noise(28, 28, seed=number)))
    out = os.fsdecode(os.fsencode(tmp_path) + b"/s\xff")
    asked = ["--network", NET, "--device", "cpu", "--folder", str(photos), "--sites", "features.1", "--out", out]
    assert main(["gallery", *asked]) == 0
    assert open_gallery(out).pictures == 2
    assert "s?" in capsys.readouterr().out


@pytest.mark.parametrize("json", [False, True])
def test_what_a_terminal_cannot_show_is_written_in_signs_that_it_has(
    json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(written, "latin-1", write_through=True))
    out = os.fsdecode(os.fsencode(tmp_path) + b"/s\xff\xe2\x82\xac")  # a byte that is no text, and a euro sign
    asked = ["predict", "--network", NET, "--device", "cpu", "--picture", "digit 3", "--out", out]
    assert main([*asked, *["--json"] * json]) == 0
    assert b"s\\udcff" in written.getvalue()
    assert b"u20ac" in written.getvalue()


# Sentences


def test_a_sentence_is_never_long() -> None:
    for middle in ("x" * 10**7, "x y " * 10**6, "x" * 301, "\n" * 10**7, "'" * 10**5):
        told = str(VizError(f"There is no layer {middle!r} here.", code="x"))
        assert len(told) <= LONGEST_SENTENCE
        assert told.startswith("There is no layer ")
        assert told.endswith(" here.")
        assert "…" in told
    for whole in ("x" * 300, "xy " * (LONGEST_SENTENCE // 3)):
        assert str(VizError(whole)) == whole.strip()


# Pipes and devices


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.png")
    return tmp_path / "pipe.png"


@pytest.mark.parametrize("place", ["weights", "classes", "picture", "folder"])
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "/dev/zero", "/dev/tty"])
def test_a_pipe_or_device_is_refused(place: str, kind: str, pipe: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pipe)
    path = {"pipe": str(pipe), "link to a pipe": str(tmp_path / "link")}.get(kind, kind)
    with pytest.raises(VizError, match="device or a pipe"):
        PLACES[place](path)


def test_pipes_among_other_files_are_not_waited_for(pipe: Path, tmp_path: Path) -> None:
    """A gallery's files, a list's pictures, weights and lists by their usual names."""
    folder = tmp_path / "gallery"
    (folder / "_work").mkdir(parents=True)
    for place in (folder / MANIFEST, folder / "_work" / NAME, tmp_path / "a.safetensors", tmp_path / "a.json"):
        os.mkfifo(place)
    assert read_manifest(folder) is None
    assert load_checkpoint(folder / "_work")[0] is None
    with pytest.raises(VizError):
        open_gallery(folder)
    with pytest.raises(VizError):
        vizapp.load(NET, weights=tmp_path / "a.safetensors", device="cpu")
    with pytest.raises(VizError):
        read_labels(tmp_path / "a.json")
    (tmp_path / "list.csv").write_text("path\npipe.png\n")
    with pytest.raises(VizError, match="device or a pipe"):
        vizapp.open_folder(tmp_path / "list.csv").open(0)
    with pytest.raises(OSError, match="device or a pipe"):
        read_file(pipe)


def test_a_huge_file_of_labels_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "labels.txt").open("wb") as file:
        file.truncate(2**36)
    with pytest.raises(VizError, match="larger"):
        read_labels(tmp_path / "labels.txt")


# Damaged members of zip files


def _garbled(mode: int, props: bool) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", saved(noise(40, 40)), mode)
        archive.writestr("b.png", saved(noise(40, 40)))
    content = bytearray(stream.getvalue())
    begin = content.index(b"a.png") + 5 + (4 if mode == zipfile.ZIP_LZMA else 0)
    place = slice(begin, begin + 5) if props else slice(begin + 12, begin + 52)
    content[place] = b"\xff" * (place.stop - place.start)
    return bytes(content)


@pytest.mark.parametrize("props", [False, True])
@pytest.mark.parametrize("mode", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_member_of_any_compression_is_passed_over(
    mode: int, props: bool, workers: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if workers and (mode != zipfile.ZIP_LZMA or props):
        pytest.skip("the processes do the same as this one")
    path = tmp_path / "photos.zip"
    path.write_bytes(_garbled(mode, props))
    asked = ["--network", NET, "--device", "cpu", "--folder", str(path), "--sites", "features.1"]
    assert main(["gallery", *asked, "--workers", str(workers), "--out", str(tmp_path / "out")]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert [item["path"] for item in open_gallery(tmp_path / "out").unreadable] == ["a.png"]
    assert "unreadable: 1 " in out
