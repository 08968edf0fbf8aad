"""A table of photos holds what each photo gives by itself, for any interruptions, damages and processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from vizapp.engine.statistics.top_activations import TopKTracker
from vizapp.engine.tap import Tap
from vizapp.gallery.checkpoint import NAME, Checkpoint
from vizapp.gallery.collectors import Features, Predictions, TopActivations, class_columns, pooled
from vizapp.gallery.folder_pass import FolderPass, Input, PassOptions, Progress
from vizapp.gallery.photo_table import FILE, PhotoTable, collect, open_table
from vizapp.gallery.shards import Shards
from vizapp.gallery.store import MANIFEST, WORK
from vizapp.media.source import Source
from vizapp.media.transforms import View
from vizapp.zoo.network import Network

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = PassOptions(batch=8, workers=0, every=2)
UNREADABLE = {5, 33, 69}


class Leave(BaseException):
    """Leaving is no error."""


@pytest.fixture(scope="session")
def source(photos: Path) -> Source:
    return vizapp.open_folder(photos)


def collectors(network: Network, source: Source) -> list[Features | Predictions]:
    true = [None if number % 7 == 0 else number % 3 for number in range(len(source))]
    return [Features(network.sites), Predictions(network, true)]


def table(network: Network, source: Source, out: Path, options: PassOptions = OPTIONS, watch=None) -> PhotoTable:  # type: ignore[no-untyped-def]
    collect(network, source, collectors(network, source), out, options, watch)
    return open_table(out)


@pytest.fixture(scope="module")
def whole(network: Network, source: Source, tmp_path_factory: pytest.TempPathFactory) -> PhotoTable:
    return table(network, source, tmp_path_factory.mktemp("whole"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_row_is_what_the_photo_gives_by_itself(network: Network, source: Source, whole: PhotoTable) -> None:
    frame = whole.frame(["picture", "path", "label", "digest"])
    assert frame["picture"].tolist() == [number for number in range(len(source)) if number not in UNREADABLE]
    features = {site.name: whole.matrix(f"features.{site.name}") for site in network.sites}
    shares, classes = whole.matrix("probabilities"), whole.matrix("classes")
    for row, number in enumerate(frame["picture"]):
        picture = source.open(number)
        assert frame.loc[row, ["path", "label", "digest"]].tolist() == [
            source.path(number), source.labels[number], picture.digest,
        ]  # fmt: skip
        with torch.no_grad(), Tap(network.module, [site.name for site in network.sites], stop=False) as tap:
            network.module(network.prepare(picture))
        for site in network.sites:
            alone = tap.kept[site.name][0].numpy().reshape(site.channels, -1).mean(1)
            np.testing.assert_allclose(features[site.name][row], alone, rtol=1e-4, atol=1e-5)
        said = vizapp.ask("predict", network, picture).arrays["probabilities"]
        order = sorted(range(len(said)), key=lambda index: (-said[index], index))[:5]
        assert classes[row].tolist() == order
        np.testing.assert_allclose(shares[row], said[order], rtol=1e-4)


def test_the_true_class_has_its_probability_and_its_rank(network: Network, source: Source, whole: PhotoTable) -> None:
    rows = whole.frame(["picture", "true", "true_probability", "true_rank", "classes", "probabilities"])
    for _, row in rows.iterrows():
        if row.picture % 7 == 0:
            assert (row.true, row.true_rank) == (-1, -1)
            assert np.isnan(row.true_probability)
        else:
            assert row.true == row.picture % 3
            assert list(row.classes).index(row.true) == row.true_rank
            assert row.probabilities[row.true_rank] == row.true_probability


def test_equal_probabilities_are_ordered_by_the_number_of_the_class() -> None:
    rows = class_columns(np.array([[0.25, 0.25, 0.0, 0.5]]), np.array([1], np.int32))
    assert rows["classes"].tolist() == [[3, 0, 1, 2]]
    assert rows["true_rank"].tolist() == [2]


def test_unreadable_photos_are_listed(whole: PhotoTable, source: Source) -> None:
    assert [(one["picture"], one["path"]) for one in whole.unreadable] == [
        (number, source.path(number)) for number in sorted(UNREADABLE)
    ]
    assert len(whole) == len(source) - len(UNREADABLE)


def test_pooling_averages_a_grid_and_leaves_small_maps_alone() -> None:
    maps = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).reshape(2, 3, 4, 6)
    blocks = maps.unflatten(2, (2, 2)).unflatten(4, (2, 3)).mean((3, 5))
    assert torch.equal(pooled(maps, 2), blocks)
    assert torch.allclose(pooled(maps, 1), maps.flatten(2).mean(2))
    assert pooled(maps, None) is maps
    assert torch.equal(pooled(maps[:, :, :1, :1], 2), maps[:, :, 0, 0])


def test_pandas_reads_the_folder_as_it_is(whole: PhotoTable) -> None:
    frame = pd.read_parquet(whole.folder)
    assert list(frame)[:4] == ["picture", "path", "label", "digest"]
    assert len(frame) == len(whole)


def test_one_pass_serves_all_collectors(network: Network, source: Source, tmp_path: Path, monkeypatch) -> None:
    passes, forward = [], network.module.forward
    monkeypatch.setattr(network.module, "forward", lambda batch: passes.append(len(batch)) or forward(batch))
    tops = TopActivations(network.sites, 3)
    several = [tops, *collectors(network, source)]
    found: list[Checkpoint] = []
    FolderPass(network, source, several, tmp_path, OPTIONS, {}, Shards()).run(None, 0, "", found.append)
    assert passes == [8] * 9
    alone = TopKTracker(network.sites, 3)
    for start in range(0, len(source), 8):
        numbers = [number for number in range(start, min(start + 8, len(source))) if number not in UNREADABLE]
        crops = [network.seen(source.open(number)) for number in numbers]
        batch = network.batch([*crops, *[crops[-1]] * (8 - len(crops))])
        alone.update([alone.observe(network.module, batch, len(numbers))], torch.tensor(numbers))
    for name, value in alone.state().items():
        assert torch.equal(found[0].state[name], value), name


@pytest.mark.parametrize("at", [8, 24, 64])
def test_an_interrupted_pass_goes_on_to_the_same_bytes(network, source, whole, tmp_path, at) -> None:
    def watch(progress: Progress) -> None:
        if progress.pictures >= at:
            raise Leave

    out = tmp_path / "out"
    with pytest.raises(Leave):
        table(network, source, out, watch=watch)
    assert not (out / MANIFEST).exists()
    begun: list[int] = []
    table(network, source, out, watch=lambda progress: begun.append(progress.pictures))
    assert begun[0] >= at - OPTIONS.batch
    assert contents(out) == contents(whole.folder)


def test_the_number_of_checkpoints_does_not_matter(network, source, whole, tmp_path, monkeypatch) -> None:
    for every, groups in ((1, 2**24), (100, 2**24), (1, 2**12), (100, 2**12)):
        monkeypatch.setattr("vizapp.gallery.photo_table._GROUP_BYTES", groups)
        table(network, source, tmp_path / f"{every}-{groups}", PassOptions(8, 0, every))
    one, other = (contents(tmp_path / f"{every}-{2**24}") for every in (1, 100))
    assert one == other == contents(whole.folder)
    one, other = (contents(tmp_path / f"{every}-{2**12}") for every in (1, 100))
    assert one == other != contents(whole.folder)  # in several row groups


KILLED = """
import os, signal, sys
from pathlib import Path
import vizapp
from tests.gallery.test_photo_table import collectors, table
from tests.networks import Branching, seeded
def watch(progress):
    if progress.pictures >= 40:
        os.kill(os.getpid(), signal.SIGKILL)
