"""The components in a real browser: keyboard, touch, redraws while in use, and large inputs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.browser.conftest import ROOT
from tests.networks import seeded
from vizapp.engine.layers.convolution_call import convolution_call
from vizapp.ui.pages.feature_maps.sliding_kernel import data_of

pytestmark = pytest.mark.browser
Mount = Callable[..., Any]
FOLDER = ROOT / "vizapp" / "components"
PAGE = """<body style="margin: 20px; background: #fff"><button>Before</button>
<div id="host" style="--st-primary-color: #c8410b; --st-background-color: #fff; --st-text-color: #22262b"></div>
<button id="after">After</button></body>"""
# As Streamlit mounts a component: each run of the page calls its script again, on the elements that are there.
START = """async ([name, style, script]) => {
  const first = document.querySelector("#host"), after = document.querySelector("#after");
  const host = first.shadowRoot ? document.body.insertBefore(first.cloneNode(), after) : first;
  const shadow = host.attachShadow({ mode: "open" });
  shadow.appendChild(document.createElement("style")).textContent = style;
  const root = shadow.appendChild(document.createElement("div"));
  root.className = `root ${name}`;
  const { default: draw } = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  window.sent ??= [];
  const setTriggerValue = (...given) => window.sent.push(given);
  (window.draws ??= []).push((data) => { draw({ data, parentElement: shadow, setTriggerValue }); });
}"""


@pytest.fixture
def mounted(browser: Any) -> Iterator[Mount]:
    """`mounted("sheet", data, width=340)`: a page with that component alone; `page.draw(data)` is another run.

    `page.add("map", data)` mounts another component below.
    """
    contexts = []

    def mount(name: str, data: dict[str, Any], width: int = 700, **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width + 40, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.set_content(PAGE)

        def add(name: str, data: dict[str, Any]) -> None:
            style, script = (
                "".join((FOLDER / f"{n}.{kind}").read_text() for n in ("elements", name)) for kind in ("css", "js")
            )
            page.evaluate(START, [name, style, script])
            page.evaluate("data => draws.at(-1)(data)", data)

        page.add, page.draw = add, partial(page.evaluate, "data => draws[0](data)")
        add(name, data)
        return page

    yield mount
    for context in contexts:
        assert context.pages[0].errors == []
        context.close()


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def packed(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def sent(page: Any) -> Any:
    return page.evaluate("sent")


def said(page: Any, sentence: str) -> bool:
    """Whether those who hear the page are told exactly that, at last."""
    page.locator(".said[role=status]").filter(has_text=sentence).wait_for(state="attached")
    return bool(page.locator(".said").text_content() == sentence)


# Sheets

SIDE = 4


def colour(index: int) -> tuple[int, int, int]:
    return 40 + index % 200, 40 + index // 200 * 10, 90


def sheet(count: int, columns: int = 4, **more: Any) -> dict[str, Any]:
    """A sheet whose tiles each have a colour of their own."""
    rows = -(-count // columns)
    tiles = np.array([colour(index) for index in range(rows * columns)], np.uint8).reshape(rows, columns, 3)
    return {
        "sprite": png(tiles.repeat(SIDE, 0).repeat(SIDE, 1)), "tile": [SIDE, SIDE], "columns": columns, "side": 58,
        "most": 132, "items": [10 * index for index in range(count)], "titles": [f"Channel {n}" for n in range(count)],
        "chosen": 10, "label": f"{count} channels",
    } | more  # fmt: skip


TWO_FRAMES = "() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


def frame(page: Any) -> bool:
    return bool(page.locator(".frame.hover").is_visible())


def opened(page: Any) -> Any:
    """The sheet, once it is drawn and has the focus of the keyboard."""
    page.locator(".frame.chosen").wait_for()
    view = page.locator(".view")
    view.focus()
    return view


def test_a_very_tall_sheet_is_drawn_sharply_from_the_first_row_to_the_last(mounted: Mount) -> None:
    page = mounted("sheet", sheet(2048, 46), width=340, device_scale_factor=3)
    view = opened(page)
    canvas = view.locator("canvas")
    for place in ("0", "view.scrollHeight / 2", "view.scrollHeight"):
        box = view.evaluate(f"view => {{ view.scrollTop = {place}; return view.getBoundingClientRect().toJSON(); }}")
        page.evaluate(TWO_FRAMES)
        shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        for across, down in ((0.1, 0.04), (0.9, 0.5), (0.1, 0.96)):
            x, y = box["x"] + across * box["width"], box["y"] + down * box["height"]
            page.mouse.move(x, y)
            title = page.locator(".tip b").inner_text()
            assert tuple(shown[round(3 * y), round(3 * x)]) == colour(int(title.split()[1])), (place, title)
        size = canvas.evaluate("c => [c.width, c.height, Math.round(3 * c.clientWidth)]")
        assert max(size) <= 4096
        assert size[0] == pytest.approx(size[2], abs=3), "as many pixels as the screen has"
    page.mouse.click(x, y)
    assert sent(page) == [["chosen", 10 * int(title.split()[1])]]
    assert int(title.split()[1]) >= 2040


def test_the_keys_walk_a_sheet_through_runs_of_the_page(mounted: Mount) -> None:
    data = sheet(12)
    page = mounted("sheet", data)
    view = opened(page)
    press(page, "ArrowRight", "ArrowRight")
    page.draw(data)
    page.evaluate(TWO_FRAMES)
    assert frame(page), "the frame stays where the keys came to"
    press(page, "ArrowRight")
    assert said(page, "Channel 4"), "the last of three keys"
    page.draw(data)
    press(page, "Enter")
    assert sent(page) == [["chosen", 40]]
    assert view.get_attribute("role") == "application"
    assert "Enter chooses" in view.get_attribute("aria-label")
    press(page, "Tab")
    assert not frame(page), "nothing is left behind"
    assert page.locator(".tip").inner_text() == "Channel 1"


def test_pointing_at_a_sheet_is_not_said_aloud(mounted: Mount) -> None:
    page = mounted("sheet", sheet(12))
    opened(page)
    page.locator("canvas").hover(position={"x": 5, "y": 5})
    assert page.locator(".tip").inner_text() == "Channel 0"
    page.wait_for_timeout(600)
    assert "".join(page.locator(".said").all_text_contents()) == ""


def test_a_sheet_that_is_only_to_look_at_says_so_and_sends_nothing(mounted: Mount) -> None:
    page = mounted("sheet", sheet(12, still=True, chosen=None))
    canvas = page.locator("canvas")
    canvas.click(position={"x": 5, "y": 5})
    page.locator(".view").focus()
    press(page, "ArrowRight", "Enter", " ")
    assert frame(page), "the tiles are told all the same"
    assert sent(page) == []
    assert "choose" not in page.locator(".view").get_attribute("aria-label")
    assert canvas.evaluate("canvas => getComputedStyle(canvas).cursor") == "default"


@pytest.mark.parametrize("count", [5, 64, 200])
def test_an_enlarged_sheet_shows_all_tiles_in_the_room_and_is_put_back(mounted: Mount, count: int) -> None:
    page = mounted("sheet", sheet(count, columns=8))
    canvas = opened(page).locator("canvas")
    before = canvas.bounding_box()
    resize = "height => [...window.__vizappPictures.values()][0].resize(height)"
    page.evaluate(resize, 500)
    large = canvas.bounding_box()
    assert 400 < large["height"] <= 500 or large["width"] > 650, "as large as the room"
    assert large["height"] <= 500
    tile = (large["width"] * large["height"] / count) ** 0.5
    page.mouse.move(large["x"] + 1, large["y"] + 1)
    assert page.locator(".tip b").inner_text() == "Channel 0"
    page.mouse.move(large["x"] + tile / 2, large["y"] + large["height"] - 2)
    assert int(page.locator(".tip b").inner_text().split()[1]) >= count / 2, "down to the last row"
    page.evaluate(resize, None)
    assert canvas.bounding_box() == before


# Maps of cells

PHOTO = png(np.full((60, 60, 3), 255, np.uint8))
CELLS = {
    "photo": PHOTO, "size": [60, 60], "cells": [6, 6], "values": packed(np.arange(36.0)), "low": 0, "high": 35,
    "cell": None, "label": "Channel 3",
}  # fmt: skip


def test_the_keys_walk_a_map_through_runs_of_the_page(mounted: Mount) -> None:
    page = mounted("map", CELLS)
    page.locator(".picture").focus()
    press(page, "ArrowRight", "ArrowDown")
    assert said(page, "28.0 at row 4, column 4")
    page.draw(CELLS)
    assert page.locator("rect.hover").count() == 1
    press(page, "ArrowDown")
    page.draw(CELLS)
    press(page, "Enter")
    assert sent(page) == [["cell", [5, 4]]]
    press(page, "Tab")
    assert page.locator("rect.hover").count() == 0


def test_the_lines_of_a_map_are_seen_on_a_white_photo(mounted: Mount) -> None:
    page = mounted("map", CELLS | {"cell": [1, 1]})
    page.locator(".picture").focus()
    press(page, "ArrowRight", "ArrowRight")
    box = page.locator(".picture").bounding_box()
    shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L")).astype(int)
    side = box["height"] / 6
    for column in (1, 4):  # the chosen cell and the one that the keys came to
        row = shown[round(box["y"] + 1.5 * side), round(box["x"] + column * side) - 6 :][: round(side)]
        assert row.min() < 170, "a dark line beside the white one"


def test_a_map_that_loses_its_cells_answers_to_nothing(mounted: Mount) -> None:
    page = mounted("map", CELLS)
    page.draw({"photo": PHOTO, "size": [60, 60], "label": "A photo"})
    picture = page.locator(".picture")
    picture.click()
    picture.hover(position={"x": 9, "y": 9})
    assert sent(page) == []
    assert [picture.get_attribute(name) for name in ("tabindex", "role", "aria-label")] == [None] * 3
    page.draw(CELLS)
    picture.click(position={"x": 5, "y": 5})
    assert sent(page) == [["cell", [0, 0]]]


# Panels of a sweep


def sweep(step: int, cell: list[int] | None = None, count: int = 1, **more: Any) -> dict[str, Any]:
    """The data of sweeps of 5 by 5 positions after some steps: the maps are other ones each time."""
    ramp = png(np.zeros((1, 4, 3), np.uint8))
    values = {"kind": "percent", "grid": [5, 5], "values": packed(np.arange(25) / 100 + step), "low": 0, "high": 1}
    shown = {"letter": "(d)", "title": "goldfish", "picture": png(np.full((5, 5, 3), 9 * step, np.uint8))}
    group = {
        "title": "A sweep", "note": "", "photo": PHOTO, "photoTitle": "A photo", "size": [60, 60], "grid": [5, 5],
        "tops": [0, 12, 24, 36, 48], "lefts": [0, 12, 24, 36, 48], "square": [12, 12], "fill": None, "inverse": False,
        "cell": cell, "names": {}, "legend": [], "ramp": ramp,
        "maps": [shown | values],
    }  # fmt: skip
    return {"groups": [group] * count} | more


def values(page: Any) -> list[str]:
    return list(page.locator(".value").all_inner_texts())


def test_the_keys_walk_the_panels_while_a_sweep_draws_them_again(mounted: Mount) -> None:
    page = mounted("panels", sweep(0))
    row = page.locator(".row")
    row.focus()
    for step, column in ((1, 3), (2, 4)):
        press(page, "ArrowRight")
        page.draw(sweep(step))
        assert values(page) == [f"row 2, column {column}", f"{100 * step + 10 + column}.0 %"]
    press(page, "ArrowUp")
    assert said(page, "row 1, column 4, goldfish 209.0 %")
    page.draw(sweep(3))
    press(page, "Enter")
    assert sent(page) == [["cell", [1, 4]]]
    page.draw(sweep(3, [0, 0]))
    press(page, "Tab")
    assert values(page)[0] == "row 0, column 0", "the chosen one again"


def test_the_first_maps_beside_the_photo_take_no_focus_away(mounted: Mount) -> None:
    alone = sweep(0)
    alone["groups"][0]["maps"] = []
    page = mounted("panels", alone)
    page.locator(".row").focus()
    press(page, "ArrowRight")
    page.draw(sweep(1))
    press(page, "ArrowDown", "Enter")
    assert sent(page) == [["cell", [3, 3]]]


def test_another_sweep_that_is_finished_takes_no_focus_away(mounted: Mount) -> None:
    page = mounted("panels", sweep(1, count=2, small=True))
    page.locator(".row").nth(1).focus()
    press(page, "ArrowDown")
    page.draw(sweep(1, count=3, small=True))
    assert page.locator(".row").count() == 3
    press(page, "ArrowDown", "Enter")
    assert values(page)[0] == "row 4, column 2"
    assert sent(page) == [["open", 1]]


def test_a_tap_on_a_panel_leaves_nothing_that_hides_what_is_chosen_later(mounted: Mount) -> None:
    page = mounted("panels", sweep(0), has_touch=True)
    box = page.locator(".picture").first.bounding_box()
    page.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"])
    page.wait_for_function("sent.length")
    assert sent(page) == [["cell", [4, 4]]]
    page.draw(sweep(0, [1, 2]))  # chosen elsewhere
    assert values(page)[0] == "row 1, column 2"
    page.locator(".picture").first.hover(position={"x": 3, "y": 3})
    assert values(page)[0] == "row 0, column 0", "a mouse points"


# Enlarged pictures, presentation mode, and the focus after a card

BARS = {
    "rows": [{"name": f"class {number}", "share": 1 / (2 + number), "more": ""} for number in range(6)],
    "label": "Shares",
}  # fmt: skip


def test_pictures_are_enlarged_one_after_the_other_and_put_back(mounted: Mount) -> None:
    page = mounted("present", {"on": False})
    page.add("map", CELLS | {"label": "One"})
    page.add("bars", BARS)
    page.add("diagram", network("a.norm"))
    page.add("map", CELLS | {"label": "Two"})
    titles = ["One", "Shares", "The network", "Two"]
    stage, large, buttons = page.locator(".stage"), page.locator("[data-enlarged]"), page.locator(".enlarge")
    assert [button.get_attribute("aria-label") for button in buttons.all()] == [f"Enlarge: {title}" for title in titles]
    roots = [button.locator("..") for button in buttons.all()]
    place = "e => [e.offsetLeft, e.offsetTop, e.offsetWidth, e.offsetHeight]"
    before = [root.evaluate(place) for root in roots]
    page.get_by_label("Enlarge: Two").click()
    for key, number in (("ArrowRight", 3), ("ArrowRight", 0), ("ArrowRight", 1), ("ArrowLeft", 2), ("Escape", 1)):
        assert stage.locator(".words b").inner_text() == titles[number]
        assert stage.locator(".count").inner_text() == f"{number + 1} of {len(titles)}"
        box, words = large.bounding_box(), stage.locator(".bar").bounding_box()
        assert box["height"] > 0.85 * words["y"] or box["width"] > 0.95 * page.viewport_size["width"]
        assert box["y"] + box["height"] <= words["y"] + 1, "all of it is seen"
        if titles[number] == "Shares":
            assert box["height"] > 2.2 * before[number][3], "in larger letters"
        if titles[number] == "The network":
            height = large.evaluate("root => root.querySelector('.box').getBoundingClientRect().height")
            assert height > 300, "with higher boxes"
        page.keyboard.press(key)
    assert stage.is_hidden()
    assert page.locator("[data-enlarged], [popover]:not(.stage)").count() == 0
    assert [root.evaluate(place) for root in roots] == before
    assert page.evaluate(FOCUSED) == "Enlarge: Two", "the keys go on where they were"
    page.keyboard.press("f")
    assert sent(page) == [["present", True]]
    assert titles[0] == "One"


def test_an_enlarged_picture_is_found_again_when_the_page_draws_it_anew(mounted: Mount) -> None:
    page = mounted("present", {"on": False})
    page.add("map", CELLS | {"label": "One"})
    page.get_by_label("Enlarge: One").click()
    page.evaluate("document.querySelectorAll('#host')[1].remove()")
    page.add("map", CELLS | {"label": "One", "hint": "anew"})
    page.locator("[data-enlarged] .tip", has_text="anew").wait_for()
    page.evaluate("document.querySelectorAll('#host')[1].remove()")
    page.locator(".stage").wait_for(state="hidden")


def test_the_keys_of_presentation_mode_leave_typing_alone(mounted: Mount) -> None:
    page = mounted("present", {"on": False})
    page.evaluate("document.body.append(document.createElement('input'))")
    page.locator("input").focus()
    press(page, "f")
    assert sent(page) == []
    assert page.locator("input").input_value() == "f"
    page.get_by_text("After").focus()
    press(page, "Escape", "f")
    assert sent(page) == [["present", True]]
    page.draw({"on": True})
    press(page, "Escape", "f")
    page.get_by_role("button", name="Exit presentation").click()
    assert sent(page)[1:] == [["present", False]] * 3


def test_a_list_of_suggestions_is_left_when_something_is_chosen(mounted: Mount) -> None:
    """Else it stays open over what was found."""
    page = mounted("present", {"on": False})
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<div class=stMultiSelect><input></div>')")
    box = page.locator(".stMultiSelect input")
    box.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(150)
    assert box.evaluate("box => box === document.activeElement"), "nothing was typed"
    page.keyboard.type("dog")
    page.keyboard.press("Enter")
    page.wait_for_function("!document.activeElement.closest('.stMultiSelect')")


FOCUSED = """(() => {
  let at = document.activeElement;
  while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
  return at.getAttribute("aria-label") ?? at.id;
})()"""
TILES = {"src": PHOTO, "count": 1, "grid": [1, 1], "ratio": 1, "coarse": False}
STAGES = {
    "heads": ["Maps", "Photo", "Deconvnet"], "label": "Layers",
    "rows": [{"site": "a", "title": "a", "note": "", "tiles": TILES, "ratio": "1 / 1", "items": [3], "details": ["4"],
              "pair": [None, None], "coarse": False}],
}  # fmt: skip
OPENING = [
    ("sheet", sheet(12, card=True), ".view", ["ArrowLeft", "ArrowRight", "Enter"], ["card", 10]),
    ("stages", STAGES, ".tile", ["Enter"], ["unit", ["a", 3]]),
    (
        "units", {"cards": [{"item": 3, "title": "Unit 3", "note": "", "patches": TILES, "down": None, "empty": ""}],
                  "label": "Units", "waiting": ""}, ".open", ["Enter"], ["card", 3],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "opener", "keys", "opened"), OPENING)
def test_a_closed_card_gives_the_focus_back(
    mounted: Mount, name: str, data: dict[str, Any], opener: str, keys: list[str], opened: list[Any]
) -> None:
    page = mounted(name, data)
    page.locator(opener).last.wait_for()
    page.wait_for_timeout(100)
    inside = "document.querySelector('#host').shadowRoot.activeElement !== null"
    for moves_on in (False, True):
        page.locator(opener).last.focus()
        press(page, *keys)
        assert sent(page)[-1] == opened
        page.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<div role=dialog><button id=in>Close</button></div>')"
        )
        page.locator("#in").focus()
        page.wait_for_timeout(300)
        assert not page.evaluate(inside), "the keys stay in the card"
        page.evaluate("document.querySelector('[role=dialog]').remove()")
        if moves_on:
            page.locator("#after").focus()
            page.wait_for_timeout(500)
            assert page.evaluate(FOCUSED) == "after", "who has gone on is not called back"
        else:
            page.draw(data)
            page.wait_for_function(inside)


# The drawn network, and units as cards


def network(chosen: str) -> dict[str, Any]:
    parts = [
        {"name": f"a.{name}", "label": name, "kind": name, "what": name, "shape": [8, 4, 4]}
        for name in ("convolution", "norm", "activation")
    ]
    block = {"group": "a", "kind": "convolution", "shape": [8, 4, 4], "height": 1, "width": 9, "label": "a"}
    return {"chosen": chosen, "blocks": [block | {"name": "a", "parts": parts}]}


def test_an_operation_chosen_by_the_keyboard_keeps_the_focus(mounted: Mount) -> None:
    page = mounted("diagram", network("a.activation"))
    page.locator(".parts button").nth(1).focus()
    press(page, "Enter")
    assert sent(page) == [["site", "a.norm"]]
    page.draw(network("a.norm"))
    press(page, "Shift+Tab", "Enter")
    assert sent(page)[1:] == [["site", "a.convolution"]]


def test_a_card_holds_each_of_its_pictures_once(mounted: Mount) -> None:
    source = png(np.arange(27, dtype=np.uint8).reshape(3, 3, 3) * 9)
    nine = {"src": source, "count": 9, "grid": [3, 3], "ratio": 1, "coarse": True}
    card = {"item": 3, "title": "Unit 3", "note": "", "patches": nine, "down": None, "empty": ""}
    page = mounted("units", {"cards": [card], "label": "Units", "waiting": "Projecting"})
    assert (
        page.evaluate("document.querySelector('#host').shadowRoot.querySelector('.root').innerHTML").count(source) == 1
    )
    shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    for number, tile in enumerate(page.locator(".nine i").all()):
        box = tile.bounding_box()
        middle = shown[round(box["y"] + box["height"] / 2), round(box["x"] + box["width"] / 2)]
        assert tuple(middle) == tuple(9 * (3 * number + part) for part in range(3))


def test_the_slider_changes_the_picture_and_its_answer_at_once_and_is_sent_when_it_is_let_go(mounted: Mount) -> None:
    shades = [png(np.full((20, 20, 3), 60 * number, np.uint8)) for number in range(4)]
    answers = [[["cat", 0.9], ["dog", 0.1]], [["dog", 0.7]], [], [["fox", 0.6]]]
    data = {
        "frames": shades, "ticks": ["0°", "90°", "180°", "270°"], "size": [20, 20], "at": 0, "label": "Photo",
        "name": "Rotate", "answers": answers,
    }  # fmt: skip
    page = mounted("frames", data | {"answers": None})
    assert page.locator(".answer").count() == 0
    page.draw(data)
    assert page.locator(".answer").all_inner_texts()[0].split() == ["cat", "90.0", "%"]
    slider, image = page.locator("input[type=range]"), page.locator(".picture img")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2, steps=5)
    assert image.get_attribute("src") == shades[3]
    assert page.locator(".answer .name").all_inner_texts() == ["fox"]
    assert page.evaluate("window.sent") == [], "not while it is dragged"
    page.draw(data)
    assert image.get_attribute("src") == shades[3], "another run of the page leaves the slider where it is"
    page.mouse.up()
    assert page.evaluate("window.sent") == [["frame", 3]]
    page.draw(data | {"at": 3})
    page.draw(data | {"at": 1})
    assert image.get_attribute("src") == shades[1], "the page chooses another picture"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert image.get_attribute("src") == shades[2]
    assert slider.get_attribute("aria-valuetext") == "180°"
    assert page.locator(".answer").count() == 0, "not computed yet"


# A square on a photo

PHOTO = {"photo": "", "size": [200, 100], "box": None, "name": "cat.png"}


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From a pixel of the photo (x, y) to another."""
    area = page.locator(".picture").bounding_box()
    points = [(area["x"] + x / 100 * area["width"], area["y"] + y / 200 * area["height"]) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=3)
    page.mouse.up()


