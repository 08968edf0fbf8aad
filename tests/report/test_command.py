"""`vizapp report`."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vizapp import __main__ as command_line
from vizapp.__main__ import main
from vizapp.media.samples import open_sample

ASKED = ["report", "predict", "--network", "vizapp/lenet5-digits", "--device", "cpu", "--picture", "digit 3"]


def test_the_report_is_written_and_its_size_is_told_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.html"
    assert main([*ASKED, "--out", str(file), "--title", "Mine & <yours>", "--remark", "Look"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [f"saved: {file}, {file.stat().st_size / 2**20:.1f} MB"]
    assert shown.err == ""
    assert "<title>Mine &amp; &lt;yours&gt;</title>" in file.read_text(encoding="utf-8")


def test_the_size_of_a_large_report_is_told_before_it_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "_LARGE_REPORT", 1000)
    assert main([*ASKED, "--out", str(tmp_path / "missing" / "report.html")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("vizapp: the report will have 0.")
    assert "Cannot write" in second


def test_a_report_needs_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ASKED) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_rows_of_different_columns_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("digit 3", "digit 8"):
        Image.fromarray(open_sample(name).pixels).save(tmp_path / f"{name}.png")
    asked = ["trust", "--network", "vizapp/lenet5-digits", "--device", "cpu", "--folder", str(tmp_path)]
    assert main([*asked, "--kinds", "random,gradcam", "--measures", "deletion", "--photos", "2"]) == 0
    heads, random, gradcam = capsys.readouterr().out.splitlines()[:3]
    assert heads.endswith("beats random")
    assert gradcam.startswith("gradcam")
    assert len(random) < len(gradcam) <= len(heads)


def _refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("name", ["report.txt", "report", ".", "html", ""])
def test_a_report_is_an_html_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (ASKED, ["report", "--from", str(tmp_path)]):
        assert "HTML file" in _refused([*words, "--out", name], capsys)


def test_a_report_is_of_a_method_or_of_saved_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "report.html")
    words = ["report", "--from", str(tmp_path), "--title", "Mine", *ASKED[1:], "--out", file]
    assert "not both" in _refused(words, capsys)


def test_the_options_of_a_report_may_stand_before_its_method(tmp_path: Path) -> None:
    file = tmp_path / "REPORT.HTM"
    assert main(["report", "--out", str(file), "--title", "Mine", "--remark", "Look", *ASKED[1:]]) == 0
    content = file.read_text(encoding="utf-8")
    assert "<h1>Mine</h1>" in content
    assert 'class="remark">Look<' in content
