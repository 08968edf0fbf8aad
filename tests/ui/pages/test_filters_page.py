"""The page Filters: kernels, one enlarged kernel, the diagnosis, and feature visualization."""

from __future__ import annotations

import numpy as np
import pytest

import vizapp
from tests.ui.app import Open, chosen, click, drawn, offered, shown, went_well, words
from vizapp.media.samples import open_sample
from vizapp.methods.filters import slices_of

NETWORK = "vizapp/lenet5-digits"


def test_the_kernels_are_those_of_the_layer_with_its_diagnosis(open_app: Open) -> None:
    app = open_app("filters", layer="features.0", channel="2")
    assert went_well(app)
    assert not app.warning
    result = vizapp.ask("filters", vizapp.load(NETWORK), unit=vizapp.Unit("features.0", 2))
    sheet = shown(app, "filters.sheet")
    assert sheet["items"] == list(range(len(result.table)))
    assert sheet["chosen"] == 2
    assert "still" not in sheet
    assert (drawn(app, "projection.filter.Filter 2") == slices_of(result.arrays["kernels"][2])).all()
    assert result.facts["diagnosis"] in " ".join(m.value for m in app.markdown).replace("\\", "")
    assert f"Norm** {result.table[2]['norm']:.4g}" in words(app)


def test_a_deep_layer_shows_its_strongest_slices_and_numbers(open_app: Open) -> None:
    app = open_app("filters", layer="features.3", view="numbers")
    assert went_well(app)
    assert len(app.dataframe) == 1
    assert len(app.dataframe[0].value) == 16
    app.segmented_control(key="filters.view").set_value("maps").run()
    assert went_well(app)
    assert "input slices; the strongest are shown first" in words(app)


@pytest.mark.parametrize("address", [
    {"network": "vizapp/resnet20-cifar", "weights": "random", "layer": "layer1.0.add", "channel": "3"},  # a sum
    {"layer": "classifier", "ideal": "on"},  # a class: no map, and no channel chosen
    {"layer": "features.2", "channel": "1", "ideal": "on"},  # with kernels, from the card's link
])  # fmt: skip
def test_the_ideal_input_of_a_unit_of_any_layer(open_app: Open, address: dict[str, str]) -> None:
    app = open_app("filters", **{"picture": "digit 3", "ideal.steps": "2"} | address)
    assert went_well(app)
    assert not app.warning
    weights = "none" if "weights" in address else "default"
    network = vizapp.load(address.get("network", NETWORK), weights=weights)
    at_once = "ideal" in address
    assert ("its channels have no kernels; choose a convolution before it" in words(app)) != at_once
    if not at_once:
        assert not [one for one in app.get("bidi_component") if "projection.ideal" in one.proto.id], "not unasked"
        app.button(key="filters.paint").click().run()
    answer = int(vizapp.ask("predict", network, open_sample("digit 3")).arrays["logits"].argmax())
    channel = int(address.get("channel", answer))
    assert app.number_input(key="filters.channel").value == channel
    expected = vizapp.ask("ideal", network, unit=vizapp.Unit(address["layer"], channel), steps=2)
    difference = drawn(app, "projection.ideal.Finished").astype(int) - expected.arrays["pictures"][0]
    assert np.abs(difference).max() <= 1
    assert "Feature visualization PNG" in offered(app)
    assert chosen(app, "ideal.steps") == "2"
    if channel == answer:
        return
    click(app, "filters.maps", "chosen", 0)
    assert chosen(app, "channel") == "0"
    assert bool([one for one in app.get("bidi_component") if "projection.ideal" in one.proto.id]) == at_once


def test_the_ideal_input_is_painted_when_it_is_asked_for(open_app: Open) -> None:
    app = open_app("filters", layer="features.0", channel="2")
    assert "starting from noise" in words(app)
    app.number_input(key="form.ideal.steps").set_value(5).run()
    app.button(key="filters.paint").click().run()
    assert went_well(app)
    expected = vizapp.ask("ideal", vizapp.load(NETWORK), unit=vizapp.Unit("features.0", 2), steps=5)
    difference = drawn(app, "projection.ideal.Finished").astype(int) - expected.arrays["pictures"][0]
    assert np.abs(difference).max() <= 1
    assert "features.0:2; maximized: the mean of its map" in words(app)
    assert "Very many images activate the unit" in words(app)
    app.number_input(key="filters.channel").set_value(3).run()
    assert "starting from noise" in words(app), "another unit is not painted unasked"


def test_thresholds_and_scale_are_carried_by_the_address(open_app: Open) -> None:
    address = {"layer": "features.0", "channel": "1", "filters.alike": "0.6", "filters.scale": "filter"}
    app = open_app("filters", **address)
    assert went_well(app)
    assert app.number_input(key="form.filters.alike").value == 0.6
    assert "at least 0.6" in words(app)
    assert {name: chosen(app, name) for name in address} == address


@pytest.mark.slow
def test_a_gallery_that_was_built_here_tells_which_filters_are_dead(open_app: Open) -> None:
    network = vizapp.load(NETWORK)
    assert "In the gallery" not in words(open_app("filters", layer="features.0"))
    vizapp.ask("gallery", network, folder=vizapp.open_folder("digits"), sites=["features.1"])
    app = open_app("filters", layer="features.0")
    assert "In the gallery" not in words(app), "somebody else may have built it"
    app.button(key="filters.gallery").click().run()
    assert went_well(app)
    assert "In the gallery: 0 of 6 channels of features.1 are not activated by any of 1797 photos of digits." in words(
        app
    )
