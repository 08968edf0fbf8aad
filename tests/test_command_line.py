"""The command line gives the results of Python; user errors give a one-line message and exit status 2."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from torchvision import models

import vizapp
from vizapp.__main__ import _progress, main, read_unit
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.media.samples import open_sample

DIGITS = ["--network", "lenet5-digits", "--picture", "digit 7"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_predict_as_text_and_as_json(capsys) -> None:
    status, out, err = run(capsys, "predict", *DIGITS, "--top", "2")
    assert (status, err) == (0, "")
    assert "answer: 7" in out
    status, out, _ = run(capsys, "predict", *DIGITS, "--json")
    assert json.loads(out)["table"][0]["name"] == "7"


def test_out_holds_the_pictures_the_arrays_and_the_facts(capsys, tmp_path: Path) -> None:
    status, _, _ = run(capsys, "activations", *DIGITS, "--unit", "features.3:5", "--out", str(tmp_path / "out"))
    assert status == 0
    assert np.load(tmp_path / "out" / "arrays.npz")["activations"].shape == (16, 8, 8)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "arrays.npz", "result.json", "sheet.png", "channel-5.png",
    }  # fmt: skip


def test_a_class_is_a_unit(capsys) -> None:
    status, out, _ = run(capsys, "activations", *DIGITS, "--class", "7", "--json")
    assert status == 0
    assert json.loads(out)["arrays"]["activations"]["shape"] == [10]


def test_lists(capsys) -> None:
    status, out, _ = run(capsys, "networks", "lenet", "--json")
    assert status == 0
    assert "vizapp/lenet5-digits" in json.loads(out)
    status, out, _ = run(capsys, "sites", "vizapp/lenet5-digits", "--json")
    assert json.loads(out)[0] == {"site": "features.0", "kind": "convolution", "shape": [6, 24, 24]}
    status, out, _ = run(capsys, "methods", "--json")
    assert {"predict", "activations"} <= {row["key"] for row in json.loads(out)}
    assert run(capsys, "methods")[0] == run(capsys, "sites", "lenet5-digits")[0] == run(capsys, "networks")[0] == 0


def test_networks_are_listed_by_where_their_weights_are(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"")  # is not read
    monkeypatch.setenv("VIZAPP_WEIGHTS", str(tmp_path))
    status, out, _ = run(capsys, "networks", "--groups")
    assert status == 0
    groups = {block.split(" (")[0]: block for block in re.split(r"\n(?=[A-Z])", out)}
    assert list(groups) == ["On this machine", "Needs download", "No published weights"]
    assert groups["On this machine"].splitlines()[2].startswith("  vizapp/efficientnet-lite0 ")
    assert "  torchvision/resnet18 " in groups["On this machine"]
    mebibytes = models.get_model_weights("resnet34").DEFAULT.meta["_file_size"]
    (line,) = (line for line in groups["Needs download"].splitlines() if line.startswith("  torchvision/resnet34 "))
    assert re.split(r"  +", line.strip())[1:] == ["21,797,672", "classification", f"{mebibytes * 2**20 / 1e6:.0f} MB"]
    assert "vizapp/alexnet-2012" in groups["No published weights"]
    found = json.loads(run(capsys, "networks", "lenet", "--groups", "--json")[1])
    names = [row["name"] for rows in found.values() for row in rows]
    assert sorted(names) == sorted(json.loads(run(capsys, "networks", "lenet", "--json")[1])), "each once"
    assert found["On this machine"][0]["name"] == "vizapp/lenet5-digits"


def test_without_a_name_the_network_is_the_one_for_imagenet(capsys) -> None:
    status, out, err = run(capsys, "predict", "--picture", "coffee", "--top", "1", "--json")
    assert (status, err) == (0, "")
    assert [row["name"] for row in json.loads(out)["table"]] == ["espresso"]
    assert json.loads(run(capsys, "sites", "--weights", "none", "--json")[1])[1]["site"] == "conv_stem"
    assert vizapp.load(weights="none", device="cpu").name == "vizapp/efficientnet-lite0"


def test_units_are_read() -> None:
    assert read_unit("layer1.0.relu:7") == Unit("layer1.0.relu", 7)
    assert read_unit("a.b:7@3,4") == Unit("a.b", 7, (3, 4))
    for wrong in ("", "a", "a:", "a:x", ":3", "a:3@", "a:3@1", "a:3@1,2,3"):
        with pytest.raises(VizError):
            read_unit(wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["predct", *DIGITS],
        ["predict", "--network", "lenet5-digts", "--picture", "digit 7"],
        ["predict", "--network", "lenet5-digits"],
        ["predict", "--network", "lenet5-digits", "--picture", "no such file.jpg"],
        ["predict", *DIGITS, "--top", "0"],
        ["predict", *DIGITS, "--top", "many"],
        ["predict", *DIGITS, "--crops", "eleven"],
        ["predict", *DIGITS, "--frobnicate", "1"],
        ["predict", *DIGITS, "--device", "abacus"],
        ["predict", *DIGITS, "--weights", "no such file.pth"],
        ["activations", *DIGITS],
        ["activations", *DIGITS, "--unit", "features.3"],
        ["activations", *DIGITS, "--unit", "features.9:1"],
        ["activations", *DIGITS, "--unit", "features.3:99"],
        ["activations", *DIGITS, "--class", "eleven"],
        ["activations", *DIGITS, "--class", "99"],
        ["activations", *DIGITS, "--class", "²"],
        ["activations", *DIGITS, "--class", "1", "--unit", "features.3:1"],
        ["sites", "nothing"],
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(capsys, arguments: list[str]) -> None:
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("vizapp: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_samples_of_a_similar_name_are_named(capsys) -> None:
    for asked in (["--picture", "digit"], ["--picture", "digit 3", "--target", "embedding=digit"]):
        status, _, err = run(capsys, "predict", *DIGITS[:2], *asked)
        assert status == 2
        assert "no sample photo 'digit'. Did you mean digit 0" in err
    _, _, err = run(capsys, "predict", *DIGITS[:2], "--picture", "digit 3.png")
    assert "sample" not in err, "a name of a file"


def test_with_json_the_code_of_an_error_is_printed(capsys) -> None:
    status, out, err = run(capsys, "predict", *DIGITS[2:], "--network", "nowhere/lenet5", "--json")
    told = json.loads(out)
    assert (status, told["code"]) == (2, "no-such-network")
    assert err == f"vizapp: {told['error']}\n"
    assert json.loads(run(capsys, "predict", "--json", "--frobnicate")[1])["code"] == "bad-arguments"


def test_help_is_status_0(capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main(["predict", "--help"])
    assert left.value.code == 0
    assert "--top" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["predict", "dense", "architecture"])
def test_options_are_not_guessed_from_their_beginning(capsys, method: str) -> None:
    status, out, err = run(capsys, method, *DIGITS, "--class", "3")  # once this was read as --classes
    assert (status, out) == (2, "")
    assert "--class" in err
    assert err.count("\n") == 1


def test_a_switch_needs_no_value(capsys) -> None:
    arguments = ["dense", *DIGITS, "--check", "0", "--json"]
    told = [run(capsys, *arguments, *more) for more in ([], ["--flips"], ["--flips", "true"], ["--flips", "false"])]
    assert [status for status, _, _ in told] == [0, 0, 0, 0]
    answers = [json.loads(out)["table"][0]["vote"] for _, out, _ in told]
    assert answers[0] == answers[3] != answers[1] == answers[2]


def progress_on(monkeypatch: pytest.MonkeyPatch, *, terminal: bool = True, delay: float = 0.0) -> StringIO:
    written = StringIO()
    monkeypatch.setattr(written, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setattr("vizapp.progress._DELAY", delay)
    return written


@pytest.mark.parametrize("end", [VizError("in between", code="stopped"), KeyboardInterrupt(), None])
def test_progress_is_one_line_that_goes_however_the_work_ends(
    end: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = progress_on(monkeypatch, delay=0.02)

    def work() -> None:
        with _progress("Occlusion") as tick:
            assert tick is not None
            for share in (0.25, 0.5):
                time.sleep(0.11)  # tqdm draws ten times a second at most
                tick(share)
            if end is not None:
                raise end

    if end is None:
        work()
    else:
        with pytest.raises(type(end)):
            work()
    shown = [line for line in written.getvalue().split("\r") if line.strip()]
    assert [line.split("|")[0] for line in shown] == ["Occlusion:  25 %", "Occlusion:  50 %"]
    assert "\n" not in written.getvalue()
    assert written.getvalue().endswith("\r")
    assert not written.getvalue().split("\r")[-2].strip()


def test_progress_is_silent_for_short_work_pipes_and_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    written = progress_on(monkeypatch, delay=60)
    with _progress("Occlusion") as tick:
        assert tick is not None
        tick(0.5)
    piped = progress_on(monkeypatch, terminal=False)
    with _progress("Occlusion") as tick:
        assert tick is None
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    other = progress_on(monkeypatch)
    with _progress("Occlusion") as tick:
        assert tick is None
    assert written.getvalue() == piped.getvalue() == other.getvalue() == ""


@pytest.mark.slow
def test_answers_are_written_in_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-X", "utf8=0", "-m", "vizapp", "architecture", *DIGITS[:2], "--out", str(out)]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    told = (out / "result.json").read_bytes().decode("utf-8")
    assert json.loads(told)["method"] == "architecture"
    assert not told.isascii()


def test_ctrl_c_while_the_imports_run_stops_without_a_stack_trace() -> None:
    code = (
        "import runpy, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # it is ignored where pytest runs in the background
        "runpy.run_module('vizapp', run_name='__main__')"
    )
    command = [sys.executable, "-X", "importtime", "-c", code, "networks"]  # a line on stderr after each import
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(b"torch.nn" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        process.wait()
    assert [line for line in rest.splitlines() if not line.startswith(b"import time:")] == [b"vizapp: stopped."]
    assert process.returncode == 130


def test_units_are_changed_with_any_method(capsys) -> None:
    status, out, _ = run(
        capsys, "predict", *DIGITS, "--json", "--set", "features.4:0-2,5=0", "--set", "features.1:all=1.5"
    )
    assert status == 0
    told = json.loads(out)
    assert told["facts"]["interventions"] == "features.4: channels 0-2, 5 × 0; features.1: all channels × 1.5"
    network = vizapp.load("lenet5-digits")
    given = [
        vizapp.Intervention("features.4", [0, 1, 2, 5], "scale", 0.0),
        vizapp.Intervention("features.1", None, "scale", 1.5),
    ]
    expected = vizapp.ask("predict", network, open_sample("digit 7"), interventions=given)
    assert [row["probability"] for row in told["table"]] == [row["probability"] for row in expected.table]
    status, out, _ = run(
        capsys, "activations", *DIGITS, "--unit", "features.4:1", "--json", "--set", "features.4:all=freeze:digit 3"
    )
    assert status == 0
    assert "values on digit 3" in json.loads(out)["facts"]["interventions"]


def test_a_wrong_change_is_one_line(capsys) -> None:
    for text, told in (
        ("features.4:1=5", "0 to 3"),
        ("features.4", "SITE:CHANNELS=FACTOR"),
        ("feature.4:1=0", "features.4"),
    ):
        status, _, err = run(capsys, "predict", *DIGITS, "--set", text)
        assert status == 2
        assert told in err
        assert err.count("\n") == 1
