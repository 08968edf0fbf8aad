"""Every kind of data set is recognized, listed in order with its classes, and read safely."""

from __future__ import annotations

import os
import pickle
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.errors import refuses
from tests.media.files import noise, saved
from tests.media.test_odd_kinds import rle_bitmap
from vizapp.media import listing, loading
from vizapp.media.bundled import Crop
from vizapp.media.loading import batches
from vizapp.media.picture import Picture, open_picture
from vizapp.media.source import Source, skipped_note
from vizapp.media.sources import open_folder
from vizapp.media.transforms import View

PNG = saved(noise(8, 8))
VIEW = View(6, 6, (6, 6))


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def paths(source: Source) -> list[str]:
    return [source.path(index) for index in range(len(source))]


def test_a_zip_is_listed_like_the_folder_it_was_made_of(tmp_path: Path) -> None:
    names = ["photos/dog/10.png", "photos/dog/2.png", "photos/cat/1.png", "photos/loose.png", "photos/a.txt"]
    source = open_folder(zipped(tmp_path / "photos.zip", dict.fromkeys(names, PNG)))
    assert paths(source) == ["cat/1.png", "dog/2.png", "dog/10.png", "loose.png"]
    assert list(source.labels) == ["cat", "dog", "dog", None]
    assert source.classes == ("cat", "dog")
    assert np.array_equal(source.open(1).pixels, noise(8, 8))
    assert [path.name for path in source.skipped] == ["a.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"], "nothing is unpacked"


def test_names_that_lead_out_of_a_zip_are_passed_over(tmp_path: Path) -> None:
    names = ["../up.png", "/root.png", "a/../../up.png", "__MACOSX/._a.png", ".hidden.png", "C:/x.png", "a/good.png"]
    source = open_folder(zipped(tmp_path / "odd.zip", dict.fromkeys(names, PNG)))
    assert [member.rpartition("/")[2] for member in source.members] == ["good.png"]  # type: ignore[attr-defined]


def test_a_zip_written_on_windows_is_listed_with_slashes(tmp_path: Path) -> None:
    names = ["photos\\dog\\10.png", "photos\\dog\\2.png", "photos\\cat\\1.png"]
    led_out = ["..\\up.png", "\\\\host\\share\\x.png", "C:\\x.png", "photos\\..\\..\\up.png", "__MACOSX\\a.png"]
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for number, name in enumerate([*names, *led_out]):
            info = zipfile.ZipInfo("x")
            info.filename = name  # the constructor would replace the backslashes
            archive.writestr(info, saved(noise(8, 8, seed=number)))
    source = open_folder(tmp_path / "windows.zip")
    assert paths(source) == ["cat/1.png", "dog/2.png", "dog/10.png"]
    assert list(source.labels) == ["cat", "dog", "dog"]
    assert np.array_equal(source.open(0).pixels, noise(8, 8, seed=2))


def test_a_bomb_in_a_zip_is_stopped_while_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_UPLOAD_MB", "1")
    source = open_folder(zipped(tmp_path / "bomb.zip", {"bomb.png": PNG + bytes(50 * 2**20), "good.png": PNG}))
    with refuses("file-too-large", "bomb.png in bomb.zip", "1 MB"):
        source.open(0)
    assert source.open(1).height == 8


def test_damaged_and_encrypted_zips_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 no zip at all")
    with refuses("archive-damaged"):
        open_folder(tmp_path / "bad.zip")
    with refuses("no-pictures"):
        open_folder(zipped(tmp_path / "none.zip", {"a.txt": b"x"}))
    good = zipped(tmp_path / "cut.zip", {"a.png": PNG, "b.png": PNG})
    content = bytearray(good.read_bytes())
    content[60:80] = bytes(20)
    good.write_bytes(bytes(content))
    source = open_folder(good)
    with refuses("archive-damaged"):
        source.open(0)
    assert source.open(1).height == 8


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_told_however_it_is_packed(tmp_path: Path, packing: int) -> None:
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("a.png", PNG)
    content = path.read_bytes()
    middle = (40 + content.index(b"PK\1\2")) // 2
    path.write_bytes(content[:middle] + bytes(b ^ 0x5A for b in content[middle : middle + 4]) + content[middle + 4 :])
    with refuses("archive-damaged"):
        open_folder(path).open(0)


