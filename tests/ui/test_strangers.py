"""Untrusted users on every page of a shared server: names, uploads, markup, and leftover data."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

import vizapp
from tests.media.files import noise, saved
from tests.ui.app import ASKING, ROOT, Open, click, sentences, shown, went_well
from tests.ui.session.test_access import EVIL
from vizapp.media.sources import MOST_FILES, open_folder
from vizapp.settings import settings
from vizapp.ui.inputs import datasets, galleries, images, networks, stored_uploads, uploads
from vizapp.ui.pages.occlusion import sweep_runs
from vizapp.ui.pages.occlusion.mask_editor import mask_of
from vizapp.ui.session import access, compute, state
from vizapp.ui.session.downloads import file_name

NAME = (EVIL + " *c* ~d~ \u202eevil").replace("/", "")
FORMULA = "=cmd|' C calc'!A0"
_looked_at: list[tuple[Path, list[str]]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _looked_at and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, os.PathLike)):
        secret, seen = _looked_at[-1]
        if os.path.realpath(arguments[0]).startswith(str(secret)):
            seen.append(f"{event} {arguments[0]}")


sys.addaudithook(_audit)


@contextmanager
def untouched(secret: Path) -> Iterator[None]:
    """Inside, nothing in this folder is opened or listed, by whatever name."""
    seen: list[str] = []
    _looked_at.append((secret.resolve(), seen))
    try:
        yield
    finally:
        _looked_at.pop()
    assert not seen


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with pictures, lists and links, secrets beside it, and a server for others."""
    root, secret = tmp_path / "root", tmp_path / "secret"
    for folder in (root / "birds", secret):
        folder.mkdir(parents=True)
        for name in ("one.png", "two.png", "three.png"):
            (folder / name).write_bytes(saved(noise(28, 28, seed=len(name))))
    with zipfile.ZipFile(secret / "photos.zip", "w") as archive:
        archive.writestr("one.png", saved(noise(28, 28)))
    (secret / "list.csv").write_text("path\none.png\n")
    (secret / "net.safetensors").write_bytes(weights())
    (secret / "only here.png").write_bytes(saved(noise(28, 28)))
    for name in ("photos.zip", "list.csv", "net.safetensors", "one.png"):
        (root / f"linked {name}").symlink_to(secret / name)
    (root / "out").symlink_to(secret)
    (root / "outside.csv").write_text(f"path\n../secret/one.png\n{secret}/one.png\nout/one.png\n")
    (root / "lists").mkdir()
    (root / "lists" / "beside").symlink_to(secret)
    (root / "lists" / "beside.csv").write_text("path\nonly here.png\n")
    monkeypatch.setenv("VIZAPP_MODE", "server")
    return root


def weights(*names: str) -> bytes:
    """A checkpoint of `vizapp/lenet5-digits`, with these names of classes."""
    state_dict = vizapp.load("vizapp/lenet5-digits", weights="none", device="cpu").module.state_dict()
    metadata = {"classes": json.dumps(names)} if names else None
    return save({name: value.contiguous() for name, value in state_dict.items()}, metadata)


def ways_out(root: Path) -> list[str]:
    secret = root.parent / "secret"
    return [
        str(secret), "../secret", "out", "birds/../../secret", f"file://{secret}", f"//{secret}", "\\\\host\\share",
        "http://127.0.0.1:9/photos.zip", "linked photos.zip", "linked list.csv", "outside.csv", "lists/beside.csv",
        f"{secret}/photos.zip", "../secret/list.csv", "~/photos", " ../secret ", str(settings().cache), "%2e%2e/secret",
    ]  # fmt: skip


