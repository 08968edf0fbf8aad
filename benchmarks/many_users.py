"""One server, many people who do random things: is every answer the one that a person alone gets, bit for bit?

    python benchmarks/many_users.py [--users 8] [--seconds 600] [--seed 0]

People open links, change pages, networks, samples, layers and channels, upload photos, cancel long questions and leave. What
they see is fetched by its own download button and kept by its address. Afterwards one person alone, on a fresh server,
opens every address, and the files must be equal. Also told: boxes of unexpected errors, how long people waited in the queue
(from the server's log), and the server's memory over time, with small stores, so that it reaches its level early.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from app import FLAGS, server, wait_for

PATIENCE = 60_000  # milliseconds
STORES = {"VIZAPP_DEVICE": "cpu", "VIZAPP_ANSWER_MB": "48", "VIZAPP_NETWORK_GB": "0.05", "MALLOC_ARENA_MAX": "2"}
ADDRESSES = [
    "?network=vizapp/lenet5-digits&picture=digit 3",
    "?network=vizapp/lenet5-digits&picture=digit 7&crops=ten",
    "?picture=motorcycle",
    "?picture=coffee&crops=ten",
    "?network=torchvision/squeezenet1_1&weights=random&picture=chelsea",
    "feature_maps?layer=features.relu2&picture=rocket",
    "feature_maps?layer=features.relu5&channel=7&cell=3,4",
    "feature_maps?network=vizapp/lenet5-digits&layer=features.3&picture=digit 5",
    "feature_maps?network=torchvision/squeezenet1_1&weights=random&layer=features.6.cat&picture=coffee",
    "projection?layer=features.relu3&channel=11&picture=astronaut",
    "projection?layer=features.relu5&mode=nine",
    "projection?network=vizapp/lenet5-digits&layer=features.4&picture=digit 2",
]  # fmt: skip
LONG = "?network=torchvision/resnet101&weights=random&crops=multi"


@dataclass
class Seen:
    """What the people of a run saw."""

    files: dict[str, set[str]] = field(default_factory=dict)  # address -> digests of what its download gave
    looks: int = 0
    done: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1


async def settle(page: Any) -> None:
    """Wait until the page's script has run and nothing is being computed."""
    idle = "() => !document.querySelector('[data-testid=stStatusWidget], [data-stale=true], [data-testid=stProgress]')"
    await page.wait_for_function(idle)
    await page.wait_for_timeout(120)
    await page.wait_for_function(idle)


async def look(page: Any, address: str, seen: Seen) -> None:
    """Fetch what the page shows, and keep it by the page's address."""
    button = page.get_by_role("button", name="Arrays NPZ")
    await button.first.wait_for()
    await settle(page)
    before = page.url
    try:
        async with page.expect_download(timeout=20_000) as coming:
            await button.first.click()
        path = await (await coming.value).path()
    except page.trouble:  # the page was drawn anew under the click: a person clicks again, or goes on
        seen.note("downloads that did not come")
        return
    if page.url == before:  # else it changed meanwhile
        told = page.url.removeprefix(address)
        seen.files.setdefault(told, set()).add(hashlib.sha256(Path(path).read_bytes()).hexdigest())
        seen.looks += 1


async def check(page: Any, seen: Seen) -> None:
    """No box of an unexpected error, no error of a script in the browser."""
    for box in ('[data-testid="stException"]', ".st-key-unexpected"):
        if await page.locator(box).count():
            seen.wrong.append(f"{page.url}: {await page.locator(box).first.inner_text()}")
    seen.wrong += page.mistakes
    page.mistakes.clear()


async def person(browser: Any, address: str, over: Callable[[], bool], number: int, seen: Seen) -> None:
    """One person: sessions of some random steps each, until it is over."""
    from playwright.async_api import Error as trouble

    chance = random.Random(number)
    while not over():
        context = await browser.new_context(viewport={"width": 1300, "height": 1200})
        page = await context.new_page()
        page.set_default_timeout(PATIENCE)
        page.mistakes, page.trouble, page.compared = [], trouble, True
        page.on("pageerror", lambda error, page=page: page.mistakes.append(str(error)))
        seen.note("sessions")
        try:
            await page.goto(f"{address}/{chance.choice(ADDRESSES)}")
            for _ in range(chance.randint(2, 9)):
                if over():
                    break
                await step(page, address, chance, seen)
                await check(page, seen)
        except trouble as error:  # what was to be clicked was not there in time
            seen.note(f"gave up: {str(error).splitlines()[0][:60]}")
            await check(page, seen)
        await context.close()


