"""A gallery equals the result of sorting all activations, for any workers, processes, interruptions and damages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import vizapp
from tests.errors import refuses
from tests.gallery.conftest import SIZE
from tests.watched import Block
from vizapp.__main__ import main
from vizapp.engine.receptive_field.field import receptive_fields
from vizapp.engine.trace.observe import observe
from vizapp.errors import VizError
from vizapp.gallery import Progress, build, folder_pass, open_gallery
from vizapp.gallery.build import GalleryOptions, open_partial_gallery
from vizapp.gallery.reader import top_image
from vizapp.gallery.tables import ROW_COLUMNS
from vizapp.media import decoding
from vizapp.methods import base
from vizapp.methods.base import Job
from vizapp.methods.gallery import chosen_sites
from vizapp.methods.projection import ProjectionParams
from vizapp.methods.top_projections import top_projections

ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path) -> dict[str, bytes]:
    """The gallery's files and their bytes, without partial ones, which readers ignore, and the result of this run."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and not (path.name.startswith(".") and path.suffix == ".part")
    }


class Leave(BaseException):
    """Leaving is no error."""


def test_the_watcher_is_called_while_a_slow_photo_is_decoded(network, photos, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(decoding, "_MOST_READS", 0)  # all photos are slow
    decoded, call = [], decoding.call
    monkeypatch.setattr(decoding, "call", lambda *given: decoded.append(call(*given)))

    def watch(progress: Progress) -> None:
        calls.append(progress)
        if len(calls) == 2:
            raise Leave

    calls: list[Progress] = []
    with pytest.raises(Leave):
        build(network, vizapp.open_folder(photos), network.sites, tmp_path, GalleryOptions(batch=2, workers=0), watch)
    assert not decoded


def leave_at(pictures: int):  # type: ignore[no-untyped-def]
    def watch(progress: Progress) -> None:
        if progress.pictures >= pictures:
            raise Leave

    return watch


@pytest.fixture(scope="module")
def whole(network, photos, tmp_path_factory) -> Path:
    """A gallery of all layers, made in one go."""
    out = tmp_path_factory.mktemp("whole") / "gallery"
    vizapp.ask("gallery", network, folder=vizapp.open_folder(photos), sites="all", batch=8, workers=0, out=str(out))
    return out


def test_rows_are_the_sorted_activations_of_all_pictures(network, photos, whole) -> None:
    source = vizapp.open_folder(photos)
    sites = network.sites
    readable = [n for n in range(len(source)) if "broken" not in source.paths[n].read_bytes().decode("latin1")]
    seen = [network.seen(source.open(n)) for n in readable]
    found = pd.read_parquet(whole)
    assert tuple(found.columns[:11]) == ROW_COLUMNS
    known = receptive_fields(network.module, torch.zeros(1, *SIZE))
    # The same cut as the pass has: eight places of the folder at a time, damaged files left out.
    parts = [[i for i, n in enumerate(readable) if n // 8 == number] for number in range(9)]
    kept = [observe(network.module, network.batch([seen[i] for i in part]), sites) for part in parts]
    for site in sites:
        values = torch.cat([part[site.name] for part in kept]).numpy()
        values = values.reshape(*values.shape[:2], -1)
        rows = found[found.site == site.name]
        assert len(rows) == site.channels * 9
        for channel in range(site.channels):
            peaks = values[:, channel].max(1)
            order = sorted(range(len(readable)), key=lambda i: (-peaks[i], i))[:9]
            unit = rows[rows.channel == channel]
            assert unit["rank"].tolist() == list(range(9))
            assert unit.activation.tolist() == peaks[order].tolist()
            assert unit.picture.tolist() == [readable[i] for i in order]
            assert unit.path.tolist() == [source.path(readable[i]) for i in order]
            assert unit.label.tolist() == [source.labels[readable[i]] for i in order]
            cells = [int(np.flatnonzero(values[i, channel] == peaks[i])[0]) for i in order]
            width = site.shape[2] if site.is_map else 1
            assert (unit.row * width + unit.column).tolist() == cells
            box = known[site.name].box((int(unit.row.iloc[0]), int(unit.column.iloc[0])))
            expected = box if site.is_map else (0, 0, *SIZE[1:])
            assert tuple(unit[["top", "left", "bottom", "right"]].iloc[0]) == expected


def test_both_ways_of_reading_give_the_same(whole) -> None:
    by_folder = pd.read_parquet(whole)
    paths = sorted(whole.glob("**/*.parquet"))
    by_glob = pd.concat(map(pd.read_parquet, paths), ignore_index=True)
    pd.testing.assert_frame_equal(by_folder, by_glob)
    assert by_folder.picture.dtype == np.int64
    assert by_folder.site.drop_duplicates().tolist() == open_gallery(whole).sites


def test_the_manifest_says_what_the_gallery_is_of(network, photos, whole) -> None:
    manifest = json.loads((whole / "_manifest.json").read_text())
    assert manifest["network"]["digest"] == network.digest
    assert manifest["data"]["pictures"] == 70
    assert manifest["data"]["classes"] == ["cat", "dog", "owl"]
    assert [entry["picture"] for entry in manifest["unreadable"]] == [5, 33, 69]
    assert manifest["unreadable"][0]["path"] == "cat/5.png"
    assert all((whole / site["file"]).exists() for site in manifest["sites"])
    assert not (whole / "_work").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_bytes(network, photos, whole, tmp_path, workers: int) -> None:
    source = vizapp.open_folder(photos)
    build(network, source, network.sites, tmp_path / "out", GalleryOptions(batch=8, workers=workers))
    assert files(tmp_path / "out") == files(whole)


def test_other_batch_sizes_differ_by_rounding_only(network, photos, whole, tmp_path) -> None:
    build(network, vizapp.open_folder(photos), network.sites, tmp_path / "out", GalleryOptions(batch=32, workers=0))
    a, b = pd.read_parquet(whole), pd.read_parquet(tmp_path / "out")
    np.testing.assert_allclose(a.activation, b.activation, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a["mean"], b["mean"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pictures", [0, 8, 40, 64])
def test_leaving_and_asking_again_gives_the_same_bytes(network, photos, whole, tmp_path, pictures: int) -> None:
    source, plan = vizapp.open_folder(photos), GalleryOptions(batch=8, workers=0, every=3)
    with pytest.raises(Leave):
        build(network, source, network.sites, tmp_path / "out", plan, leave_at(pictures))
    assert not list((tmp_path / "out").glob("*.parquet"))
    told: list[Progress] = []
    note = build(network, source, network.sites, tmp_path / "out", plan, told.append)
    assert files(tmp_path / "out") == files(whole)
    if pictures:
        assert told[0].pictures == pictures
        assert note == f"Resumed after {pictures // 8} batches."


@pytest.mark.slow
def test_leaving_inside_a_batch_that_was_cut_counts_none_of_its_pictures_twice(
    network, photos, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(network), "batch_limit", lambda *_: 3
    )  # little memory: a batch of eight runs in three parts
    source, plan = vizapp.open_folder(photos), GalleryOptions(batch=8, workers=0)
    told: list[Progress] = []
    build(network, source, network.sites, tmp_path / "whole", plan, told.append)
    inside = [call for call, progress in enumerate(told) if progress.pictures == 8][1:]  # all but the first: batch 2
    assert len(inside) > 2 * len(network.sites)  # of three parts
    for call in (inside[0], inside[len(inside) // 2], inside[-1]):
        left: list[Progress] = []

        def leave(progress: Progress, call: int = call, left: list[Progress] = left) -> None:
            left.append(progress)
            if len(left) > call:
                raise Leave

        with pytest.raises(Leave):
            build(network, source, network.sites, tmp_path / str(call), plan, leave)
        note = build(network, source, network.sites, tmp_path / str(call), plan)
        assert note == "Resumed after 1 batches."
        assert files(tmp_path / str(call)) == files(tmp_path / "whole")


def test_what_is_known_so_far_can_be_looked_at(network, photos, tmp_path) -> None:
    source, out = vizapp.open_folder(photos), tmp_path / "out"
    assert open_partial_gallery(network, source, network.sites, out) is None
    with pytest.raises(Leave):
        build(network, source, network.sites, out, GalleryOptions(batch=8, workers=0), leave_at(32))
    part = open_partial_gallery(network, source, network.sites, out)
    assert part.seen == 32
    assert part.pictures == 70
    assert part.rows("relu").picture.max() < 32
    with refuses("gallery-unfinished"):
        open_gallery(out)
    build(network, source, network.sites, out, GalleryOptions(batch=8, workers=0))
    assert open_partial_gallery(network, source, network.sites, out).seen == 70


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "both"])
def test_a_damaged_checkpoint_is_told_and_rebuilt(network, photos, whole, tmp_path, damage: str) -> None:
    source, out, plan = vizapp.open_folder(photos), tmp_path / "out", GalleryOptions(batch=8, workers=0, every=2)
    with pytest.raises(Leave):
        build(network, source, network.sites, out, plan, leave_at(48))
    for name in ["checkpoint", "checkpoint.previous"][: 2 if damage == "both" else 1]:
        path = out / "_work" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes({"cut": bytes(content[:-9]), "empty": b""}.get(damage, bytes(content)))
    note = build(network, source, network.sites, out, plan)
    assert "damaged" in note
    assert ("anew" in note) == (damage == "both")
    assert files(out) == files(whole)


@pytest.mark.parametrize("what", ["network", "data", "top", "sites", "batch"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_something_else_is_refused(network, photos, tmp_path, what: str, finished: bool) -> None:
    source, out = vizapp.open_folder(photos), tmp_path / "out"
    sites = network.sites[:2]
    try:
        build(network, source, sites, out, GalleryOptions(batch=8, workers=0), None if finished else leave_at(24))
    except Leave:
        assert not finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = {
        "network": (vizapp.wrap(_other(), input_size=SIZE, name="branching"), source, sites, GalleryOptions(batch=8)),
        "data": (network, vizapp.open_folder(photos / "cat"), sites, GalleryOptions(batch=8)),
        "top": (network, source, sites, GalleryOptions(batch=8, top=5)),
        "sites": (network, source, network.sites[:1], GalleryOptions(batch=8)),
        "batch": (network, source, sites, GalleryOptions(batch=4)),
    }[what]
    with refuses("folder-holds-other-gallery", str(out)):
        build(other[0], other[1], other[2], out, other[3])
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def _other() -> torch.nn.Module:
    from tests.networks import Branching, seeded

    return seeded(Branching(), 1)


def test_other_files_in_the_folder_are_left_alone(network, photos, tmp_path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "mine.parquet")
    with refuses("folder-holds-other-files", str(tmp_path)):
        build(network, vizapp.open_folder(photos), network.sites, tmp_path)
    assert [path.name for path in tmp_path.glob("*.parquet")] == ["mine.parquet"]


def test_without_a_folder_it_is_kept_in_the_cache_and_saved_as_a_copy(network, photos, tmp_path, cache) -> None:
    source = vizapp.open_folder(photos)
    result = vizapp.ask("gallery", network, folder=source, sites=["relu", "head"], top=4)
    assert Path(result.facts["folder"]).parent == cache / "galleries"
    assert (
        vizapp.ask("gallery", network, folder=source, sites="relu,head", top=4).facts["note"].startswith("The gallery")
    )
    saved = result.save(tmp_path / "saved")
    assert files(saved) == files(Path(result.facts["folder"]))
    assert {path.name for path in (saved / "_result").iterdir()} >= {"result.json", "arrays.npz", "relu.png"}
    rows = pd.read_parquet(saved)
    (tmp_path / "mine").mkdir()
    rows.to_parquet(tmp_path / "mine" / "mine.parquet")
    with pytest.raises(VizError, match="other tables"):
        result.save(tmp_path / "mine")
    assert set(rows.site) == {"relu", "head"}
    assert rows["rank"].max() == 3
    assert "3 photos were skipped" in result.facts["unreadable"]


def test_when_nothing_can_be_read_it_is_said(network, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with refuses("no-readable-picture", "3 photos"):
        vizapp.ask("gallery", network, folder=vizapp.open_folder(tmp_path / "in"))


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"sites": "rellu"}, "has no layer 'rellu'"),
        ({"top": 0}, "top is 0"),
        ({"sites": 3}, "a list of texts"),
        ({"batch": -1}, "batch is -1"),
    ],
)
def test_what_does_not_fit_is_refused(network, photos, params, sentence: str) -> None:
    with pytest.raises(VizError, match=sentence):
        vizapp.ask("gallery", network, folder=vizapp.open_folder(photos), **params)


def test_a_place_that_cannot_be_written_is_told(network, photos, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with refuses("unwritable"):
        vizapp.ask("gallery", network, folder=vizapp.open_folder(photos), out=str(tmp_path / "file" / "out"))


def test_layers_are_chosen_by_name_kind_or_default(network) -> None:
    names = [site.name for site in chosen_sites(network, ())]
    assert names == ["relu", "relu_1", "relu_2", "relu_3", "head"]
    assert [site.name for site in chosen_sites(network, ["convolutions"])] == ["stem", "left", "right", "body"]
    assert chosen_sites(network, ["all"]) == network.sites
    assert [site.name for site in chosen_sites(network, ["head", "stem"])] == ["stem", "head"]


def test_progress_is_told_and_ends_at_the_last_picture(network, photos, tmp_path) -> None:
    told: list[Progress] = []
    build(
        network,
        vizapp.open_folder(photos),
        network.sites,
        tmp_path / "out",
        GalleryOptions(batch=8, workers=0),
        told.append,
    )
    shares = [progress.share for progress in told]
    assert shares == sorted(shares)
    assert (told[0].pictures, told[-1].pictures, told[-1].of) == (0, 70, 70)
    assert told[-1].per_second > 0
    assert told[-1].seconds_left == 0
    assert told[-1].unreadable == 3


def test_the_reader_finds_units_classes_and_patches(network, photos, whole) -> None:
    found, source = open_gallery(whole), vizapp.open_folder(photos)
    rows = found.rows("stem", 3)
    patches = top_image(network, source, rows)
    assert len({item.patch.shape for item in patches}) == 1
    assert patches[0].patch.shape[:2] == (5, 5)
    best = rows.iloc[0]
    seen = network.seen(source.open(int(best.picture)))
    top, left = max(0, best.top), max(0, best.left)
    bottom, right = min(SIZE[1], best.bottom), min(SIZE[2], best.right)
    inside = patches[0].patch[top - best.top : bottom - best.top, left - best.left : right - best.left]
    np.testing.assert_array_equal(inside, seen[top:bottom, left:right])
    assert sum(found.classes("stem", 3).values()) == 9
    edges, counts = found.histogram("stem", 3)
    assert counts.sum() == 67
    assert len(edges) == len(counts) + 1
    assert edges[0] <= best.activation <= edges[-1]
    for wrong in (("stem", 8), ("stm", 0)):
        with pytest.raises(VizError):
            found.unit(*wrong)


def test_projections_of_the_top_pictures_are_those_of_the_method(network, photos, whole) -> None:
    found, source = open_gallery(whole), vizapp.open_folder(photos)
    rows = found.rows("relu_2", 1)[:4]
    down = top_projections(network, source, rows, ProjectionParams(), Job()).arrays
    for number, row in enumerate(rows.itertuples()):
        unit = vizapp.Unit("relu_2", 1, (row.row, row.column))
        single = vizapp.ask("projection", network, source.open(int(row.picture)), unit=unit)
        np.testing.assert_allclose(down["projection"][number], single.arrays["projection"], atol=1e-6)
        assert down["activation"][number] == pytest.approx(row.activation, rel=1e-5)


def test_pictures_that_are_gone_changed_or_others_are_told(network, photos, tmp_path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    for number, path in enumerate(sorted((photos / "dog").iterdir())[:6]):
        (place / f"{number}.png").write_bytes(path.read_bytes())
    source, out = vizapp.open_folder(place), tmp_path / "out"
    build(network, source, network.sites, out, GalleryOptions(top=4, workers=0))
    rows = open_gallery(out).rows("relu_2", 1)
    before = top_projections(network, source, rows, ProjectionParams(), Job())
    assert not {"unreadable", "changed"} & before.facts.keys()
    gone, changed = (place / rows.path[number] for number in (1, 2))
    gone.unlink()
    Image.fromarray(np.full((20, 24, 3), 255, np.uint8)).save(changed)
    after = top_projections(network, source, rows, ProjectionParams(), Job())
    assert after.facts["unreadable"].startswith("1 of 4")
    assert after.facts["changed"].startswith("1 of 4")
    assert np.isnan(after.arrays["activation"]).tolist() == [False, True, False, False]
    assert not after.arrays["projection"][1].any()
    for number in (0, 3):
        np.testing.assert_array_equal(after.arrays["projection"][number], before.arrays["projection"][number])
    assert (top_image(network, source, rows)[1].seen == 128).all()
    for other in (vizapp.open_folder(place), vizapp.open_folder(photos)):  # one file less; other pictures
        with refuses("other-pictures"):
            top_image(network, other, rows)
        with refuses("other-pictures"):
            top_projections(network, other, rows, ProjectionParams(), Job())


@pytest.mark.slow
def test_a_field_alone_is_projected_where_nothing_pads() -> None:
    from vizapp.methods.top_projections import is_exact_alone

    net, source = vizapp.load("vizapp/lenet5-digits"), vizapp.open_folder("digits")
    known = receptive_fields(net.module, torch.zeros(1, *net.input_size))
    assert is_exact_alone(known["features.4"], (0, 0, 16, 16), (28, 28)) == (known["features.4"].rows.start == 0)
    result = vizapp.ask("gallery", net, folder=source, sites="features.1", top=2)
    rows = open_gallery(result.facts["folder"]).rows("features.1", 2)
    down = top_projections(net, source, rows, ProjectionParams(), Job()).arrays["projection"]
    box = tuple(rows[["top", "left", "bottom", "right"]].iloc[0])
    assert is_exact_alone(known["features.1"], box, (28, 28))
    cell = (int(rows.row[0]), int(rows.column[0]))
    unit = vizapp.Unit("features.1", 2, cell)
    single = vizapp.ask("projection", net, source.open(int(rows.picture[0])), unit=unit)
    np.testing.assert_allclose(down[0], single.arrays["projection"], atol=1e-5)
    assert not is_exact_alone(
        receptive_fields(net.module, torch.zeros(1, *net.input_size))["classifier.4"], (0, 0, 28, 28), (28, 28)
    )


@pytest.mark.parametrize("pool", [torch.nn.AdaptiveMaxPool2d(5), torch.nn.AdaptiveAvgPool2d(5)])
@pytest.mark.slow
def test_behind_an_adaptive_pool_no_field_is_projected_alone(tmp_path, pool: torch.nn.Module) -> None:
    """On the field alone, 8 × 8 pixels, the pool of five cells would have windows of other sizes."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), pool).eval()
    net = vizapp.wrap(module, input_size=(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    source = vizapp.open_folder("samples")
    result = vizapp.ask("gallery", net, folder=source, sites="all", top=2, out=str(tmp_path))
    found = open_gallery(result.facts["folder"])
    for site in ("0", "2"):
        rows = pd.concat([found.rows(site, channel) for channel in range(4)], ignore_index=True)
        down = top_projections(net, source, rows, ProjectionParams(), Job()).arrays
        np.testing.assert_allclose(down["activation"], rows["activation"], rtol=1e-5)
        for number, row in enumerate(rows.itertuples()):
            unit = vizapp.Unit(site, int(row.channel), (int(row.row), int(row.column)))
            single = vizapp.ask("projection", net, source.open(int(row.picture)), unit=unit)
            np.testing.assert_allclose(down["projection"][number], single.arrays["projection"], atol=1e-5)


def test_statistics_of_units_that_are_known_by_hand(tmp_path) -> None:
    """Three units of pictures that are one grey g each: g, -1 (dead), 1 + g (always on)."""
    from tests.media.files import saved

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU())
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].weight[0, 0] = module[0].weight[2, 0] = 1
        module[0].bias.copy_(torch.tensor([0.0, -1.0, 1.0]))
    network = vizapp.wrap(module, input_size=(3, 4, 4), mean=0.0, std=1.0)
    for number, grey in enumerate((0, 0, 51, 102, 255)):
        (tmp_path / f"{number}.png").write_bytes(saved(np.full((4, 4, 3), grey, np.uint8)))
    build(network, vizapp.open_folder(tmp_path), network.sites[-1:], tmp_path / "out", GalleryOptions(top=2, workers=0))
    units = open_gallery(tmp_path / "out").units
    np.testing.assert_allclose(units["mean"], [0.32, 0, 1.32], rtol=1e-6)
    np.testing.assert_allclose(units["mean_maximum"], [0.32, 0, 1.32], rtol=1e-6)
    np.testing.assert_allclose(units["maximum"], [1, 0, 2], rtol=1e-6)
    assert units["zero_pictures"].tolist() == units["zero_positions"].tolist() == [0.4, 1, 0]
    assert units["dead"].tolist() == [False, True, False]
    assert units["always_on"].tolist() == [False, False, True]
    np.testing.assert_allclose(units["selectivity"], [(0.7 - 0.32) / 1.02, 0, (1.7 - 1.32) / 3.02], rtol=1e-6)


LENET = ("gallery", "--network", "lenet5-digits", "--folder", "digits")


@pytest.mark.slow
def test_the_command_line_makes_the_digits_gallery(tmp_path, capsys) -> None:
    asked = [*LENET, "--sites", "features.4,classifier.4", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "vizapp", *asked], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(tmp_path / "out")
    digits = rows[(rows.site == "classifier.4") & (rows["rank"] < 5)]
    assert (digits.label.astype(int) == digits.channel).mean() > 0.95, "a class is excited most by its own digits"
    assert main([*LENET, "--sites", "features.4", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "other layers" in told


FORKED = """
import os, socket, sys
import cv2, pandas, pyarrow.parquet, torch, torch.distributed, torchvision, vizapp
from vizapp.__main__ import main

def go(rank, processes, port):  # one of so many, as torchrun starts them; 0: without torchrun
    child = os.fork()
    if child:
        return child
    if processes:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    status = main([*sys.argv[2:], "--out", f"{sys.argv[1]}/{processes}"])
    sys.stdout.flush()
    os._exit(status)

for processes in (0, 2, 3):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for child in [go(rank, processes, port) for rank in range(max(1, processes))]:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.slow
def test_one_two_and_three_processes_give_the_same_bytes(tmp_path) -> None:
    """With torchrun itself: `test_one_of_several_processes_is_killed_and_the_next_start_goes_on`."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path), *LENET, "--sites", "all", "--every", "7"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved: ") == 3
    alone, two, three = (files(tmp_path / str(processes)) for processes in (0, 2, 3))
    assert len(alone) > 10
    assert alone == two == three


KILLED = """
import os, random, signal, sys, threading
from pathlib import Path
import torch, vizapp
from vizapp.gallery.build import GalleryOptions, build
torch.set_num_threads(1)
network, source = vizapp.load("lenet5-digits"), vizapp.open_folder("digits")
network.sites, network.digest

def go(name, seed=None, workers=0):  # in a process of its own, which is killed soon if there is a seed
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if seed is not None:
        threading.Timer(random.Random(seed).uniform(0, 1.2), os.kill, (os.getpid(), signal.SIGKILL)).start()
    out = Path(sys.argv[1]) / name
    build(network, source, network.sites, out, GalleryOptions(batch=4, workers=workers, every=2))
    os._exit(0)

print(go("whole"), *(go("killed", seed, seed % 2) for seed in range(10)), go("killed"))
"""


@pytest.mark.slow
def test_killed_at_ten_random_moments_and_resumed_gives_the_same_bytes(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    whole, *killed, resumed = map(int, done.stdout.split())
    assert (whole, resumed) == (0, 0), done.stderr
    assert killed.count(-9) >= 3, killed
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    # What a killed process was writing stays for an hour: another one may be writing it. Readers pass it over.
    assert {path.suffix for path in (tmp_path / "killed").glob("**/.*")} <= {".part"}


@pytest.mark.slow
def test_late_units_of_a_trained_network_prefer_their_own_class(tmp_path) -> None:
    from tests.zoo.shared import shared

    listed = pd.read_csv(shared("data/imagenet-sample/labels.csv")).set_index("file").class_index[::3]
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in listed.index:
        (photos / name).symlink_to(shared("data/imagenet-sample/images") / name)
    weights = shared("weights/squeezenet1_0-imagenet-decompressed.pth")
    net = vizapp.load("squeezenet1_0", weights=str(weights))
    result = vizapp.ask(
        "gallery",
        net,
        folder=vizapp.open_folder(photos),
        sites="features.12.cat,classifier.1",
        out=str(tmp_path / "out"),
    )
    rows = open_gallery(result.facts["folder"]).rows("classifier.1")
    known = rows[rows.channel.isin(listed) & (rows["rank"] < 9)]
    own = known.path.map(listed) == known.channel
    by_chance = 9 / len(listed)  # that a class's own photo is among the nine that excite its map most
    assert own.groupby(known.channel).any().mean() > 10 * by_chance


@pytest.mark.parametrize("batch_limit", [pytest.param(8, marks=pytest.mark.slow), 3])
def test_equal_pictures_stand_in_their_order_wherever_the_batches_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_limit: int
) -> None:
    network = vizapp.load(
        "vizapp/zfnet-mini", device="cpu"
    )  # in which a pass of one rounds otherwise than one of eight
    monkeypatch.setattr(type(network), "batch_limit", lambda *_: batch_limit)
    place = tmp_path / "photos"
    place.mkdir()
    three = [np.random.default_rng(n).integers(0, 256, (64, 64, 3), dtype=np.uint8) for n in range(3)]
    for number in range(17):  # two batches of eight, and one picture
        Image.fromarray(three[number % 3]).save(place / f"{number:02}.png")
    (place / "05.png").write_bytes(b"broken")  # and one batch has but seven
    out = tmp_path / "gallery"
    vizapp.ask(
        "gallery", network, folder=place, sites=("features.relu3", "classifier.fc8"), batch=8, workers=0, out=str(out)
    )
    found = open_gallery(out)
    for site in map(network.site, found.sites):
        for channel in range(site.channels):
            rows = found.rows(site.name, channel)
            for kind in range(3):
                same = rows[rows["picture"] % 3 == kind]
                assert same["activation"].nunique() <= 1, (site.name, channel)
                assert same["picture"].is_monotonic_increasing


def test_a_pass_reuses_the_memory_of_its_activations(network, photos, tmp_path: Path, monkeypatch) -> None:
    block, during = Block(), list[bool]()
    monkeypatch.setattr(base, "reused_memory", block)
    observe_once = folder_pass.observe_together
    monkeypatch.setattr(
        folder_pass,
        "observe_together",
        lambda *given, **named: during.append(block.active) or observe_once(*given, **named),
    )
    vizapp.ask("gallery", network, folder=photos, out=str(tmp_path / "gallery"), workers=0)
    assert during
    assert all(during)
    assert not block.active
