"""Server mode: what users may name, how long uploads are kept, what the log and the pages reveal."""

from __future__ import annotations

import ast
import json
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.media.files import noise, saved
from tests.ui.app import ROOT, Open, sentences, shown, went_well
from vizapp.errors import VizError
from vizapp.ui.inputs.uploads import UploadKey, UploadRegistry
from vizapp.ui.session import access
from vizapp.ui.session.messages import escaped
from vizapp.ui.widgets import maps


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A root with a folder of pictures, and secrets beside it."""
    (tmp_path / "root" / "birds").mkdir(parents=True)
    (tmp_path / "root" / "birds" / "one.png").write_bytes(saved(noise(20, 30)))
    (tmp_path / "rooted").mkdir()  # a name that begins like the root's
    (tmp_path / "rooted" / "three.png").write_bytes(saved(noise(20, 30)))
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "two.png").write_bytes(saved(noise(20, 30)))
    (tmp_path / "root" / "birds" / "way out").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "birds" / "out.png").symlink_to(tmp_path / "secret" / "two.png")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root" / "loop")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "secret")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("address", "others"),
    [
        ("localhost", False), ("127.0.0.1", False), ("127.8.9.1", False), ("::1", False), (None, True), ("", True),
        ("0.0.0.0", True), ("192.168.1.7", True), ("::", True), ("lab.example.org", True),
    ],
)  # fmt: skip
def test_every_address_but_a_loopback_one_is_for_others(
    monkeypatch: pytest.MonkeyPatch, address: str | None, others: bool
) -> None:
    monkeypatch.setattr(st, "get_option", lambda name: address)
    assert access.shared() is others
    monkeypatch.setenv("VIZAPP_MODE", "local" if others else "server")
    assert access.shared() is not others


def test_the_app_listens_on_this_machine_alone_unless_told(open_app: Open) -> None:
    open_app()
    assert st.get_option("server.address") == "localhost"
    assert st.get_option("browser.gatherUsageStats") is False
    assert not access.shared()


@pytest.mark.parametrize(
    "path",
    [
        "..", "../secret", "birds/../../secret", "/etc", "{secret}", "birds/way out", "out", "out/../../secret", "loop",
        "~", "~root", "/", "../rooted", "birds/../..", "{rooted}",
    ],
)  # fmt: skip
def test_nothing_outside_of_the_root_can_be_named(house: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    path = path.format(secret=house.parent / "secret", rooted=house.parent / "rooted")
    with pytest.raises(VizError, match="is outside of the folder"):
        access.allowed(path)


def test_nothing_is_told_about_what_is_outside(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    told = []
    for path in ("/etc/passwd", "/etc/no such file", "~root", "~nobody of this name", "../secret", "../nothing"):
        with pytest.raises(VizError) as caught:
            access.allowed(path)
        told.append(str(caught.value).replace(path, ""))
    assert len(set(told)) == 1


def test_what_lies_in_the_root_can_be_named(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    for path in ("birds", "./birds", str(house / "birds"), "birds/../birds"):
        assert access.allowed(path) == house / "birds"
    assert access.allowed(".") == house


@pytest.mark.parametrize("quoted", ["'{}'", '"{}"', "  '{}' "])
def test_a_path_in_quotes_is_understood_on_ones_own_machine_alone(
    open_app: Open, house: Path, monkeypatch: pytest.MonkeyPatch, quoted: str
) -> None:
    assert access.allowed(quoted.format(house / "birds")) == house / "birds"
    named = house / "'birds'"
    named.mkdir()
    assert access.allowed(f"'{house}/'birds''") == named
    monkeypatch.chdir(house)
    assert access.allowed("'birds'") == Path("'birds'"), "there is a folder of that name"
    for text in ("'", "''", "'\0'", "'birds"):
        with suppress(VizError):
            assert access.allowed(text) == Path(text)
    app = open_app(folder=quoted.format(house / "birds"), picture="one.png")
    assert went_well(app)
    assert not app.warning
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    for text in (str(house.parent / "secret"), "~", "~root", "//host/share"):
        found = access.allowed(quoted.format(text))
        assert found.is_relative_to(house)
        assert not found.exists()


def test_a_server_without_a_root_opens_no_folder(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_MODE", "server")
    with pytest.raises(VizError, match="cannot be opened here"):
        access.allowed("/tmp")
    app = open_app(weights="file")
    assert "folder" not in [option.lower() for option in app.segmented_control(key="sidebar.source").options]
    assert "sidebar.checkpoint_path" not in [element.key for element in app.text_input]
    assert went_well(app)


def test_in_a_folder_of_the_root_links_that_lead_out_are_passed_over(
    open_app: Open, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_MODE", "server")
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("folder").run()
    app.text_input(key="sidebar.folder").set_value("birds").run()
    assert went_well(app)
    assert not app.warning
    assert app.selectbox(key="sidebar.folder_picture").options == ["one.png"]
    app.text_input(key="sidebar.folder").set_value("../secret").run()
    assert "is outside of the folder" in sentences(app)


def test_a_checkpoint_outside_of_the_root_is_not_read(
    open_app: Open, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    app = open_app(weights="file")
    app.text_input(key="sidebar.checkpoint_path").set_value(str(house.parent / "secret" / "two.png")).run()
    assert "is outside of the folder" in sentences(app)
    assert "choice.checkpoint" not in app.session_state


def test_a_list_of_pictures_names_none_outside_of_the_root(house: Path) -> None:
    from vizapp.media.sources import open_folder

    rows = ["birds/one.png", "../secret/two.png", str(house.parent / "secret" / "two.png"), "birds/out.png"]
    (house / "list.csv").write_text("path\n" + "\n".join(rows) + "\n")
    assert len(open_folder(house / "list.csv")) == 4
    inside = open_folder(house / "list.csv", house)
    assert [inside.path(index) for index in range(len(inside))] == ["birds/one.png"]


@pytest.mark.parametrize("path", ["/etc", "../secret", "~", "birds/way out", "no such folder"])
def test_a_link_to_a_gallery_names_no_folder_outside_of_the_root(
    open_app: Open, house: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("VIZAPP_MODE", "server")
    app = open_app("gallery", data=path)
    assert went_well(app)
    assert "cannot be opened here" in sentences(app)
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    app = open_app("gallery", data=path)
    assert went_well(app)
    assert ("There is no folder" if path == "no such folder" else "is outside of the folder") in sentences(app)


# What people give


def test_uploads_go_when_their_session_has_been_away_for_a_while() -> None:
    gone: list[UploadKey] = []
    kept = UploadRegistry(grace=0.1)
    for person in ("ann", "bob"):
        kept.register(person, ("picture", "shared"), 10, 100, partial(gone.append, ("picture", "shared")))
        kept.register(person, ("picture", person), 10, 100, partial(gone.append, ("picture", person)))
    kept.disconnected("ann")
    time.sleep(0.3)
    assert gone == [("picture", "ann")]
    assert not kept.has("ann", ("picture", "ann"))
    kept.disconnected("bob")
    time.sleep(0.3)
    assert set(gone[1:]) == {("picture", "shared"), ("picture", "bob")}


def test_who_comes_back_in_time_keeps_everything() -> None:
    gone: list[UploadKey] = []
    kept = UploadRegistry(grace=0.15)
    kept.register("ann", ("picture", "a"), 10, 100, partial(gone.append, ("picture", "a")))
    kept.disconnected("ann")
    kept.connected("ann")
    time.sleep(0.3)
    assert gone == []
    assert kept.has("ann", ("picture", "a"))


def test_a_session_keeps_no_more_than_its_share() -> None:
    gone: list[UploadKey] = []
    kept = UploadRegistry()
    for number in range(5):
        kept.register("ann", ("picture", str(number)), 40, 100, partial(gone.append, ("picture", str(number))))
    assert gone == [("picture", str(number)) for number in range(3)]
    kept.register("ann", ("picture", "huge"), 1000, 100, partial(gone.append, ("picture", "huge")))
    assert kept.has("ann", ("picture", "huge"))
    assert len(gone) == 5


def test_an_uploaded_picture_its_answers_and_an_uploaded_checkpoint_can_be_let_go(open_app: Open) -> None:
    import torch

    from vizapp import load
    from vizapp.ui.inputs import images, networks
    from vizapp.ui.session.compute import answers

    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    before = len(answers())
    app.file_uploader(key="sidebar.upload").upload("noise.png", saved(noise(20, 30)), "image/png").run()
    assert went_well(app)
    assert len(answers()) == before + 5  # prediction, map, crops, a thumbnail and the strip of thumbnails
    digest = app.session_state["picture.origin"][1]
    images.forget(digest)
    assert images.decoded_pictures().get(("given", digest)) is None
    assert len(answers()) == before
    content = Path(networks._uploaded_files().name) / "net.pth"
    torch.save(load("vizapp/lenet5-digits", weights="none").module.state_dict(), content)
    path, _ = networks.checkpoint(networks.keep_checkpoint(content.read_bytes(), "../../a b.pth"))
    assert path.name == "a-b.pth"
    assert path.is_relative_to(networks._uploaded_files().name)
    networks.forget_checkpoint(str(path))
    assert not path.parent.exists()


# What the log tells


@pytest.mark.slow
def test_the_log_has_a_line_per_answer_without_names_or_contents_of_pictures(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_LOG", str(tmp_path / "log"))
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    app.file_uploader(key="sidebar.upload").upload("my secret.png", saved(noise(20, 30)), "image/png").run()
    app.run()
    open_app("dense", network="torchvision/lraspp_mobilenet_v3_large", weights="random")  # has no class scores
    text = (tmp_path / "log").read_text()
    assert "secret" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    told = [(line["method"], line["network"], line["outcome"]) for line in lines if line["event"] == "answer"]
    net = "vizapp/lenet5-digits"
    for expected in (("network", net, "computed"), ("predict", net, "computed"), ("predict", net, "kept")):
        assert expected in told
    assert ("dense.plan", "torchvision/lraspp_mobilenet_v3_large", "refused") in told
    for line in lines:
        assert {"time", "event", "seconds"} <= line.keys()
        if line["event"] == "answer":
            assert line["seconds"] >= line["queued"] >= 0
            assert (line["bytes"] > 0) is (line["outcome"] in {"computed", "joined", "kept"})
    assert any(line["event"] == "page" and line["page"] == "predict" for line in lines)


def test_a_log_that_cannot_be_written_stops_nobody(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_LOG", str(tmp_path / "no folder" / "log"))
    assert went_well(open_app())


def test_on_one_persons_machine_nothing_is_logged_unless_asked(
    open_app: Open, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_app()
    assert '"event"' not in capfd.readouterr().err
    monkeypatch.setenv("VIZAPP_MODE", "server")
    open_app()
    assert '"event": "answer"' in capfd.readouterr().err


# What pages show of names

EVIL = '<img src=x onerror="alert(1)">[a](javascript:alert(1)) $x$ :red[b] `c` www.evil.example a@b.example'


def test_names_are_never_markup(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    name = EVIL.replace("/", "") + ".png"
    app.file_uploader(key="sidebar.upload").upload(name, saved(noise(20, 30)), "image/png").run()
    assert went_well(app)
    assert not _markup_with(app, "onerror")
    assert name in shown(app, "predict.seen")["label"]  # the component writes it as text
    app.file_uploader(key="sidebar.upload.1").upload(name, b"no picture", "image/png").run()
    assert any("onerror" in warning.value for warning in app.warning)
    assert not _markup_with(app, "onerror")


def _markup_with(app: AppTest, word: str) -> list[str]:
    """Texts with the word that the browser would read as markup."""
    texts = [e.proto.body for e in app.get("html")] + [
        e.value for kind in (app.markdown, app.caption, app.warning, app.error, app.info) for e in kind
    ]
    return [text for text in texts if word in text and r"\<img" not in text]


def test_every_mark_of_markdown_is_escaped() -> None:
    told = escaped(EVIL)
    for mark in "<>[]$:`@":
        assert told.count(mark) == told.count("\\" + mark)
    assert "www.evil" not in told


def _calls(name: str) -> list[tuple[Path, ast.Call]]:
    found = []
    for path in (ROOT / "vizapp" / "ui").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name:
                found.append((path, node))
    return found


def test_what_is_put_into_html_is_escaped_and_markdown_never_lets_html_through() -> None:
    calls = _calls("html")
    assert calls
    for path, call in calls:
        values = [part.value for arg in call.args for part in ast.walk(arg) if isinstance(part, ast.FormattedValue)]
        for value in values:
            name = getattr(value.func, "id", getattr(value.func, "attr", "")) if isinstance(value, ast.Call) else ""
            is_escaped = name in {"escape", "legend"}  # the legend of dense maps escapes its names itself: see below
            assert is_escaped, f"{path.name}:{call.lineno} writes {ast.unparse(value)} into HTML"
    for path in (ROOT / "vizapp" / "ui").rglob("*.py"):
        assert "unsafe_allow" not in path.read_text(), path


def test_the_legend_of_dense_maps_escapes_the_names_of_classes() -> None:
    from vizapp.methods.dense_overlay import legend

    table = ({"class": 0, "name": EVIL, "share": 1.0},)
    assert "<img" not in maps.legend(legend(SimpleNamespace(table=table)))  # type: ignore[arg-type]


def test_components_write_text_and_never_html() -> None:
    scripts = list((ROOT / "vizapp" / "components").glob("*.js"))
    assert scripts
    for path in scripts:
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
            assert way not in path.read_text(), f"{path.name} uses {way}"


@pytest.mark.parametrize(
    "parts", [("../../etc/passwd",), ("a\r\nSet-Cookie: x",), ('"; rm -rf /',), ("",), ("\u202egnp.exe",)]
)
def test_downloads_are_named_safely(parts: tuple[str, ...]) -> None:
    from vizapp.ui.session.downloads import file_name

    name = file_name(*parts)
    assert name
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert not name.startswith((".", "-"))
