"""Full disks, damaged files and killed processes during a pass: an error message, and the next start gives the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import vizapp
from tests.disks import small_disk
from tests.errors import refuses
from vizapp.__main__ import main
from vizapp.errors import VizError
from vizapp.gallery import Progress, build, open_gallery
from vizapp.gallery.build import GalleryOptions
from vizapp.gallery.checkpoint import NAME, PREVIOUS, load_checkpoint
from vizapp.gallery.store import MANIFEST, UNITS, WORK

ROOT = Path(__file__).resolve().parents[2]
PLAN = GalleryOptions(batch=8, workers=0, every=2)
DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "random": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
    "a folder": lambda path: (path.unlink(), path.mkdir(), (path / "file").write_text("x")),  # type: ignore[func-returns-value]
}  # fmt: skip


class Leave(BaseException):
    """Leaving is no error."""


def leave_at(pictures: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if progress.pictures >= pictures:
            raise Leave

    return watch


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@contextmanager
def suppress_sentence(told: list[str]) -> Iterator[None]:
    """Goes on after a sentence, which is kept."""
    try:
        yield
    except VizError as error:
        told.append(str(error))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m") as place:
        yield place


@pytest.fixture(scope="module")
def whole(network, photos, tmp_path_factory) -> dict[str, bytes]:
    """The files of a gallery that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "gallery"
    build(network, vizapp.open_folder(photos), network.sites, out, PLAN)
    return files(out)


@pytest.mark.parametrize("step", [200_000, pytest.param(60_000, marks=pytest.mark.slow)])
def test_a_disk_that_is_full_at_any_moment_is_told_and_with_room_it_goes_on(network, photos, whole, disk, step) -> None:
    """From no room at all to nearly enough; what was begun is kept, nothing half-written is read, nothing is left over."""
    source, out, filler = vizapp.open_folder(photos), disk / "gallery", disk / "filler"
    told: list[str] = []
    for room in range(0, 500_000, step):
        filler.unlink(missing_ok=True)
        filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - room)))
        with suppress_sentence(told):
            build(network, source, network.sites, out, PLAN)
        assert not list(out.rglob("*.part"))
        assert not (out / MANIFEST).exists() or files(out) == whole
    assert len(told) >= 2
    assert all("No space left" in sentence for sentence in told)
    filler.unlink()
    build(network, source, network.sites, out, PLAN)
    assert files(out) == whole


def test_a_disk_without_room_for_the_report_keeps_the_gallery(network, photos, disk, capsys) -> None:
    out = disk / "gallery"
    asked = [
        "gallery",
        "--network",
        "vizapp/lenet5-digits",
        "--device",
        "cpu",
        "--folder",
        str(photos),
        "--workers",
        "0",
    ]
    asked += ["--sites", "features.1", "--out", str(out)]
    assert main(asked) == 0
    whole, report = files(out), files(out / "_result")
    assert {"arrays.npz", "result.json"} <= set(report)
    shutil.rmtree(out / "_result")
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free))
    capsys.readouterr()
    assert main(asked) == 2
    printed, told = capsys.readouterr()
    assert printed == ""
    assert told.count("\n") == 1
    assert "No space left" in told
    assert "complete; run it again to write the rest" in told
    assert files(out) == whole
    assert not (out / "_result").exists()
    assert len(open_gallery(out).rows("features.1"))
    filler.unlink()
    assert main(asked) == 0
    assert files(out / "_result").keys() == report.keys()


def test_a_write_protected_place_is_told_and_a_whole_gallery_there_is_read(network, photos, whole, disk) -> None:
    source, out = vizapp.open_folder(photos), disk / "gallery"
    sites = network.sites[:2]
    with pytest.raises(Leave):
        build(network, source, sites, out, PLAN, leave_at(32))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with refuses("unwritable", "Read-only"):
        build(network, source, sites, out, PLAN)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert "Resumed" in build(network, source, sites, out, PLAN)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert build(network, source, sites, out, PLAN) == "The gallery was there already."
    assert len(open_gallery(out).rows(sites[0].name))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("files_", [(NAME,), (PREVIOUS,), (NAME, PREVIOUS)], ids=str)
