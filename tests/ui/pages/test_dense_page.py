"""The page Dense: the map over the photo, the selected cell, scales, links, and error messages."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import vizapp
from tests.media.files import noise, saved
from tests.ui.app import Open, chosen, floats, offered, pixels, sentences, shown, went_well, words
from vizapp.media.drawing import COLOURS, GREY, heat
from vizapp.media.samples import open_sample
from vizapp.methods import dense_overlay as overlay
from vizapp.methods.base import Result

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
        1.0,
        Result("dense", arrays, table=result.table),
        "softmax",
        "abcdefghij".__getitem__,
        5,
    )
    assert set(data["tops"]["names"]) <= {"c", "f"}
    assert data["tops"]["count"] == 2


@pytest.mark.parametrize(
    ("height", "width", "zoom"),
    [(300, 400, 70 / 300), (400, 300, 70 / 300), (700, 700, 0.1), (60, 90, 70 / 60)],
    ids=["landscape", "portrait", "square", "small"],
)
def test_a_photo_is_resized_to_a_short_side_of_two_and_a_half_crops(
    open_app: Open, tmp_path: Path, height: int, width: int, zoom: float
) -> None:
    """LeNet-5 looks at 28 × 28 pixels, so the short side is 70."""
    (tmp_path / "photo.png").write_bytes(saved(noise(height, width)))
    app = open_app("dense", folder=str(tmp_path), picture="photo.png")
    assert went_well(app)
    short = round(min(height, width) * zoom)
    rows, columns = ((side - 28) // 4 + 1 for side in (round(height * zoom), round(width * zoom)))
    assert min(round(height * zoom), round(width * zoom)) == short == 70
    cells = shown(app, "dense.map")["cells"]
    assert np.abs(np.array(cells) - (rows, columns)).max() <= 1
    assert "dense.zoom" not in app.query_params
    assert app.selectbox(key="dense.zoom").value == 0.0
    app.selectbox(key="dense.zoom").set_value(1.0).run()
    assert shown(app, "dense.map")["cells"] == [(side - 28) // 4 + 1 for side in (height, width)]
    assert chosen(app, "dense.zoom") == "1.0"


def test_python_takes_the_whole_photo_at_its_own_scale() -> None:
    result = vizapp.ask("dense", vizapp.load("vizapp/lenet5-digits"), noise(60, 90))
    assert result.arrays["label"].shape == ((60 - 28) // 4 + 1, (90 - 28) // 4 + 1)


@pytest.mark.slow
def test_the_agreement_with_honest_crops_is_the_headline_and_can_be_made_exact(open_app: Open) -> None:
    """ResNet-20 pads, so a pass over the photo differs from its crops."""
    network = {"network": "vizapp/resnet20-cifar", "weights": "random"}
    app = open_app("dense", picture=PHOTO, **network, **{"dense.zoom": "0.25"})
    assert went_well(app)
    loaded = vizapp.load("vizapp/resnet20-cifar", weights="none")
    result = vizapp.ask("dense", loaded, open_sample(PHOTO), zoom=0.25)
    share = 100 * result.arrays["agrees"].mean()
    assert f"The same class as a crop classified alone at {share:.0f} % of the places" in headline(app)
    before = shown(app, "dense.map")["heat"]
    app.button(key="dense.exact").click().run()
    assert went_well(app)
    assert headline(app) == "Each place shows the class of its own crop"
    assert chosen(app, "dense.exact") == "True"
    assert shown(app, "dense.map")["heat"] != before
    app.button(key="dense.exact").click().run()
    assert shown(app, "dense.map")["heat"] == before
    app = open_app("dense", picture=PHOTO, **{"dense.zoom": "0.25"})
    assert "a crop classified alone at 100 % of the places" in headline(app)
    assert not [button for button in app.button if button.key == "dense.exact"], "LeNet-5 does not pad"


def headline(app: AppTest) -> str:
    bodies = [html.proto.body for html in app.get("html")]
    return next(body for body in bodies if "vz-headline" in body).split(">")[1].split("<")[0]


def test_other_classes_leave_the_photo_as_it_is_and_the_scale_has_a_title(open_app: Open) -> None:
    app = open_app("dense", **SMALL)
    result = answer()
    heat_ = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown(app, "dense.map")["heat"].split(",")[1]))))
    named = [row["class"] for row in result.table[:8]]
    assert ((heat_[..., 3] == 255) == np.isin(result.arrays["label"], named)).all()
    labels = {box.key: box.label for box in [*app.selectbox, *app.segmented_control]}
    wanted = {"dense.zoom": "Scale", "dense.stride": "Stride", "dense.input": "Part", "dense.tint": "Colours"}
    assert {key: labels[key] for key in wanted} == wanted
    data = shown(open_app("dense", **SMALL, tint="class"), "dense.map")
    assert data["scale"] == f"Probability of {result.table[0]['name']}", "the class with most cells"
    assert data["ends"] == ["0 %", "100 %"]
