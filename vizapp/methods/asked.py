"""What was asked, as `result.json` of a saved result tells it: a provenance in JSON's types, the crop as a PNG file in it."""

from __future__ import annotations

import base64
from typing import Any

from vizapp.engine.trace.sites import Unit
from vizapp.media.drawing import to_png
from vizapp.media.picture import open_picture
from vizapp.methods.provenance import Provenance

_TEXTS = (
    "method", "title", "source", "network", "weights", "output", "options", "channels", "picture", "sample", "bands", "folder",
    "target", "quantity", "link_function",
)  # fmt: skip


def told(asked: Provenance) -> dict[str, Any]:
    """A provenance in types of JSON, without what a method says of itself (`shows` and `views`)."""
    unit, seen = asked.unit, asked.seen
    return {name: getattr(asked, name) for name in _TEXTS} | {
        "unit": None if unit is None else [unit.site, unit.channel, unit.cell], "class": asked.class_,
        "interventions": asked.interventions, "params": dict(asked.params), "categories": asked.categories,
        "size": asked.size, "repeatable": asked.repeatable,
        "seen": "" if seen is None else base64.b64encode(to_png(seen)).decode(),
    }  # fmt: skip


def read(told: dict[str, Any]) -> Provenance:
    """The provenance of which `told` tells.

    Raises:
        ValueError, TypeError, KeyError, VizError: it is not one.
    """
    unit, (height, width) = told["unit"], map(int, told["size"])
    texts: dict[str, Any] = {name: _text(told[name]) for name in _TEXTS}
    return Provenance(
        **texts,
        unit=None
        if unit is None
        else Unit(_text(unit[0]), int(unit[1]), unit[2] and (int(unit[2][0]), int(unit[2][1]))),
        class_=None if told["class"] is None else int(told["class"]),
        interventions=tuple(map(_text, told["interventions"])),
        params={name: _text(value) for name, value in told["params"].items()},
        categories=tuple(map(_text, told["categories"])),
        size=(height, width),
        repeatable=told["repeatable"] is True,
        seen=open_picture(base64.b64decode(_text(told["seen"]), validate=True)).pixels if told["seen"] else None,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of a text")
    return value
