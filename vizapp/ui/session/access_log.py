"""The access log of a server: a line of JSON per result and per page, with duration, size and outcome.

It identifies no user, and holds no name or content of a picture or file.
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
    """Append a line to the file `VIZAPP_LOG` (`-`: standard error, the default of a server).

    Each line is one system call, so lines of several threads and replicas do not mix. Errors of writing are ignored.
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
    """A stopwatch that starts when it is created."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the start, rounded for the log."""
        return round(time.perf_counter() - self._began, 4)
