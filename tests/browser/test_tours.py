"""A tour in a browser: keys and the bar move it, also past a dialog, it plays by itself, and Escape keeps the page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import SCREENSHOTS, keep, open_page, settle, went_well

pytestmark = pytest.mark.browser

STEP = '[[steps]]\ntitle = "Step {0}"\ntext = "It reads {0}."\nlink = "{1}?network=vizapp/lenet5-digits&picture=digit+{0}"\n'
PAGES = ("predict", "feature_maps", "architecture")
TOUR = (
    'title = "Digits"\nseconds = 3600\n'
    + "".join(STEP.format(1 + number, page) for number, page in enumerate(PAGES))
    + "seconds = 2\n"
)  # only the last moves on soon
TOUR = TOUR.replace("digit+2", "digit+2&stages=one&layer=features.4&channel=3&card=features.4:3")


def at_step(page: Any, number: int) -> None:
    """Wait until the address, the words and the dots show the step, and its page is drawn and shown."""
    page.wait_for_url(re.compile(f"/{PAGES[number - 1]}.*step={number}"), wait_until="commit")
    bar = page.locator("section.bar")
    bar.get_by_role("heading", name=f"Step {number}").wait_for()
    settle(page)
    dot = bar.locator("[aria-current=step]").get_attribute("aria-label")
    assert dot == f"Step {number} of 3: Step {number}"
    assert page.evaluate("document.documentElement.dataset.tour") is None
    assert page.get_by_role("dialog").count() == (number == 2)


def test_a_tour_moves_plays_and_is_left(address: str, browser: Any, tmp_path: Any) -> None:
    path = tmp_path / "digits.toml"
    path.write_text(TOUR)
    page, said = open_page(browser, 1200, 800), []
    page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    page.goto(f"{address}/?tour={path}")
    at_step(page, 1)
    bar, card = page.locator("section.bar"), page.get_by_role("dialog")
    for hidden in ("stSidebar", "stHeader"):
        assert page.locator(f'[data-testid="{hidden}"]').is_hidden()
    page.keyboard.press("ArrowRight")
    assert bar.locator("h2").inner_text() == "Step 2", "the words change at once"
    card.get_by_text("Strongest at cell").wait_for()
    at_step(page, 2)
    dialog, line = page.get_by_test_id("stDialog").bounding_box(), bar.bounding_box()
    assert dialog["y"] + dialog["height"] <= line["y"] + 1, "the card ends above the bar"
    keep(page, "tour")
    top = Image.open(SCREENSHOTS / "tour.png").convert("L").crop((0, 0, 1200, int(line["y"])))
    assert max(count for count, _ in top.getcolors()) < 0.9 * top.width * top.height, "the page is not blank"
    bar.get_by_role("button", name="Next step").click()
    at_step(page, 3)
    assert bar.get_by_role("button", name="Next step").is_disabled()
    page.go_back()
    at_step(page, 2)
    page.keyboard.press("ArrowLeft")
    at_step(page, 1)
    page.keyboard.press("End")
    at_step(page, 3)
    bar.get_by_role("button", name="Play").click()
    page.wait_for_url(re.compile("/predict.*step=1.*autoplay=on"))
    bar.get_by_role("button", name="Pause").click()
    page.wait_for_url(lambda url: "autoplay" not in url)
    page.keyboard.press("Home")
    at_step(page, 1)
    page.keyboard.press("Escape")
    bar.wait_for(state="detached")
    settle(page)
    assert page.get_by_test_id("stHeader").is_visible()
    assert page.url.endswith("/predict?network=vizapp%2Flenet5-digits&picture=digit+1")
    assert said == []
    went_well(page)
    page.context.close()
