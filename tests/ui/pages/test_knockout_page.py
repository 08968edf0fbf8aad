"""The page Knock out: bars of the losses, the chosen unit, and the fewest units that change the answer."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import vizapp
from tests.ui.app import Open, chosen, click, offered, sentences, shown, went_well, words
from vizapp.methods.base import Result

NETWORK, PHOTO = "vizapp/lenet5-digits", "digit 3"


def result_of(**params: object) -> Result:
    return vizapp.ask("knockout", vizapp.load(NETWORK), vizapp.media.samples.open_sample(PHOTO), **params)


def bars(app: AppTest, key: str) -> dict[str, float]:
    """The lengths of the bars of a chart, by their labels."""
    spec = next(json.loads(one.proto.spec) for one in app.get("plotly_chart") if one.proto.id.endswith(key))
    return {label: value for trace in spec["data"] for label, value in zip(trace["y"], values(trace["x"]), strict=True)}


def values(numbers: object) -> list[float]:
    """Plotly packs arrays as base64."""
    if isinstance(numbers, dict):
        return np.frombuffer(base64.b64decode(numbers["bdata"]), numbers["dtype"]).tolist()
    return list(numbers)  # type: ignore[call-overload]


def test_bars_are_the_largest_losses_and_gains(open_app: Open) -> None:
    app = open_app("knockout", picture=PHOTO)
    assert went_well(app)
    assert not app.warning
    found = result_of()
    change, order = found.arrays["logit_change"], found.arrays["order"].tolist()
    losses, gains = [u for u in order[:10] if change[u] < 0], [u for u in order[-5:] if change[u] > 0]
    assert losses
    assert bars(app, "knockout.bars") == pytest.approx({f"unit {u}": float(change[u]) for u in {*losses, *gains}})
    assert app.number_input(key="knockout.channel").value == order[0]
    assert f"its logit by {change[order[0]]:+.3f}".replace("-", "−") in words(app)
    assert {"Arrays NPZ", "Table CSV", "Unit PNG"} <= set(offered(app))


def test_the_fewest_units_are_found_on_request_and_stay_in_the_link(open_app: Open, patient: None) -> None:
    app = open_app("knockout", picture=PHOTO, layer="features.4")
    app.button(key="knockout.fewest").click().run()
    assert went_well(app)
    found = result_of(site="features.4", fewest=True)
    assert found.arrays["fewest"].size > 1
    assert found.facts["fewest"] in words(app)
    assert ", ".join(map(str, found.arrays["fewest"][:40])) in words(app)
    assert chosen(app, "knockout.fewest") == "True"


def test_class_layer_unit_and_factor_are_chosen_by_the_link(open_app: Open) -> None:
    app = open_app(
        "knockout", picture=PHOTO, layer="features.0", channel="2", **{"class": "8", "knockout.factor": "2.0"}
    )
    assert went_well(app)
    assert not app.warning
    network = vizapp.load(NETWORK)
    found = result_of(site="features.0", unit=vizapp.class_unit(network, 8), factor=2.0)
    assert f"Scaling unit 2 changes the probability of {network.readable_name(8)} from " in words(app)
    assert f"its logit by {found.arrays['logit_change'][2]:+.3f}".replace("-", "−") in words(app)
    assert app.button(key="knockout.fewest").disabled, "8 is not the answer"
    app.segmented_control(key="knockout.view").set_value("numbers").run()
    assert app.dataframe[0].value["channel"].tolist() == found.arrays["order"].tolist()


def test_the_layer_of_the_classes_is_refused_in_a_sentence(open_app: Open) -> None:
    app = open_app("knockout", picture=PHOTO, layer="classifier")
    assert went_well(app)
    assert "is that of the classes" in sentences(app)


def test_top_photos_of_the_units_come_from_the_gallery(open_app: Open, patient: None) -> None:
    name, photo = "vizapp/zfnet-mini", "motorcycle"
    app = open_app("knockout", network=name, picture=photo)
    assert went_well(app)
    cards = shown(app, "knockout.cards")["cards"]
    found = vizapp.ask("knockout", vizapp.load(name), vizapp.media.samples.open_sample(photo))
    order = found.arrays["order"].tolist()
    assert [card["item"] for card in cards] == order[:6]
    assert any(card["patches"] for card in cards)
    click(app, "knockout.cards", "chosen", order[2])
    assert chosen(app, "channel") == str(order[2])
    click(app, "knockout.cards", "card", order[1])
    assert chosen(app, "card").endswith(f":{order[1]}")
