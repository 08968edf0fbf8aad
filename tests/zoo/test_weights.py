"""Where published weights come from: offline folder, hub cache, or the web (a small local server)."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

import vizapp
from tests.errors import refuses
from vizapp.zoo import bundled, registry, weights
from vizapp.zoo.recipe import Published, Recipe

NAME = "vizapp/resnet20-cifar"


class Web:
    """What the server has, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.promised = 0  # bytes that Content-Length says on top of those that are sent
        self.asked: list[str] = []
        self.url = ""


@pytest.fixture
def web() -> Iterator[Web]:
    there = Web()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there.asked.append(self.path)
            content = there.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + there.promised))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    there.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield there
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def checkpoint(tmp_path: Path) -> bytes:
    """A file of weights for `NAME` that are not those of weights="none"."""
    network = vizapp.load(NAME, weights="none", device="cpu")
    state = {key: value + 1 for key, value in network.module.state_dict().items()}
    torch.save(state, tmp_path / "made.th")
    return (tmp_path / "made.th").read_bytes()


@pytest.fixture
def publish(web: Web, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Puts the checkpoint on the web under a file name and makes it the published one of `NAME`."""

    def at(file: str) -> str:
        real = bundled._ROWS["resnet20-cifar"]

        def recipe(name: str) -> Recipe:
            return replace(real(name), published=Published(file, web.url + file))

        monkeypatch.setitem(bundled._ROWS, "resnet20-cifar", recipe)
        web.files[file] = checkpoint
        return file

    return at


def in_hub(hub: Path) -> list[str]:
    return sorted(path.name for path in hub.iterdir()) if hub.exists() else []


def test_a_download_shows_progress_is_kept_and_is_done_once(
    web: Web, publish: Callable[[str], str], checkpoint: bytes, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_CHUNK", 100_000)
    file = publish(f"net-{hashlib.sha256(checkpoint).hexdigest()[:8]}.th")
    shares: list[float] = []
    network = vizapp.load(NAME, device="cpu", tick=shares.append)
    assert len(shares) > 3
    assert shares == sorted(shares)
    assert in_hub(hub) == [file]
    assert (hub / file).read_bytes() == checkpoint
    assert (network.weights, network.categories[0]) == ("default", "airplane")
    assert vizapp.load(NAME, device="cpu").digest == network.digest
    assert web.asked == [f"/{file}"]


def test_what_one_person_downloads_others_may_read(publish: Callable[[str], str], hub: Path) -> None:
    """As far as the machine's owner lets files be read by default."""
    file, before = publish("net.th"), os.umask(0o022)
    try:
        vizapp.load(NAME, device="cpu")
    finally:
        os.umask(before)
    assert oct((hub / file).stat().st_mode & 0o777) == "0o644"


def test_a_file_of_the_cache_that_may_not_be_read_is_told(
    publish: Callable[[str], str], checkpoint: bytes, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = publish(f"net-{hashlib.sha256(checkpoint).hexdigest()[:8]}.th")
    hub.mkdir(parents=True)
    (hub / file).write_bytes(checkpoint)
    recipe, opened = registry.find_recipe(NAME), Path.open

    def closed(self: Path, *args: Any, **kwargs: Any) -> Any:  # root may read everything
        if self == hub / file:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)
    for ask in (partial(vizapp.load, NAME, device="cpu"), partial(weights.is_damaged_copy, recipe, hub / file)):
        with refuses("unreadable", "net-", "VIZAPP_WEIGHTS"):
            ask()


def test_a_download_that_is_cut_off_leaves_nothing(web: Web, publish: Callable[[str], str], hub: Path) -> None:
    publish("net.th")
    web.promised = 1000
    with refuses("download-failed", "bytes"):
        vizapp.load(NAME, device="cpu")
    assert in_hub(hub) == []


def test_a_download_with_the_wrong_digest_leaves_nothing(publish: Callable[[str], str], hub: Path) -> None:
    publish("net-00000000.th")
    with refuses("download-failed", "sha256"):
        vizapp.load(NAME, device="cpu")
    assert in_hub(hub) == []


def test_a_file_that_the_server_does_not_have_is_answered_with_a_sentence(
    web: Web, publish: Callable[[str], str], hub: Path
) -> None:
    del web.files[publish("net.th")]
    with refuses("download-failed", "404", "VIZAPP_WEIGHTS"):
        vizapp.load(NAME, device="cpu")
    assert in_hub(hub) == []


def test_who_leaves_during_a_download_leaves_nothing(publish: Callable[[str], str], hub: Path) -> None:
    class Leave(Exception):
        pass

    def tick(share: float) -> None:
        raise Leave

    publish("net.th")
    with pytest.raises(Leave):
        vizapp.load(NAME, device="cpu", tick=tick)
    assert in_hub(hub) == []


@pytest.mark.parametrize("damage", ["empty", "cut off", "random"])
def test_a_damaged_file_of_the_cache_is_fetched_again(
    web: Web, publish: Callable[[str], str], checkpoint: bytes, hub: Path, damage: str
) -> None:
    file = publish(f"net-{hashlib.sha256(checkpoint).hexdigest()[:8]}.th")
    digest = vizapp.load(NAME, device="cpu").digest
    damaged = {"empty": b"", "cut off": checkpoint[: len(checkpoint) // 2], "random": os.urandom(len(checkpoint))}[
        damage
    ]
    (hub / file).write_bytes(damaged)
    content = web.files.pop(file)
    with refuses("download-failed", "404"):
        vizapp.load(NAME, device="cpu")
    assert (hub / file).read_bytes() == damaged, "nothing is deleted that cannot be had again"
    web.files[file] = content
    assert vizapp.load(NAME, device="cpu").digest == digest
    assert in_hub(hub) == [file]
    assert (hub / file).read_bytes() == checkpoint


def test_a_folder_in_the_place_of_a_file_of_the_cache_is_told(publish: Callable[[str], str], hub: Path) -> None:
    file = publish("net.th")
    (hub / file).mkdir(parents=True)
    with refuses("download-failed", "write"):
        vizapp.load(NAME, device="cpu")
    (hub / file).rmdir()
    assert vizapp.load(NAME, device="cpu").digest


def test_a_whole_file_that_does_not_fit_is_not_fetched_again(
    web: Web, publish: Callable[[str], str], checkpoint: bytes, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what its name promises: the fault is not the cache's."""
    publish(f"net-{hashlib.sha256(checkpoint).hexdigest()[:8]}.th")
    vizapp.load(NAME, device="cpu")

    def refuse(path: Path) -> None:
        raise vizapp.VizError("no", code="no")

    monkeypatch.setattr(registry, "read_checkpoint", refuse)
    with refuses("no"):
        vizapp.load(NAME, device="cpu")
    assert len(web.asked) == 1


def test_without_a_network_the_sentence_says_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> Recipe:
        return replace(real(name), published=Published("net.th", "http://127.0.0.1:9/net.th"))

    real = bundled._ROWS["resnet20-cifar"]
    monkeypatch.setitem(bundled._ROWS, "resnet20-cifar", unreachable)
    with refuses("download-failed", "net.th", "http://127.0.0.1:9/net.th", "VIZAPP_WEIGHTS", 'weights="none"'):
        vizapp.load(NAME, device="cpu")
    assert in_hub(hub) == []


def test_a_cache_that_cannot_be_written_is_answered_with_a_sentence(publish: Callable[[str], str], hub: Path) -> None:
    publish("net.th")
    hub.parent.parent.mkdir(parents=True, exist_ok=True)
    hub.parent.write_text("a file where the folder should be")
    with refuses("download-failed", "write"):
        vizapp.load(NAME, device="cpu")


@pytest.mark.parametrize("place", ["net.th", "resnet20-cifar.pth", "resnet20-cifar.ckpt", "vizapp/resnet20-cifar.th"])
def test_the_offline_folder_comes_first(
    place: str,
    web: Web,
    publish: Callable[[str], str],
    checkpoint: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish("net.th")
    path = tmp_path / "offline" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoint)
    monkeypatch.setenv("VIZAPP_WEIGHTS", str(tmp_path / "offline"))
    assert vizapp.load(NAME, device="cpu").weights == "default"
    assert web.asked == []


def test_the_hub_cache_comes_before_the_web(
    web: Web, publish: Callable[[str], str], checkpoint: bytes, hub: Path
) -> None:
    hub.mkdir(parents=True)
    (hub / publish("net.th")).write_bytes(checkpoint)
    vizapp.load(NAME, device="cpu")
    assert web.asked == []


def test_published_weights_know_their_number_of_classes(publish: Callable[[str], str], tmp_path: Path) -> None:
    publish("net.th")
    with refuses("class-count-mismatch", "10 classes", "5"):
        vizapp.load(NAME, device="cpu", classes=5)
    assert vizapp.load(NAME, device="cpu", classes=list("abcdefghij")).categories[1] == "b"


def test_published_torchvision_weights_load_from_the_offline_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = vizapp.load("squeezenet1_1", weights="none", device="cpu")
    torch.save(made.module.state_dict(), tmp_path / "squeezenet1_1-b8a52dc0.pth")
    monkeypatch.setenv("VIZAPP_WEIGHTS", str(tmp_path))
    network = vizapp.load("squeezenet1_1", device="cpu")
    assert network.digest == made.digest
    assert "58.18 %" in network.facts["accuracy"]


def test_a_missing_asset_is_answered_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "ASSETS", tmp_path)
    with refuses("weights-missing"):
        vizapp.load("vizapp/zfnet-mini")
    assert len(vizapp.load("vizapp/zfnet-mini", weights="none", device="cpu").categories) == 101


def test_timm_takes_published_weights_from_the_offline_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    made = vizapp.load("timm/mobilenetv3_small_050", weights="none", device="cpu")
    (tmp_path / "timm").mkdir()
    torch.save(made.module.state_dict(), tmp_path / "timm" / "mobilenetv3_small_050.pth")
    monkeypatch.setenv("VIZAPP_WEIGHTS", str(tmp_path))
    assert vizapp.load("timm/mobilenetv3_small_050", device="cpu").digest == made.digest


def test_local_networks_are_those_whose_weights_need_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place where weights are looked for, against `needs_download`, which asks for one network."""
    monkeypatch.setenv("VIZAPP_WEIGHTS", str(tmp_path / "offline"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    planted = {
        "torchvision/resnet18": weights._hub_folder() / "resnet18-f37072fd.pth",
        "torchvision/alexnet": tmp_path / "offline/alexnet-owt-7be5be79.pth",
        "torchvision/vgg11": tmp_path / "offline/vgg11.safetensors",
        "timm/resnet34": tmp_path / "offline/timm/resnet34.pt",
        "timm/resnet18": snapshot / "snapshots/0a/model.safetensors",
        "vizapp/resnet20-cifar": tmp_path / "offline/vizapp/resnet20-cifar.th",
        "timm/resnet26": tmp_path / "offline/something.pth",  # is not it
    }
    for file in (*planted.values(), snapshot / "refs/main"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0a")
    names = [*planted, *vizapp.list_networks()[::50]]
    found = weights.find_local(map(registry.describe, names))
    assert {name for name in planted if name in found} == set(planted) - {"timm/resnet26"}
    for name in names:
        recipe = registry.find_recipe(name)
        assert (name in found) == (recipe.published is not None and not weights.needs_download(recipe)), name
