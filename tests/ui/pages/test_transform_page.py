"""The page Transform: the photo with its slider, the curves, links, several photos, a second network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import vizapp
from tests.media.files import noise, saved
from tests.ui.app import Open, chosen, click, offered, pixels, press, sentences, shown, went_well, words
from vizapp.media.distortions import resized_photo
from vizapp.media.samples import open_sample
from vizapp.methods.base import Result
from vizapp.ui.pages.transform.curve_runs import coarse_to_fine

PHOTO = "digit 3"
pytestmark = pytest.mark.usefixtures("patient")


def answer(**params: object) -> Result:
    return vizapp.ask("transform", vizapp.load("vizapp/lenet5-digits"), open_sample(PHOTO), **params)


def lines(app: AppTest, key: str) -> list[dict[str, Any]]:
    """The lines of a chart, with their numbers."""
    chart = next(e for e in app.get("plotly_chart") if key in e.proto.id)
    figure = json.loads(chart.proto.spec)
    for line in figure["data"]:
        line["x"], line["y"] = (
            np.array(line[axis] if isinstance(line[axis], list) else values(line[axis])) for axis in "xy"
        )
    return figure["data"]


def values(packed: dict[str, str]) -> np.ndarray:
    import base64

    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])


def headline(app: AppTest) -> str:
    bodies = [html.proto.body for html in app.get("html")]
    return next(body for body in bodies if "vz-headline" in body).split(">")[1].split("<")[0]


def test_the_charts_and_the_photo_show_what_the_method_answers(open_app: Open) -> None:
    app = open_app("transform", picture=PHOTO)
    assert went_well(app)
    assert not app.warning
    result = answer()
    distances, shares = (lines(app, f"transform.{name}") for name in ("distances", "probabilities"))
    assert len(distances) == len(result.arrays["distance"])
    for line, expected in zip(distances, result.arrays["distance"], strict=True):
        assert np.array_equal(line["x"], result.arrays["amounts"])
        np.testing.assert_allclose(line["y"], expected, atol=1e-5)
    top = np.argsort(-result.arrays["probability"][0])[:3]
    for line, number in zip(shares, top, strict=True):
        np.testing.assert_allclose(line["y"], result.arrays["probability"][:, number], atol=1e-5)
    data = shown(app, "transform.frames")
    assert (len(data["frames"]), data["at"], data["ticks"][2]) == (72, 0, "10°")
    photo = resized_photo(vizapp.load("vizapp/lenet5-digits").preprocessing.view, open_sample(PHOTO).pixels)
    for number in (0, 18, 40):
        drawn = pixels(data["frames"][number]).astype(int)
        assert np.abs(drawn - photo.transformed("rotate", 5 * number)).mean() < 4, "JPEG"
        assert data["answers"][number][0][1] == pytest.approx(result.arrays["probability"][number].max(), abs=1e-4)
    worst = int(result.arrays["probability"][:, top[0]].argmin())
    assert f"at {5 * worst}°, at worst" in headline(app)
    assert len(offered(app)) == 7


def test_the_slider_and_a_click_on_a_curve_choose_the_amount_in_the_link(open_app: Open) -> None:
    app = open_app("transform", picture=PHOTO)
    click(app, "transform.frames", "frame", 9)
    assert chosen(app, "amount") == "45.0"
    assert "at 45°" in headline(app)
    assert shown(app, "transform.frames")["at"] == 9
    again = open_app("transform", picture=PHOTO, amount="91")
    assert shown(again, "transform.frames")["at"] == 18, "the nearest there is"
    assert "91° is not among the amounts. Showing the nearest, 90°." in sentences(again)
    assert chosen(again, "amount") == "90.0"
    assert not again.run().warning
    chart = next(e for e in app.get("plotly_chart") if "transform.distances" in e.proto.id)
    states = app._tree.get_widget_states()
    picked = json.dumps(
        {"selection": {"points": [{"x": 121.4, "y": 0.5}], "point_indices": [24], "box": [], "lasso": []}}
    )
    states.widgets.add(id=chart.proto.id, string_value=picked)
    app._run(states)
    assert went_well(app)
    assert chosen(app, "amount") == "120.0"
    assert not app.warning


def test_the_headline_says_that_the_answer_changes(open_app: Open) -> None:
    result, name = answer(), vizapp.load("vizapp/lenet5-digits").readable_name
    labels, shares = result.arrays["label"].tolist(), result.arrays["probability"]
    own = labels[0]
    same, other = (next(n for n in range(1, 72) if (labels[n] == own) is kept) for kept in (True, False))
    for number, end in ((same, ""), (other, f"; the answer becomes {name(labels[other])}")):
        app = open_app("transform", picture=PHOTO, amount=str(5 * number))
        change = f"{100 * shares[0, own]:.1f} % → {100 * shares[number, own]:.1f} %"
        assert headline(app) == f"{name(own)}: {change} at {5 * number}°{end}"


def test_another_kind_resets_the_amounts(open_app: Open) -> None:
    app = open_app("transform", picture=PHOTO, amount="45", **{"transform.amounts": "0,45,90"})
    assert shown(app, "transform.frames")["ticks"] == ["0°", "45°", "90°"]
    app.segmented_control(key="transform.kind").set_value("blur").run()
    assert went_well(app)
    assert "amount" not in app.query_params
    assert "transform.amounts" not in app.query_params
    data = shown(app, "transform.frames")
    assert data["ticks"] == [f"severity {n}" for n in range(6)]
    expected = answer(kind="blur").arrays["distance"]
    np.testing.assert_allclose([line["y"] for line in lines(app, "transform.distances")], expected, atol=1e-5)


def test_layers_and_edge_of_a_link_are_taken(open_app: Open) -> None:
    options = {"transform.kind": "shift-x", "transform.edge": "repeat", "transform.sites": "features.1"}
    app = open_app("transform", picture=PHOTO, **options)
    assert went_well(app)
    (line,) = lines(app, "transform.distances")
    result = answer(kind="shift-x", edge="repeat", sites="features.1")
    np.testing.assert_allclose(line["y"], result.arrays["distance"][0], atol=1e-5)
    assert "outermost pixels, repeated" in words(app)
    assert "layers features.1" in words(app)
    app.multiselect(key="transform.sites").set_value(["features.0", "features.1"]).run()
    assert went_well(app)
    assert [line["name"] for line in lines(app, "transform.distances")] == ["features.0", "features.1"]
    assert chosen(app, "transform.sites") == "features.0,features.1"


def test_curves_are_those_of_the_changed_network(open_app: Open) -> None:
    app = open_app("transform", picture=PHOTO, set="features.1:0=0", **{"transform.kind": "blur"})
    assert went_well(app)
    silenced = answer(kind="blur", interventions=[vizapp.Intervention("features.1", [0], "scale", 0.0)])
    drawn = [line["y"] for line in lines(app, "transform.distances")]
    np.testing.assert_allclose(drawn, silenced.arrays["distance"], atol=1e-5)
    assert np.abs(silenced.arrays["distance"] - answer(kind="blur").arrays["distance"]).max() > 1e-3


def test_what_the_network_does_not_have_is_told_and_reset(open_app: Open) -> None:
    app = open_app("transform", picture=PHOTO, **{"transform.sites": "nothing", "transform.amounts": "0,9999"})
    assert went_well(app)
    assert "nothing" in sentences(app)
    assert "-360 to 360" in sentences(app)
    assert len(lines(app, "transform.distances")) == len(answer(amounts=[0]).arrays["distance"])


def test_a_second_network_has_dashed_lines_on_the_same_axis(open_app: Open) -> None:
    other = {"network2": "vizapp/zfnet-mini", "weights2": "random"}
    app = open_app("transform", picture=PHOTO, **other, **{"transform.kind": "shift-x"})
    assert went_well(app)
    drawn = lines(app, "transform.distances")
    solid, dashed = ([line for line in drawn if line["line"]["dash"] == dash] for dash in ("solid", "dash"))
    assert len(solid) == len(answer(amounts=[0]).arrays["distance"])
    assert len(dashed) == 3
    assert solid[0]["x"].max() == pytest.approx(dashed[0]["x"].max())
    assert "zfnet-mini" in dashed[0]["name"]


def test_several_photos_give_thin_lines_and_their_mean(open_app: Open, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(saved(noise(40, 30, seed=number)))
    app = open_app("transform", several="on", photos=str(tmp_path), **{"transform.kind": "noise"})
    assert went_well(app)
    assert not app.get("plotly_chart")
    app = press(app, "transform.several.run")
    assert went_well(app)
    result = vizapp.ask("transform", vizapp.load("vizapp/lenet5-digits"), folder=str(tmp_path), kind="noise")
    drawn = lines(app, "transform.distances")
    thick = [line for line in drawn if line["opacity"] == 1]
    np.testing.assert_allclose([line["y"] for line in thick], result.arrays["distance"], atol=1e-5)
    thin = [line["y"] for line in drawn if line["opacity"] < 1]
    np.testing.assert_allclose(thin[:3], result.arrays["distance_each"][:, 0], atol=1e-5)
    mean = next(line for line in lines(app, "transform.probabilities") if line["name"] == "mean")
    np.testing.assert_allclose(mean["y"], [row["probability"] for row in result.table], atol=1e-5)
    assert offered(app) == ["Photos PNG", "Arrays NPZ", "Table CSV"]


def test_photos_that_are_missing_are_told_with_their_time(open_app: Open, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(saved(noise(40, 30, seed=number)))
    several = {"photos": str(tmp_path), "transform.kind": "blur"}
    app = open_app("transform", folder=str(tmp_path), picture="1.png", **several)
    assert went_well(app)
    app.segmented_control(key="transform.several").set_value("on").run()
    assert app.button(key="transform.several.run").label == "Run 2 more photos"
    assert "12 pictures to compute, about 1 s." in words(app)
    assert "1 of 3 photos so far." in words(app)
    app = press(app, "transform.several.run")
    assert went_well(app)
    assert "so far" not in words(app)


def test_curves_come_from_coarse_to_fine_and_each_amount_once() -> None:
    for count, clean in ((72, 0), (31, 15), (19, 0), (6, 0)):
        groups = coarse_to_fine(count, clean)
        assert sorted(np.concatenate(groups).tolist()) == list(range(count))
        assert clean in groups[0]
    assert coarse_to_fine(72, 0)[0].tolist() == list(range(0, 72, 6))