def test_a_square_is_drawn_by_dragging_moved_from_inside_and_removed(mounted: Mount) -> None:
    page = mounted("box", PHOTO | {"photo": png(np.zeros((200, 100, 3), np.uint8))}, width=300)
    assert page.locator(".below span").inner_text() == "not marked"
    drag(page, (60, 120), (20, 40))
    assert sent(page)[-1] == ["box", [40, 20, 120, 60]]
    assert page.locator(".below span").inner_text() == "40 × 80"
    drag(page, (40, 80), (50, 90))
    assert sent(page)[-1] == ["box", [50, 30, 130, 70]]
    drag(page, (50, 80), (99, 199))
    assert sent(page)[-1] == ["box", [120, 60, 200, 100]], "it stays on the photo"
    drag(page, (5, 5), (5.4, 5))
    assert len(sent(page)) == 3, "a click draws nothing"
    page.draw(PHOTO | {"box": [0, 0, 10, 10]})
    assert page.locator("rect.field").get_attribute("height") == str(10 - 2 * 100 / 300)
    page.locator(".remove").click()
    assert sent(page)[-1] == ["box", []]
    assert page.locator("rect").count() == 0


def test_a_square_is_made_moved_and_sized_by_keys(mounted: Mount) -> None:
    page = mounted("box", PHOTO, width=300)
    page.locator(".picture").focus()
    press(page, "ArrowRight", "ArrowRight", "Shift+ArrowDown")
    assert said(page, "25 × 52 at 40, 75")
    page.wait_for_function("sent.length == 1")
    assert sent(page) == [["box", [75, 40, 127, 65]]], "once, after the last key"
    press(page, "Delete")
    page.wait_for_function("sent.length == 2")
    assert sent(page)[-1] == ["box", []]


