"""The page Correspondence: squares are drawn or typed, kept in the link, and compared as `ask` compares them."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import vizapp
from tests.media.files import noise, saved
from tests.ui.app import Open, chosen, click, offered, sentences, shown, went_well, words
from vizapp.media.samples import open_sample
from vizapp.ui.pages.correspondence import photos
from vizapp.ui.session import state

BOXES = {"digit 0": (2, 6, 12, 20), "digit 8": (3, 6, 13, 20), "digit 9": (4, 6, 14, 20)}
LINK = ",".join(["28x28", *(f"{name.replace(' ', '%20')}:{':'.join(map(str, box))}" for name, box in BOXES.items())])
FEW = {"correspondence.draws": "2"}


def key_of(name: str) -> str:
    return f"correspondence.photo.{state.name_of(name)}"


def boxes(app: AppTest, *names: str) -> list[list[int] | None]:
    return [shown(app, key_of(name))["box"] for name in names]


def test_photos_without_squares_ask_for_some(open_app: Open) -> None:
    app = open_app("correspondence")
    assert went_well(app)
    assert boxes(app, *(f"digit {n}" for n in range(10))) == [None] * 10
    assert "No photo is marked; at least 3 are needed." in words(app)
    assert not offered(app)


def test_a_link_shows_the_squares_and_what_ask_answers(open_app: Open) -> None:
    app = open_app("correspondence", parts=LINK, **FEW)
    assert went_well(app)
    assert not app.warning
    assert boxes(app, *BOXES) == [list(box) for box in BOXES.values()]
    parts = [(open_sample(name), box) for name, box in BOXES.items()]
    found = vizapp.ask("correspondence", vizapp.load("vizapp/lenet5-digits"), parts=parts, draws=2)
    table = app.dataframe[0].value
    assert table["Layer"].tolist() == [row["layer"] for row in found.table]
    assert table["Parts"].tolist() == [f"{value:.3f}" for value in found.arrays["parts"]]
    means, deviations = found.arrays["shared"].mean(1), found.arrays["shared"].std(1, ddof=1)
    assert table["One shared place"].tolist() == [f"{a:.3f} ± {b:.3f}" for a, b in zip(means, deviations, strict=True)]
    share = {None: "–"} | {
        row["place"]: f"{100 * row['place']:.0f} %" for row in found.table if row["place"] is not None
    }
    share |= {place: "all" for place in share if place is not None and place >= 1}
    assert table["Explained by place"].tolist() == [share[row["place"]] for row in found.table]
    assert found.facts["summary"] in " ".join(html.proto.body for html in app.get("html")).replace("&#x27;", "'")
    assert len(app.get("plotly_chart")) == 1
    assert offered(app) == ["Parts PNG", "Arrays NPZ", "Table CSV"]
    assert chosen(app, "parts") == LINK


def test_squares_are_drawn_moved_and_removed(open_app: Open) -> None:
    app = open_app("correspondence", **FEW)
    for number, (name, box) in enumerate(BOXES.items(), 1):
        assert not offered(app)
        app = click(app, key_of(name), "box", list(box))
        assert chosen(app, "parts").count(",") == number
    assert chosen(app, "parts") == LINK
    assert len(offered(app)) == 3
    app = click(app, key_of("digit 8"), "box", [0, 0, 9, 9])
    assert boxes(app, "digit 8") == [[0, 0, 9, 9]]
    app = click(app, key_of("digit 8"), "box", [])
    assert boxes(app, *BOXES) == [[2, 6, 12, 20], None, [4, 6, 14, 20]]
    assert "2 photos are marked; at least 3 are needed." in words(app)
    for odd in ([0, 0, 99, 9], [5, 5, 5, 5], ["a", 0, 1, 2], [1, 2, 3], "x", None, [0.5, 1, 2, 3]):
        app = click(app, key_of("digit 8"), "box", odd)
        assert went_well(app)
        assert boxes(app, "digit 8") == [None]


def test_a_square_can_be_typed(open_app: Open) -> None:
    app = open_app("correspondence", parts=LINK, **FEW)
    app.selectbox(key="correspondence.by_numbers").set_value("digit 8").run()
    assert [app.number_input(key=f"correspondence.{side}").value for side in ("top", "left", "bottom", "right")] == [
        3, 6, 13, 20,
    ]  # fmt: skip
    app.number_input(key="correspondence.bottom").set_value(15).run()
    assert boxes(app, "digit 8") == [[3, 6, 15, 20]]
    app.number_input(key="correspondence.right").set_value(6).run()
    assert "A square has its top above its bottom" in sentences(app)
    assert boxes(app, "digit 8") == [[3, 6, 15, 20]]
    assert app.number_input(key="correspondence.right").value == 20


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ("digit%200:1:2:3", "is not a part of a photo, which is written photo:top:left:bottom:right"),
        ("digit%200:a:2:3:4", "is not a part of a photo"),
        (LINK.replace("13:20", "29:20"), "The square on digit 8 does not lie inside of what"),
        (f"{LINK},digit%2077:1:2:3:4", "1 photo cannot be opened. There is no sample photo 'digit 77'."),
        (f"{LINK},upload/{'0' * 64}:1:2:3:4", "1 photo cannot be opened. The uploaded photo is not on this machine"),
    ],
)
def test_a_link_that_cannot_be_followed_is_told(open_app: Open, parts: str, told: str) -> None:
    app = open_app("correspondence", parts=parts, **FEW)
    assert went_well(app)
    assert told in sentences(app)


def test_photos_of_a_folder_and_uploads_come_back_by_the_link(open_app: Open, tmp_path: Path) -> None:
    names = ["a/one, two.png", "b:c.png", "d.png"]
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(saved(noise(40, 40, seed=seed)))
    app = open_app("correspondence", photos=str(tmp_path), **FEW)
    for name in names:
        app = click(app, key_of(name), "box", [4, 5, 14, 16])
    assert went_well(app)
    assert len(offered(app)) == 3
    again = open_app("correspondence", photos=str(tmp_path), parts=chosen(app, "parts"), **FEW)
    assert boxes(again, *names) == [[4, 5, 14, 16]] * 3
    assert again.dataframe[0].value.equals(app.dataframe[0].value)

    app = open_app("correspondence", photos="upload", **FEW)
    for seed in range(3):
        content = saved(noise(40, 40, seed=seed))
        app.file_uploader(key="correspondence.upload").upload(f"{seed}.png", content, "image/png").run()
        digest = list(app.session_state[state.UPLOADED].values())[-1][1]
        app = click(app, key_of(f"upload/{digest}"), "box", [4, 5, 14, 16])
    link = chosen(app, "parts")
    st.cache_resource.clear()
    again = open_app("correspondence", photos="upload", parts=link, **FEW)
    assert went_well(again)
    assert len(offered(again)) == 3


def test_another_source_of_photos_forgets_the_squares(open_app: Open, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(noise(40, 40)))
    app = open_app("correspondence", parts=LINK, **FEW)
    app.segmented_control(key="correspondence.source").set_value("folder").run()
    app.text_input(key="correspondence.folder").set_value(str(tmp_path)).run()
    assert went_well(app)
    assert "parts" not in app.query_params
    assert boxes(app, "a.png") == [None]


def test_squares_keep_their_place_in_the_photo_where_a_network_sees_it_larger(open_app: Open) -> None:
    link = LINK.replace("28x28", "14x56")
    app = open_app("correspondence", parts=link, **FEW)
    assert boxes(app, "digit 0") == [[4, 3, 24, 10]], "twice as high, half as wide"
    assert chosen(app, "parts") == link, "until one is drawn"
    app = click(app, key_of("digit 0"), "box", [1, 2, 3, 4])
    assert chosen(app, "parts").startswith("28x28,digit%200:1:2:3:4,digit%208:6:3:26:10,")


@pytest.mark.slow
def test_the_first_view_compares_the_faces(open_app: Open) -> None:
    app = open_app("correspondence", network="vizapp/efficientnet-lite0", **FEW)
    assert went_well(app)
    assert not app.warning
    assert boxes(app, *photos._FACES) == [list(box) for box in photos._FACES.values()]
    assert len(app.dataframe[0].value) >= 4
    assert "parts" not in app.query_params
