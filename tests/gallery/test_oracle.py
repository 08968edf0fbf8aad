"""Galleries against NumPy: the network runs on each picture alone, everything is kept, and sorting finds the top pictures.

The network rounds nothing, so that a picture gives the same bits in every batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import vizapp
from tests.errors import refuses
from tests.media.files import saved
from vizapp.gallery import Gallery, GalleryOptions, Progress, build, open_gallery
from vizapp.gallery.build import open_partial_gallery
from vizapp.zoo.network import Network

SIZE = (3, 4, 5)
MOST = 200  # pictures
BROKEN = b"\x89PNG\r\n\x1a\nbroken"


class Odd(nn.Module):
    """Maps with ties, signs, NaN and infinities: nothing is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.floor(x[:, :1] * 4)  # many equal cells and pictures
        red, green = x[:, :1], x[:, 1:2]
        return torch.cat(
            [
                x, -x, steps, -steps, red - 2, red * 0, green * -0.0, torch.where(red > 0.5, green * 0, green * -0.0),
                red * 0 + 3, torch.where(red > 0.9, math.nan, green), torch.where(red > 0.9, math.nan, -1 - green),
                torch.where(red > 0.85, math.inf, green), torch.where(green > 0.85, -math.inf, red), red * math.nan,
            ],
            1,
        )  # fmt: skip


