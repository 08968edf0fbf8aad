"""Hiding a part of the picture by hand: a photo to draw on, and the predictions with and without that part."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from vizapp.components.data import uri
from vizapp.media.drawing import to_png
from vizapp.methods.base import Question, Result
from vizapp.methods.occlusion import METHOD
from vizapp.methods.occlusion.mask import hide
from vizapp.methods.occlusion.panel_data import colour_of
from vizapp.service.lru_cache import Key
from vizapp.ui.pages.occlusion.sweep_runs import SweepRequest
from vizapp.ui.session import compute, downloads, messages, reports, state
from vizapp.ui.session.downloads import File
from vizapp.ui.widgets import layout, topk_bars
from vizapp.ui.widgets.components import component

_KEY = "occlusion.mask_drawn"
_PATTERN = (128, 128, 128)  # colour of the pen if the fill is not a single colour


def draw(asked: SweepRequest) -> None:
    """Draw the photo and the predictions; a stroke reruns only this part of the page."""
    st.fragment(lambda: messages.guard(lambda: _draw(asked)))()
    name = downloads.file_name("occlusion", asked.network.name, asked.picture.name, "drawn")
    downloads.buttons("drawn", [
        File("Hidden PNG", f"{name}-hidden.png", "image/png", lambda: to_png(_current(asked)[1].panels[0].pixels)),
        File("Arrays NPZ", f"{name}.npz", "application/octet-stream", lambda: downloads.npz(_arrays(asked))),
    ])  # fmt: skip


def _current(asked: SweepRequest) -> tuple[np.ndarray, Result]:
    """The mask and its result at the time of a download, because strokes do not rerun the download buttons."""
    mask = mask_of(state.load(state.MASK), asked.network.seen(asked.picture).shape[:2])
    result = compute.answers().get(_key_of(asked, mask)) or _hide(asked, mask)
    return mask, result


def _arrays(asked: SweepRequest) -> dict[str, np.ndarray]:
    mask, result = _current(asked)
    return result.arrays | {"mask": mask}


def _draw(asked: SweepRequest) -> None:
    seen = asked.network.seen(asked.picture)
    mask = mask_of(state.load(state.MASK), seen.shape[:2])
    left, right = layout.columns(5, 7)
    with left:
        component("mask")(key=_KEY, data=_data(asked, seen, mask), on_mask_change=lambda: _take(seen.shape[:2]))
    with right:
        result = compute.compute(_key_of(asked, mask), lambda tick: _hide(asked, mask), device=asked.device)
        if result is not None:
            reports.offer(result, f"Occlusion of {asked.picture.name} by hand")
            _answers(asked, result, mask)


def _data(asked: SweepRequest, seen: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    colour = colour_of(asked.params, seen)
    numbers = [int(part) for part in colour[4:-1].split()] if colour else list(_PATTERN)
    return {
        "photo": uri(seen),
        "size": list(seen.shape[:2]),
        "colour": numbers,
        "mask": base64.b64encode(np.packbits(mask).tobytes()).decode(),
        "inverse": asked.params.inverse,
        "label": f"{asked.picture.name}, to draw on",
    }


def _take(size: tuple[int, int]) -> None:
    packed = state.clicked(_KEY, "mask")
    if isinstance(packed, str) and len(packed) <= size[0] * size[1]:  # generous: a character holds six bits
        state.save(state.MASK, (*size, packed))


def mask_of(kept: tuple[int, int, str] | None, size: tuple[int, int]) -> np.ndarray:
    """The drawn mask, bool `[H W]`; empty if nothing was drawn, or on a picture of another size."""
    empty = np.zeros(size, bool)
    if kept is None or tuple(kept[:2]) != tuple(size):
        return empty
    try:
        bits = np.unpackbits(np.frombuffer(base64.b64decode(kept[2]), np.uint8))
    except (ValueError, TypeError):  # a browser may send anything
        return empty
    return bits[: empty.size].reshape(size).astype(bool) if bits.size >= empty.size else empty


def _hidden(asked: SweepRequest, mask: np.ndarray) -> np.ndarray:
    return ~mask if asked.params.inverse else mask


def _key_of(asked: SweepRequest, mask: np.ndarray) -> Key:
    params, digest = asked.params, hashlib.sha256(np.packbits(_hidden(asked, mask)).tobytes()).hexdigest()
    return compute.key_of(
        "occlusion.drawn", asked.network, asked.picture, mask=digest, fill=params.fill, seed=params.seed
    )


def _hide(asked: SweepRequest, mask: np.ndarray) -> Result:
    question, params = Question(asked.network, asked.picture), asked.params
    hidden = hide(question, _hidden(asked, mask), params.fill, params.seed, topk_bars.TOP)
    told = METHOD.with_question(hidden, question, params)
    return replace(
        told, provenance=replace(METHOD.provenance(question, params), shows=(), views=None, repeatable=False)
    )


def _answers(asked: SweepRequest, result: Result, mask: np.ndarray) -> None:
    hidden, whole = result.arrays["probabilities"], result.arrays["clean_probabilities"]
    share = 100 * float(_hidden(asked, mask).mean())
    if not mask.any():
        words = "hide all but a part" if asked.params.inverse else "hide a part"
        messages.info(f"Draw on the photo to {words} of it. The prediction is updated after every stroke.")
    with st.container(key="beside_drawn"):
        columns = st.columns(2, gap="medium")
    with columns[0]:
        messages.heading(f"Without {share:.0f} % of the photo" if share else "Nothing hidden yet")
        topk_bars.draw_classes("drawn.hidden", asked.network, hidden, others=whole, word="was")
    with columns[1]:
        messages.heading("The whole photo")
        topk_bars.draw_classes("drawn.whole", asked.network, whole, others=hidden, word="hidden:")
