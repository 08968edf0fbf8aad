"""The page Predict: the crops framed on the photo, the map of the part that mattered, and the class that it explains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vizapp
from tests.ui.app import Open, chosen, click, offered, rgba, sentences, shown, turn_to, went_well, words
from vizapp.media.samples import open_sample
from vizapp.methods.base import Result
from vizapp.ui.pages.predict import classes as predict

FITS = {"network": "vizapp/resnet20-cifar", "weights": "random", "picture": "rocket"}  # its head averages over cells


def gradcam(class_: int) -> np.ndarray:
    """Grad-CAM of ResNet-20 on the rocket: its last maps, weighted by the last layer, as they are only averaged between."""
    network = vizapp.load("vizapp/resnet20-cifar", weights="none")
    made: list[torch.Tensor] = []
    hooks = [
        m.register_forward_hook(lambda module, given, output: made.append(output)) for m in network.module.modules()
    ]
    network.module(network.prepare(open_sample("rocket")))
    for hook in hooks:
        hook.remove()
    maps = next(one for one in reversed(made) if one.ndim == 4 and one.shape[2] > 1)[0]  # [C h w]
    head = next(m for m in network.module.modules() if isinstance(m, torch.nn.Linear))
    heat = (head.weight[class_][:, None, None] * maps).sum(0).relu()
    return torch.nn.functional.interpolate(heat[None, None], (32, 32), mode="bilinear")[0, 0].numpy()


def test_the_map_lies_on_the_framed_crop_of_the_photo(open_app: Open) -> None:
    app = open_app(**FITS)
    assert went_well(app)
    data, picture = shown(app, "predict.seen"), open_sample("rocket")  # 640 × 427, resized to 47 × 32
    (frame,) = data["frames"]
    assert frame == pytest.approx([0, 8 * 640 / 47, 427, 40 * 640 / 47], abs=0.1)
    assert data["extent"] == pytest.approx(frame, abs=0.1)
    assert data["size"] == [picture.height, picture.width]
    top = int(shown(app, "predict.bars")["chosen"])
    expected = gradcam(top)
    assert expected.max() > 0
    np.testing.assert_allclose(rgba(data["heat"])[..., 3], 255 * expected / expected.max(), atol=2)
    assert "Grad-CAM (Selvaraju et al. 2017)" in words(app).replace("[", "").replace(
        "](https://arxiv.org/abs/1610.02391)", ""
    )
    assert data["ends"] == ["none", "most"]
    assert len(offered(app)) == 3


def test_a_click_on_a_bar_shows_the_map_of_its_class_and_the_address_carries_it(open_app: Open) -> None:
    app = open_app(**FITS)
    bars = shown(app, "predict.bars")
    second = bars["rows"][1]
    before = shown(app, "predict.seen")["heat"]
    app = click(app, "predict.bars", "item", second["item"])
    assert went_well(app)
    assert shown(app, "predict.bars")["chosen"] == second["item"]
    assert chosen(app, "class") == str(second["item"])
    assert second["name"] in shown(app, "predict.seen")["scale"]
    assert shown(app, "predict.seen")["heat"] != before
    link = app.get("page_link")[0].proto
    assert (link.page, link.label) == ("occlusion", "Check it by hiding parts")
    assert f"class={second['item']}" in link.query_string
    assert shown(turn_to(app, "occlusion"), "occlusion.panels")["groups"]
    app.switch_page("vizapp/ui/pages/predict/page.py").run()
    app = click(app, "predict.bars", "item", bars["rows"][0]["item"])
    assert "class" not in app.query_params, "the most probable one, of other photos as well"


def test_a_class_beyond_the_shown_ones_has_a_bar_and_one_that_is_none_is_told(open_app: Open) -> None:
    app = open_app(**FITS, top="1", **{"class": "7"})
    rows = shown(app, "predict.bars")["rows"]
    assert rows[-1]["item"] == 7
    result = vizapp.ask("predict", vizapp.load(FITS["network"], weights="none"), open_sample("rocket"))
    assert rows[-1]["share"] == pytest.approx(float(result.arrays["probabilities"][7]))
    app = open_app(**FITS, **{"class": "77"})
    assert went_well(app)
    assert "no class 77" in sentences(app)
    assert shown(app, "predict.bars")["chosen"] == shown(app, "predict.bars")["rows"][0]["item"]


def test_a_sentence_says_where_grad_cam_is_rough(open_app: Open) -> None:
    """Fully connected layers above LeNet's maps read each place in their own way."""
    app = open_app(picture="digit 3")
    assert went_well(app)
    assert "heat" in shown(app, "predict.seen")
    assert "of the gradient is lost" in words(app)
    assert "rough" not in words(open_app(**FITS)), "an average and one layer: nothing is lost"


