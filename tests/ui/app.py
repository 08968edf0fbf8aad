"""The app under test: access to what a page shows and offers."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.testing.v1 import AppTest

from vizapp.ui.app.pages import pages

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., AppTest]
PAGES = tuple(pages())  # all of them, as the navigation lists them
ASKING = tuple(page for page in PAGES if page != "about")  # those that ask a network


def turn_to(app: AppTest, page: str) -> AppTest:
    """The app on another page, by the key that its address ends with. Several pages may share a file."""
    known = {info.get("url_pathname"): number for number, info in app._registered_pages.items()}
    app._page_hash = known["" if page == "start" else page]
    return app.run()


def press(app: AppTest, key: str) -> AppTest:
    """The app after a click on that button, and after the runs that watched work asks for."""
    app.button(key=key).click().run()
    for _ in range(60):  # a fragment that watches asks for a run of the whole page, which AppTest does not always make
        if not [button for button in app.button if button.key == "occlusion.several.cancel"]:
            break
        app.run()
    return app.run()


def click(app: AppTest, key: str, event: str, value: Any) -> AppTest:
    """The app after a click in a component of ours, as its script sends it."""
    element = next(e for e in app.get("bidi_component") if e.proto.id.endswith(f"-{key}"))
    states = app._tree.get_widget_states()
    sent = states.widgets.add(id=_make_trigger_id(element.proto.id, "events"))
    sent.json_trigger_value = json.dumps([{"event": event, "value": value}])
    return app._run(states)


# What a page says


def sentences(app: AppTest) -> str:
    """All notices of a page."""
    return " ".join(notice.value for notice in app.warning).replace("\\", "")


def words(app: AppTest) -> str:
    """All captions of a page."""
    return plain(" ".join(caption.value for caption in app.caption))


def plain(markdown: str) -> str:
    """What people read of a Markdown text: without escapes and without the tooltips of terms."""
    return re.sub(r'\[([^\]]*)\]\(about#terms "[^"]*"\)', r"\1", markdown).replace("\\", "")


def went_well(app: AppTest) -> bool:
    """Whether the page has neither a stack trace nor the notice of an unexpected error."""
    return not app.exception and "Unexpected error" not in sentences(app)


def chosen(app: AppTest, name: str) -> str:
    """What the address names."""
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


def offered(app: AppTest) -> list[str]:
    """The files that can be had, as their buttons say."""
    return [button.label for button in app.button if button.proto.icon == ":material/download:"]


# What components of ours were given


def components(app: AppTest, page: str) -> set[str]:
    """The keys of a page's components."""
    keys = {element.proto.id.rpartition("-")[2] for element in app.get("bidi_component")}
    return {key for key in keys if key.startswith(f"{page}.")}


def shown(app: AppTest, key: str) -> Any:
    """The data of one component."""
    element = next(e for e in app.get("bidi_component") if key in e.proto.id)
    return json.loads(element.proto.json)


def drawn(app: AppTest, key: str) -> np.ndarray:
    """The picture of one component, uint8 `[H W 3]`."""
    return pixels(shown(app, key)["photo"])


def pixels(uri: str) -> np.ndarray:
    """The picture in a data address, uint8 `[H W 3]`."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


def rgba(uri: str) -> np.ndarray:
    """The picture in a data address as it is, `[H W 4]` with opacity."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def floats(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers in a component's data."""
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def map_values(group: dict[str, Any], letter: str) -> np.ndarray:
    """The numbers of one occlusion map, by its letter."""
    one = next(m for m in group["maps"] if m["letter"] == f"({letter})")
    return floats(one["values"], one.get("grid", group["size"]))


def container_of(app: AppTest, key: str) -> tuple[int, ...]:
    """The position of the container of a component in the page: the browser keeps a component whose container stays there."""

    def search(block: Any) -> tuple[int, ...] | None:
        for number, child in block.children.items():
            if key in getattr(child.proto, "id", ""):
                return ()
            below = search(child) if hasattr(child, "children") else None
            if below is not None:
                return (number, *below)
        return None

    found = search(app.main)
    assert found is not None, key
    return found