def test_a_kernel_slides_by_keys_and_its_products_sum_to_the_map(mounted: Mount) -> None:
    call = convolution_call(
        seeded(nn.Sequential(nn.Conv2d(3, 2, 3, stride=2))),
        torch.rand(1, 3, 15, 15, generator=torch.manual_seed(0)),
        "0",
    )
    assert call is not None
    data = data_of(call, 1, (2, 3))
    page = mounted("kernel", data)
    for key, (row, column) in ((None, (2, 3)), ("ArrowDown", (3, 3)), ("ArrowLeft", (3, 2))):
        if key:
            page.locator(".grid[role=application]").press(key)
        value = shown(call.output[1, row, column])
        assert page.locator("output").text_content() == f"cell {row},{column}: {value}"
        assert page.locator(".equation b").text_content() == value
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "document.querySelector('#host').shadowRoot.querySelector('output').textContent > 'cell 3,3'"
    )
    page.get_by_role("button", name="Pause").click()
    still = mounted("kernel", data, reduced_motion="reduce")
    assert still.get_by_role("button", name="Play").count() == 0
    still.get_by_role("button", name="One cell on").click()
    assert still.locator("output").text_content().startswith("cell 2,4")
    assert page.errors == still.errors == []


def shown(value: float) -> str:
    """A number as `short` of elements.js writes it, between 0.001 and 100."""
    return f"{value:#.3g}".replace("-", "−")


