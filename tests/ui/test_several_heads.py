"""A network with several heads in the app: the choice in the sidebar, on every page and in the link."""

from __future__ import annotations

from typing import Any

import pytest

import vizapp
from tests.ui.app import Open, chosen, sentences, shown, turn_to, went_well
from vizapp.media.samples import open_sample
from vizapp.zoo.network import Network

NAME, PHOTO = "vizapp/deeply-supervised-companions-cifar", "rocket"
FITS = {"network": NAME, "weights": "random", "picture": PHOTO}
HEADS = ["output", "companion 1", "companion 2", "companion 3"]


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.load(NAME, weights="none", device="cpu")


def chooser(app: Any) -> Any:
    return next((box for box in app.sidebar.selectbox if box.label == "Head"), None)


def shares(app: Any) -> dict[str, float]:
    return {row["name"]: row["share"] for row in shown(app, "predict.bars")["rows"]}


def expected(network: Network) -> dict[str, float]:
    return {row["name"]: row["probability"] for row in vizapp.ask("predict", network, open_sample(PHOTO)).table}


@pytest.mark.slow
def test_a_head_is_chosen_beside_the_network_for_all_pages(open_app: Open, network: Network) -> None:
    app = open_app("predict", **FITS)
    assert went_well(app)
    assert (chooser(app).options, chooser(app).value) == (HEADS, "output")
    assert "output" not in app.query_params
    assert shares(app) == pytest.approx(expected(network))
    table = next(frame.value for frame in app.dataframe if "Head" in frame.value)
    assert table["Head"].tolist() == HEADS
    answers = [vizapp.ask("predict", network.with_output(head), open_sample(PHOTO)).table[0] for head in HEADS]
    assert table["Most probable class"].tolist() == [answer["name"] for answer in answers]
    assert table["Probability"].tolist() == pytest.approx([answer["probability"] for answer in answers])
    chooser(app).select("companion 2").run()
    assert went_well(app)
    assert chosen(app, "output") == "companion 2"
    second = network.with_output("companion 2")
    assert shares(app) == pytest.approx(expected(second))
    app = turn_to(app, "knockout")
    assert went_well(app)
    assert (chosen(app, "output"), chooser(app).value) == ("companion 2", "companion 2")
    app = turn_to(app, "predict")
    chooser(app).select("output").run()
    assert "output" not in app.query_params
    assert shares(app) == pytest.approx(expected(network))


def test_a_link_opens_a_head_by_its_name_or_its_number(open_app: Open, network: Network) -> None:
    for text in ("companion 1", "1", "companions.0"):
        app = open_app("predict", **FITS, output=text)
        assert went_well(app)
        assert not sentences(app)
        assert (chosen(app, "output"), chooser(app).value) == ("companion 1", "companion 1")
        assert shares(app) == pytest.approx(expected(network.with_output("companion 1")))
    assert "output" not in open_app("predict", **FITS, output="0").query_params


def test_a_link_with_a_head_of_another_network_goes_on_with_the_default(open_app: Open, network: Network) -> None:
    app = open_app("predict", **FITS, output="auxiliary after 4a")
    assert went_well(app)
    assert "The link's choice of output was ignored." in sentences(app)
    assert "it has 'output', 'companion 1', 'companion 2', 'companion 3'" in sentences(app)
    assert "output" not in app.query_params
    assert shares(app) == pytest.approx(expected(network))
    app = open_app("predict", picture="digit 3", network="vizapp/lenet5-digits", output="companion 1")
    assert went_well(app)
    assert "it has one output, so leave it out" in sentences(app)
    assert chooser(app) is None
    assert "output" not in app.query_params


@pytest.mark.slow
@pytest.mark.parametrize("page", ["start", "projection", "occlusion", "transform", "compare", "attribution"])
def test_pages_ask_a_head(open_app: Open, page: str) -> None:
    app = open_app(page, **FITS, output="companion 1")
    assert went_well(app)
    assert "ignored" not in sentences(app)
    assert (chosen(app, "output"), chooser(app).value) == ("companion 1", "companion 1")
