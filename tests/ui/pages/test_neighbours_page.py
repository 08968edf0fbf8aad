"""The page Neighbours: what the method answers as tiles, a click on a neighbour, cells, and the atlas."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import vizapp
from tests.media.files import saved
from tests.ui.app import Open, chosen, click, floats, offered, press, shown, went_well, words
from vizapp.media.samples import all_digits, digit_pixels, open_sample
from vizapp.ui.pages.neighbours.atlas_view import palette
from vizapp.ui.session import progress


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 digits in folders by their number, and a file that is no photo."""
    root = tmp_path_factory.mktemp("digits")
    images, labels = all_digits()
    for number, (image, label) in enumerate(zip(images[:30], labels[:30], strict=True)):
        (root / str(label)).mkdir(exist_ok=True)
        (root / str(label) / f"{number}.png").write_bytes(saved(digit_pixels(image)))
    (root / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return root


def titles(app: AppTest) -> list[str]:
    return [title.split(" · ")[-1] for title in shown(app, "neighbours.sheet")["titles"]]


def test_the_tiles_are_what_the_method_answers(open_app: Open, folder: Path) -> None:
    app = open_app("neighbours", data=str(folder), picture="digit 3")
    assert went_well(app)
    assert not app.warning
    expected = vizapp.ask("neighbours", vizapp.load("vizapp/lenet5-digits"), open_sample("digit 3"), str(folder))
    sheet = shown(app, "neighbours.sheet")
    assert titles(app) == [row["label"] for row in expected.table]
    assert [row["path"] in detail for row, detail in zip(expected.table, sheet["details"], strict=True)] == [True] * 6
    assert "among 30 photos" in words(app)
    assert "1 photo was skipped: " in words(app)
    assert {"Neighbours PNG", "Arrays NPZ", "Table CSV", "Atlas PNG"} <= set(offered(app))


def test_a_click_on_a_neighbour_makes_it_the_photo_at_hand_with_its_class(open_app: Open, folder: Path) -> None:
    app = open_app("neighbours", data=str(folder), picture="digit 3")
    path = shown(app, "neighbours.sheet")["details"][1].split(" · ")[1]
    label = titles(app)[1]
    click(app, "neighbours.sheet", "chosen", shown(app, "neighbours.sheet")["items"][1])
    assert went_well(app)
    assert chosen(app, "folder") == str(folder)
    assert chosen(app, "picture") == path
    assert app.session_state["choice.class"] == int(label)
    details = shown(app, "neighbours.sheet")["details"]
    assert len(details) == 6
    assert all(path not in detail for detail in details), "the photo itself is not its neighbour"


def test_a_link_names_layer_cell_and_what_is_compared(open_app: Open, folder: Path) -> None:
    link = {"data": str(folder), "picture": "digit 3", "neighbours.of": "cell", "neighbours.k": "4", "cell": "2,3"}
    app = open_app("neighbours", **link)
    assert went_well(app)
    assert not app.warning
    assert shown(app, "neighbours.cells")["cell"] == [2, 3]
    assert len(shown(app, "neighbours.sheet")["items"]) == 4
    click(app, "neighbours.cells", "cell", [1, 1])
    assert shown(app, "neighbours.cells")["cell"] == [1, 1]
    assert chosen(app, "cell") == "1,1"


def test_many_photos_are_looked_at_on_a_click(open_app: Open) -> None:
    app = open_app("neighbours", data="digits", picture="digit 3")
    assert went_well(app)
    assert app.button(key="neighbours.start").label == "Look at 1,797 photos"
    assert not [name for name in offered(app) if name.startswith("Neighbours")]


def test_the_atlas_has_a_point_for_each_photo_in_four_colourings(open_app: Open, folder: Path) -> None:
    app = open_app("neighbours", data=str(folder), picture="digit 3")
    expected = vizapp.ask("atlas", vizapp.load("vizapp/lenet5-digits"), open_sample("digit 3"), str(folder))
    data = shown(app, "neighbours.atlas")
    points, exact = floats(data["points"], (30, 2)), expected.arrays["positions"]
    scale = np.ptp(points, 0) / np.ptp(exact, 0)
    np.testing.assert_allclose(points - points[0], (exact - exact[0]) * scale, atol=1e-5)
    assert scale[0] == pytest.approx(scale[1], rel=1e-4)
    labels = [row["label"] for row in expected.table]
    assert [data["names"][int(n)] for n in floats(data["colour"], (30,))] == labels
    assert f"{float(expected.arrays['trustworthiness']):.3f}" in words(app)
    app = open_app("neighbours", data=str(folder), picture="digit 3", colour="correct")
    data = shown(app, "neighbours.atlas")
    right = [int(n) == 0 for n in floats(data["colour"], (30,))]
    assert right == [bool(one) for one in expected.arrays["correct"]]
    app = open_app("neighbours", data=str(folder), picture="digit 3", colour="unit", channel="5")
    data, site = shown(app, "neighbours.atlas"), vizapp.load("vizapp/lenet5-digits").last_hidden_layer()
    assert site is not None
    by_unit = vizapp.ask(
        "atlas", vizapp.load("vizapp/lenet5-digits"), folder=str(folder), unit=vizapp.Unit(site.name, 5)
    ).arrays["activation"]
    level = floats(data["colour"], (30,))
    assert np.argmax(level) == np.argmax(by_unit)
    assert (np.diff(level[np.argsort(by_unit)]) >= 0).all()
    assert went_well(app)


def test_a_class_has_one_colour_as_label_and_as_answer(open_app: Open, folder: Path) -> None:
    seen = [
        shown(open_app("neighbours", data=str(folder), picture="digit 3", colour=way), "neighbours.atlas")
        for way in ("class", "answer")
    ]
    labels, answers = (dict(zip(data["names"], data["colours"], strict=True)) for data in seen)
    both = set(labels) & set(answers)
    assert len(both) > 5
    assert all(labels[name] == answers[name] for name in both)
    assert len({*labels.values(), *answers.values()}) == len({*labels, *answers})


def test_a_lasso_lists_its_photos_and_a_look_closer_fetches_thumbnails(open_app: Open, folder: Path) -> None:
    app = open_app("neighbours", data=str(folder), picture="digit 3")
    click(app, "neighbours.atlas", "lasso", [3, 7, 11])
    assert went_well(app)
    assert shown(app, "neighbours.atlas")["chosen"] == [3, 7, 11]
    assert "Selection CSV" in offered(app)
    assert len(shown(app, "atlas.selected")["items"]) == 3
    click(app, "neighbours.atlas", "seen", [4, 5])
    assert shown(app, "neighbours.atlas")["thumbs"]["items"] == [4, 5]
    press(app, "atlas.clear")
    assert shown(app, "neighbours.atlas")["chosen"] == []
    assert "Selection CSV" not in offered(app)
    click(app, "neighbours.atlas", "chosen", 8)
    assert chosen(app, "folder") == str(folder)


@pytest.mark.slow
def test_a_lasso_opens_its_photos_on_other_pages(open_app: Open, folder: Path) -> None:
    app = open_app("neighbours", data=str(folder), picture="digit 3")
    click(app, "neighbours.atlas", "lasso", [3, 7, 11])
    links = {link.proto.label: parse_qs(link.proto.query_string) for link in app.get("page_link")}
    assert set(links) == {"Evaluate", "Gallery", "Neighbours"}
    (place,) = {query["data"][0] for query in links.values()}
    whole, some = vizapp.open_folder(folder), vizapp.open_folder(place)
    numbers = vizapp.ask("atlas", vizapp.load("vizapp/lenet5-digits"), folder=str(folder)).arrays["pictures"][
        [3, 7, 11]
    ]
    expected = [(whole.labels[number], (folder / whole.path(number)).resolve()) for number in numbers.tolist()]
    assert [(some.labels[number], Path(some.image_ref(number).path).resolve()) for number in range(3)] == expected
    page = open_app("evaluate", **{name: values[0] for name, values in links["Evaluate"].items()})
    assert went_well(page)
    assert any("of 3 photos" in one.proto.body for one in page.get("html"))
    bundled = open_app("neighbours", data="digits", picture="digit 3")
    press(bundled, "neighbours.start")
    click(bundled, "neighbours.atlas", "lasso", [3, 7, 11])
    assert "opens on no other page" in words(bundled)
    assert not bundled.get("page_link")


def test_colours_of_many_classes_differ() -> None:
    for count in (1, 10, 11, 60):
        assert len(set(palette(count))) == count
