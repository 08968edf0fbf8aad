"""The start page in a real browser: cards come one after the other, your photo is used, and the keyboard opens a card."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.browser.conftest import open_page, settle, went_well
from tests.media.files import noise, saved
from vizapp.ui.app.pages import pages
from vizapp.ui.pages.start.cards import CARDS

pytestmark = pytest.mark.browser

# Notes when the caption of each card is no longer the title of its page, which it is until the card is filled.
_WATCH = f"""
  window.filled = {{}};
  const titles = {json.dumps({card.page: pages()[card.page].title for card in CARDS})};
  new MutationObserver(() => {{
    for (const [page, title] of Object.entries(titles)) {{
      const text = document.querySelector(`.st-key-start_card_${{page}} [data-testid="stCaptionContainer"]`)?.innerText;
      if (text && text !== title) filled[page] ??= performance.now();
    }}
  }}).observe(document, {{ subtree: true, childList: true, characterData: true }});
"""


def test_cards_come_one_after_the_other_for_your_photo_and_open_their_page(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.add_init_script(_WATCH)
    page.goto(f"{address}/?network=vizapp/lenet5-digits")
    page.wait_for_function("count => Object.keys(window.filled).length === count", arg=len(CARDS))
    times = page.evaluate("window.filled")
    assert sorted(times, key=times.get) == [card.page for card in CARDS]
    assert times["compare"] - times["predict"] > 50, "milliseconds: not all at once"
    settle(page)
    assert page.title() == "Start · vizapp"
    button = page.locator(".stMain").get_by_role("button", name="Use your photo")
    others = page.locator(".stMain button")
    sizes = [box["width"] * box["height"] for one in others.all() if (box := one.bounding_box())]
    box = button.bounding_box()
    assert box["width"] * box["height"] == max(sizes)
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files({"name": "mine.png", "mimeType": "image/png", "buffer": saved(noise(40, 50))})
    page.wait_for_url(re.compile("picture=upload"))
    page.locator('.stMain img[alt="mine.png"]').wait_for()
    settle(page)
    went_well(page)
    link = page.get_by_role("link", name="What does one unit look for?")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/projection.*cell="))
    settle(page)
    assert page.title() == "Projection · vizapp"
    assert "picture=upload" in page.url
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("() => navigator.clipboard.readText()") == page.url
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("How to read it").wait_for()
    went_well(page)
    page.context.close()
