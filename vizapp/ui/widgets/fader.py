"""Faders of a unit: silence it, turn it up, hold it at a value; and what the network then answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import streamlit as st

from vizapp.media.picture import Picture
from vizapp.ui.inputs import images, interventions
from vizapp.ui.session import compute, messages, state, url
from vizapp.ui.widgets import topk_bars
from vizapp.zoo.interventions import LARGEST_FACTOR, Intervention
from vizapp.zoo.network import Network

_MEAN_OVER = "samples"
_SHOWN = 3  # classes
_STEP = 0.1  # of the factor


def draw(page: str, network: Network, picture: Picture, site: str, channel: int, is_zero: bool) -> None:
    """Draw the faders of a unit and, if anything is changed, the classes of the network without and with all changes.

    Args:
        page: Prefix of the widget keys.
        network: The network, under the changes of the session.
        picture: The photo.
        site: Name of the layer.
        channel: The unit.
        is_zero: Whether the unit is zero everywhere on the photo, without and with the changes.
    """
    now = next((one for one in interventions.chosen() if _is_of(one, site, channel)), None)
    factor = float(now.value) if now is not None and now.operation == "scale" else 1.0
    key = f"{page}.factor.{state.name_of((site, channel))}"
    if abs(state.load(key, -1.0) - factor) > _STEP / 100:  # else what the browser has, which may be moving on
        state.save(key, factor)
    held = now.operation if now is not None and now.operation in ("mean", "freeze") else ""
    st.slider(
        "What if this unit were changed?", 0.0, LARGEST_FACTOR, step=_STEP, format="× %.1f", key=key, disabled=bool(held),
        on_change=lambda: _take(site, channel, "scale", round(state.load(key), 2)),
        help="The unit's activation at every cell, times this. Everything after it is computed from that, on all pages.",
    )  # fmt: skip
    if is_zero:
        messages.must_know("This unit is zero on this photo, so a factor changes nothing.")
    photo = _name_of_photo()
    with st.container(horizontal=True, gap="small", key=f"{page}_changes"):
        _button(page, "Silence", factor == 0, partial(_take, site, channel, "scale", 0.0), "Times 0")
        _button(
            page, "Mean", held == "mean", partial(_take, site, channel, "mean", _MEAN_OVER),
            "Hold it at its mean over all cells of the sample photos",
        )  # fmt: skip
        _button(
            page, "Hold", held == "freeze", partial(_take, site, channel, "freeze", photo),
            "Hold it at its values on this photo, then choose another photo", disabled=not photo,
        )  # fmt: skip
        _button(page, "Undo", False, partial(_take, site, channel, "scale", 1.0), "This unit as it is", now is None)
    if held:
        same = held == "freeze" and now is not None and now.value == photo
        effect = " These are its values on this photo: now choose another photo to see the effect." if same else ""
        messages.must_know(f"The unit is held, so no factor applies until Undo.{effect}")
    if network.interventions and network.heads and network.categories:
        _answers(page, network, picture)


def _answers(page: str, network: Network, picture: Picture) -> None:
    answers = (("clean", "Without changes", network.clean), ("changed", "With all changes", network))
    for place, (name, title, asked) in zip(st.columns(2, gap="medium"), answers, strict=True):
        with place:
            messages.heading(title)
            result = compute.run("predict", asked, picture, top=_SHOWN)
            if result is not None:
                topk_bars.draw_prediction(f"{page}.{name}", asked, result)


def _button(page: str, label: str, on: bool, act: Callable[[], None], help: str, disabled: bool = False) -> None:
    """Draw a button of a fader; `on`: whether it says what is the case."""
    look: Literal["primary", "secondary"] = "primary" if on else "secondary"
    st.button(label, key=f"{page}.{label.lower()}", on_click=act, help=help, type=look, disabled=disabled)


def _is_of(one: Intervention, site: str, channel: int) -> bool:
    return one.site == site and one.channels in (channel, [channel]) and not one.cells


def _take(site: str, channel: int, operation: str, value: object) -> None:
    """Change the unit, in place of an earlier change of it alone. A factor of 1 is none."""
    others = [one for one in interventions.chosen() if not _is_of(one, site, channel)]
    new = [] if (operation, value) == ("scale", 1.0) else [Intervention(site, [channel], operation, value)]  # type: ignore[arg-type]
    interventions.choose([*others, *new])


def _name_of_photo() -> str:
    """The current photo as an address names it; empty for a photo of a folder, which an address must not open."""
    kind, *rest = images.origin()
    return {"sample": str(rest[0]), "given": url.upload_text(str(rest[0]))}.get(kind, "")
