"""A line of JSON per answer and per page, for whoever runs a server: what, how long, how much, how it ended.

Nothing in it tells who asked, or what a picture or a file was called or holds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime

from vizapp.settings import settings
from vizapp.ui.session import access


def write(event: str, **fields: object) -> None:
    """Append a line to the file `VIZAPP_LOG` (`-`: standard error, which is where a server writes unless told).

    One call to the system per line, so that lines of several threads and replicas do not mix. A log that cannot be
    written stops nobody's work.
    """
    place = settings().log or ("-" if access.shared() else "")
    if not place:
        return
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "event": event} | fields, ensure_ascii=False) + "\n"
    try:
        if place == "-":
            sys.stderr.write(line)
            return
        file = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
    except OSError:
        return


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Rounded to what a log needs."""
        return round(time.perf_counter() - self._began, 4)
