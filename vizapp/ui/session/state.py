"""All that the app remembers of a session: every key of `st.session_state` is read and written here.

Widgets come and go with their pages. What a person chose is therefore kept under keys of its own, and widgets show it.
`url.py` reads and writes the choices that an address carries.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

import streamlit as st

from vizapp.ui.session.choice import Choice, cell, integer, names, one_of

NETWORK = Choice("network", "vizapp/zfnet-mini", shared=True)
WEIGHTS = Choice("weights", "published", one_of("published", "random", "file"), shared=True)
SAMPLE = Choice("picture", None, shared=True)  # None: one that suits the network
LAYER = Choice("layer", None)
CHANNEL = Choice("channel", None, integer(0))
CELL = Choice("cell", None, cell)
TOP = Choice("top", 5, integer(1, 20))
CROPS = Choice("crops", "one", one_of("one", "ten", "multi"))
ORDER = Choice("order", "strength", one_of("strength", "number"))
SCALE = Choice("scale", "layer", one_of("layer", "channel"))
VIEW = Choice("view", "maps", one_of("maps", "numbers"))
MODE = Choice("mode", "one", one_of("one", "nine"))
PART = Choice("part", "patch", one_of("patch", "whole"))
CONTRAST = Choice("contrast", "shared", one_of("shared", "own"))
DATA = Choice("data", None)  # None: a collection that suits the network; else as `collection.py` says
SITES = Choice("layers", (), names)  # of a gallery; none: those that suit
SORT = Choice("sort", "random", one_of("random", "strength", "selectivity", "dead", "number"))
SEED = Choice("seed", 1, integer(0))
GROUP = Choice("group", None)  # a class of the data
PAGE = Choice("sheet", 1, integer(1))
WAY = Choice("way", "sweep", one_of("sweep", "several", "hand"))
PHOTOS = Choice("photos", "samples")  # of several sweeps: "samples", "upload" or the path of a folder
WINDOW = Choice("window", None, integer(1))  # None here and below: what suits the network
STRIDE = Choice("stride", None, integer(1))
MAP = Choice("map", None, integer(0))
CLASS = Choice("class", None, integer(0))
SHOWN = Choice("shown", "probability", one_of("probability", "logit", "pixels"))
POSITION = Choice("position", None, cell)
SECOND_PICTURE = Choice("picture2", None)
SECOND_NETWORK = Choice("network2", None)
SECOND_WEIGHTS = Choice("weights2", "published", one_of("published", "random"))
PLACE = Choice("place", None, cell)  # a cell of the dense map
TINT = Choice("tint", "labels", one_of("labels", "class"))
OTHER = Choice("other", "vizapp/zfnet-mini")  # what the network is compared with
OTHER_WEIGHTS = Choice("other_weights", "random", one_of("published", "random", "file"))
MATCH = Choice("match", None)  # the layers whose units are matched; None: what suits the network
SECOND_MATCH = Choice("match2", None)
ASPECT = Choice("aspect", "table", one_of("table", "drawing", "comparison"))
TRAINED = Choice("trained", "ImageNet", one_of("ImageNet", "CIFAR-10"))
AMONG = Choice("among", "classic", one_of("classic", "all"))
AXIS = Choice("axis", "operations", one_of("operations", "time"))
DEVICE = Choice("device", "auto")  # not in addresses: another machine has other devices
# The choices that an address may carry, in the order in which it is read: a network resets the layer, so it comes first.
# The device is not among them.
_IN_ADDRESS = (
    NETWORK, WEIGHTS, SAMPLE, LAYER, CHANNEL, CELL, TOP, CROPS, ORDER,
    SCALE, VIEW, MODE, PART, CONTRAST, DATA, SITES, SORT, SEED,
    GROUP, PAGE, WAY, PHOTOS, WINDOW, STRIDE, MAP, CLASS, SHOWN,
    POSITION, SECOND_PICTURE, SECOND_NETWORK, SECOND_WEIGHTS, PLACE, TINT, OTHER, OTHER_WEIGHTS, MATCH,
    SECOND_MATCH, ASPECT, TRAINED, AMONG, AXIS,
)  # fmt: skip
CHOICES = {choice.name: choice for choice in _IN_ADDRESS}
RESETS = {
    NETWORK: (LAYER, CHANNEL, CELL, SITES, PAGE, WINDOW, STRIDE, MAP, CLASS, POSITION, PLACE, MATCH),
    LAYER: (CHANNEL, CELL, PAGE), DATA: (GROUP, PAGE), SORT: (PAGE,), SEED: (PAGE,), GROUP: (PAGE,), STRIDE: (POSITION,),
    OTHER: (SECOND_MATCH,),
}  # fmt: skip

# Plain keys, which no address carries.
ORIGIN = "picture.origin"  # ("sample", name), ("given", digest, name) or ("folder", path, path of the picture in it)
CHECKPOINT = "weights.file"  # (path, name shown)
OTHER_CHECKPOINT = "other.file"  # (path, name shown)
_PERSON = "person"  # tells one session from another, and nothing else
UPLOAD = "data.upload"  # the uploaded file that became the data
LINKED = "network.linked"  # names of networks that came with an address: they are downloaded on request only
READ = "data.read"  # how often the person had the data listed anew
SECOND_ORIGIN = "occlusion.second"  # of the picture that was kept to compare others with; as ORIGIN
UPLOADED = "occlusion.uploaded"  # origins of the photos uploaded for several sweeps, by the uploader's numbers of them
MASK = "occlusion.mask"  # (height, width, base64 of the packed bits), as it was drawn last
GIVEN = "given"  # files that were clicked, until the browser has them
ADDRESS = "address"  # what the address said when it was last read or written
_SHOWN_PAGE = "page"
_NOTES = "notes"  # sentences to show once
_WISHES = "wishes"  # what the person asked for: see `wish`
FINGERPRINT_KEYS = (ORIGIN, SECOND_ORIGIN, UPLOADED, UPLOAD, READ, CHECKPOINT, OTHER_CHECKPOINT)


# Choices


def get(choice: Choice) -> Any:
    """What is chosen now."""
    return st.session_state.get(choice.key, choice.default)


def put(choice: Choice, value: Any) -> None:
    """Choose, and reset what depends on it: a new network resets the layer, a new layer the channel, and so on."""
    if value == get(choice):
        return
    st.session_state[choice.key] = value
    for dependent in RESETS.get(choice, ()):
        st.session_state[dependent.key] = dependent.default


def bind(
    choice: Choice, key: str, value: Any = None, every_run: bool = False, read: Callable[[Any], Any] | None = None
) -> dict[str, Any]:
    """Arguments that make a widget show a choice and change it.

    Args:
        choice: What it shows.
        key: The widget's key.
        value: What it shows when nothing was chosen.
        every_run: Set the widget in every run, as one in a closed popover needs: the browser mounts it when the popover
            is opened, and would send the widget's own default if the value had been set in an earlier run only.
        read: Makes the choice of the widget's value; without it, an empty widget leaves the choice as it is.
    """
    now = get(choice) if value is None else value
    if every_run or st.session_state.get(key) != now:
        st.session_state[key] = now
    return {"key": key, "on_change": _take, "args": (choice, key, read)}


def _take(choice: Choice, key: str, read: Callable[[Any], Any] | None) -> None:
    value = st.session_state[key]
    if read is not None:
        put(choice, read(value))
    elif value is not None:  # a segmented control can be switched off; the choice stays
        put(choice, value)


# Plain keys, and what widgets hold


def load(key: str, default: Any = None) -> Any:
    """What is kept under the key: one of the plain keys above, or a widget's."""
    return st.session_state.get(key, default)


