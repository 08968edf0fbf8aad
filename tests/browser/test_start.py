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

# Notes when the caption of each card is no longer the title of its page, which it is until the card is filled. A busy
# browser may draw several cards at once; tests/ui/pages/test_start_page.py tests that each is sent before the next is computed.
_WATCH = f"""
  window.filled = {{}};
  const titles = {json.dumps({card.key: pages()[card.page].title for card in CARDS})};
  new MutationObserver(() => {{
    for (const [page, title] of Object.entries(titles)) {{
      const text = document.querySelector(`.st-key-start_card_${{page}} [data-testid="stCaptionContainer"]`)?.innerText;
      if (text && text !== title) filled[page] ??= performance.now();
    }}
  }}).observe(document, {{ subtree: true, childList: true, characterData: true }});
"""

_IS_LARGEST = """button => {
    const size = one => one.offsetWidth * one.offsetHeight;
    return size(button) === Math.max(...[...document.querySelectorAll(".stMain button")].map(size));
}"""


def test_cards_come_one_after_the_other_for_your_photo_and_open_their_page(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.add_init_script(_WATCH)
    page.goto(f"{address}/?network=vizapp/lenet5-digits")
    page.wait_for_function("count => Object.keys(window.filled).length === count", arg=len(CARDS))
    times = page.evaluate("window.filled")
    assert sorted(times, key=times.get) == [card.key for card in CARDS]
    settle(page)
    assert page.title() == "Start · vizapp"
    button = page.locator(".stMain").get_by_role("button", name="Use your photo")
    assert button.evaluate(_IS_LARGEST)  # all sizes at one moment: the page may still be drawn anew
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files({"name": "mine.png", "mimeType": "image/png", "buffer": saved(noise(40, 50))})
    page.wait_for_url(re.compile("picture=upload"))
    page.locator('.stMain img[alt="mine.png"]').wait_for()
    settle(page)
    went_well(page)
    card = page.locator(".st-key-start_card_predict").bounding_box()
    for height in (0.15, 0.55, 0.95):  # title, picture, sentence
        page.mouse.move(card["x"] + card["width"] / 2, card["y"] + card["height"] * height)
        hit = page.evaluate("() => [...document.querySelectorAll(':hover')].pop().closest('a')?.pathname")
        assert hit == "/predict", "all of a card is its link"
    link = page.get_by_role("link", name="What does one unit look for?")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/projection.*cell="))
    settle(page)
    assert page.title() == "Projection · vizapp"
    page.go_back()  # one press, whatever the page wrote to its address
    page.wait_for_url(re.compile(r"/\?"))
    settle(page)
    assert page.title() == "Start · vizapp"
    page.go_forward()
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
    page.keyboard.press("Escape")
    _enlarge(page)
    _present(page)
    went_well(page)
    page.context.close()


def _enlarge(page: Any) -> None:
    """Every picture of the page as large as the window, by one click and the arrow keys; Escape goes back to its button."""
    settle(page)
    titles = [button.get_attribute("aria-label").removeprefix("Enlarge: ") for button in page.locator(".enlarge").all()]
    assert titles[:2] == ["The network", "Photo"]
    assert titles[-1].startswith("Channel")
    page.locator(".enlarge").first.click()
    stage, room = page.locator(".stage"), page.viewport_size["height"]
    for number, title in enumerate([*titles, titles[0]]):
        stage.locator(".words b").get_by_text(title, exact=True).wait_for()
        assert stage.locator(".count").inner_text() == f"{number % len(titles) + 1} of {len(titles)}"
        large = page.locator("[data-enlarged]").bounding_box()
        assert large["height"] > 0.85 * room or large["width"] > 0.95 * page.viewport_size["width"]
        assert large["y"] >= 0
        assert large["y"] + large["height"] <= stage.locator(".words").bounding_box()["y"], (
            "title and legend lie below it"
        )
        drawn = page.locator("[data-enlarged]").locator("img, svg[role=listbox]").first
        for _ in range(100):
            if (inside := drawn.bounding_box()) is not None:
                break
            page.wait_for_timeout(50)  # the diagram is drawn anew for its new size
        assert inside["width"] > 0.8 * large["width"]
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    stage.wait_for(state="hidden")
    assert page.locator("[data-enlarged], .stMain [popover]:not(.stage)").count() == 0
    assert page.evaluate("document.activeElement.shadowRoot.activeElement.ariaLabel") == f"Enlarge: {titles[0]}"


def _present(page: Any) -> None:
    """A key shows the pictures alone, in large letters, until the button is pressed."""
    hidden = [page.locator(f'[data-testid="{name}"]').first for name in ("stSidebar", "stCaptionContainer")]
    hidden.append(page.locator(".foot", has_text="Convolution"))  # of the network diagram
    size = "getComputedStyle(document.querySelector('.vz-tile')).fontSize"
    before = page.evaluate(f"parseFloat({size})")
    page.keyboard.press("f")
    page.wait_for_url(re.compile("present=on"))
    for one in hidden:
        one.wait_for(state="hidden")
    assert page.evaluate(f"parseFloat({size})") > 1.2 * before
    page.get_by_role("button", name="Exit presentation").click()
    for one in hidden:
        one.wait_for(state="visible")
    assert "present" not in page.url