def more_ways_out(root: Path) -> list[str]:
    """The same in other words: other slashes, dots, encodings, spaces, forms of Unicode, devices and schemes."""
    secret = root.parent / "secret"
    inside = [f"{way}secret" for way in (
        "./../", "birds/../../", "birds//..//../", "birds/./../../", "out/../../", "../root/../", "lists/beside/../",
        "../" * 40, ".. /", "..\\", "birds\\..\\..\\", "..%2f", "..%252f", "%2e%2e%2f", "..%c0%af", "..%5c", "..;/",
        "\u2025/", "．．/",
        "..／", "..∕", "..\u200b/", "\ufeff../", "..\t/", "\n../", "../\r", "$HOME/../", "${VIZAPP_ROOT}/../", "`pwd`/../",
    )]  # fmt: skip
    whole = [form.format(secret) for form in (
        "file:{}", "FILE://{}", "file://localhost{}", "/proc/self/root{}", "/proc/self/cwd/../{}", "/dev/fd/../..{}", "//./{}",
        "///{}", "\\\\?\\{}", "{}/", "{}/.", "{}/../secret", "{}\0", "{}\0.png", " {}", "{}\n", "zip://{}!", "ftp://h{}",
    )]  # fmt: skip
    others = [
        "/proc/self/environ", "/proc/1/root", "/dev/stdin", "/etc", "/", "~", "~root", "~/../../etc", "-",
        "torchvision/../../etc", "torchvision/CIFAR10:../..", "upload/../../x", "upload/" + "0" * 32, "\\\\localhost\\c$", "s3://bucket/x",
    ]  # fmt: skip
    return [*inside, *whole, *others]


# What they name


