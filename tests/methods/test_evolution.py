"""Features during training: each column is the gallery of its checkpoint, and whatever lies in the folder is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from vizapp.gallery import GalleryOptions, build, open_gallery
from vizapp.gallery.collectors import Predictions, TopActivations
from vizapp.gallery.folder_pass import FolderPass
from vizapp.methods import evolution_columns
from vizapp.methods.base import Job, Result
from vizapp.methods.collected import table_name
from vizapp.methods.evolution import chosen_channels, chosen_site, jumps
from vizapp.settings import ASSETS
from vizapp.zoo.network import Network
from vizapp.zoo.series import at_checkpoint, bundled_series, open_series

SIDE, CLASSES = 24, ("cat", "dog")
SITE, CONVOLUTION = "4", "3"


def module(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 36, 2),
    ).eval()  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(module(3), (3, SIDE, SIDE), categories=CLASSES, name="small")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 photos of two classes, and three whose folder is no class of the network."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(21):
        place = root / ("cat", "dog", "else")[number // 9] / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(saved(noise(SIDE, SIDE, seed=number)))
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints, in another order by name than by number; the last is the network."""
    folder = tmp_path / "run"
    folder.mkdir()
    for epoch, seed in ((2, 1), (9, 2), (10, 3)):
        torch.save({"state_dict": module(seed).state_dict(), "lr": 0.1}, folder / f"epoch-{epoch}.pt")
    return folder


def ask(network: Network, run: Path | str, photos: Path | str, **params: object) -> Result:
    return vizapp.ask("evolution", network, folder=str(photos), checkpoints=str(run), **params)


