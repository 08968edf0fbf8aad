"""Independent processes that build the same gallery in one cache, as replicas of a server may."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import vizapp
from tests.errors import refuses
from tests.gallery.test_gallery import ROOT, Leave, files
from vizapp.engine.statistics.top_activations import empty_state
from vizapp.files import atomic_write
from vizapp.gallery import GalleryOptions, build, open_gallery
from vizapp.gallery import checkpoint as checkpoints
from vizapp.gallery.checkpoint import Checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint

PLAN = GalleryOptions(batch=4, workers=0, every=1)


@pytest.fixture(scope="module")
def alone(network, photos, tmp_path_factory) -> dict[str, bytes]:
    """The files of the gallery as one pass makes them."""
    out = tmp_path_factory.mktemp("alone") / "gallery"
    build(network, vizapp.open_folder(photos), network.sites, out, PLAN)
    return files(out)


@pytest.mark.slow
def test_passes_at_the_same_time_give_what_one_gives(network, photos, alone, tmp_path: Path) -> None:
    out, told = tmp_path / "gallery", list[BaseException]()
    source, sites = vizapp.open_folder(photos), network.sites

    def run(delay: float) -> None:
        time.sleep(delay)
        try:
            build(network, source, sites, out, PLAN)
        except (vizapp.VizError, OSError) as error:
            told.append(error)

    threads = [threading.Thread(target=run, args=(0.05 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == []
    assert files(out) == alone
    assert not (out / "_work").exists()


def test_a_pass_ends_early_when_another_has_finished(network, photos, alone, tmp_path: Path) -> None:
    out, source = tmp_path / "gallery", vizapp.open_folder(photos)
    seen = [0]

    def watch(progress) -> None:  # type: ignore[no-untyped-def]
        if progress.pictures >= 16 and max(seen) < 16:
            build(network, source, network.sites, out, PLAN)  # the other
        seen.append(progress.pictures)

    build(network, source, network.sites, out, PLAN, watch)
    assert 16 <= max(seen) < 40
    assert files(out) == alone
    assert not (out / "_work").exists()


def test_leaving_a_pass_that_another_has_finished_writes_nothing(network, photos, alone, tmp_path: Path) -> None:
    out, source = tmp_path / "gallery", vizapp.open_folder(photos)

    def watch(progress) -> None:  # type: ignore[no-untyped-def]
        if progress.pictures >= 16:
            build(network, source, network.sites, out, PLAN)
            raise Leave

    with pytest.raises(Leave):
        build(network, source, network.sites, out, PLAN, watch)
    assert files(out) == alone
    assert not (out / "_work").exists()


def test_tables_of_a_pass_that_was_killed_while_it_finished_are_in_nobodys_way(
    network, photos, alone, tmp_path: Path
) -> None:
    out, source = tmp_path / "gallery", vizapp.open_folder(photos)
    out.mkdir()
    name = next(name for name in alone if name.endswith(".parquet"))
    (out / name).write_bytes(alone[name][:100])
    build(network, source, network.sites, out, PLAN)
    assert files(out) == alone
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "sales.parquet").write_bytes(b"")
    with refuses("folder-holds-other-files"):
        build(network, source, network.sites, tmp_path / "others", PLAN)


def test_a_file_is_never_half_written_by_many_at_once(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", [bytes([number]) * 300_000 for number in range(8)]
    seen = set()
    threads = [threading.Thread(target=atomic_write, args=(path, content)) for content in contents for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            seen.add(path.read_bytes())
    assert seen | {path.read_bytes()} <= set(contents)
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_by_many_at_once_stay_whole(tmp_path: Path) -> None:
    def save(number: int) -> None:
        for _ in range(10):
            state = empty_state(100, 9) | {"values": torch.full((100, 9), float(number))}
            save_checkpoint(tmp_path, Checkpoint({}, number, state))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found, told = load_checkpoint(tmp_path)
        assert not told
        assert found is None or (found.state["values"] == found.batches).all()
    left = tmp_path / ".checkpoint.0badcafe.part"
    left.write_bytes(b"by a killed process")
    remove_checkpoints(tmp_path)
    assert left.exists()  # somebody may be writing it
    os.utime(left, (time.time() - 2 * checkpoints.LEFTOVER,) * 2)
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.slow
def test_two_replicas_make_one_gallery(tmp_path: Path, photos) -> None:
    def command(out: Path) -> list[str]:
        return [
            sys.executable, "-m", "vizapp", "gallery", "--network", "vizapp/lenet5-digits", "--folder", "digits",
            "--batch", "32", "--every", "1", "--out", str(out),
        ]  # fmt: skip

    both = [
        subprocess.Popen(command(tmp_path / "both"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate()[1] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    network, digits = vizapp.load("vizapp/lenet5-digits"), vizapp.open_folder("digits")
    vizapp.ask("gallery", network, folder=digits, batch=32, every=1, out=str(tmp_path / "one"))
    assert files(tmp_path / "both") == files(tmp_path / "one")
    assert open_gallery(tmp_path / "both").pictures == 1797
