"""A server in server mode while strangers send it what froze or filled it once: it answers its health check all the while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.media.files import noise, saved
from tests.media.test_odd_kinds import rle_bitmap
from tests.media.test_slow_files import in_jpeg, segment, tiff_numbers
from tests.test_strange_texts import ODD, _garbled
from tests.ui.visitor import Visitor, Watch, serving
from tests.zoo.test_odd_checkpoints import tensors
from tests.zoo.test_pickle_scan import packed
from vizapp.settings import settings

pytestmark = pytest.mark.slow
NET = "network=vizapp/lenet5-digits"
WAIT, BYTES = 1.0, 10**9  # seconds for a health check, bytes that the server may grow by
Server = tuple[str, psutil.Process]
SLOW = rle_bitmap(3400)  # decoding would take longer than the limit of 20 s


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that visitors may open, with a pipe and a link to a device."""
    root = tmp_path_factory.mktemp("root")
    (root / "birds").mkdir()
    (root / "birds" / "one.png").write_bytes(saved(noise(28, 28)))
    (root / "slow").mkdir()
    (root / "slow" / "slow.bmp").write_bytes(SLOW)
    os.mkfifo(root / "pipe.pth")
    (root / "device.pth").symlink_to("/dev/zero")
    return root


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "log"
    with serving(settings().cache, log, VIZAPP_ROOT=str(root)) as (address, process):
        with Visitor(address, NET) as visitor:
            visitor.run("predict")
        yield address, process
    assert "Unexpected error" not in log.read_text()
    assert "Traceback" not in log.read_text()


def checked(watch: Watch) -> None:
    assert watch.probes
    assert not watch.failed
    assert (
        watch.longest < WAIT or watch.busy < WAIT
    )  # a busy machine makes everybody wait longer than the server computes
    assert watch.added < BYTES


def keys(count: int, size: int) -> bytes:
    """A pickled dictionary of long keys."""
    items = b"".join(b"X" + size.to_bytes(4, "little") + bytes([97 + n]) * size + b"K\0s" for n in range(count))
    return b"\x80\x02}" + items + b"."


HASH = b"\x80\x02}" + b")" + b"q\x01h\x01\x86" * 45 + b"K\x00s."
ARRAY = b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + (3 * 10**9).to_bytes(8, "little") + b"\x85R."
CHECKPOINTS = {
    "hash45.pth": (lambda: packed(HASH), "nested tuples"),
    "bare.pth": (lambda: HASH, "nested tuples"),
    "bytearray3G.pth": (lambda: packed(ARRAY), "bytearray"),
    "F4.safetensors": (lambda: tensors("F4", 4), "numbers of the type"),
    "long.pth": (lambda: packed(keys(3, 300_000)), "no weights"),
}


def test_no_checkpoint_holds_up_the_others(server: Server) -> None:
    address, process = server
    with Watch(address, process) as watch, Visitor(address, f"{NET}&weights=file") as visitor:
        visitor.run("predict")
        for name, (content, told) in CHECKPOINTS.items():
            visitor.upload("sidebar.checkpoint", name, content()).run()
            assert told in visitor.sentences(), name
            assert len(visitor.sentences()) < 5000, name
    checked(watch)


def test_no_text_holds_up_the_others(server: Server, root: Path) -> None:
    address, process = server
    texts = [ODD[kind] for kind in ("long", "deep", "nul", "no user")]
    with Watch(address, process) as watch, Visitor(address, f"{NET}&weights=file") as visitor:
        visitor.run("predict").put("sidebar.source", string_array_value=["Folder"]).run()
        for text in (*texts, "pipe.pth", "device.pth", str(root), "../secret", "/etc/passwd"):
            visitor.put("sidebar.checkpoint_path", string_value=text).put("sidebar.folder", string_value=text).run()
            assert visitor.sentences(), text
            assert str(root) not in visitor.sentences()
    checked(watch)


def test_a_garbled_zip_file_costs_its_member_alone(server: Server) -> None:
    address, process = server
    with Watch(address, process) as watch, Visitor(address, f"{NET}&layers=features.1") as visitor:
        visitor.run("gallery").put("gallery.source", string_array_value=["Upload"]).run()
        visitor.upload("gallery.upload", "lzma.zip", _garbled(14, False)).run()
        visitor.put("gallery.build", trigger_value=True).run()
        deadline = time.monotonic() + 30
        while not visitor.has("gallery.all.Gallery Parquet"):
            assert time.monotonic() < deadline
            assert not visitor.sentences()
            visitor.run()
    checked(watch)


