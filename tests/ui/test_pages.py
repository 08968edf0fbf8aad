"""Every page, used by links, by switches, and with files that are not pictures."""

from __future__ import annotations

import base64
import errno
import io
import re
from contextlib import ExitStack
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import element_tree

import vizapp
from tests.ui.app import ASKING, PAGES, Open, chosen, click, offered, plain, sentences, shown, turn_to, went_well, words
from vizapp.engine.memory.budget import MemoryBudget
from vizapp.service import runs
from vizapp.service.jobs import RunningJob
from vizapp.settings import ASSETS
from vizapp.ui.app.pages import sections
from vizapp.ui.session import compute, glossary, messages, state
from vizapp.ui.session.glossary import GLOSSARY
from vizapp.ui.widgets.explanations import EXPLANATIONS, explanation

MORE = {spec.key for spec in sections()["More"]}


def picture(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_a_notice(open_app: Open, page: str) -> None:
    app = open_app(page)
    assert went_well(app)
    assert not app.warning


@pytest.mark.parametrize("page", ASKING)
def test_a_page_explains_itself_in_three_sentences_and_a_picture(open_app: Open, page: str) -> None:
    assert page in MORE or page in EXPLANATIONS, "a page of its own has an explanation"
    app = open_app(page, weights="file")  # no checkpoint yet: nothing is computed
    told = [text.value for text in app.markdown]
    titles = ("What you see", "How to read it", "Beware")
    found = [next(text for text in told if text.startswith(f"**{title}.**")) for title in titles]
    for title, text in zip(titles, found, strict=True):
        sentence = plain(text).removeprefix(f"**{title}.** ")
        if page in EXPLANATIONS:
            known = explanation(page, None)
            said = getattr(known, {"What you see": "shows", "How to read it": "read", "Beware": "beware"}[title])
            assert sentence[:20] == said[:20]
        assert re.fullmatch(r"[A-Z][^.?!]+(\(\w+ et al\. \d+\))?[^.?!]*\.", sentence), "one sentence"
    (picture,) = [html.proto.body for html in app.get("html") if "data:image/svg" in html.proto.body]
    ElementTree.fromstring(base64.b64decode(picture.split("base64,")[1].split('"')[0]))
    assert len(picture) < 40_000
    assert shown(app, "share")["note"] == ""


def test_terms_tell_their_meaning_where_they_are_used_first(open_app: Open) -> None:
    assert set().union(*glossary.TERMS.values()) <= set(GLOSSARY)
    text = glossary.explained("Deconvnets, a unit, and the unit of a disunity: top-1", "projection")
    assert plain(text) == "Deconvnets, a unit, and the unit of a disunity: top-1"
    assert text.count("(about#terms") == 2
    assert f'[unit](about#terms "{GLOSSARY["unit"]}"), and the unit of' in text
    app = open_app("projection", weights="file")
    assert f'[unit](about#terms "{GLOSSARY["unit"]}")' in " ".join(one.value for one in app.markdown)


def test_the_link_of_an_upload_says_how_long_it_works(open_app: Open) -> None:
    app = open_app("about")
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    app.file_uploader(key="sidebar.upload").upload("noise.png", picture(), "image/png").run()
    assert "for a day" in shown(app, "share")["note"]
    assert all(term in " ".join(text.value for text in app.markdown) for term in GLOSSARY), "the glossary is in About"


@pytest.mark.parametrize("page", ASKING)
def test_a_label_that_is_no_option_any_more_changes_no_choice(
    open_app: Open, page: str, monkeypatch: pytest.MonkeyPatch, patient: None
) -> None:
    """The browser sends labels. One that carried a percentage or the shape of a layer may be gone when it arrives."""
    gone, label = "ketch · up to 35.8 %", element_tree._format_value_for_widget
    monkeypatch.setattr(element_tree, "_format_value_for_widget", lambda f, v: v if v == gone else label(f, v))
    app = open_app(page)
    before, told = {box.key: box.value for box in app.selectbox}, sentences(app)
    for key in before:
        app.selectbox(key=key).options.append(gone)  # AppTest sends options only
        app.selectbox(key=key).set_value(gone)
    app.run()
    assert went_well(app)
    assert sentences(app) == told
    assert {box.key: box.value for box in app.selectbox} == before


def test_presentation_mode_is_kept_by_links_and_pages_until_it_is_left(open_app: Open) -> None:
    style = (ASSETS / "present.css").read_text()
    app = open_app("filters", present="on", layer="classifier")
    assert shown(app, "present")["on"]
    assert any(style.strip() in html.proto.body for html in app.get("html"))
    known = "have no kernels; choose a convolution"
    assert known in " ".join(text.value for text in app.markdown), "what one must know stays"
    assert known not in words(app), "captions are hidden"
    turn_to(app, "start")
    assert chosen(app, "present") == "on"
    click(app, "present", "present", False)
    assert not shown(app, "present")["on"]
    assert not any(style.strip() in html.proto.body for html in app.get("html"))
    assert "present" not in app.query_params
    click(app, "present", "present", True)
    assert chosen(app, "present") == "on"
    assert went_well(app)


def test_predict_shows_as_many_classes_as_asked(open_app: Open) -> None:
    app = open_app(top="3")
    assert app.number_input(key="predict.top").value == 3
    assert chosen(app, "top") == "3"


def test_the_app_begins_with_a_picture_that_the_network_gets_right(open_app: Open) -> None:
    app = open_app(network="vizapp/zfnet-mini")
    assert went_well(app)
    assert not app.warning
    names = [row["name"] for row in shown(app, "predict.bars")["rows"]]
    assert names[0].lower().startswith("motorbike")


def test_choices_survive_a_change_of_page(open_app: Open) -> None:
    app = open_app()
    app.number_input(key="predict.top").set_value(7).run()
    app.switch_page("vizapp/ui/pages/about.py").run()
    app.switch_page("vizapp/ui/pages/predict/page.py").run()
    assert app.number_input(key="predict.top").value == 7
    assert shown(app, "sidebar.network")["chosen"] == "vizapp/lenet5-digits"


def test_a_link_reopens_the_same_layer_channel_and_cell(open_app: Open) -> None:
    app = open_app("feature_maps", layer="features.3", channel="9", cell="2,5", order="number", scale="channel")
    assert went_well(app)
    assert not app.warning
    assert app.selectbox(key="maps.layer").value == "features.3"
    assert app.number_input(key="maps.channel").value == 9
    assert app.session_state["choice.cell"] == (2, 5)
    assert chosen(app, "cell") == "2,5"
    assert any("Receptive field" in caption.value for caption in app.caption)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ({"network": "vizapp/lenet5-digit"}, "Did you mean vizapp/lenet5-digits"),
        ({"picture": "digit 77"}, "There is no picture 'digit 77'"),
        ({"top": "many"}, "whole number"),
        ({"top": "-1"}, "whole number"),
        ({"crops": "nine"}, "not one of one, ten, multi"),
        ({"cell": "3"}, "row,column"),
        ({"channel": "²"}, "whole number"),
        ({"weights": "../../etc"}, "not one of published, random, file"),
    ],
)
def test_a_bad_value_in_a_link_is_told_and_left_out(open_app: Open, address: dict[str, str], told: str) -> None:
    if "network" in address:
        address["weights"] = "random"  # the default network then opens without its weights
    app = open_app(**address)
    assert went_well(app)
    assert told in sentences(app)
    app.run()
    assert told not in sentences(app)  # once


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ({"layer": "features.33"}, "has no layer 'features.33'"),
        ({"layer": "features.1", "channel": "600"}, "channels 0 to 5"),
        ({"layer": "features.1", "cell": "99,1"}, "cells 0,0 to 23,23"),
    ],
)
def test_a_unit_that_the_network_lacks_is_told_and_another_shown(
    open_app: Open, address: dict[str, str], told: str
) -> None:
    app = open_app("feature_maps", **address)
    assert went_well(app)
    assert told in sentences(app)
    assert app.number_input(key="maps.channel").value is not None