def test_no_name_of_what_lies_outside_opens_it(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (None, house):
        if root is not None:
            monkeypatch.setenv("VIZAPP_ROOT", str(root))
        with untouched(house.parent / "secret"):
            for way in [*ways_out(house), *more_ways_out(house)]:
                with pytest.raises(vizapp.VizError):
                    images.folder(way).open(0)
                with pytest.raises((vizapp.VizError, FileNotFoundError, NotADirectoryError)):
                    access.allowed(f"{way}/net.safetensors", "file").read_bytes()


@pytest.mark.parametrize("root", [True, False])
def test_no_page_opens_what_lies_outside(
    open_app: Open, house: Path, monkeypatch: pytest.MonkeyPatch, root: bool
) -> None:
    if root:
        monkeypatch.setenv("VIZAPP_ROOT", str(house))
    gallery, side = open_app("gallery", data="samples"), open_app(weights="file")
    if not root:
        assert not {"sidebar.folder", "sidebar.checkpoint_path"} & _keys(side)
        assert "gallery.folder" not in _keys(gallery)
        assert "folder" not in [option.lower() for option in gallery.segmented_control(key="gallery.source").options]
    else:
        side.segmented_control(key="sidebar.source").set_value("folder").run()
    with untouched(house.parent / "secret"):
        for way in ways_out(house)[1 : 99 : 5 if root else 9]:
            gallery.query_params["data"] = way
            gallery.run()
            assert went_well(gallery), way
            assert sentences(gallery) or "beside" in way, way  # of that the picture that is not there is told
            if root:
                side.text_input(key="sidebar.folder").set_value(way)
                side.text_input(key="sidebar.checkpoint_path").set_value(f"{way}/net.safetensors").run()
                assert went_well(side), way
                assert sentences(side), way


def _keys(app: AppTest) -> set[str]:
    return {element.key for kind in (app.text_input, app.button, app.selectbox) for element in kind if element.key}


@pytest.mark.slow
def test_compare_matches_over_no_folder_outside(open_app: Open, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app("compare", other="vizapp/lenet5-digits")
    assert went_well(app)
    assert "compare.folder" not in _keys(app)
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    app = open_app("compare", other="vizapp/lenet5-digits")
    with untouched(house.parent / "secret"):
        for way in ("../secret", "out", "lists/beside.csv", "linked photos.zip"):
            app.text_input(key="compare.folder").set_value(way).run()
            app.button(key="compare.match").click().run()
            assert went_well(app), way
            assert sentences(app), way
    app.text_input(key="compare.folder").set_value("birds").run()
    app.button(key="compare.match").click().run()
    assert len(app.dataframe) == 1


def test_links_set_no_option_that_names_a_folder(open_app: Open, house: Path) -> None:
    secret = house.parent / "secret"
    names = ("filters.gallery", "gallery.out", "occlusion.site", "weights.file", "out", "architecture.rows")
    with untouched(secret):
        for page in ("gallery", "occlusion", "filters", "architecture"):
            app = open_app(page, window="14", stride="14", **dict.fromkeys(names, str(secret)))
            assert went_well(app), page
    assert not (secret / "_manifest.json").exists()


def test_a_list_of_pictures_is_read_from_no_folder_beside_it_that_leads_out(house: Path) -> None:
    listed = house / "lists" / "beside.csv"
    assert open_folder(listed).open(0).name == "only here.png"
    with pytest.raises(vizapp.VizError, match="There is no file"), untouched(house.parent / "secret"):
        open_folder(listed, house).open(0)


def test_sentences_do_not_tell_where_things_lie(open_app: Open, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    (house / "empty").mkdir()
    (house / "broken.zip").write_bytes(b"PK\3\4 nothing")
    app = open_app("gallery", data="empty")
    for way in ("empty", "nothing here", "broken.zip", "birds/one.png"):
        app.query_params["data"] = way
        app.run()
        assert sentences(app), way
        assert str(house) not in sentences(app), way
    told = f"{settings().cache}/x and '{house}/y'; cannot open local file:'{Path.home()}/.cache/a b'"
    assert access.discreet(told) == "…/x and '…/y'; cannot open local file:'…/a b'"
    monkeypatch.setenv("VIZAPP_MODE", "local")
    assert access.discreet(told) == told


_GUESSES = (
    "{}",
    "{}ed",
    "..{}",
    "../{}",
    "x{}",
    "{}/x",
    "'{}'",
    " {}",
    "{}/..",
    "a b{}",
    "({}",
    "[{}",
    "{} x",
    "\\{}",
    "{}.",
)


@pytest.mark.parametrize("form", _GUESSES)
def test_sentences_do_not_confirm_a_guess_where_things_lie(
    house: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The answer to a right guess has the same form as the answer to a wrong one."""
    monkeypatch.setenv("VIZAPP_MODE", "server")
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    for place in (Path.home(), house, settings().cache, Path(tempfile.gettempdir())):
        wrong = Path("/", *("x" * len(part) for part in place.parts[1:]))
        for sentence in ("There is no layer {!r}.", "{} is outside."):
            right, other = (access.discreet(sentence.format(form.format(guess))) for guess in (place, wrong))
            assert re.sub("|".join(map(re.escape, place.parts[1:])), lambda found: "x" * len(found[0]), right) == other


def test_innocent_names_are_not_garbled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_MODE", "server")
    for sentence in (
        "features/relu and/or x/y.",
        "1/2 of a/b",
        "https://arxiv.org/abs/1",
        "../rooted",
        "a / b",
        "./tmp/x",
    ):
        assert access.discreet(sentence) == sentence


def test_a_cancelled_photo_leaves_the_earlier_one_until_it_is_asked_for_again(open_app: Open) -> None:
    content = saved(noise(40, 40))
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    app.session_state["wishes"] = {("cancel", state.name_of(("given", stored_uploads.digest_of(content, "a.png"))))}
    app.file_uploader(key="sidebar.upload").upload("a.png", content, "image/png").run()
    assert went_well(app)
    assert "Cancelled." in [caption.value for caption in app.sidebar.caption]
    assert state.ORIGIN not in app.session_state
    next(button for button in app.button if button.label == "Run again").click().run()
    assert "Cancelled." not in [caption.value for caption in app.caption]
    assert app.session_state[state.ORIGIN][0] == "given"


@pytest.mark.parametrize("page", ["predict", "occlusion", "compare"])
def test_a_cancelled_photo_of_a_folder_is_told_until_it_is_asked_for_again(
    open_app: Open, tmp_path: Path, page: str
) -> None:
    (tmp_path / "one.png").write_bytes(saved(noise(40, 40)))
    key = ("folder", str(tmp_path), "one.png", open_folder(tmp_path).stamp(0))
    app = open_app(page, window="14", stride="14")
    app.segmented_control(key="sidebar.source").set_value("folder").run()
    app.session_state["wishes"] = {("cancel", state.name_of(key))}
    app.text_input(key="sidebar.folder").set_value(str(tmp_path)).run()
    assert went_well(app)
    assert "Decoding one.png was cancelled." in sentences(app)
    assert "Cancelled." in [caption.value for caption in app.caption]
    next(button for button in app.button if button.label == "Run again").click().run()
    assert went_well(app)
    assert not app.warning
    assert "Cancelled." not in [caption.value for caption in app.caption]


# What they would have downloaded


def test_links_alone_download_nothing(open_app: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch
    from torchvision import datasets

    from vizapp.zoo import weights as fetching

    asked: list[str] = []

    def download(url: str, *more: object) -> None:
        asked.append(url)
        raise fetching._DownloadError("no network here")

    def dataset(root: str, train: bool = True, download: bool = False) -> None:
        if download:
            asked.append("data")
        raise RuntimeError("not found")

    monkeypatch.setattr(fetching, "download", download)
    monkeypatch.setattr(datasets, "CIFAR10", dataset)
    monkeypatch.setenv("VIZAPP_WEIGHTS", str(tmp_path))
    torch.hub.set_dir(str(tmp_path / "hub"))
    net = "torchvision/squeezenet1_1"
    for page in ("predict", "gallery", "architecture"):
        app = open_app(page, network=net)
        assert went_well(app)
        assert not asked
    for more in ({"network2": net}, {"other": net, "other_weights": "published"}):
        assert went_well(open_app("occlusion" if "network2" in more else "compare", **more))
    for data in ("torchvision/CIFAR10", "Torchvision/cifar10", " TORCHVISION/CIFAR10:train"):
        assert went_well(open_app("gallery", data=data)), data
    assert not asked
    app = open_app(network=net)
    app.button(key="weights.download").click().run()
    assert [url.rpartition("/")[2][:14] for url in asked] == ["squeezenet1_1-"]
    assert "failed" in sentences(app)


def test_a_network_that_was_picked_is_fetched_without_a_question(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    from vizapp.zoo import weights as fetching

    asked: list[str] = []
    monkeypatch.setattr(fetching, "download", lambda url, *more: asked.append(url) or (_ for _ in ()).throw(
        fetching._DownloadError("no network here")))  # fmt: skip
    torch.hub.set_dir(str(tmp_path / "hub"))
    app = open_app()
    click(app, "sidebar.network", "chosen", "torchvision/squeezenet1_1")
    assert len(asked) == 1
    assert went_well(app)


# What they give


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(f"{name}/{number}.png", saved(noise(28, 28, seed=number)))
    return stream.getvalue()


@pytest.fixture
def built(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The gallery of an uploaded zip file, on a server for others."""
    monkeypatch.setenv("VIZAPP_MODE", "server")
    app = open_app("gallery", layers="features.1,classifier.0")
    app.segmented_control(key="gallery.source").set_value("upload").run()
    app.file_uploader(key="gallery.upload").upload("mine.zip", zipped(NAME, NAME, "two"), "application/zip").run()
    app.button(key="gallery.build").click().run()
    assert went_well(app)
    return app


def test_an_uploaded_zip_file_goes_with_all_that_was_made_of_it(built: AppTest) -> None:
    from vizapp.gallery.reader import find_galleries

    digest = built.query_params["data"][0].removeprefix("upload/") if isinstance(built.query_params["data"], list) else (
        built.query_params["data"].removeprefix("upload/"))  # fmt: skip
    folder = settings().cache / "uploads"
    archive = folder / f"{digest}.zip"
    assert uploads.upload_registry().has(built.session_state["person"], ("archive", str(archive)))
    assert list(datasets.galleries_of(archive).glob("*/_manifest.json"))
    assert find_galleries(vizapp.load("vizapp/lenet5-digits")) == []  # nobody else is told of it
    told = [key for key, _ in compute.answers().items() if any(digest in part for part in key)]
    assert told
    datasets.forget(archive)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    for shelf in (compute.answers(), galleries.galleries(), datasets._collections()):
        assert not [key for key, _ in shelf.items() if any(digest in part for part in key)]
    built.run()
    assert went_well(built)
    assert "no longer kept" in sentences(built)


def test_uploads_that_an_ended_server_left_go_after_two_days(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_MODE", "server")
    old, new = (open_folder(zipped(name)).root for name in ("old", "new"))
    (datasets.galleries_of(old) / "x").mkdir(parents=True)
    os.utime(old, (time.time() - 200_000,) * 2)
    datasets._remove_leftovers(old.parent)
    assert sorted(old.parent.iterdir()) == [new]


def test_an_uploaded_zip_file_lists_no_more_files_than_can_be_listed() -> None:
    entry = b"PK\1\2" + bytes(42)
    began = time.process_time()
    with pytest.raises(vizapp.VizError, match="more than 50,000 files"):
        open_folder(entry * (MOST_FILES + 1))
    assert time.process_time() - began < 1
    assert not (settings().cache / "uploads").exists()


def test_answers_about_an_upload_go_even_if_the_picture_itself_went_before(open_app: Open) -> None:
    app = open_app("occlusion")
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    before = {key for key, _ in compute.answers().items()}
    app.file_uploader(key="sidebar.upload").upload("a.png", saved(noise(28, 28)), "image/png").run()
    app.button(key="occlusion.keep").click().run()
    assert went_well(app)
    assert {key for key, _ in compute.answers().items()} - before
    digest = app.session_state[state.ORIGIN][1]
    assert app.session_state[state.SECOND_ORIGIN][1] == digest
    pixels = images._pixels()[digest]
    images.decoded_pictures().drop_where(lambda key: True)  # others' pictures have taken its place
    sweep_runs.running_sweeps().put(("occlusion.plan", "x", pixels), None, 1)  # type: ignore[arg-type]
    images.forget(digest)
    for shelf in (compute.answers(), sweep_runs.running_sweeps(), images.decoded_pictures()):
        assert not [key for key, _ in shelf.items() if pixels in key or digest in key]
    app.run()
    assert went_well(app)
    assert not app.warning, "the file is stored"
    images.forget(digest)
    next((settings().cache / "uploads").glob(f"{digest}*")).unlink()
    app.run()
    assert "not on this machine any more" in sentences(app)


def test_answers_of_an_uploaded_checkpoint_go_with_it(open_app: Open) -> None:
    app = open_app(weights="file")
    app.file_uploader(key="sidebar.checkpoint").upload("net.safetensors", weights(), "application/octet-stream").run()
    assert went_well(app)
    path = str(networks.checkpoint(app.session_state[state.CHECKPOINT.key])[0])
    digest = next(network.digest for key, network in networks.open_networks().items() if path in key)
    assert [key for key, _ in compute.answers().items() if digest in key]
    networks.forget_checkpoint(path)
    assert not [key for key, _ in compute.answers().items() if digest in key]
    assert not Path(path).exists()


def test_a_second_picture_and_a_mask_are_what_the_browser_sends_and_no_more() -> None:
    size = (28, 28)
    for kept in ((28, 28, "%%%"), (28, 28, None), (28, 28, 5), (28, 28, "AAAA"), (1, 1, "AAAA"), (28, 28, "é")):
        assert not mask_of(kept, size).any()  # type: ignore[arg-type]


# What their names would do


def texts_of(app: AppTest) -> Iterator[tuple[str, str]]:
    """What the browser reads as Markdown or HTML, wherever it stands: kind and text."""

    def walk(message: Any) -> Iterator[tuple[str, str]]:
        for descriptor, value in message.ListFields():
            many = value if descriptor.is_repeated else [value]
            for one in many:
                if descriptor.type == descriptor.TYPE_MESSAGE and hasattr(one, "ListFields"):
                    yield from walk(one)
                elif descriptor.name in {"body", "label", "help", "text", "caption", "content", "tooltip"}:
                    yield f"{message.DESCRIPTOR.name}.{descriptor.name}", str(one)

    for element in app._tree:
        proto = getattr(element, "proto", None)
        if proto is not None and hasattr(proto, "ListFields"):
            yield from walk(proto)


def markup_in(app: AppTest) -> list[tuple[str, str]]:
    html = r"<img(?! src=\"data:image/svg\+xml;base64,[\w+/=]+\" alt=\"[\w ,.:;–→-]*\" style=)"  # not our drawings
    markdown = r"(?<!\\)<img|(?<!\\):material|(?<!\\)\[a"
    return [(kind, text) for kind, text in texts_of(app) if re.search(html if kind == "Html.body" else markdown, text)]


@pytest.mark.parametrize("page", ASKING)
def test_names_of_classes_files_and_folders_are_text_on_every_page(
    open_app: Open, page: str, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{EVIL} :material/delete: {number}" for number in range(8)] + ["a" * 5000, FORMULA]
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    folder = house / NAME
    folder.mkdir()
    for number, name in enumerate((NAME, FORMULA)):
        (folder / f"{name}.png").write_bytes(saved(noise(28, 28, seed=number)))
    app = open_app(page, weights="file", layer="classifier.0", channel="3", other="vizapp/lenet5-digits", window="14",
                   stride="14")  # fmt: skip
    app.segmented_control(key="sidebar.source").set_value("folder").run()
    app.text_input(key="sidebar.folder").set_value(NAME).run()
    app.file_uploader(key="sidebar.checkpoint").upload(f"{NAME}.safetensors", weights(*names), "x/x").run()
    if page == "gallery":
        app.query_params["data"] = "."
        app.run()
        app.button(key="gallery.build").click().run()
    assert went_well(app)
    everything = "".join(str(element.proto) for element in app._tree if hasattr(element, "proto"))
    assert "onerror" in everything
    assert markup_in(app) == []
    for chart in app.get("plotly_chart"):
        assert "<img" not in str(chart.proto.spec)
    assert "\\342\\200\\256" not in everything  # the character that turns the direction, as protobuf writes it
    assert "a" * 300 not in everything


def test_tables_for_spreadsheets_hold_no_formula(built: AppTest) -> None:
    import pandas as pd

    from vizapp.methods.tables import frame_to_csv, to_csv, to_markdown

    rows = pd.DataFrame(
        {"site": ["a", "b"], "path": [FORMULA, "plain.png"], "label": ["@SUM(1)", None], "activation": [-1.5, 2]}
    )
    told = list(csv.DictReader(io.StringIO(frame_to_csv(rows).decode())))
    assert [row["path"] for row in told] == [f"'{FORMULA}", "plain.png"]
    assert [row["label"] for row in told] == ["'@SUM(1)", ""]
    assert [float(row["activation"]) for row in told] == [-1.5, 2]
    names = pd.DataFrame({"class name": [FORMULA], "share": [0.1], "seen": [True]})  # as of Occlusion
    assert frame_to_csv(names).decode() == f"class name,share,seen\n'{FORMULA},0.1,True\n"
    writers = [path.name for path in (ROOT / "vizapp").rglob("*.py") if ".to_csv(" in path.read_text()]
    assert writers == ["tables.py"], "the others would write formulas"
    table = [{"layer": FORMULA, "number": -2, "text": "-2.5", "odd": "\t=1"}, {"layer": "<img src=x>[a](b)|`c`"}]
    first = next(csv.DictReader(io.StringIO(to_csv(table))))
    assert first == {"layer": f"'{FORMULA}", "number": "-2", "text": "-2.5", "odd": "'\t=1"}
    assert "| &lt;img src=x>\\[a](b)\\|\\`c\\` |" in to_markdown(table)


def test_names_of_files_to_take_away_are_short_and_plain() -> None:
    name = file_name("gallery", "x" * 5000, NAME, "../" * 50)
    assert len(name) < 250
    assert name.isascii()
    assert "/" not in name


def test_files_whose_names_are_no_text_can_be_listed_shown_and_written(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "odd") + b"/cl\xff\xe2\x80\xae"
    os.makedirs(folder)
    for number in range(3):
        Path(os.fsdecode(folder + b"/\xfe%d.png" % number)).write_bytes(saved(noise(28, 28, seed=number)))
    found = open_folder(tmp_path / "odd")
    assert found.classes == ("cl??",)
    assert found.path(0) == "cl??/?0.png"
    assert found.open(0).name == "?0.png"
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    result = vizapp.ask("gallery", network, folder=found, sites="classifier.0", out=str(tmp_path / "gallery"))
    assert result.facts["pictures"].startswith("3 of ")


# What the log tells of long work


@pytest.mark.slow
def test_sweeps_and_galleries_have_their_lines_in_the_log(
    open_app: Open, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("VIZAPP_ROOT", str(house))
    app = open_app("occlusion", window="14", stride="14")
    assert went_well(app)
    app = open_app("occlusion", way="several", window="14", stride="14")
    app.button(key="occlusion.several.run").click().run()
    for _ in range(60):  # a fragment that watches asks for a run of the whole page, which AppTest does not always make
        if not [button for button in app.button if button.key == "occlusion.several.cancel"]:
            break
        app.run()
    assert went_well(app)
    app = open_app("gallery", data="birds", layers="features.1")
    app.button(key="gallery.build").click().run()
    assert went_well(app)
    text = (tmp_path / "log").read_text()
    assert "birds" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    net = "vizapp/lenet5-digits"
    for method in ("occlusion.sweep", "occlusion.several", "gallery.build"):
        (line,) = [line for line in lines if line.get("method") == method]
        assert (line["network"], line["outcome"]) == (net, "computed")
        assert line["seconds"] > 0
    shutil.rmtree(house / "birds")
    (house / "birds").mkdir()
    (house / "birds" / "a.png").write_bytes(b"none")
    st.cache_resource.clear()
    app = open_app("gallery", data="birds", layers="features.1")
    app.button(key="gallery.build").click().run()
    assert went_well(app)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["outcome"] for line in lines if line.get("method") == "gallery.build"] == ["computed", "refused"]
    assert shown  # of the page
