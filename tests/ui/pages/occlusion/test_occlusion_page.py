"""The page Occlusion: maps, links, other classes without a new sweep, long and abandoned sweeps, masks."""

from __future__ import annotations

import base64
import io
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import vizapp
from tests.ui.app import Open, chosen, container_of, map_values, offered, sentences, shown, went_well, words
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.media.samples import open_sample
from vizapp.methods.base import Question
from vizapp.methods.occlusion import panel_data
from vizapp.methods.occlusion.mask import hide
from vizapp.methods.occlusion.occluder import per_pixel
from vizapp.methods.occlusion.sweep import Occlusion, OcclusionParams
from vizapp.service.lru_cache import ByteBoundedCache
from vizapp.ui.inputs import images, stored_uploads
from vizapp.ui.pages.occlusion import map_panels, mask_editor, page, sweep_runs
from vizapp.ui.pages.occlusion.exports import table_of
from vizapp.ui.session import compute, progress, state
from vizapp.zoo.network import Network

DIGIT = "digit 3"
QUICK = {"window": "7", "stride": "4"}  # 49 positions


def groups(app: AppTest) -> list[dict[str, Any]]:
    return shown(app, "occlusion.panels")["groups"]


def values(app: AppTest, letter: str, group: int = 0) -> np.ndarray:
    return map_values(groups(app)[group], letter)


def slow_scores() -> Any:
    """`Network.scores` that takes 4 ms more."""
    scores = Network.scores

    def slow(self: Any, batch: Any) -> Any:
        time.sleep(0.004)
        return scores(self, batch)

    return slow


def answer(**params: Any) -> dict[str, np.ndarray]:
    """What the method says, asked from Python."""
    network = vizapp.load("vizapp/lenet5-digits")
    return vizapp.ask("occlusion", network, picture=open_sample(DIGIT), **params).arrays


def test_all_maps_of_one_sweep_are_shown_without_pressing_anything(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT)
    assert went_well(app)
    assert not app.warning
    arrays = answer()
    np.testing.assert_allclose(values(app, "b"), arrays["activation"], rtol=1e-4)
    np.testing.assert_allclose(values(app, "d"), arrays["probability"], atol=1e-5)
    assert (values(app, "e") == arrays["label"]).all()
    group = groups(app)[0]
    assert [one["letter"] for one in group["maps"]] == ["(b)", "(c)", "(d)", "(e)"]
    assert all(one["picture"].startswith("data:image/png") for one in group["maps"])
    assert [group["tops"], group["lefts"]] == [
        arrays["positions"][:, 0, 0].tolist(),
        arrays["positions"][0, :, 1].tolist(),
    ]
    assert {row["name"] for row in group["legend"]} == {str(label) for label in np.unique(arrays["label"])} | {"3"}
    assert "What it does not show" in " ".join(html.proto.body for html in app.get("html"))
    assert len(offered(app)) == 9


def headlines(app: AppTest) -> list[str]:
    return [
        html.proto.body[25:-6] for html in app.get("html") if html.proto.body.startswith('<div class="vz-headline">')
    ]


def large(app: AppTest, number: int = 0) -> dict[str, Any]:
    """The large map over the photo."""
    return shown(app, f"occlusion.large.{number}")["groups"][0]


def test_the_large_map_marks_where_hiding_hurts_most_and_a_headline_says_it(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT, **QUICK)
    arrays = answer(window=7, stride=4)
    lost = float(arrays["clean_probability"]) - arrays["probability"]
    group = large(app)
    assert group["cell"] == list(np.unravel_index(lost.argmax(), lost.shape))
    clean, lowest = 100 * float(arrays["clean_probability"]), 100 * float(arrays["probability"].min())
    assert headlines(app) == [f"Hiding the marked square: “3” {clean:.0f} % → {lowest:.0f} %"]
    (one,) = group["maps"]
    colours = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["picture"].split(",")[1])))).astype(int)
    assert colours.shape == (7, 7, 4)
    scale = max(0.1, np.abs(lost).max())
    assert one["ends"] == [f"+{100 * scale:.0f} points", f"−{100 * scale:.0f} points"]
    assert (colours[lost > 0.01][:, 0] > colours[lost > 0.01][:, 2]).all(), "red: hiding hurts"
    assert (colours[lost < -0.001][:, 2] > colours[lost < -0.001][:, 0]).all(), "blue: hiding helps"
    assert (np.diff(colours[..., 3].ravel()[np.abs(lost).ravel().argsort()]) >= 0).all(), (
        "the more opaque the more it matters"
    )
    assert shown(app, "occlusion.position.0")["field"] == arrays["positions"][tuple(group["cell"])].tolist()


