"""A running server, Chromium, and helpers for the tests in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.check import free_port, proxied, wait_for
from vizapp.ui.app.pages import PageSpec

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
# Chromium's shell draws the same pages without a window around them, and takes two thirds of the processor time.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATIENCE = 120_000  # milliseconds; a first page imports torch on a busy machine


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of the running app."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def address(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running app with a cache folder of its own, behind the proxy of `deploy/` where nginx is installed."""
    port = free_port()
    options = {"server.port": port, "server.address": "127.0.0.1", "server.headless": "true"}
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "streamlit_app.py")]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = {**os.environ, "VIZAPP_DEVICE": "cpu", "VIZAPP_CACHE": str(cache)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}")
            if shutil.which("nginx"):
                with proxied(port, tmp_path_factory.mktemp("proxy")) as proxy:
                    yield proxy
            else:
                yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, or a skip where there is none."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright, launched(playwright.chromium) as chromium:
        yield chromium


@contextmanager
def launched(kind: Any, *flags: str) -> Iterator[Any]:
    """A Chromium of its own with more flags. `kind`: Playwright's, or the `browser_type` of another Chromium."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    chromium = kind.launch(executable_path=program, args=[*FLAGS, *flags])
    yield chromium
    chromium.close()


# Notes when the page last asked the server for something and when it was last told something.
WATCH_SOCKET = """
  window.asked = window.told = 0;
  window.WebSocket = class extends WebSocket {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", () => { window.told = performance.now(); });
    }
    send(content) {
      window.asked = performance.now();
      super.send(content);
    }
  };
"""


def open_page(browser: Any, width: int = 1440, height: int = 1500, scheme: str = "light", moves: bool = False) -> Any:
    """A page of its own; without `moves` as for people who want less motion: what Streamlit animates while it waits takes
    more processor time than all else in a browser without a GPU."""
    motion = "no-preference" if moves else "reduce"
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion=motion
    )
    page = context.new_page()
    page.add_init_script(WATCH_SOCKET)
    page.set_default_timeout(PATIENCE)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text) if "Content Security Policy" in said.text else None)
    return page


def turn_to(page: Any, spec: PageSpec) -> None:
    """Another page by the navigation at the top, or by the menu of those that have no room there."""
    shown = ".rc-overflow-item:not([aria-hidden=true])"
    link = page.locator(f"{shown} [data-testid=stTopNavLink]", has_text=spec.title)
    if not link.count():
        page.locator(f"{shown} [data-testid=stTopNavSection]").click()
        link = page.locator("[data-testid=stTopNavDropdownLink]", has_text=spec.title)
    link.first.click()


SETTLED = """quiet => {
    const state = window.settling ??= (() => {
        const state = {changed: performance.now()};
        new MutationObserver(() => { state.changed = performance.now(); }).observe(
            document.body, {subtree: true, childList: true, attributes: true, characterData: true});
        return state;
    })();
    const unanswered = (window.asked ?? 0) > (window.told ?? 0) && performance.now() - window.asked < 10000;
    const moves = one => one.playState === "running" && Number.isFinite(one.effect.getComputedTiming().endTime);
    return document.querySelector("[data-testid=stApp]")?.dataset.testScriptState === "notRunning"
        && !document.querySelector("[data-testid=stStatusWidget], [data-stale=true]")
        && [...document.images].every(image => image.complete)
        && !document.getAnimations().some(moves)
        && !unanswered
        && performance.now() - Math.max(state.changed, window.told ?? 0) > quiet;
}"""


def settle(page: Any) -> None:
    """Wait until the script has run for what was asked last, pictures are decoded, and nothing has changed for 0.3 s."""
    page.wait_for_function(SETTLED, arg=300, polling=50)  # milliseconds; else it would ask, and draw, for every frame


def keep(page: Any, name: str) -> None:
    """A screenshot for a person to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def went_well(page: Any) -> None:
    assert page.locator('[data-testid="stException"]').count() == 0
    assert page.locator(".st-key-unexpected").count() == 0
    assert page.errors == []


def downloaded(page: Any, title: str) -> Path:
    """The file that a button gives."""
    with page.expect_download() as given:
        page.get_by_role(
            "button", name=title
        ).first.click()  # a part that is drawn anew stands there twice for a moment
    return Path(given.value.path())
