"""The owners of uploads. An upload is released when the last session that has it has ended.

Each upload is registered with a function that releases it, so this module knows neither pages nor caches. A Streamlit cache
with `scope="session"` cannot hold uploads: it is cleared when the connection breaks, and the session may reconnect.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx

from vizapp.errors import VizError, showable
from vizapp.settings import settings
from vizapp.ui.inputs import stored_uploads
from vizapp.ui.session import access, access_log, state

GRACE = 150.0  # seconds in which a session may reconnect; Streamlit itself keeps it for 120
UploadKey = tuple[str, str]  # ("picture", digest), ("checkpoint", path) or ("archive", path)


@dataclass(frozen=True)
class _Upload:
    nbytes: int
    release: Callable[[], None]


class UploadRegistry:
    """The uploads of all sessions, with the bytes that each takes. Thread-safe."""

    def __init__(self, grace: float = GRACE) -> None:
        self._grace = grace
        self._owned: dict[str, OrderedDict[UploadKey, _Upload]] = {}  # by person, oldest first
        self._left: dict[str, float] = {}
        self._lock = threading.Lock()

    def register(self, person: str, key: UploadKey, nbytes: int, most: int, release: Callable[[], None]) -> None:
        """Register an upload, and release the oldest uploads of the person beyond their quota.

        Args:
            person: ID of the session.
            key: Kind and digest or path.
            nbytes: Size of the upload.
            most: Quota of one person in bytes; the newest upload always stays.
            release: Deletes the upload and everything computed from it.
        """
        with self._lock:
            owned = self._owned.setdefault(person, OrderedDict())
            owned[key] = _Upload(nbytes, release)
            owned.move_to_end(key)
            old = []
            while sum(upload.nbytes for upload in owned.values()) > most and len(owned) > 1:
                old.append(owned.popitem(last=False))
            unowned = self._unowned(old)
        _release(unowned)

    def remove(self, person: str, key: UploadKey) -> None:
        """Release an upload of the person."""
        with self._lock:
            upload = self._owned.get(person, OrderedDict()).pop(key, None)
            unowned = self._unowned([(key, upload)] if upload else [])
        _release(unowned)

    def has(self, person: str, key: UploadKey) -> bool:
        """Whether the person has this upload."""
        with self._lock:
            return key in self._owned.get(person, ())

    def connected(self, person: str) -> None:
        """Note that the session is connected."""
        with self._lock:
            self._left.pop(person, None)

    def disconnected(self, person: str) -> None:
        """Release the uploads of the session after the grace period, unless it reconnects."""
        with self._lock:
            self._left[person] = time.monotonic()
        timer = threading.Timer(self._grace, self.sweep)
        timer.daemon = True
        timer.start()

    def sweep(self) -> None:
        """Release the uploads of sessions whose grace period is over."""
        now = time.monotonic()
        with self._lock:
            away = [person for person, since in self._left.items() if now - since >= self._grace]
            old = [item for person in away for item in self._owned.pop(person, {}).items()]
            for person in away:
                del self._left[person]
            unowned = self._unowned(old)
        _release(unowned)

    def _unowned(self, uploads: list[tuple[UploadKey, _Upload]]) -> dict[UploadKey, _Upload]:
        return {key: upload for key, upload in uploads if not any(key in owned for owned in self._owned.values())}


def _release(uploads: dict[UploadKey, _Upload]) -> None:
    for (kind, _), upload in uploads.items():
        access_log.write("released", what=kind)
        upload.release()


@st.cache_resource(show_spinner=False)
def upload_registry() -> UploadRegistry:
    """The uploads of all sessions."""
    return UploadRegistry(GRACE)


def register(key: UploadKey, nbytes: int, release: Callable[[], None]) -> None:
    """Register an upload of this session; `release` is called when no session has it any more."""
    most = settings().session_mb + (0 if access.shared() else access.checkpoint_mb())
    upload_registry().register(state.person(), key, nbytes, most * 2**20, release)


def remove(key: UploadKey) -> None:
    """Release an upload of this session, unless another session has it."""
    upload_registry().remove(state.person(), key)


def content_of(file: Any, limit_mb: int, what: str) -> bytes:
    """The content of a file in an uploader, which is not copied.

    Raises:
        VizError: it is larger than the limit. Browsers refuse such files themselves.
    """
    content = file.getvalue()
    if len(content) > limit_mb * 2**20:
        raise VizError(
            f"{showable(file.name)} has {len(content) / 2**20:,.0f} MB; {what} that are uploaded here have at most "
            f"{limit_mb} MB.",
            code="upload-too-large",
        )
    return cast(bytes, content)


def drop_file(file: Any) -> None:
    """Let Streamlit no longer hold a file of an uploader in memory; the uploader is empty in the next run."""
    context = get_script_run_ctx()
    if context is not None and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)


def is_registered(key: UploadKey) -> bool:
    """Whether this session has the upload."""
    return upload_registry().has(state.person(), key)


@st.cache_resource(
    show_spinner=False, scope="session", on_release=lambda person: upload_registry().disconnected(person)
)
def _presence(person: str) -> str:
    stored_uploads.remove_old()
    return person


def note_session() -> None:
    """Note that this session is connected; Streamlit reports its end. Called in each run of the script."""
    upload_registry().connected(_presence(state.person()))