def test_another_network_lets_go_of_layer_and_channel(open_app: Open) -> None:
    app = open_app("feature_maps", layer="features.3", channel="9")
    app.segmented_control(key="sidebar.weights").set_value("random").run()
    assert app.selectbox(key="maps.layer").value == "features.3"
    click(app, "sidebar.network", "chosen", "torchvision/squeezenet1_1")
    assert went_well(app)
    assert app.selectbox(key="maps.layer").value == "features.1"
    assert "layer" not in app.query_params


def test_a_vector_layer_is_drawn_as_bars(open_app: Open) -> None:
    app = open_app("feature_maps", layer="classifier.0")
    assert went_well(app)
    assert len(app.get("plotly_chart")) == 1


def test_numbers_are_a_table_with_a_row_per_channel(open_app: Open) -> None:
    app = open_app("feature_maps", layer="features.3", view="numbers")
    table = app.dataframe[0].value
    assert list(table.columns) == ["channel", "min", "max", "mean", "zeros"]
    assert len(table) == 16
    assert table["max"].is_monotonic_decreasing


@pytest.mark.parametrize(("word", "weights"), [("none", "random"), ("default", "published"), ("random", "random")])
def test_a_link_knows_the_words_for_weights_that_python_has(open_app: Open, word: str, weights: str) -> None:
    app = open_app(weights=word)
    assert went_well(app)
    assert not app.warning
    assert app.segmented_control(key="sidebar.weights").value == weights