def test_the_bytes_of_a_zip_are_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    content = zipped(tmp_path / "a.zip", {"a.png": PNG}).read_bytes()
    assert open_folder(content).root == open_folder(content).root
    assert len(open_folder(content)) == 1
    assert len(list((tmp_path / "cache" / "uploads").iterdir())) == 1


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("path,label\na.png,x\nsub/b.png,y\n", ["x", "y"]),
        ("file;\na.png\nsub/b.png\n", [None, None]),
        ("path;label\na.png;x\nsub/b.png;y\n", ["x", "y"]),
        ("a.png;x\nsub/b.png;y\n", ["x", "y"]),
        ("image_id,label\na.png,x\nsub/b.png,y\n", ["x", "y"]),
        ("my photos,my labels\na.png,x\nsub/b.png,y\n", ["x", "y"]),
        ('"path";"label"\n"a.png";"x, or y"\nsub/b.png;y;z\n', ["x, or y", "y"]),
        ("a.png\nsub/b.png\n", [None, None]),
        ("a.png,x\nsub/b.png,\n", ["x", None]),
        ("id,image,class\n1,a.png,x\n2,sub/b.png,x\n", ["x", "x"]),
        ("\ufeffPath\na.png\n\nsub/b.png\n", [None, None]),
    ],
)
def test_a_csv_file_lists_paths_and_labels(tmp_path: Path, text: str, labels: list[str | None]) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    source = open_folder(tmp_path / "list.csv")
    assert list(source.labels) == labels
    assert paths(source) == ["a.png", "sub/b.png"]
    assert source.open(1).height == 8


def test_a_csv_file_beside_the_folder_of_its_pictures_finds_them(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "other").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(PNG)
    (tmp_path / "list.csv").write_text("file,label\na.png,x\nb.png,y\n")
    source = open_folder(tmp_path / "list.csv")
    assert paths(source) == ["a.png", "b.png"]
    assert source.open(1).height == 8
    assert source.stamp(0) != "gone"
    (tmp_path / "other" / "a.png").write_bytes(PNG)  # now it is no longer clear which is meant
    with refuses("no-such-file"):
        open_folder(tmp_path / "list.csv").open(0)


