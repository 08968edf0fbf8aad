"""Reports in a browser: collected from two pages, downloaded, and opened without the app and without network."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import downloaded, keep, open_page, settle, turn_to, went_well
from vizapp.ui.app.pages import pages

pytestmark = pytest.mark.browser


def collect(page: Any, count: int) -> None:
    """Open the dialog, and add what the page shows; `count`: the answers that are collected then."""
    page.get_by_role("button", name="Report", exact=count < 3).first.click()
    page.get_by_role("button", name="Add to report").click()
    page.get_by_text(f"Your report: {count} answers").wait_for()
    settle(page)


def test_a_report_of_two_pages_opens_without_network_and_its_links_lead_back(
    address: str, browser: Any, tmp_path: Any
) -> None:
    page = open_page(browser, 390, 844)
    page.goto(f"{address}/predict?network=vizapp/lenet5-digits&picture=digit 3")
    page.get_by_text("Which part mattered for 3").wait_for()
    settle(page)
    beside = (page.locator(f".st-key-{name} button:visible").first for name in ("report-button", "present", "share"))
    heights = [one.bounding_box()["height"] for one in beside]
    assert max(heights) - min(heights) < 0.5, "the buttons beside the title are alike"
    collect(page, 2)
    keep(page, "report-390")
    dialog = page.get_by_role("dialog")
    assert dialog.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") <= 1
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    page.get_by_role("button", name="Report (2)").first.wait_for()
    page.set_viewport_size({"width": 1440, "height": 1500})
    settle(page)  # the navigation is laid out anew
    turn_to(page, pages()["knockout"])
    page.get_by_text("alone costs it most").wait_for()
    settle(page)
    here = page.url
    collect(page, 3)
    page.get_by_role("textbox", name="Title of answer 3").fill("Which unit counts?")
    page.keyboard.press("Tab")
    settle(page)
    file = tmp_path / "report.html"
    file.write_bytes(downloaded(page, "Download all").read_bytes())
    went_well(page)
    page.context.close()
    context = browser.new_context(offline=True)
    report, errors = context.new_page(), []
    report.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    report.on("pageerror", lambda error: errors.append(str(error)))
    report.on("request", lambda asked: errors.append(asked.url) if asked.url.startswith("http") else None)
    report.goto(file.as_uri())
    report.get_by_role("heading", name="Which unit counts?").wait_for()
    assert report.locator("h2").count() == 3
    links = [link for link in report.locator("a").evaluate_all("all => all.map(one => one.href)") if address in link]
    assert here in links
    assert errors == []
    context.close()