class Largest(nn.Module):
    """A vector: the largest cell of each map, and less."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax((2, 3)), -x.amax((2, 3))], 1)


@dataclass(frozen=True)
class World:
    """A network, pictures, and all activations `[N C cells]` of each site."""

    network: Network
    files: tuple[bytes, ...]
    values: dict[str, np.ndarray]

    def folder(self, root: Path, count: int, damaged: Sequence[int] = ()) -> Path:
        """A folder of the first `count` pictures."""
        root.mkdir(parents=True)
        for number, content in enumerate(self.files[:count]):
            (root / f"{number:03d}.png").write_bytes(BROKEN if number in damaged else content)
        return root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    module = nn.Sequential(Odd(), nn.ReLU(), Largest())
    network = vizapp.wrap(module, SIZE, mean=0.0, std=1.0, name="odd", resize=SIZE[1])
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (MOST, *SIZE[1:], 3), dtype=np.uint8)
    pixels[3::5] = pixels[2::5]  # equal pictures
    # The brightest pictures come last, at whole steps: each batch has pictures that enter the top k and few that stay.
    pixels = np.maximum(pixels // 2, np.arange(MOST)[:, None, None, None] % 32 * 8).astype(np.uint8)
    pixels[7::40] = 0
    found = dict[str, list[np.ndarray]]()
    for picture in pixels:
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        for name, part in zip(("0.cat", "1", "2.cat"), module, strict=True):
            x = part(x)
            found.setdefault(name, []).append(x.flatten(2).numpy() if x.ndim == 4 else x[:, :, None].numpy())
    values = {name: np.concatenate(many) for name, many in found.items()}
    return World(network, tuple(saved(one) for one in pixels), values)


def expected_rows(values: np.ndarray, pictures: Sequence[int], top: int) -> pd.DataFrame:
    """The rows of a site by sorting: `values` `[N C cells]` of all pictures, of which those `pictures` can be read."""
    rows, peaks = [], values.max(2)  # NaN where there is any
    for channel in range(values.shape[1]):
        known = [number for number in pictures if peaks[number, channel] > -math.inf]
        for rank, number in enumerate(sorted(known, key=lambda n: (-peaks[n, channel], n))[:top]):
            cell = values[number, channel].tolist().index(peaks[number, channel])
            rows.append((channel, rank, peaks[number, channel], number, *divmod(cell, SIZE[2])))
    return pd.DataFrame(rows, columns=["channel", "rank", "activation", "picture", "row", "column"])


def expected_statistics(values: np.ndarray, rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """The statistics of each unit of a site, from the activations `[N C cells]` of the readable pictures."""
    for channel in range(values.shape[1]):
        maps = values[:, channel].astype(np.float64)
        peaks = maps.max(1)  # NaN where there is any
        finite, known = np.isfinite(maps).all(1), peaks[~np.isnan(peaks)]
        top = rows.activation[rows.channel == channel].to_numpy(np.float64)
        top = top[np.isfinite(top)]
        mean_maximum = peaks[finite].mean() if finite.any() else math.nan
        a, b = (max(0.0, top.mean()) if len(top) else 0.0), (max(0.0, mean_maximum) if finite.any() else 0.0)
        yield {
            "mean": maps[finite].mean() if finite.any() else math.nan,
            "maximum": known.max() if len(known) else math.nan,
            "mean_maximum": mean_maximum,
            "zero_pictures": (maps == 0).all(1).mean(),
            "zero_positions": (maps == 0).mean(),
            "not_finite": (~finite).sum(),
            "selectivity": min(1.0, max(0.0, (a - b) / (a + b))) if a + b > 0 and len(top) else 0.0,
            "dead": not (peaks > 0).any(),
            "always_on": (peaks > 0).all(),
        }


def check(world: World, found: Gallery, count: int, damaged: Sequence[int], top: int) -> None:
    """Check all rows and statistics of a gallery."""
    pictures = [number for number in range(count) if number not in damaged]
    assert [entry["picture"] for entry in found.unreadable] == sorted(damaged)
    for site in found.sites:
        values = world.values[site]
        rows = expected_rows(values, pictures, top)
        table = found.rows(site)
        assert table["path"].tolist() == [f"{number:03d}.png" for number in table["picture"]]
        for name in rows.columns:
            wanted = 0 if values.shape[2] == 1 and name in ("row", "column") else rows[name].to_numpy()
            np.testing.assert_array_equal(table[name].to_numpy(), wanted, f"{site} {name}")
        expected = pd.DataFrame(expected_statistics(values[pictures], rows))
        units = found.units_of(site)
        for name in expected.columns:
            given, wanted = units[name].to_numpy(np.float64), expected[name].to_numpy(np.float64)
            np.testing.assert_allclose(given, wanted, 1e-6, 1e-9, err_msg=f"{site} {name}")


def sites(world: World, names: Sequence[str] = ("0.cat", "1", "2.cat")):  # type: ignore[no-untyped-def]
    return [world.network.site(name) for name in names]


def tried(
    world: World, place: Path, count: int, batch: int, damaged: Sequence[int] = (), top: int = 9, **options
) -> None:  # type: ignore[no-untyped-def]
    folder = world.folder(place / "in", count, damaged)
    plan = GalleryOptions(top, batch, **{"workers": 0} | options)
    build(world.network, vizapp.open_folder(folder), sites(world), place / "out", plan)
    check(world, open_gallery(place / "out"), count, damaged, top)


@pytest.mark.parametrize(
    ("count", "batch", "damaged"),
    [
        (1, 16, ()), (9, 4, ()), (20, 16, ()), (29, 16, ()), (40, 33, ()), (19, 16, range(12, 19)), (19, 16, range(7)),
        (24, 8, range(8, 16)), (24, 8, [*range(8, 15), *range(16, 24)]), (12, 5, range(1, 12)), (20, 1, (0, 19)),
    ],
)  # fmt: skip
def test_rows_and_statistics_are_those_of_all_pictures(world, tmp_path, count, batch, damaged) -> None:
    tried(world, tmp_path, count, batch, damaged)


@pytest.mark.parametrize(("broken", "best"), [(0, range(19, 10, -1)), (7, range(11, 2, -1))])
def test_brighter_pictures_come_first(tmp_path, broken: int, best: range) -> None:
    """20 pictures of rising brightness, or 12 with 7 damaged files, of a convolution that sums."""
    conv = nn.Conv2d(3, 4, 3)
    nn.init.constant_(conv.weight, 1.0)
    nn.init.zeros_(conv.bias)
    module = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = vizapp.wrap(module, (3, 32, 32), mean=0.0, std=1.0)
    (tmp_path / "in").mkdir()
    for number in range(12 + 7 if broken else 20):
        content = BROKEN if broken and number >= 12 else saved(np.full((32, 32, 3), 10 * number, np.uint8))
        (tmp_path / "in" / f"{number:02}.png").write_bytes(content)
    vizapp.ask("gallery", network, folder=tmp_path / "in", sites="0", out=str(tmp_path / "out"), workers=0)
    for channel in range(4):
        assert open_gallery(tmp_path / "out").rows("0", channel)["picture"].tolist() == list(best)


def outdate(path: Path) -> None:
    """Make a file look as if the version before the mend of short batches had written it."""
    text = path.read_bytes()
    assert b'"format": 2' in text or b"checkpoint 2" in text
    path.write_bytes(text.replace(b'"format": 2', b'"format": 1').replace(b"checkpoint 2", b"checkpoint 1"))


def test_a_gallery_of_an_earlier_version_is_recognised_and_built_again(world, tmp_path) -> None:
    place, out = world.folder(tmp_path / "in", 20), tmp_path / "out"
    source, plan = vizapp.open_folder(place), GalleryOptions(batch=16, workers=0, every=1)
    build(world.network, source, sites(world), out, plan)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    outdate(out / "_manifest.json")
    with refuses("gallery-outdated", str(out)):
        open_gallery(out)
    with refuses("gallery-outdated", str(out)):
        open_partial_gallery(world.network, source, sites(world), out)
    with refuses("folder-holds-other-gallery"):
        build(world.network, source, sites(world, ["1"]), out, plan)

    def stop(progress: Progress) -> None:
        if progress.pictures == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(world.network, source, sites(world), out, plan, stop)
    assert open_partial_gallery(world.network, source, sites(world), out).seen == 16
    outdate(out / "_work" / "checkpoint")
    assert "earlier version" in build(world.network, source, sites(world), out, plan)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


def test_a_checkpoint_of_an_earlier_version_is_not_taken(world, tmp_path) -> None:
    place, out = world.folder(tmp_path / "in", 40), tmp_path / "out"
    source, plan = vizapp.open_folder(place), GalleryOptions(batch=16, workers=0, every=1)

    def stop(progress: Progress) -> None:
        if progress.pictures == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(world.network, source, sites(world), out, plan, stop)
    outdate(out / "_work" / "checkpoint")
    (out / "_work" / "checkpoint.previous").unlink()
    assert "earlier version" in build(world.network, source, sites(world), out, plan)
    check(world, open_gallery(out), 40, (), 9)


@pytest.mark.slow
def test_every_batch_size_and_damages_at_every_place(world, tmp_path) -> None:
    """All batch sizes 1 … 33 with folders of 1 … 200 pictures; runs of damaged files from one to all but one."""
    random = np.random.default_rng(1)
    counts = [1, 200, *random.permutation(np.arange(2, 200))[:64].tolist()]
    for number, count in enumerate(counts):
        batch = number % 33 + 1
        first = int(random.integers(count))
        length = min(int(random.choice([0, 1, batch - 1, batch, count - 1])), count - 1)
        damaged = {(first + n) % count for n in range(length)}  # at the first, the last, whole batches, all but one
        damaged -= {0, count - 1} if number % 3 == 0 else set()
        tried(world, tmp_path / str(number), count, batch, sorted(damaged), top=int(random.choice([1, 3, 9, 30])))


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_bring_the_same_pictures(world, tmp_path, workers: int) -> None:
    tried(world, tmp_path, 29, 4, (0, 5, 6, 7, 28), workers=workers)


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_batches_in_parts_and_with_little_memory(world, tmp_path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """A batch of 8 runs in passes of `limit`; then passes run out of memory and halve themselves, down to copies alone."""
    monkeypatch.setattr(type(world.network), "batch_limit", lambda *_: limit)
    tried(world, tmp_path / "limited", 29, 8, (3, 24))
    monkeypatch.setattr(type(world.network), "batch_limit", lambda self, most, *_: most)

    def forward(self: Largest, x: Tensor) -> Tensor:
        if len(x) > limit:
            raise torch.OutOfMemoryError
        return Largest.kept(self, x)

    monkeypatch.setattr(Largest, "kept", Largest.forward, raising=False)
    monkeypatch.setattr(Largest, "forward", forward)
    tried(world, tmp_path / "starved", 29, 8, (3, 24, 25, 26))


@pytest.mark.parametrize("every", [1, 3])
def test_a_pass_that_is_stopped_anywhere_goes_on_to_the_same_rows(world, tmp_path, every: int) -> None:
    """It stops at every call of the watcher in turn, so also inside batches, until it is through."""
    folder, damaged = world.folder(tmp_path / "in", 23, (0, 7, 8, 22)), (0, 7, 8, 22)
    source, out, calls = vizapp.open_folder(folder), tmp_path / "out", 0

    def stop(progress: Progress) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    for calls in range(100):
        left = calls
        with contextlib.suppress(KeyboardInterrupt):
            build(world.network, source, sites(world), out, GalleryOptions(batch=4, workers=0, every=every), stop)
            break
    assert calls > 5
    check(world, open_gallery(out), 23, damaged, 9)
