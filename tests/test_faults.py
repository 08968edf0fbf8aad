"""Full disks, folders that cannot be written, processes that are killed: a sentence, and the next start works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import vizapp
from vizapp.__main__ import main
from vizapp.zoo import catalogue, describe_all
from vizapp.zoo.weights import _LEFTOVER, download

NET = "vizapp/lenet5-digits"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 128 KB, which only the superuser can have."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


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
    with pytest.raises(vizapp.VizError, match="cut off"):
        vizapp.load("torchvision/squeezenet1_1", device="cpu")
    path.write_bytes(whole)
    assert vizapp.load("torchvision/squeezenet1_1", device="cpu").digest == good.digest