def test_the_view_of_an_atlas_is_never_empty(mounted: Mount) -> None:
    """Whatever the wheel, dragging and the arrow keys ask for, a point is in it."""
    corners = np.array([(0, 0), (1, 0), (1, 1)], np.float32)
    page = mounted("atlas", {
        "key": "k", "points": packed(corners.reshape(-1)), "colours": ["rgb(0,0,0)"],
        "colour": packed(np.zeros(3)), "names": ["a"], "classes": ["a"],
        "class": packed(np.zeros(3)), "chosen": [], "label": "Atlas of 3 photos",
    })  # fmt: skip
    canvas = page.locator("canvas")
    box = canvas.bounding_box()
    seen = """canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((v) => v)"""

    def is_filled() -> bool:
        page.evaluate(TWO_FRAMES)
        return bool(canvas.evaluate(seen))

    assert is_filled()
    page.mouse.move(box["x"] + 40, box["y"] + 40)  # no point is at the upper left
    for _ in range(12):
        page.mouse.wheel(0, -400)
        assert is_filled()
    for to in ((600, 420), (40, 40)):
        page.mouse.down()
        page.mouse.move(box["x"] + to[0], box["y"] + to[1])
        page.mouse.up()
        assert is_filled()
    canvas.focus()
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):
        press(page, *[key] * 20)
        assert is_filled()


