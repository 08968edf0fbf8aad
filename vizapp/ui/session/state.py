"""The session state: every key of `st.session_state` is read and written here.

Streamlit drops the state of widgets that are not drawn. Choices are therefore kept under keys of their own, and widgets
show them. `url.py` reads and writes the choices that an address carries.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any

import streamlit as st

from vizapp.ui.session.choice import (
    Choice,
    bands,
    cell,
    channel_map,
    integer,
    interventions,
    names,
    number,
    one_of,
    parts,
    target,
    unit,
    walk,
)
from vizapp.zoo import registry

_WEIGHTS = {"none": "random", "default": "published"}  # the words of Python and the command line

NETWORK = Choice("network", registry.DEFAULT, shared=True)
WEIGHTS = Choice("weights", "published", one_of("published", "random", "file", aliases=_WEIGHTS), shared=True)
SAMPLE = Choice("picture", None, shared=True)  # None: one that suits the network; addresses: see `url.py`
CHECKPOINT = Choice("checkpoint", None, shared=True)  # of `weights=file`: the path of a file, or `upload/DIGEST`
OUTPUT = Choice("output", None, shared=True)  # the head of the network, by name; None: its own output
CHANNELS = Choice("channels", None, channel_map, shared=True)  # what feeds the network's channels, as a text
BANDS = Choice("bands", None, bands, shared=True)  # of a stack, those that are shown, as a text; None: the first
PRESENT = Choice("present", "off", one_of("off", "on"), shared=True)  # presentation mode
TOUR = Choice("tour", None, shared=True)  # the tour that is shown, in presentation mode: a name or the path of a file
STEP = Choice("step", None, integer(1), shared=True)  # of the tour; a link without it begins at the first
AUTOPLAY = Choice("autoplay", "off", one_of("off", "on", "always"), shared=True)  # `always`: nobody can stop the tour
SET = Choice("set", (), interventions, shared=True, joint=";")  # what is changed in every pass, as texts
TARGET = Choice("target", None, target, shared=True)  # what of the output is explained, as text; None: the class scores
LAYER = Choice("layer", None)
CHANNEL = Choice("channel", None, integer(0))
CELL = Choice("cell", None, cell)
TOP = Choice("top", 5, integer(1, 20))
CROPS = Choice("crops", "one", one_of("one", "ten", "multi"))
THRESHOLD = Choice("threshold", 50, integer(0, 100))  # percent: least score of the boxes that are shown
ORDER = Choice("order", "strength", one_of("strength", "number"))
SCALE = Choice("scale", "clipped", one_of("clipped", "layer", "channel"))
STAGES = Choice(
    "stages", None, one_of("all", "one", "cell")
)  # None: all layers from early to late, unless one is chosen
WALK = Choice("walk", (), walk, joint=";")  # the units between which one went up and down, as texts
VIEW = Choice("view", "maps", one_of("maps", "numbers"))
IDEAL = Choice(
    "ideal", "off", one_of("off", "on")
)  # whether Filters shows the ideal input of a unit instead of kernels
MODE = Choice("mode", "one", one_of("one", "nine"))
PART = Choice("part", "patch", one_of("patch", "whole"))
CONTRAST = Choice("contrast", "own", one_of("shared", "own"))
DATA = Choice("data", None)  # None: a collection that suits the network; else as `inputs.datasets.kind` says
SITES = Choice("layers", (), names)  # of a gallery; empty: those that suit the network
SORT = Choice("sort", "selectivity", one_of("random", "strength", "selectivity", "dead", "number"))
SEED = Choice("seed", 1, integer(0))
GROUP = Choice("group", None)  # a class of the data, in links of the last release; it becomes the search
SEARCH = Choice("search", (), names)  # classes, kinds of things or words; without those after a "-"
WITHIN = Choice("within", "hidden", one_of("hidden", "classes", "all"))
PAGE = Choice("sheet", 1, integer(1))
WAY = Choice("way", "sweep", one_of("sweep", "several", "hand"))
PHOTOS = Choice("photos", "samples")  # of several sweeps: "samples", "upload" or the path of a folder
PARTS = Choice("parts", None, parts)  # of these photos; None: those of some samples
WINDOW = Choice("window", None, integer(1))  # None here and below: what suits the network
STRIDE = Choice("stride", None, integer(1))
MAP = Choice("map", None, integer(0))
CLASS = Choice("class", None, integer(0))
SHOWN = Choice("shown", "probability", one_of("probability", "logit", "pixels"))
POSITION = Choice("position", None, cell)
SECOND_PICTURE = Choice("picture2", None)
SECOND_NETWORK = Choice("network2", None)
SECOND_WEIGHTS = Choice("weights2", "published", one_of("published", "random", aliases=_WEIGHTS))
PLACE = Choice("place", None, cell)  # a cell of the dense map
TINT = Choice("tint", "labels", one_of("labels", "class"))
OTHER = Choice("other", None, follows=NETWORK)  # what the network is compared with
OTHER_WEIGHTS = Choice("other_weights", "random", one_of("published", "random", "file", aliases=_WEIGHTS))
OTHER_CHECKPOINT = Choice("other_checkpoint", None)
MATCH = Choice("match", None)  # the layers whose units are matched; None: what suits the network
SECOND_MATCH = Choice("match2", None)
ASPECT = Choice("aspect", "table", one_of("table", "drawing", "comparison"))
TRAINED = Choice("trained", "ImageNet", one_of("ImageNet", "CIFAR-10"))
AMONG = Choice("among", "classic", one_of("classic", "all"))
AXIS = Choice("axis", "operations", one_of("operations", "time"))
COLOUR = Choice("colour", "class", one_of("class", "answer", "correct", "unit"))  # of the points of the atlas
BLEND = Choice("blend", 75, integer(0, 100))  # percent of the colours over the photos
AMOUNT = Choice("amount", None, number)  # of a transform; None: that of the clean photo
EPOCH = Choice("epoch", None, integer(0))  # of a series of checkpoints; None: the last
SEVERAL = Choice("several", "off", one_of("off", "on"))  # whether a transform is of several photos
KIND = Choice("attribution.kind", None)  # of the map whose pixels are deleted; None: the best
BY = Choice(
    "by", "all", one_of("all", "deletion", "insertion", "road", "pointing", "completeness", "randomisation")
)  # the measure by which maps are in order
SHARE = Choice("share", 10, integer(0, 100))  # percent of the pixels that are deleted
CONFUSION = Choice("confusion", None, cell)  # the true and the given class of the photos shown; None: the worst
CARD = Choice("card", None, unit)  # the unit whose card is open
CARD_OF = Choice("card_of", "network", one_of("network", "other"))  # `other`: what it is compared with
DEVICE = Choice("device", "auto")  # not in addresses: another machine has other devices
# The choices that an address may carry, in reading order: a network resets the layer, so it comes first.
_IN_ADDRESS = (
    NETWORK, WEIGHTS, CHECKPOINT, OUTPUT, CHANNELS, SAMPLE, BANDS, PRESENT, TOUR, STEP, AUTOPLAY, SET,
    TARGET, LAYER, CHANNEL, CELL,
    TOP, CROPS, THRESHOLD, ORDER,
    SCALE, STAGES, WALK, VIEW, COLOUR, BLEND, IDEAL, MODE, PART, CONTRAST, DATA, SITES, SORT, SEED,
    GROUP, SEARCH, WITHIN, PAGE, WAY, PHOTOS, PARTS, WINDOW, STRIDE, MAP, CLASS, SHOWN,
    POSITION, SECOND_PICTURE, SECOND_NETWORK, SECOND_WEIGHTS, PLACE, TINT, OTHER, OTHER_WEIGHTS,
    OTHER_CHECKPOINT, MATCH, SECOND_MATCH, ASPECT, TRAINED, AMONG, AXIS, AMOUNT, SEVERAL, EPOCH,
    CONFUSION, KIND, BY, SHARE,
    CARD, CARD_OF,
)  # fmt: skip
CHOICES = {choice.name: choice for choice in _IN_ADDRESS}
EARLIER = {
    NETWORK: "vizapp/zfnet-mini",
    CONTRAST: "shared",
    SCALE: "layer",
    STAGES: "one",
    SORT: "random",
}  # defaults of the last release where they were others
RESETS = {
    NETWORK: (OUTPUT, CHANNELS, TARGET, LAYER, CHANNEL, CELL, SITES, PAGE, WINDOW, STRIDE, MAP, CLASS, POSITION, PLACE, MATCH,
              EPOCH, CARD, CONFUSION, WALK),
    TARGET: (CLASS, POSITION), LAYER: (CHANNEL, CELL, PAGE, WALK), CHANNEL: (WALK,), CELL: (WALK,),
    DATA: (GROUP, SEARCH, PAGE, CONFUSION), SORT: (PAGE,), SEED: (PAGE,),
    SEARCH: (PAGE,), WITHIN: (PAGE,), STRIDE: (POSITION,), PHOTOS: (PARTS,),
    OTHER: (SECOND_MATCH,), CARD: (CARD_OF,), PRESENT: (TOUR, STEP, AUTOPLAY), TOUR: (STEP,),
}  # fmt: skip

# Plain keys, which no address carries.
ORIGIN = "picture.origin"  # where the picture comes from: see `inputs.images.Origin`
LINKED_ORIGIN = "picture.linked"  # the origin that an address named: if it is missing, no other picture replaces it
LINKED_UPLOADS = "picture.linked_uploads"  # beginnings of the digests of uploaded photos that an address named
_PERSON = "person"  # a random ID of the session
UPLOAD = "data.upload"  # the uploaded file that became the data
LINKED = "network.linked"  # networks named by an address, which are downloaded on request only
READ = "data.read"  # how often the user had the data listed again
STAMPS = "data.stamps"  # of each folder: until when its stamp counts, the stamp, and at how many entries it looks
FIRST_STRIDE = "occlusion.first_stride"  # the stride that the first view took by itself, with the network's digest
DROPPED = "target.dropped"  # the sentence about a target that did not fit, with network and photo
LOOKED = "evolution.looked"  # how often the user had new checkpoints looked for
UPLOADS = "picture.uploads"  # the origins of the uploaded photos, of which one may be the current picture
LABELS = "picture.labels"  # classes of those that were taken from a collection, by digest of the file
SECOND_ORIGIN = "occlusion.second"  # the picture kept for comparison; as ORIGIN
UPLOADED = "occlusion.uploaded"  # origins of the photos uploaded for several sweeps, by file ID of the uploader
EVALUATED = "evaluate.photo"  # collection, number and origin of the photo that was clicked there
MASK = "occlusion.mask"  # (height, width, base64 of the packed bits)
FRAMES = "live.frames"  # numbers and bytes of the newest frame of the camera and of the one before it
FROZEN = "live.frozen"  # number of the frame that becomes the photo
LIVE_ENDS = "live.ends"  # whether the switch Live goes off in the next run
GIVEN = "given"  # clicked downloads, until the browser has them
OFFERED = "report.offered"  # a page, whether all of it is drawn, and weak references to the answers that it shows
REPORTING = "report.open"  # the page on which the dialog "Report" is open
COLLECTED = "report.collected"  # keys, titles and remarks of the answers that were collected for the report
WHOLE = "report.whole"  # title and remark of the collected report
SAID = "report.said"  # a sentence that this dialog says once
AT_STEP = "tour.at"  # the tour and the step whose choices were set last
ADDRESS = "address"  # the parameters of the address when it was last read or written
_CHOSEN = "choice."  # begins the keys of choices
_SHOWN_PAGE = "page"
_NOTES = "notes"  # sentences to show once
_WISHES = "wishes"  # what the user asked for: see `wish`
_OF_VIEW = (ORIGIN, LINKED_ORIGIN, FIRST_STRIDE, DROPPED, SECOND_ORIGIN, EVALUATED, MASK, FROZEN, REPORTING, _WISHES)
FINGERPRINT_KEYS = (ORIGIN, SECOND_ORIGIN, UPLOADED, UPLOAD, READ)


# Choices


def get(choice: Choice) -> Any:
    """The current value."""
    value = st.session_state.get(choice.key, choice.default)
    return get(choice.follows) if value is None and choice.follows is not None else value


def put(choice: Choice, value: Any) -> None:
    """Set a choice and reset its dependents: a new network resets the layer, a new layer the channel, and so on."""
    if value == get(choice):
        return
    st.session_state[choice.key] = value
    changed = [choice, *(other for other in _IN_ADDRESS if other.follows == choice and get(other) == value)]
    for dependent in [reset for one in changed for reset in RESETS.get(one, ())]:
        st.session_state[dependent.key] = dependent.default


def reset(kept: Collection[Choice] = ()) -> None:
    """Set all choices but `kept` and the device to their defaults; forget what was asked for, and keep what was uploaded."""
    keys = {choice.key for choice in (*kept, DEVICE)}
    for key in [key for key in st.session_state if str(key).startswith(_CHOSEN) and key not in keys]:
        del st.session_state[key]
    for key in _OF_VIEW:
        clear(key)


def bind(
    choice: Choice,
    key: str,
    value: Any = None,
    every_run: bool = False,
    read: Callable[[Any], Any] | None = None,
    options: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments that bind a widget to a choice.

    Args:
        choice: The choice.
        key: Key of the widget.
        value: The value to show, if not that of the choice.
        every_run: Set the widget in every run. A widget in a closed popover needs this: the browser mounts it when the
            popover opens, and sends the default of the widget if the value was set in an earlier run only.
        read: Converts the value of the widget to that of the choice; without it, an empty widget changes nothing.
        options: The options of a select box. The browser sends the label of an option, so a label that has changed
            since (the layer of another network) arrives as a text that is no option. It is ignored, and the widget is
            set again.
    """
    now = get(choice) if value is None else value
    if every_run or st.session_state.get(key) != now:
        st.session_state[key] = now
    more = {} if options is None else {"options": options}
    return {"key": key, "on_change": _take, "args": (choice, key, read, options), **more}


