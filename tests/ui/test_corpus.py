"""The bad inputs of the corpus through the app, as uploads and links: each gives a message, and the app goes on."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests import corpus
from tests.corpus import Case
from tests.media.files import noise, saved
from tests.ui.app import ASKING, Open, offered, sentences, shown, went_well
from tests.ui.session.test_access import EVIL
from vizapp.settings import settings
from vizapp.ui.app.pages import pages
from vizapp.ui.session import state

SECONDS = 3.0  # of a whole run of the page, on a busy machine
FEW, FEWER = 24, 4  # one of so many in every run of the tests, and in the slow ones; all of them with the families


def some(cases: Sequence[Any], step: int = FEW) -> list[Any]:
    """Every so-manieth, and of the rest, in portions, one of four marked slow and the others families."""
    few = list(cases[::step])
    rest = [case for case in cases if case not in few]
    slow = rest[::FEWER]
    left = [case for case in rest if case not in slow]
    return [
        pytest.param(few, id="few"),
        *(pytest.param(p, id=f"rest {n}", marks=pytest.mark.slow) for n, p in enumerate(_portions(slow))),
        *(pytest.param(p, id=f"all {n}", marks=pytest.mark.families) for n, p in enumerate(_portions(left))),
    ]


def _portions(cases: list[Any]) -> list[list[Any]]:
    return [cases[start : start + 60] for start in range(0, len(cases), 60)]


def told(app: AppTest, case: Case, key: str) -> str:
    """What the app says when the file is uploaded."""
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        uploader = next(one for one in app.file_uploader if one.key.startswith(key))
        uploader.upload(case.name, case.content, "application/octet-stream").run()
    assert time.process_time() - began < SECONDS, case.name
    assert went_well(app), case.name
    return sentences(app)


@pytest.mark.parametrize("cases", some([*corpus.pictures(), *corpus.zips()]))
def test_uploads_that_are_no_pictures_are_told_and_the_app_goes_on(open_app: Open, cases: list[Case]) -> None:
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    for case in cases:
        said = told(app, case, "sidebar.upload")
        assert said or not case.fails, case.name
        opened = app.session_state[state.ORIGIN][0] != "unreadable"
        assert len(offered(app)) in ((2, 3) if opened else (0,)), case.name  # no older answer under its name
        assert opened != bool(said), case.name


@pytest.mark.parametrize("cases", some([c for c in corpus.checkpoints() if c.name.count(".") == 1]))
def test_checkpoints_that_do_not_fit_are_told(open_app: Open, cases: list[Case]) -> None:
    app = open_app(weights="file")
    for case in cases:
        said = told(app, case, "sidebar.checkpoint")
        assert said or not case.fails, case.name
        assert "/tmp/vizapp-" not in said, case.name  # where files lie is nobody's business
    app.segmented_control(key="sidebar.weights").set_value("published").run()
    assert went_well(app)
    assert not app.warning


@pytest.mark.parametrize("addresses", some(corpus.addresses(), 60))
def test_links_that_make_no_sense_are_told_and_the_page_opens(open_app: Open, addresses: list[dict[str, str]]) -> None:
    for number, address in enumerate(addresses):
        if "\ud800" in address.values():  # no browser can send it
            continue
        began = time.process_time()
        app = open_app(ASKING[1 + number % 3], **{"weights": "random"} | address)
        assert time.process_time() - began < 2 * SECONDS, address
        assert went_well(app), address
        assert shown(app, "sidebar.network")["chosen"]


# Every choice of every page

# What fits in form, and to nothing that is there; the rest of the corpus is read by Hypothesis (tests/test_corpus_more.py).
WRONG = {
    "many": {"channel": "999999999", "cell": "999999999,999999999", "top": "20", "seed": "999999999", "sheet": "999999999",
             "window": "999999999", "stride": "999999999", "map": "999999999", "class": "999999999",
             "position": "999999999,0", "place": "0,999999999", "group": "nothing", "layers": "nothing,features.1",
             "occlusion.width": "28", "dense.stride": "999", "dense.zoom": "4", "dense.scales": "6"},
    "none": {"channel": "0", "cell": "0,0", "seed": "0", "sheet": "1", "window": "1", "stride": "1", "map": "0",
             "class": "0", "position": "0,0", "place": "0,0", "group": "", "layers": ",,", "dense.zoom": "0.1"},
    "others": {"layer": "classifier.0", "channel": "84", "cell": "3,3", "match": "nothing", "match2": "features.0",
               "class": "10", "picture2": "chelsea", "network2": "vizapp/zfnet-mini", "weights2": "random", "position": "3,3",
               "window": "28", "stride": "28", "occlusion.site": "features.1", "map": "6", "trained": "CIFAR-10"},
    "of no kind": dict.fromkeys(("layer", "match", "group", "layers", "occlusion.site", "data", "picture2"), EVIL),
    "huge": dict.fromkeys(("layer", "match", "group", "data", "occlusion.site", "dense.stride"), "x" * 50_000),
}  # fmt: skip


def carried(page: str) -> list[str]:
    """The names of all that an address of the page may carry."""
    return [*state.CHOICES, *(choice.name for choice in pages()[page].carried if choice.name not in state.CHOICES)]


@pytest.mark.parametrize("page", ASKING)
@pytest.mark.parametrize(
    "wrong", [pytest.param("many"), *(pytest.param(w, marks=pytest.mark.slow) for w in list(WRONG)[1:])]
)
def test_links_that_fit_to_nothing_there_open_every_page(open_app: Open, page: str, wrong: str) -> None:
    given = {name: value for name, value in WRONG[wrong].items() if "." not in name or name.partition(".")[0] == page}
    app = open_app(page, **given)
    assert went_well(app), sentences(app)
    assert shown(app, "sidebar.network")["chosen"] == "vizapp/lenet5-digits"
    app.run()
    assert went_well(app)


@pytest.mark.slow
@pytest.mark.parametrize("page", ASKING)
def test_links_in_which_everything_is_odd_open_every_page(open_app: Open, page: str) -> None:
    half = len(ASKING) // 2
    for text in corpus.ODD[ASKING.index(page) % half :: half]:  # each on two pages or more
        if text == "\ud800":  # no browser can send it
            continue
        app = open_app(page, **dict.fromkeys([name for name in carried(page) if name != "network"], text))
        assert went_well(app), (text[:50], sentences(app))


# Data of a gallery


@pytest.mark.parametrize("cases", some([*corpus.zips(), *corpus.pictures()[::5], *corpus.tables()[::5]]))
def test_uploads_that_are_no_zip_files_of_pictures_are_told(open_app: Open, cases: list[Case]) -> None:
    app = open_app("gallery")
    app.segmented_control(key="gallery.source").set_value("upload").run()
    for case in cases:
        if len(case.content) <= 25 * 2**20:
            said = told(app, case, "gallery.upload")
            if case.fails and not said:  # a list of files, none of which can be read: told when they are looked at
                app.button(key="gallery.build").click().run()
                assert went_well(app), case.name
                said = sentences(app)
            assert said or not case.fails, case.name
            assert "/tmp" not in said or case.name.startswith("way out"), case.name


@pytest.mark.parametrize("cases", some(corpus.galleries()))
def test_a_gallery_that_was_damaged_is_told_or_built_anew(open_app: Open, cases: list[Case], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.png").write_bytes(saved(noise(28, 28, seed=number)))
    app = open_app("gallery", data=str(photos), layers="features.1")
    for case in cases:
        if "gallery.build" in [button.key for button in app.button]:
            app.button(key="gallery.build").click().run()
        (place,) = (settings().cache / "galleries").iterdir()
        file = place / case.name.rpartition("/")[0]
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(case.content)
        if "_work" in case.name:
            (place / "_manifest.json").unlink()
        app.run()
        assert went_well(app), case.name
        if "gallery.anew" in [button.key for button in app.button]:
            app.button(key="gallery.anew").click().run()
            assert went_well(app), case.name
            assert not app.warning, case.name