async def step(page: Any, address: str, chance: random.Random, seen: Seen) -> None:
    """One random thing to do, and most of the time a look at what it gave."""
    what = chance.choices(["page", "link", "sample", "channel", "network", "upload", "cancel", "leave"],
                          [5, 4, 3, 4, 2, 1, 1, 1])[0]  # fmt: skip
    seen.note(what)
    await page.locator(".vz-title").first.wait_for()
    if what == "page":
        await page.get_by_role("link", name=chance.choice(["Predict", "Feature maps", "Projection"])).first.click()
    elif what in {"link", "leave"}:
        await page.goto(f"{address}/{chance.choice(ADDRESSES)}")
        if what == "leave":  # in the middle of whatever it computes
            await page.wait_for_timeout(chance.randint(0, 1500))
            await page.goto(f"{address}/{chance.choice(ADDRESSES)}")
    elif what == "sample":
        await _click_in(page, page.locator("section[data-testid=stSidebar] .sheet canvas"), chance)
    elif what == "channel":
        await _click_in(page, page.locator(".stMain .sheet canvas"), chance)
    elif what == "network":
        await _choose(page, chance.choice(["lenet5-digits", "zfnet-mini"]))
    elif what == "upload":
        await _upload(page, chance)
        page.compared = False  # an upload stays on all pages of the session, and has no place in its address
        return
    elif what == "cancel":
        await _cancel(page, address)
        await page.goto(f"{address}/{chance.choice(ADDRESSES)}")
    await settle(page)
    if page.compared and chance.random() < 0.8 and await page.get_by_role("button", name="Arrays NPZ").count():
        await look(page, address, seen)


async def _click_in(page: Any, canvas: Any, chance: random.Random) -> None:
    if await canvas.count():
        box = await canvas.first.bounding_box()
        if box is not None:
            place = {
                "x": box["width"] * chance.uniform(0.1, 0.9),
                "y": min(box["height"], 300) * chance.uniform(0.1, 0.9),
            }
            await canvas.first.click(position=place)
            await page.wait_for_timeout(300)


async def _choose(page: Any, name: str) -> None:
    chooser = page.get_by_role("combobox", name="Network")
    await chooser.click()
    await chooser.fill(name)
    await page.get_by_role("option", name=f"vizapp/{name}").first.click()
    await page.wait_for_timeout(300)


async def _upload(page: Any, chance: random.Random) -> None:
    await page.goto(page.url)
    await (
        page.get_by_role("radio", name="Upload")
        .or_(page.get_by_role("button", name="Upload", exact=True))
        .first.click()
    )
    good = chance.random() < 0.7
    content = _photo(chance.randrange(5)) if good else b"no picture at all"
    file = {"name": "photo.png" if good else "<b>letter</b>.png", "mimeType": "image/png", "buffer": content}
    await page.locator('[data-testid="stFileUploaderDropzoneInput"]').first.set_input_files(file)
    await (page.get_by_text("photo.png") if good else page.locator('[data-testid="stAlert"]')).first.wait_for()
    await settle(page)


async def _cancel(page: Any, address: str) -> None:
    await page.goto(f"{address}/{LONG}")
    cancel = page.get_by_role("button", name="Cancel")
    try:
        await cancel.click(timeout=8000)
        await page.get_by_text("Cancelled.").first.wait_for(timeout=8000)
    except TimeoutError:
        return
    except Exception as error:
        if "Timeout" not in type(error).__name__:
            raise


def _photo(seed: int) -> bytes:
    import numpy as np

    from vizapp.media.drawing import to_png

    return to_png(np.random.default_rng(seed).integers(0, 256, (200, 260, 3), dtype=np.uint8))


