"""The access log of a server: a line of JSON per result and per page, with duration, size and outcome.

It identifies no user, and holds no name or content of a picture or file.
"""

from __future__ import annotations

import json
import os
import sys
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
    short = {name: round(value, 4) if isinstance(value, float) else value for name, value in fields.items()}
    line = json.dumps({"time": now, "event": event} | short, ensure_ascii=False) + "\n"
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
