"""A fair scheduler for a device: one job runs at a time, users take turns, long jobs run in time slices.

At the end of its slice a job yields at its next tick if another one waits, and continues at its next turn. Meanwhile it
keeps its memory. Therefore more than `STARTED` jobs are started only while the device has room, and never more than `MOST`.
Turns go round by user, not by job: the user who was served least recently is next.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

SLICE = 0.3  # seconds after which a job yields if another one waits
STARTED = 4  # started jobs of a device: one runs, the others keep their memory
MOST = 24  # started jobs while there is room
TURN = 0.05  # seconds between two checks whether the job is still watched
_REMEMBERED = 1000  # users


class QueueEntry:
    """The entry of a job in the queue of a device. `queued`: seconds of waiting, pauses included."""

    def __init__(self, person: str, number: int) -> None:
        self.person = person
        self.number = number
        self.started = False
        self.queued = 0.0


class FairScheduler:
    """The queue of one device. Thread-safe: each job calls from its own thread."""

    def __init__(self, slice_: float = SLICE, room: Callable[[], bool] = lambda: False) -> None:
        self._slice, self._room = slice_, room
        self._changed = threading.Condition()
        self._waiting: list[QueueEntry] = []
        self._begun: set[QueueEntry] = set()
        self._holder: QueueEntry | None = None
        self._since = 0.0
        self._served: OrderedDict[str, int] = OrderedDict()  # person -> number of their last turn, oldest first
        self._turns = self._tickets = 0

    def enqueue(self, person: str) -> QueueEntry:
        """Add an entry to the queue."""
        with self._changed:
            self._tickets += 1
            ticket = QueueEntry(person, self._tickets)
            self._waiting.append(ticket)
            return ticket

    def wait(self, ticket: QueueEntry, look: Callable[[], None]) -> None:
        """Return when it is the turn of the entry. `look` is called regularly; if it raises, the entry leaves the queue."""
        began, taken = time.monotonic(), False
        try:
            while not (taken := self._take(ticket)):
                look()
        finally:
            ticket.queued += time.monotonic() - began
            if not taken:
                self.leave(ticket)

    def pause(self, ticket: QueueEntry, look: Callable[[], None]) -> bool:
        """Yield if the slice is over and another job can run; return at the next turn of the entry."""
        with self._changed:
            if self._holder is not ticket or time.monotonic() - self._since < self._slice or not self._ready():
                return False
            self._holder = None
            self._waiting.append(ticket)
            self._changed.notify_all()
        self.wait(ticket, look)
        return True

    def leave(self, ticket: QueueEntry) -> None:
        """Release the device, or leave the queue."""
        with self._changed:
            if self._holder is ticket:
                self._holder = None
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            self._begun.discard(ticket)
            self._changed.notify_all()

    def place(self, ticket: QueueEntry) -> int:
        """Position of the entry in the queue, from 1; 0 if it has the device or is not in the queue."""
        with self._changed:
            order = sorted(self._waiting, key=self._rank)
            return order.index(ticket) + 1 if ticket in order else 0

    def _take(self, ticket: QueueEntry) -> bool:
        with self._changed:
            if not self._is_next(ticket):
                self._changed.wait(TURN)
            if not self._is_next(ticket):
                return False
            self._waiting.remove(ticket)
            self._begun.add(ticket)
            self._holder, self._since, ticket.started = ticket, time.monotonic(), True
            self._turns += 1
            self._served[ticket.person] = self._turns
            self._served.move_to_end(ticket.person)
            if len(self._served) > _REMEMBERED:
                self._served.popitem(last=False)
            return True

    def _is_next(self, ticket: QueueEntry) -> bool:
        ready = self._ready() if self._holder is None else []
        return bool(ready) and min(ready, key=self._rank) is ticket

    def _ready(self) -> list[QueueEntry]:
        """The entries that may run: the started ones, and new ones while there is room."""
        begun = len(self._begun)
        room = begun < STARTED or (begun < MOST and self._room())
        return [ticket for ticket in self._waiting if ticket.started or room]

    def _rank(self, ticket: QueueEntry) -> tuple[int, int]:
        return self._served.get(ticket.person, 0), ticket.number
