"""Many users act at random on one server: does everyone get the result that a single user gets, bit for bit?

    python benchmarks/many_users.py [--users 8] [--seconds 60] [--seed 0]

Users open links to all pages, change pages, networks, samples, layers, units and cells, upload photos, build, leave and
resume galleries, run occlusion sweeps and feature visualizations, cancel long work and leave. Each result is fetched by its
download button and stored by its address. Afterwards a single user on a fresh server opens every address, and the files
must be equal. The report also lists unexpected errors, missing downloads, waiting times in the queue (from the server's log)
and the server's memory over time, with small caches, so that it levels off early. The script fails if results differ, if there
are unexpected errors, or if a short question waited for a minute. The figures of docs/server-measurements.md
are from a run of ten minutes (`--seconds 600`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from app import FLAGS, server, wait_for
from people.addresses import LINKS
from people.seeing import Seen, built, check, described, look, settle
from people.steps import go, press, step

PATIENCE = 120_000  # milliseconds
SHORT, LONGEST_WAIT = 3.0, 60.0  # seconds of computing of a short question, and that none may wait
PROGRAM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
# Without motion, which takes more of the processor than all else in browsers without a GPU, and is not the server's work.
WINDOW = {"viewport": {"width": 1440, "height": 1200}, "reduced_motion": "reduce"}
STORES = {"VIZAPP_DEVICE": "cpu", "VIZAPP_ANSWER_MB": "48", "VIZAPP_NETWORK_GB": "0.05", "MALLOC_ARENA_MAX": "2"}


async def opened(context: Any) -> Any:
    """A page of a browser, with the state that the steps need."""
    from playwright.async_api import Error, TimeoutError

    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    page.mistakes, page.trouble, page.late, page.compared, page.pressed = [], Error, TimeoutError, True, ""
    page.on("pageerror", lambda error: page.mistakes.append(str(error)))
    return page


async def person(browser: Any, address: str, over: Callable[[], bool], number: int, seen: Seen) -> None:
    """One user: sessions of some random steps each, until the time is over."""
    chance = random.Random(number)
    while not over():
        context = await browser.new_context(**WINDOW)
        page = await opened(context)
        seen.note("sessions")
        try:
            await go(page, address, chance.choice(LINKS))
            for _ in range(chance.randint(5, 20)):
                if over():
                    break
                await step(page, address, chance, seen)
        except page.trouble as error:  # the element to click did not appear in time
            seen.note("gave up")
            seen.stuck.append(await described(page, error))
            await check(page, seen)
        await context.close()


async def watch(process: psutil.Process, curve: list[tuple[float, float]], every: float) -> None:
    """Note the server's memory (seconds, megabytes) until cancelled."""
    began = time.monotonic()
    while True:
        curve.append((time.monotonic() - began, process.memory_info().rss / 2**20))
        await asyncio.sleep(every)


async def crowd(
    users: int, seconds: float, seed: int, log: Path, least: int = 0, rest: float | None = None
) -> tuple[Seen, list[tuple[float, float]]]:
    """Let the users act; returns what they saw, and the server's memory until `rest` seconds after the last one has left.
    By default that is longer after a long run, up to three minutes: Streamlit keeps sessions for two.

    On a busy machine they continue for up to two minutes, until they have seen `least` results.
    """
    from playwright.async_api import async_playwright

    seen, curve = Seen(), []
    with tempfile.TemporaryDirectory() as cache, server(log, VIZAPP_CACHE=cache, **STORES) as (address, process):
        wait_for(address)
        watching = asyncio.create_task(watch(psutil.Process(process.pid), curve, max(1.0, seconds / 120)))
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
            until = time.monotonic() + seconds

            def over() -> bool:
                now = time.monotonic()
                return now > until and (seen.looks >= least or now > until + 120)

            await asyncio.gather(*(person(browser, address, over, seed * 1000 + n, seen) for n in range(users)))
            await browser.close()
        await asyncio.sleep(min(180, 10 + seconds / 4) if rest is None else rest)
        watching.cancel()
    return seen, curve


async def alone(addresses: list[str], log: Path) -> Seen:
    """The results of a single user at each address, from a server without other users."""
    from playwright.async_api import async_playwright

    seen = Seen()
    with tempfile.TemporaryDirectory() as cache, server(log, VIZAPP_CACHE=cache, **STORES) as (address, _):
        wait_for(address)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
            page = await opened(await browser.new_context(**WINDOW))
            for told in addresses:
                link, _, pressed = told.partition(" then ")
                await go(page, address, link.removeprefix("/"))
                await page.locator(".vz-title").first.wait_for()
                await settle(page)
                await built(page)
                if pressed:
                    await press(page, pressed)
                await look(page, address, seen, pressed)
            await check(page, seen)
            await browser.close()
    return seen


def compared(seen: Seen, single: Seen) -> list[str]:
    """The addresses at which some user got another result than the single user."""
    return [told for told, files in seen.files.items() if told in single.files and files != single.files[told]]


def queues(log: Path) -> list[str]:
    """The waiting times from the server's log, as lines of text."""
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


def longest_wait(log: Path) -> tuple[float, str]:
    """The longest time in the queue of a question that computed for less than `SHORT`, and its method, from the server's log.

    What joins a run that had started is left out: that run may have computed for long before.
    """
    answers = [json.loads(line) for line in log.read_text().splitlines() if '"answer"' in line]
    short = [a for a in answers if a["seconds"] - a["queued"] < SHORT and a["outcome"] != "joined"]
    return max(((a["queued"], a["method"]) for a in short), default=(0.0, "none"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen, curve = asyncio.run(crowd(options.users, options.seconds, options.seed, Path(folder) / "log"))
        print(
            f"{options.users} people, {options.seconds:.0f} s: "
            + ", ".join(f"{n} {what}" for what, n in seen.done.items())
        )
        print("\n".join(queues(Path(folder) / "log")))
        waited, method = longest_wait(Path(folder) / "log")
        print(f"the longest wait of a question of less than {SHORT:.0f} s: {waited:.1f} s ({method})")
        single = asyncio.run(alone(sorted(seen.files), Path(folder) / "single"))
    wrong, both = compared(seen, single), len(seen.files.keys() & single.files.keys())
    print(
        f"{seen.looks} files of {len(seen.files)} addresses; of {both} compared {len(wrong)} are not what a person alone gets:"
    )
    for told in wrong:
        print(f"    {told}: {', '.join(sorted(seen.files[told]))}; alone: {', '.join(sorted(single.files[told]))}")
    for title, lines in (("unexpected errors", seen.wrong + single.wrong), ("waited in vain", seen.stuck)):
        print(f"{len(lines)} {title}")
        print("\n".join(f"    {line}" for line in lines))
    print(
        "memory of the server, MB: "
        + ", ".join(f"{at:.0f} s {mb:.0f}" for at, mb in curve[:: max(1, len(curve) // 24)])
    )
    middle = curve[-1][0] / 2
    first, second = ([mb for at, mb in curve if (at > middle) is later] for later in (False, True))
    print(
        f"largest in the first half {max(first):.0f}, in the second {max(second):.0f}, at the end {curve[-1][1]:.0f} MB"
    )
    return 1 if wrong or seen.wrong or single.wrong or waited >= LONGEST_WAIT else 0


if __name__ == "__main__":
    sys.exit(main())
