"""What a click on a download sends while the page changes."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Button

from tests.media.files import saved
from tests.ui.app import ASKING, Open, offered, sentences, went_well
from vizapp.errors import VizError
from vizapp.media.samples import all_digits, digit_pixels
from vizapp.ui.session import downloads, progress


def button(app: AppTest, title: str) -> Button:
    """The button of a file."""
    (found,) = [button for button in app.button if button.label == title]
    return found


def sent(app: AppTest) -> list[tuple[dict[str, str], bytes]]:
    """What the browser is sent: what is told of each file, and its bytes."""
    packed = [c.proto.bytes for c in app.get("bidi_component") if c.proto.component_name == "vizapp.given"]
    parts = [one.partition(b"\n") for one in packed]
    return [(json.loads(told), content) for told, _, content in parts]


def test_a_click_sends_the_file_once_and_no_run_before_or_long_after(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app(picture="digit 3")
    assert offered(app) == ["Crop PNG", "Map PNG", "Arrays NPZ"]
    assert sent(app) == []
    button(app, "Arrays NPZ").click().run()
    [(told, content)] = sent(app)
    assert (told["name"], told["type"]) == ("predict-vizapp-lenet5-digits-digit-3.npz", "application/octet-stream")
    with np.load(io.BytesIO(content)) as arrays:
        assert arrays["probabilities"].shape == (10,)
    app.run()
    assert sent(app) == [(told, content)]  # the browser knows the click by its name
    button(app, "Arrays NPZ").click().run()
    clicks = [one["click"] for one, _ in sent(app)]
    assert len(set(clicks)) == 2
    monkeypatch.setattr(downloads, "KEPT", 0.0)
    app.run()
    assert sent(app) == []
    assert went_well(app)


def test_a_click_on_what_was_shown_before_never_gives_what_has_taken_its_place(open_app: Open) -> None:
    app = open_app(picture="digit 3")
    seen = {button(app, "Arrays NPZ").key}
    for change in ({"picture": "digit 8"}, {"crops": "ten"}, {"network": "vizapp/zfnet-mini"}, {"weights": "random"}):
        for name, value in change.items():
            app.query_params[name] = value
        app.run()
        assert went_well(app)
        seen.add(button(app, "Arrays NPZ").key)
    assert len(seen) == 5  # the browser tells the server which of them was clicked


@pytest.mark.parametrize("page", [page for page in ASKING if page not in ("start", "gallery", "probe")])  # built first
def test_the_buttons_stay_as_long_as_what_is_shown(
    open_app: Open, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)  # the page waits for its answers, on a busy machine too
    parts = {"parts": "28x28,digit%200:2:6:12:20,digit%208:2:6:12:20,digit%209:2:6:12:20"}
    (tmp_path / "photo.png").write_bytes(saved(digit_pixels(all_digits()[0][0])))
    more = {"correspondence": parts, "neighbours": {"data": str(tmp_path)}}
    app = open_app(page, picture="digit 3", **more.get(page, {}))
    keys = [one.key for one in app.button if one.label in offered(app)]
    assert keys
    app.run()  # a click during a run that changed its button would be lost
    assert [one.key for one in app.button if one.label in offered(app)] == keys


def test_a_file_is_still_sent_from_the_page_that_follows(open_app: Open) -> None:
    app = open_app(picture="digit 3")
    button(app, "Arrays NPZ").click().run()
    app.switch_page("vizapp/ui/pages/about.py").run()  # as if the run before had ended early
    assert [told["name"] for told, _ in sent(app)][-1] == "predict-vizapp-lenet5-digits-digit-3.npz"


@pytest.mark.parametrize("fault", ["gone", "large"])
def test_a_file_that_cannot_be_had_is_a_sentence_and_the_page_goes_on(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    app = open_app(picture="digit 3")

    def gone(arrays: Any) -> bytes:
        raise VizError("The gallery's files have gone.")

    if fault == "gone":
        monkeypatch.setattr(downloads, "npz", gone)
    else:
        monkeypatch.setattr(downloads, "LARGEST", 100)
    app.run()
    button(app, "Arrays NPZ").click().run()
    assert ("have gone" if fault == "gone" else "downloads are limited") in sentences(app)
    assert sent(app) == []
    assert offered(app) == ["Crop PNG", "Map PNG", "Arrays NPZ"]
    app.run()
    assert sentences(app) == ""


def test_what_is_drawn_by_hand_is_given_away_as_it_is_now(open_app: Open) -> None:
    app = open_app("occlusion", picture="digit 3", way="hand")
    assert offered(app) == ["Hidden PNG", "Arrays NPZ"]
    button(app, "Hidden PNG").click().run()
    assert [told["name"] for told, _ in sent(app)] == ["occlusion-vizapp-lenet5-digits-digit-3-drawn-hidden.png"]
    mask = np.zeros((28, 28), bool)
    mask[5:20, 8:] = True  # a stroke runs another part of the page alone, which leaves the buttons as they are
    packed = base64.b64encode(np.packbits(mask).tobytes()).decode()
    app.session_state["occlusion.mask"] = (28, 28, packed)
    button(app, "Arrays NPZ").click().run()
    with np.load(io.BytesIO(sent(app)[-1][1])) as arrays:
        assert (arrays["mask"] == mask).all()
        assert (arrays["probabilities"] != arrays["clean_probabilities"]).any()
    assert went_well(app)
