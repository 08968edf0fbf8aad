"""The method `architecture`: the table as text and numbers, its totals, its ways of counting, its files."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vizapp
from tests.networks import Branching, seeded
from vizapp.methods.architecture import COLUMNS
from vizapp.methods.tables import to_csv, to_markdown
from vizapp.zoo.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40))


def test_the_table_by_hand(network) -> None:
    result = vizapp.ask("architecture", network, repeats=0)
    rows = {row["layer"]: row for row in result.table}
    assert list(rows) == ["stem", "pool", "left", "right", "cat", "body", "add", "mean", "head"]
    stem = {"kind": "convolution", "output": "8 × 24 × 20", "kernel": "5 × 5", "stride": "2", "parameters": 608}
    stem |= {"padding": "2", "dilation": "1", "groups": "1"}
    stem |= {"output size": "down ⌊(2·2 + 48 − 5)/2⌋ + 1 = 24; across ⌊(2·2 + 40 − 5)/2⌋ + 1 = 20"}
    stem |= {"multiply-adds": 24 * 20 * 8 * 75, "field": "5 × 5", "field stride": "2", "milliseconds": None}
    assert rows["stem"] == {"layer": "stem"} | stem | {"from": "picture"}
    assert (rows["pool"]["output"], rows["pool"]["field"]) == ("8 × 12 × 10", "9 × 9")
    assert rows["left"]["field"] == "25 × 25"
    assert (rows["cat"]["from"], rows["add"]["from"]) == ("left, right", "body, cat")
    assert rows["mean"]["kernel"] == "12 × 10"
    assert (rows["head"]["output"], rows["head"]["multiply-adds"]) == ("5", 40)
    assert result.facts["parameters"] == f"{network.parameters:,}"
    total = sum(row["multiply-adds"] for row in result.table)
    assert result.facts["multiply-adds"].startswith(f"{total:,} ")
    assert "one pass" not in result.facts


def test_the_array_holds_the_numbers_of_the_table(network) -> None:
    result = vizapp.ask("architecture", network, rows="operations", count="operations", repeats=1)
    numbers = result.arrays["table"]
    assert numbers.shape == (len(result.table), len(COLUMNS))
    assert result.facts["columns"].split(", ") == list(COLUMNS)
    for row, values in zip(result.table, numbers, strict=True):
        named = dict(zip(COLUMNS, values, strict=True))
        shape = [named[axis] for axis in ("channels", "height", "width") if not math.isnan(named[axis])]
        assert " × ".join(f"{side:.0f}" for side in shape) == row["output"]
        assert (named["parameters"], named["operations"]) == (row["parameters"], row["operations"])
        assert named["milliseconds"] == row["milliseconds"] > 0
        assert math.isnan(named["kernel height"]) == (row["kernel"] == "") == (row["output size"] == "")
        assert math.isnan(named["groups"]) == (row["groups"] == "")
    assert len(result.table) == len(network.sites)
    assert "as a whole" in result.facts["one pass"]


def test_modules_are_summed_up_to_a_depth() -> None:
    module = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    )
    network = vizapp.wrap(module, input_size=(3, 8, 8))
    result = vizapp.ask("architecture", network, rows="modules", repeats=0)
    assert [(row["layer"], row["parameters"]) for row in result.table] == [("0", 16), ("1", 185 + 10)]
    assert len(vizapp.ask("architecture", network, rows="modules", depth=2, repeats=0).table) == 4


def test_parameters_that_a_pass_does_not_use_are_told() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(3, 4, 1), nn.Linear(1234, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x).mean((2, 3))

    facts = vizapp.ask("architecture", vizapp.wrap(Idle(), input_size=(3, 8, 8)), repeats=0).facts
    assert facts["parameters"] == "1,251; 1,235 of them are not used by this forward pass"


def test_it_answers_for_a_picture_too_and_can_be_left(network) -> None:
    class Leave(BaseException):
        pass

    def leave(share: float) -> None:
        if share > 0.3:
            raise Leave

    picture = vizapp.open_picture(np.zeros((50, 60, 3), np.uint8))
    assert len(vizapp.ask("architecture", network, picture, repeats=0).table) == 9
    with pytest.raises(Leave):
        vizapp.ask("architecture", network, picture, repeats=5, tick=leave)


def test_saved_as_csv_and_markdown(network, tmp_path: Path) -> None:
    result = vizapp.ask("architecture", network, repeats=0)
    folder = result.save(tmp_path)
    with (folder / "architecture.csv").open(encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["layer"] for row in read] == [row["layer"] for row in result.table]
    assert int(read[0]["parameters"]) == 608
    assert read[0]["milliseconds"] == ""
    lines = (folder / "architecture.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| layer | kind | output |")
    assert len(lines) == 2 + len(result.table)
    assert "| 8 × 24 × 20 |" in lines[2]
    assert read[0]["output size"] in lines[2]
    assert read[0]["output size"].endswith("⌊(2·2 + 40 − 5)/2⌋ + 1 = 20")


def test_tables_as_text() -> None:
    rows = [{"a": "x|y\nz", "b": 1234567, "c": None}, {"a": "é", "b": 2, "d": 0.123456}]
    assert to_markdown(rows) == (
        "| a | b | c | d |\n| --- | ---: | --- | ---: |\n| x\\|y z | 1,234,567 |  |  |\n| é | 2 |  | 0.1235 |\n"
    )
    assert list(csv.reader(to_csv(rows).splitlines()[:1])) == [["a", "b", "c", "d"]]
    assert next(csv.DictReader(io.StringIO(to_csv(rows))))["a"] == "x|y\nz"


@pytest.mark.gpu
def test_the_same_table_on_a_gpu(network) -> None:
    module = seeded(Branching()).to("cuda")
    found = vizapp.ask("architecture", vizapp.wrap(module, input_size=(3, 48, 40)), repeats=2)
    expected = vizapp.ask("architecture", network, repeats=0)
    np.testing.assert_array_equal(found.arrays["table"][:, :-1], expected.arrays["table"][:, :-1])
    assert (found.arrays["table"][:, -1] > 0).all()


class Spectral(nn.Module):
    """A network whose Fourier transform no rule counts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.fft.fft2(self.conv(x)).real
        return self.head(self.rnn(x.flatten(2).transpose(1, 2))[0][:, -1])


def test_what_is_not_counted_is_named() -> None:
    network = vizapp.wrap(seeded(Spectral()), input_size=(3, 8, 8))
    told = vizapp.ask("architecture", network, repeats=0).facts["multiply-adds"]
    assert told.startswith(f"{64 * 4 * 27 + 64 * 24 * (4 + 6) + 30:,} ")
    assert told.endswith("; not counted: fft_fft2")
