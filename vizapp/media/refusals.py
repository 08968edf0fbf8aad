"""Files that took too long to decode, in the cache folder, so that they are refused at once the next time."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress

from PIL import __version__

from vizapp.settings import settings

SECONDS = 7 * 86_400.0  # a machine that was very busy may have been the cause
_recent: dict[str, float] = {}  # when they were refused; for cache folders that cannot be written


class RefusedContent:
    """The content of a file, with the limits under which it is decoded."""

    def __init__(self, content: bytes, limits: str) -> None:
        digest = hashlib.sha256(f"{limits} {__version__}".encode())
        digest.update(content)
        self._digest = digest.hexdigest()
        self._folder = settings().cache / "slow-photos"

    def is_remembered(self) -> bool:
        """Whether it was refused within a week."""
        since = _recent.get(self._digest, 0.0)
        with suppress(OSError):
            since = max(since, (self._folder / self._digest).stat().st_mtime)
        return time.time() - since < SECONDS

    def remember(self) -> None:
        """Remember that it was refused, and forget those of more than a week ago."""
        _recent[self._digest] = time.time()
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / self._digest).touch()
            for file in self._folder.iterdir():
                if time.time() - file.stat().st_mtime >= SECONDS:
                    file.unlink()