def test_a_damaged_checkpoint_of_any_kind_costs_time_alone(network, photos, whole, tmp_path, files_, damage) -> None:
    out, source = tmp_path / "gallery", vizapp.open_folder(photos)
    with pytest.raises(Leave):
        build(network, source, network.sites, out, PLAN, leave_at(48))
    for name in files_:
        DAMAGES[damage](out / WORK / name)
    found, _ = load_checkpoint(out / WORK)
    assert (found is None) == (len(files_) == 2)
    build(network, source, network.sites, out, PLAN)
    assert files(out) == whole


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("cut off", "random")]


@pytest.mark.parametrize("damage", ["empty", *SLOW])
def test_a_damaged_manifest_is_told_and_the_next_start_makes_it_again(network, photos, whole, tmp_path, damage) -> None:
    out, source = tmp_path / "gallery", vizapp.open_folder(photos)
    build(network, source, network.sites, out, PLAN)
    DAMAGES[damage](out / MANIFEST)
    with refuses("gallery-damaged"):
        open_gallery(out)
    assert "damaged" in build(network, source, network.sites, out, PLAN)
    assert files(out) == whole


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["units", "rows"])
def test_damaged_tables_are_told_and_never_served(network, photos, tmp_path, which, damage) -> None:
    out, source = tmp_path / "gallery", vizapp.open_folder(photos)
    build(network, source, network.sites[:2], out, PLAN)
    path = out / UNITS if which == "units" else sorted(out.glob("*.parquet"))[0]
    DAMAGES[damage](path)
    with refuses("gallery-damaged"):
        open_gallery(out).rows(network.sites[0].name)


def test_a_manifest_without_its_parts_is_none(network, photos, tmp_path) -> None:
    out, source = tmp_path / "gallery", vizapp.open_folder(photos)
    build(network, source, network.sites[:1], out, PLAN)
    (out / MANIFEST).write_text('{"format": 2, "network": {}}')
    with pytest.raises(VizError):
        open_gallery(out)
    assert "damaged" in build(network, source, network.sites[:1], out, PLAN)


def test_a_copy_for_which_there_is_no_room_is_none(network, photos, tmp_path, disk) -> None:
    out = tmp_path / "gallery"
    result = vizapp.ask("gallery", network, folder=vizapp.open_folder(photos), workers=0, out=str(out))
    size = sum(len(content) for content in files(out).values())
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - size // 2))
    with pytest.raises(VizError, match="No space left"):
        result.save(disk / "copy")
    assert not any(path.is_file() for path in (disk / "copy").rglob("*")), "all files or none"
    filler.unlink()
    assert files(result.save(tmp_path / "copy")) == files(out)


@pytest.mark.slow
def test_decoding_processes_that_are_killed_are_replaced(network, photos, whole, tmp_path) -> None:
    """What they were working on is decoded by others, so that not a byte differs."""
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if len(killed) < 2:
            for child in psutil.Process().children():
                if len(killed) < 2 and child.pid not in killed and child.status() != psutil.STATUS_ZOMBIE:
                    killed.append(child.pid)
                    child.kill()

    build(
        network,
        vizapp.open_folder(photos),
        network.sites,
        tmp_path / "gallery",
        GalleryOptions(batch=8, workers=2),
        kill,
    )
    assert len(killed) == 2
    assert files(tmp_path / "gallery") == whole