@pytest.mark.parametrize(("crops", "frames"), [("one", 1), ("ten", 3), ("multi", 13)])
def test_every_crop_is_framed_on_the_photo_and_shown_with_its_class(open_app: Open, crops: str, frames: int) -> None:
    app = open_app(picture="rocket", crops=crops)
    assert went_well(app)
    # At the first scale the photo is as high as a crop, so that upper and lower corners are the same.
    assert len(shown(app, "predict.seen")["frames"]) == frames
    sheet = shown(app, "predict.crops.sheet")
    result = vizapp.ask("predict", vizapp.load("vizapp/lenet5-digits"), open_sample("rocket"), crops=crops)
    best = result.arrays["crop_probabilities"].argmax(1)
    assert [detail.split()[0] for detail in sheet["details"]] == [str(number) for number in best]
    assert app.number_input(key="predict.top").label == "Classes shown"


@pytest.mark.parametrize(
    ("value", "why"), [(0, "no part of the photo raises its score"), (np.nan, "not all values are finite")]
)
def test_a_sentence_says_why_there_is_no_map(monkeypatch: pytest.MonkeyPatch, value: float, why: str) -> None:
    result = Result(
        "attribution", {"attribution": np.full((4, 4), value, np.float32)}, facts={"layer": "relu1", "note": "…"}
    )
    monkeypatch.setattr(predict.compute, "compute", lambda *_, **__: result)
    told = predict._gradcam(vizapp.load("vizapp/lenet5-digits"), open_sample("digit 3"), 0)
    assert told == f"In Grad-CAM at the layer relu1, {why}."


@pytest.mark.parametrize(("class_", "marked"), [("5", ["3"]), (None, ["3"])])
def test_the_right_class_of_a_photo_in_a_folder_is_marked_whatever_is_chosen(
    open_app: Open, class_: str | None, marked: list[str]
) -> None:
    app = open_app(folder="digits", picture="3/0003.png", top="1", **({} if class_ is None else {"class": class_}))
    assert went_well(app)
    rows = shown(app, "predict.bars")["rows"]
    assert [row["name"] for row in rows if row.get("mark")] == marked
    assert not any(row.get("mark") for row in shown(open_app(picture="digit 3"), "predict.bars")["rows"])


def test_boxes_have_their_class_and_score_on_the_photo(open_app: Open) -> None:
    app = open_app(network="vizapp/shapes-detector", picture="shapes 1")
    assert went_well(app)
    network = vizapp.load("vizapp/shapes-detector")
    found, names = vizapp.ask("predict", network, picture=open_sample("shapes 1")).arrays, network.categories
    told = [f"{names[n]} {100 * score:.0f} %" for n, score in zip(found["labels"], found["scores"], strict=True)]
    count = int((found["scores"] >= 0.5).sum())
    data = shown(app, "predict.boxes")
    assert count > 1
    assert data["tag"] == told[0]  # of the one that is explained, whose box is the field
    assert data["tags"] == told[1:count]
    assert data["frames"][: len(data["tags"])] == [pytest.approx(box) for box in found["boxes"][1:count].tolist()]


def test_a_detection_below_the_least_score_is_framed_when_it_is_explained(open_app: Open) -> None:
    app = open_app(network="vizapp/shapes-detector", picture="shapes 1", threshold="99")
    assert went_well(app)
    found = vizapp.ask("predict", vizapp.load("vizapp/shapes-detector"), picture=open_sample("shapes 1")).arrays
    best = found["scores"].max()
    assert best < 0.99
    data = shown(app, "predict.boxes")
    assert data["field"] == pytest.approx(found["boxes"][0].tolist())
    assert not data["frames"]
    assert "Click" not in data["hint"]
    said = words(app)
    assert f"the best of {len(found['scores'])} has {100 * best:.1f} %. The framed one is explained." in said
    assert "0 detections" not in said
