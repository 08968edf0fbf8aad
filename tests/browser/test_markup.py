"""Names with markup in a real browser: pages full of them run no script and load nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save

import vizapp
from tests.browser.conftest import PATIENCE, open_page, settle, turn_to, went_well
from tests.media.files import noise, saved
from vizapp.ui.app.pages import pages

pytestmark = pytest.mark.browser

SCRIPT = '<img src=x onerror="window.ran=1">'
NAME = f"{SCRIPT}[a](javascript:ran=1) ![b](http:example.invalid) $x^2$ :red[c] **d** `e`"
LINK = "network=vizapp/lenet5-digits&weights=file&channel=3&layer=classifier.0&window=14&stride=14"


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of pictures and a checkpoint, all of whose names are markup."""
    folder = tmp_path / NAME.replace("/", "")
    for number in range(4):
        place = folder / f"{SCRIPT}{number % 2}" / f"{NAME.replace('/', '')} {number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(saved(noise(28, 28, seed=number)))
    module = vizapp.load("vizapp/lenet5-digits", device="cpu").module
    weights = {key: value.contiguous() for key, value in module.state_dict().items()}
    names = [f"{NAME} :material/delete: {number}" for number in range(10)]
    checkpoint = tmp_path / f"{SCRIPT}.safetensors"
    checkpoint.write_bytes(save(weights, {"classes": json.dumps(names)}))
    return folder, checkpoint


def test_names_of_strangers_run_no_script_on_any_page(browser: Any, address: str, given: tuple[Path, Path]) -> None:
    folder, checkpoint = given
    page = open_page(browser)
    page.set_default_timeout(3 * PATIENCE)
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/?{LINK}")
    page.get_by_text("Upload a checkpoint of this network").wait_for(timeout=2 * PATIENCE)
    page.locator('[data-testid="stSidebar"] input[type=file]').first.set_input_files(str(checkpoint))
    page.get_by_text("Upload a checkpoint of this network").wait_for(state="detached")
    _press(page, "Folder").first.click()
    path = page.get_by_label("Path of a folder on this machine")
    path.fill(str(folder))
    path.press("Enter")
    page.get_by_text("4 photos", exact=True).wait_for()
    shown = 0
    for name, spec in pages().items():
        if not spec.default:
            turn_to(page, spec)
            settle(page)
        if name == "gallery":
            _press(page.locator('[data-testid="stMain"]'), "Folder").first.click()
            page.locator(".st-key-gallery-open_folder button").click()  # the folder of the sidebar
            page.get_by_role("button", name="Build").click()
        settle(page)
        for point in page.locator(".js-plotly-plot .nsewdrag").all()[:1]:
            point.hover()
        assert page.evaluate("window.ran") is None, name
        assert page.evaluate(_PLANTED) == 0, name
        went_well(page)
        shown += page.evaluate(_SHOWN)
    assert shown > 5  # the names were there, as text
    assert not [url for url in asked if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))]


def _press(page: Any, name: str) -> Any:
    """The segments of that name."""
    return page.get_by_role("button", name=name, exact=True).or_(page.get_by_role("radio", name=name, exact=True))


_WALK = """
  const walk = (root, seen) => {
    for (const element of root.querySelectorAll("*")) { seen(element); if (element.shadowRoot) walk(element.shadowRoot, seen); }
  };
"""
_PLANTED = f"""() => {{ {_WALK} let found = 0;
  walk(document, (element) => {{
    if (element.tagName === "IMG" && (element.getAttribute("src") || "").match(/^x$|invalid/)) found++;
    if ((element.getAttribute("href") || "").startsWith("javascript")) found++;
    if (element.classList && element.classList.contains("katex")) found++;
  }});
  return found; }}"""
_SHOWN = f"""() => {{ {_WALK} let found = 0;
  walk(document, (element) => {{
    if (element.children.length === 0 && (element.textContent || "").includes("onerror")) found++;
  }});
  return found; }}"""