def test_each_column_is_what_a_loop_over_the_photos_gives(network: Network, photos: Path, run: Path) -> None:
    found = ask(network, run, photos, units=3, seed=1)
    folder, channels = vizapp.open_folder(photos), found.arrays["channels"].tolist()
    assert found.arrays["epochs"].tolist() == [2, 9, 10]
    assert channels == sorted(set(channels))
    assert len(channels) == 3
    jumps = 0
    for column, seed in enumerate((1, 2, 3)):
        net = vizapp.wrap(module(seed), (3, SIDE, SIDE), categories=CLASSES)
        with torch.no_grad():
            maps = [net.module[:5](net.prepare(folder.open(n))).amax((0, 2, 3)) for n in range(len(folder))]
            right = [int(net.module(net.prepare(folder.open(n))).argmax()) == n // 9 for n in range(18)]
        assert found.arrays["accuracy"][column] == np.mean(right)
        assert np.array_equal(found.arrays["kernels"][column], net.module[0].weight.numpy())
        for row, channel in enumerate(channels):
            each = torch.stack([one[channel] for one in maps])
            best = int(each.argmax())
            assert found.arrays["picture"][row, column] == best
            assert found.arrays["activation"][row, column] == pytest.approx(float(each[best]), rel=1e-5)
            told = vizapp.ask("projection", net, picture=folder.open(best), unit=vizapp.Unit(SITE, channel))
            top, left, bottom, right_ = told.arrays["field"]
            border = np.pad(told.arrays["projection"], ((8, 8), (8, 8), (0, 0)))
            cell = border[top + 8 : bottom + 8, left + 8 : right_ + 8]
            shown = found.arrays["projection"][row, column]
            assert np.abs(shown - cell).max() <= 1e-5 * np.abs(cell).max()
            assert np.array_equal(found.arrays["patch"][row, column], told.arrays["patch"])
            assert np.array_equal(found.arrays["field"][row, column], told.arrays["field"])
            if column:
                jump = best != found.arrays["picture"][row, column - 1]
                assert found.arrays["jump"][row, column] == jump
                jumps += jump
    assert jumps  # random weights agree on few photos
    assert not found.arrays["jump"][:, 0].any()
    assert "3 photos without a label that is a class" in found.facts["accuracy"]
    assert [row["checkpoint"] for row in found.table[:3]] == ["epoch-2.pt", "epoch-9.pt", "epoch-10.pt"]


def test_the_last_column_is_the_gallery_of_the_network(
    network: Network, photos: Path, run: Path, tmp_path: Path
) -> None:
    found, folder = ask(network, run, photos, units=8), vizapp.open_folder(photos)
    build(network, folder, (network.site(SITE),), tmp_path / "gallery", GalleryOptions(workers=0))
    rows = open_gallery(tmp_path / "gallery").rows(SITE)
    first = rows[rows["rank"] == 0]
    assert np.array_equal(found.arrays["activation"][:, -1], first["activation"].to_numpy())
    assert np.array_equal(found.arrays["picture"][:, -1], first["picture"].to_numpy())
    assert np.array_equal(found.arrays["field"][:, -1], first[["top", "left", "bottom", "right"]].to_numpy())


def test_a_series_that_is_known_by_hand(tmp_path: Path) -> None:
    """One unit that looks for red, then for green, then for green twice as much; and one that looks for nothing."""
    net = vizapp.wrap(
        nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU()), (3, 4, 4), mean=(0, 0, 0), std=(1, 1, 1)
    )
    run, photos = tmp_path / "run", tmp_path / "photos"
    run.mkdir()
    photos.mkdir()
    for name, colour in {"a-green": (0, 255, 0), "b-red": (255, 0, 0), "c-black": (0, 0, 0)}.items():
        (photos / f"{name}.png").write_bytes(saved(np.full((4, 4, 3), colour, np.uint8)))
    for number, weight in enumerate(((1, 0, 0), (0, 1, 0), (0, 2, 0))):
        kernel = torch.tensor([weight, (0, 0, 0)], dtype=torch.float32)[:, :, None, None]
        save_file({"0.weight": kernel}, run / f"step {number}.safetensors")
    found = ask(net, run, photos, site="1")
    assert found.arrays["epochs"].tolist() == [1, 2, 3]
    assert "numbered in the natural order" in found.facts["checkpoints"]
    assert found.arrays["picture"].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert found.arrays["activation"].tolist() == [[1, 1, 2], [0, 0, 0]]
    assert found.arrays["jump"].tolist() == [[False, True, False], [False, False, False]]
    assert found.arrays["projection"].shape == (2, 3, 1, 1, 3)
    assert found.arrays["projection"][0, :, 0, 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 4, 0]]
    assert found.arrays["patch"][0, :, 0, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 255, 0]]
    assert "zero on every photo" in found.facts["silent"]
    assert "In 3 of 6 cells" in found.facts["silent"]
    assert "accuracy" not in found.arrays


def test_a_unit_that_is_silent_or_unknown_at_an_epoch_does_not_jump_there() -> None:
    picture = np.array([[4, 0, 4, 5], [0, 3, -1, 2], [7, 7, 8, 8]])
    activation = np.array([[1, 0, 2, 3], [0, 2, np.nan, 1], [1, 1, 1, 1]])
    assert jumps(picture, activation).tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 0]]


