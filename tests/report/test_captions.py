"""What reports say below maps and along axes is true of what is drawn."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import vizapp
from vizapp.media.drawing import COLOURS
from vizapp.media.samples import open_sample
from vizapp.methods import methods
from vizapp.methods.output import Output
from vizapp.methods.views import label_shares, map_caption, overlay, strongest_class
from vizapp.report.section import View
from vizapp.zoo.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.load("vizapp/lenet5-digits", device="cpu")


def curves(asked: str, network: Network, **params: object) -> tuple[View, ...]:
    views = vizapp.ask(asked, network, open_sample("digit 3"), **params).section().views
    assert {view.component for view in views} == {"curves"}
    return views


def test_every_heat_map_over_the_photo_says_what_its_colours_mean() -> None:
    over = [(m.key, one) for m in methods().values() for one in m.shows if one.over_photo]
    kinds = {"heat map", "per-class map"}
    assert {(key, one.array) for key, one in over if one.kind in kinds and not one.reading} == set()
    assert {("occlusion", "probability"), ("predict", "scores")} <= {(key, one.array) for key, one in over}


def test_the_reading_of_a_map_is_kept_for_the_map_of_one_class() -> None:
    scores = next(one for one in methods()["predict"].shows if one.array == "scores")
    one, values = strongest_class(scores, np.array([[[0.0]], [[2.0]]]), np.array([7, 3]), str)
    assert (one.kind, one.label, values.item()) == ("heat map", "Logit of a class: 3", 2.0)
    assert map_caption(one, values, "3") == scores.reading
    assert "logit" in scores.reading


def test_a_map_of_any_quantity_is_not_said_to_show_what_matters() -> None:
    assert map_caption(Output("a", "heat map", True), np.eye(2), "cat") == "The brighter, the higher the value."


@pytest.mark.parametrize("inverse", [False, True])
def test_occlusion_says_what_is_hidden(network: Network, inverse: bool) -> None:
    answer = vizapp.ask("occlusion", network, open_sample("digit 3"), window=14, stride=14, inverse=inverse)
    (view,) = answer.section().views
    assert ("all but this place" in view.caption) == inverse
    captions = {panel.title: panel.caption for panel in answer.panels}
    of_hiding = [caption for caption in captions.values() if "hiding" in caption]
    assert len(of_hiding) == 2
    assert all(("hiding all but the square" in caption) == inverse for caption in of_hiding)
    values, box = answer.arrays["probability"], answer.arrays["positions"]
    share, place = (values.max(), values.argmax()) if inverse else (values.min(), values.argmin())
    assert f"{'most' if inverse else 'least'} probable: {100 * share:.1f} %" in captions["a-occluded"]
    drawn = next(panel.pixels for panel in answer.panels if panel.title == "a-occluded")
    seen, (top, left, bottom, right) = answer.provenance.seen, np.clip(box.reshape(-1, 4)[place], 0, 28)
    inner = np.s_[top + 1 : bottom - 1, left + 1 : right - 1]  # without the frame of the square
    assert (drawn[inner] == (seen[inner] if inverse else 128)).all()
    assert answer.section().about["square"] == answer.facts["square"]
    assert ">colour</th>" not in answer.to_html()
    assert ">clean</th>" in answer.to_html()
    assert "<th>true</th>" not in answer.to_html()  # it is unknown


@pytest.mark.parametrize(
    ("kind", "axis"),
    [("rotate", "degrees"), ("shift-y", "down, pixels"), ("scale", "times"), ("jpeg", "Severity of JPEG")],
)
def test_the_axis_of_a_transform_has_its_unit(network: Network, kind: str, axis: str) -> None:
    views = curves("transform", network, kind=kind, amounts=(1, 2))
    assert all(axis in view.data["axis"] for view in views)


def test_trust_shows_a_curve_per_kind_for_each_measure_that_has_one(network: Network) -> None:
    views = curves("trust", network, kinds=("gradcam", "random"), measures=("deletion", "road"))
    assert [view.heading.split(":")[0] for view in views] == ["Deletion", "ROAD", "ROAD"]
    assert all([line["name"] for line in view.data["series"]] == ["gradcam", "random"] for view in views)
    assert all("percent" in view.data["axis"] for view in views)


def test_an_occlusion_shows_the_class_that_was_asked_for(network: Network) -> None:
    photo, unit = open_sample("digit 3"), vizapp.class_unit(network, 8)
    answer = vizapp.ask("occlusion", network, photo, unit=unit, window=14, stride=14)
    maps = {one["letter"]: one for one in answer.section().views[0].data["groups"][0]["maps"]}
    assert maps["(d)"]["title"] == "Probability of 8"
    shown = np.frombuffer(base64.b64decode(maps["(d)"]["values"]), "<f4")
    np.testing.assert_array_equal(shown, answer.arrays["probability"].ravel())


def test_an_occlusion_without_a_finite_probability_has_a_report() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    nn.init.constant_(module[4].weight, math.nan)
    wrapped = vizapp.wrap(module, (3, 16, 16))
    answer = vizapp.ask("occlusion", wrapped, np.zeros((16, 16, 3), np.uint8), window=8, stride=8)
    assert np.isnan(answer.arrays["probability"]).all()
    assert answer.section().views[0].data["groups"][0]["cell"] == [0, 0]


def test_the_curves_of_a_folder_name_no_single_class(network: Network, tmp_path: Path) -> None:
    for name in ("digit 3", "digit 8"):
        Image.fromarray(open_sample(name).pixels).save(tmp_path / f"{name}.png")
    answer = vizapp.ask("transform", network, folder=tmp_path, kind="shift-x", amounts=(0, 2))
    assert answer.section().views[0].heading == "Probability of the class"
    assert "right by whole pixels" in answer.section().about["transform"]


def test_a_single_answer_has_one_heading(network: Network) -> None:
    answer = vizapp.ask("predict", network, open_sample("digit 3"))
    assert answer.to_html().count("Predict · digit 3.png</h") == 1
    assert "<h1>Mine</h1>" in answer.to_html("Mine")
    both = vizapp.Report((answer.section(), answer.section()), "Two").to_html()
    assert both.count("<h2>Predict · digit 3.png</h2>") == 2
    assert "<h1>Two</h1>" in both


def test_the_feature_maps_of_a_layer_are_not_said_to_explain_a_unit(network: Network) -> None:
    unit = vizapp.Unit("features.1", 0)
    about = vizapp.ask("activations", network, open_sample("digit 3"), unit=unit).section().about
    assert about["layer"] == "features.1"
    assert "explained" not in about
    about = vizapp.ask("projection", network, open_sample("digit 3"), unit=unit).section().about
    assert about["explained"] == "unit 0 of features.1"


def test_the_background_of_a_label_map_is_clear_and_leaves_its_colour_to_the_classes() -> None:
    labels = np.array([[0, 0, 0], [2, 2, 1]])
    names = ("__background__", "square", "disc")
    output, told = Output("label", "label map", over_photo=True), ("background", "square", "disc")
    over = overlay(output, labels, names.__getitem__)
    np.testing.assert_array_equal(over[..., 3] > 0, labels > 0)
    np.testing.assert_array_equal(over[1, :, :3], COLOURS[[0, 0, 1]])
    shares = label_shares(output, labels, names.__getitem__)
    assert [(None if colour is None else list(colour), share) for colour, _, share in shares] == [
        (COLOURS[0].tolist(), 2 / 6), (COLOURS[1].tolist(), 1 / 6), (None, 3 / 6),
    ]  # fmt: skip
    assert [name.strip("_") for _, name, _ in shares] == [told[2], told[1], told[0]]
    assert not overlay(output, np.zeros((2, 2), int), names.__getitem__)[..., 3].any()
    assert overlay(output, labels, ("a", "b", "c").__getitem__)[..., 3].all(), "no class is the background"
