"""Everything that the app remembers of a session: all session keys, and the choices that an address (a link) carries.

Widgets come and go with their pages, so what a person chose is kept under plain keys, and widgets show it. An address
names the choices that differ from their defaults; opening it shows the same view again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import streamlit as st

from vizapp.errors import VizError, nearest


def _text(value: str) -> str:
    return value


def one_of(*choices: str) -> Callable[[str], str]:
    """What reads an address where one of these texts is expected."""

    def read(value: str) -> str:
        if value not in choices:
            raise VizError(f"{value!r} is none of {', '.join(choices)}.{nearest(value, choices)}")
        return value

    return read


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    def read(value: str) -> int:
        number = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
        if number < low or (high is not None and number > high):
            upper = f" to {high}" if high is not None else " or more"
            raise VizError(f"{value!r} is not a whole number of {low}{upper}.")
        return number

    return read


def _cell(value: str) -> tuple[int, int]:
    row, _, column = value.partition(",")
    try:
        return _whole(0)(row.strip()), _whole(0)(column.strip())
    except VizError:
        raise VizError(f"{value!r} is not a cell, which is written row,column, as in 3,5.") from None


def _names(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


@dataclass(frozen=True)
class Choice:
    """One thing a person chooses: its name in an address, its default, and how it is read from an address."""

    name: str
    default: Any
    read: Callable[[str], Any] = _text
    shared: bool = False  # whether every page's address has it

    @property
    def key(self) -> str:
        """The plain session key."""
        return f"choice.{self.name}"


NETWORK = Choice("network", "vizapp/zfnet-mini", shared=True)
WEIGHTS = Choice("weights", "published", one_of("published", "random", "file"), shared=True)
SAMPLE = Choice("picture", None, shared=True)  # None: one that suits the network
LAYER = Choice("layer", None)
CHANNEL = Choice("channel", None, _whole(0))
CELL = Choice("cell", None, _cell)
TOP = Choice("top", 5, _whole(1, 20))
CROPS = Choice("crops", "one", one_of("one", "ten", "multi"))
ORDER = Choice("order", "strength", one_of("strength", "number"))
SCALE = Choice("scale", "layer", one_of("layer", "channel"))
VIEW = Choice("view", "maps", one_of("maps", "numbers"))
MODE = Choice("mode", "one", one_of("one", "nine"))
PART = Choice("part", "patch", one_of("patch", "whole"))
CONTRAST = Choice("contrast", "shared", one_of("shared", "own"))
DATA = Choice("data", None)  # None: a collection that suits the network; else as `collection.py` says
SITES = Choice("layers", (), _names)  # of a gallery; none: those that suit
SORT = Choice("sort", "random", one_of("random", "strength", "selectivity", "dead", "number"))
SEED = Choice("seed", 1, _whole(0))
GROUP = Choice("group", None)  # a class of the data
PAGE = Choice("sheet", 1, _whole(1))
WAY = Choice("way", "sweep", one_of("sweep", "several", "hand"))
PHOTOS = Choice("photos", "samples")  # of several sweeps: "samples", "upload" or the path of a folder
WINDOW = Choice("window", None, _whole(1))  # None here and below: what suits the network
STRIDE = Choice("stride", None, _whole(1))
MAP = Choice("map", None, _whole(0))
CLASS = Choice("class", None, _whole(0))
SHOWN = Choice("shown", "probability", one_of("probability", "logit", "pixels"))
POSITION = Choice("position", None, _cell)
SECOND_PICTURE = Choice("picture2", None)
SECOND_NETWORK = Choice("network2", None)
SECOND_WEIGHTS = Choice("weights2", "published", one_of("published", "random"))
PLACE = Choice("place", None, _cell)  # a cell of the dense map
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
# Everything above in its order (a network lets go of the layer before the layer is read), but for the device.
CHOICES = {choice.name: choice for choice in list(globals().values()) if isinstance(choice, Choice)}
del CHOICES[DEVICE.name]
RESETS = {
    NETWORK: (LAYER, CHANNEL, CELL, SITES, PAGE, WINDOW, STRIDE, MAP, CLASS, POSITION, PLACE, MATCH),
    LAYER: (CHANNEL, CELL, PAGE), DATA: (GROUP, PAGE), SORT: (PAGE,), SEED: (PAGE,), GROUP: (PAGE,), STRIDE: (POSITION,),
    OTHER: (SECOND_MATCH,),
}  # fmt: skip

# Plain keys without a place in addresses.
ORIGIN = "picture.origin"  # ("sample", name), ("given", digest, name) or ("folder", path, path of the picture in it)
CHECKPOINT = "weights.file"  # (path, name shown)
OTHER_CHECKPOINT = "other.file"  # (path, name shown)
MATCHED = "compare.matched"  # the layers and folder whose units were asked to be matched last
TIMED = "architecture.timed"  # the networks whose time was asked for
PAINTED = "filters.painted"  # the unit and options whose ideal input was asked for last
CHECKED = "projection.checked"  # the unit and rule whose sanity check was asked for last
_PERSON = "person"  # tells one session from another, and nothing else
KIND = "data.kind"  # the kind of data that is being chosen, until one of it is
UPLOAD = "data.upload"  # the uploaded file that became the data
AGREED = "data.agreed"  # names of data sets and networks that may be downloaded
LINKED = "network.linked"  # names of networks that came with an address: of these nothing is downloaded unasked
READ = "data.read"  # how often the person had the data listed anew
PASSES = "gallery.passes"  # the galleries that this session wants to be built
SECOND_ORIGIN = "occlusion.second"  # of the picture that was kept to compare others with; as ORIGIN
UPLOADED = "occlusion.uploaded"  # origins of the photos uploaded for several sweeps, by the uploader's numbers of them
ASKED = "occlusion.asked"  # names of the sweeps over several photos that were asked for last
MASK = "occlusion.mask"  # (height, width, base64 of the packed bits), as it was drawn last
_WANTED = "occlusion.wanted"  # names of long sweeps that the person has started
GIVEN = "given"  # files that were clicked, until the browser has them
_NOTES = "notes"  # sentences to show once
_CANCELLED = "cancelled"  # names of questions that are not to be started again by themselves
FINGERPRINT_KEYS = (
    ORIGIN,
    SECOND_ORIGIN,
    UPLOADED,
    UPLOAD,
    READ,
    CHECKPOINT,
    OTHER_CHECKPOINT,
    MATCHED,
    TIMED,
    PAINTED,
    CHECKED,
)
_SHOWN_PAGE = "page"
_ADDRESS = "address"  # what the address said when it was last read or written


def show_page(key: str) -> None:
    """Remember the page that is shown: several share a file, which reads it with `page`."""
    st.session_state[_SHOWN_PAGE] = key


def page() -> str:
    """The key of the page that is shown."""
    return str(st.session_state[_SHOWN_PAGE])


def get(choice: Choice) -> Any:
    """What is chosen now."""
    return st.session_state.get(choice.key, choice.default)


def put(choice: Choice, value: Any) -> None:
    """Choose. What depends on it is let go: with a new network the layer, with a new layer the channel, and so on."""
    if value == get(choice):
        return
    st.session_state[choice.key] = value
    for dependent in RESETS.get(choice, ()):
        st.session_state[dependent.key] = dependent.default


def bind(choice: Choice, key: str, value: Any = None) -> dict[str, Any]:
    """Arguments that make the widget `key` show the choice and change it.

    `value` is what stands for a choice that was not made.
    """
    now = get(choice) if value is None else value
    if st.session_state.get(key) != now:
        st.session_state[key] = now
    return {"key": key, "on_change": _take, "args": (choice, key)}


def _take(choice: Choice, key: str) -> None:
    value = st.session_state[key]
    if value is not None:  # a segmented control can be switched off; the choice stays
        put(choice, value)


def clicked(key: str, event: str) -> Any:
    """What was clicked in a component; None where the component has gone between the click and its arrival."""
    return getattr(st.session_state.get(key), event, None)


def person() -> str:
    """A name for this session, drawn at random: whose turn it is in the queue."""
    return str(st.session_state.setdefault(_PERSON, secrets.token_hex(4)))


def mark() -> str:
    """A short text that tells what is shown from what is shown after any other choice."""
    chosen = sorted(str(name) for name in st.session_state if str(name).startswith("choice."))
    told = [(name, st.session_state.get(name)) for name in (*chosen, *FINGERPRINT_KEYS)]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def note(sentence: str) -> None:
    """Have a sentence shown at the top of the page, once."""
    st.session_state.setdefault(_NOTES, []).append(sentence)


def take_notes() -> list[str]:
    """The sentences to show now."""
    return list(st.session_state.pop(_NOTES, []))


def read_address(known: dict[str, Collection[str]], more: Collection[Choice] = ()) -> None:
    """Take over what the address says, if it was opened or edited since it was last written.

    `known` are the names that choices may have, by choice; `more` are choices beside those of this file. What does
    not fit is told in a sentence and left out.
    """
    written = st.session_state.get(_ADDRESS, {})
    given = {name: value for name, value in st.query_params.to_dict().items() if written.get(name) != value}
    for name, choice in (
        CHOICES | {choice.name: choice for choice in more}
    ).items():  # in this order, because a network lets go of the layer before it is read
        if name not in given:
            continue
        try:
            value = choice.read(given[name])
            if name in known and value not in known[name]:
                raise VizError(f"There is no {name} {value!r}.{nearest(value, known[name])}")
        except VizError as error:
            note(f"The link's {name} was left out. {error}")
            continue
        put(choice, value)
        if choice in (NETWORK, SECOND_NETWORK, OTHER):
            st.session_state.setdefault(LINKED, set()).add(value)
        if choice is SAMPLE:
            st.session_state[ORIGIN] = ("sample", value)
    st.session_state[_ADDRESS] = written | given


def write_address(page: Collection[Choice]) -> None:
    """Make the address name every shared choice and those of the page, where they differ from the default."""
    chosen = [choice for choice in CHOICES.values() if choice.shared] + [choice for choice in page if not choice.shared]
    origin = st.session_state.get(ORIGIN)
    told = {}
    for choice in chosen:
        value = get(choice)
        if value == choice.default or (choice is SAMPLE and origin is not None and origin[0] != "sample"):
            continue
        told[choice.name] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if st.query_params.to_dict() != told:
        st.query_params.from_dict(told)
    st.session_state[_ADDRESS] = told


def cancel(name: str) -> None:
    """The person does not want this answer."""
    st.session_state.setdefault(_CANCELLED, set()).add(name)


def allow(name: str) -> None:
    """The person wants it after all."""
    st.session_state.get(_CANCELLED, set()).discard(name)


def is_cancelled(name: str) -> bool:
    """Whether the question waits until the person asks again."""
    return name in st.session_state.get(_CANCELLED, set())


def want(name: str) -> None:
    """The person has started this long piece of work."""
    st.session_state.setdefault(_WANTED, set()).add(name)


def is_wanted(name: str) -> bool:
    """Whether the person has started it."""
    return name in st.session_state.get(_WANTED, set())