# The photo that is deleted along a curve

HALF = np.zeros((8, 8), np.uint8)
HALF[:, 4:] = 101  # replaced at no share
DELETION = {
    "photo": png(np.full((8, 8, 3), (200, 0, 0), np.uint8)), "blurred": png(np.full((8, 8, 3), (0, 0, 200), np.uint8)),
    "size": [8, 8], "steps": base64.b64encode((HALF + 30).clip(0, 101).tobytes()).decode(), "inserts": False,
    "lines": [
        {"item": "a", "title": "First", "note": "0.5", "plain": False, "values": [1 - n / 100 for n in range(101)]},
        {"item": "random", "title": "Random", "note": "", "plain": True, "values": None},
    ],
    "chosen": "a", "at": 10, "low": 0, "high": 1, "share": True, "name": "Probability of cat", "label": "Deletion",
    "done": ["Blurred: the", "of the pixels."],
}  # fmt: skip
COLOURS = """() => {
  const canvas = document.querySelector('#host').shadowRoot.querySelector('canvas'), pen = canvas.getContext('2d');
  return [0, 7].map((x) => [...pen.getImageData(x, 4, 1, 1).data].slice(0, 3));
}"""


def test_a_drag_along_the_curve_deletes_the_photo_and_is_sent_when_it_ends(mounted: Mount) -> None:
    page = mounted("deletion", DELETION)
    red, blue = [200, 0, 0], [0, 0, 200]
    page.wait_for_function(f"({COLOURS})()[0][0] == 200")
    assert page.locator(".words").text_content() == (
        "Blurred: the 10 % of the pixels. Probability of cat: 100.0 % → 90.0 %."
    )
    box = page.locator(".chart").bounding_box()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=4)
    assert page.evaluate(COLOURS) == [blue, red], "what is reached is replaced, the rest is not"
    assert "100.0 % → 50.0 %" in page.locator(".words").text_content()
    assert sent(page) == [], "nothing is asked while it is dragged"
    page.draw(DELETION)  # the page runs again meanwhile
    assert "50 %" in page.locator(".words").text_content()
    page.mouse.up()
    assert sent(page) == [["share", 50]]
    page.locator("input").focus()
    press(page, "ArrowRight")
    assert sent(page)[-1] == ["share", 51]
    page.locator(".legend button", has_text="Random").click()
    assert sent(page)[-1] == ["chosen", "random"]
    page.draw(DELETION | {"inserts": True, "at": 20})
    assert page.evaluate(COLOURS) == [blue, blue], "nothing has come back yet"
    page.draw(DELETION | {"inserts": True, "at": 40})
    assert page.evaluate(COLOURS) == [red, blue]


