"""What people have given to the app: counted per session, and let go when the session has ended."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from vizapp.settings import settings
from vizapp.ui.session import state

GRACE = 150.0  # seconds: a session may come back after its connection broke; Streamlit itself keeps it for 120
UploadKey = tuple[str, str]  # ("picture", digest), ("checkpoint", path) or ("archive", path)


class UploadRegistry:
    """Uploads of all sessions. What nobody has any more is let go by `release`."""

    def __init__(self, release: Callable[[UploadKey], None], grace: float = GRACE) -> None:
        self._release, self._grace = release, grace
        self._owned: dict[str, OrderedDict[UploadKey, int]] = {}  # person -> things and bytes, the oldest first
        self._left: dict[str, float] = {}
        self._lock = threading.Lock()

    def register(self, person: str, thing: UploadKey, nbytes: int, most: int) -> None:
        """Note that `person` has given `thing`. Above `most` bytes their oldest things go."""
        with self._lock:
            owned = self._owned.setdefault(person, OrderedDict())
            owned[thing] = nbytes
            owned.move_to_end(thing)
            gone = []
            while sum(owned.values()) > most and len(owned) > 1:
                gone.append(owned.popitem(last=False)[0])
            gone = self._unowned(gone)
        for old in gone:
            self._release(old)

    def has(self, person: str, thing: UploadKey) -> bool:
        """Whether this person has given it, and still has it."""
        with self._lock:
            return thing in self._owned.get(person, ())

    def connected(self, person: str) -> None:
        """The session is there."""
        with self._lock:
            self._left.pop(person, None)

    def disconnected(self, person: str) -> None:
        """The session's connection ended: what it has goes after a while, unless it comes back."""
        with self._lock:
            self._left[person] = time.monotonic()
        timer = threading.Timer(self._grace, self.sweep)
        timer.daemon = True
        timer.start()

    def sweep(self) -> None:
        """Let go of what belongs to sessions that have been away for long enough."""
        now = time.monotonic()
        with self._lock:
            away = [person for person, since in self._left.items() if now - since >= self._grace]
            things = [thing for person in away for thing in self._owned.pop(person, ())]
            for person in away:
                del self._left[person]
            gone = self._unowned(things)
        for thing in gone:
            self._release(thing)

    def _unowned(self, things: list[UploadKey]) -> list[UploadKey]:
        return [thing for thing in dict.fromkeys(things) if not any(thing in owned for owned in self._owned.values())]


@st.cache_resource(show_spinner=False)
def upload_registry() -> UploadRegistry:
    """Those of all sessions."""
    return UploadRegistry(_release, GRACE)


def _release(thing: UploadKey) -> None:
    from vizapp.ui.inputs import images, networks
    from vizapp.ui.pages.gallery import gallery_runs
    from vizapp.ui.session import access_log

    kind, name = thing
    access_log.write("released", what=kind)
    if kind == "picture":
        images.forget(name)
    elif kind == "checkpoint":
        networks.forget_checkpoint(name)
    else:
        gallery_runs.forget_upload(Path(name))


def register(thing: UploadKey, nbytes: int) -> None:
    """Note that this session has given `thing`."""
    upload_registry().register(state.person(), thing, nbytes, settings().session_mb * 2**20)


@st.cache_resource(
    show_spinner=False, scope="session", on_release=lambda person: upload_registry().disconnected(person)
)
def _presence(person: str) -> str:
    return person


def present() -> None:
    """Note that this session is there; its end is noted by itself. Once in each run of the script."""
    upload_registry().connected(_presence(state.person()))
