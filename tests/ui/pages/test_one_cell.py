"""One cell of the page Feature maps: the sum that made it, the walk down and up again, and the link that keeps it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import vizapp
from tests.ui.app import Open, chosen, click, components, floats, offered, press, sentences, shown, went_well, words
from vizapp.media.samples import open_sample
from vizapp.methods.base import Result

PHOTO = "digit 3"
LINK = {"picture": PHOTO, "stages": "cell"}
TOP = LINK | {"layer": "features.4", "channel": "5", "cell": "6,4"}


def arithmetic(unit: vizapp.Unit, **params: int) -> Result:
    network = vizapp.load("vizapp/lenet5-digits")
    return vizapp.ask("arithmetic", network, open_sample(PHOTO), unit=unit, **params)


def test_a_cell_is_shown_as_its_sum_with_the_largest_contributions_first(open_app: Open) -> None:
    app = open_app("feature_maps", **TOP)
    assert went_well(app)
    expected = arithmetic(vizapp.Unit("features.4", 5, (6, 4)))
    data = shown(app, "maps.parts")
    sizes = expected.arrays["contributions"]
    order = np.argsort(-np.abs(sizes), kind="stable")
    assert [row["contribution"] for row in data["rows"]] == pytest.approx(sizes[order].tolist())
    assert [row["title"] for row in data["rows"]] == [f"Channel {channel}" for channel in order]
    assert data["total"] == pytest.approx(data["bias"] + sizes.sum(), rel=1e-5)
    kernels = floats(data["numbers"], (len(order), 3, 5, 5))
    weight = vizapp.load("vizapp/lenet5-digits").module.get_submodule("features.3").weight.numpy()[5]
    np.testing.assert_allclose(kernels[:, 1], weight[order], rtol=1e-5)
    np.testing.assert_allclose(kernels[:, 0] * kernels[:, 1], kernels[:, 2], rtol=1e-4, atol=1e-6)
    told = " ".join(html.proto.body for html in app.get("html"))
    assert told.count("<span>") >= 3, "the sum, ReLU, and the number after it"
    assert "<span>ReLU</span>" in told
    assert {"Table CSV", "Arrays NPZ", "Products PNG", "Channel PNG"} <= set(offered(app))


def test_a_click_goes_to_the_cell_below_and_up_again_and_the_link_keeps_the_walk(open_app: Open) -> None:
    app = open_app("feature_maps", **TOP)
    assert "walk.steps" not in components(app, "walk")
    row = arithmetic(vizapp.Unit("features.4", 5, (6, 4))).table[1]
    app = click(app, "maps.parts", "item", 1)
    assert went_well(app)
    assert (chosen(app, "layer"), chosen(app, "channel")) == (row["layer"], str(row["channel"]))
    assert chosen(app, "cell") == f"{row['row']},{row['column']}"
    walk = f"features.4:5@6,4;{row['layer']}:{row['channel']}@{row['row']},{row['column']}"
    assert chosen(app, "walk") == walk
    steps = shown(app, "walk.steps")
    assert [step["title"] for step in steps["steps"]] == ["features.4", row["layer"]]
    assert steps["at"] == 1
    again = open_app("feature_maps", **{name: chosen(app, name) for name in ("stages", "layer", "channel", "cell", "walk")} | {
        "picture": PHOTO
    })  # fmt: skip
    assert shown(again, "walk.steps") == steps
    assert shown(again, "maps.parts") == shown(app, "maps.parts")
    app = press(app, "walk.up")
    assert (chosen(app, "layer"), chosen(app, "cell"), chosen(app, "walk")) == ("features.4", "6,4", walk)
    app = click(app, "walk.steps", "item", 1)
    assert chosen(app, "layer") == row["layer"], "and down again, because the walk is kept"
    app.number_input(key="maps.channel").set_value(0).run()
    assert "walk" not in app.query_params, "another channel is another beginning"


def test_the_largest_contributions_lead_to_a_pixel_and_each_step_can_be_opened(open_app: Open) -> None:
    app = press(open_app("feature_maps", **TOP), "walk.down")
    assert went_well(app)
    assert chosen(app, "walk") == "features.4:5@6,4;largest"
    rows = arithmetic(vizapp.Unit("features.4", 5, (6, 4)), walk=100).table
    steps = shown(app, "walk.steps")["steps"]
    assert [step["title"] for step in steps] == [row["layer"] or "Pixel of the photo" for row in rows]
    row, column = rows[-1]["row"], rows[-1]["column"]
    assert (steps[-1]["box"], steps[-1]["item"]) == ([row, column, row + 1, column + 1], None)
    boxes = [step["box"] for step in steps]
    for above, below in pairwise(boxes):  # a part of the photo that the step above sees
        assert all(a <= b for a, b in zip(above[:2], below[:2], strict=True))
        assert all(a >= b for a, b in zip(above[2:], below[2:], strict=True))
    app = click(app, "walk.steps", "item", 1)
    assert chosen(app, "walk") == "features.4:5@6,4;largest"
    assert (chosen(app, "layer"), chosen(app, "channel")) == (rows[1]["layer"], str(rows[1]["channel"]))
    assert shown(app, "walk.steps")["at"] == 1
    app = click(app, "maps.parts", "item", 0)
    assert shown(app, "walk.steps")["at"] == 2, "below the second step, on the walk or beside it"


def test_a_cell_of_one_layer_and_a_class_of_predict_lead_here(open_app: Open) -> None:
    app = open_app("feature_maps", **(TOP | {"stages": "one"}))
    app = press(app, "maps.apart")
    assert (chosen(app, "stages"), chosen(app, "cell")) == ("cell", "6,4")
    app = open_app("feature_maps", **LINK, layer="classifier.4", channel="3")
    assert went_well(app)
    assert vizapp.load("vizapp/lenet5-digits").readable_name(3) in [caption.value for caption in app.caption]
    assert shown(app, "maps.parts")["rows"][0]["title"].startswith("Channel")


def test_without_a_choice_it_is_the_strongest_cell(open_app: Open) -> None:
    app = open_app("feature_maps", **LINK, layer="features.1")
    network = vizapp.load("vizapp/lenet5-digits")
    values = vizapp.ask("activations", network, open_sample(PHOTO), unit=vizapp.Unit("features.1", 0)).arrays[
        "activations"
    ]
    channel, row, column = np.unravel_index(values.argmax(), values.shape)
    assert shown(app, "maps.map")["cell"] == [row, column]
    assert app.number_input(key="maps.channel").value == channel
    pixels = shown(app, "maps.parts")["rows"]
    assert [one["item"] for one in pixels] == [None], "a pixel is made of nothing"
    assert pixels[0]["title"] == "Grey"


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ({"cell": "99,0"}, "This layer has cells 0,0 to 7,7, not 99,0"),
        ({"channel": "99"}, "This layer has channels 0 to 15, not 99"),
        ({"walk": "features.4"}, "'features.4' is not a step of a walk"),
        ({"walk": "largest"}, "'largest' is not a step of a walk"),
        ({"walk": "nowhere:5@1,1;features.4:5@6,4"}, "'nowhere'"),
        ({"walk": "features.1:5@99,1;features.4:5@6,4"}, "not 99,1. The walk was ignored."),
    ],
)
def test_what_a_link_names_wrongly_is_told_in_a_sentence(open_app: Open, link: dict[str, str], told: str) -> None:
    app = open_app("feature_maps", **(TOP | link))
    assert went_well(app)
    assert told in sentences(app) + words(app)
    assert shown(app, "maps.parts")["rows"]


@pytest.mark.slow
def test_a_gate_is_named_and_leads_to_the_number_that_it_is(open_app: Open) -> None:
    network = vizapp.load("torchvision/mobilenet_v3_small", weights="none")
    gated = next(site.name for site in network.sites if site.name.endswith("block.1.mul"))
    app = open_app(
        "feature_maps", network="torchvision/mobilenet_v3_small", weights="none", stages="cell", picture="chelsea",
        layer=gated, channel="3", cell="5,5",
    )  # fmt: skip
    assert went_well(app)
    label = app.button(key="maps.gate").label
    app = press(app, "maps.gate")
    assert chosen(app, "channel") == "3"
    assert f"{chosen(app, 'layer')}:3" in label
    assert chosen(app, "layer") != gated