PHOTOS = {
    "segments.jpg": lambda: in_jpeg(segment(0xE1, b"Exif\0\0" + bytes(20)))(200_000),
    "padding.jpg": lambda: in_jpeg(b"\xff")(20_000_000),
    "comment.ppm": lambda: b"P6\n#" + b"c" * 20_000_000,
    "numbers.tif": lambda: tiff_numbers(2_000_000),
    "large.png": lambda: saved(Image.new("L", (9900, 9900))),
}


def test_no_photo_holds_up_the_others(server: Server) -> None:
    """Each took the thread of the page for 3 to 10 s, in which it could not be cancelled."""
    address, process = server
    with Watch(address, process) as watch, Visitor(address, NET) as visitor:
        visitor.run("predict").put("sidebar.source", string_array_value=["Upload"]).run()
        for name, content in PHOTOS.items():
            visitor.upload("sidebar.upload", name, content()).send()
            visitor.wait(lambda one: "Decoding the photo" in one.texts() and one.has("Cancel"))
            until(lambda: slow_decoders(process))  # the page reads the file's header first, which may be long
            visitor.press("Cancel").run()
            assert "Cancelled." in visitor.texts(), name
        until(lambda: not slow_decoders(process))
    checked(watch)


def test_large_photos_of_several_people_take_little_memory(server: Server) -> None:
    """Their pixels, 4 × 75 MB, are in mapped files. They were pickled, and Pillow copied each to resize it: +5 GB for 12."""
    address, process = server
    photos = [saved(Image.new("RGB", (5000, 5000), (number * 60, 9, 9))) for number in range(4)]
    with Watch(address, process) as watch, ExitStack() as stack:
        visitors = [stack.enter_context(Visitor(address, NET)) for _ in photos]
        for visitor in visitors:
            visitor.run("predict").put("sidebar.source", string_array_value=["Upload"]).run()
        for number, (visitor, photo) in enumerate(zip(visitors, photos, strict=True)):
            visitor.upload("sidebar.upload", f"{number}.png", photo).send()
        for visitor in visitors:
            visitor.wait(lambda one: one.has("predict.bars") and "Decoding the photo" not in one.texts())
    checked(watch)
    assert watch.added < 120 * 2**20


def slow_decoders(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(params=["upload", "folder"])
def decoding(server: Server, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """A visitor whose photo is being decoded in a process of its own."""
    address, process = server
    with Watch(address, process) as watch:
        with Visitor(address, NET) as visitor:
            source = request.param.capitalize()
            visitor.run("predict").put("sidebar.source", string_array_value=[source]).run()
            if source == "Upload":
                visitor.upload("sidebar.upload", "slow.bmp", SLOW).send()
            else:
                visitor.put("sidebar.folder", string_value="slow").send()
            visitor.wait(lambda one: "Decoding the photo" in one.texts() and one.has("Cancel"))
            assert slow_decoders(process)
            yield visitor
        until(lambda: not slow_decoders(process))
    checked(watch)


def test_a_photo_that_takes_long_can_be_cancelled_and_asked_for_again(server: Server, decoding: Visitor) -> None:
    decoding.press("Cancel").run()
    assert "Cancelled." in decoding.texts()
    until(lambda: not slow_decoders(server[1]))
    decoding.press("Run again").send()
    decoding.wait(lambda one: "Decoding the photo" in one.texts())
    assert slow_decoders(server[1])


def test_another_photo_cancels_it(server: Server, decoding: Visitor) -> None:
    with Visitor(server[0], NET) as other:  # who does not wait for it
        other.run("predict")
        assert other.has("predict.bars")
    if decoding.has("sidebar.folder"):
        decoding.put("sidebar.folder", string_value="birds")
    else:
        decoding.upload("sidebar.upload", "quick.png", saved(noise(40, 40)))
    decoding.run()
    assert "Decoding" not in decoding.texts()
    assert decoding.has("predict.bars")
    until(lambda: not slow_decoders(server[1]))


def test_leaving_cancels_it(decoding: Visitor) -> None:
    """The connection is closed, and the decoder ends."""
    assert "Decoding the photo" in decoding.texts()
