"""The report of a page, and the one that is collected from several: what is in them, whose they are, what is lost."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.media.files import saved
from tests.ui.app import PAGES, Open, pixels, press, sentences, shown, turn_to, went_well, words
from tests.ui.session.test_downloads import button, sent
from vizapp.media.samples import all_digits, digit_pixels
from vizapp.methods.base import Method, Result
from vizapp.ui.app.pages import pages
from vizapp.ui.pages.start.cards import CARDS
from vizapp.ui.session import compute, progress, reports
from vizapp.ui.session.reports import Entry

# Answers that a page shows beside those of its own methods.
_MORE = {
    "predict": {"attribution"}, "start": {"predict", "attribution", "activations", "projection", "filters", "dense",
    "occlusion", "transform", ""}, "compare": {"predict", "occlusion", "filters", "projection", ""}, "projection": {"sanity"},
}  # fmt: skip
_SLOW = {"start", "evaluate", "attribution", "evolution", "neighbours", "gallery", "transform", "compare"}
_NAME = "<img src=x onerror=alert(1)> _a_ *b* [c](d) $e$.png"


def dialog(app: AppTest) -> AppTest:
    """The app with the dialog open."""
    app.button(key="report.button").click().run()
    assert went_well(app)
    return app


def file(app: AppTest, label: str = "Download") -> str:
    """The file that a click on the button sends."""
    button(app, label).click().run()
    assert went_well(app)
    told, content = sent(app)[-1]
    assert told["type"] == "text/html"
    return content.decode()


def told_size(app: AppTest) -> float:
    """The bytes that the file of this page is said to have."""
    number, unit = re.search(r"One HTML file, about ([0-9.]+) (kB|MB), that", words(app)).groups()  # type: ignore[union-attr]
    return float(number) * {"kB": 1e3, "MB": 1e6}[unit]


def results(app: AppTest) -> list[Result]:
    """The answers that the page offers."""
    found = [one.result() for one in app.session_state["report.offered"][2].values()]
    return [one for one in found if one is not None]


def answers(app: AppTest) -> list[str]:
    """The answers of the page among which the dialog lets choose."""
    return [box.label.replace("\\", "") for box in app.checkbox if box.key.startswith("report.")]


def whole_page(app: AppTest) -> Result:
    """What the page offers first: all that it shows."""
    one = next(iter(app.session_state["report.offered"][2].values())).result()
    assert one is not None
    assert one.method == ""
    return one


def check_start(app: AppTest) -> None:
    whole, of_pages = whole_page(app), pages()
    asked = {card.key: card.unanswered or card.question or of_pages[card.page].question for card in CARDS}
    captions = {panel.title: panel.caption for panel in whole.panels}
    rows = {row["question"]: row["answer"] for row in whole.table}
    assert {*captions, *rows} == set(asked.values())
    assert set(rows) == {asked[key] for key in ("predict", "gallery", "search", "compare")}
    told = [caption.value.replace("\\", "") for caption in app.caption]
    assert all(caption in told for caption in captions.values())
    bars = shown(app, "start.bars")["rows"]
    assert rows[asked["predict"]].startswith(f"{bars[0]['name']} {100 * bars[0]['share']:.0f}")
    assert rows[asked["compare"]].count("with random weights") == 2, "beside its answer, and in the sentence"
    drawn = next(panel.pixels for panel in whole.panels if panel.title == asked["filters"])
    np.testing.assert_array_equal(drawn, pixels(shown(app, "start.filters")["photo"]))


def check_compare(app: AppTest) -> None:
    whole = whole_page(app)
    captions = {panel.title: panel.caption for panel in whole.panels}
    each = [f"{what}, {who} network" for what in ("Filters", "Projections", "Occlusion") for who in ("first", "second")]
    assert list(captions) == [*each, "Difference"]
    assert all(captions[f"Filters, {who} network"].count("near-duplicate") <= 1 for who in ("first", "second"))
    told = [caption.value.replace("\\", "") for caption in app.caption]
    assert all(
        any(one and caption.startswith(one) for one in told) for name, caption in captions.items() if "Occl" in name
    )
    first, second = (shown(app, f"compare.bars.{number}")["rows"] for number in (0, 1))
    assert [row["first network"] for row in whole.table] == [row["name"] for row in first]
    assert [row["second probability"] for row in whole.table] == pytest.approx([row["share"] for row in second])
    assert "random weights" in whole.facts["network"]
    box = next(box for box in app.checkbox if box.label == "Projections, second network")
    box.uncheck().run()  # which draws the page anew
    app.button(key="report.add").click().run()
    assert [one.title for one in entries(app)] == [one for one in answers(app) if one != box.label]


def entries(app: AppTest) -> list[Entry]:
    return list(app.session_state["report.collected"])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(saved(digit_pixels(all_digits()[0][number])))
    return folder


@pytest.fixture
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes every method fail from then on."""

    def refuse(*args: Any, **options: Any) -> Result:
        raise AssertionError("something was computed")

    return lambda: monkeypatch.setattr(Method, "answer", refuse)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow) if page in _SLOW else page for page in PAGES]
)
def test_every_page_reports_what_it_shows_and_a_click_computes_nothing(
    open_app: Open, page: str, photos: Path, monkeypatch: pytest.MonkeyPatch, patient: None, nothing_is_computed: Any
) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)
    parts = {"parts": "28x28,digit%200:2:6:12:20,digit%208:2:6:12:20,digit%209:2:6:12:20"}
    more = {"correspondence": parts} | {key: {"data": str(photos)} for key in ("neighbours", "gallery")}
    app = open_app(page, picture="digit 3", **more.get(page, {}))
    assert went_well(app)
    if page == "gallery":
        press(app, "gallery.build")
    there = results(app)
    nothing_is_computed()
    dialog(app)
    spec = pages()[page]
    if not there:
        assert page in ("about", "probe")  # a probe starts by itself in no test
        assert "There is nothing to report yet" in words(app)
        return
    known = set(spec.methods) | _MORE.get(page, set())
    assert all("weights" in one.facts["network"] for one in there if one.provenance is not None), "with its weights"
    assert {one.method for one in there} <= known
    assert {one.method for one in there} & (set(spec.methods) or known)
    told = told_size(app)
    content = file(app)
    assert abs(told / len(content.encode()) - 1) < 0.2
    assert content.count("<section") >= len(there)
    assert str(photos) not in content
    {"start": check_start, "compare": check_compare}.get(page, lambda app: None)(app)


