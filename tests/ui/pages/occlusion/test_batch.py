"""The page Occlusion: several photos, the true class, and panel (c) of other photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import vizapp
from tests.ui.app import Open, chosen, components, map_values, offered, press, sentences, shown, went_well, words
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.gallery import build
from vizapp.media.drawing import to_png
from vizapp.media.samples import open_sample
from vizapp.media.sources import open_folder
from vizapp.methods.base import Question
from vizapp.methods.gallery import GalleryParams, place_for, plan_of
from vizapp.ui.inputs import images
from vizapp.ui.pages.occlusion import batch_view
from vizapp.ui.session import compute, state

SQUARE = {"window": "7", "stride": "7"}  # 16 positions


def groups(app: AppTest, key: str = "occlusion.several") -> list[dict[str, Any]]:
    return shown(app, key)["groups"]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Five digits in folders: one lies in the wrong folder, one in a folder that is no class, one is damaged."""
    source = open_folder("digits")
    places = {"3/a.png": 3, "3/b.png": 13, "8/wrong.png": 5, "none/c.png": 7}
    for place, number in places.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(to_png(source.open(number).pixels))
    (tmp_path / "8" / "broken.png").write_bytes(b"no picture")
    return tmp_path


def test_the_same_square_slides_over_all_samples_when_it_is_asked_for(open_app: Open) -> None:
    app = open_app("occlusion", way="several", **SQUARE)
    assert went_well(app)
    assert "occlusion.several" not in components(app, "occlusion"), "nothing is swept unasked"
    assert app.button(key="occlusion.several.run").label == "Sweep 10 photos"
    app = press(app, "occlusion.several.run")
    assert went_well(app)
    assert not app.warning
    network = vizapp.load("vizapp/lenet5-digits")
    assert shown(app, "occlusion.several")["small"] is True
    assert [group["title"] for group in groups(app)] == [f"digit {n}" for n in range(10)]
    changes = []
    for number, group in enumerate(groups(app)):
        alone = vizapp.ask("occlusion", network, open_sample(f"digit {number}"), window=7, stride=7).arrays
        np.testing.assert_allclose(map_values(group, "d"), alone["probability"], atol=1e-5)
        assert (map_values(group, "e") == alone["label"]).all()
        clean, lowest = float(alone["clean_probability"]), float(alone["probability"].min())
        assert group["note"] == f"{100 * clean:.1f} % without the square, lowest {100 * lowest:.1f} %"
        changes.append(alone["probability"] - clean)
    lowered = f"The square lowers the probability by {-100 * np.mean(changes):.1f} percentage points"
    assert lowered in " ".join(m.value for m in app.markdown)
    table = app.dataframe[0].value
    assert table["picture"].tolist() == [f"digit {n}" for n in range(10)]
    np.testing.assert_allclose(table["drop"], [-change.mean() for change in changes], atol=1e-5)
    assert "true" not in table
    assert len(offered(app)) == 4