async def watch(process: psutil.Process, curve: list[tuple[float, float]], every: float) -> None:
    """Note the server's memory (seconds, megabytes) until cancelled."""
    began = time.monotonic()
    while True:
        curve.append((time.monotonic() - began, process.memory_info().rss / 2**20))
        await asyncio.sleep(every)


async def crowd(
    users: int, seconds: float, seed: int, log: Path, least: int = 0
) -> tuple[Seen, list[tuple[float, float]]]:
    """The people at work; what they saw, and the server's memory, to the end of ten seconds after the last one left.

    On a busy machine they go on, up to two minutes longer, until they have looked at `least` answers.
    """
    from playwright.async_api import async_playwright

    seen, curve = Seen(), []
    with server(log, **STORES) as (address, process):
        wait_for(address)
        watching = asyncio.create_task(watch(psutil.Process(process.pid), curve, max(1.0, seconds / 120)))
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            until = time.monotonic() + seconds

            def over() -> bool:
                now = time.monotonic()
                return now > until and (seen.looks >= least or now > until + 120)

            await asyncio.gather(*(person(browser, address, over, seed * 1000 + n, seen) for n in range(users)))
            await browser.close()
        await asyncio.sleep(10)
        watching.cancel()
    return seen, curve


async def alone(addresses: list[str], log: Path) -> dict[str, set[str]]:
    """What one person gets at each address, from a server that nobody else uses."""
    from playwright.async_api import Error, async_playwright

    seen = Seen()
    with server(log, **STORES) as (address, _):
        wait_for(address)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = await browser.new_page(viewport={"width": 1300, "height": 1200})
            page.set_default_timeout(PATIENCE)
            page.trouble = Error
            for told in addresses:
                await page.goto(address + told)
                await look(page, address, seen)
            await browser.close()
    return seen.files


def compared(seen: Seen, single: dict[str, set[str]]) -> list[str]:
    """The addresses at which anybody got something else than a person alone."""
    return [told for told, digests in seen.files.items() if told in single and digests != single[told]]


def queues(log: Path) -> list[str]:
    """Lines about the waiting times, from the server's log."""
    answers = [json.loads(line) for line in log.read_text().splitlines() if '"answer"' in line]
    told = []
    for method in sorted({answer["method"] for answer in answers}):
        mine = [a for a in answers if a["method"] == method and a["outcome"] == "computed"]
        if mine:
            waits, seconds = [a["queued"] for a in mine], [a["seconds"] for a in mine]
            told.append(
                f"{method:22} {len(mine):5} computed, median {statistics.median(seconds):5.2f} s, "
                f"longest {max(seconds):5.2f} s, in the queue median {statistics.median(waits):5.2f} s, "
                f"longest {max(waits):5.2f} s"
            )
    outcomes = {o: sum(a["outcome"] == o for a in answers) for o in sorted({a["outcome"] for a in answers})}
    return [*told, "outcomes: " + ", ".join(f"{count} {name}" for name, count in outcomes.items())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen, curve = asyncio.run(crowd(options.users, options.seconds, options.seed, Path(folder) / "log"))
        print(
            f"{options.users} people, {options.seconds:.0f} s: "
            + ", ".join(f"{n} {what}" for what, n in seen.done.items())
        )
        print("\n".join(queues(Path(folder) / "log")))
        single = asyncio.run(alone(sorted(seen.files), Path(folder) / "single"))
    wrong = compared(seen, single)
    print(f"{seen.looks} answers at {len(seen.files)} addresses, {len(wrong)} other than a person alone gets: {wrong}")
    print(f"{len(seen.wrong)} unexpected errors: {seen.wrong[:5]}")
    print(
        "memory of the server, MB: "
        + ", ".join(f"{at:.0f} s {mb:.0f}" for at, mb in curve[:: max(1, len(curve) // 24)])
    )
    middle = curve[-1][0] / 2
    first, second = ([mb for at, mb in curve if (at > middle) is later] for later in (False, True))
    print(
        f"largest in the first half {max(first):.0f}, in the second {max(second):.0f}, at the end {curve[-1][1]:.0f} MB"
    )
    return 1 if wrong or seen.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