def test_a_report_of_occlusion_names_the_target(open_app: Open, patient: None) -> None:
    asked = {"network": "vizapp/shapes-segmenter", "picture": "shapes 1", "target": "class=disc cell=20,80"}
    app = open_app("occlusion", window="48", stride="48", **asked)
    assert went_well(app)
    (told,) = [one.section().about for one in results(app)]
    assert (told["explained"], told["target"]) == ("disc", "cell 20,80")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "address", "titles"),
    [
        ("feature_maps", {"layer": "features.4"}, ["Feature maps"]),
        ("feature_maps", {"stages": "cell", "layer": "features.4"}, ["Arithmetic of a cell"]),
        ("projection", {"mode": "nine", "layer": "features.0"}, ["Projections of nine units of features.0"]),
        ("filters", {"ideal": "on", "ideal.steps": "2", "layer": "features.0"}, ["Feature visualization"]),
        ("architecture", {"aspect": "drawing"}, ["Architecture"]),
        ("architecture", {"aspect": "comparison"}, ["Networks for ImageNet compared"]),
        ("occlusion", {"way": "hand"}, ["Occlusion of digit 3.png by hand"]),
        ("colours", {"colours.parts": "2", "cell": "1,1", "layer": "features.4"}, ["Colours of features.4"]),
        ("attribution", {"trust.kinds": "gradcam,random", "trust.measures": "deletion", "trust.box": "2,2,20,20"},
         ["Attribution maps compared", "Grad-CAM"]),
        ("predict", {"network": "vizapp/shapes-segmenter", "picture": "shapes"}, ["Predict"]),
        ("predict", {"network": "vizapp/shapes-detector", "picture": "shapes"}, ["Predict"]),
        ("predict", {"network": "vizapp/shapes-embedding", "picture": "shapes"}, ["Predict"]),
    ],
)  # fmt: skip
def test_each_view_of_a_page_reports_what_it_shows(
    open_app: Open,
    page: str,
    address: dict[str, str],
    titles: list[str],
    monkeypatch: pytest.MonkeyPatch,
    patient: None,
) -> None:
    app = open_app(page, **({"picture": "digit 3"} | address))
    assert went_well(app)
    dialog(app)
    assert list(app.session_state["report.offered"][2]) == titles
    assert file(app).count("<section") >= len(titles)


