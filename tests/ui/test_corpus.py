"""The bad inputs of the corpus through the app: uploads and links. A sentence each, and the app goes on."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests import corpus
from tests.corpus import Case
from tests.ui.conftest import Open, offered, sentences, went_well

SECONDS = 3.0  # of a whole run of the page, on a busy machine
FEW = slice(None, None, 24)  # in every run of the tests; all of them in the slow ones
PAGES = ("predict", "feature_maps", "projection")


def some(cases: Sequence[Any]) -> list[Any]:
    """Every twenty-fourth, and the rest marked slow, in portions."""
    few = list(cases[FEW])
    rest = [case for case in cases if case not in few]
    portions = [rest[start : start + 60] for start in range(0, len(rest), 60)]
    return [
        pytest.param(few, id="few"),
        *(pytest.param(p, id=f"rest {n}", marks=pytest.mark.slow) for n, p in enumerate(portions)),
    ]


def told(app: AppTest, case: Case, key: str) -> str:
    """What the app says when the file is uploaded."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        app.file_uploader(key=key).upload(case.name, case.content, "application/octet-stream").run()
    assert time.perf_counter() - began < SECONDS, case.name
    assert went_well(app), case.name
    return sentences(app)


@pytest.mark.parametrize("cases", some([*corpus.pictures(), *corpus.zips()]))
def test_uploads_that_are_no_pictures_are_told_and_the_app_goes_on(open_app: Open, cases: list[Case]) -> None:
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    for case in cases:
        said = told(app, case, "sidebar.upload")
        assert said or not case.fails, case.name
        assert len(offered(app)) == 2, case.name  # an answer is there all the while


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


@pytest.mark.parametrize("addresses", some(corpus.addresses()))
def test_links_that_make_no_sense_are_told_and_the_page_opens(open_app: Open, addresses: list[dict[str, str]]) -> None:
    for number, address in enumerate(addresses):
        began = time.perf_counter()
        app = open_app(PAGES[number % 3], **{"weights": "random"} | address)
        assert time.perf_counter() - began < 2 * SECONDS, address
        assert went_well(app), address
        assert app.selectbox(key="sidebar.network").value
