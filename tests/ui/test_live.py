"""Live: frames of the camera are answered one at a time, forgotten, and one of them can become the photo."""

from __future__ import annotations

import base64
import gc
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import vizapp
from tests.ui.app import Open, click, pixels, rgba, sentences, shown, turn_to, went_well
from vizapp import methods
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.media.drawing import to_jpeg, to_png
from vizapp.media.picture import open_picture
from vizapp.media.samples import open_sample
from vizapp.media.transforms import resize
from vizapp.service.jobs import Tick
from vizapp.ui.inputs import camera, images
from vizapp.ui.session import access_log, progress, state
from vizapp.ui.widgets import live
from vizapp.zoo import class_unit

MINI, LENET = "vizapp/zfnet-mini", "vizapp/lenet5-digits"
CAMERA = "live.camera"
FIVE = ("predict", "feature_maps", "projection", "occlusion", "attribution")


@pytest.fixture(autouse=True)
def rubbish_is_looked_for_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests count all objects."""
    monkeypatch.setattr(gc, "freeze", lambda: None)


def frame(name: str = "motorcycle") -> bytes:
    return to_jpeg(resize(open_sample(name).pixels, 120, 160), 92)


def send(app: AppTest, number: int, content: bytes) -> AppTest:
    return click(app, CAMERA, "frame", {"number": number, "jpeg": uri(content)})


def on(open_app: Open, page: str, network: str = MINI, **more: str) -> AppTest:
    app = open_app(page, network=network, **more)
    assert went_well(app)
    return app.toggle(key=f"live.{page}").set_value(True).run()


@pytest.mark.parametrize("page", [*FIVE, "knockout", "dense", "about"])
def test_the_switch_is_on_five_pages(page: str, open_app: Open) -> None:
    app = open_app(page, network=LENET)
    switches = [toggle.key for toggle in app.toggle if toggle.label == "Live"]
    assert switches == ([f"live.{page}"] if page in FIVE else [])
    assert not [one for one in app.get("bidi_component") if CAMERA in one.proto.id]


def test_every_page_with_the_switch_has_a_view() -> None:
    assert set(live.VIEWS) == set(camera.PAGES) == set(FIVE)


def test_predict_answers_the_frame_as_the_method_does(open_app: Open) -> None:
    app = on(open_app, "predict")
    assert "number" not in shown(app, CAMERA)
    data = shown(send(app, 7, frame()), CAMERA)
    told = methods.ask("predict", vizapp.load(MINI, device="cpu"), picture=frame(), top=5)
    assert data["number"] == 7
    assert [bar["share"] for bar in data["bars"]] == [row["probability"] for row in told.table]
    assert data["box"][0] == pytest.approx(vizapp.load(MINI).preprocessing.view.box(120, 160)[0] / 120)


def test_the_newest_frame_wins_and_two_are_kept(open_app: Open) -> None:
    app = on(open_app, "predict", LENET)
    for number, name in enumerate(("motorcycle", "coffee", "camera"), 1):
        app = send(app, number, frame(name))
        assert shown(app, CAMERA)["number"] == number
    assert [number for number, _ in app.session_state[state.FRAMES]] == [2, 3]


def test_feature_maps_are_those_of_the_frame(open_app: Open) -> None:
    app = send(on(open_app, "feature_maps", layer="features.relu2"), 1, frame())
    network = vizapp.load(MINI, device="cpu")
    drawn = pixels(shown(app, CAMERA)["picture"]).astype(int)

    def distance(name: str) -> float:  # to the sheet of that photo, which came as a JPEG
        unit = Unit("features.relu2", 0)
        told = methods.ask("activations", network, picture=frame(name), unit=unit, order="number", scale="clipped")
        return float(np.abs(resize(told.panels[0].pixels, *drawn.shape[:2], "area").astype(int) - drawn).mean())

    assert distance("motorcycle") < 12 < distance("coffee") / 2


def test_the_projection_is_that_of_the_strongest_unit_or_of_the_chosen_one(open_app: Open) -> None:
    app = send(on(open_app, "projection", layer="features.conv3"), 1, frame())
    values = methods.ask(
        "activations", vizapp.load(MINI, device="cpu"), picture=frame(), unit=Unit("features.conv3", 0)
    ).arrays["activations"]
    best = int(values.reshape(len(values), -1).max(1).argmax())
    assert shown(app, CAMERA)["words"].startswith(f"Channel {best} of features.conv3")
    app = app.number_input(key="live.channel").set_value(3).run()
    assert shown(app, CAMERA)["words"].startswith("Channel 3 of")


@pytest.mark.parametrize("inverse", [False, True])
def test_occlusion_sweeps_coarsely_over_the_frame(open_app: Open, inverse: bool) -> None:
    app = send(on(open_app, "occlusion", LENET, **{"occlusion.inverse": str(inverse)}), 1, frame())
    network = vizapp.load(LENET, device="cpu")
    still = methods.ask("occlusion", network, picture=frame(), window=4, stride=4, inverse=inverse).arrays
    colours, data = rgba(shown(app, CAMERA)["picture"]), shown(app, CAMERA)
    lost = still["clean_probability"] - still["probability"]
    assert "49 of 49 places" in data["words"]
    assert ("Hiding all but what is red lowers it" in data["words"]) == inverse
    assert colours.shape[:2] == lost.shape
    strong = np.abs(lost) > 0.02
    assert strong.any()
    assert ((colours[..., 0] > colours[..., 2]) == (lost > 0))[strong].all()  # red where hiding lowers it
    assert data["over"] == data["box"]


@pytest.mark.slow
def test_attribution_explains_the_answer_to_the_frame_and_the_chosen_class(open_app: Open) -> None:
    network = vizapp.load(MINI, device="cpu")
    app = send(on(open_app, "attribution"), 1, frame())
    send(app, 2, frame("coffee"))
    app = send(app, 3, frame())  # the layer is known by now
    answer = int(methods.ask("predict", network, picture=frame()).table[0]["class"])
    still = methods.ask("attribution", network, picture=frame(), unit=class_unit(network, answer), kind="gradcam")
    opacity = rgba(shown(app, CAMERA)["picture"])[..., 3].astype(float)
    values = resize(still.arrays["attribution"], *opacity.shape, "area")
    assert np.abs(opacity / 255 - values / values.max()).max() < 0.01
    app = app.selectbox(key="live.kind").set_value("edges").run()
    assert shown(app, CAMERA)["words"].startswith("Edges")


def test_a_frozen_frame_is_the_photo_with_the_same_bits_and_the_same_answer(open_app: Open) -> None:
    first, second = frame("motorcycle"), frame("coffee")
    app = send(send(on(open_app, "predict"), 1, first), 2, second)
    bars = shown(app, CAMERA)["bars"]
    app = click(app, CAMERA, "freeze", 2)
    assert went_well(app)
    assert not app.toggle(key="live.predict").value
    assert [(row["name"], row["share"]) for row in shown(app, "predict.bars")["rows"]] == [
        (bar["name"], bar["share"]) for bar in bars
    ]
    kept = images.decoded_pictures().get(("given", app.session_state[state.ORIGIN][1]))
    assert kept is not None
    assert (kept.pixels == open_picture(second).pixels).all()
    assert state.FRAMES not in app.session_state


def test_the_frame_that_is_seen_is_frozen_though_a_newer_one_has_come(open_app: Open) -> None:
    app = send(send(on(open_app, "predict", LENET), 1, frame("motorcycle")), 2, frame("coffee"))
    app = click(app, CAMERA, "freeze", 1)
    kept = images.decoded_pictures().get(("given", app.session_state[state.ORIGIN][1]))
    assert kept is not None
    assert kept.digest == open_picture(frame("motorcycle")).digest


def test_frames_are_neither_stored_nor_logged(open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = on(open_app, "predict", LENET)
    logged: list[tuple[str, object]] = []
    monkeypatch.setattr(access_log, "write", lambda event, **fields: logged.append((event, fields.get("method"))))
    app = app.run()
    without, before = logged.copy(), {path for path in tmp_path.rglob("*") if path.is_file()}
    app = send(app, 1, frame())
    assert shown(app, CAMERA)["number"] == 1
    assert logged == 2 * without
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("page", ["occlusion", "attribution"])
def test_what_is_explained_on_one_photo_alone_is_refused_in_a_sentence(page: str, open_app: Open) -> None:
    app = on(open_app, page, "vizapp/shapes-detector")
    assert went_well(app)
    assert "For Live choose a cell, a box or the whole map." in sentences(app)
    assert not [one for one in app.get("bidi_component") if CAMERA in one.proto.id]


def test_a_refusal_of_a_frame_is_told_beside_the_camera(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(picture: object, tick: Tick) -> dict[str, Any]:
        raise VizError("No map for this frame.", code="not-finite")

    monkeypatch.setitem(live.VIEWS, "predict", ("", lambda network, site: refuses))
    app = send(on(open_app, "predict", LENET), 1, frame())
    assert went_well(app)
    assert shown(app, CAMERA)["refused"] == "No map for this frame."


def uri(content: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


STRANGE = [
    None, 3, {"number": "x", "jpeg": ""}, {"number": 1, "jpeg": 5}, {"number": 1, "jpeg": "a,%"},
    {"number": 1, "jpeg": uri(to_png(np.zeros((8, 8, 3), np.uint8)))},
    {"number": 1, "jpeg": uri(to_jpeg(np.zeros((8000, 8000, 3), np.uint8)))},
]  # fmt: skip


@pytest.mark.parametrize("sent", STRANGE)
def test_what_no_camera_sends_is_ignored(sent: Any, open_app: Open) -> None:
    app = click(on(open_app, "predict", LENET), CAMERA, "frame", sent)
    assert went_well(app)
    assert "number" not in shown(app, CAMERA)


def test_a_frame_that_is_no_picture_is_refused(open_app: Open) -> None:
    app = send(on(open_app, "predict", LENET), 1, frame()[:40])
    assert went_well(app)
    assert shown(app, CAMERA)["refused"]


def test_a_network_that_is_too_slow_switches_it_off(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def slow(picture: object, tick: Tick) -> dict[str, Any]:
        try:
            while True:
                time.sleep(0.02)
                tick(0.5)
        finally:
            ended.set()

    monkeypatch.setattr(camera, "PATIENCE", 0.2)
    monkeypatch.setitem(live.VIEWS, "predict", ("", lambda network, site: slow))
    app = send(on(open_app, "predict", LENET), 1, frame())
    assert "takes longer than" in sentences(app)
    assert not app.toggle(key="live.predict").value
    assert ended.wait(5)


def test_another_page_switches_it_off(open_app: Open) -> None:
    app = turn_to(send(on(open_app, "predict", LENET), 1, frame()), "attribution")
    assert not app.toggle(key="live.attribution").value
    app = turn_to(app, "predict")
    assert not app.toggle(key="live.predict").value
    assert state.FRAMES not in app.session_state


def test_a_frame_waits_for_its_turn_on_the_device(open_app: Open) -> None:
    app, runner, begun, free = (
        on(open_app, "predict", LENET),
        progress.job_runner(),
        threading.Event(),
        threading.Event(),
    )
    freed: list[float] = []

    def work(report: Any) -> None:
        begun.set()
        free.wait(10)
        freed.append(time.monotonic())

    def release() -> None:
        time.sleep(0.8)
        free.set()

    with runner.waiting(("of another",), work, "cpu", "another"):
        assert begun.wait(5)
        threading.Thread(target=release).start()
        app = send(app, 1, frame())
    assert freed
    assert shown(app, CAMERA)["number"] == 1
    assert time.monotonic() >= freed[0]