network = vizapp.wrap(seeded(Branching()), input_size=(3, 20, 24), name="branching")
table(network, vizapp.open_folder(sys.argv[1]), Path(sys.argv[2]), watch=watch)
"""


@pytest.fixture(scope="module")
def killed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed process left."""
    out = tmp_path_factory.mktemp("killed") / "out"
    command = [sys.executable, "-c", KILLED, str(photos), str(out)]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=120).returncode == -signal.SIGKILL
    return out


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["nothing", "a part", "the checkpoint"])
def test_a_killed_process_loses_nothing_even_if_its_files_are_damaged(
    network, killed, source, whole, tmp_path, damaged
) -> None:
    out = tmp_path / "out"
    shutil.copytree(killed, out)
    victims = {"a part": sorted((out / WORK).glob("rows-*"))[-1:], "the checkpoint": [out / WORK / NAME], "nothing": []}
    for victim in victims[damaged]:
        victim.write_bytes(victim.read_bytes()[:-7])
    begun: list[Progress] = []
    table(network, source, out, watch=begun.append)
    assert begun[0].pictures == {"nothing": 32, "a part": 16, "the checkpoint": 16}[damaged]
    assert ("Resumed" in begun[0].note) == (damaged == "nothing")
    assert contents(out) == contents(whole.folder)


