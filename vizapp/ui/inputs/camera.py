"""The camera: frames from the browser, answered one at a time, each in its turn on the device, and kept nowhere.

A frame arrives as a click does, and the fragment that it is sent to answers it in the same run. The browser sends the next
one when it has the answer, so that there is never a queue. Frames are not written to the disk and not logged; the one that
is frozen becomes an uploaded photo.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import streamlit as st

from vizapp.errors import VizError
from vizapp.media.picture import Picture, open_picture
from vizapp.service import runs
from vizapp.service.jobs import Tick
from vizapp.service.runs import RunRequest
from vizapp.ui.inputs import images
from vizapp.ui.session import memory, messages, progress, state
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

# Takes a frame, in a thread of its own; returns data of the component `live`.
Answer = Callable[[Picture, Tick], dict[str, Any]]

PAGES = ("predict", "feature_maps", "projection", "occlusion", "attribution")
PATIENCE = 10.0  # seconds of computing after which a network is too slow
_KEY = "live.camera"
_LOOK = 0.1  # seconds between two looks at a frame that takes long
_LARGEST = 600_000  # characters of a frame, which has 200,000 or less
_JPEG = b"\xff\xd8\xff"
_SIDES = 128, 384  # pixels: the shorter side of a frame at least and at most


def _switch_key() -> str:
    return f"live.{state.page()}"


def switch() -> None:
    """Draw the switch, on the pages that have it. It is off again when another page is shown."""
    if state.page() not in PAGES:
        return
    if state.load(state.LIVE_ENDS):
        state.clear(state.LIVE_ENDS)
        state.save(_switch_key(), False)
    st.toggle(
        "Live", key=_switch_key(),
        help="Answers the frames of your camera. They are not stored, except for one that you freeze.",
    )  # fmt: skip
    if not is_on():
        state.clear(state.FRAMES)


def is_on() -> bool:
    """Whether the page shows the camera."""
    return state.page() in PAGES and bool(state.load(_switch_key()))


def draw(network: Network, answer: Answer, name: str) -> None:
    """Draw the camera and what `answer` says to its frames. `name`: what the answer is, in words."""
    _keep_loaded()
    st.fragment(lambda: messages.guard(lambda: _turn(network, answer, name)))()


@cache
def _keep_loaded() -> None:
    """Once, when the pages and the list of networks are loaded: a frame is a run of a script."""
    memory.keep_loaded()


def _turn(network: Network, answer: Answer, name: str) -> None:
    """One run of the fragment: the frame that has come is answered, or the frozen one becomes the photo."""
    above, place = st.container(), st.empty()
    frames = state.load(state.FRAMES, ())
    if state.has(state.FROZEN):
        _keep_frozen(dict(frames))
    data = {"side": frame_side(network), "name": name}
    if frames:
        number, content = frames[-1]
        data |= {"number": number} | _answered(network, answer, content, place)
    with above:
        component("live")(key=_KEY, data=data, on_frame_change=_take_frame, on_freeze_change=_take_freeze)


def _answered(network: Network, answer: Answer, content: bytes, place: Any) -> dict[str, Any]:
    """The answer to a frame, or the sentence that refuses it."""
    try:
        picture = open_picture(content, name="camera")
        key = ("live", network.digest, picture.digest, state.mark(), state.person())
        request = RunRequest(
            key, lambda tick: memory.retry_after_eviction(lambda: answer(picture, tick)), str(network.device)
        )
        with progress.watch([request]) as watched:
            (job,) = watched.jobs
            while not watched.wait(_LOOK):
                if watched.seconds > progress.QUIET:
                    place.caption(runs.describe(job, "Computing"))
                if not job.place and watched.seconds - job.queued > PATIENCE:
                    _end(f"Live was switched off: {network.name} takes longer than {PATIENCE:.0f} s for a frame on "
                         f"{network.device}. Choose a smaller network or another page.")  # fmt: skip
            data: dict[str, Any] = job.future.result()
    except VizError as error:
        return {"refused": str(error)}
    height, width = picture.pixels.shape[:2]
    top, left, bottom, right = network.preprocessing.view.box(height, width)
    box = [top / height, left / width, bottom / height, right / width]
    return {"box": box} | data | ({"over": box} if data.get("over") else {})


def _end(sentence: str = "") -> None:
    """Switch Live off, and run the page again."""
    if sentence:
        state.note(sentence)
    state.save(state.LIVE_ENDS, True)
    st.rerun()


def frame_side(network: Network) -> int:
    """Pixels of the shorter side of a frame: those to which the network resizes a photo, within limits."""
    resize = network.preprocessing.resize
    return min(max(resize if isinstance(resize, int) else min(resize), _SIDES[0]), _SIDES[1])


# What the browser sends


def _take_frame() -> None:
    """Take the frame that has come; the one before it is kept, as it may be the one that is shown."""
    given = state.clicked(_KEY, "frame")
    with suppress(TypeError, KeyError, ValueError, AttributeError, binascii.Error):  # not from our script
        number, jpeg = int(given["number"]), given["jpeg"]
        if len(jpeg) <= _LARGEST:
            content = base64.b64decode(jpeg.partition(",")[2], validate=True)
            if content.startswith(_JPEG):
                state.save(state.FRAMES, (*state.load(state.FRAMES, ())[-1:], (number, content)))


def _take_freeze() -> None:
    state.save(state.FROZEN, state.clicked(_KEY, "freeze"))


def _keep_frozen(frames: dict[int, bytes]) -> None:
    """Make the frozen frame the photo of all pages, from the bytes that were answered."""
    content = frames.get(state.load(state.FROZEN))
    state.clear(state.FROZEN)
    if content is None:
        return
    kept = images.keep(content, f"camera {time.strftime('%H.%M.%S')}.jpg")
    if kept is not None:
        state.save(state.ORIGIN, images.add_upload(kept))
    _end()
