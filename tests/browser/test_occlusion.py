"""The page Occlusion in a real browser: maps get finer, hovering marks all maps, a click opens a position, masks are drawn."""

from __future__ import annotations

import base64
import csv
import io
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import downloaded, keep, open_page, settle, went_well

pytestmark = pytest.mark.browser


def picture(page: Any, number: int) -> Any:
    """The photo (0) or one of the maps (b) to (e) (1 to 4) in the strip."""
    return strip(page, ".panel").nth(number).locator(".picture")


def strip(page: Any, part: str) -> Any:
    """Parts of the small linked maps."""
    return page.locator(f".panels .group:not(.large) {part}")


def large(page: Any, part: str) -> Any:
    """Parts of the map over the photo."""
    return page.locator(f".panels .group.large {part}")


def source(page: Any, number: int) -> str:
    return picture(page, number).locator("img").get_attribute("src") or ""


def point(page: Any, number: int, across: float, down: float, click: bool = False) -> None:
    box = picture(page, number).bounding_box()
    where = {"x": box["width"] * across, "y": box["height"] * down}
    (picture(page, number).click if click else picture(page, number).hover)(position=where)


def marks(page: Any) -> list[int]:
    """How many cells or squares are drawn on each of the five pictures."""
    return [picture(page, number).locator("rect.cell, rect.square").count() for number in range(5)]


def wait_for_change(page: Any, number: int, before: str) -> None:
    """Until one of the five pictures is another one than before."""
    deadline = time.monotonic() + 60
    while source(page, number) == before:
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def plays(page: Any, film: Path) -> Any:
    """Width and height of a WebM film that this browser plays; what it says of one that it does not."""
    address = f"data:video/webm;base64,{base64.b64encode(film.read_bytes()).decode()}"
    return page.evaluate(
        """address => new Promise(told => {
            const film = document.createElement("video");
            film.muted = true;
            film.oncanplay = () => film.play().then(() => told([film.videoWidth, film.videoHeight]));
            film.onerror = () => told(film.error.message);
            film.src = address;
        })""",
        address,
    )


def told(page: Any) -> list[str]:
    return strip(page, ".value").all_inner_texts()