def _take(choice: Choice, key: str, read: Callable[[Any], Any] | None, options: Sequence[Any] | None) -> None:
    value = st.session_state[key]
    if options is not None and value is not None and value not in options:
        return
    if read is not None:
        put(choice, read(value))
    elif value is not None:  # a deselected segmented control leaves the choice unchanged
        put(choice, value)


# Plain keys, and values of widgets


def load(key: str, default: Any = None) -> Any:
    """The value under a key: one of the plain keys above, or the key of a widget."""
    return st.session_state.get(key, default)


def save(key: str, value: Any) -> None:
    """Store a value. Under the key of a widget, before it is drawn, this sets what the widget shows."""
    st.session_state[key] = value


def clear(key: str) -> None:
    """Remove the value under a key."""
    st.session_state.pop(key, None)


def has(key: str) -> bool:
    """Whether there is a value under the key."""
    return key in st.session_state


def clicked(key: str, event: str) -> Any:
    """What was clicked in a component; None if the component is gone by now."""
    return getattr(st.session_state.get(key), event, None)


# What the user asked for


def name_of(about: object) -> str:
    """A short digest of any value, for widget keys and wishes."""
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def wish(what: str, about: object) -> None:
    """Remember a request of the user: to `run` something long, to `cancel` it, to `download` something."""
    st.session_state.setdefault(_WISHES, set()).add((what, name_of(about)))


