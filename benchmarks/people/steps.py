"""The next step of a user: one random action on the current page."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from people.addresses import GALLERIES, LINKS, LONG, PAGES, PRESSES
from people.seeing import Seen, built, check, close_dialog, look, settle

NETWORKS = ("lenet5-digits", "zfnet-mini")
UPLOAD = '[data-testid="stFileUploaderDropzoneInput"]'


async def step(page: Any, address: str, chance: random.Random, seen: Seen) -> None:
    """One action and its result."""
    names, weights = zip(*((name, weight) for name, (weight, _) in STEPS.items()), strict=True)
    what = chance.choices(names, weights)[0]
    seen.note(what)
    await page.locator(".vz-title").first.wait_for()
    page.pressed = ""
    await STEPS[what][1](page, address, chance)
    await settle(page)
    await check(page, seen)
    await close_dialog(page)
    if page.compared:
        await look(page, address, seen, page.pressed)
    if page.pressed:  # pressed buttons are not part of the address of later pages
        await go(page, address, chance.choice(LINKS))


async def go(page: Any, address: str, link: str) -> None:
    """Open a link in a new session, which has no upload."""
    await page.goto(f"{address}/{link}")
    page.compared = True


async def _page(page: Any, address: str, chance: random.Random) -> None:
    title = chance.choice(PAGES)
    link = page.get_by_role("link", name=title, exact=True)
    if not await link.count():  # there is no room for it at the top
        await page.locator(".rc-overflow-item:not([aria-hidden=true]) [data-testid=stTopNavSection]").click()
        link = page.locator("[data-testid=stTopNavDropdownLink]", has_text=title)
    target = await link.first.get_attribute("href")
    await link.first.click()
    # A busy server takes its time: until then, the page and its downloads are still those of the page before.
    await page.wait_for_function("target => location.pathname === new URL(target, location).pathname", arg=target)


async def _link(page: Any, address: str, chance: random.Random) -> None:
    await go(page, address, chance.choice(LINKS))


async def _leave(page: Any, address: str, chance: random.Random) -> None:
    """Leave a page while it computes."""
    await go(page, address, chance.choice(LINKS + LONG))
    await page.wait_for_timeout(chance.randint(0, 1500))
    await go(page, address, chance.choice(LINKS))


async def _sample(page: Any, address: str, chance: random.Random) -> None:
    """A sample in sight, or one of those in the fold."""
    sidebar = page.locator("section[data-testid=stSidebar]")
    fold = sidebar.locator("summary", has_text="More")
    if await fold.count() and chance.random() < 0.5:
        await fold.click()
        await page.wait_for_timeout(500)  # it opens or closes
    await _click_in(page, "section[data-testid=stSidebar] .sheet canvas", chance)


async def _unit(page: Any, address: str, chance: random.Random) -> None:
    await _click_in(page, ".stMain .sheet canvas", chance)


async def _cell(page: Any, address: str, chance: random.Random) -> None:
    await _click_in(page, ".stMain .map .picture:not(.still), .stMain .panels .picture:not(.still)", chance)


async def _layer(page: Any, address: str, chance: random.Random) -> None:
    await _click_in(page, ".diagram [data-block]", chance)


async def _click_in(page: Any, places: str, chance: random.Random) -> None:
    found = page.locator(places).locator("visible=true")
    count = await found.count()
    if count:
        one = found.nth(chance.randrange(count))
        box = await one.bounding_box()
        if box is not None:
            across, down = chance.uniform(0.1, 0.9), chance.uniform(0.1, 0.9)
            where = {"x": box["width"] * across, "y": min(box["height"], 300) * down}
            await one.click(position=where, timeout=5000)
            await page.wait_for_timeout(300)


async def _network(page: Any, address: str, chance: random.Random) -> None:
    name = chance.choice(NETWORKS)
    chooser = page.locator("section[data-testid=stSidebar]").get_by_role("combobox", name="Network")
    await chooser.click()
    await chooser.fill(name)
    await page.get_by_role("option", name=f"vizapp/{name}").first.click()
    await page.wait_for_timeout(300)


async def _upload(page: Any, address: str, chance: random.Random) -> None:
    """Upload a photo, or another file. It is used on all pages of the session, and is not part of their addresses."""
    await page.goto(page.url)
    page.compared = False
    radio, button = (
        page.get_by_role("radio", name="Upload"),
        page.get_by_role("button", name="Upload", exact=True),
    )
    await page.locator("section[data-testid=stSidebar]").locator(radio.or_(button)).first.click()
    good = chance.random() < 0.7
    content = _photo(chance.randrange(5)) if good else b"no picture at all"
    file = {"name": "photo.png" if good else "<b>letter</b>.png", "mimeType": "image/png", "buffer": content}
    await page.locator("section[data-testid=stSidebar]").locator(UPLOAD).first.set_input_files(file)
    told = page.get_by_text("photo.png" if good else "looks like text")
    await told.first.wait_for()


async def _cancel(page: Any, address: str, chance: random.Random) -> None:
    """Start long work and cancel it."""
    await go(page, address, chance.choice(LONG))
    await page.locator(".vz-title").first.wait_for()
    await page.wait_for_timeout(500)
    await built(page)
    cancel = page.get_by_role("button", name="Cancel", exact=True).first
    try:
        await cancel.click(timeout=8000)
        await (
            page.get_by_text("Cancelled").or_(page.get_by_role("button", name="Continue")).first.wait_for(timeout=15000)
        )
    except page.late:
        pass
    await go(page, address, chance.choice(LINKS))


async def _gallery(page: Any, address: str, chance: random.Random) -> None:
    """Build, resume or watch a gallery; sometimes leave before its end."""
    await go(page, address, chance.choice(GALLERIES))
    await settle(page)
    await built(page)
    ending = chance.choice(["cancel", "away", "whole", "whole"])
    if ending == "whole":
        return
    await page.wait_for_timeout(chance.randint(500, 4000))
    cancel = page.get_by_role("button", name="Cancel", exact=True)
    if ending == "cancel" and await cancel.count():
        try:
            await cancel.first.click(timeout=3000)
        except page.late:  # it had already finished
            return
    else:
        await go(page, address, chance.choice(LINKS))


async def _sweep(page: Any, address: str, chance: random.Random) -> None:
    """Run a sweep and choose another class at its end."""
    await go(
        page, address, chance.choice([link for link in LINKS if link.startswith("occlusion") and "hand" not in link])
    )
    await page.locator(".vz-title").first.wait_for()
    await settle(page)
    await built(page)
    await settle(page)
    chooser = page.locator(".stMain").get_by_role("combobox", name="Class")
    if await chooser.count():
        await chooser.first.click()
        options = page.get_by_role("option")
        await options.first.wait_for()
        await options.nth(chance.randrange(min(8, await options.count()))).click()
        await page.wait_for_timeout(300)


async def _press(page: Any, address: str, chance: random.Random) -> None:
    """Start more work on a page by a button."""
    name = chance.choice(list(PRESSES))
    await go(page, address, chance.choice(PRESSES[name][1]))
    await press(page, name)
    page.pressed = name


async def press(page: Any, name: str) -> None:
    """Press a button and wait for its result."""
    button = page.get_by_role("button", name=name)
    await button.wait_for()
    await settle(page)
    await button.click()
    await page.get_by_text(PRESSES[name][0]).first.wait_for()
    await settle(page)


def _photo(seed: int) -> bytes:
    import numpy as np

    from vizapp.media.drawing import to_png

    return to_png(np.random.default_rng(seed).integers(0, 256, (200, 260, 3), dtype=np.uint8))


STEPS: dict[str, tuple[int, Callable[[Any, str, random.Random], Awaitable[None]]]] = {
    "page": (6, _page), "link": (6, _link), "sample": (3, _sample), "unit": (3, _unit), "cell": (2, _cell),
    "layer": (2, _layer), "network": (2, _network), "upload": (1, _upload), "cancel": (1, _cancel), "leave": (1, _leave),
    "gallery": (2, _gallery), "sweep": (1, _sweep), "press": (1, _press),
}  # fmt: skip