def test_the_accuracy_of_the_published_weights_is_said_of_them_alone(open_app: Open) -> None:
    """zfnet-mini's card names an accuracy; untrained weights have none."""
    told = [
        " ".join(caption.value for caption in open_app(network="vizapp/zfnet-mini", weights=w).sidebar.caption)
        for w in ("published", "random")
    ]
    assert ["top-1" in text for text in told] == [True, False]


def test_an_uploaded_photo_becomes_the_picture(open_app: Open) -> None:
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    assert "25 MB" in app.file_uploader(key="sidebar.upload").label
    app.file_uploader(key="sidebar.upload").upload("noise.png", picture(), "image/png").run()
    assert went_well(app)
    assert not app.warning
    assert app.session_state["picture.origin"][2] == "noise.png"
    assert chosen(app, "picture") == f"upload/{app.session_state['picture.origin'][1]}"
    app.segmented_control(key="sidebar.source").set_value("samples").run()
    assert app.session_state["picture.origin"][2] == "noise.png"  # looking at the samples takes none of them


@pytest.mark.parametrize(
    "content", [b"", b"no picture at all", picture()[:200], b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "cut", "head"]
)
def test_a_file_that_is_no_picture_is_told_and_no_older_answer_shown(open_app: Open, content: bytes) -> None:
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    app.file_uploader(key="sidebar.upload").upload("broken.png", content, "image/png").run()
    assert went_well(app)
    assert "broken.png" in sentences(app)
    assert not offered(app)
    app.button(key="sidebar.another").click().run()
    assert not app.warning
    assert len(offered(app)) == 3  # of the sample again


@pytest.mark.parametrize("page", ["architecture", "gallery", "about"])
def test_pages_that_use_no_photo_tell_about_a_file_that_is_none(open_app: Open, page: str) -> None:
    app = open_app(page, network="vizapp/lenet5-digits")
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    app.file_uploader(key="sidebar.upload").upload("letter.png", b"Dear network", "image/png").run()
    assert went_well(app)
    assert "letter.png looks like text" in words(app)
    app.button(key="sidebar.another").click().run()
    assert "letter.png" not in words(app)


