"""Reports in a real browser: opened as a file, offline, under the policy of a strict server, and without scripts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import vizapp
from vizapp.media.samples import open_sample

pytestmark = pytest.mark.browser
STRICT = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a map, curves and the panels of a sweep."""
    network, photo = vizapp.load("vizapp/lenet5-digits", device="cpu"), open_sample("digit 3")
    results = [
        vizapp.ask("attribution", network, photo, unit=vizapp.class_unit(network, 3)),
        vizapp.ask("transform", network, photo, kind="shift-x", amounts=(-2, 0, 2)),
        vizapp.ask("occlusion", network, photo, window=7, stride=7),
    ]
    sections = tuple(one.section(title=f"</h2><script>alert({n})</script>") for n, one in enumerate(results))
    return vizapp.Report(sections, "All </title> of it").save(tmp_path_factory.mktemp("report") / "report.html")


class Handler(SimpleHTTPRequestHandler):
    policy = STRICT

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class WithoutScripts(Handler):
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def served(folder: Path, handler: type[Handler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/report.html"
        server.shutdown()


@pytest.fixture
def address(request: pytest.FixtureRequest, report: Path) -> Iterator[str]:
    """The report as a file, or from a server with a policy of its own."""
    if request.param is None:
        yield report.as_uri()
    else:
        yield from served(report.parent, request.param)


def opened(browser: Any, address: str, **options: Any) -> Any:
    context = browser.new_context(viewport={"width": 390, "height": 900}, **options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.messages, page.asked = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("dialog", lambda dialog: page.messages.append("a dialog"))
    if address.startswith("file:"):
        context.set_offline(True)
    page.goto(address)
    return page


@pytest.mark.parametrize("address", [None, Handler], indirect=True, ids=["file", "strict server"])
def test_maps_panels_and_curves_answer_to_pointer_and_keys(browser: Any, address: str) -> None:
    page = opened(browser, address)
    parts = page.locator(".view .alive")
    assert parts.count() == 4
    assert page.locator(".still:visible").count() == 0

    picture = parts.nth(0).locator(".picture")
    assert "Hover" in parts.nth(0).locator(".tip").inner_text()
    picture.hover(position={"x": 60, "y": 40})
    assert "at row" in parts.nth(0).locator(".tip").inner_text()
    picture.click(position={"x": 60, "y": 40})
    page.mouse.move(0, 0)
    assert parts.nth(0).locator("rect.cell").count() == 1
    assert "at row" in parts.nth(0).locator(".tip").inner_text()

    parts.nth(1).locator(".chart").hover()
    assert "pixels 0" in parts.nth(1).locator(".place").inner_text()
    assert float(parts.nth(1).locator(".key b").first.inner_text()) > 0
    parts.nth(1).locator(".chart").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "pixels 2" in parts.nth(1).locator(".place").inner_text()

    panel = parts.nth(3).locator(".picture").nth(1)
    panel.hover(position={"x": 5, "y": 5})
    assert parts.nth(3).locator(".value").first.inner_text() == "row 0, column 0"
    panel.click(position={"x": 5, "y": 5})
    page.mouse.move(0, 0)
    assert parts.nth(3).locator(".value").first.inner_text() == "row 0, column 0"
    assert parts.nth(3).locator("rect.chosen").count() > 0

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.messages == []
    assert [url for url in page.asked if not url.startswith("data:")] == [address]
    page.context.close()


@pytest.mark.parametrize("address", [WithoutScripts], indirect=True, ids=["server without scripts"])
def test_pictures_stand_in_place_where_a_server_forbids_scripts(browser: Any, address: str) -> None:
    page = opened(browser, address)
    assert page.locator(".alive").count() == 0
    assert page.locator(".still img:visible").count() >= 4
    page.context.close()


@pytest.mark.parametrize("address", [None], indirect=True, ids=["file"])
def test_pictures_stand_in_place_without_scripts(browser: Any, address: str) -> None:
    page = opened(browser, address, java_script_enabled=False)
    assert page.locator(".still img:visible").count() >= 4
    page.context.close()
