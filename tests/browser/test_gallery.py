"""The page Gallery in a real browser: build, cancel, resume, one unit, its link in a new session, and the layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import PATIENCE, downloaded, keep, open_page, settle, went_well
from tests.browser.contrast import faint
from vizapp.media.bundled import open_digits

pytestmark = pytest.mark.browser
LONG = 240_000  # milliseconds; a pass that takes half a minute, on a busy machine


def opened(browser: Any, address: str) -> Any:
    page = open_page(browser)
    page.goto(address)
    page.locator(".vz-title").wait_for()
    return page


def progress(page: Any) -> int:
    """How many pictures the progress says were seen."""
    line = page.get_by_text(re.compile(r"of [\d,]+ photos")).first.inner_text()
    return int(line.split(" of ")[0].split()[-1].replace(",", ""))


def nine_drawn(page: Any, alike: str | None = None) -> str:
    """The first nine as the browser draws it, as soon as it does (and as soon as it is `alike`)."""
    canvas = page.locator(".stMain .sheet canvas").first
    varied = """canvas => canvas.width > 0 && canvas.height > 0 && new Set(new Uint32Array(
        canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size > 4"""
    drawn = ""
    for _ in range(PATIENCE // 50):
        if canvas.count() and canvas.evaluate(varied):
            drawn = str(canvas.evaluate("canvas => canvas.toDataURL()"))
            if alike is None or drawn == alike:
                break
        page.wait_for_timeout(50)
    return drawn


def complete(page: Any) -> None:
    """Wait for the end of the pass, and for the projections of all units that are not dead."""
    page.locator(".st-key-gallery_progress").wait_for(state="detached", timeout=LONG)
    page.get_by_role("button", name="Gallery Parquet").wait_for(timeout=LONG)
    page.locator(".card .wait").first.wait_for(state="detached")
    assert page.locator(".card .nine").count() >= 2


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand photos: enough to leave the pass before it is over."""
    folder = tmp_path_factory.mktemp("digits")
    for number in range(1000):
        Image.fromarray(open_digits().open(number).pixels).save(folder / f"{number:04}.png")
    return folder


def test_a_gallery_is_built_left_and_gone_on_with_and_a_unit_has_a_link(
    address: str, browser: Any, digits: Path
) -> None:
    page = opened(browser, f"{address}/gallery?network=vizapp/zfnet-mini&data={digits}")
    page.get_by_role("button", name="Build").click()
    page.get_by_text(re.compile(r"[1-9]\d* of [\d,]+ photos · .* per second · .* left")).wait_for()
    page.locator(".card").first.wait_for()  # what is known so far
    keep(page, "gallery-running")
    seen = progress(page)
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_role("button", name="Continue").wait_for()
    settle(page)
    assert page.get_by_role("button", name="Cancel").count() == 0
    known = progress(page)
    assert known > 0

    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Cancel").first.wait_for()
    page.get_by_text(re.compile(r"of [\d,]+ photos · .* left")).wait_for()
    assert progress(page) >= min(seen, known)  # not from the beginning
    other = opened(
        browser, f"{address}/gallery?network=vizapp/zfnet-mini&data={digits}"
    )  # somebody else joins the same pass
    watch = other.get_by_role(
        "button", name=re.compile("Watch|Continue")
    )  # the latter between two runs of the first page
    watch.or_(other.get_by_role("button", name="Gallery Parquet")).first.wait_for()
    if watch.count():  # not where the pass was over first
        watch.click()
    complete(other)
    went_well(other)
    other.context.close()
    complete(page)
    settle(page)
    went_well(page)

    page.locator(".card:has(.nine)").nth(1).click()
    page.wait_for_url(re.compile("channel="))
    page.get_by_text("framed: what the unit sees").wait_for()
    page.locator(".stMain").get_by_text("How this was computed").click()
    page.get_by_text("non-linearities between unit and pixels").wait_for()
    settle(page)
    assert page.locator(".stMain .sheet canvas").count() == 3
    rows = downloaded(page, "Rows CSV").read_text().splitlines()
    assert rows[0].startswith("site,channel,rank,activation,picture,row,column")
    assert len(rows) == 10
    link, title = page.url, page.locator(".st-key-gallery_unit input").input_value()
    tiles = nine_drawn(page)
    went_well(page)
    page.context.close()

    fresh = opened(browser, link)
    fresh.get_by_text("framed: what the unit sees").wait_for()
    settle(fresh)
    number = fresh.locator(".st-key-gallery_unit input")
    for _ in range(PATIENCE // 50):
        if number.input_value() == title:
            break
        fresh.wait_for_timeout(50)
    assert number.input_value() == title, fresh.url
    assert tiles
    assert nine_drawn(fresh, tiles) == tiles
    went_well(fresh)
    fresh.context.close()


VIEWS = {
    "gallery-units": "gallery?network=vizapp/lenet5-digits&layer=features.4",
    "gallery-unit": "gallery?network=vizapp/lenet5-digits&layer=features.4&channel=9",
    "gallery-class": "gallery?network=vizapp/lenet5-digits&layer=classifier.4&channel=3",
}


@pytest.mark.parametrize("view", VIEWS)
def test_how_galleries_look(address: str, browser: Any, view: str) -> None:
    """Keeps screenshots for a person to look at; nothing may stick out sideways, and all words can be read."""
    page = opened(browser, f"{address}/{VIEWS[view]}")
    build = page.get_by_role("button", name=re.compile("Build|Continue"))
    build.or_(page.locator(".stMain .units, .stMain .sheet").first).first.wait_for()
    if build.count():
        build.click()
    there = ".card .nine >> nth=23" if view == "gallery-units" else ".stMain .sheet canvas >> nth=2"
    page.locator(there).wait_for()
    main = "document.querySelector('.stMain')"
    for width, height, scheme in ((1440, 1500, "light"), (800, 2600, "dark")):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        settle(page)
        keep(page, f"{view}-{width}-{scheme}")
        went_well(page)
        assert page.evaluate(f"{main}.scrollWidth - {main}.clientWidth") <= 1
        assert faint(page) == []
    page.context.close()
