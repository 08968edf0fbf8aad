"""Pixels of large pictures in mapped files: the same pixels, little memory, and a limit for all of them."""

from __future__ import annotations

import gc
import io
import os
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.disks import small_disk
from tests.errors import refuses
from tests.media.files import noise, saved
from vizapp.media import decoding, mapped, transforms
from vizapp.media.picture import open_picture
from vizapp.media.transforms import resize

PIXELS = noise(60, 44, seed=9)
PNG = saved(PIXELS)


def ticking(share: float) -> None:
    pass


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small pictures count as large ones."""
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoding, "LARGE", 1000)
    monkeypatch.setattr(mapped, "_BAND", 1000)


def test_a_large_picture_is_mapped_and_the_same(tmp_path: Path) -> None:
    plain, large = open_picture(PNG), open_picture(PNG, tick=ticking)
    assert mapped._mapping(plain.pixels) is None
    assert mapped._mapping(large.pixels) is not None
    assert np.array_equal(large.pixels, PIXELS)
    assert (large.digest, large.notes) == (plain.digest, plain.notes)
    assert not large.pixels.flags.writeable
    assert (
        list((tmp_path / "cache").iterdir()) == []
    )  # the file has no name, so that nothing is left when the process is killed
    assert np.array_equal(large.pixels[5:9, 3:7], PIXELS[5:9, 3:7])
    for size in ((20, 20), (90, 44), (60, 9), (31, 100)):
        expected = np.asarray(Image.fromarray(PIXELS).resize(size[::-1], Image.Resampling.BILINEAR))
        assert np.array_equal(resize(large.pixels, *size), expected)


@pytest.mark.parametrize("method", transforms._RESAMPLING)
@pytest.mark.parametrize("grey", [False, True])
def test_resizing_large_pictures_gives_the_bits_of_pillow(method, grey: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_LARGE", 0)
    pixels = PIXELS[:, :, 0].copy() if grey else PIXELS
    for size in ((20, 21), (90, 44), (60, 9), (60, 44), (31, 100), (1, 1), (200, 150)):
        expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], transforms._RESAMPLING[method]))
        assert np.array_equal(resize(pixels, *size, method), expected), size


@pytest.mark.parametrize("room", ["none on the disk", "none"])
def test_without_room_on_the_disk_the_pixels_come_another_way(
    room: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if room == "none":
        monkeypatch.delattr(os, "memfd_create")
    with small_disk(tmp_path / "cache", "4k"):
        picture = open_picture(PNG, tick=ticking)
        assert np.array_equal(picture.pixels, PIXELS)
        assert (mapped._mapping(picture.pixels) is None) == (room == "none")
    gc.collect()
    assert mapped._held == 0 or room != "none"


def test_the_memory_of_pixels_is_given_back_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "_BAND", 2**20)
    monkeypatch.setattr(transforms, "_LARGE", 2**24)
    stream = io.BytesIO()
    Image.new("RGB", (2500, 4000), (9, 8, 7)).save(stream, "PNG")  # 30 MB
    own, peak = psutil.Process(), [0]
    mapped_before = own.memory_info().shared
    decoded = open_picture(stream.getvalue(), tick=ticking)
    assert own.memory_info().shared - mapped_before < 2**23
    before, over = own.memory_info().rss, threading.Event()

    def weigh() -> None:
        while not over.wait(0.002):
            peak[0] = max(peak[0], own.memory_info().rss - before)

    thread = threading.Thread(target=weigh)
    thread.start()
    small = resize(decoded.pixels, 256, 128)
    over.set()
    thread.join()
    assert small.shape == (256, 128, 3)
    assert (small == (9, 8, 7)).all()
    assert peak[0] < 24 * 2**20  # Pillow's copy of all channels would be 40 MB
    assert own.memory_info().shared - mapped_before < 2**23


def test_there_is_room_for_so_many_bytes_and_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(mapped, "MOST", mapped._held + 2 * PIXELS.nbytes + 100)
    monkeypatch.setattr(mapped, "SECONDS", 0.3)
    kept = [open_picture(PNG, tick=ticking) for _ in range(2)]
    began = time.monotonic()
    with refuses("too-many-large-pictures"):
        open_picture(PNG, tick=ticking)
    assert time.monotonic() - began >= 0.3
    monkeypatch.setattr(mapped, "SECONDS", 60.0)
    threading.Timer(0.2, kept.clear).start()
    assert np.array_equal(open_picture(PNG, tick=ticking).pixels, PIXELS)


def test_a_picture_that_is_refused_or_cancelled_takes_no_room() -> None:
    gc.collect()
    before = mapped._held
    with refuses("picture-incomplete"):
        open_picture(PNG[:-3000], tick=ticking)
    assert mapped._held == before

    def leave(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_picture(PNG, tick=leave)
    assert mapped._held == before