@pytest.mark.parametrize("view", ["logit", "pixels"])
def test_colours_of_logits_and_pixels_have_a_smallest_scale(open_app: Open, view: str) -> None:
    app = open_app("occlusion", picture=DIGIT, shown=view, window="1", stride="9", **{"occlusion.fill": "noise"})
    (one,) = large(app)["maps"]
    arrays = answer(window=1, stride=9, fill="noise")
    assert np.abs(float(arrays["clean_logit"]) - arrays["logit"]).max() < 1
    assert (
        one["ends"] == ["+1 logits", "−1 logits"]
        if view == "logit"
        else ["+1 logits on average", "−1 logits on average"]
    )


def test_a_square_that_changes_nothing_is_not_made_dramatic(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT, window="1", stride="9", **{"occlusion.fill": "black"})
    (one,) = large(app)["maps"]
    arrays = answer(window=1, stride=9, fill="black")
    assert np.ptp(arrays["probability"]) < 0.005
    assert one["ends"] == ["+10 points", "−10 points"]
    assert headlines(app)[0].startswith("No square of this size matters much: “3” ")


def test_a_chosen_position_and_an_inverse_square_have_their_own_headline(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT, position="3,2", **QUICK)
    clean, here = (
        100 * float(v) for v in (answer()["clean_probability"], answer(window=7, stride=4)["probability"][3, 2])
    )
    assert headlines(app)[0] in [
        f"Hiding this square: “3” {clean:.{digits}f} % → {here:.{digits}f} %" for digits in (0, 1)
    ]
    app = open_app("occlusion", picture=DIGIT, **QUICK, **{"occlusion.inverse": "True"})
    arrays = answer(window=7, stride=4, inverse=True)
    assert headlines(app)[0].startswith("Showing only the marked square: “3” ")
    best = np.unravel_index(arrays["probability"].argmax(), arrays["probability"].shape)
    assert large(app)["cell"] == list(best)
    assert large(app)["maps"][0]["words"][2] == "less than unhidden"


def test_the_first_view_of_a_slow_network_is_coarse_and_gets_finer_on_request(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_runs, "FIRST", 0.0)
    monkeypatch.setattr(sweep_runs, "QUICK", 1000.0)
    app = open_app("occlusion", picture=DIGIT)
    assert went_well(app)
    assert chosen(app, "stride") == "4"  # four times the usual stride of an input of 28 pixels
    assert app.number_input(key="occlusion.stride").value == 4
    np.testing.assert_allclose(values(app, "d"), answer(window=4, stride=4)["probability"], atol=1e-5)
    assert "7 × 7 positions, one every 4 pixels. One every 2 pixels takes about" in words(app)
    monkeypatch.setattr(sweep_runs, "QUICK", 0.0)  # it starts although it is long
    app.button(key="occlusion.finer").click().run()
    assert went_well(app)
    assert chosen(app, "stride") == "2"
    np.testing.assert_allclose(values(app, "d"), answer(window=4, stride=2)["probability"], atol=1e-5)


