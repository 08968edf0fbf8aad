"""The page Dense: the map over the photo, the selected cell, scales, links, and error messages."""

from __future__ import annotations

import numpy as np
import pytest

import vizapp
from tests.ui.app import Open, chosen, floats, offered, pixels, sentences, shown, went_well, words
from vizapp.media.drawing import COLOURS, GREY, heat
from vizapp.media.samples import open_sample
from vizapp.methods.base import Result
from vizapp.ui.pages.dense import overlay

PHOTO = "camera"  # 512 × 512; lenet5-digits looks at 28 × 28 of it
SMALL = {"picture": PHOTO, "dense.zoom": "0.25"}  # 128 × 128: 26 × 26 cells


def answer(**params: object) -> Result:
    network = vizapp.load("vizapp/lenet5-digits")
    return vizapp.ask("dense", network, open_sample(PHOTO), **({"zoom": 0.25} | params))


def test_the_label_map_its_legend_and_what_each_cell_says(open_app: Open) -> None:
    app = open_app("dense", **SMALL)
    assert went_well(app)
    assert not app.warning
    result, data = answer(), shown(app, "dense.map")
    label = result.arrays["label"]
    assert data["cells"] == [26, 26] == list(label.shape)
    colours = pixels(data["heat"])
    for place, row in enumerate(result.table):
        expected = COLOURS[place] if place < 8 else [GREY] * 3
        assert (colours[label == row["class"]] == expected).all()
    scores = result.arrays["scores"].astype(np.float64)
    chance = np.exp(scores) / np.exp(scores).sum(0)
    tops, order = data["tops"], np.argsort(-chance, axis=0)[:5]
    index, share = (floats(tops[name], (26, 26, 5)) for name in ("index", "share"))
    for row, column in ((0, 0), (13, 20), (25, 25)):
        assert [tops["names"][int(i)] for i in index[row, column]] == [str(c) for c in order[:, row, column]]
        np.testing.assert_allclose(share[row, column], chance[order[:, row, column], row, column], rtol=1e-4)
    assert "26 × 26 cells, 4 pixels apart" in words(app)
    assert "up to rounding" in words(app)
    assert len(offered(app)) == 3


def test_where_the_cells_and_their_crops_lie_in_the_shown_photo(open_app: Open) -> None:
    data, boxes = shown(open_app("dense", **SMALL), "dense.map"), answer().arrays["boxes"]
    assert data["size"] == [512, 512]
    for row, column in ((0, 0), (3, 25)):
        crop = [
            edge + (column, row)[side % 2 == 0] * data["crop"]["step"][side % 2]
            for side, edge in enumerate(data["crop"]["first"])
        ]
        np.testing.assert_allclose(crop, boxes[row, column], atol=1)
        top, left, bottom, right = data["extent"]
        centre = top + (row + 0.5) * (bottom - top) / 26, left + (column + 0.5) * (right - left) / 26
        np.testing.assert_allclose(centre, (boxes[row, column][:2] + boxes[row, column][2:]) / 2, atol=1)


def test_one_class_and_a_kept_cell(open_app: Open) -> None:
    app = open_app("dense", **SMALL, tint="class", place="3,7", **{"class": "8"})
    assert went_well(app)
    scores = answer().arrays["scores"].astype(np.float64)
    chance = (np.exp(scores) / np.exp(scores).sum(0))[8]
    difference = pixels(shown(app, "dense.map")["heat"]).astype(int) - heat(chance, 0, 1)
    assert np.abs(difference).max() <= 4, "one step of the colour map"
    assert shown(app, "dense.map")["cell"] == [3, 7]
    top, left, bottom, right = answer().arrays["boxes"][3, 7]
    assert (pixels(shown(app, "dense.crop")["photo"]) == open_sample(PHOTO).pixels[top:bottom, left:right]).all()
    app.button(key="dense.release").click().run()
    assert shown(app, "dense.map")["cell"] is None
    assert "place" not in app.query_params


def test_scale_stride_and_votes_are_chosen_and_carried_by_the_link(open_app: Open) -> None:
    app = open_app("dense", picture=PHOTO)
    app.selectbox(key="dense.zoom").set_value(0.25).run()
    app.selectbox(key="dense.stride").set_value("2").run()
    assert went_well(app)
    assert shown(app, "dense.map")["cells"] == [51, 51]
    assert (chosen(app, "dense.zoom"), chosen(app, "dense.stride")) == ("0.25", "2")
    app = open_app("dense", **SMALL, **{"dense.scales": "3", "dense.flips": "True"})
    assert went_well(app)
    panels = [panel for panel in answer(scales=3, flips=True).panels if panel.title.startswith("scale-")]
    for number, panel in enumerate(panels, 1):
        assert (pixels(shown(app, f"projection.dense.Scale {number}")["photo"]) == panel.pixels).all()


def test_the_crop_is_what_predict_says(open_app: Open) -> None:
    app = open_app("dense", picture=PHOTO, **{"dense.input": "crop", "dense.zoom": "0.5"})
    assert went_well(app)
    network = vizapp.load("vizapp/lenet5-digits")
    best = vizapp.ask("predict", network, open_sample(PHOTO)).table[0]
    row = shown(app, "dense.mean")["rows"][0]
    assert row["name"] == best["name"]
    assert row["share"] == pytest.approx(best["probability"], rel=1e-4)


def test_what_cannot_be_is_told_in_a_sentence(open_app: Open) -> None:
    app = open_app(
        "dense", picture=PHOTO, **{"dense.stride": "3", "dense.zoom": "0.25", "class": "99", "tint": "class"}
    )
    assert went_well(app)
    assert "no stride of 3" in sentences(app)
    assert "no map of class 99" in sentences(app)
    app = open_app("dense", picture="digit 3", **{"dense.zoom": "0.5"})
    assert went_well(app)
    assert "smaller than the 28 × 28" in sentences(app)


@pytest.mark.slow
def test_a_network_with_attention_is_refused_in_a_sentence(open_app: Open) -> None:
    app = open_app("dense", network="torchvision/vit_b_16", weights="random")
    assert went_well(app)
    assert "cannot be made convolutional" in sentences(app)


def test_a_large_map_tells_the_classes_that_are_kept() -> None:
    result = answer()
    arrays = dict(result.arrays) | {"scores": result.arrays["scores"][[2, 5]], "classes": np.array([2, 5])}
    data = overlay.data(
        open_sample(PHOTO).pixels,
        Result("dense", arrays, table=result.table),
        vizapp.load("lenet5-digits", weights="none", device="cpu", classes=list("abcdefghij")),
        "class",
        5,
        None,
    )
    assert set(data["tops"]["names"]) <= {"c", "f"}
    assert data["tops"]["count"] == 2