def test_a_new_checkpoint_takes_one_more_pass_and_the_same_question_none(
    network: Network, photos: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []
    go = FolderPass.run
    monkeypatch.setattr(FolderPass, "run", lambda self, *args: passes.append(self.network.weights) or go(self, *args))
    first = ask(network, run, photos, units=2)
    assert passes == ["epoch-2.pt", "epoch-9.pt", "epoch-10.pt"]
    torch.save(module(4).state_dict(), run / "epoch-11.pth")
    more = ask(network, run, photos, units=2)
    assert passes[3:] == ["epoch-11.pth"]
    assert np.array_equal(more.arrays["projection"][:, :3], first.arrays["projection"])
    ask(network, run, photos, units=3, site="1", seed=5)  # the pass was for all layers of a gallery
    assert len(passes) == 4


def test_interventions_are_those_of_every_checkpoint(network: Network, photos: Path, run: Path) -> None:
    silenced = [vizapp.Intervention(SITE, [0, 3], "scale", 0.0)]
    clean, found = (ask(network, run, photos, units=8, interventions=made) for made in ([], silenced))
    assert not found.arrays["activation"][[0, 3]].any()
    others = [1, 2, 4, 5, 6, 7]
    assert np.array_equal(found.arrays["activation"][others], clean.arrays["activation"][others])
    assert clean.arrays["activation"][[0, 3]].any()


@pytest.mark.parametrize(
    ("foreign", "first"),
    [
        (nn.Sequential(nn.Conv2d(3, 6, 3)), "it lacks 3.weight"),
        (nn.Sequential(*module(1)[:7], nn.Linear(8 * 36, 5)), "7.weight is 5×288 and not 2×288"),
        (nn.Sequential(*module(1), nn.Linear(2, 2)), "it has 8.weight besides"),
    ],
)
def test_a_checkpoint_of_another_network_is_named_and_the_others_are_shown(
    network: Network, photos: Path, run: Path, foreign: nn.Module, first: str
) -> None:
    before = ask(network, run, photos, units=2)
    torch.save(foreign.state_dict(), run / "epoch-9b.pt")
    found = ask(network, run, photos, units=2)
    sentence = f"'epoch-9b.pt' belongs to another network than small: {first}."
    assert found.facts["skipped"] == f"1 other entry in the folder: epoch-9b.pt. {sentence}"
    assert {row["checkpoint"] for row in found.table} == {f"epoch-{epoch}.pt" for epoch in (2, 9, 10)}
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    for epoch in (2, 9, 10):
        torch.save(foreign.state_dict(), run / f"epoch-{epoch}.pt")
    with refuses(
        "no-checkpoints",
        f"run holds no checkpoint of small. 'epoch-2.pt' belongs to another network than small: {first}.",
    ):
        ask(network, run, photos)


def test_what_is_no_checkpoint_is_counted_and_listed(network: Network, photos: Path, run: Path) -> None:
    (run / "notes.txt").write_text("learning rate 0.1")
    (run / "logs").mkdir()
    (run / "epoch-3.pt").write_bytes(b"half a file")
    (run / "epoch-4.safetensors").write_bytes(b"")
    found = ask(network, run, photos, units=1)
    assert found.arrays["epochs"].tolist() == [2, 9, 10]
    told = found.facts["skipped"]
    assert told.startswith("4 other entries in the folder: epoch-3.pt, epoch-4.safetensors, logs, notes.txt.")
    assert "'epoch-3.pt' is text and no checkpoint" in told


def test_sub_folders_as_hugging_face_writes_them_are_checkpoints_in_their_natural_order(
    network: Network, photos: Path, run: Path, tmp_path: Path
) -> None:
    trained = tmp_path / "trained"
    for step, seed, inside in (
        (500, 1, "model.safetensors"),
        (1500, 2, "pytorch_model.bin"),
        (10000, 3, "model.safetensors"),
    ):
        place = trained / f"checkpoint-{step}"
        place.mkdir(parents=True)
        weights = module(seed).state_dict()
        if inside.endswith(".bin"):
            torch.save(weights, place / inside)
        else:
            save_file(weights, str(place / inside))
        torch.save({}, place / "optimizer.pt")
    (trained / "runs").mkdir()
    found, plain = ask(network, trained, photos, units=2), ask(network, run, photos, units=2)
    assert found.arrays["epochs"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found.arrays["activation"], plain.arrays["activation"])
    assert {row["checkpoint"] for row in found.table} == {f"checkpoint-{step}" for step in (500, 1500, 10000)}
    assert found.facts["skipped"].endswith(": runs.")
    assert "checkpoint-500 has no epoch" in found.facts["checkpoints"]


def test_two_files_of_one_epoch_are_shown_and_told(network: Network, photos: Path, run: Path) -> None:
    torch.save(module(7).state_dict(), run / "best-epoch-9.pt")
    found = ask(network, run, photos, units=1)
    assert found.arrays["epochs"].tolist() == [2, 9, 9, 10]
    assert found.facts["same epoch"] == "best-epoch-9.pt and epoch-9.pt are of the same epoch, 9; each is shown."


def test_one_checkpoint_is_a_series_without_jumps(network: Network, photos: Path, run: Path) -> None:
    for name in ("epoch-2.pt", "epoch-9.pt"):
        (run / name).unlink()
    found = ask(network, run, photos, units=2)
    assert found.arrays["projection"].shape[:2] == (2, 1)
    assert not found.arrays["jump"].any()
    assert "no jumps" in found.facts["jumps"]


@pytest.mark.parametrize(
    ("prepare", "code", "sentence"),
    [
        (lambda folder: None, "no-such-folder", "does not exist; give a folder"),
        (lambda folder: folder.write_text("x"), "no-such-folder", "is a file; give a folder"),
        (lambda folder: folder.mkdir(), "no-checkpoints", "no checkpoints in 'series': it is empty"),
        (lambda folder: (folder.mkdir(), (folder / "a.txt").write_text("x")), "no-checkpoints", "none of its 1 files is one"),
        (lambda folder: (folder.mkdir(), (folder / "1.pt").write_bytes(b"x")), "no-checkpoints", "no checkpoint of small."),
    ],
)  # fmt: skip
def test_a_folder_without_checkpoints_is_a_sentence(
    network: Network, photos: Path, tmp_path: Path, prepare: Callable[[Path], object], code: str, sentence: str
) -> None:
    prepare(tmp_path / "series")
    with refuses(code, sentence):
        ask(network, tmp_path / "series", photos)


def test_without_a_folder_only_the_bundled_network_has_a_series(network: Network, photos: Path) -> None:
    with refuses("missing-input", "needs the checkpoints of one training run of small"):
        vizapp.ask("evolution", network, folder=str(photos))


@pytest.mark.parametrize(
    ("names", "epochs"),
    [
        (["epoch-1.pt", "epoch-2.pt", "epoch-10.pt"], [1, 2, 10]),
        (["Epoch=7-step=100.ckpt", "epoch=0-step=10.ckpt"], [0, 7]),
        (["net_ep003.pth", "net_ep020.pth"], [3, 20]),
        (["step2.pt", "step10.pt"], [1, 2]),  # a step is no epoch
        (["deep4.pt", "deep30.pt"], [1, 2]),
    ],
)
def test_the_epoch_is_read_from_the_name(tmp_path: Path, names: list[str], epochs: list[int]) -> None:
    for name in reversed(names):
        torch.save(module(0).state_dict(), tmp_path / name)
    found = open_series(tmp_path)
    assert list(found.epochs) == epochs
    assert [file.name for file in found.files] == sorted(names, key=lambda name: [int(n) for n in digits(name)][:1])


def digits(name: str) -> list[str]:
    return "".join(c if c.isdigit() else " " for c in name).split()


def test_the_epoch_is_read_from_the_file_where_the_name_has_none(tmp_path: Path) -> None:
    weights = module(0).state_dict()
    torch.save({"model": weights, "epoch": 30}, tmp_path / "a.pt")
    torch.save({"model": weights, "epoch": "4"}, tmp_path / "b.ckpt")
    save_file(weights, tmp_path / "c.safetensors", {"epoch": "11"})
    torch.save(weights, tmp_path / "d-epoch5.pt")
    found = open_series(tmp_path)
    assert [file.name for file in found.files] == ["b.ckpt", "d-epoch5.pt", "c.safetensors", "a.pt"]
    assert found.epochs == (4, 5, 11, 30)
    torch.save({"model": weights, "epoch": "soon"}, tmp_path / "e.pt")
    assert open_series(tmp_path).epochs == (1, 2, 3, 4, 5)
    assert "e.pt has no epoch" in open_series(tmp_path).timing


@pytest.mark.slow
def test_the_epoch_is_read_from_a_file_with_more_than_tensors(tmp_path: Path) -> None:
    """Such files are read in a process of their own."""
    content = {"model": module(0).state_dict(), "epoch": np.int64(4), "args": Path("x")}
    torch.save(content, tmp_path / "b.ckpt")
    assert open_series(tmp_path).epochs == (4,)


def test_a_checkpoint_takes_the_place_of_the_weights_alone(run: Path) -> None:
    net = vizapp.wrap(module(3), (3, SIDE, SIDE), categories=CLASSES, name="small")
    before = {key: value.clone() for key, value in net.module.state_dict().items()}
    there = at_checkpoint(net, run / "epoch-2.pt")
    assert (there.categories, there.preprocessing, there.weights) == (CLASSES, net.preprocessing, "epoch-2.pt")
    assert same(there.module.state_dict(), module(1).state_dict())
    assert same(net.module.state_dict(), before)
    assert at_checkpoint(net, run / "epoch-10.pt").digest == net.digest != there.digest


def same(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


def test_the_choice_of_units_is_seeded_and_never_repeats_one(network: Network) -> None:
    site = network.site(SITE)
    assert chosen_channels(site, 6, 1) == chosen_channels(site, 6, 1)
    assert len({chosen_channels(site, 3, seed) for seed in range(20)}) > 10
    assert chosen_channels(site, 99, 0) == tuple(range(8))


def test_the_bundled_series_is_small_and_of_its_network() -> None:
    series = open_series(bundled_series("vizapp/lenet5-digits") or "")
    assert series.epochs == (1, 2, 5, 10, 20, 30, 40, 64, 100, 150)
    assert not series.skipped
    assert sum(file.stat().st_size for file in series.files) <= 1.5e6
    assert bundled_series("vizapp/zfnet-mini") is None
    assert series.files[-1].read_bytes() == (ASSETS / "lenet5-digits.safetensors").read_bytes()


@pytest.mark.slow
def test_the_last_bundled_column_is_the_gallery_of_the_shipped_network(tmp_path: Path) -> None:
    net = vizapp.load("vizapp/lenet5-digits", device="cpu")
    found = vizapp.ask("evolution", net, folder="digits", units=64)
    site = chosen_site(net, "").name
    vizapp.ask("gallery", net, folder="digits", sites=(site,), top=1, out=str(tmp_path / "gallery"))
    rows = open_gallery(tmp_path / "gallery").rows(site)
    assert found.arrays["channels"].tolist() == rows["channel"].tolist()
    assert found.arrays["picture"][:, -1].tolist() == rows["picture"].tolist()
    # What is shipped was computed on another processor, which rounds otherwise.
    np.testing.assert_allclose(found.arrays["activation"][:, -1], rows["activation"], rtol=1e-5)


@pytest.mark.parametrize("places", [[4], pytest.param([0, 7, 9], marks=pytest.mark.slow)])
def test_what_is_shipped_of_the_bundled_series_is_what_passes_give(
    monkeypatch: pytest.MonkeyPatch, places: Iterable[int]
) -> None:
    net = vizapp.load("vizapp/lenet5-digits", device="cpu")
    source, known = vizapp.open_folder("digits"), evolution_columns.shipped_columns()
    classes = evolution_columns.classes_of_photos(net, source)
    monkeypatch.setattr(evolution_columns, "shipped_columns", lambda: {"names": np.array([], str)})
    files = open_series(bundled_series(net.name) or "").files
    for place in places:
        there = at_checkpoint(net, files[place])
        sites = evolution_columns.pass_sites(there, there.site("features.1"))
        name = table_name(there, source, [TopActivations(sites, 1), Predictions(there, classes)])
        assert known["names"][place] == name, "outdated: run python training/galleries.py"
        found = evolution_columns.top_photos(there, source, sites, classes, Job())
        assert found is not None
        for key in ("values", "accuracy"):  # another processor rounds otherwise
            np.testing.assert_allclose(known[key][place], getattr(found, key), rtol=1e-4, atol=1e-3, err_msg=key)
        for key in ("pictures", "cells"):
            assert np.mean(known[key][place] == getattr(found, key)) > 0.99, key