def test_a_folder_gives_its_pictures_by_name(open_app: Open, tmp_path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.png").write_bytes(picture(1))
    (tmp_path / "a" / "two.png").write_bytes(picture(2))
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("folder").run()
    app.text_input(key="sidebar.folder").set_value(str(tmp_path)).run()
    app.selectbox(key="sidebar.folder_picture").set_value("a/two.png").run()
    assert went_well(app)
    assert not app.warning
    assert app.session_state["picture.origin"] == ("folder", str(tmp_path), "a/two.png")


def test_a_picture_of_a_folder_stays_the_same_when_others_come(open_app: Open, tmp_path) -> None:
    for number, name in enumerate(("two.png", "three.png")):
        (tmp_path / name).write_bytes(picture(number))
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("folder").run()
    app.text_input(key="sidebar.folder").set_value(str(tmp_path)).run()
    app.selectbox(key="sidebar.folder_picture").set_value("two.png").run()
    (tmp_path / "one.png").write_bytes(picture(2))
    listed_anew()
    app.run()
    assert not app.warning
    assert app.selectbox(key="sidebar.folder_picture").options == ["one.png", "three.png", "two.png"]
    assert app.session_state["picture.origin"] == ("folder", str(tmp_path), "two.png")


def test_a_picture_that_has_gone_from_its_folder_is_told_and_another_shown(open_app: Open, tmp_path) -> None:
    for number, name in enumerate(("one.png", "two.png")):
        (tmp_path / name).write_bytes(picture(number))
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("folder").run()
    app.text_input(key="sidebar.folder").set_value(str(tmp_path)).run()
    app.selectbox(key="sidebar.folder_picture").set_value("two.png").run()
    (tmp_path / "two.png").unlink()
    listed_anew()
    app.run()
    assert went_well(app)
    assert f"There is no photo 'two.png' in {tmp_path} any more. Showing another photo." in sentences(app)
    assert app.session_state["picture.origin"] == ("folder", str(tmp_path), "one.png")
    assert len(offered(app)) == 3
    assert not app.run().warning, "it is told once"
    (tmp_path / "one.png").unlink()
    app.segmented_control(key="sidebar.source").set_value("samples").run()
    assert app.session_state["picture.origin"][0] == "folder"
    listed_anew()
    app.run()
    assert went_well(app)
    assert f"There is no photo in {tmp_path}" in sentences(app)
    assert "picture.origin" not in app.session_state, "a sample"
    assert len(offered(app)) == 3


@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("feature_maps", {}), ("projection", {}), ("filters", {}), ("gallery", {}), ("occlusion", {}),
        ("occlusion", {"way": "several"}), ("compare", {"other": "vizapp/zfnet-mini"}),
        ("compare", {"other": "vizapp/lenet5-digits", "other_weights": "published"}),
    ],
)  # fmt: skip
def test_a_page_whose_layers_are_not_wanted_waits_until_they_are(
    open_app: Open, page: str, address: dict[str, str]
) -> None:
    network = vizapp.load("vizapp/lenet5-digits")
    key = compute.key_of("sites", network)
    app = open_app("about")
    app.session_state["wishes"] = {("cancel", state.name_of(key))}
    for name, value in address.items():
        app.query_params[name] = value
    app.run()
    turn_to(app, page)
    assert went_well(app)
    assert not app.warning
    told = " ".join(caption.value for caption in app.caption)
    assert told.count("Cancelled.") == 1
    assert "no second convolution" not in told
    assert not offered(app)
    assert not [
        element
        for element in app.get("bidi_component")
        if not re.search("sidebar|(share|present|network)$", element.proto.id)
    ]
    again = [button for button in app.button if button.label == "Run again"]
    again[0].click().run()
    assert went_well(app)
    assert "Cancelled." not in " ".join(caption.value for caption in app.caption)


def listed_anew() -> None:
    """As after a minute."""
    from vizapp.ui.inputs import images

    images._folder.clear()


def test_a_folder_that_is_not_there_is_told(open_app: Open, tmp_path) -> None:
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("folder").run()
    app.text_input(key="sidebar.folder").set_value(str(tmp_path / "nowhere")).run()
    assert went_well(app)
    assert "nowhere" in sentences(app)


