"""How soon the app can be used, in Chromium: cold start, first projection, cached results.

    python benchmarks/app.py [--rounds 3] [--imports]

A cold start is timed from the start of the server's process (with its files in the file system cache and Chromium running)
until the page shows the first result. A first projection is timed from the click on the name of the page. Pages of cached
results are timed in the server, by its log, and in the browser from click to picture.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
BARS, PICTURES = ".bars li", ".stMain .picture.still img.photo"
AGAIN = 5  # times that pages of cached results are shown


@contextmanager
def server(log: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The app on a free port: its address and its process, without waiting for it. `log` gets a line per result and page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "streamlit_app.py"), f"--server.port={port}"]
    command += ["--server.address=127.0.0.1", "--server.headless=true"]
    surroundings = os.environ | {"VIZAPP_LOG": str(log)} | environment
    with subprocess.Popen(command, cwd=ROOT, env=surroundings, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.terminate()


def wait_for(address: str, patience: float = 60) -> None:
    """Return as soon as the server answers its health check."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(address)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser with an empty page."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def cold_start(browser: Any, log: Path) -> dict[str, float]:
    """Seconds of a cold start, of the first projection after it, and of pages of cached results."""
    started = time.perf_counter()
    with server(log) as (address, _):
        took: dict[str, float] = {}

        def mark(name: str) -> None:
            took[name] = time.perf_counter() - started

        wait_for(address)
        mark("server answers")
        page = browser.new_page(viewport={"width": 1440, "height": 1400})
        page.goto(f"{address}/predict", wait_until="commit")
        page.locator(".vz-title").first.wait_for()
        mark("frame is shown")
        page.locator(BARS).first.wait_for()
        mark("usable: first answer is shown")
        _settle(page)
        clicked = time.perf_counter()
        page.get_by_role("link", name="Projection").click()
        page.locator(PICTURES).nth(3).wait_for()
        took["first projection, from the click"] = time.perf_counter() - clicked
        _settle(page)
        took |= _again(page, log)
        page.close()
    return took


def _again(page: Any, log: Path) -> dict[str, float]:
    """Seconds of pages of cached results: in the browser from the click, and in the server by its log."""
    browser: list[float] = []
    skip = len(log.read_text().splitlines()) if log.exists() else 0
    for _ in range(AGAIN):
        for name, shown in (("Predict", BARS), ("Projection", PICTURES)):
            clicked = time.perf_counter()
            page.get_by_role("link", name=name).click()
            page.locator(shown).nth(3).wait_for()
            browser.append(time.perf_counter() - clicked)
            _settle(page)
    lines = [json.loads(line) for line in log.read_text().splitlines()[skip:]] if log.exists() else []
    pages = [line["seconds"] for line in lines if line["event"] == "page"]
    answers = [line["seconds"] for line in lines if line["event"] == "answer"]
    assert all(line["outcome"] == "kept" for line in lines if line["event"] == "answer")
    return {
        "kept answer, in the server, slowest": max(answers, default=float("nan")),
        "page of kept answers, in the server, median": statistics.median(pages) if pages else float("nan"),
        "page of kept answers, in the server, slowest": max(pages, default=float("nan")),
        "page of kept answers, from the click, median": statistics.median(browser),
    }


def _settle(page: Any) -> None:
    page.wait_for_function("() => !document.querySelector('[data-testid=stStatusWidget], [data-stale=true]')")
    page.wait_for_timeout(150)


def imports(most: int = 12) -> None:
    """Import times of the app's modules, the slowest packages first (`python -X importtime`)."""
    code = "import streamlit.web.cli, streamlit.web.bootstrap; import vizapp.ui.app.frame"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], cwd=ROOT, capture_output=True, text=True)
    own: dict[str, float] = {}
    for line in done.stderr.splitlines():
        cost, _, name = line.removeprefix("import time:").split("|") if line.count("|") == 2 else ("", "", "")
        if cost.strip().isdigit():
            package = name.strip().split(".")[0]
            own[package] = own.get(package, 0) + int(cost) / 1e6
    print(f"imports before the first page: {sum(own.values()):.2f} s, of which")
    for package, seconds in sorted(own.items(), key=lambda item: -item[1])[:most]:
        print(f"    {package:20} {seconds:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--imports", action="store_true", help="also list what is imported before the first page")
    options = parser.parse_args()
    if options.imports:
        imports()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        rounds = [cold_start(browser, Path(folder) / f"{number}.log") for number in range(options.rounds)]
    for name in rounds[0]:
        values = [took[name] for took in rounds]
        print(f"{name:46} {statistics.median(values):6.3f} s   ({', '.join(f'{value:.3f}' for value in values)})")


if __name__ == "__main__":
    main()
