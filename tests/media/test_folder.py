"""A folder is listed in natural order, with its sub-folders as classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.errors import refuses
from tests.media.files import noise, saved
from vizapp.errors import VizError
from vizapp.files import natural_key
from vizapp.media import folder, picture
from vizapp.media.folder import folder_stamp, list_folder

PNG = saved(noise(8, 8))


def place(root: Path, *names: str, data: bytes = PNG) -> None:
    """Write the same file under every one of these names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def listed(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_folder(root).paths]


def complaint(path: str | Path) -> str:
    with pytest.raises(VizError) as caught:
        list_folder(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pictures_are_listed_recursively_in_natural_order(tmp_path: Path) -> None:
    place(tmp_path, "10.png", "2.png", "1.JPEG", "b/x10/1.png", "b/x9/1.png", "A/1.webp")
    assert listed(tmp_path) == ["1.JPEG", "2.png", "10.png", "A/1.webp", "b/x9/1.png", "b/x10/1.png"]


def test_first_level_folders_are_classes_and_loose_pictures_have_none(tmp_path: Path) -> None:
    place(tmp_path, "loose.png", "dog/1.png", "dog/deep/2.png", "cat/1.png", "10/1.png", "9/1.png", "notes/a.txt")
    folder = list_folder(tmp_path)
    assert folder.classes == ("9", "10", "cat", "dog")
    assert folder.labels == ("9", "10", "cat", "dog", "dog", None)
    assert len(folder) == len(folder.paths) == 6
    assert folder.name == tmp_path.name


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    place(tmp_path, "a.png", "b.png")
    assert list_folder(tmp_path).classes == ()
    assert list_folder(str(tmp_path)).labels == (None, None)


def test_hidden_files_are_left_out_and_other_kinds_counted(tmp_path: Path) -> None:
    place(tmp_path, "a.png", ".b.png", ".thumbs/c.png", "._a.png", "list.txt", "sub/film.mp4", "README")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    folder = list_folder(tmp_path)
    assert [path.name for path in folder.paths] == ["a.png"]
    assert sorted(path.name for path in folder.skipped) == ["README", "film.mp4", "gone.png", "list.txt", "pipe.png"]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    place(root, "b/1.png")
    place(elsewhere, "2.png")
    (root / "b" / "up").symlink_to(root)
    (root / "a").symlink_to(root / "b")  # sorts first, but the pictures stay in the real folder
    (root / "c").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "3.png").symlink_to(elsewhere / "2.png")
    assert listed(root) == ["3.png", "b/1.png", "c/2.png"]


def test_listing_decodes_nothing_and_opening_decodes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path, "1.png")
    place(tmp_path, "2.png", data=b"\x89PNG\r\n\x1a\nbroken")
    decoded: list[str] = []
    decode = picture.decode
    monkeypatch.setattr(
        picture, "decode", lambda file, subject, *tick: decoded.append(subject) or decode(file, subject)
    )
    folder = list_folder(tmp_path)
    assert decoded == []
    assert np.array_equal(folder.open(0).pixels, noise(8, 8))
    assert folder.open(0).name == "1.png"
    assert len(decoded) == 2
    with refuses("picture-incomplete", "2.png"):
        folder.open(1)


def test_a_folder_without_pictures_says_what_is_there(tmp_path: Path) -> None:
    assert "no photo" in complaint(tmp_path)
    place(tmp_path, "a.txt", "b/c.txt", "d.csv")
    text = complaint(tmp_path)
    assert "3 other files: .txt, .csv" in text
    assert "JPEG" in text


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    place(tmp_path, "a.png")
    assert "is a file" in complaint(tmp_path / "a.png")
    assert "no folder" in complaint(tmp_path / "b")
    assert "NUL" in complaint("a\0b")
    assert "empty" in complaint("")
    assert "too long" in complaint("x" * 5000)


