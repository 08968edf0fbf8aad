"""Files are written completely or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from vizapp.files import atomic_file, atomic_files, atomic_write, natural_key, remove_leftovers


@pytest.mark.parametrize("sync", ["none", "file", "folder"])
def test_a_new_content_takes_the_place_of_the_old_one(tmp_path: Path, sync) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    atomic_write(path, b"new", sync)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_keeps_the_old_content_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    with pytest.raises(TypeError), atomic_files(tmp_path) as part:
        (part / "file").write_bytes(None)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_file_of_a_folder_comes_after_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: moved.append(target.name) or replace(self, target))
    with atomic_files(tmp_path, last="b") as part:
        for name in "cba":
            (part / name).write_text(name)
    assert moved == ["a", "c", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_only_old_leftovers_of_ours_are_removed(tmp_path: Path) -> None:
    names = [".net.pth.0badcafe.part", "net.pth.0badcafe.part", "mine.part", "net.pth"]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - 100,) * 2)
    (tmp_path / ".net.pth.deadbeef.part").touch()
    remove_leftovers(tmp_path, 50)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".net.pth.deadbeef.part", "mine.part", "net.pth"]


def test_names_are_sorted_as_people_count() -> None:
    names = ["resnet101", "resnet18", "Resnet2", "10.png", "2.png", ""]
    assert sorted(names, key=natural_key) == ["", "2.png", "10.png", "Resnet2", "resnet18", "resnet101"]