def test_what_a_csv_file_misses_is_told_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("gone.png\n")
    with refuses("no-such-file"):
        open_folder(tmp_path / "list.csv").open(0)
    (tmp_path / "empty.csv").write_text("")
    with refuses("no-pictures"):
        open_folder(tmp_path / "empty.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    with refuses("list-damaged"):
        open_folder(tmp_path / "binary.csv")


def test_digits_are_all_there_with_their_classes() -> None:
    from sklearn.datasets import load_digits

    source, known = open_folder("digits"), load_digits()
    assert len(source) == 1797
    assert [int(label or -1) for label in source.labels] == known.target.tolist()
    assert source.classes == tuple("0123456789")
    from vizapp.media.samples import digit_pixels

    np.testing.assert_array_equal(source.open(1000).pixels, digit_pixels(known.images[1000]))


def test_sample_photos_are_cut_into_overlapping_crops() -> None:
    source = open_folder("samples")
    assert len(source) > 200
    first, second = source.image_ref(0), source.image_ref(1)
    assert isinstance(first, Crop)
    assert isinstance(second, Crop)
    assert first.left < second.left < first.left + first.side
    assert source.open(0).height == source.open(0).width == first.side
    assert len(set(paths(source))) == len(source)
    assert set(source.labels) == set(source.classes)


@pytest.mark.parametrize(
    ("text", "code", "name"),
    [
        ("digts", "no-such-folder", "digits"),
        ("torchvision/CIFAR11", "no-such-dataset", "Did you mean CIFAR10"),
        ("torchvision/CIFAR10:half", "no-such-split", "half"),
        ("no/such/place", "no-such-folder", "no/such/place"),
    ],
)
def test_what_there_is_not_is_told(text: str, code: str, name: str) -> None:
    with refuses(code, name):
        open_folder(text)


def test_a_data_set_that_cannot_be_downloaded_is_one_sentence(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no network\nsecond line")

    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    monkeypatch.setattr(CIFAR10, "download", refuse)
    with refuses("dataset-unavailable", "CIFAR10", "no network", str(tmp_path)):
        open_folder("torchvision/cifar10")


def test_a_data_set_on_the_disk_is_read_with_its_classes(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vizapp.media import datasets

    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    folder = tmp_path / "datasets" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    pixels = noise(28, 28)[None, :, :, 0].repeat(3, 0)
    for part in ("t10k", "train"):
        head = (0x803).to_bytes(4) + (3).to_bytes(4) + (28).to_bytes(4) * 2
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes((0x801).to_bytes(4) + (3).to_bytes(4) + bytes([7, 1, 7]))
    assert [datasets.is_downloaded(f"torchvision/{name}") for name in ("mnist", "MNIST:train", "CIFAR10")] == [
        True,
        True,
        False,
    ]
    source = open_folder("torchvision/MNIST")
    assert [label[0] for label in source.labels if label] == ["7", "1", "7"]
    assert len(source.classes) == 10
    np.testing.assert_array_equal(source.open(2).pixels[:, :, 1], pixels[2])


def test_a_replaced_picture_changes_the_listing(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    before = open_folder(tmp_path).listing_digest()
    assert open_folder(tmp_path).listing_digest() == before
    os.utime(tmp_path / "a.png", (1, 1))
    changed = open_folder(tmp_path).listing_digest()
    assert changed != before
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    assert open_folder(tmp_path).listing_digest() not in {before, changed}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_order_with_what_failed(tmp_path: Path, workers: int) -> None:
    for number in range(11):
        (tmp_path / f"{number}.png").write_bytes(
            b"no picture" if number in (3, 4, 5, 8) else saved(noise(8, 8, number))
        )
    source = open_folder(tmp_path)
    found = list(batches(source, VIEW, [0, 1, 3], 3, workers))
    assert [part.number for part in found] == [0, 1, 3]
    assert [part.pictures for part in found] == [(0, 1, 2), (), (9, 10)]
    assert [index for index, _ in found[1].failed] == [3, 4, 5]
    assert found[1].pixels == ()
    for part in found:
        assert part.digests == tuple(source.open(index).digest for index in part.pictures)
        for index, pixels in zip(part.pictures, part.pixels, strict=True):
            np.testing.assert_array_equal(pixels, VIEW.apply(source.open(index).pixels))


class Deadly:
    """A picture over which the process that decodes it dies."""

    def __init__(self, deadly: bool) -> None:
        self.deadly = deadly

    def open(self, tick: Callable[[float], None] | None = None) -> Picture:
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return open_picture(noise(8, 8))


@pytest.mark.slow
def test_a_picture_that_ends_the_process_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = [Deadly(number == 2) for number in range(4)]
    assert pickle.loads(pickle.dumps(tickets[0])).deadly is False
    crew = loading._WorkerPool(1, VIEW)
    try:
        found = crew.submit(0, 0, tickets).result(timeout=60)
        after = crew.submit(1, 4, tickets[:2]).result(timeout=60)
    finally:
        crew.close()
    assert found.pictures == (0, 1, 3)
    assert found.failed[0][0] == 2
    assert "process" in found.failed[0][1]
    assert after.pictures == (4, 5)


def test_leaving_early_ends_the_processes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "list.csv").write_text("a.png\n" * 100)
    source = open_folder(tmp_path / "list.csv")
    stream = batches(source, VIEW, range(50), 2, 2)
    next(stream)
    children = psutil.Process().children()
    assert children
    stream.close()  # type: ignore[attr-defined]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_can_be_left_while_a_slow_photo_is_decoded(tmp_path: Path, workers: int) -> None:
    """Otherwise it holds its turn on the device for a batch of them, 20 s each, and its decoder works on."""
    (tmp_path / "slow.bmp").write_bytes(rle_bitmap(3400))
    processes: list[psutil.Process] = []

    def leave(share: float) -> None:
        processes[:] = psutil.Process().children(recursive=True)
        if len(processes) > workers and processes[-1].cpu_times().user > 0.3:
            raise Left

    stream = batches(open_folder(tmp_path), VIEW, range(1), 1, workers, leave)
    with pytest.raises(Left):
        next(stream)
    _, alive = psutil.wait_procs(processes, timeout=6)
    assert not alive
    assert processes


class Left(Exception):
    pass


def test_a_picture_is_found_by_its_name_however_many_come_before_it(tmp_path: Path) -> None:
    for name in ("b.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    for source in (open_folder(tmp_path), open_folder("digits"), open_folder(listed(tmp_path, ["b.png", "dog/1.png"]))):
        assert [source.index_of(path) for path in paths(source)] == list(range(len(source)))
    (tmp_path / "a.png").write_bytes(PNG)
    assert open_folder(tmp_path).index_of("b.png") == 1
    (tmp_path / "b.png").unlink()
    with refuses("picture-gone", "b.png"):
        open_folder(tmp_path).index_of("b.png")


def test_a_name_that_is_listed_twice_is_the_first(tmp_path: Path) -> None:
    assert open_folder(listed(tmp_path, ["a.png", "b.png", "b.png"])).index_of("b.png") == 1


def listed(folder: Path, names: list[str]) -> Path:
    """A CSV file of these pictures."""
    place = folder / "list.csv"
    place.write_text("".join(f"{name}\n" for name in ["path", *names]))
    return place


def test_a_list_of_too_many_photos_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_ROWS", 10)
    (tmp_path / "a.png").write_bytes(PNG)
    path = tmp_path / "list.csv"
    path.write_text("path,label\n\n\n" + "a.png,cat\n" * 9)
    assert len(open_folder(path)) == 9
    path.write_text("path,label\n" + "a.png,cat\n" * 10)
    with refuses("too-many-files", "list.csv"):
        open_folder(path)


def test_an_endless_line_of_a_list_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_LONGEST_LINE", 1000)
    for line in ("x" * 5000, "path," * 1000, '"' + "x" * 5000):
        (tmp_path / "list.csv").write_text(f"path,label\n{line}\n")
        with refuses("list-damaged", "list.csv"):
            open_folder(tmp_path / "list.csv")


@pytest.mark.parametrize(("after", "confined"), [(0, False), (1, False), (3, False), (9, True)])
def test_reading_a_long_list_can_be_cancelled(after: int, confined: bool, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\n" + "a.png,cat\n" * 3000)
    ticks = []

    def leave(share: float) -> None:
        ticks.append(share)
        if len(ticks) > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_folder(tmp_path / "list.csv", tmp_path if confined else None, leave)
    assert len(ticks) == after + 1


def test_a_list_of_too_many_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_LABELS", 3)
    path = tmp_path / "list.csv"
    path.write_text("path,label\n" + "".join(f"{number}.png,c{number % 3}\n" for number in range(9)))
    assert open_folder(path).classes == ("c0", "c1", "c2")
    path.write_text("path,label\n" + "".join(f"{number}.png,c{number}\n" for number in range(4)))
    with refuses("too-many-classes", "list.csv"):
        open_folder(path)


def test_rows_that_lead_out_are_skipped_however_they_do_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "in", outside):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(PNG)
    (root / "link.png").symlink_to(outside / "a.png")
    (root / "way").symlink_to(outside)
    (root / "loop.png").symlink_to("loop.png")
    (root / "good.png").symlink_to(root / "in" / "a.png")
    out = ["link.png", "way/a.png", "../outside/a.png", "in/../../outside/a.png", str(outside / "a.png"), "loop.png"]
    out += ["way/..", "..", "../root/..", "in/../..", "a\0b.png", "way/../outside/a.png"]
    kept = ["in/a.png", "good.png", "in/../in/a.png", "none.png", str(root / "in" / "a.png")]
    (root / "list.csv").write_text("path\n" + "\n".join([*out, *kept, *out]))
    assert open_folder(root / "list.csv", root).names == tuple(kept)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reasons", "note"),
    [
        ([], ""),
        (["a is damaged."], "1 photo was skipped: a is damaged."),
        (["a is damaged."] * 1200, "1,200 photos were skipped, the first: a is damaged."),
    ],
)
def test_skipped_photos_are_counted_in_words(reasons: list[str], note: str) -> None:
    assert skipped_note(reasons) == note
