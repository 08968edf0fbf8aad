"""Full disks, read-only folders and killed processes: an error message, and the next start works."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import vizapp
from tests.disks import small_disk
from tests.errors import refuses
from tests.media.files import saved
from vizapp.__main__ import main
from vizapp.zoo import catalogue, describe_all
from vizapp.zoo.weights import _LEFTOVER, download

NET = "vizapp/lenet5-digits"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "128k") as place:
        yield place


def write_protected(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


class Slow(BaseHTTPRequestHandler):
    """Sends the server's content in small pieces, or all at once."""

    def do_GET(self) -> None:
        content: bytes = self.server.content  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content), 4096):
            try:
                self.wfile.write(content[start : start + 4096])
            except OSError:
                return
            time.sleep(self.server.pause)  # type: ignore[attr-defined]

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def web() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.content, server.pause = os.urandom(300_000), 0.0  # type: ignore[attr-defined]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def url(web: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{web.server_port}/net.pth"


def test_a_full_disk_is_told_when_an_answer_is_saved_and_nothing_half_is_left(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "activations",
        "--network",
        "vizapp/zfnet-mini",
        "--picture",
        "coffee",
        "--unit",
        "features.relu1:0",
        "--device",
        "cpu",
    ]
    status = main([*asked, "--out", str(disk / "out")])
    err = capsys.readouterr().err
    assert status == 2
    assert "o space left" in err
    assert err.count("\n") == 1
    assert list((disk / "out").iterdir()) == []


def test_a_full_disk_is_told_when_weights_are_fetched_and_the_next_time_works(
    disk: Path, tmp_path: Path, web: ThreadingHTTPServer
) -> None:
    with pytest.raises(Exception, match=r"cannot write .*No space left"):
        download(url(web), disk / "net.pth")
    assert list(disk.iterdir()) == []
    download(url(web), tmp_path / "net.pth")
    assert (tmp_path / "net.pth").read_bytes() == web.content  # type: ignore[attr-defined]