def is_wished(what: str, about: object) -> bool:
    """Whether the user asked for this and has not withdrawn it."""
    return (what, name_of(about)) in st.session_state.get(_WISHES, ())


def withdraw(what: str, about: object) -> None:
    """Forget a request that was withdrawn or fulfilled."""
    st.session_state.get(_WISHES, set()).discard((what, name_of(about)))


# The session


def show_page(key: str) -> None:
    """Remember the current page: pages that share a file read it with `page`."""
    save(_SHOWN_PAGE, key)


def page() -> str:
    """The key of the current page."""
    return str(load(_SHOWN_PAGE))


def person() -> str:
    """A random ID of this session, for the queue and the uploads."""
    return str(st.session_state.setdefault(_PERSON, secrets.token_hex(4)))


def mark() -> str:
    """A fingerprint of all choices and wishes: it changes whenever the page may show something else."""
    chosen = sorted(str(name) for name in st.session_state if str(name).startswith(_CHOSEN))
    values = [(name, st.session_state.get(name)) for name in (*chosen, *FINGERPRINT_KEYS)]
    return hashlib.sha256(repr((values, sorted(load(_WISHES, ())))).encode()).hexdigest()[:12]


def note(sentence: str) -> None:
    """Show a sentence once, at the top of the page."""
    st.session_state.setdefault(_NOTES, []).append(sentence)


def take_notes() -> list[str]:
    """The sentences to show now; they are removed."""
    return list(st.session_state.pop(_NOTES, []))
