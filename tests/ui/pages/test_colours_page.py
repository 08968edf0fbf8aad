"""The page Colours: what the method answers on several photos, a click on a cell, parts, and links."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vizapp
from tests.media.files import noise, saved
from tests.ui.app import Open, chosen, click, drawn, floats, offered, sentences, shown, went_well, words
from vizapp.media.samples import all_digits, digit_pixels, open_sample
from vizapp.methods.base import Result
from vizapp.ui.session import progress

NETWORK = "vizapp/lenet5-digits"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three digits, the first of them also a sample, and a file that is no photo."""
    root = tmp_path_factory.mktemp("digits")
    (root / "a.png").write_bytes(saved(open_sample("digit 3").pixels))
    for number in (20, 30):
        (root / f"{number}.png").write_bytes(saved(digit_pixels(all_digits()[0][number])))
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return root


def answer(folder: Path, **options: object) -> Result:
    """The method's answer on the digit 3 and the two digits of the folder that are others."""
    paths = folder / "list.csv"
    paths.write_text("20.png\n30.png\n")
    network = vizapp.load(NETWORK)
    return vizapp.ask("colours", network, open_sample("digit 3"), str(paths), **options)  # type: ignore[arg-type]


def test_the_photo_at_hand_and_five_samples_share_their_colours_at_once(open_app: Open) -> None:
    app = open_app("colours", picture="digit 3", blend="100")
    assert went_well(app)
    assert not app.warning
    sheet = shown(app, "colours.all")
    assert sheet["titles"] == ["digit 3.png", "digit 0", "digit 1", "digit 2", "digit 4", "digit 5"]
    assert "3,456 cells of 6 photos together" in words(app)
    assert {"Colours PNG", "Arrays NPZ", "Cells CSV"} == set(offered(app))


def test_the_colours_are_those_of_the_method_and_blended_over_the_photo(open_app: Open, folder: Path) -> None:
    expected = answer(folder)
    link = {"picture": "digit 3", "photos": str(folder)}
    app = open_app("colours", **link, blend="100")
    assert shown(app, "colours.all")["titles"] == ["digit 3.png", "20.png", "30.png"], "the same digit is there once"
    assert "cannot be opened" in sentences(app)
    colours = expected.arrays["colours"][0]
    height, width = colours.shape[:2]
    full = drawn(app, "colours.own")
    rows, columns = (
        ((2 * np.arange(n) + 1) * count) // (2 * n) for n, count in zip(full.shape[:2], (height, width), strict=True)
    )
    assert np.abs(full.astype(int) - colours[rows][:, columns]).max() <= 1
    photo = drawn(open_app("colours", **link, blend="0"), "colours.own")
    np.testing.assert_array_equal(photo, vizapp.load(NETWORK).seen(open_sample("digit 3")))
    app.slider(key="colours.blend").set_value(50).run()
    assert chosen(app, "blend") == "50"
    half = drawn(app, "colours.own").astype(int)
    assert np.abs(half - (full.astype(int) + photo) / 2).max() <= 1


def test_a_click_shows_what_is_like_the_cell_on_all_photos_and_is_in_the_link(open_app: Open, folder: Path) -> None:
    app = open_app("colours", picture="digit 3", photos=str(folder))
    click(app, "colours.own", "cell", [7, 9])
    assert went_well(app)
    assert chosen(app, "cell") == "7,9"
    expected = answer(folder, cell=(7, 9)).arrays
    values = floats(shown(app, "colours.map")["values"], expected["similarity"].shape)
    np.testing.assert_allclose(values, expected["similarity"], atol=1e-5)
    assert values[7, 9] == pytest.approx(1)
    told = shown(app, "colours.like")["details"]
    assert told[1].startswith(f"from {expected['photo_similarity'][1].min():.2f} to")
    assert "Similarity PNG" in offered(app)
    again = open_app("colours", picture="digit 3", photos=str(folder), cell="7,9")
    assert shown(again, "colours.map")["values"] == shown(app, "colours.map")["values"]
    app.button(key="colours.clear").click().run()
    assert shown(app, "colours.all")["items"] == [0, 1, 2]
    wrong = open_app("colours", picture="digit 3", photos=str(folder), cell="99,0")
    assert "0,0 to" in sentences(wrong)
    assert shown(wrong, "colours.all")


def test_a_click_runs_no_pass(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app("colours", picture="digit 4")

    def fail(*_: object) -> None:
        raise AssertionError("a pass")

    monkeypatch.setattr("vizapp.ui.pages.colours.photos.cell_features", fail)
    monkeypatch.setattr("vizapp.ui.pages.colours.photos.colour_cells", fail)
    click(app, "colours.photo", "cell", [3, 3])
    assert went_well(app)
    assert shown(app, "colours.map")["cell"] == [3, 3]


def test_the_foreground_and_its_other_side(open_app: Open, folder: Path) -> None:
    link = {"picture": "digit 3", "photos": str(folder), "blend": "100"}
    for side in ("positive", "negative"):
        app = open_app("colours", **link, **{"colours.foreground": side})
        expected = answer(folder, foreground=side)
        black = (drawn(app, "colours.own") == 0).all(2).mean()
        assert black == pytest.approx(1 - expected.arrays["shown"][0].mean(), abs=0.05)
        assert expected.facts["foreground"] in words(app)


def test_parts_are_drawn_with_the_classes_that_they_speak_for(open_app: Open) -> None:
    app = open_app("colours", picture="digit 3", **{"colours.parts": "2"})
    assert went_well(app)
    assert len(shown(app, "colours.part.1")["items"]) == 6
    assert "so its parts have none" in words(app)
    assert "Part 2 PNG" in offered(app)
    wrong = open_app("colours", picture="digit 3", **{"colours.parts": "1"})
    assert "2 to 12 parts, not 1" in sentences(wrong)


def test_a_layer_without_cells_is_refused_with_a_near_one(open_app: Open) -> None:
    app = open_app("colours", picture="digit 3", layer=vizapp.load(NETWORK).sites[-1].name)
    assert went_well(app)
    assert "without cells. A near layer that has some is" in sentences(app)
    assert not offered(app)


def test_photos_without_any_variation_are_answered(open_app: Open, tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(saved(np.full((20, 90, 3), 128, np.uint8)))
    (tmp_path / "noise.png").write_bytes(saved(noise(5, 300)))
    app = open_app("colours", photos=str(tmp_path), folder=str(tmp_path), picture="grey.png", cell="0,0")
    assert went_well(app)
    assert len(shown(app, "colours.like")["items"]) == 2