KILLED = """
import os, signal, sys
from pathlib import Path
import vizapp
from tests.networks import Branching, seeded
from vizapp.gallery.build import GalleryOptions, build
def watch(progress):
    if progress.pictures >= 40:
        os.kill(os.getpid(), signal.SIGKILL)
network = vizapp.wrap(seeded(Branching()), input_size=(3, 20, 24), name="branching")
plan = GalleryOptions(batch=8, workers=0, every=2)
build(network, vizapp.open_folder(sys.argv[1]), network.sites, Path(sys.argv[2]), plan, watch)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing(network, photos, whole, tmp_path) -> None:
    """And what the next one writes is the same byte for byte."""
    out = tmp_path / "gallery"
    command = [sys.executable, "-c", KILLED, str(photos), str(out)]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=120).returncode == -signal.SIGKILL
    assert not (out / MANIFEST).exists()
    assert load_checkpoint(out / WORK)[0] is not None
    assert "Resumed" in build(network, vizapp.open_folder(photos), network.sites, out, PLAN)
    assert files(out) == whole


SHARED = """
import sys, time
from pathlib import Path
import torch, vizapp
from vizapp.gallery.build import GalleryOptions, build
torch.set_num_threads(1)
network, source = vizapp.load("lenet5-digits", device="cpu"), vizapp.open_folder("digits")
def slowly(progress):
    time.sleep(0.02)
build(network, source, network.sites, Path(sys.argv[1]), GalleryOptions(batch=32, workers=0, every=8), slowly)
"""
SHARED_PLAN = GalleryOptions(batch=32, workers=0, every=8)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.families)])
def test_one_of_several_processes_is_killed_and_the_next_start_goes_on(victim: int, tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    out = tmp_path / "killed"
    with subprocess.Popen(
        [*torchrun, str(out)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as leader:
        deadline = time.monotonic() + 120
        while not (out / WORK / NAME).exists():
            assert time.monotonic() < deadline
            assert leader.poll() is None
            time.sleep(0.02)
        workers = [
            child for child in psutil.Process(leader.pid).children(recursive=True) if str(script) in child.cmdline()
        ]
        ranks = {int(child.environ().get("RANK", -1)): child for child in workers}
        ranks[victim].send_signal(signal.SIGKILL)
        assert leader.wait(120) != 0
    assert not (out / MANIFEST).exists()
    assert load_checkpoint(out / WORK)[0] is not None
    network, source = vizapp.load("lenet5-digits", device="cpu"), vizapp.open_folder("digits")
    assert "Resumed" in build(network, source, network.sites, out, SHARED_PLAN)
    build(network, source, network.sites, tmp_path / "whole", SHARED_PLAN)
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.slow
def test_a_flipped_byte_in_a_finished_gallery_is_told_and_the_next_start_makes_it_again(
    network, photos, whole, tmp_path
) -> None:
    out, source = tmp_path / "gallery", vizapp.open_folder(photos)
    build(network, source, network.sites, out, PLAN)
    for name, content in whole.items():
        for share, flip in ((0, 0x01), (1 / 3, 0x55), (1 / 2, 0xFF)):
            damaged = bytearray(content)
            damaged[int(share * len(content))] ^= flip
            (out / name).write_bytes(damaged)
            with refuses("gallery-damaged", name):
                found = open_gallery(out)
                for site in found.sites:
                    found.rows(site)
        (out / name).write_bytes(content)
    (out / sorted(whole)[0]).write_bytes(whole[sorted(whole)[0]][:-1] + b"!")
    assert "damaged" in build(network, source, network.sites, out, PLAN)
    assert files(out) == whole
    assert build(network, source, network.sites, out, PLAN) == "The gallery was there already."


def test_a_gallery_without_checksums_of_an_earlier_version_is_read(network, photos, whole, tmp_path) -> None:
    out, source = tmp_path / "gallery", vizapp.open_folder(photos)
    build(network, source, network.sites, out, PLAN)
    manifest = json.loads((out / MANIFEST).read_text())
    del manifest["checksums"]
    (out / MANIFEST).write_text(json.dumps(manifest))
    assert len(open_gallery(out).rows(network.sites[0].name)) > 0