def test_a_single_answer_takes_the_title_and_the_remark_of_the_fields(open_app: Open) -> None:
    app = dialog(open_app("knockout", picture="digit 3"))
    assert answers(app) == []  # one needs no choice
    app.text_input(key="report.title").set_value("Which unit counts?").run()
    app.text_area(key="report.remark").set_value("Unit 5, it seems.").run()
    assert "Which unit counts?" in file(app)
    app.button(key="report.add").click().run()
    assert [(one.title, one.remark) for one in entries(app)] == [("Which unit counts?", "Unit 5, it seems.")]
    assert (app.text_input(key="report.title").value, app.text_area(key="report.remark").value) == ("", "")


def test_answers_are_chosen_collected_from_pages_ordered_edited_and_removed(open_app: Open) -> None:
    app = dialog(open_app(picture="digit 3"))
    assert answers(app) == ["Predict · digit 3.png", "Grad-CAM of 3"]
    app.button(key="report.add").click().run()
    next(box for box in app.checkbox if box.label.startswith("Grad")).uncheck().run()
    app.text_input(key="report.title").set_value("Again").run()
    app.button(key="report.add").click().run()
    turn_to(app, "feature_maps")
    assert app.button(key="report.button").label == "Report (3)"
    assert not [one for one in app.text_input if one.key == "report.title"]  # closed on another page
    dialog(app)
    app.button(key="report.add").click().run()
    first, second, third, fourth = entries(app)
    assert [first.title, second.title, third.title] == ["Predict · digit 3.png", "Grad-CAM of 3", "Again"]
    assert third.key == first.key
    app.button(key=f"report.up.{fourth.number}").click().run()
    app.button(key=f"report.down.{first.number}").click().run()
    assert entries(app) == [second, first, fourth, third]
    assert app.button(key=f"report.up.{second.number}").disabled
    assert app.button(key=f"report.down.{third.number}").disabled
    app.text_input(key=f"report.title.{second.number}").set_value("What mattered").run()
    app.text_area(key=f"report.remark.{second.number}").set_value("The curve.").run()
    app.text_input(key="report.whole.title").set_value("Digits").run()
    app.button(key=f"report.remove.{first.number}").click().run()
    content = file(app, "Download all")
    assert content.count("<h2") == 3  # `third` is the same section as the removed one, which is still there
    titles = ["Digits", "What mattered", fourth.title, "Again"]
    assert sorted(titles, key=content.index) == titles
    app.run()
    turn_to(dialog(app), "predict")
    dialog(app)
    assert app.text_input(key="report.whole.title").value == "Digits"
    assert app.text_area(key=f"report.remark.{second.number}").value == "The curve."
    app.button(key="report.clear").click().run()
    assert entries(app) == []
    assert len(reports._store()) == 0
    assert app.button(key="report.button").label == "Report"


