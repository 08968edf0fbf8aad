"""What users see: the downloads of pages, stored by address, and things that must never appear."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILES = ("Arrays NPZ", "Rows CSV")  # the download that is compared: the first of these on a page
_TIMED = re.compile("/architecture(?!.*repeats=0)")  # shows times, which differ in each run
_PROGRESS = "[data-testid=stProgress]"
_CLOCK = re.compile(r"\d+ (s|min|h)\b")  # in a progress; moves on by itself
_DIALOG = "[role=dialog]"
_LEFT = re.compile("Cancelled|The gallery after")  # unfinished work has no result to compare


@dataclass
class Seen:
    """What the users of a run saw."""

    files: dict[str, set[str]] = field(default_factory=dict)  # address -> names and digests of its downloads
    looks: int = 0
    done: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)  # where a wait timed out

    def note(self, what: str) -> None:
        """Count an action."""
        self.done[what] = self.done.get(what, 0) + 1


async def settle(page: Any) -> None:
    """Wait until the page's script has run and nothing is being computed, as long as its progress moves on."""
    busy = f"[data-testid=stStatusWidget], [data-stale=true], {_PROGRESS}"
    idle = f"() => document.querySelector('[data-test-script-state=notRunning]') && !document.querySelector('{busy}')"
    told: list[str] = []
    while True:
        try:
            await page.wait_for_function(idle)
            await page.wait_for_timeout(120)
            await page.wait_for_function(idle)
            return
        except page.late:
            before, told = told, [_CLOCK.sub("", text) for text in await page.locator(_PROGRESS).all_inner_texts()]
            if told == before:  # also where there is no progress to be seen
                raise


async def close_dialog(page: Any) -> None:
    """Close the card of a unit or the enlarged picture, if one is open: both keep clicks from the page."""
    opened = page.locator(_DIALOG).locator("visible=true")
    if await opened.count():
        await page.keyboard.press("Escape")
        await opened.first.wait_for(state="hidden")
        await settle(page)


async def given(page: Any) -> Any:
    """The button of the download that is compared; None if the page has none."""
    if _TIMED.search(page.url) or await page.get_by_text(_LEFT).count():
        return None
    for name in FILES:
        button = page.get_by_role("button", name=name, exact=True)
        if await button.count():
            return button.first
    return None


async def described(page: Any, error: Exception) -> str:
    """An error of the browser, with what the page says meanwhile."""
    shown = " ".join((await page.locator("body").inner_text()).split())
    return f"{' '.join(str(error).split())[:1000]} The page at {page.url} says: {shown[:1500]}"


async def look(page: Any, address: str, seen: Seen, pressed: str = "") -> None:
    """Download the result of the page, and store it by address and pressed buttons."""
    await settle(page)
    button, before = await given(page), page.url
    if button is None:
        return
    try:
        async with page.expect_download(timeout=60_000) as coming:
            await button.click()
        came = await coming.value
        path = await came.path()
    except page.trouble as error:
        seen.note("downloads that did not come")
        seen.wrong.append(f"{before}: the download did not come: {await described(page, error)}")
        return
    await settle(page)  # the address is written at the end of a run, after the file
    if page.url == before:
        told = page.url.removeprefix(address) + (f" then {pressed}" if pressed else "")
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        seen.files.setdefault(told, set()).add(f"{came.suggested_filename} {digest[:16]}")
        seen.looks += 1


async def check(page: Any, seen: Seen) -> None:
    """Note unexpected errors on the page and script errors in the browser."""
    for box in ('[data-testid="stException"]', ".st-key-unexpected"):
        if await page.locator(box).count():
            seen.wrong.append(f"{page.url}: {await page.locator(box).first.inner_text()}")
    seen.wrong += [f"{page.url}: {mistake}" for mistake in page.mistakes]
    page.mistakes.clear()


async def built(page: Any) -> None:
    """Build the gallery or run the sweep of the page, if there is none yet."""
    start = page.get_by_role("button", name="Build", exact=True)
    for name in ("Continue", "Watch", "Run the sweep"):
        start = start.or_(page.get_by_role("button", name=name, exact=True))
    if await start.count():
        await start.first.click()
        await page.wait_for_timeout(300)