def test_the_stride_of_the_first_view_follows_from_the_measured_pace(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A position takes 5 ms: 784 do not fit into 2.5 s, 196 do."""
    answered = Sweep.answer

    def slow(self: Sweep, places: Any, channel: Any = None) -> Any:
        time.sleep(0.005 * len(places))
        return answered(self, places, channel)

    monkeypatch.setattr(Sweep, "answer", slow)
    monkeypatch.setattr(sweep_runs, "FIRST", 2.5)
    monkeypatch.setattr(Network, "scores", slow_scores())
    app = open_app("occlusion", picture=DIGIT)
    assert chosen(app, "stride") == "2"


def test_the_stride_of_the_first_view_follows_from_the_whole_coarse_sweep_and_not_from_its_first_positions(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first four positions take no time, the others 20 ms: 196 of them do not fit into a second."""
    answered, done = Sweep.answer, 0

    def slow(self: Sweep, places: Any, channel: Any = None) -> Any:
        nonlocal done
        time.sleep(0.02 * len(places) if done >= 4 else 0)
        done += len(places)
        return answered(self, places, channel)

    monkeypatch.setattr(Sweep, "answer", slow)
    monkeypatch.setattr(sweep_runs, "FIRST", 1.0)
    monkeypatch.setattr(Network, "scores", slow_scores())
    app = open_app("occlusion", picture=DIGIT)
    assert chosen(app, "stride") == "4"
    assert groups(app)[0]["grid"] == [7, 7]
    assert done < 2 * 49, "the sweep that was measured is the one that is shown"


def test_a_link_with_a_position_keeps_the_usual_stride(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_runs, "FIRST", 0.0)
    app = open_app("occlusion", picture=DIGIT, position="20,20")
    assert "stride" not in app.query_params
    assert groups(app)[0]["grid"] == [28, 28]
    assert large(app)["cell"] == [20, 20]


def test_a_link_reopens_the_square_the_map_the_class_and_the_position(open_app: Open) -> None:
    address = {
        "picture": DIGIT, "window": "6", "stride": "3", "map": "3", "class": "8", "shown": "pixels", "position": "2,5",
        "occlusion.fill": "#ff8800", "occlusion.inverse": "True", "occlusion.width": "4", "occlusion.site": "features.3",
    }  # fmt: skip
    app = open_app("occlusion", **address)
    assert went_well(app)
    assert not app.warning
    assert {name: chosen(app, name) for name in address} == address
    assert app.number_input(key="occlusion.window").value == 6
    assert app.selectbox(key="occlusion.fill").value == "colour"
    assert app.toggle(key="occlusion.inverse").value is True
    assert app.selectbox(key="occlusion.class").value == 8
    arrays = answer(
        unit=vizapp.Unit("features.3", 3), window=6, stride=3, width=4, fill="#ff8800", inverse=True, site="features.3"
    )
    group = groups(app)[0]
    assert group["cell"] == [2, 5]
    assert group["square"] == [6, 4]
    assert group["fill"] == "rgb(255 136 0)"
    np.testing.assert_allclose(values(app, "b"), arrays["activation"], rtol=1e-4)
    drop = arrays["clean_logits"][8] - arrays["logits"][..., 8]
    np.testing.assert_allclose(values(app, "d"), per_pixel(drop, arrays["positions"], (28, 28)), atol=1e-4)


def test_another_class_and_another_view_need_no_new_sweep(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, asked = answer(window=7, stride=4), []
    answered = Sweep.answer

    def counted(self: Sweep, places: Any, channel: Any = None) -> Any:
        asked.append(len(places))
        return answered(self, places, channel)

    monkeypatch.setattr(Sweep, "answer", counted)
    app = open_app("occlusion", picture=DIGIT, **QUICK)
    before = len(asked)
    assert sum(asked) >= 49
    app.selectbox(key="occlusion.class").set_value(8).run()
    assert went_well(app)
    assert chosen(app, "class") == "8"
    np.testing.assert_allclose(values(app, "d"), expected["probabilities"][..., 8], atol=1e-5)
    app.segmented_control(key="occlusion.shown").set_value("logit").run()
    np.testing.assert_allclose(values(app, "d"), expected["logits"][..., 8], atol=1e-4)
    app.segmented_control(key="occlusion.shown").set_value("pixels").run()
    assert values(app, "d").shape == (28, 28)
    assert len(asked) == before


def test_a_position_shows_that_occluded_picture_and_its_answer(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT, position="3,2", **QUICK)
    assert went_well(app)
    network = vizapp.load("vizapp/lenet5-digits")
    work = Occlusion(Question(network, open_sample(DIGIT)), OcclusionParams(window=7, stride=4))
    data = shown(app, "occlusion.position.0")
    png = Image.open(io.BytesIO(base64.b64decode(data["photo"].split(",")[1]))).convert("RGB")
    pixels = np.asarray(png)
    assert (pixels == work.shown(3, 2)).all()
    assert data["field"] == work.positions.boxes[3, 2].tolist()
    expected = network.scores(network.batch([work.shown(3, 2)])).softmax(1)[0]
    rows = shown(app, "occlusion.bars.0")["rows"]
    assert len(rows) == 5
    assert rows[0]["name"] == str(int(expected.argmax()))
    assert rows[0]["share"] == pytest.approx(float(expected.max()), abs=1e-5)
    app.button(key="occlusion.lowest").click().run()
    assert "position" not in app.query_params
    assert "least probable" in words(app)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ({"window": "300"}, "The square is 300 pixels high and the network sees 28"),
        ({"occlusion.width": "40", **QUICK}, "40 pixels wide"),
        ({"position": "30,0", **QUICK}, "positions 0,0 to 6,6, not 30,0"),
        ({"class": "10", **QUICK}, "no class 10: vizapp/lenet5-digits has 10 classes"),
        ({"map": "16", **QUICK}, "channels 0 to 15, not 16"),
        ({"occlusion.site": "features.33", **QUICK}, "has no layer"),
        ({"occlusion.site": "classifier.0", **QUICK}, "has no feature map"),
        ({"occlusion.fill": "purple", **QUICK}, "fill is 'purple'"),
        ({"stride": "0"}, "choice of stride was ignored"),
        ({"network2": "vizapp/lenet6"}, "no network2"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(open_app: Open, address: dict[str, str], told: str) -> None:
    app = open_app("predict", **{"network": "vizapp/lenet5-digits"} | address)
    found = sentences(app)
    app.switch_page("vizapp/ui/pages/occlusion/page.py").run()
    assert went_well(app)
    assert told in found + sentences(app)


def test_a_link_to_a_class_that_the_network_does_not_have_says_so(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT, **{"class": "10"}, **QUICK)
    assert "no map of class 10: the network has classes 0 to 9" in sentences(app)
    app.run()
    assert "class" not in app.query_params


def test_a_long_sweep_shows_coarse_maps_and_waits_for_a_button(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_runs, "QUICK", 0.0)
    app = open_app("occlusion", picture=DIGIT)
    assert went_well(app)
    assert "49 of 784 positions so far" in words(app)
    coarse, fine = values(app, "d"), answer()["probability"]
    assert (np.abs(coarse[2::4, 2::4] - fine[2::4, 2::4]) < 1e-5).all()
    assert np.abs(coarse - fine).mean() < 0.1
    assert len(np.unique(coarse)) <= 49
    assert not offered(app)
    app.button(key="occlusion.run").click().run()
    assert went_well(app)
    np.testing.assert_allclose(values(app, "d"), fine, atol=1e-5)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Sweeps do not come beyond their coarse maps until the event is set."""
    event, run = threading.Event(), Occlusion.run

    def slowly(self: Occlusion) -> Iterator[float]:
        for share in run(self):
            yield share
            while not event.is_set():
                time.sleep(0.02)
                yield share

    monkeypatch.setattr(Occlusion, "run", slowly)
    monkeypatch.setattr(progress, "QUIET", 0.3)
    monkeypatch.setattr(sweep_runs, "COARSE", 0.0)  # planning does not run it
    yield event
    event.set()


def test_a_sweep_under_way_is_shown_and_what_it_has_is_kept_when_it_is_left(
    open_app: Open, held: threading.Event
) -> None:
    app = open_app("occlusion", picture=DIGIT)
    assert went_well(app)
    assert "of 784 positions" in app.get("progress")[0].proto.text
    assert [one["picture"] != "" for one in groups(app)[0]["maps"]] == [True, False, True, True]  # (c) comes last
    app.button(key="occlusion.cancel").click().run()
    assert went_well(app)
    kept, count = re.search(r"Cancelled after (\d+) of 784", words(app)).group(0, 1)
    assert 0 < int(count) < 784
    assert len(offered(app)) == 9
    coarse = values(app, "d")
    app.run()
    assert kept in words(app)  # it does not go on by itself
    held.set()
    next(one for one in app.button if one.label == "Continue").click().run()
    deadline = time.monotonic() + 60
    while "Cancelled" in words(app) or not offered(app):
        assert time.monotonic() < deadline
        app.run()
    assert went_well(app)
    fine = answer()["probability"]
    np.testing.assert_allclose(values(app, "d"), fine, atol=1e-5)
    right = np.abs(coarse - fine) < 1e-5
    assert int(count) <= right.sum() < 784


def test_maps_stay_at_their_position_in_the_page_so_that_the_browser_keeps_focus_and_cursor(
    open_app: Open, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_runs, "QUICK", 0.0)
    app = open_app("occlusion", picture=DIGIT)
    waiting = container_of(app, "occlusion.panels")
    app.button(key="occlusion.run").click().run()
    assert "Sweeping" in app.get("progress")[0].proto.text
    assert container_of(app, "occlusion.panels") == waiting
    app.button(key="occlusion.cancel").click().run()
    assert "Cancelled after" in words(app)
    assert container_of(app, "occlusion.panels") == waiting
    held.set()
    next(one for one in app.button if one.label == "Continue").click().run()
    deadline = time.monotonic() + 60
    while not offered(app):
        assert time.monotonic() < deadline
        app.run()
    assert container_of(app.run(), "occlusion.panels") == waiting


def test_a_sweep_that_goes_on_begins_with_the_progress_that_it_has() -> None:
    network = vizapp.load("vizapp/lenet5-digits", weights="none")
    begun = sweep_runs.RunningSweep(
        Occlusion(Question(network, open_sample(DIGIT)), OcclusionParams(window=8, stride=8)), 1.0
    )
    assert next(begun.run()) == 0
    begun.work.finished.flat[:4] = True
    assert next(begun.run()) == 4 / 16


def test_a_sweep_that_is_left_ends_at_once(open_app: Open, held: threading.Event) -> None:
    app = open_app("occlusion", picture=DIGIT)
    app.button(key="occlusion.cancel").click().run()
    (plan,) = (value for value, _ in sweep_runs.running_sweeps()._values.values())
    visited = plan.work.finished.sum()
    assert f"Cancelled after {visited} of 784 positions" in words(app)
    held.set()  # whoever still swept would go on now
    time.sleep(0.4)
    assert plan.work.finished.sum() == visited


def test_a_sweep_that_was_finished_before_it_could_be_left_is_not_called_cancelled(
    open_app: Open, held: threading.Event
) -> None:
    app = open_app("occlusion", picture=DIGIT)
    app.button(key="occlusion.cancel").click().run()
    assert "Cancelled after" in words(app)
    (plan,) = (value for value, _ in sweep_runs.running_sweeps()._values.values())
    held.set()
    for _ in plan.work.run():
        pass
    app.run()
    assert went_well(app)
    assert "Cancelled" not in words(app)
    assert not [button for button in app.button if button.label == "Continue"]
    np.testing.assert_allclose(values(app, "d"), answer()["probability"], atol=1e-5)


def test_a_sweep_for_which_memory_is_short_says_so_and_keeps_what_it_has(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Occlusion.run

    def short(self: Occlusion) -> Iterator[float]:
        yield next(run(self))
        raise MemoryError

    monkeypatch.setattr(Occlusion, "run", short)
    monkeypatch.setattr(sweep_runs, "COARSE", 0.0)  # planning does not run it
    app = open_app("occlusion", picture=DIGIT)
    assert went_well(app)
    assert "memory" in sentences(app)
    assert "Cancelled after" in words(app)
    assert groups(app)


def test_a_finished_sweep_lets_go_of_its_activations(open_app: Open) -> None:
    open_app("occlusion", picture=DIGIT, **QUICK)
    assert len(sweep_runs.running_sweeps()) == 0


def test_two_pictures_and_two_networks_are_shown_side_by_side(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT, picture2="digit 8", **{"class": "3"}, **QUICK)
    assert went_well(app)
    first, second = groups(app)
    assert [first["title"], second["title"]] == [
        "vizapp/lenet5-digits · digit 3.png", "vizapp/lenet5-digits · digit 8.png"
    ]  # fmt: skip
    assert first["maps"][2]["title"] == second["maps"][2]["title"] == "Probability of 3"
    assert large(app, 0)["maps"][0]["ends"] == large(app, 1)["maps"][0]["ends"], "one scale"
    assert shown(app, "occlusion.position.1")["photo"] != shown(app, "occlusion.position.0")["photo"]
    app = open_app("occlusion", picture=DIGIT, network2="vizapp/zfnet-mini", **{"class": "3"}, **QUICK)
    assert went_well(app)
    first, second = groups(app)
    assert second["size"] == [160, 160]
    assert second["square"] == [40, 40]  # a quarter of the picture, as the first
    assert first["grid"] == second["grid"] == [7, 7]
    assert second["maps"][2]["title"] != "Probability of 3"  # it has no class of that name: its own prediction


def test_a_picture_of_any_origin_is_kept_and_compared_with_the_next_one(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT, **QUICK)
    content = io.BytesIO()
    Image.fromarray(open_sample("digit 8").pixels[::-1]).save(content, "PNG")
    app.session_state[state.ORIGIN] = given(content.getvalue(), "mine.png")
    app.run()
    alone = values(app, "d")
    app.button(key="occlusion.keep").click().run()
    assert went_well(app)
    assert len(groups(app)) == 1
    assert "mine.png is kept" in words(app)
    app.session_state[state.ORIGIN] = ("sample", DIGIT)
    app.run()
    assert went_well(app)
    assert [group["photoTitle"] for group in groups(app)] == ["digit 3.png", "mine.png"]
    np.testing.assert_array_equal(values(app, "d", 1), alone)
    app.button(key="occlusion.keep").click().run()
    assert len(groups(app)) == 1


def test_a_kept_picture_that_is_gone_is_let_go_of_with_a_sentence(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT, **QUICK)
    app.session_state[state.SECOND_ORIGIN] = ("given", "0" * 64, "gone.png")
    app.run()
    assert went_well(app)
    assert "The uploaded photo is not on this machine any more" in sentences(app)
    assert len(groups(app)) == 1


def test_a_kept_picture_of_a_folder_stays_the_same_when_others_come_or_go(open_app: Open, tmp_path: Path) -> None:
    for digit in (3, 5):
        Image.fromarray(open_sample(f"digit {digit}").pixels).save(tmp_path / f"{digit}.png")
    app = open_app("occlusion", picture="digit 8", **QUICK)
    app.session_state[state.SECOND_ORIGIN] = ("folder", str(tmp_path), "5.png")
    (tmp_path / "3.png").unlink()
    app.run()
    assert [group["photoTitle"] for group in groups(app)] == ["digit 8.png", "5.png"]
    kept = values(app, "d", 1)
    for digit in (1, 2):
        Image.fromarray(open_sample(f"digit {digit}").pixels).save(tmp_path / f"{digit}.png")
    images._folder.clear()  # as after a minute
    app.run()
    assert [group["photoTitle"] for group in groups(app)] == ["digit 8.png", "5.png"]
    np.testing.assert_array_equal(values(app, "d", 1), kept)
    (tmp_path / "5.png").unlink()
    images._folder.clear()
    app.run()
    assert went_well(app)
    assert "There is no photo '5.png'" in sentences(app)
    assert len(groups(app)) == 1


@pytest.mark.parametrize("ends", [False, True])
def test_a_sweep_that_leaves_the_store_meanwhile_is_shown_beside_the_second_one(
    open_app: Open, held: threading.Event, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)
    held.set()
    app = open_app("occlusion", picture=DIGIT, **QUICK)
    alone, follow = values(app, "d"), sweep_runs.follow

    def emptied(*args: Any) -> bool:
        compute.answers().drop_where(lambda key: True)  # as where memory is short for somebody else
        return follow(*args)

    if not ends:
        held.clear()
        monkeypatch.setattr(progress, "QUIET", 0.3)
    monkeypatch.setattr(sweep_runs, "follow", emptied)
    app.selectbox(key="occlusion.picture2").set_value("digit 8").run()
    assert went_well(app)
    assert [group["photoTitle"] for group in groups(app)] == ["digit 3.png", "digit 8.png"]
    assert bool(offered(app)) == ends
    np.testing.assert_array_equal(values(app, "d"), alone)


def given(content: bytes, name: str) -> tuple[str, str, str]:
    """Where an uploaded picture comes from, which is stored now."""
    digest = stored_uploads.digest_of(content, name)
    stored_uploads.store(digest, content, name)
    return ("given", digest, name)


def test_drawing_by_hand_answers_with_and_without_the_part(open_app: Open) -> None:
    app = open_app("occlusion", picture=DIGIT, way="hand")
    assert went_well(app)
    assert "Draw on the photo" in words(app)
    assert shown(app, "drawn.hidden")["rows"] == [
        row | {"more": row["more"].replace("hidden:", "was")} for row in shown(app, "drawn.whole")["rows"]
    ]
    mask = np.zeros((28, 28), bool)
    mask[8:20, 10:16] = True
    packed = base64.b64encode(np.packbits(mask).tobytes()).decode()
    app.session_state[state.MASK] = (28, 28, packed)
    app.run()
    assert went_well(app)
    network = vizapp.load("vizapp/lenet5-digits")
    expected = hide(Question(network, open_sample(DIGIT)), mask).arrays["probabilities"]
    rows = shown(app, "drawn.hidden")["rows"]
    assert [row["share"] for row in rows] == pytest.approx(sorted(expected.tolist(), reverse=True)[:5], abs=1e-6)
    assert shown(app, "occlusion.mask_drawn")["mask"] == packed
    assert "Draw on the photo" not in words(app)
    assert chosen(app, "way") == "hand"
    app.toggle(key="occlusion.inverse").set_value(True).run()
    expected = hide(Question(network, open_sample(DIGIT)), ~mask).arrays["probabilities"]
    assert shown(app, "drawn.hidden")["rows"][0]["share"] == pytest.approx(float(expected.max()), abs=1e-6)


@pytest.mark.parametrize("kept", [None, (14, 14, "AAAA"), (3, 5, "")])
def test_a_mask_of_another_picture_is_not_used(kept: tuple[int, int, str] | None) -> None:
    assert not mask_editor.mask_of(kept, (3, 5)).any()


def test_a_mask_is_read_in_reading_order() -> None:
    mask = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0]], bool)
    kept = (3, 3, base64.b64encode(bytes([0b10001111, 0])).decode())
    assert (mask_editor.mask_of(kept, (3, 3)) == mask).all()


@pytest.mark.parametrize("gone", [True, False])
def test_a_click_on_maps_that_have_gone_meanwhile_is_no_error(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    given: dict[str, Any] = {}
    session = {} if gone else {page._PANELS: SimpleNamespace(cell=[2, 3])}
    monkeypatch.setattr(page, "component", lambda name: given.update if name == "panels" else None)
    monkeypatch.setattr(state.st, "session_state", session)
    page._draw([], None)
    given["on_cell_change"]()
    assert state.get(state.POSITION) == (None if gone else (2, 3))


def test_the_table_has_a_line_per_position(open_app: Open) -> None:
    network, picture = vizapp.load("vizapp/lenet5-digits"), open_sample(DIGIT)
    asked = sweep_runs.SweepRequest(network, picture, OcclusionParams(window=7, stride=4))
    result = vizapp.ask("occlusion", network, picture=picture, window=7, stride=4)
    table = table_of(map_panels.of_result(asked, result, 8), result.arrays)
    assert len(table) == 49
    line = table.iloc[7 * 2 + 5]
    assert (line["row"], line["column"], line["class"]) == (2, 5, 8)
    assert line["probability"] == pytest.approx(float(result.arrays["probabilities"][2, 5, 8]))
    assert [line[side] for side in ("top", "left", "bottom", "right")] == result.arrays["positions"][2, 5].tolist()


def test_classes_beyond_the_colours_share_an_entry_of_the_legend() -> None:
    from vizapp.methods.occlusion.panels import COLOURS, legend

    labels = np.arange(24).reshape(4, 6)
    table = legend(labels, 0, np.full(24, 1 / 24), "abcdefghijklmnopqrstuvwx".__getitem__)
    entries = panel_data.legend_entries(table)
    assert len(entries) == len(COLOURS) + 1
    assert entries[-1]["name"] == f"{24 - len(COLOURS)} others"
    assert sum(float(entry["note"].split()[0]) for entry in entries) == pytest.approx(100, abs=1)


def test_a_shelf_lets_go_of_what_is_dropped() -> None:
    shelf: ByteBoundedCache[str] = ByteBoundedCache(100)
    shelf.put(("a",), "x", 10)
    shelf.drop(("a",))
    shelf.drop(("b",))
    assert shelf.get(("a",)) is None
    assert shelf.nbytes == 0


def test_no_map_is_drawn_before_its_first_position(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_runs, "_measure", lambda *_: 1.0)
    monkeypatch.setattr(sweep_runs, "QUICK", 0.0)
    monkeypatch.setattr(sweep_runs, "FEW", 0)
    app = open_app("occlusion", picture=DIGIT, **QUICK)
    assert went_well(app)
    assert "0 of 49 positions" in words(app)
    group = groups(app)[0]
    assert group["photo"]
    assert group["maps"] == large(app)["maps"] == []
    assert headlines(app)[0].endswith("% unhidden")
    assert group["legend"] == []


def test_only_finished_cells_are_drawn_until_the_coarse_map_is_there(open_app: Open) -> None:
    network = vizapp.load("vizapp/lenet5-digits")
    asked = sweep_runs.SweepRequest(network, open_sample(DIGIT), OcclusionParams(window=7, stride=2))  # 196 positions
    work = Occlusion(Question(network, asked.picture), asked.params)
    answer = work.sweep.answer([0, 30], work.channel)
    for place, scores in zip(answer.positions, answer.scores, strict=True):
        work._logits[place] = scores.numpy()
        work.finished.reshape(-1)[place] = True
    shown = map_panels.of_work(asked, work, None)
    drawn = panel_data.pictures(shown, "probability")
    for values in (shown.arrays["probability"], shown.arrays["activation"]):
        assert np.isfinite(values.ravel()).nonzero()[0].tolist() == [0, 30]
    for letter in "bde":
        grey = (drawn[letter] == 128).all(-1)
        assert (~grey).ravel().nonzero()[0].tolist() == [0, 30], letter
    for _ in work.run():
        break  # the coarse map, in one batch
    assert np.isfinite(map_panels.of_work(asked, work, None).arrays["probability"]).all()


def test_the_first_batches_correct_the_estimate(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep whose positions take a tenth of a second each, although a pass over the photo takes none."""
    answered = Sweep.answer

    def slow(self: Sweep, places: Any, channel: Any = None) -> Any:
        time.sleep(0.1 * len(places))
        return answered(self, places, channel)

    monkeypatch.setattr(Sweep, "answer", slow)
    monkeypatch.setattr(sweep_runs, "QUICK", 0.0)
    app = open_app("occlusion", picture=DIGIT, window="7", stride="2")
    assert went_well(app)
    done, count, seconds = map(int, re.search(r"(\d+) of (\d+) positions so far\D+(\d+) s", words(app)).groups())
    assert 0 < done < count
    assert seconds == pytest.approx(0.1 * (count - done), rel=0.5)