def test_a_full_or_write_protected_cache_folder_costs_time_alone(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vizapp.zoo import registry

    (disk / "full").write_bytes(bytes(120_000))
    monkeypatch.setenv("VIZAPP_CACHE", str(disk / "cache"))
    known = describe_all()
    for protected in (False, True):
        if protected:
            write_protected(disk)
        registry._cards.cache_clear()
        assert describe_all() == known
        assert not list(disk.glob("cache/*"))
    assert vizapp.load(NET, device="cpu").digest
    registry._cards.cache_clear()


def test_a_write_protected_folder_is_told(
    disk: Path, web: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    write_protected(disk)
    with pytest.raises(Exception, match=r"cannot write .*Read-only"):
        download(url(web), disk / "net.pth")
    asked = ["predict", "--network", NET, "--picture", "digit 3", "--device", "cpu", "--out", str(disk / "out")]
    assert main(asked) == 2
    assert "ead-only" in capsys.readouterr().err


FETCH = """
import sys
from pathlib import Path
from vizapp.zoo.weights import download
download(sys.argv[1], Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_process_killed_during_a_download_leaves_nothing_that_is_read(
    web: ThreadingHTTPServer, tmp_path: Path
) -> None:
    target = tmp_path / "hub" / "net.pth"
    web.pause = 0.05  # type: ignore[attr-defined]
    with subprocess.Popen([sys.executable, "-c", FETCH, url(web), str(target)], cwd=ROOT) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("hub/*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    (part,) = tmp_path.glob("hub/*.part")
    web.pause = 0.0  # type: ignore[attr-defined]
    download(url(web), target)
    assert target.read_bytes() == web.content  # type: ignore[attr-defined]
    assert part.exists()  # it might be another process's, at work
    os.utime(part, (0, time.time() - _LEFTOVER - 10))
    download(url(web), target)
    assert not part.exists()


def test_a_half_written_list_of_networks_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process had been killed between any two bytes."""
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    cards = {name: card for name, card in describe_all().items() if name.startswith("vizapp/")}
    catalogue.catalogue(lambda: dict(cards))
    file = tmp_path / "networks.json"
    whole = file.read_bytes()
    assert json.loads(whole)
    for length in range(0, len(whole), len(whole) // 12):
        file.write_bytes(whole[:length])
        assert catalogue.catalogue(lambda: dict(cards)) == cards


def test_a_damaged_file_of_weights_is_told_and_a_good_one_read_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_WEIGHTS", str(tmp_path))
    good = vizapp.load("torchvision/squeezenet1_1", weights="none", device="cpu")
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    torch.save(good.module.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with refuses("checkpoint-damaged", "truncated"):
        vizapp.load("torchvision/squeezenet1_1", device="cpu")
    path.write_bytes(whole)
    assert vizapp.load("torchvision/squeezenet1_1", device="cpu").digest == good.digest


def test_a_folder_in_the_place_of_the_list_of_networks_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    (tmp_path / "networks.json").mkdir()
    cards = {name: card for name, card in describe_all().items() if name.startswith("vizapp/")}
    assert catalogue.catalogue(lambda: dict(cards)) == cards
    assert list(tmp_path.iterdir()) == [tmp_path / "networks.json"]


LIMITED = """
import resource, sys
from vizapp.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gallery", "architecture"])
def test_a_file_that_may_not_grow_is_told_on_the_command_line(method: str, tmp_path: Path) -> None:
    """As on a disk that is full, for whoever may mount none."""
    more = ["--folder", "samples", "--sites", "features.4"] if method == "gallery" else []
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, method, "--network", NET, "--device", "cpu", *more, "--out", str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"VIZAPP_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# What people give to the app


def zipped(count: int) -> bytes:
    """A zip file of some pictures that hardly get smaller."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
            archive.writestr(f"cat/{number}.png", saved(pixels))
    return stream.getvalue()


def test_an_upload_for_which_there_is_no_room_is_told_and_taken_later(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(disk / "cache"))
    with refuses("unwritable", "No space left"):
        vizapp.open_folder(zipped(20))
    assert not [path for path in disk.rglob("*") if path.is_file()], "a full disk needs the room"
    assert len(vizapp.open_folder(zipped(4))) == 4


@pytest.mark.parametrize("damage", ["empty", "cut off", "random", "a folder"])
def test_a_kept_upload_that_was_damaged_is_replaced_when_it_is_given_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    content = zipped(3)
    path = Path(vizapp.open_folder(content).root)
    if damage == "a folder":
        path.unlink()
        path.mkdir()
        with refuses("unwritable", "directory"):
            vizapp.open_folder(content)
        path.rmdir()
    else:
        path.write_bytes({"empty": b"", "cut off": content[:99], "random": os.urandom(len(content))}[damage])
    found = vizapp.open_folder(content)
    assert len(found) == 3
    assert found.open(2).height == 64
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_for_which_there_is_no_room_is_told_and_taken_later(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vizapp.ui.inputs import networks, uploads

    class Place:
        name = str(disk / "given")

    monkeypatch.setattr(networks, "_uploaded_files", Place)
    monkeypatch.setattr(uploads, "register", lambda *_: None)
    with refuses("checkpoint-not-stored", "net.pth", "No space left"):
        networks.keep_checkpoint(os.urandom(500_000), "net.pth")
    assert not [path for path in disk.rglob("*") if path.is_file()]
    assert networks.checkpoint(networks.keep_checkpoint(b"small", "net.pth"))[0].read_bytes() == b"small"
    write_protected(disk)
    with refuses("checkpoint-not-stored", "Read-only"):
        networks.keep_checkpoint(b"other", "net.pth")


def test_a_film_for_which_there_is_no_room_is_told_and_never_half(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vizapp.media.film import to_gif, to_webm

    frames = list(np.random.default_rng(0).integers(0, 256, (30, 128, 128, 3), np.uint8))
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - 8192))
    with refuses("film-not-written", "of 30 frames"):
        to_webm(frames)
    assert list(disk.iterdir()) == [filler]
    write_protected(disk)
    with refuses("film-not-written", "Read-only"):
        to_webm(frames)
    assert to_gif(frames)[:3] == b"GIF", "made in memory"
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert to_webm(frames)


def test_a_data_set_whose_files_are_damaged_is_told_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vizapp.media import datasets

    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    raw = tmp_path / "datasets" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind, dimensions in (("images-idx3", 3), ("labels-idx1", 1)):
            (raw / f"{part}-{kind}-ubyte").write_bytes(bytes([0, 0, 8, dimensions]) + os.urandom(7))
    with pytest.raises(vizapp.VizError, match=r"data set FashionMNIST is not in .* could not be downloaded"):
        vizapp.open_folder("torchvision/FashionMNIST")

    class Damaged:
        targets = (0, 1)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> object:
            raise OSError("image file is truncated")

    monkeypatch.setattr(datasets, "_dataset", lambda *_: Damaged())
    source = vizapp.open_folder("torchvision/FashionMNIST")
    with pytest.raises(vizapp.VizError, match="Item 1 of FashionMNIST cannot be read: image file is truncated"):
        source.open(1)
    with pytest.raises(vizapp.VizError, match=r"None of the 2 photos .* can be read"):
        vizapp.ask("gallery", vizapp.load(NET, device="cpu"), folder=source, workers=0, out=str(tmp_path / "out"))


def offline(*_: object, **__: object) -> object:
    raise OSError("Network is unreachable")


def test_a_log_that_cannot_be_written_stops_nobody(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vizapp.ui.session import access_log

    (disk / "filler").write_bytes(bytes(131_072 - 4096))
    (disk / "log").write_bytes(b"")
    for place in (disk / "log", disk / "none" / "log", disk):
        monkeypatch.setenv("VIZAPP_LOG", str(place))
        for _ in range(50):
            access_log.write("answer", text="x" * 200)

    class Full:
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setenv("VIZAPP_LOG", "-")
    monkeypatch.setattr(sys, "stderr", Full())
    access_log.write("answer")