def save(key: str, value: Any) -> None:
    """Keep a value. Under a widget's key, before the widget is drawn: have the widget show it."""
    st.session_state[key] = value


def clear(key: str) -> None:
    """Forget what is kept under the key."""
    st.session_state.pop(key, None)


def has(key: str) -> bool:
    """Whether anything is kept under the key."""
    return key in st.session_state


def clicked(key: str, event: str) -> Any:
    """What was clicked in a component; None where the component has gone between the click and its arrival."""
    return getattr(st.session_state.get(key), event, None)


# What the person asked for


def name_of(about: object) -> str:
    """A short name of a question, for widget keys and wishes."""
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def wish(what: str, about: object) -> None:
    """The person asked for this: to `run` something long, to `cancel` it, to `download` something."""
    st.session_state.setdefault(_WISHES, set()).add((what, name_of(about)))


def is_wished(what: str, about: object) -> bool:
    """Whether the person asked for this and has not withdrawn it."""
    return (what, name_of(about)) in st.session_state.get(_WISHES, ())


def withdraw(what: str, about: object) -> None:
    """The person does not ask for this any more, or it is done."""
    st.session_state.get(_WISHES, set()).discard((what, name_of(about)))


# The session


def show_page(key: str) -> None:
    """Remember the page that is shown: several share a file, which reads it with `page`."""
    save(_SHOWN_PAGE, key)


def page() -> str:
    """The key of the page that is shown."""
    return str(load(_SHOWN_PAGE))


def person() -> str:
    """A random name of this session: whose turn it is in the queue."""
    return str(st.session_state.setdefault(_PERSON, secrets.token_hex(4)))


def mark() -> str:
    """A short text that tells what is shown from what is shown after any other choice or wish."""
    chosen = sorted(str(name) for name in st.session_state if str(name).startswith("choice."))
    values = [(name, st.session_state.get(name)) for name in (*chosen, *FINGERPRINT_KEYS)]
    return hashlib.sha256(repr((values, sorted(load(_WISHES, ())))).encode()).hexdigest()[:12]


def note(sentence: str) -> None:
    """Have a sentence shown at the top of the page, once."""
    st.session_state.setdefault(_NOTES, []).append(sentence)


def take_notes() -> list[str]:
    """The sentences to show now."""
    return list(st.session_state.pop(_NOTES, []))
