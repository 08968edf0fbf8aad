"""The page Compare: two networks on one picture, and their matching units."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vizapp
from tests.ui.app import Open, chosen, click, rgba, sentences, shown, went_well, words
from vizapp.ui.pages.compare import results
from vizapp.ui.session import downloads

DIGITS = "vizapp/lenet5-digits"


def test_trained_and_random_weights_of_one_network_stand_side_by_side(open_app: Open) -> None:
    app = open_app("compare", other=DIGITS)
    assert went_well(app)
    assert not app.warning
    names = " ".join(m.value for m in app.markdown).replace("\\", "")
    assert f"{DIGITS}**, trained" in names
    assert f"{DIGITS}**, random weights" in names
    first, second = (shown(app, f"compare.filters.{number}") for number in (0, 1))
    assert first["sprite"] != second["sprite"]
    assert len(shown(app, "compare.projections.0")["items"]) == 9 - 3 * (len(first["items"]) < 6)
    answer = vizapp.ask("predict", vizapp.load(DIGITS), vizapp.media.samples.open_sample("digit 0")).table[0]
    assert shown(app, "compare.bars.0")["rows"][0]["share"] == pytest.approx(answer["probability"], abs=1e-4)


@pytest.mark.slow
def test_random_weights_are_compared_with_a_trained_network_unless_another_is_chosen(open_app: Open) -> None:
    app = open_app("compare", network=DIGITS, weights="random")
    assert went_well(app)
    assert (chosen(app, "other"), chosen(app, "other_weights")) == ("vizapp/efficientnet-lite0", "published")
    app = open_app("compare", network=DIGITS, weights="random", other=DIGITS, other_weights="published")
    assert went_well(app)
    assert (chosen(app, "other"), chosen(app, "other_weights")) == (DIGITS, "published")


def test_the_same_weights_twice_are_told(open_app: Open) -> None:
    app = open_app("compare", other=DIGITS, other_weights="published")
    assert went_well(app)
    assert "the same network with the same weights" in words(app)
    assert shown(app, "compare.filters.0")["sprite"] == shown(app, "compare.filters.1")["sprite"]


def test_networks_of_different_kinds_can_be_compared(open_app: Open) -> None:
    app = open_app("compare", other="vizapp/zfnet-mini", other_weights="published")
    assert went_well(app)
    assert len(shown(app, "compare.filters.1")["items"]) == 64


def test_an_unknown_network_in_the_address_is_left_out(open_app: Open) -> None:
    app = open_app("predict", other="vizapp/nothing")
    assert "choice of other was ignored" in sentences(app)


def test_units_are_matched_over_a_folder_when_asked(open_app: Open, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8) // (1 + number)).save(
            tmp_path / f"{number}.png"
        )
    app = open_app("compare", other=DIGITS, other_weights="published")
    app.text_input(key="compare.folder").set_value(str(tmp_path)).run()
    assert not app.dataframe
    app.button(key="compare.match").click().run()
    assert went_well(app)
    table = app.dataframe[0].value
    assert (table["correlation"] > 0.999).all(), "a network matches itself"
    assert "Over 6 of 6" in words(app)


@pytest.mark.parametrize("other", [0, 1])
@pytest.mark.slow
def test_a_click_on_a_unit_of_either_network_opens_its_card(open_app: Open, other: int, tmp_path: Path) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    clicks: list[tuple[str, str, Callable[[dict[str, Any]], Any], str]] = [
        ("bars", "item", lambda data: data["rows"][1]["item"], "classifier.4"),
        ("filters", "card", lambda data: data["items"][4], "features.0"),
        ("projections", "card", lambda data: data["items"][2], "features.4"),
    ]
    app = open_app("compare", other=DIGITS, match="features.0", match2="features.3")
    for what, event, take, site in clicks:
        key = f"compare.{what}.{other}"
        unit = take(shown(app, key))
        if event == "card":
            assert (shown(app, key)["still"], shown(app, key)["card"]) == (True, True), (
                "a click on a tile opens its card"
            )
        click(app, key, event, unit)
        assert went_well(app)
        assert chosen(app, "card") == f"{site}:{unit}"
        assert (other == 1) == ("card_of" in app.query_params)
        del app.query_params["card"]
        app.run()
    app.text_input(key="compare.folder").set_value(str(tmp_path)).run()
    app.button(key="compare.match").click().run()
    table = app.dataframe[0]
    column = ("first", "second")[other]
    states = app._tree.get_widget_states()
    picked = json.dumps({"selection": {"rows": [], "columns": [], "cells": [[3, column]]}})
    states.widgets.add(id=table.proto.id, string_value=picked)
    app._run(states)
    assert went_well(app)
    assert chosen(app, "card") == f"{('features.0', 'features.3')[other]}:{table.value[column][3]}"


def test_the_layers_to_match_are_in_the_address_and_go_with_their_network(open_app: Open) -> None:
    app = open_app("compare", other=DIGITS, match="features.0", match2="features.4")
    assert went_well(app)
    assert [app.selectbox(key=f"compare.layer.{n}").value for n in (0, 1)] == ["features.0", "features.4"]
    app.selectbox(key="compare.layer.1").set_value("features.1").run()
    assert chosen(app, "match2") == "features.1"
    click(app, "compare.network", "chosen", "vizapp/resnet20-cifar")
    assert "match2" not in app.query_params
    assert chosen(app, "match") == "features.0"
    assert app.selectbox(key="compare.layer.1").value == "layer1.0.relu"


def test_a_layer_that_is_not_there_is_told(open_app: Open) -> None:
    app = open_app("compare", other=DIGITS, match2="features.99")
    assert went_well(app)
    assert "features.99" in sentences(app)
    assert app.selectbox(key="compare.layer.1").value == app.selectbox(key="compare.layer.0").value


def test_everything_shown_can_be_taken_away(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        downloads, "row", lambda key, name, pictures, arrays: given.update(name=name, pictures=pictures, arrays=arrays)
    )
    assert went_well(open_app("compare", other=DIGITS))
    assert given["name"].startswith("compare-vizapp-lenet5-digits-vizapp-lenet5-digits")
    assert list(given["pictures"]) == [
        "Filters first", "Filters second", "Projections first", "Projections second", "Occlusion first", "Occlusion second",
        "Difference",
    ]  # fmt: skip
    arrays, network = given["arrays"], vizapp.load(DIGITS)
    np.testing.assert_array_equal(
        arrays["first_filters_kernels"],
        vizapp.ask("filters", network, unit=vizapp.Unit("features.0", 0)).arrays["kernels"],
    )
    assert not np.array_equal(arrays["first_filters_kernels"], arrays["second_filters_kernels"])
    assert arrays["first_answer_probabilities"].argmax() == 0
    assert arrays["difference"].shape == arrays["first_occlusion_probability"].shape


def test_the_occlusion_maps_have_one_scale_and_show_what_hiding_costs(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(downloads, "row", lambda key, name, pictures, arrays: given.update(arrays))
    app = open_app("compare", other=DIGITS)
    both = [shown(app, f"compare.occlusion.{number}") for number in (0, 1)]
    lost = [
        given[f"{who}_occlusion_clean_probability"] - given[f"{who}_occlusion_probability"]
        for who in ("first", "second")
    ]
    most = max(0.1, *(float(np.abs(one).max()) for one in lost))
    assert [one["ends"] for one in both] == [[f"+{100 * most:.0f} points", f"−{100 * most:.0f} points"]] * 2
    row, column = np.unravel_index(np.abs(lost[0]).argmax(), lost[0].shape)
    red, _, blue, opacity = rgba(both[0]["heat"])[row, column].tolist()
    assert (red > blue) == (lost[0][row, column] > 0)
    assert opacity == pytest.approx(255 * (float(np.abs(lost[0]).max()) / most) ** 0.7, abs=1)
    assert (rgba(both[1]["heat"])[..., 3] < 60).all(), "random weights lose nothing"


def test_a_folder_that_is_not_there_is_told(open_app: Open, tmp_path: Path) -> None:
    app = open_app("compare", other=DIGITS)
    app.text_input(key="compare.folder").set_value(str(tmp_path / "nothing")).run()
    app.button(key="compare.match").click().run()
    assert went_well(app)
    assert "There is no folder" in sentences(app)


def test_the_difference_of_occlusion_maps_is_that_of_the_losses_on_one_grid() -> None:
    first, second = np.array([[0.9, 0.5], [0.9, 0.9]]), np.repeat(np.repeat([[0.6, 0.6], [0.1, 0.6]], 2, 0), 2, 1)
    found = results.difference((first, 0.9), (second, 0.6))
    np.testing.assert_allclose(found, [[0, 0.4], [-0.5, 0]], atol=1e-12)
