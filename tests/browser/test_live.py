"""The camera of the pages with the switch Live, with Chromium's fake one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import keep, launched, open_page, went_well
from vizapp.media.picture import open_picture

pytestmark = pytest.mark.browser
FAKE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
LINK = "?network=vizapp%2Fzfnet-mini"
# Keeps the streams that the page opened and the frames that it sent.
WATCH_CAMERA = """
  window.streams = [];
  window.frames_sent = [];
  const devices = navigator.mediaDevices, opens = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async (wanted) => {
    const stream = await opens(wanted);
    window.streams.push(stream);
    return stream;
  };
  const encode = HTMLCanvasElement.prototype.toDataURL;
  HTMLCanvasElement.prototype.toDataURL = function (...given) {
    const made = encode.apply(this, given);
    if (given[0] === "image/jpeg") window.frames_sent.push(made);
    return made;
  };
"""
OPEN = "() => window.streams.filter((stream) => stream.getTracks().some((track) => track.readyState === 'live')).length"
SHOWN = """root => {
    const list = [...root.querySelectorAll('li')].map((row) => row.textContent).join('|');
    const canvas = root.querySelector('canvas');
    return canvas.hidden ? list : canvas.toDataURL("image/png");
}"""
FREEZE = """root => {
    const live = root.__live, frames = window.frames_sent;
    const told = [...root.querySelectorAll('li')].map((row) => [...row.querySelectorAll('span')].map((one) => one.textContent));
    const sent = frames[frames.length - 1 - (live.number - live.last)];
    document.body.dispatchEvent(new KeyboardEvent('keydown', { key: ' ', bubbles: true, composed: true, cancelable: true }));
    return [told, sent];
}"""


@pytest.fixture(scope="module")
def camera(browser: Any) -> Iterator[Any]:
    """Chromium with a camera that films a clock, and that may be used."""
    with launched(browser.browser_type, *FAKE) as chromium:
        yield chromium


def switched_on(chromium: Any, address: str, page_key: str, before: str = WATCH_CAMERA) -> Any:
    page = open_page(chromium)
    page.add_init_script(before)
    page.goto(f"{address}/{page_key}{LINK}")
    switch(page)
    return page


def switch(page: Any) -> None:
    page.locator('[class*="st-key-live-"] label').first.click()


def wait_for_answers(page: Any, count: int) -> None:
    page.locator("canvas[data-answered]").wait_for(state="attached")
    canvas = page.locator("canvas[data-answered]").element_handle()
    page.wait_for_function("([canvas, count]) => Number(canvas.dataset.answered) >= count", arg=[canvas, count])


@pytest.mark.parametrize("key", ["predict", "feature_maps", "projection", "occlusion", "attribution"])
def test_a_page_answers_frame_after_frame(key: str, camera: Any, address: str) -> None:
    page = switched_on(camera, address, key)
    root = page.locator(".root.live")
    wait_for_answers(page, 2)
    first = root.evaluate(SHOWN)
    for more in range(4, 30, 2):
        wait_for_answers(page, more)
        if root.evaluate(SHOWN) != first:
            break
    assert root.evaluate(SHOWN) != first
    rate, dropped = root.locator(".rate").inner_text().split(" frames/s, ")
    assert float(rate) >= 0.2
    assert dropped.endswith(" dropped")
    sent, answered = (
        page.evaluate("window.frames_sent.length"),
        int(root.locator("canvas").get_attribute("data-answered")),
    )
    assert 0 <= sent - answered <= 1  # on its way
    keep(page, f"live-{key}")
    went_well(page)
    assert page.evaluate(OPEN) == 1
    page.context.close()


def test_a_frozen_frame_is_the_photo_with_the_same_pixels_and_the_same_answer(
    camera: Any, address: str, cache: Path
) -> None:
    page = switched_on(camera, address, "predict")
    wait_for_answers(page, 3)
    told, sent = page.locator(".root.live").evaluate(FREEZE)
    bars = page.locator('[class*="st-key-predict"] .root.bars li')
    bars.first.wait_for()
    page.locator(".root.live").wait_for(state="detached")
    assert page.evaluate(OPEN) == 0
    still = [[row.locator(".name").inner_text(), row.locator(".share").inner_text()] for row in bars.all()]
    assert still == told
    newest = max((cache / "uploads").glob("*.upload"), key=lambda file: file.stat().st_mtime)
    content = newest.read_bytes().partition(b"\n")[2]
    assert content == base64.b64decode(sent.partition(",")[2])
    assert (open_picture(content).pixels == open_picture(base64.b64decode(sent.partition(",")[2])).pixels).all()
    assert "camera" in page.locator("[data-testid=stSidebar]").inner_text()
    went_well(page)
    page.context.close()


def test_a_hidden_tab_and_the_switch_close_the_camera(camera: Any, address: str) -> None:
    page = switched_on(camera, address, "predict")
    wait_for_answers(page, 1)
    page.evaluate("""() => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => window.hides });
        window.hides = true;
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    assert page.evaluate(OPEN) == 0
    before = int(page.locator("canvas[data-answered]").get_attribute("data-answered"))
    page.evaluate("() => { window.hides = false; document.dispatchEvent(new Event('visibilitychange')); }")
    wait_for_answers(page, before + 2)
    assert page.evaluate(OPEN) == 1
    switch(page)
    page.locator(".root.live").wait_for(state="detached")
    assert page.evaluate(OPEN) == 0
    went_well(page)
    page.context.close()


REJECTS = "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NAME')); }"
PROBLEMS = {
    "The browser may not use the camera.": "() => null",
    "No camera was found.": REJECTS.replace("NAME", "NotFoundError"),
    "The camera cannot be opened because another program uses it.": REJECTS.replace("NAME", "NotReadableError"),
    "Browsers give the camera to pages with https and to localhost only.": (
        "() => { Object.defineProperty(navigator, 'mediaDevices', { value: undefined }); }"
    ),
}


def test_what_is_wrong_with_the_camera_is_told_in_a_sentence(browser: Any, address: str) -> None:
    with launched(browser.browser_type, FAKE[0], f"{FAKE[1]}=deny") as chromium:
        page = switched_on(chromium, address, "predict", "")
        for sentence, change in PROBLEMS.items():
            if sentence != next(iter(PROBLEMS)):
                switch(page)
                page.locator(".root.live").wait_for(state="detached")
                page.evaluate(change)
                switch(page)
            page.locator(".root.live .problem").filter(has_text=sentence).wait_for()
            assert page.locator(".root.live canvas[data-answered]").count() == 0
        went_well(page)