SHARDS = """
import os, sys
from pathlib import Path
import vizapp
from tests.gallery.test_photo_table import collectors, table
from tests.networks import Branching, seeded
import torch
torch.set_num_threads(1)
network = vizapp.wrap(seeded(Branching()), input_size=(3, 20, 24), name="branching")
from tests.gallery.test_photo_table import OPTIONS
from vizapp.gallery.photo_table import collect
source = vizapp.open_folder(sys.argv[1])
collect(network, source, collectors(network, source), Path(sys.argv[2]), OPTIONS)
"""


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(photos: Path, whole: PhotoTable, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python",
        sys.executable, "-c", SHARDS, str(photos), str(tmp_path / "out"),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(whole.folder)


def test_a_finished_table_is_kept_and_a_damaged_one_is_made_again(network, source, whole, tmp_path) -> None:
    out = tmp_path / "out"
    table(network, source, out)
    stamps = [(path.name, path.stat().st_mtime_ns) for path in out.iterdir()]
    table(network, source, out)
    assert [(path.name, path.stat().st_mtime_ns) for path in out.iterdir()] == stamps
    (out / FILE).write_bytes((out / FILE).read_bytes()[:-1])
    note = collect(network, source, collectors(network, source), out, OPTIONS)
    assert "damaged" in note
    assert contents(out) == contents(whole.folder)


def test_a_table_of_other_things_is_not_overwritten(network, source, whole, tmp_path) -> None:
    with refuses("folder-holds-other-gallery"):
        collect(network, source, [Features(network.sites[:1])], whole.folder, OPTIONS)
    (tmp_path / "mine.parquet").write_bytes(b"mine")
    with refuses("folder-holds-other-files"):
        table(network, source, tmp_path)
    with refuses("table-damaged"):
        open_table(tmp_path)


def test_a_folder_without_a_readable_photo_is_refused(network, tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no picture")
    with refuses("no-readable-picture"):
        table(network, vizapp.open_folder(tmp_path / "photos"), tmp_path / "out")


class Halves:
    """Two crops of each photo."""

    view = View(20, 24, 20)  # whose channels are those of a photo

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        return np.stack([pixels[:20, :24], pixels[-20:, -24:]])


def test_the_probabilities_of_several_crops_are_averaged(network: Network, source: Source, tmp_path: Path) -> None:
    collect(
        network, source, [Predictions(network, [None] * len(source), crops=2, whole=True)], tmp_path, OPTIONS,
        input=Input(Halves(), "halves"),
    )  # fmt: skip
    found = open_table(tmp_path)
    every = found.matrix("every_probability")
    for row, number in enumerate(found.frame(["picture"])["picture"]):
        crops = Halves().apply(source.open(number).pixels)
        with torch.no_grad():
            each = [network.module(network.batch([crop]))[0].softmax(0).numpy() for crop in crops]
        np.testing.assert_allclose(every[row], np.mean(each, 0), rtol=1e-4)


class Whole:
    """Each photo as it is."""

    view = View(20, 24, 20)  # whose channels are those of a photo

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        return pixels


def test_photos_of_different_sizes_are_scored_one_by_one(network: Network, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    sizes = [(20, 24), (30, 31), (25, 40)]
    for number, (height, width) in enumerate(sizes):
        (tmp_path / "photos" / f"{number}.png").write_bytes(saved(noise(height, width, number)))
    seen: list[tuple[int, ...]] = []

    def scores(pixels: np.ndarray) -> torch.Tensor:
        seen.append(pixels.shape)
        return torch.tensor([[float(pixels.shape[0]), 20.0]])

    two = vizapp.wrap(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), input_size=(3, 2, 2))
    collect(
        two, vizapp.open_folder(tmp_path / "photos"), [Predictions(two, [0, 0, 0])], tmp_path / "out", OPTIONS,
        input=Input(Whole(), "whole", scores),
    )  # fmt: skip
    assert seen == [(*size, 3) for size in sizes]
    expected = [1 / (1 + np.exp(20.0 - height)) for height, _ in sizes]
    np.testing.assert_allclose(open_table(tmp_path / "out").matrix("true_probability"), expected, rtol=1e-6)


def test_the_manifest_tells_what_the_table_depends_on(whole: PhotoTable, network: Network, source: Source) -> None:
    manifest = json.loads((whole.folder / MANIFEST).read_text())
    assert manifest["identity"]["digest"] == network.digest
    assert manifest["identity"]["data"] == source.listing_digest()
    assert manifest["data"]["classes"] == ["cat", "dog", "owl"]