def test_weights_that_are_not_on_this_machine_offer_random_ones(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vizapp.errors import VizError

    def offline(*args: object, **kwargs: object) -> None:
        raise VizError("The weights are not on this machine.")

    monkeypatch.setattr("vizapp.zoo.registry.find_weights", offline)
    app = open_app()
    click(app, "sidebar.network", "chosen", "torchvision/squeezenet1_1")
    assert went_well(app)
    assert "not on this machine" in sentences(app)
    app.button(key="weights.go_on").click().run()
    assert went_well(app)
    assert not app.warning
    assert chosen(app, "weights") == "random"


def test_a_checkpoint_of_another_network_is_told(open_app: Open, tmp_path) -> None:
    import torch

    torch.save({"nothing.weight": torch.zeros(3)}, tmp_path / "other.pth")
    app = open_app(weights="file")
    assert any("Upload a checkpoint" in caption.value for caption in app.caption)
    app.text_input(key="sidebar.checkpoint_path").set_value(str(tmp_path / "other.pth")).run()
    assert went_well(app)
    assert "other.pth" in sentences(app)


def test_an_uploaded_checkpoint_is_used(open_app: Open, tmp_path) -> None:
    import torch

    from vizapp import load

    path = tmp_path / "mine.pth"
    torch.save(load("vizapp/lenet5-digits", weights="none").module.state_dict(), path)
    app = open_app(weights="file")
    app.file_uploader(key="sidebar.checkpoint").upload("mine.pth", path.read_bytes(), "application/octet-stream").run()
    assert went_well(app)
    assert not app.warning
    assert len(offered(app)) == 3


def test_a_page_that_waits_for_memory_says_so(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    room, told, doing, cpu = MemoryBudget(lambda device: 2**40), list[str](), runs.describe, torch.device("cpu")
    monkeypatch.setattr("vizapp.ui.session.memory.memory_budget", lambda: room)
    monkeypatch.setattr("vizapp.zoo.registry.memory_budget", lambda: room)
    monkeypatch.setattr("vizapp.ui.inputs.networks.load", vizapp.load)  # one that is kept takes no memory
    with ExitStack() as other:
        other.enter_context(room.reserve({cpu: 2**40}, "other work"))

        def noted(work: RunningJob | None, title: str) -> str:
            told.append(doing(work, title))
            if "memory" in told[-1]:
                other.close()
            return told[-1]

        monkeypatch.setattr(runs, "describe", noted)
        app = open_app()
    assert went_well(app)
    assert len(offered(app)) == 3
    assert "Waiting for memory that other work holds" in told


@pytest.mark.parametrize(
    ("layer", "cell", "told"),
    [
        ("layer1.0.relu", "8,8", "5 × 5 pixels."),
        ("layer1.0.relu", "0,8", "5 × 5 pixels, extending beyond the image border (grey)."),
        ("layer3.2.relu", "3,3", " pixels; the whole photo is shown."),
    ],
)
def test_the_field_of_a_cell_is_shown_as_it_is_told(open_app: Open, layer: str, cell: str, told: str) -> None:
    app = open_app("feature_maps", network="vizapp/resnet20-cifar", weights="random", layer=layer, cell=cell)
    assert went_well(app)
    (sentence,) = [caption.value for caption in app.caption if "Receptive field" in caption.value]
    assert sentence.endswith(told)
    assert shown(app, "maps.patch")["size"] == ([32, 32] if "whole" in told else [5, 5])


@pytest.mark.parametrize(("closed", "verb"), [(True, "read"), (False, "written")])
def test_a_file_that_nobody_may_open_is_told_for_what(
    open_app: Open, tmp_path, monkeypatch: pytest.MonkeyPatch, closed: bool, verb: str
) -> None:
    place, answered = tmp_path / "list", messages.os.access
    place.write_bytes(b"")

    def access(path: object, mode: int) -> bool:  # root may read everything
        return not closed if str(path) == str(place) else answered(path, mode)  # type: ignore[arg-type]

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(place))

    monkeypatch.setattr(messages.os, "access", access)
    monkeypatch.setattr("vizapp.methods.ask", denied)
    app = open_app()
    assert went_well(app)
    assert f"list' cannot be {verb} on this machine: Permission denied." in sentences(app)


def test_the_unexpected_becomes_a_sentence_with_a_number_for_the_log(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("vizapp.methods.ask", broken)
    app = open_app()
    assert not app.exception
    told = sentences(app)
    assert "Unexpected error" in told
    assert told.split("ID ")[1].rstrip(".") in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_click_on_something_that_has_gone_is_ignored() -> None:
    from vizapp.ui.session import state

    assert state.clicked("maps.sheet", "chosen") is None
