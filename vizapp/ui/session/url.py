"""The address of a view: its query holds the network and the choices that differ from their defaults, so a link reopens it.

The picture is `picture=NAME` for a sample, `folder=PATH&picture=NAME` for a photo of a folder, and `picture=upload/DIGEST`
for an upload; on one's own machine `uploads=` brings back the others after a reload. The last release left its default
network out, too: a link without `network=` is one of that release.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from vizapp.errors import VizError, nearest, without_folders
from vizapp.ui.session import access, state
from vizapp.ui.session.choice import Choice
from vizapp.zoo.registry import ZOOS

FOLDER, _UPLOAD = "folder", re.compile(r"upload/([0-9a-f]{64})")
_UPLOADS, _SHORT, _MOST = (
    "uploads",
    16,
    64,
)  # the beginnings of the digests of this session's uploaded photos, at most so many
_FILES = {state.CHECKPOINT: state.WEIGHTS, state.OTHER_CHECKPOINT: state.OTHER_WEIGHTS}  # only where weights are "file"


def upload_digest(text: str) -> str | None:
    """The digest of the upload that a value of an address names; None if it names none."""
    match = _UPLOAD.fullmatch(text)
    return None if match is None else match[1]


def upload_text(digest: str) -> str:
    """The name of an upload in an address."""
    return f"upload/{digest}"


def read_address(
    known: dict[str, Collection[str]], more: Collection[Choice] = (), page: Collection[Choice] = ()
) -> None:
    """Take over the parameters that were opened or edited since the address was last written.

    Invalid values are skipped with a note.

    Args:
        known: The valid values of some choices, by name of the choice.
        more: Choices in addition to those of `state.py`.
        page: The choices of the page.
    """
    choices = state.CHOICES | {choice.name: choice for choice in more}
    if not state.has(state.ADDRESS) and _is_earlier(choices):
        for choice, default in state.EARLIER.items():
            if choice.shared or choice in page:
                state.put(choice, default)
        state.note(
            f"This link names no network, which meant {state.get(state.NETWORK)} in earlier versions. Add "
            f"network={state.NETWORK.default} to it for the current default."
        )
    if not state.has(state.ADDRESS) and not access.shared():
        state.save(state.LINKED_UPLOADS, st.query_params.get(_UPLOADS, "").split(",")[:_MOST])
    written = state.load(state.ADDRESS, {})
    address = st.query_params.to_dict()
    if state.SET.name in address:  # repeated, as on the command line
        address[state.SET.name] = state.SET.joint.join(st.query_params.get_all(state.SET.name))
    given = {name: value for name, value in address.items() if written.get(name) != value}
    card = state.CARD.name  # back in the browser's history, or on another page
    if card in written and card not in address and state.get(state.CARD) == written[card]:
        state.put(state.CARD, None)
    for choice, dependents in state.RESETS.items():
        if choice.name in given:  # it resets them, also those that the address names as before
            given |= {one.name: address[one.name] for one in dependents if one.name in address}
    origin = _read_origin(address) if {FOLDER, state.SAMPLE.name} & set(given) else None
    _put(given, choices, known, origin, "The link's")
    state.save(state.ADDRESS, written | given)


def read_link(
    query: Mapping[str, str], known: dict[str, Collection[str]], page: Collection[Choice], whose: str
) -> None:
    """Take over all parameters of the link of a page, where everything else has its default.

    Args:
        query: The parameters by name.
        known: As for `read_address`.
        page: The choices of the page.
        whose: Begins the note about an invalid value, as in `The link's`.
    """
    choices = state.CHOICES | {choice.name: choice for choice in page}
    _put(dict(query), choices, known, _read_origin(query), whose)


def _put(
    given: dict[str, str],
    choices: Mapping[str, Choice],
    known: dict[str, Collection[str]],
    origin: tuple[Any, ...] | None,
    whose: str,
) -> None:
    """Set the choices that are given as texts; `origin`: the photo, where it is none of the samples."""
    if origin is not None:
        state.save(state.ORIGIN, origin)
        state.save(state.LINKED_ORIGIN, origin)
    for name, choice in choices.items():
        if name not in given or (choice is state.SAMPLE and origin is not None):
            continue
        try:
            value = choice.read(given[name])
            if name in known:  # a bare name of a network, as in Python
                value = next((full for zoo in ZOOS if (full := f"{zoo}/{value}") in known[name]), value)
            if name in known and value not in known[name]:
                raise VizError(f"There is no {name} {value!r}.{nearest(value, known[name])}", code="no-such-choice")
        except VizError as error:
            state.note(f"{whose} choice of {name} was ignored. {error}")
            continue
        state.put(choice, value)
        if choice in (state.NETWORK, state.SECOND_NETWORK, state.OTHER):
            state.save(state.LINKED, {*state.load(state.LINKED, ()), value})
        if choice is state.SAMPLE:
            state.save(state.ORIGIN, ("sample", value))


def _is_earlier(choices: Collection[str]) -> bool:
    """Whether the address is of the last release, which left out its default network: it names anything but a network."""
    given = set(st.query_params.to_dict())
    known = {*choices, FOLDER} - {state.PRESENT.name}  # the last release had no presentations and no tours
    return not {state.NETWORK.name, state.TOUR.name} & given and bool(given & known)


def _read_origin(query: Mapping[str, str]) -> tuple[Any, ...] | None:
    """The photo of a folder, or the upload, that a link names; None if it names neither."""
    name, folder = query.get(state.SAMPLE.name, ""), query.get(FOLDER)
    digest = upload_digest(name)
    return ("folder", folder, name) if folder is not None else ("given", digest, "") if digest is not None else None


def _written_origin(origin: tuple[Any, ...]) -> dict[str, str]:
    kind, *rest = origin
    if kind == "folder":
        return {FOLDER: rest[0], state.SAMPLE.name: rest[1]}
    return {state.SAMPLE.name: upload_text(rest[0])} if kind == "given" else {}


def _written_uploads() -> dict[str, str]:
    """The uploaded photos of the session, if there are others than the current one.

    Not on a server, where an address that is passed on would show them to others. "Copy link" leaves them out.
    """
    kept, now = [one[1] for one in state.load(state.UPLOADS, [])], state.load(state.ORIGIN, ("",))
    if access.shared() or set(kept) <= set(now[1:2]):
        return {}
    return {_UPLOADS: ",".join(digest[:_SHORT] for digest in kept[-_MOST:])}


def write_address(page: Collection[Choice]) -> None:
    """Write the shared choices and those of the page to the address, where they differ from the default; the network always."""
    carried = _carried(page) | _written_uploads()
    if st.query_params.to_dict() != carried:
        st.query_params.from_dict(carried)
    state.save(state.ADDRESS, carried)


def address() -> str:
    """The address of the view, as "Copy link" copies it; empty where it is not known or names folders of this machine."""
    query = {name: text for name, text in state.load(state.ADDRESS, {}).items() if name != _UPLOADS}
    if st.context.url is None or any(without_folders(text) != text for text in query.values()):
        return ""
    return f"{st.context.url}?{urlencode(query)}"


def link(more: Mapping[str, str]) -> dict[str, str]:
    """The query of a link to a page about the current network and picture, with `more` choices of that page."""
    return _carried(()) | dict(more)


def _carried(page: Collection[Choice]) -> dict[str, str]:
    """The shared choices and those of the page that differ from the default, and the network, as an address carries them."""
    shared = [choice for choice in state.CHOICES.values() if choice.shared]
    origin = state.load(state.ORIGIN)
    carried: dict[str, str] = {}
    for choice in [*shared, *(choice for choice in page if not choice.shared)]:
        value = state.get(choice)
        if choice is state.SAMPLE and origin is not None and origin[0] != "sample":
            carried |= _written_origin(origin)
            continue
        if (value == choice.default and choice is not state.NETWORK) or (
            choice in _FILES and state.get(_FILES[choice]) != "file"
        ):
            continue
        carried[choice.name] = choice.joint.join(map(str, value)) if isinstance(value, tuple) else str(value)
    return carried