def test_folders_that_may_not_be_read_are_passed_by_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path, "a.png", "closed/b.png")
    scan, closed = os.scandir, {tmp_path / "closed"}

    def refuse(path: Path) -> object:
        if path in closed:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # permissions themselves do not stop the superuser
    assert list_folder(tmp_path).skipped == (tmp_path / "closed",)
    assert len(list_folder(tmp_path)) == 1
    closed.add(tmp_path)
    assert "permission denied" in complaint(tmp_path)


def test_natural_order_counts_and_ignores_case() -> None:
    names = ["b", "A10", "a2", "a02", "10", "9", "²", ""]
    assert sorted(names, key=natural_key) == ["", "9", "10", "a02", "a2", "A10", "b", "²"]


def test_a_walk_can_be_left(tmp_path: Path) -> None:
    class Enough(BaseException):
        pass

    for number in range(5):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "picture.png").touch()
    told: list[float] = []
    assert len(list_folder(tmp_path, tick=told.append)) == 5
    assert told == [0.0] * 6  # the folder and those in it

    def leave(share: float) -> None:
        told.append(share)
        if len(told) == 9:
            raise Enough

    with pytest.raises(Enough):
        list_folder(tmp_path, tick=leave)
    assert len(told) == 9


def test_the_stamp_of_a_folder_changes_with_its_photos_at_any_depth_and_not_with_other_files(tmp_path: Path) -> None:
    root, link = tmp_path / "root", tmp_path / "elsewhere"
    place(root, "a.png", "b/1.png", "b/deep/er/2.PNG", "b/deep/er/3.jpg", ".hidden/4.png", "notes.txt")
    place(link, "5.png")
    (root / "link").symlink_to(link)
    (root / "round").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    before, known = folder_stamp(root), list_folder(root).listing_digest()
    assert folder_stamp(root) == before
    place(root, ".hidden/4.png", "notes.txt", data=b"other")
    assert folder_stamp(root) == before

    def touch(path: Path) -> None:
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))

    changes: list[Callable[[], object]] = [
        lambda: place(root, "b/deep/er/2.PNG", data=PNG + b" "),
        lambda: touch(root / "b/deep/er/3.jpg"),
        lambda: place(root, "b/deep/er/6.png"),
        lambda: (root / "b/1.png").unlink(),
        lambda: (root / "b/deep/er/6.png").rename(root / "b/deep/er/7.png"),
        lambda: place(link, "5.png", data=b"other"),
        lambda: (root / "b/deep").rename(root / "c"),
    ]
    for change in changes:
        change()
        after, now = folder_stamp(root), list_folder(root).listing_digest()
        assert now != known, "the test changes nothing"
        assert after[0] != before[0]
        before, known = after, now


def test_the_stamp_of_a_folder_leaves_out_what_lies_outside(tmp_path: Path) -> None:
    place(tmp_path / "root", "a.png")
    place(tmp_path / "outside", "5.png")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "6.png").symlink_to(tmp_path / "outside" / "5.png")
    before = [folder_stamp(tmp_path / "root", within) for within in (tmp_path / "root", None)]
    place(tmp_path / "outside", "5.png", data=b"other")
    after = [folder_stamp(tmp_path / "root", within) for within in (tmp_path / "root", None)]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_the_stamp_of_a_large_folder_looks_at_so_many_entries_and_on_a_slow_disk_at_as_many_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path, *(f"{label}/{number}.png" for label in "ab" for number in range(20)))
    stamp = folder_stamp(tmp_path, most=12)
    place(tmp_path, *(f"{label}/{number}.png" for label in "ab" for number in range(20)), data=PNG + b" ")
    assert folder_stamp(tmp_path, most=12) != stamp  # ten of the photos are among the twelve
    assert folder_stamp(tmp_path, most=12)[1] == 12
    now = iter(range(1000))
    monkeypatch.setattr(folder.time, "monotonic", lambda: next(now))
    late, most = folder_stamp(tmp_path, seconds=7)
    assert 0 < most < 12
    assert folder_stamp(tmp_path, most=most, seconds=1000) == (late, most)
