"""The card of a unit: its parts, how it is opened and closed, what it says where a part is missing."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest
from torch import nn

import vizapp
from tests.ui.app import Open, chosen, click, drawn, sentences, shown, went_well, words
from vizapp import methods
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.gallery.build import build
from vizapp.media.samples import open_sample
from vizapp.media.source import Source
from vizapp.media.sources import open_digits, open_folder
from vizapp.methods.activations import over_photo
from vizapp.methods.base import Question
from vizapp.methods.gallery import GalleryParams, chosen_sites, place_for, plan_of
from vizapp.service.jobs import Tick
from vizapp.ui.session import compute, progress
from vizapp.ui.widgets import top_activations, unit_card
from vizapp.zoo.network import Network

PHOTO, LAYER, CHANNEL = "digit 3", "features.4", 5
CARD = {"picture": PHOTO, "card": f"{LAYER}:{CHANNEL}"}


@pytest.fixture(scope="module")
def lenet() -> Network:
    return vizapp.load("vizapp/lenet5-digits")


@pytest.fixture(scope="module")
def maps(lenet: Network) -> np.ndarray:
    return vizapp.ask("activations", lenet, open_sample(PHOTO), unit=Unit(LAYER, 0)).arrays["activations"]


@pytest.fixture(autouse=True)
def no_ideal_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_card, "_QUICK", -1.0)


def is_open(app: AppTest) -> bool:
    return any("-card.map" in element.proto.id for element in app.get("bidi_component"))


def numbers(app: AppTest) -> str:
    return " ".join(html.proto.body for html in app.get("html"))


@pytest.mark.parametrize("page", ["predict", "gallery"])
def test_a_link_opens_the_card_over_any_page(open_app: Open, page: str) -> None:
    app = open_app(page, **CARD)
    assert went_well(app)
    assert is_open(app)
    assert chosen(app, "card") == CARD["card"]


def test_the_card_shows_map_projection_and_numbers(open_app: Open, lenet: Network, maps: np.ndarray) -> None:
    app = open_app("filters", layer="features.0", **CARD)
    assert went_well(app)
    assert np.array_equal(drawn(app, "card.map"), over_photo(lenet.seen(open_sample(PHOTO)), maps[CHANNEL]))
    row, column = (int(place) for place in np.unravel_index(maps[CHANNEL].argmax(), maps[CHANNEL].shape))
    assert f"cell {row},{column}" in words(app)
    unit = Unit(LAYER, CHANNEL, (row, column))
    top, left, bottom, right = vizapp.ask("projection", lenet, open_sample(PHOTO), unit=unit).arrays["field"]
    assert shown(app, "card.map")["field"] == [top, left, bottom, right]
    assert drawn(app, "card.down").std() > 0
    assert shown(app, "card.down")["size"] == [bottom - top, right - left]
    rank = 1 + int((maps.max((1, 2)) > maps[CHANNEL].max()).sum())
    told = numbers(app)
    for name, value in {
        "Largest value": f"{maps[CHANNEL].max():.4g}", "Mean of the map": f"{maps[CHANNEL].mean():.4g}",
        "Rank in the layer": f"{rank} of {len(maps)}", "Cells above zero": f"{100 * (maps[CHANNEL] > 0).mean():.0f} %",
        "Receptive field": "14 × 14 pixels",
    }.items():  # fmt: skip
        assert f"<td>{name}</td><td>{value}</td>" in told
    assert "There is no gallery of digits for this network yet." in words(app)
    links = {link.proto.label: link.proto.query_string for link in app.get("page_link")}
    assert "ideal=on" not in links["Projection"]
    app = open_app("predict", **CARD)
    links = {link.proto.label: link.proto.query_string for link in app.get("page_link")}
    assert {"ideal=on", f"channel={CHANNEL}", f"layer={LAYER}"} <= set(links["Ideal input"].split("&"))


def test_a_class_has_a_card_without_a_map(open_app: Open, lenet: Network) -> None:
    app = open_app("predict", picture=PHOTO)
    told = vizapp.ask("predict", lenet, open_sample(PHOTO)).arrays["logits"]
    app.button(key="predict.card").click().run()
    assert went_well(app)
    site = lenet.class_site
    assert site is not None
    assert chosen(app, "card") == f"{site.name}:{told.argmax()}"
    assert "one number per unit and no map" in words(app)
    assert f"<td>Value</td><td>{told.max():.4g}</td>" in numbers(app)


def build_gallery(network: Network, folder: Path) -> None:
    """A gallery of twelve digits, which are saved into the folder."""
    for number in range(12):
        Image.fromarray(open_digits().open(number).pixels).save(folder / f"{number:02d}.png")
    source, sites, plan = open_folder(folder), chosen_sites(network, ()), plan_of(network, GalleryParams())
    build(network, source, sites, place_for(network, Question(network, folder=source), sites, plan), plan)


@pytest.mark.parametrize("way", ["cancelled", "closed"])
def test_decoding_of_the_nine_photos_ends_when_it_is_cancelled_or_the_card_is_closed(
    open_app: Open, lenet: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    build_gallery(lenet, tmp_path)
    begun: list[int] = []
    started, ended = Event(), Event()

    def slow(network: Network, source: Source, picture: int, tick: Tick) -> np.ndarray:
        begun.append(picture)
        started.set()
        try:
            for _ in range(600):
                tick(0.0)
                time.sleep(0.01)
        finally:
            ended.set()
        return network.seen(source.open(picture))

    monkeypatch.setattr(top_activations, "load_crop", slow)
    monkeypatch.setattr(progress, "QUIET", 0.05)
    monkeypatch.setattr(compute, "_GRACE", 1.0)
    app = open_app("predict", data=str(tmp_path), **CARD)
    assert started.wait(5)
    if way == "cancelled":
        cancel = [button for button in app.button if (button.key or "").startswith("poll.cancel.")]
        cancel[-1].click().run()
        app.run()
        assert "Cancelled." in words(app)
    else:
        del app.query_params["card"]
        app.run()
        assert not is_open(app)
    assert ended.wait(5)
    assert len(begun) == 1, "the server decodes no other photo"
    assert went_well(app)


def test_the_nine_photos_and_numbers_come_from_the_gallery_of_the_page(
    open_app: Open, lenet: Network, tmp_path: Path
) -> None:
    build_gallery(lenet, tmp_path)
    crops = [lenet.seen(open_folder(tmp_path).open(number)) for number in range(12)]
    layer = vizapp.ask  # an oracle apart from galleries: the maxima of each photo
    peaks = [
        layer("activations", lenet, vizapp.open_picture(crop), unit=Unit(LAYER, 0)).arrays["activations"][CHANNEL].max()
        for crop in crops
    ]
    app = open_app("gallery", data=str(tmp_path), layer="features.1", **CARD)
    assert went_well(app)
    told = numbers(app)
    assert f"<td>Largest value</td><td>{max(peaks):.4g}</td>" in told
    assert f"<td>Photos where it is above zero</td><td>{100 * np.mean(np.array(peaks) > 0):.0f} %</td>" in told
    nine = shown(app, "card.nine")
    assert [detail.split()[1] for detail in nine["details"]] == [f"{peak:.4g}" for peak in sorted(peaks)[:-10:-1]]
    assert nine["tile"] == [14, 14]
    app = open_app("gallery", data=str(tmp_path), layer="features.1", picture=PHOTO, card=f"features.3:{CHANNEL}")
    assert "Measured at features.4, which" in words(app), "the convolution has the photos of its rectifier"


def test_a_tile_is_chosen_by_a_click_and_its_card_opened_by_its_corner(open_app: Open) -> None:
    app = open_app("feature_maps", picture=PHOTO, layer=LAYER)
    assert shown(app, "maps.sheet")["card"]
    app = click(app, "maps.sheet", "chosen", 7)
    assert not is_open(app)
    assert chosen(app, "channel") == "7"
    app = click(app, "maps.sheet", "card", 3)
    assert is_open(app)
    assert (chosen(app, "card"), chosen(app, "channel")) == (f"{LAYER}:3", "7")
    app.button(key="card.here").click().run()
    assert not is_open(app)
    assert chosen(app, "channel") == "3"
    assert "card" not in app.query_params
    app.button(key="maps.card").click().run()
    assert chosen(app, "card") == f"{LAYER}:3"
    del app.query_params["card"]  # as the browser's Back does
    app.run()
    assert not is_open(app)
    assert "card" not in app.query_params


def test_nothing_is_computed_twice(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = methods.ask

    def counted(method: str, *args: Any, **params: Any) -> Any:
        asked.append(
            repr((method, params["unit"], sorted((n, v) for n, v in params.items() if isinstance(v, str | bool))))
        )
        return ask(method, *args, **params)

    monkeypatch.setattr(methods, "ask", counted)
    app = open_app("projection", layer=LAYER, channel=str(CHANNEL), **CARD)
    assert is_open(app)
    assert len(asked) == 4, "the layer and three rules, of page and card together"
    assert len(set(asked)) == 4


@pytest.mark.parametrize(("card", "sentence"), [
    ("features.4:99", "no unit 99"), ("features.77:1", "The link's card was ignored"), ("5", "is not a unit"),
])  # fmt: skip
def test_a_wrong_card_is_told_and_left_out(open_app: Open, card: str, sentence: str) -> None:
    app = open_app("predict", picture=PHOTO, card=card)
    assert went_well(app)
    assert sentence in sentences(app)
    assert not is_open(app)
    app.run()
    assert "card" not in app.query_params


def test_the_ideal_input_starts_by_itself_only_if_it_is_quick(
    open_app: Open, lenet: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)
    app = open_app("predict", **CARD)
    assert app.button(key="card.paint").label.startswith("Generate, about ")
    app.session_state["choice.ideal.steps"] = 3
    app.run()
    app.button(key="card.paint").click().run()
    image = vizapp.ask("ideal", lenet, unit=Unit(LAYER, CHANNEL), steps=3)
    assert np.array_equal(drawn(app, "card.ideal"), image.arrays["pictures"][0])
    assert f"Reaches {image.arrays['activation'][0]:.4g}: the mean of its map." in words(app)
    monkeypatch.setattr(unit_card, "_QUICK", 1e9)
    app.session_state["choice.ideal.steps"] = 2
    app.run()
    assert "card.paint" not in [button.key for button in app.button]
    assert drawn(app, "card.ideal").size


@pytest.mark.parametrize("refused", [False, True])
def test_a_slow_part_can_be_cancelled_and_a_refused_one_says_why_once(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    ask, begun = methods.ask, []

    def slow(method: str, *args: Any, **params: Any) -> Any:
        if method != "ideal":
            return ask(method, *args, **params)
        begun.append(method)
        for _ in range(5 if refused else 1000):
            params["tick"](0.5)
            time.sleep(0.02)
        raise VizError("It cannot be painted.", code="no-picture")

    monkeypatch.setattr(methods, "ask", slow)
    app = open_app("predict", **CARD)
    monkeypatch.setattr(progress, "QUIET", 0.01)
    app.button(key="card.paint").click().run()
    if refused:
        for _ in range(30):
            app.run()
            if "It cannot be painted." in words(app):
                break
            time.sleep(0.02)
        assert "It cannot be painted." in words(app)
        app.run()
        assert len(begun) == 1, "it is not asked again in every run"
        return
    next(button for button in app.button if (button.key or "").startswith("poll.cancel.")).click().run()
    app.run()
    assert "Cancelled." in words(app)
    assert any((button.key or "").startswith("poll.again.") for button in app.button)
    assert went_well(app)


def test_a_layer_has_the_units_of_its_convolution_norm_and_rectifier() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    network = vizapp.wrap(module, input_size=(3, 8, 8))
    names = [[one.name for one in unit_card.same_units(network, site)] for site in network.sites]
    assert names == [["0", "1", "2"], ["1", "2", "0"], ["2", "1", "0"], ["3", "4"], ["4", "3"], ["5"]]