def test_an_answer_that_was_evicted_since_it_was_shown_is_a_sentence(open_app: Open) -> None:
    app = open_app(picture="digit 3")
    compute.answers().shrink(0)
    gc.collect()
    dialog(app)
    assert "Predict is not in memory any more" in sentences(app)
    assert not [one for one in app.button if one.key == "report.add"]
    app.run()  # the page has computed it again
    assert answers(app) == ["Predict · digit 3.png", "Grad-CAM of 3"]


def test_a_full_report_says_so_and_keeps_what_it_has(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    app = dialog(open_app(picture="digit 3"))
    app.button(key="report.add").click().run()
    there = entries(app)
    monkeypatch.setattr(reports, "MOST", sum(one.nbytes for one in there))
    app.button(key="report.add").click().run()  # the same sections take no more
    assert len(entries(app)) == 4
    monkeypatch.setattr(reports, "MOST", sum(one.nbytes for one in there) - 1)
    app.button(key="report.add").click().run()
    assert "A report holds at most" in words(app)
    assert len(entries(app)) == 4


def test_a_collected_answer_that_was_evicted_is_left_out_of_the_file(open_app: Open) -> None:
    app = dialog(open_app(picture="digit 3"))
    app.button(key="report.add").click().run()
    first, second = entries(app)
    reports._store().drop_where(lambda key: first.key in key)
    app.run()
    assert "the file leaves it out" in words(app)
    content = file(app, "Download all")
    assert (first.title in content, second.title in content) == (False, True)
    reports._store().shrink(0)
    app.run()
    button(app, "Download all").click().run()
    assert "None of the collected answers is in memory any more" in sentences(app)
    assert went_well(app)


def test_a_session_sees_nothing_of_what_another_has_collected(open_app: Open) -> None:
    one, other = (dialog(open_app(picture=f"digit {digit}")) for digit in (3, 8))
    one.button(key="report.add").click().run()
    other.run()
    assert "report.collected" not in other.session_state
    other.button(key="report.add").click().run()
    assert "digit 3" not in file(other, "Download all")
    other.session_state["report.collected"] = entries(one)  # as if its keys had become known
    other.run()
    assert "the file leaves it out" in words(other)
    other.button(key="report.clear").click().run()
    assert "digit 3" in file(one, "Download all")


def test_names_of_files_and_what_people_write_stay_text(open_app: Open, photos: Path) -> None:
    (photos / _NAME).write_bytes((photos / "0.png").read_bytes())
    app = dialog(open_app(folder=str(photos), picture=_NAME))
    assert answers(app)[0] == f"Predict · {_NAME}"
    assert not [box for box in app.checkbox if "<img" in box.label.replace("\\<", "")]
    app.text_input(key="report.title").set_value("<script>alert(2)</script>").run()
    app.text_area(key="report.remark").set_value("</style><script>alert(3)</script>").run()
    app.button(key="report.add").click().run()
    content = file(app, "Download all") + file(app)
    assert "<img src=x" not in content
    assert "alert(1)" in content
    assert "<script>alert" not in content
    assert str(photos) not in content


@pytest.mark.parametrize("mode", ["local", "server"])
def test_no_folder_of_the_machine_is_in_a_report(
    open_app: Open, photos: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_MODE", mode)
    monkeypatch.setattr(type(st.context), "url", "http://viz.example/predict")  # as a browser tells it
    monkeypatch.setenv("VIZAPP_ROOT", str(photos.parent) if mode == "server" else "")
    app = dialog(open_app(folder="photos" if mode == "server" else str(photos), picture="1.png"))
    app.button(key="report.add").click().run()
    for content in (file(app), file(app, "Download all")):
        assert "1.png" in content
        assert ("http://viz.example/predict?" in content) == (mode == "server")  # whose folders are below its root
        assert str(photos.parent) not in content
