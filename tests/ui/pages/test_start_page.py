"""The start page: every card is filled and opens its page on what it shows; old links, uploads, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from streamlit.delta_generator import DeltaGenerator
from streamlit.testing.v1 import AppTest
from torch import nn

import vizapp
from tests.media.files import noise, saved
from tests.ui.app import Open, chosen, click, components, drawn, sentences, shown, turn_to, went_well, words
from vizapp.ui.app.pages import pages
from vizapp.ui.inputs import networks
from vizapp.ui.pages.start import cards
from vizapp.ui.pages.start.cards import CARDS, Answer, Card, Subject

# Grad-CAM does not fit the networks of these tests, whose last layers are fully connected.
PICTURED = {card.key for card in CARDS} - {"predict", "gallery", "search", "architecture", "compare"}


def links(app: AppTest) -> dict[str, dict[str, str]]:
    """The query of each card's link, by the key of the card."""
    by_question = {card.question or pages()[card.page].question: card.key for card in CARDS}
    by_question |= {card.unanswered: card.key for card in CARDS if card.unanswered}
    found = [element.proto for element in app.get("page_link") if not element.proto.query_string.startswith("tour=")]
    return {by_question[link.label]: dict(parse_qsl(link.query_string)) for link in found}


def filled(app: AppTest) -> set[str]:
    """The pages whose cards have a picture made by a component."""
    return {key.removeprefix("start.") for key in components(app, "start")} - {
        "photo",
        "samples",
        "own",
        "network",
        "strip",
    }


@pytest.mark.parametrize("network", ["vizapp/lenet5-digits", pytest.param("vizapp/zfnet-mini", marks=pytest.mark.slow)])
def test_every_card_is_filled(open_app: Open, network: str) -> None:
    app = open_app("start", network=network)
    assert went_well(app)
    assert not app.warning
    shipped = network == "vizapp/zfnet-mini"
    assert filled(app) == PICTURED | {"bars", "answers"} | ({"gallery"} if shipped else set())
    assert len([e for e in app.get("html") if '<div class="vz-blocks' in e.proto.body]) == 1
    assert ("Not built yet" in words(app)) != shipped, "of the gallery"
    assert set(links(app)) == {card.key for card in CARDS}
    assert not any("dogs" in element.proto.label for element in app.get("page_link")), "it knows none"


