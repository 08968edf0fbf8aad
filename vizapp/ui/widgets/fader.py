"""Faders of a unit: silence it, turn it up, hold it at a value; and what the network then answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from vizapp.media.picture import Picture
from vizapp.ui.inputs import images, interventions
from vizapp.ui.session import compute, messages, state, url
from vizapp.ui.widgets import topk_bars
from vizapp.zoo.interventions import LARGEST_FACTOR, Intervention
from vizapp.zoo.network import Network

_MEAN_OVER = "samples"


def draw(page: str, network: Network, picture: Picture, site: str, channel: int) -> None:
    """Draw the faders of a unit, and the classes of the network without and with all changes.

    Args:
        page: Prefix of the widget keys.
        network: The network, under the changes of the session.
        picture: The photo.
        site: Name of the layer.
        channel: The unit.
    """
    messages.heading("What if this unit were changed?")
    now = next((one for one in interventions.chosen() if _is_of(one, site, channel)), None)
    factor = float(now.value) if now is not None and now.operation == "scale" else 1.0
    key = f"{page}.factor.{state.name_of((site, channel))}"
    if state.load(key) != factor:
        state.save(key, factor)
    st.slider(
        "Times", 0.0, LARGEST_FACTOR, step=0.1, format="× %.1f", key=key,
        on_change=lambda: _take(site, channel, "scale", round(state.load(key), 2)),
        help="The unit's activation, at every cell, times this; everything after it is computed from that.",
    )  # fmt: skip
    with st.container(horizontal=True, gap="small", key=f"{page}_changes"):
        _button(page, "Silence", "volume_off", _silent(now), partial(_take, site, channel, "scale", 0.0))
        _button(
            page, "Mean", "horizontal_rule", now is not None and now.operation == "mean",
            partial(_take, site, channel, "mean", _MEAN_OVER), "Hold it at its mean over the sample photos",
        )  # fmt: skip
        photo = _name_of_photo()
        _button(
            page, "Hold this photo's value", "push_pin", now is not None and now.operation == "freeze",
            partial(_take, site, channel, "freeze", photo),
            "Keep what the unit has on this photo, then choose another photo", disabled=not photo,
        )  # fmt: skip
        _button(page, "As it is", "undo", False, partial(_drop, site, channel), disabled=now is None)
    if not network.heads or not network.categories:
        return
    answers = (("clean", "Without changes", network.clean), ("changed", "With all changes", network))
    for place, (name, title, asked) in zip(st.columns(2, gap="medium"), answers, strict=True):
        with place:
            messages.heading(title)
            result = compute.run("predict", asked, picture)
            if result is not None:
                topk_bars.draw_prediction(f"{page}.{name}", asked, result)


def _silent(now: Intervention | None) -> bool:
    return now is not None and now.operation == "scale" and now.value == 0


def _button(
    page: str, label: str, icon: str, on: bool, act: Callable[[], None], help: str | None = None, disabled: bool = False
) -> None:
    st.button(
        label, key=f"{page}.{label.split()[0].lower()}", icon=f":material/{icon}:", on_click=act, help=help,
        type="primary" if on else "secondary", disabled=disabled,
    )  # fmt: skip


def _is_of(one: Intervention, site: str, channel: int) -> bool:
    return one.site == site and one.channels in (channel, [channel]) and not one.cells


def _take(site: str, channel: int, operation: str, value: object) -> None:
    """Change the unit, in place of an earlier change of it alone. A factor of 1 is none."""
    others = [one for one in interventions.chosen() if not _is_of(one, site, channel)]
    new = [] if (operation, value) == ("scale", 1.0) else [Intervention(site, [channel], operation, value)]  # type: ignore[arg-type]
    interventions.choose([*others, *new])


def _drop(site: str, channel: int) -> None:
    _take(site, channel, "scale", 1.0)


def _name_of_photo() -> str:
    """The current photo as an address names it; empty for a photo of a folder, which an address must not open."""
    kind, *rest = images.origin()
    return {"sample": str(rest[0]), "given": url.upload_text(str(rest[0]))}.get(kind, "")
