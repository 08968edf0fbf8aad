"""The page Projection: one unit by three rules, nine units at once, options, links, and the sanity check."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vizapp
from tests.ui.app import Open, chosen, drawn, offered, sentences, shown, went_well, words
from vizapp.media.samples import open_sample
from vizapp.methods.base import Job, Question, Result
from vizapp.methods.projection import ProjectionParams, project_units
from vizapp.ui.inputs import networks
from vizapp.ui.widgets import projection_tiles

LAYER = "features.4"  # rectified, 16 × 8 × 8


def test_one_unit_is_shown_by_three_rules_with_certificate_and_caution(open_app: Open) -> None:
    app = open_app("projection", layer=LAYER, channel="9")
    assert went_well(app)
    assert not app.warning
    sizes = {drawn(app, f"projection.pictures.{title}").shape for title in ("Photo", "Deconvnet", "Guided", "Gradient")}
    assert len(sizes) == 1
    assert "2 non-linearities between unit and pixels" in words(app)
    assert "does not explain the class decision" in words(app)
    assert "the strongest" in words(app)
    assert len(offered(app)) == 6


def test_the_pictures_are_those_of_the_method_each_on_its_own_scale_or_all_on_one(open_app: Open) -> None:
    from vizapp.media.drawing import signed

    def full_contrast(values: np.ndarray) -> float:
        return float(np.percentile(np.abs(values[values != 0]), 99.5))

    app = open_app("projection", layer=LAYER, channel="9", cell="2,5", part="whole", picture="digit 3")
    network = vizapp.load("vizapp/lenet5-digits")
    unit = vizapp.Unit(LAYER, 9, (2, 5))
    answers = [
        vizapp.ask("projection", network, picture=open_sample("digit 3"), unit=unit, rule=rule).arrays["projection"]
        for rule in ("deconvnet", "guided", "gradient")
    ]
    for title, values in zip(("Deconvnet", "Guided", "Gradient"), answers, strict=True):
        assert (drawn(app, f"projection.pictures.{title}") == signed(values, full_contrast(values))).all()
    app.segmented_control(key="projection.contrast").set_value("shared").run()
    scale = max(full_contrast(values) for values in answers)
    for title, values in zip(("Deconvnet", "Guided", "Gradient"), answers, strict=True):
        assert (drawn(app, f"projection.pictures.{title}") == signed(values, scale)).all()


def test_the_page_begins_at_the_last_convolution_and_keeps_it(open_app: Open) -> None:
    app = open_app("projection")
    assert app.selectbox(key="projection.layer").value == "features.3"  # LeNet-5's second convolution
    app.number_input(key="projection.channel").set_value(9).run()
    assert app.selectbox(key="projection.layer").value == "features.3"
    assert chosen(app, "layer") == "features.3"
    assert went_well(app)


def test_a_link_with_a_channel_alone_means_the_first_map(open_app: Open) -> None:
    app = open_app("projection", channel="3")
    assert app.selectbox(key="projection.layer").value == "features.1"
    assert app.number_input(key="projection.channel").value == 3


def test_a_link_reopens_layer_channel_cell_mode_and_options(open_app: Open) -> None:
    address = {
        "layer": LAYER, "channel": "9", "cell": "2,5", "part": "whole", "contrast": "shared", "projection.seed": "one",
        "projection.pools": "overwrite", "projection.extended": "False", "projection.rule": "guided",
    }  # fmt: skip
    app = open_app("projection", **address)
    assert went_well(app)
    assert not app.warning
    assert app.number_input(key="projection.channel").value == 9
    assert app.segmented_control(key="form.projection.seed").value == "one"
    assert app.toggle(key="form.projection.extended").value is False
    assert shown(app, "projection.map")["cell"] == [2, 5]
    assert "Options: seed one, pools overwrite, extended off." in words(app)
    assert {name: chosen(app, name) for name in address} == address


def test_options_survive_a_change_of_page_and_go_back_to_their_defaults(open_app: Open) -> None:
    app = open_app("projection", layer=LAYER)
    app.segmented_control(key="form.projection.extent").set_value("map").run()
    assert "cell" not in shown(app, "projection.map") or shown(app, "projection.map")["cell"] is None
    app.switch_page("vizapp/ui/pages/predict/page.py").run()
    assert "projection.extent" not in app.query_params
    app.switch_page("vizapp/ui/pages/projection/page.py").run()
    assert app.segmented_control(key="form.projection.extent").value == "map"
    app.button(key="projection.reset").click().run()
    assert went_well(app)
    assert app.segmented_control(key="form.projection.extent").value == "cell"
    assert "projection.extent" not in app.query_params


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ({"layer": LAYER, "cell": "99,1"}, "cells 0,0 to 7,7"),
        ({"layer": LAYER, "channel": "16"}, "channels 0 to 15"),
        ({"layer": "features.44"}, "has no layer"),
    ],
)
def test_a_unit_that_the_network_lacks_is_told_and_another_shown(
    open_app: Open, address: dict[str, str], told: str
) -> None:
    app = open_app("projection", **address)
    assert went_well(app)
    assert told in sentences(app)
    assert shown(app, "projection.pictures.Deconvnet")["photo"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("mode", "ten", "not one of one, nine"),
        ("part", "", "not one of patch, whole"),
        ("projection.seed", "two", "must be one of value, one"),
        ("projection.extended", "perhaps", "yes or no"),
    ],
)
def test_a_bad_option_in_a_link_is_told_and_left_out(open_app: Open, name: str, value: str, told: str) -> None:
    app = open_app(**{name: value})
    assert told in sentences(app)
    app.switch_page("vizapp/ui/pages/projection/page.py").run()
    assert went_well(app)
    assert not app.warning
    assert name not in app.query_params


def test_strongest_lets_go_of_the_cell(open_app: Open) -> None:
    app = open_app("projection", layer=LAYER, channel="9", cell="0,0")
    app.button(key="projection.strongest").click().run()
    assert went_well(app)
    assert "cell" not in app.query_params
    assert "the strongest" in words(app)


def test_a_silent_unit_is_told(open_app: Open) -> None:
    network = vizapp.load("vizapp/lenet5-digits")
    maps = vizapp.ask("activations", network, picture=open_sample("digit 0"), unit=vizapp.Unit(LAYER, 0)).arrays
    channel, row, column = np.argwhere(maps["activations"] == 0)[0]
    app = open_app("projection", layer=LAYER, channel=str(channel), cell=f"{row},{column}", picture="digit 0")
    assert went_well(app)
    assert "No signal reaches the pixels" in words(app)


def test_a_class_is_a_unit_too(open_app: Open) -> None:
    last = vizapp.load("vizapp/lenet5-digits").sites[-1].name
    app = open_app("projection", layer=last)
    assert went_well(app)
    app.selectbox(key="projection.class").set_value(7).run()
    assert went_well(app)
    assert chosen(app, "channel") == "7"
    assert app.number_input(key="projection.channel").value == 7


def test_nine_units_are_shown_and_one_of_them_framed(open_app: Open) -> None:
    app = open_app("projection", layer=LAYER, mode="nine")
    assert went_well(app)
    assert not app.warning
    patches, down = shown(app, "projection.patches"), shown(app, "projection.nine")
    assert patches["items"] == down["items"]
    assert len(down["items"]) == 9
    assert down["chosen"] == down["items"][0]
    assert app.segmented_control(key="projection.rule").value == "deconvnet"
    app.segmented_control(key="projection.rule").set_value("guided").run()
    assert went_well(app)
    assert shown(app, "projection.nine")["sprite"] != down["sprite"]
    assert chosen(app, "projection.rule") == "guided"


def test_without_max_pools_the_guided_rule_is_shown_until_another_is_chosen(open_app: Open) -> None:
    """LeNet-5 of 1998 averages where `vizapp/lenet5-digits` takes the maximum."""
    app = open_app("projection", network="vizapp/lenet5-1998", weights="random", mode="nine")
    assert went_well(app)
    assert app.segmented_control(key="projection.rule").value == "guided"
    app.segmented_control(key="projection.rule").set_value("deconvnet").run()
    assert app.segmented_control(key="projection.rule").value == chosen(app, "projection.rule") == "deconvnet"


@pytest.mark.parametrize("layer", ["features.1", "classifier.0"])
def test_a_small_or_a_flat_layer_has_its_strongest_units_too(open_app: Open, layer: str) -> None:
    app = open_app("projection", layer=layer, mode="nine")
    assert went_well(app)
    assert not app.warning
    assert len(shown(app, "projection.nine")["items"]) == (6 if layer == "features.1" else 9)


def test_the_sanity_check_runs_when_asked_and_gives_three_similarities(open_app: Open) -> None:
    app = open_app("projection", layer=LAYER, channel="9")
    assert "rank correlations" not in words(app)
    app.button(key="projection.check").click().run()
    assert went_well(app)
    assert "Layers above randomised, 1.00:** unchanged" in words(app)
    assert "All weights randomised" in words(app)
    assert "rank correlations" in words(app)
    assert len(offered(app)) == 7
    app.number_input(key="projection.channel").set_value(3).run()
    assert "rank correlations" not in words(app)  # another unit waits until it is asked for


def test_several_units_in_one_go_are_what_each_is_alone() -> None:
    network, picture = vizapp.load("vizapp/lenet5-digits"), open_sample("digit 5")
    units = [vizapp.Unit(LAYER, channel) for channel in (3, 9, 12)]
    together = project_units(Question(network, picture), units, ProjectionParams(), Job()).arrays
    for place, unit in enumerate(units):
        alone = vizapp.ask("projection", network, picture=picture, unit=unit).arrays
        np.testing.assert_allclose(together["projection"][place], alone["projection"], rtol=1e-4, atol=1e-7)
        assert (together["field"][place] == alone["field"]).all()
        assert together["activation"][place] == pytest.approx(float(alone["activation"]))


def test_whole_maps_name_no_cell(open_app: Open) -> None:
    app = open_app("projection", layer=LAYER, mode="nine", **{"projection.extent": "map"})
    assert went_well(app)
    assert not any("cell" in detail for detail in shown(app, "projection.nine")["details"])


def test_scales_are_shared_or_each_its_own() -> None:
    values = {"a": np.full((2, 2, 3), -3.0), "b": np.full((2, 2, 3), 1.0), "c": np.full((2, 2, 3), np.nan)}
    assert projection_tiles.scales(values, "shared") == {"a": 3.0, "b": 3.0, "c": 3.0}
    assert projection_tiles.scales(values, "own") == {"a": 3.0, "b": 1.0, "c": 0.0}


def test_tiles_of_different_sizes_make_one_sprite() -> None:
    arrays = {
        "channel": np.array([4, 2]), "activation": np.array([2.0, 1.0]), "cell": np.array([[0, 1], [-1, -1]]),
        "projection": np.stack([np.ones((4, 4, 3)), np.zeros((4, 4, 3))]),
    }  # fmt: skip
    tiles = [np.zeros((3, 5, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)]
    data = projection_tiles.grid_data(tiles, Result("projection", arrays), 4, (), "two")
    assert data["tile"] == [4, 5]
    assert data["details"] == ["activation 2, cell 0,1", "activation 1, zero here"]


def test_a_first_view_takes_at_most_four_passes(open_app: Open) -> None:
    """One for the activations and one for each rule; the layers and their receptive fields are known from opening."""
    open_app("predict")
    network = next(network for _, network in networks.open_networks().items())
    assert network.sites
    passes = []

    def count(module: torch.nn.Module, args: object) -> None:
        passes.append(module is network.module)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        app = open_app("projection", layer=LAYER)
    finally:
        handle.remove()
    assert went_well(app)
    assert shown(app, "projection.pictures.Gradient")["photo"]
    assert 2 <= sum(passes) <= 4