def test_each_card_is_sent_before_the_next_is_computed(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    caption = DeltaGenerator.caption

    def noted(self: DeltaGenerator, body: Any, *args: Any, **options: Any) -> DeltaGenerator:
        seen.append(f"sent {body}")
        return caption(self, body, *args, **options)

    def computed(card: Card) -> Card:
        def draw(subject: Subject) -> Answer:
            seen.append(f"computed {card.key}")
            return Answer(f"answer of {card.key}", {})

        return replace(card, draw=draw)

    monkeypatch.setattr(DeltaGenerator, "caption", noted)
    monkeypatch.setattr(cards, "CARDS", tuple(map(computed, CARDS)))
    assert went_well(open_app("start"))
    steps = [step.replace("\\", "") for step in seen if step.startswith(("computed", "sent answer of"))]
    assert steps == [step for card in CARDS for step in (f"computed {card.key}", f"sent answer of {card.key}")]


@pytest.mark.slow
def test_every_card_opens_its_page_on_what_it_shows(open_app: Open) -> None:
    app = open_app("start")
    found = links(app)
    page_of = {card.key: card.page for card in CARDS}
    for key, query in found.items():
        page = page_of[key]
        app.query_params.clear()
        for name, value in query.items():
            app.query_params[name] = value
        turn_to(app, page)
        assert went_well(app), page
        assert not app.warning, page
        for name in {"layer", "channel", "cell"} & set(query):
            assert chosen(app, name) == query[name], page
    assert {key for key, query in found.items() if "channel" in query} == {"projection", "filters"}
    assert found["feature_maps"]["stages"] == "all"


def test_the_cards_show_what_the_methods_answer(open_app: Open) -> None:
    app = open_app("start", picture="digit 3")
    network, photo = vizapp.load("vizapp/lenet5-digits"), vizapp.media.samples.open_sample("digit 3")
    told = vizapp.ask("predict", network, photo).table
    assert [row["name"] for row in shown(app, "start.bars")["rows"]] == [row["name"] for row in told[:3]]
    assert "Grad-CAM, a rough guide for this network" in words(app)
    unit = links(app)["projection"]
    row, column = map(int, unit["cell"].split(","))
    maps = vizapp.ask("activations", network, photo, unit=vizapp.Unit(unit["layer"], 0)).arrays["activations"]
    assert maps[int(unit["channel"]), row, column] == maps.max(), "the strongest unit at its strongest cell"
    angle = float(links(app)["transform"]["amount"])
    turned = vizapp.ask("transform", network, photo, kind="rotate", amounts=range(0, 360, 30), sites=["features.0"])
    chances = turned.arrays["probability"][:, told[0]["class"]]
    assert angle == 30 * chances.argmin()
    assert f"turned by {angle:g}°" in words(app)


def test_links_of_the_last_release_open_predict(open_app: Open) -> None:
    app = open_app("start", top="3", picture="digit 4")
    assert app.number_input(key="predict.top").value == 3
    assert len(shown(app, "predict.bars")["rows"]) == 3
    assert chosen(app, "picture") == "digit 4"
    assert went_well(app)


@pytest.mark.parametrize("mode", ["local", "server"])
def test_your_photo_is_used_on_all_pages(open_app: Open, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("VIZAPP_MODE", mode)
    app = open_app("start")
    app.file_uploader(key="start.upload").upload("mine.png", saved(noise(40, 50)), "image/png").run()
    assert went_well(app)
    assert not app.warning
    assert shown(app, "start.photo")["label"] == "mine.png"
    assert app.segmented_control(key="sidebar.source").value == "upload"
    assert filled(app) == PICTURED | {"bars", "answers"}
    assert all(query["picture"].startswith("upload/") for query in links(app).values())
    turn_to(app, "predict")
    assert shown(app, "predict.seen")["label"].startswith("mine.png")
    turn_to(app, "start")
    assert shown(app, "start.photo")["label"] == "mine.png"


def test_a_file_that_is_no_photo_is_told_and_no_card_filled(open_app: Open) -> None:
    app = open_app("start")
    app.file_uploader(key="start.upload").upload("letter.txt", b"Dear network", "text/plain").run()
    assert went_well(app)
    assert sentences(app).count("letter.txt") == 1
    assert not filled(app)


def test_the_network_is_chosen_beside_the_photo(open_app: Open) -> None:
    app = open_app("start", weights="random")
    assert "Random weights" in words(app)
    click(app, "start.network", "chosen", "vizapp/resnet20-cifar")
    assert went_well(app)
    assert shown(app, "sidebar.network")["chosen"] == "vizapp/resnet20-cifar"
    assert all(query["network"] == "vizapp/resnet20-cifar" for query in links(app).values())


def test_a_card_that_does_not_fit_the_network_says_why_and_the_others_are_filled(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = vizapp.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), (3, 8, 8))
    monkeypatch.setattr(networks, "load", lambda *args, **kwargs: flat)
    app = open_app("start")
    assert went_well(app)
    assert not app.warning, "no box"
    assert "bars" in filled(app)
    assert not {"feature_maps", "projection", "filters"} & filled(app)
    assert "has no convolution" in words(app)
    assert "has no layer with a map" in words(app)


def test_a_gallery_that_is_built_gives_the_photos_of_a_unit(open_app: Open, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(saved(noise(28, 28, seed=number)))
    network = vizapp.load("vizapp/lenet5-digits")
    vizapp.ask("gallery", network, folder=tmp_path)
    app = open_app("start", data=str(tmp_path))
    assert went_well(app)
    assert "gallery" in filled(app)
    assert drawn(app, "start.gallery").std() > 0
    query = links(app)["gallery"]
    opened = open_app("gallery", **query)
    assert went_well(opened)
    assert not opened.warning
    assert chosen(opened, "channel") == query["channel"]