def test_maps_sharpen_are_linked_and_given_away(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.goto(f"{address}/occlusion?network=vizapp/zfnet-mini&picture=motorcycle&stride=2")
    sweeping = page.get_by_text(re.compile("Sweeping")).first
    run = page.get_by_role("button", name="Run the sweep")  # on a slow machine
    sweeping.or_(run).first.wait_for()
    if run.count():
        run.click()
        sweeping.wait_for()
    picture(page, 3).locator("img").wait_for()
    coarse = source(page, 3)
    wait_for_change(page, 3, coarse)  # the page has been drawn as a whole
    strip(page, ".row").press("ArrowRight")
    wait_for_change(page, 3, source(page, 3))
    page.keyboard.press("ArrowRight")
    # The keys go on from where they were, although the maps were redrawn.
    strip(page, ".value").filter(has_text=re.compile("^row 40, column 42$")).first.wait_for()
    assert page.get_by_test_id("stProgress").count() == 1  # while it runs
    keep(page, "occlusion-under-way")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled after").wait_for()
    page.get_by_role("button", name="Arrays NPZ").wait_for()
    settle(page)
    assert page.get_by_test_id("stProgress").count() == 0
    kept = source(page, 3)
    assert kept not in ("", coarse)
    done, count = re.search(
        r"after (\d+) of (\d+) positions", page.get_by_text("Cancelled after").inner_text()
    ).groups()
    assert int(done) < int(count) == 80 * 80
    keep(page, "occlusion-kept")
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("Cancelled after").wait_for(state="detached")
    page.get_by_role("button", name="Arrays NPZ").wait_for(timeout=180_000)
    settle(page)
    assert source(page, 3) not in (kept, coarse)

    point(page, 3, 0.268, 0.71)
    assert marks(page) == [1] * 5
    beside = told(page)
    assert re.fullmatch(r"row 56, column 21", beside[0])
    assert beside[3].endswith("%")
    assert beside[4] == "Motorbikes"
    assert large(page, "rect.hover").count() == 1
    assert large(page, ".value").inner_text().startswith(beside[3])
    point(page, 0, 0.5, 0.2)  # on the photo as well
    assert marks(page) == [1] * 5
    assert told(page)[3] != beside[3]
    box = large(page, ".picture").bounding_box()
    large(page, ".picture").hover(position={"x": 0.268 * box["width"], "y": 0.71 * box["height"]})
    assert marks(page) == [1] * 5
    assert told(page) == beside
    keep(page, "occlusion-hover")
    page.mouse.move(5, 5)
    assert marks(page) == [0] * 5
    assert "position" not in page.url

    before = page.locator(".stMain .picture.still img").get_attribute("src")
    point(page, 1, 40.5 / 80, 16.5 / 80, click=True)  # the middle of a cell, which is 5 pixels wide
    page.wait_for_url(re.compile("position="))
    page.get_by_text("Position 16,40").wait_for()
    settle(page)
    assert page.locator(".stMain .picture.still img").get_attribute("src") != before
    page.mouse.move(5, 5)
    assert marks(page) == [1] * 5  # the chosen one stays

    drawn, summed = source(page, 3), source(page, 1)
    page.get_by_role("combobox", name="Class").click()
    page.get_by_role("option", name=re.compile("scorpion")).click()
    page.wait_for_url(re.compile("class="))
    wait_for_change(page, 3, drawn)
    settle(page)
    assert source(page, 1) == summed
    files = {}
    for title in ("(d) PNG", "Arrays NPZ", "Table CSV", "Film GIF", "Film WebM"):
        files[title] = downloaded(page, title)
    assert Image.open(files["(d) PNG"]).size == (160, 160)
    with np.load(files["Arrays NPZ"]) as arrays:
        assert arrays["probability"].shape == (80, 80)
    assert Image.open(files["Film GIF"]).n_frames > 100
    assert plays(page, files["Film WebM"]) == [1280, 720]
    with files["Table CSV"].open() as lines:
        assert len(list(csv.DictReader(lines))) == 80 * 80
    went_well(page)
    page.context.close()


def test_a_part_is_hidden_by_hand(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.goto(f"{address}/occlusion?network=vizapp/zfnet-mini&way=hand")
    share = page.locator(".bars").first.locator(".share").first
    canvas = page.locator(".mask canvas")
    canvas.wait_for()
    share.wait_for()
    settle(page)
    whole = share.inner_text()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.6 * box["height"])
    page.mouse.down()
    for step in range(1, 11):
        page.mouse.move(box["x"] + (0.2 + 0.06 * step) * box["width"], box["y"] + 0.6 * box["height"])
        page.wait_for_timeout(80)
    share.filter(has_not_text=whole).wait_for()  # while the pen is down
    page.mouse.up()
    page.get_by_text(re.compile(r"Without \d+ % of the photo", re.IGNORECASE)).wait_for()
    settle(page)
    keep(page, "occlusion-drawn-on")
    pixels = np.asarray(Image.open(downloaded(page, "Hidden PNG")))
    row = pixels[96, int(0.25 * 160) : int(0.75 * 160)]
    assert (row == 128).all()  # one stroke, although the page was run again meanwhile
    page.get_by_role("button", name="Clear").click()
    share.filter(has_text=whole).wait_for()
    went_well(page)
    page.context.close()


def test_several_photos_are_swept_pointed_at_together_and_opened_alone(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.goto(f"{address}/occlusion?network=vizapp/lenet5-digits&way=several&window=7&stride=4")
    page.get_by_role("button", name="Sweep 10 photos").click()
    page.get_by_text("Together").wait_for()
    rows = page.locator(".panels .group.small")
    rows.nth(9).wait_for()
    settle(page)  # what is still drawn again takes the mouse's cell away
    assert rows.count() == 10
    place = rows.nth(2).locator(".picture").nth(3)
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    place.hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    assert page.locator(".panels rect.hover").count() == 10 * 5, "the same cell in all maps of all photos"
    rows.nth(3).get_by_role("button", name="digit 3").click()
    page.wait_for_url(re.compile("picture=digit"))
    settle(page)
    assert "way=" not in page.url
    assert picture(page, 4).is_visible()
    went_well(page)
    page.context.close()


def seconds(words: str) -> float:
    """The seconds in a text such as `about 2 min left`."""
    number, unit = re.search(r"about (?:1 h )?(\d+) (s|min)", words).groups()
    return float(number) * (60 if unit == "min" else 1)


def test_a_long_sweep_is_drawn_from_its_first_positions_on_and_its_time_is_honest(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.goto(f"{address}/occlusion?network=vizapp/efficientnet-lite0&picture=coffee&stride=2")
    run = page.get_by_role("button", name="Run the sweep")
    run.wait_for()
    settle(page)
    offer = page.get_by_text("positions so far").inner_text()
    before = int(re.match(r"(\d+) of 12544", offer).group(1))
    assert before > 0
    png = base64.b64decode(source(page, 1).partition(",")[2])
    assert len(Image.open(io.BytesIO(png)).convert("RGB").getcolors()) > 2, "a map, and not one colour"
    assert (large(page, ".picture img").nth(1).get_attribute("src") or "").startswith("data:image/png")
    assert re.search(
        r"Hiding the marked square: espresso [\d.]+ % → [\d.]+ %", page.locator(".vz-headline").inner_text()
    )
    started = time.monotonic()
    run.click()
    progress = page.get_by_text(re.compile("Sweeping.* left")).first
    progress.wait_for()
    assert "about 1 s left" not in progress.inner_text()
    while time.monotonic() < started + 4:
        page.wait_for_timeout(200)
    share = int(re.search(r"(\d+) % of 12544", progress.inner_text()).group(1)) / 100
    left = seconds(progress.inner_text())
    page.get_by_role("button", name="Cancel").click()
    done = int(re.search(r"after (\d+) of", page.get_by_text("Cancelled after").inner_text()).group(1))
    each = (time.monotonic() - started) / (done - before)
    assert share > before / 12544
    assert 0.1 < left / (each * (12544 - done)) < 10, "the speed of a busy machine changes"
    went_well(page)
    page.context.close()


def test_class_and_buttons_follow_the_map_through_every_change(address: str, browser: Any) -> None:
    """The box names the class of map (d), and a quantity stays chosen, when the patch, the fill or the photo changes."""
    page = open_page(browser)
    page.goto(f"{address}/occlusion?network=vizapp/lenet5-digits&picture=digit+3&window=7&stride=7&class=5")

    def check(class_: str) -> None:
        settle(page)
        went_well(page)
        box = page.get_by_role("combobox", name="Class")
        for _ in range(50):  # a busy machine draws the box after the maps
            if box.input_value() == f"{class_} · {class_}":
                break
            page.wait_for_timeout(100)
        assert box.input_value() == f"{class_} · {class_}"
        assert re.search(rf"\(d\)\s+Probability of {class_}", strip(page, ".panel").nth(3).inner_text())
        assert page.get_by_role("radio", name="Probability").is_checked()
        assert f"class={class_}" in page.url

    picture(page, 3).locator("img").wait_for()
    check("5")
    for _ in range(2):
        before = source(page, 3)
        page.get_by_text("Hide everything else").click()
        wait_for_change(page, 3, before)
        check("5")
    box = page.get_by_role("combobox", name="Class")
    box.fill("8")
    box.press("Enter")
    page.wait_for_url(re.compile("class=8"))
    check("8")
    page.get_by_role("combobox", name="Fill").click()
    page.get_by_role("option", name="Black").click()
    page.wait_for_url(re.compile("fill=black"))
    check("8")
    page.locator('[data-testid="stSidebar"] .sheet canvas').click(position={"x": 10, "y": 10})
    page.wait_for_url(lambda url: "digit+3" not in url)
    check("8")
