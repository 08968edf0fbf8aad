"""`vizapp report --from`: saved answers in one document, as if they were asked now."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vizapp
from vizapp.__main__ import main
from vizapp.media.samples import open_sample
from vizapp.methods.base import Result
from vizapp.methods.reopen import open_result

ASKED: dict[str, dict[str, Any]] = {
    "predict": {}, "occlusion": {"window": 14, "stride": 14, "inverse": True},
    "transform": {"kind": "shift-x", "amounts": (-2, 0, 2)}, "attribution": {"kind": "lrp", "of": 8},
    "activations": {"unit": vizapp.Unit("features.1", 0)}, "projection": {"unit": vizapp.Unit("features.4", 2, (1, 1))},
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Result, Path]]:
    """Answers, each with the folder that it was saved into."""
    network, photo, folder = vizapp.load("vizapp/lenet5-digits", device="cpu"), open_sample("digit 3"), {}
    for key, given in ASKED.items():
        unit = {"unit": vizapp.class_unit(network, given["of"])} if "of" in given else {}
        params = {name: value for name, value in given.items() if name != "of"}
        result = vizapp.ask(key, network, photo, **unit | params)
        folder[key] = result, result.save(tmp_path_factory.mktemp(key))
    return folder


@pytest.mark.parametrize("key", ASKED)
def test_a_saved_answer_has_the_report_that_it_had_before(saved: dict[str, tuple[Result, Path]], key: str) -> None:
    result, folder = saved[key]
    again = open_result(folder)
    assert again.to_html() == result.to_html()
    assert again.arrays.keys() == result.arrays.keys()
    for name, array in result.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)


def test_several_saved_answers_make_one_document(
    saved: dict[str, tuple[Result, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folders = tmp_path / "all.html", [str(saved[key][1]) for key in ("occlusion", "predict")]
    words = ["report", "--from", *folders, "--out", str(file), "--title", "Both <of>", "--remark", "Look", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(file), "bytes": file.stat().st_size}
    content = file.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?) · ", content) == ["Occlusion", "Predict"]
    assert "<h1>Both &lt;of&gt;</h1>" in content
    assert content.count('class="remark">Look<') == 1
    assert str(tmp_path.parent) not in content


def test_one_saved_answer_gives_its_title_to_the_document(
    saved: dict[str, tuple[Result, Path]], tmp_path: Path
) -> None:
    assert main(["report", "--from", str(saved["predict"][1]), "--out", str(tmp_path / "one.html")]) == 0
    assert "<h1>Predict · digit 3.png</h1>" in (tmp_path / "one.html").read_text(encoding="utf-8")


def test_a_store_keeps_what_was_asked_beside_its_tables(saved: dict[str, tuple[Result, Path]], tmp_path: Path) -> None:
    result, store = saved["predict"][0], tmp_path / "store"
    store.mkdir()
    (store / "end.json").write_text("{}")
    there = Result(**{**vars(result), "store": store, "manifest": "end.json"}).save(tmp_path / "out")
    assert open_result(there).to_html() == result.to_html()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("result.json", None), ("arrays.npz", None), ("seen.png", None), ("result.json", "[1]"), ("result.json", "{"),
        ("arrays.npz", "PK"), ("arrays.npz", "other"), ("result.json", "panel"), ("result.json", "earlier"),
        ("arrays.npz", "pickle"),
    ],
)  # fmt: skip
def test_a_folder_without_a_whole_answer_is_one_line(
    saved: dict[str, tuple[Result, Path]], file: str, content: str | None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = shutil.copytree(saved["predict"][1], tmp_path / "broken")
    if content is None:
        (folder / file).unlink()
    elif content == "other":
        shutil.copy(saved["transform"][1] / file, folder / file)
    elif content == "panel":
        told = json.loads((folder / file).read_text("utf-8"))
        shutil.copy(folder / "seen.png", tmp_path / "seen.png")
        told["panels"][0]["file"] = "../seen.png"
        (folder / file).write_text(json.dumps(told))
    elif content == "earlier":
        told = json.loads((folder / file).read_text("utf-8"))
        (folder / file).write_text(json.dumps({name: value for name, value in told.items() if name != "asked"}))
    elif content == "pickle":
        np.savez(folder / "arrays.npz", probabilities=np.array([{}], object))
    else:
        (folder / file).write_text(content)
    assert main(["report", "--from", str(folder), "--out", str(tmp_path / "out.html")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "holds no answer that can be opened" in error
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize("words", [["report"], ["report", "--out", "a.html"], ["report", "--from", "folder"]])
def test_what_is_missing_is_said_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
