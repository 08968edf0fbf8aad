"""The page Dense in a real browser: hovering over a cell shows its classes and its crop, a click selects it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import keep, open_page, settle, went_well

pytestmark = pytest.mark.browser


def test_pointing_at_a_cell_and_keeping_it(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.goto(f"{address}/dense?network=vizapp/lenet5-digits&picture=camera&dense.zoom=0.25")
    picture = page.locator(".picture").first
    picture.wait_for()
    settle(page)
    box = picture.bounding_box()
    # cells meet in the very middle
    centre = box["x"] + box["width"] * 0.51, box["y"] + box["height"] * 0.51
    page.mouse.move(*centre)
    page.locator(".tip.tall li").nth(4).wait_for()
    assert "Row 13, column 13" in page.locator(".tip.tall").inner_text()
    frame = picture.locator("rect.field").bounding_box()
    assert frame["width"] == pytest.approx(box["width"] * 28 / 128, rel=0.06)
    assert frame["x"] < centre[0] < frame["x"] + frame["width"]
    page.mouse.click(*centre)
    page.get_by_text("and its crop").first.wait_for()
    page.get_by_role("button", name="Clear selection").wait_for()
    settle(page)
    assert "place=13" in page.url
    went_well(page)
    keep(page, "dense")
    page.context.close()