def test_a_card_is_chosen_and_tells_what_its_map_does_not_show(mounted: Mount) -> None:
    card = {
        "item": "gradcam", "title": "Grad-CAM", "picture": png(np.zeros((4, 4, 3), np.uint8)), "waiting": "", "plain": False,
        "numbers": [{"name": "Deletion ↓", "value": "0.2", "hint": "", "mark": "best"}], "verdict": "", "good": False,
        "caution": [["Not a cause (", None], ["Adebayo 2018", "https://arxiv.org/abs/1810.03292"], [").", None]],
    }  # fmt: skip
    other = card | {"item": "random", "title": "Random", "picture": None, "waiting": "not computed yet"}
    data = {"cards": [card, other], "size": [4, 4], "chosen": "gradcam", "label": "Maps"}
    page = mounted("attributions", data)
    page.get_by_role("button", name="What Grad-CAM does not show").click()
    told = page.locator(".caution:visible")
    assert told.text_content() == "Not a cause (Adebayo 2018)."
    assert told.locator("a").get_attribute("href") == "https://arxiv.org/abs/1810.03292"
    assert sent(page) == []
    page.draw(data | {"cards": [other, card]})
    assert page.locator(".caution:visible").count() == 1, "it stays open when the order changes"
    assert page.locator(".card .name").all_text_contents() == ["Random", "Grad-CAM"]
    page.get_by_role("button", name="Random", exact=True).click()
    assert sent(page) == [["chosen", "random"]]


# Bars


@pytest.mark.parametrize("width", [320, 480, 900])
def test_a_long_note_leaves_the_name_of_its_bar_in_one_line(mounted: Mount, width: int) -> None:
    long = "also trash can, garbage can, wastebin, ash bin, ash-bin, ashbin, dustbin, trash barrel, trash bin · logit 4.021"
    rows = [{"name": "envelope", "share": 0.041, "more": "logit 4.3"}, {"name": "ashcan", "share": 0.029, "more": long}]
    page = mounted("bars", {"rows": rows, "label": "Classes and their shares"}, width=width)
    page.add("bars", {"rows": [rows[1] | {"more": ""}], "label": "Without a note"})
    page.add("bars", {"rows": [{"name": "cosine", "share": -0.2, "told": "−0.200", "more": ""}], "label": "One number"})
    heights = page.locator(".name").evaluate_all(
        "names => names.map((name) => name.offsetHeight / parseFloat(getComputedStyle(name).fontSize))"
    )
    assert max(heights) < 2, "a name of one word has one line"
    assert page.locator(".share").last.text_content() == "−0.200"
    assert page.locator(".bar i").last.bounding_box()["width"] <= 2, "below zero there is no bar"
