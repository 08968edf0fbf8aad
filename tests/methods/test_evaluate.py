"""Evaluating a labelled folder: against loops over `predict` and scikit-learn, and where labels, photos or classes lack."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix
from torch import nn

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from tests.networks import seeded
from tests.zoo.shared import shared
from vizapp.__main__ import main
from vizapp.gallery.store import WORK
from vizapp.media.crops import GoogLeNetCrops
from vizapp.methods.base import Result
from vizapp.settings import settings
from vizapp.zoo.network import Network

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("ant", "Bee", "sea_lion", "owl", "elk")
SIDE = 28


def small_network(seed: int = 1, categories: tuple[str, ...] = NAMES, side: int = SIDE) -> Network:
    """Scores that differ between noise photos, so that some answers are right."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, len(categories)),
    )  # fmt: skip
    with torch.no_grad():
        module[6].weight.mul_(60)
        module[6].bias.zero_()
    return vizapp.wrap(module, (3, side, side), categories=categories, name=f"small {seed}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def network() -> Network:
    return small_network()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 photos of four classes of the network and of one that it lacks, one without a folder, one that is damaged."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(36):
        label = ("ant", "bee", "Sea lion", "OWL", "unicorn", "")[number % 6 if number < 35 else 5]
        place = root / label / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        tint = np.array([number % 5, number * 3 % 7, number // 6 % 4]) * 40  # so that answers differ
        pixels = noise(40, 34, number) // 6 + tint
        place.write_bytes(b"no photo" if number == 7 else saved(pixels.astype(np.uint8)))
    return root


def asked(network: Network, photos: object, **params: object) -> Result:
    return vizapp.ask("evaluate", network, folder=photos, workers=0, **params)


def answers_of(result: Result) -> pd.DataFrame:
    assert result.store is not None
    return pd.read_parquet(result.store / "photos.parquet")


def test_every_number_is_that_of_a_loop_over_predict_and_of_scikit_learn(network: Network, photos: Path) -> None:
    result, folder = asked(network, photos), vizapp.open_folder(photos)
    true, shares, paths = [], [], []
    for number in range(len(folder)):
        label = (folder.labels[number] or "").lower().replace(" ", "_")
        known = [name.lower() for name in NAMES]
        if label in known and not folder.path(number).endswith("/7.png"):
            true.append(known.index(label))
            shares.append(vizapp.ask("predict", network, folder.open(number)).arrays["probabilities"])
            paths.append(folder.path(number))
    each = np.stack(shares)
    given, right = each.argmax(1), each.argmax(1) == true
    assert 0 < right.sum() < len(right)
    arrays = result.arrays
    assert 1 - arrays["top1"] == pytest.approx(accuracy_score(true, given))
    np.testing.assert_array_equal(arrays["confusion"], confusion_matrix(true, given, labels=range(5)))
    report = classification_report(
        true, given, labels=range(5), target_names=NAMES, output_dict=True, zero_division=np.nan
    )
    for number, name in enumerate(NAMES):
        row = [report[name][key] for key in ("recall", "precision", "support")]
        found = [arrays[key][number] for key in ("recall", "precision", "count")]
        np.testing.assert_allclose(found, row, equal_nan=True)
    assert arrays["top5"] == 0, "five classes"
    surest = sorted(np.flatnonzero(~right), key=lambda n: (-each[n].max(), n))
    assert [row["photo"] for row in result.table] == [paths[n] for n in surest]
    assert [row["right"] for row in result.table] == [NAMES[true[n]] for n in surest]
    assert [row["given"] for row in result.table] == [NAMES[given[n]] for n in surest]
    np.testing.assert_allclose([row["probability given"] for row in result.table], each.max(1)[surest], rtol=1e-5)
    own = each[surest, np.array(true)[surest]]
    np.testing.assert_allclose([row["probability right"] for row in result.table], own, rtol=1e-4)
    rows = list(csv.DictReader(io.StringIO(result.documents["classes.csv"])))
    assert {row["name"]: int(row["photos"]) for row in rows}["sea_lion"] == true.count(2)


def test_what_has_no_class_is_answered_counted_and_listed(network: Network, photos: Path) -> None:
    result, folder = asked(network, photos), vizapp.open_folder(photos)
    lacking = [n for n in range(len(folder)) if folder.labels[n] in ("unicorn", None)]
    np.testing.assert_array_equal(result.arrays["without_class"], lacking)
    assert result.facts["without a class"].startswith("12 photos")
    assert "unicorn (6)" in result.facts["without a class"]
    assert "no label (6)" in result.facts["without a class"]
    labels = list(csv.DictReader(io.StringIO(result.documents["labels.csv"])))
    assert [(row["label"], row["photos"], row["name"]) for row in labels] == [
        ("", "6", ""), ("unicorn", "6", ""), ("OWL", "6", "owl"), ("Sea lion", "6", "sea_lion"), ("ant", "6", "ant"),
        ("bee", "6", "Bee"),
    ]  # fmt: skip
    table = answers_of(result)
    assert len(table) == 35, "all that can be read"
    assert table[table["true"] < 0]["label"].isin(["unicorn"]).sum() == 6
    assert "1 photo was skipped: " in result.facts["unreadable"]
    assert result.arrays["count"].sum() == 23


@pytest.mark.parametrize("crops", ["ten", "multi"])
def test_several_crops_are_those_of_predict(network: Network, photos: Path, crops: str) -> None:
    table, folder = answers_of(asked(network, photos, crops=crops)), vizapp.open_folder(photos)
    for number in (0, 10, 30):
        row = table[table["picture"] == number].iloc[0]
        shares = vizapp.ask("predict", network, folder.open(number), crops=crops).arrays["probabilities"]
        np.testing.assert_allclose(row["probabilities"], np.sort(shares)[::-1], rtol=1e-5)
        np.testing.assert_array_equal(row["classes"], np.argsort(-shares))


def test_144_crops_are_averaged(network: Network, photos: Path) -> None:
    few = vizapp.open_folder(listed(photos, ["ant/0.png", "ant/6.png", "bee/1.png"]))
    table = answers_of(asked(network, few, crops="144"))
    for number, path in enumerate(table["path"]):
        crops = GoogLeNetCrops(network.preprocessing.view).apply(vizapp.open_picture(path).pixels)
        each = [network.scores(network.batch([crop])).double().softmax(1).numpy()[0] for crop in crops]
        np.testing.assert_allclose(table["probabilities"][number], np.sort(np.mean(each, 0))[::-1], rtol=1e-5)


def listed(photos: Path, paths: list[str], name: str = "few.csv") -> Path:
    """A list of some of the photos; the label is the folder."""
    place = photos.parent / f"{photos.name}-{name}"
    place.write_text("path,label\n" + "".join(f"{photos / path},{path.split('/')[0]}\n" for path in paths))
    return place


def test_dense_is_the_mean_of_the_logits_over_the_whole_resized_photo(network: Network, photos: Path) -> None:
    """The network has no padding, so each cell is its crop alone, two strides of 2 apart."""
    table, folder = answers_of(asked(network, photos, crops="dense")), vizapp.open_folder(photos)
    how = network.preprocessing.view
    for number in (0, 9):
        photo = folder.open(number).pixels
        resized = vizapp.media.transforms.resize(photo, *how.resized(*photo.shape[:2]), how.interpolation)
        height, width = resized.shape[:2]
        logits = [
            network.scores(network.batch([resized[top : top + SIDE, left : left + SIDE]])).double()
            for top in range(0, height - SIDE + 1, 2) for left in range(0, width - SIDE + 1, 2)
        ]  # fmt: skip
        expected = torch.stack(logits).mean(0).softmax(1).numpy()[0]
        assert len(logits) > 1
        row = table[table["picture"] == number].iloc[0]
        np.testing.assert_allclose(row["probabilities"], np.sort(expected)[::-1], rtol=1e-4)


class Flat(nn.Module):
    """Has weights for each place of its input, and a size check that no other size passes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * SIDE * SIDE, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.roll(1, 2).flatten(1))


def test_a_network_that_cannot_be_converted_is_told_before_the_pass(photos: Path) -> None:
    network = vizapp.wrap(Flat(), (3, SIDE, SIDE), categories=NAMES, name="flat")
    with refuses("not-convolutional", "cannot be made convolutional"):
        asked(network, photos, crops="dense")
    assert not list((settings().cache).rglob("*.arrow"))


def test_the_probabilities_of_several_networks_are_averaged(
    network: Network, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another input size and other spellings of the names make no difference."""
    others = {"second": small_network(2, tuple(name.upper() for name in NAMES), 24), "third": small_network(3)}
    monkeypatch.setattr("vizapp.methods.evaluate.load", lambda name, device: others[name])
    monkeypatch.setattr("vizapp.gallery.mean_table._TOGETHER", 5 * 8)  # blocks of eight photos
    result, folder = asked(network, photos, with_networks="second, third"), vizapp.open_folder(photos)
    table = answers_of(result)
    assert len(table) == 35
    for number in (0, 12, 35):
        each = [
            vizapp.ask("predict", one, folder.open(number)).arrays["probabilities"]
            for one in (network, *others.values())
        ]
        row = table[table["picture"] == number].iloc[0]
        np.testing.assert_allclose(row["probabilities"], np.sort(np.mean(each, 0))[::-1], rtol=1e-5)
    assert table["path"].tolist() == answers_of(asked(network, photos))["path"].tolist()
    assert "small 1, small 2, small 3" in result.facts["networks"]
    assert len(result.table) == (table["true"] >= 0).sum() - (table["true"] == [c[0] for c in table["classes"]]).sum()


def test_networks_with_other_classes_are_not_averaged(
    network: Network, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = small_network(2, ("ant", "Bee", "owl", "sea_lion", "elk"))
    monkeypatch.setattr("vizapp.methods.evaluate.load", lambda name, device: other)
    with refuses("other-classes", "small 2", "small 1", "cannot be averaged"):
        asked(network, photos, with_networks="other")


def test_a_folder_that_tells_no_class_of_the_network_is_refused_in_a_sentence(network: Network, photos: Path) -> None:
    with refuses("no-labels", "has a label", "CSV"):
        asked(network, vizapp.open_folder(photos / "ant"))
    with refuses("no-such-class", "unicorn"):
        asked(network, listed(photos, ["unicorn/4.png", "unicorn/10.png"]))
    with refuses("no-such-class", "Did you mean ant"):
        place = listed(photos, ["ant/0.png"], "typo.csv")
        place.write_text(place.read_text().replace(",ant\n", ",ants\n"))
        asked(network, place)
    with refuses("no-such-class", "Open one of these folders, such as test"):
        place = listed(photos, ["ant/0.png", "bee/1.png"], "parts.csv")
        place.write_text(place.read_text().replace(",ant\n", ",test\n").replace(",bee\n", ",Train\n"))
        asked(network, place)
    with refuses("no-class-scores"):
        asked(vizapp.wrap(seeded(nn.Sequential(nn.Conv2d(3, 4, 3))), (3, SIDE, SIDE)), photos)


def test_labels_that_are_taken_as_numbers_of_classes_are_told(network: Network, photos: Path) -> None:
    assert "as numbers" not in asked(network, photos).facts
    place = listed(photos, ["ant/0.png", "bee/1.png"], "numbers.csv")
    place.write_text(place.read_text().replace(",ant\n", ",2\n").replace(",bee\n", ",03\n"))
    told = asked(network, place).facts["as numbers"]
    assert told.startswith("2 and 1 more were taken as numbers of classes")
    assert told.endswith(f"2 is {NAMES[2]}.")


def test_one_class_is_answered_with_a_caution(network: Network, photos: Path) -> None:
    result = asked(network, listed(photos, ["ant/0.png", "ant/6.png"], "one.csv"))
    assert "always gives it" in result.facts["one class"]
    assert result.arrays["count"].tolist() == [2, 0, 0, 0, 0]


def test_units_that_are_silenced_change_the_errors_and_the_clean_ones_stay(network: Network, photos: Path) -> None:
    before = asked(network, photos)
    silent = asked(network, photos, interventions=[vizapp.Intervention("3")])
    assert silent.facts["interventions"]
    share = np.array([row[0] for row in answers_of(silent)["probabilities"]])
    np.testing.assert_allclose(share, 1 / 5, rtol=1e-6, err_msg="without features and bias all classes are equal")
    assert silent.arrays["confusion"][:, 0].sum() == silent.arrays["confusion"].sum()
    again = asked(network, photos)
    assert again.store == before.store
    np.testing.assert_array_equal(again.arrays["confusion"], before.arrays["confusion"])


def test_a_second_question_makes_no_pass_and_a_changed_folder_another(
    network: Network, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asked(network, photos)
    monkeypatch.setattr(Network, "scores", None)
    assert answers_of(asked(network, photos)).equals(answers_of(first))
    with pytest.raises(TypeError):
        asked(network, listed(photos, ["ant/0.png", "bee/1.png"], "other.csv"))


def test_the_command_prints_and_saves_the_rates(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = tmp_path / "digits"
    for number, label in ((0, "0"), (1, "1"), (2, "2")):
        (digits / label).mkdir(parents=True)
        (digits / label / "a.png").write_bytes(saved(vizapp.open_folder("digits").open(number).pixels))
    common = ["evaluate", "--network", "lenet5-digits", "--device", "cpu", "--folder", str(digits)]
    assert main([*common, "--out", str(tmp_path / "out"), "--json"]) == 0
    told = capsys.readouterr().out
    assert '"accuracy": "100.00 %; mean over the classes 100.00 %"' in told
    assert set(os.listdir(tmp_path / "out")) == {"photos.parquet", "_manifest.json", "_result"}
    assert {"classes.csv", "labels.csv", "arrays.npz", "result.json"} == set(os.listdir(tmp_path / "out" / "_result"))
    with np.load(tmp_path / "out" / "_result" / "arrays.npz") as arrays:
        assert arrays["top1"] == 0
    assert main([*common, "--set", "features.0:all=0"]) == 0
    assert "interventions: features.0" in capsys.readouterr().out


KILLED = """
import os, signal, sys
import vizapp
from tests.methods.test_evaluate import asked, small_network
def tick(share):
    if share > 0.5 and sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
vizapp.ask("evaluate", small_network(), folder=sys.argv[1], workers=0, tick=tick, crops="ten")
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_and_two_processes_write_what_one_writes(
    network: Network, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {path.name: path.read_bytes() for path in files_of(asked(network, photos, crops="ten"))}
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for act, before, code in (("kill", [], -signal.SIGKILL), ("go", torchrun, 0)):
        cache = tmp_path / act
        environment = os.environ | {"VIZAPP_CACHE": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *before, str(script), str(photos), act]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=False, timeout=300, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        monkeypatch.setenv("VIZAPP_CACHE", str(cache))
        if act == "kill":
            assert list(cache.rglob(f"{WORK}/*.arrow")), "some photos were saved"
        else:
            monkeypatch.setattr(Network, "scores", None)  # it is all there
        assert {path.name: path.read_bytes() for path in files_of(asked(network, photos, crops="ten"))} == whole
        monkeypatch.undo()


def files_of(result: Result) -> list[Path]:
    assert result.store is not None
    return sorted(path for path in result.store.iterdir() if path.is_file())


def test_the_examples_of_the_docs_read_the_table_with_pandas_and_with_duckdb(
    network: Network, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = asked(network, photos)
    text = (ROOT / "docs" / "evaluate.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "read_parquet" in block]
    assert len(blocks) == 2
    assert result.store is not None
    monkeypatch.chdir(result.store)
    found: dict[str, Any] = {}
    for block in blocks:
        exec(block, found)
    assert found["accuracy"] == pytest.approx(1 - result.arrays["top1"])
    assert found["top5"] == pytest.approx(1 - result.arrays["top5"])
    matrix, table = result.arrays["confusion"], found["confusion"]
    assert {(row, column): int(table.loc[row, column]) for row in table.index for column in table.columns} == {
        (row, column): matrix[row, column] for row in table.index for column in table.columns
    }
    assert table.to_numpy().sum() == matrix.sum()
    recall = {NAMES.index(fold_label(label)): share for label, _, share in found["worst"].itertuples(index=False)}
    np.testing.assert_allclose([recall[number] for number in range(4)], result.arrays["recall"][:4])


def fold_label(label: str) -> str:
    return next(name for name in NAMES if name.lower() == label.lower().replace(" ", "_"))


@pytest.mark.slow
def test_the_card_of_zfnet_mini_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some classes, with the crops of its training; of all 2,893 photos it is 72.38 % (docs/evaluate.md)."""
    test = shared("data/caltech101/test")
    monkeypatch.syspath_prepend(str(ROOT / "training"))
    from zfnet_mini import write_squares

    card = {
        cells[1].strip(): (int(cells[2]), cells[3].strip())
        for line in (ROOT / "assets" / "zfnet-mini.md").read_text().splitlines()
        if len(cells := line.split("|")) == 5 and cells[2].strip().isdigit()
    }
    names = ("anchor", "bass", "car_side", "Faces_easy", "wild_cat", "wrench")
    (tmp_path / "test").mkdir()
    for name in names:
        (tmp_path / "test" / name).symlink_to(test / name)
    write_squares(tmp_path / "test", tmp_path / "squares")
    network = vizapp.load("vizapp/zfnet-mini", device="cpu")
    result = vizapp.ask("evaluate", network, folder=tmp_path / "squares")
    for name in names:
        number = network.categories.index(name)
        count, percent = card[name]
        assert result.arrays["count"][number] == count
        assert f"{100 * result.arrays['recall'][number]:.0f} %" == percent
