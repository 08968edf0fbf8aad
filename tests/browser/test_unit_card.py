"""The card of a unit in a browser: opened by keys and by the corner of a tile, closed by Escape, followed to a page."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import keep, open_page, settle, went_well

pytestmark = pytest.mark.browser
FOCUSED = """(() => {
    let at = document.activeElement;
    while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
    return at.className;
})()"""


def test_a_card_opens_from_keys_and_from_a_corner_and_gives_the_focus_back(address: str, browser: Any) -> None:
    page = open_page(browser, 390, 844)
    page.goto(f"{address}/feature_maps?network=vizapp/lenet5-digits&layer=features.4&stages=one")
    sheet, card = page.locator(".stMain .sheet .view"), page.get_by_role("dialog")
    sheet.locator("canvas").wait_for()
    settle(page)
    sheet.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("channel="))
    settle(page)
    assert not card.count(), "the first Enter chooses"
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("card="))
    card.get_by_text("Strongest at cell").wait_for()
    card.get_by_text("Mid-grey is zero").wait_for()
    settle(page)
    keep(page, "unit-card-390")
    assert page.evaluate("document.activeElement.closest('[role=dialog]') !== null"), "the keys stay in the card"
    assert card.evaluate("card => card.scrollWidth - card.clientWidth") <= 1
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "card=" not in url)
    card.wait_for(state="detached")
    page.wait_for_function(f"() => {FOCUSED} === 'view'")
    settle(page)
    box = sheet.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    sheet.locator(".hover .open").click()
    card.get_by_text("Mid-grey is zero").wait_for()
    settle(page)
    link = re.search(r"card=features.4%3A(\d+)", page.url)
    assert link is not None
    card.get_by_role("link", name="Projection").click()
    page.wait_for_url(re.compile(f"/projection.*channel={link[1]}$"))
    card.wait_for(state="detached")
    went_well(page)
    page.context.close()
