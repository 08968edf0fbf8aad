"""What people see: the files that pages give away, kept by address, and what should never be seen."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILES = ("Arrays NPZ", "Rows CSV")  # what is compared, the first that a page has
_TIMED = re.compile("/architecture(?!.*repeats=0)")  # times, which are never the same twice
_LEFT = re.compile("Cancelled|What is known after")  # of what was left half done there is no answer to compare with


@dataclass
class Seen:
    """What the people of a run saw."""

    files: dict[str, set[str]] = field(default_factory=dict)  # address -> names and digests of what its download gave
    looks: int = 0
    done: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)  # where something that was waited for did not come

    def note(self, what: str) -> None:
        """Count something that was done."""
        self.done[what] = self.done.get(what, 0) + 1


async def settle(page: Any) -> None:
    """Wait until the page's script has run and nothing is being computed."""
    busy = "[data-testid=stStatusWidget], [data-stale=true], [data-testid=stProgress]"
    idle = f"() => document.querySelector('[data-test-script-state=notRunning]') && !document.querySelector('{busy}')"
    await page.wait_for_function(idle)
    await page.wait_for_timeout(120)
    await page.wait_for_function(idle)


async def given(page: Any) -> Any:
    """The button of the file that is compared; None where the page has none."""
    if _TIMED.search(page.url) or await page.get_by_text(_LEFT).count():
        return None
    for name in FILES:
        button = page.get_by_role("button", name=name, exact=True)
        if await button.count():
            return button.first
    return None


async def look(page: Any, address: str, seen: Seen, pressed: str = "") -> None:
    """Fetch what the page shows, and keep it by the page's address and what was pressed there."""
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
        seen.wrong.append(f"{before}: the download did not come: {str(error).splitlines()[0]}")
        return
    if page.url == before:  # else it changed meanwhile
        told = page.url.removeprefix(address) + (f" then {pressed}" if pressed else "")
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        seen.files.setdefault(told, set()).add(f"{came.suggested_filename} {digest[:16]}")
        seen.looks += 1


async def check(page: Any, seen: Seen) -> None:
    """No box of an unexpected error, no error of a script in the browser."""
    for box in ('[data-testid="stException"]', ".st-key-unexpected"):
        if await page.locator(box).count():
            seen.wrong.append(f"{page.url}: {await page.locator(box).first.inner_text()}")
    seen.wrong += [f"{page.url}: {mistake}" for mistake in page.mistakes]
    page.mistakes.clear()


async def built(page: Any) -> None:
    """Have the gallery or the sweep of the page made, if it is not there yet."""
    start = page.get_by_role("button", name="Build", exact=True)
    for name in ("Go on", "Watch", "Run the sweep"):
        start = start.or_(page.get_by_role("button", name=name, exact=True))
    if await start.count():
        await start.first.click()
        await page.wait_for_timeout(300)
