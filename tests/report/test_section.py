"""Results as sections of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

import vizapp
from vizapp.media.samples import open_sample
from vizapp.methods.attribution import KINDS
from vizapp.methods.base import Result
from vizapp.methods.words import in_words


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


def test_parameters_have_the_names_of_the_app_and_are_told_once() -> None:
    network, photo = vizapp.load("vizapp/lenet5-digits", device="cpu"), open_sample("digit 3")
    unit = vizapp.class_unit(network, 3)
    trust = vizapp.ask("trust", network, photo, unit=unit, kinds=("random", "gradcam"), measures=("deletion",))
    assert trust.section().about["parameters"] == "kinds Random, Grad-CAM; measures deletion"
    assert all(in_words({"kind": key}) == f"kind {kind.title}" for key, kind in KINDS.items())
    hidden = vizapp.ask("occlusion", network, photo, window=14, stride=14, inverse=True, site="features.1").section()
    assert hidden.about["parameters"] == "layer features.1"
    assert hidden.about["square"].startswith("14 x 14 pixels every 14")
    moved = vizapp.ask("transform", network, photo, kind="shift-x", amounts=tuple(range(13))).section()
    assert moved.about["parameters"] == "amounts 0, 1, 2, 3, 4, 5 … 12 (13 values)"
    assert (
        "rule guided; extended off"
        in vizapp.ask("projection", network, photo, unit=unit, rule="guided", extended=False)
        .section()
        .about["parameters"]
    )


def test_predict_names_the_paper_about_ten_crops_where_there_are_ten() -> None:
    network, photo = vizapp.load("vizapp/lenet5-digits", device="cpu"), open_sample("digit 3")
    sources = [vizapp.ask("predict", network, photo, crops=crops).section().source for crops in ("one", "ten", "multi")]
    assert ["ten crops" in source for source in sources] == [False, True, False]
