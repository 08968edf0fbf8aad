"""Interventions in the app: faders of a unit, the bar on every page, the link, and networks that lack the layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vizapp
from tests.ui.app import Open, chosen, components, press, sentences, shown, turn_to, went_well, words
from vizapp.media.drawing import to_png
from vizapp.media.samples import open_sample
from vizapp.zoo.interventions import Intervention

PHOTO, LAYER = "digit 3", "features.4"


def shares(app, key: str) -> dict[str, float]:
    return {row["name"]: row["share"] for row in shown(app, key)["rows"]}


def expected(*given: Intervention, top: int = 3) -> dict[str, float]:
    network = vizapp.load("vizapp/lenet5-digits")
    table = vizapp.ask("predict", network, open_sample(PHOTO), interventions=given, top=top).table
    return {row["name"]: row["probability"] for row in table}


def bar(app) -> str:
    return " ".join(html.proto.body for html in app.get("html") if html.proto.body.startswith('<div class="vz-changes'))


def test_a_silenced_unit_changes_the_answer_at_once_on_every_page_until_it_is_restored(open_app: Open) -> None:
    app = open_app("feature_maps", picture=PHOTO, layer=LAYER, channel="2")
    assert went_well(app)
    assert bar(app) == ""
    assert "maps.changed" not in components(app, "maps")
    app = press(app, "maps.silence")
    assert chosen(app, "set") == f"{LAYER}:2=0"
    assert f"{LAYER}: channel 2 × 0" in bar(app)
    silent = expected(Intervention(LAYER, 2, "scale", 0))
    assert shares(app, "maps.changed") == pytest.approx(silent)
    assert shares(app, "maps.clean") == pytest.approx(expected())
    assert app.slider[0].value == 0
    app.slider[0].set_value(3 * 0.1).run()
    assert chosen(app, "set") == f"{LAYER}:2=0.3"
    assert app.slider[0].value == 3 * 0.1, "not set to 0.3: the browser may have moved on"
    app.slider[0].set_value(2.0).run()
    assert chosen(app, "set") == f"{LAYER}:2=2"
    doubled = expected(Intervention(LAYER, 2, "scale", 2))
    assert shares(app, "maps.changed") == pytest.approx(doubled)
    app = turn_to(app, "predict")
    assert went_well(app)
    assert chosen(app, "set") == f"{LAYER}:2=2"
    assert shares(app, "predict.bars") == pytest.approx(expected(Intervention(LAYER, 2, "scale", 2), top=5))
    app = press(app, "changes.restore")
    assert "set" not in app.query_params
    assert bar(app) == ""
    assert shares(app, "predict.bars") == pytest.approx(expected(top=5))


@pytest.mark.slow
def test_a_unit_is_held_at_this_photos_value_and_at_its_mean(open_app: Open) -> None:
    app = press(open_app("feature_maps", picture=PHOTO, layer=LAYER, channel="2"), "maps.hold")
    assert chosen(app, "set") == f"{LAYER}:2=freeze:{PHOTO}"
    assert app.slider[0].disabled
    assert "choose another photo" in words(app)
    assert shares(app, "maps.changed") == shares(app, "maps.clean") == pytest.approx(expected())
    app = press(app, "maps.mean")
    assert chosen(app, "set") == f"{LAYER}:2=mean:samples"
    assert app.slider[0].disabled
    assert "no factor applies" in words(app)
    assert "choose another photo" not in words(app)
    assert went_well(app)
    mean = expected(Intervention(LAYER, 2, "mean", "samples"))
    assert shares(app, "maps.changed") == pytest.approx(mean)
    app = press(app, "maps.undo")
    assert "set" not in app.query_params
    assert not app.slider[0].disabled
    assert "no factor applies" not in words(app)
    app = open_app("feature_maps", picture="digit 4", layer=LAYER, channel="2", set=f"{LAYER}:2=freeze:{PHOTO}")
    assert "no factor applies" in words(app)
    assert "choose another photo" not in words(app)


def test_links_carry_several_changes_and_what_does_not_fit_is_dropped_with_a_sentence(open_app: Open) -> None:
    app = open_app("predict", picture=PHOTO, set=f"{LAYER}:2,5=0;features.1:all=1.5;nowhere:3=0;{LAYER}:99=0")
    assert went_well(app)
    assert chosen(app, "set") == f"{LAYER}:2,5=0;features.1:all=1.5"
    told = sentences(app)
    assert "nowhere:3=0 was dropped" in told
    assert f"{LAYER}:99=0 was dropped" in told
    both = [Intervention(LAYER, [2, 5]), Intervention("features.1", None, "scale", 1.5)]
    assert shares(app, "predict.bars") == pytest.approx(expected(*both, top=5))
    many = ",".join(map(str, range(100, 1900, 2)))
    for text in (f"{LAYER}:{many}=0", f"{LAYER}:{many}=nonsense"):
        told = sentences(open_app("predict", picture=PHOTO, set=text))
        assert f"{LAYER}:100,102," in told
        assert "…" in told
        assert "200," not in told, "the text is cut"
    app = open_app("predict", picture=PHOTO, set="nonsense")
    assert "nonsense" in sentences(app)
    assert "set" not in app.query_params


@pytest.mark.parametrize("how", ["freeze:{}/photo.png", "mean:{}"])
def test_links_open_no_files_of_the_machine(open_app: Open, how: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "photo.png").write_bytes(to_png(np.zeros((28, 28, 3), np.uint8)))
    app = open_app("predict", picture=PHOTO, set=f"{LAYER}:2={how.format(tmp_path / 'photos')}")
    assert went_well(app)
    assert "was dropped" in sentences(app)
    assert "set" not in app.query_params


def test_maps_are_drawn_under_the_changes(open_app: Open) -> None:
    app = open_app("feature_maps", picture=PHOTO, layer=LAYER, channel="2", view="numbers", set=f"{LAYER}:2=0")
    table = app.dataframe[0].value.set_index("channel")
    assert table.loc[2, "max"] == table.loc[2, "min"] == 0
    assert np.any(table.drop(index=2)["max"] > 0)


def test_the_fader_says_of_a_unit_that_is_zero_on_the_photo_that_a_factor_changes_nothing(open_app: Open) -> None:
    network, layer = vizapp.load("vizapp/lenet5-digits"), "classifier.1"
    alive = vizapp.ask("activations", network, open_sample(PHOTO), unit=vizapp.Unit(layer, 0)).arrays["activations"] > 0
    assert 0 < alive.sum() < len(alive)
    for channel, change in ((int(alive.argmin()), "3"), (int(alive.argmax()), "3"), (int(alive.argmax()), "0")):
        text = f"{layer}:{channel}={change}"
        app = open_app("feature_maps", picture=PHOTO, layer=layer, channel=str(channel), set=text)
        assert ("zero on this photo, so a factor changes nothing" in words(app)) == (not alive[channel]), text


def test_a_silenced_unit_stays_where_it_is_among_the_strongest(open_app: Open) -> None:
    network = vizapp.load("vizapp/lenet5-digits")
    values = vizapp.ask("activations", network, open_sample(PHOTO), unit=vizapp.Unit(LAYER, 0)).arrays["activations"]
    order = sorted(range(len(values)), key=lambda channel: -values[channel].max())
    app = open_app("feature_maps", picture=PHOTO, layer=LAYER, set=f"{LAYER}:{order[0]}=0")
    assert went_well(app)
    assert [int(tag) for tag in shown(app, "maps.sheet")["tags"]] == order
    assert app.slider[0].value == 0, "the strongest unit is the chosen one, as before"