def test_one_of_them_is_opened_alone_without_a_new_sweep(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    app = press(open_app("occlusion", way="several", **SQUARE), "occlusion.several.run")
    before = map_values(groups(app)[4], "d")
    monkeypatch.setattr(Sweep, "answer", None)
    monkeypatch.setattr(
        state, "clicked", lambda key, event: 4 if (key, event) == ("occlusion.several", "open") else None
    )
    with monkeypatch.context() as patched:
        patched.setattr(batch_view.st, "session_state", app.session_state)
        photos = [batch_view.Photo(("sample", f"digit {n}"), f"digit {n}", None) for n in range(10)]  # type: ignore[arg-type]
        batch_view._open(photos)
    app.run()
    assert went_well(app)
    assert [chosen(app, "picture"), "way" in app.query_params] == ["digit 4", False]
    np.testing.assert_array_equal(map_values(groups(app, "occlusion.panels")[0], "d"), before)


def test_sweeps_that_leave_the_store_while_the_page_is_drawn_are_shown_all_the_same(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = press(open_app("occlusion", way="several", **SQUARE), "occlusion.several.run")
    before, run_key = groups(app), batch_view.run_key

    def emptied(photos: Any) -> Any:
        compute.answers().drop_where(lambda key: key[0] == "occlusion.sweep")  # as where memory is short for others
        return run_key(photos)

    monkeypatch.setattr(batch_view, "run_key", emptied)
    app.run()
    assert went_well(app)
    assert groups(app) == before


def test_photos_of_class_folders_show_their_true_class(open_app: Open, digits: Path) -> None:
    app = open_app("occlusion", way="several", photos=str(digits), **SQUARE)
    assert "1 photo cannot be opened." in sentences(app)
    app = press(app, "occlusion.several.run")
    assert went_well(app)
    assert [group["title"] for group in groups(app)] == ["3/a.png", "3/b.png", "8/wrong.png", "none/c.png"]
    network, folder = vizapp.load("vizapp/lenet5-digits"), open_folder(digits)
    wrong = vizapp.ask("occlusion", network, folder.open(3), window=7, stride=7)
    assert wrong.arrays["true_label"] == 8 != wrong.arrays["clean_label"]
    np.testing.assert_allclose(map_values(groups(app)[2], "d"), wrong.arrays["probabilities"][..., 8], atol=1e-5)
    assert [entry["name"] for entry in groups(app)[2]["legend"] if "true class" in entry["note"]] == ["8"]
    assert app.dataframe[0].value["true"].tolist() == ["3", "3", "8", ""]
    assert "Known for 3 photos; the network is right about 2 of them." in " ".join(m.value for m in app.markdown)


def test_uploaded_photos_are_taken_together_and_let_go(open_app: Open, digits: Path) -> None:
    app = open_app("occlusion", way="several", photos="upload", **SQUARE)
    assert "Choose some photos" in words(app)
    files = [(path.name, path.read_bytes(), "image/png") for path in sorted(digits.rglob("*.png"))]
    app.file_uploader(key="occlusion.upload").set_value(files).run()
    assert went_well(app)
    assert "broken.png" in sentences(app)
    app = press(app, "occlusion.several.run")
    assert [group["title"] for group in groups(app)] == ["a.png", "b.png", "wrong.png", "c.png"]
    assert all("true class" not in entry["note"] for group in groups(app) for entry in group["legend"])
    app.file_uploader(key="occlusion.upload").set_value([]).run()
    assert "Choose some photos" in words(app)


def test_no_more_than_some_photos_are_taken_and_a_bad_folder_is_told(
    open_app: Open, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_view, "MOST", 3)
    app = open_app("occlusion", way="several", photos=str(digits / "3"), **SQUARE)
    assert app.button(key="occlusion.several.run").label == "Sweep 2 photos"
    app = open_app("occlusion", way="several", photos=str(digits), **SQUARE)
    assert "Using 3 of 5 photos." in words(app)
    app = open_app("occlusion", way="several", photos=str(digits / "gone"))
    assert "There is no folder" in sentences(app)
    assert went_well(app)


# The true class of one photo


def test_a_picture_of_a_class_folder_shows_its_true_class_first(open_app: Open, digits: Path) -> None:
    app = open_app("occlusion", **SQUARE)
    app.session_state[state.ORIGIN] = ("folder", str(digits), open_folder(digits).path(3))
    app.run()
    assert went_well(app)
    network, picture = vizapp.load("vizapp/lenet5-digits"), open_folder(digits).open(3)
    arrays = vizapp.ask("occlusion", network, picture, window=7, stride=7).arrays
    np.testing.assert_allclose(
        map_values(groups(app, "occlusion.panels")[0], "d"), arrays["probabilities"][..., 8], atol=1e-5
    )
    box = app.selectbox(key="occlusion.class")
    assert box.value == 8
    assert "8 · 8" in box.options
    peak = 100 * arrays["probabilities"][..., 8].max()
    assert f"true class, {100 * arrays['clean_probabilities'][8]:.1f} % unhidden, at most {peak:.1f} %" in words(app)
    assert f"True class: 8 (8); the network says {arrays['clean_label']}." in words(app).replace("*", "")
    clean = int(arrays["clean_label"])
    box.set_value(clean).run()
    np.testing.assert_allclose(
        map_values(groups(app, "occlusion.panels")[0], "d"), arrays["probabilities"][..., clean], atol=1e-5
    )


# Panel (c) of other photos


def test_other_pictures_of_c_are_looked_for_when_it_is_asked_for(open_app: Open) -> None:
    app = open_app("occlusion", picture="digit 3", **SQUARE)
    assert "occlusion.others.photos" not in components(app, "occlusion")
    assert app.button(key="occlusion.others").label.replace("\\", "") == "Search the digits"
    app.button(key="occlusion.others").click().run()
    assert went_well(app)
    photos, down = shown(app, "occlusion.others.photos"), shown(app, "occlusion.others.down")
    assert photos["still"], "a click does nothing"
    assert len(photos["titles"]) == 9
    assert photos["titles"] == down["titles"]
    assert photos["sprite"] != down["sprite"]
    assert "From a pass over 200 of the 1797 photos of digits." in words(app)
    assert len(offered(app)) == 10


def test_a_gallery_that_is_there_shows_them_when_it_is_asked_for(open_app: Open) -> None:
    network, source = vizapp.load("vizapp/lenet5-digits"), open_folder("digits")
    expected = vizapp.ask("occlusion", network, open_sample("digit 3"), window=7, stride=7)
    site, channel = expected.facts["map"].split(",")[0].rsplit(":", 1)
    sites, plan = [network.site(site)], plan_of(network, GalleryParams(workers=0))
    build(network, source, sites, place_for(network, Question(network, folder=source), sites, plan), plan)
    app = open_app("occlusion", picture="digit 3", **SQUARE)
    assert "occlusion.others.photos" not in components(app, "occlusion"), "an answer depends on what lies in the cache"
    assert app.button(key="occlusion.others").label.replace("\\", "") == "Search the digits"
    app.button(key="occlusion.others.gallery").click().run()
    assert went_well(app)
    assert "From the gallery of 1797 photos of digits." in words(app)
    asked = vizapp.ask("occlusion", network, open_sample("digit 3"), window=7, stride=7, others="gallery")
    assert asked.facts["map"].startswith(f"{site}:{channel},")
    names = asked.facts["others"].split("Strongest first: ")[1].removesuffix(".").split(", ")
    assert shown(app, "occlusion.others.photos")["titles"] == names
    details = [f"activation {value:.4g}" for value in asked.arrays["others_activation"]]
    assert shown(app, "occlusion.others.down")["details"] == details


def test_the_folder_of_the_picture_is_looked_through_first(open_app: Open, digits: Path) -> None:
    app = open_app("occlusion", **SQUARE)
    app.session_state[state.ORIGIN] = ("folder", str(digits), open_folder(digits).path(0))
    app.run()
    assert app.button(key="occlusion.others").label.replace("\\", "") == f"Search the {digits.name}"
    app.button(key="occlusion.others").click().run()
    assert sorted(shown(app, "occlusion.others.photos")["titles"]) == ["3/b.png", "8/wrong.png", "none/c.png"]


def test_an_upload_is_kept_without_becoming_the_picture_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.uploads, "register", lambda *_: None)
    content = to_png(np.zeros((30, 30, 3), np.uint8))
    origin = images.keep(content, "black.png")
    assert origin[0] == "given"
    assert (images.open_from(origin).pixels == 0).all()
    assert state.ORIGIN not in images.st.session_state
