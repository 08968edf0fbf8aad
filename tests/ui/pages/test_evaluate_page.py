"""The page Evaluate: its first views, the numbers, a clicked cell, a clicked photo, and the downloads."""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from tests.ui.app import Open, chosen, click, offered, press, sentences, shown, turn_to, went_well, words
from vizapp.methods.base import Result
from vizapp.ui.pages.evaluate import charts, evaluate_runs, exports

NETWORK = "vizapp/lenet5-digits"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four digits in the folders of other digits, six in their own, and two photos of a class that the network lacks."""
    digits = vizapp.open_folder("digits")
    for number in range(10):
        place = tmp_path / "photos" / str(number if number >= 4 else (number + 1) % 4) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(saved(digits.open(number).pixels))
    for number in range(2):
        place = tmp_path / "photos" / "cats" / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(saved(noise(28, 28, number)))
    return tmp_path / "photos"


def result_of(photos: Path) -> Result:
    return vizapp.ask("evaluate", vizapp.load(NETWORK), folder=photos, workers=0)


def cards(app: AppTest) -> list[dict[str, object]]:
    return list(shown(app, "evaluate.photos")["cards"])


def test_a_small_folder_is_evaluated_at_once_and_the_page_tells_what_the_method_gives(
    open_app: Open, photos: Path
) -> None:
    app = open_app("evaluate", network=NETWORK, data=str(photos))
    assert went_well(app)
    assert not app.warning
    result = result_of(photos)
    headline = " ".join(block.proto.body for block in app.get("html"))
    assert "Right about 60.00 % of 10 photos" in headline
    assert result.facts["top-1 error"] in headline
    assert "2 photos with an answer but not counted: cats (2)" in words(app)
    paths = {row["photo"]: row for row in result.table}
    assert len(cards(app)) == len(paths) == 4
    assert [card["title"] for card in cards(app)] == [row["given"] for row in result.table]
    assert [f"right: {row['right']} {100 * row['probability right']:.1f} %" for row in result.table] == [
        card["line"] for card in cards(app)
    ]
    assert offered(app) == ["Arrays NPZ", "Photos CSV", "Classes CSV", "Labels CSV", "Photos Parquet"]


def test_photos_that_come_and_go_in_a_class_folder_are_noticed(open_app: Open, photos: Path) -> None:
    def told(app: AppTest) -> bool:
        return any(f"of {count} photos" in one.proto.body for one in app.get("html"))

    count = 10
    assert told(open_app("evaluate", network=NETWORK, data=str(photos)))
    (photos / "5" / "again.png").write_bytes((photos / "5" / "5.png").read_bytes())
    count = 11
    assert told(open_app("evaluate", network=NETWORK, data=str(photos)))
    (photos / "5" / "again.png").unlink()
    (photos / "4" / "4.png").unlink()
    count = 9
    app = open_app("evaluate", network=NETWORK, data=str(photos))
    assert told(app)
    press(app, "evaluate.read_again")
    assert told(app)


def test_photos_replaced_in_place_and_in_deeper_folders_are_noticed(open_app: Open, photos: Path) -> None:
    def headline(app: AppTest) -> str:
        return next(one.proto.body for one in app.get("html") if "Right about" in one.proto.body)

    (photos / "5" / "deep").mkdir()
    deep = photos / "5" / "deep" / "again.png"
    deep.write_bytes((photos / "5" / "5.png").read_bytes())
    app = open_app("evaluate", network=NETWORK, data=str(photos))
    before = headline(app)
    assert "of 11 photos" in before
    deep.write_bytes((photos / "8" / "8.png").read_bytes())
    time.sleep(0.2)  # a folder is looked at again after ten times as long as that takes
    after = headline(app.run())
    assert after != before
    deep.unlink()
    assert "of 10 photos" in headline(open_app("evaluate", network=NETWORK, data=str(photos)))


def test_a_cell_of_the_matrix_shows_its_photos_and_the_link_keeps_it(open_app: Open, photos: Path) -> None:
    app = open_app("evaluate", network=NETWORK, data=str(photos), confusion="1,0")
    assert [(card["title"], card["line"].split(" ")[1]) for card in cards(app)] == [("0", "1")]
    assert chosen(app, "confusion") == "1,0"
    app.button(key="evaluate.worst").click().run()
    assert len(cards(app)) == 4
    app = open_app("evaluate", network=NETWORK, data=str(photos), confusion="5,5")
    assert [card["line"] for card in cards(app)] == ["right"]


def test_a_clicked_photo_is_the_one_of_the_other_pages_with_its_right_class(open_app: Open, photos: Path) -> None:
    app = open_app("evaluate", network=NETWORK, data=str(photos))
    first = result_of(photos).table[0]
    app = click(app, "evaluate.photos", "chosen", cards(app)[0]["item"])
    assert went_well(app)
    assert (chosen(app, "folder"), chosen(app, "picture")) == (str(photos), first["photo"])
    links = {link.proto.label: link.proto.query_string for link in app.get("page_link")}
    assert {"Predict", "Occlusion", "Transform"} <= set(links)
    assert all(f"class={first['right']}" in query for query in links.values())
    bars = shown(turn_to(app, "predict"), "predict.bars")
    assert [row["name"] for row in bars["rows"] if row.get("mark")] == [first["right"]]
    assert str(bars["chosen"]) == first["right"]
    app.session_state["picture.origin"] = ("sample", "digit 3")
    assert not turn_to(app, "evaluate").get("page_link"), "another photo was chosen since"


def test_a_clicked_photo_that_is_no_file_keeps_its_right_class_as_an_upload(
    open_app: Open, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app("evaluate", network=NETWORK, data=str(photos))
    monkeypatch.setattr("vizapp.ui.session.access.names_folders", lambda: False)
    first = result_of(photos).table[0]
    app = click(app, "evaluate.photos", "chosen", cards(app)[0]["item"])
    assert app.session_state["picture.origin"][0] == "given"
    bars = shown(turn_to(app, "predict"), "predict.bars")
    assert [row["name"] for row in bars["rows"] if row.get("mark")] == [first["right"]]


@pytest.mark.slow
def test_a_photo_of_the_bundled_digits_is_opened_too(open_app: Open) -> None:
    app = open_app("evaluate", network=NETWORK, confusion="3,3")
    assert went_well(app)
    app = click(app, "evaluate.photos", "chosen", cards(app)[0]["item"])
    assert chosen(app, "folder") == "digits"
    bars = shown(turn_to(app, "predict"), "predict.bars")
    assert [row["name"] for row in bars["rows"] if row.get("mark")] == ["3"]


def test_photos_without_classes_of_the_network_get_a_sentence_and_an_example(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    app = open_app("evaluate", network=NETWORK, data=str(photos / "cats"))
    assert "No photo in cats has a label" in sentences(app)
    assert not offered(app)
    monkeypatch.setattr(evaluate_runs, "SMALL", 0)  # too much for a first view
    app.button(key="evaluate.example").click().run()
    assert (chosen(app, "network"), chosen(app, "data")) == (NETWORK, "digits")
    assert app.button(key="evaluate.run").label == "Run"


@pytest.mark.slow
def test_where_no_sample_has_a_class_of_the_network_an_example_is_shown(open_app: Open) -> None:
    app = open_app("evaluate", network="torchvision/squeezenet1_1", weights="random")
    assert "None of the 18 labels" in sentences(app)
    digits = vizapp.ask("evaluate", vizapp.load(NETWORK), folder="digits", workers=0)
    told = " ".join(block.proto.body for block in app.get("html"))
    assert f"Right about {100 * (1 - digits.arrays['top1']):.2f} % of 1,797 photos" in told
    assert not offered(app)
    assert "click it" not in words(app)
    app.button(key="evaluate.example").click().run()
    assert (chosen(app, "network"), chosen(app, "data")) == (NETWORK, "digits")
    assert "Photos Parquet" in offered(app)
    assert "trained this network" in words(app)


@pytest.mark.slow
def test_random_weights_were_not_trained_on_the_digits(open_app: Open) -> None:
    assert "trained this network" not in words(open_app("evaluate", network=NETWORK, weights="random", data="digits"))


def test_a_long_pass_waits_for_a_click(open_app: Open, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_runs, "QUICK", 0)
    app = open_app("evaluate", network=NETWORK, data=str(photos))
    assert not offered(app)
    app.button(key="evaluate.run").click().run()
    assert went_well(app)
    assert "Photos Parquet" in offered(app)
    again = open_app("evaluate", network=NETWORK, data=str(photos))
    assert "Photos Parquet" in offered(again), "what is finished is shown at once"


def test_a_network_of_a_link_that_is_not_here_is_not_opened(open_app: Open, photos: Path) -> None:
    app = open_app("evaluate", network=NETWORK, data=str(photos), **{"evaluate.with_networks": "/etc/passwd"})
    assert went_well(app)
    assert "not on this machine" in sentences(app)
    assert "evaluate.with_networks" not in app.run().query_params


def test_the_table_of_photos_has_names_and_probabilities(photos: Path) -> None:
    result = result_of(photos)
    table = pd.read_csv(
        io.BytesIO(exports.photos_csv(vizapp.load(NETWORK), result)), dtype={"right": str, "class 1": str}
    )
    assert len(table) == 12
    assert (table["right"] == table["class 1"]).sum() == 6
    assert table["right"].isna().sum() == 2
    shares = vizapp.ask("predict", vizapp.load(NETWORK), photos / table["path"][3]).arrays["probabilities"]
    found = table.iloc[3][[f"probability {n}" for n in range(1, 6)]].to_numpy(float)
    np.testing.assert_allclose(found, np.sort(shares)[::-1][:5], rtol=1e-4)


def test_the_matrix_shows_the_classes_that_occur() -> None:
    counts = np.zeros((101, 101), np.int64)
    counts[3, 3], counts[60, 60], counts[60, 99] = 12, 11, 1
    assert charts.most_confused(counts).tolist() == [3, 60, 99]


def test_of_many_classes_the_matrix_shows_those_with_most_confusions() -> None:
    counts = np.diag(np.full(60, 9))
    counts[7, 50], counts[20, 21] = 5, 2
    some = charts.most_confused(counts)
    assert len(some) == charts.MOST
    assert {7, 50, 20, 21} <= set(some.tolist())
    figure = json.loads(
        charts.confusion(counts[np.ix_(some, some)], some.tolist(), [f"n{n}" for n in some], (7, 50)).to_json()
    )
    marks = figure["data"][1]
    at = [data[:2] for data in marks["customdata"]].index([7, 50])
    assert marks["text"][at] == "5 of 14"
    assert (figure["layout"]["shapes"][0]["x0"] + 0.5, figure["layout"]["shapes"][0]["y0"] + 0.5) == (
        some.tolist().index(50), some.tolist().index(7),
    )  # fmt: skip
    z = figure["data"][0]["z"]
    shares = np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]) if isinstance(z, dict) else np.ravel(z)
    assert shares.max() == 1


@pytest.mark.parametrize(
    ("network", "returns"),
    [("vizapp/shapes-segmenter", "a class map"), ("vizapp/shapes-embedding", "features but no classes")],
)
def test_a_network_that_is_no_classifier_is_told_so_without_advice_about_folders(
    open_app: Open, photos: Path, network: str, returns: str
) -> None:
    app = open_app("evaluate", network=network, data=str(photos))
    assert went_well(app)
    assert f"{network} returns {returns}. Evaluate takes a classification network" in sentences(app)
    assert "sub-folders" not in words(app)
    with refuses("no-class-scores", "Evaluate takes a classification network"):
        vizapp.ask("evaluate", vizapp.load(network), folder=photos, workers=0)
