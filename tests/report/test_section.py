"""Results as sections of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

import vizapp
from vizapp.media.samples import open_sample
from vizapp.methods.base import Result


@pytest.fixture(scope="module")
def result() -> Result:
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    return vizapp.ask("attribution", network, open_sample("digit 3"), unit=vizapp.class_unit(network, 8))


def test_a_section_has_the_pictures_the_facts_and_what_makes_it_again(result: Result) -> None:
    section = result.section("Mine", "A remark", "http://here/attribution")
    assert (section.title, section.remark, section.link) == ("Mine", "A remark", "http://here/attribution")
    assert section.command.startswith("vizapp attribution")
    assert "class 8" in section.command
    assert result.section().title == "Attribution · digit 3.png"
    assert result.section().link.startswith("http://localhost:8501/attribution?")


@pytest.mark.parametrize(
    ("target", "explained"),
    [(vizapp.Target("ring", cell=(40, 10)), "ring"), (vizapp.Target("ring", region="predicted"), "ring"), (None, "")],
)
def test_a_section_names_the_class_of_a_target(target: vizapp.Target | None, explained: str) -> None:
    network = vizapp.load("vizapp/shapes-segmenter", device="cpu")
    section = vizapp.ask("predict", network, open_sample("shapes 1"), target=target).section()
    assert section.about.get("explained", "") == explained


def test_a_report_is_saved_where_it_is_told(result: Result, tmp_path: Path) -> None:
    report = vizapp.Report((result.section(),), "Two <digits>")
    saved = report.save(tmp_path / "report.html")
    assert saved.read_text(encoding="utf-8") == report.to_html()
    with pytest.raises(vizapp.VizError, match="Cannot write"):
        report.save(tmp_path / "missing" / "report.html")
