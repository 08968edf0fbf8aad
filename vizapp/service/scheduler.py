"""Who computes on a device next: one at a time, everybody in turn, the long ones in slices between the short ones.

Work that has had its slice hands over at its next tick when somebody else waits, and goes on when its turn comes again.
What it has computed so far stays in memory meanwhile, so beyond `STARTED` works another is begun only while the device has
room, and beyond `MOST` a question waits until one of them is done. People take turns, not questions: who was served longest
ago is next.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

SLICE = 0.3  # seconds after which a work hands over when somebody waits
STARTED = 4  # works begun and not done, of a device: one computes, the others hold what they have
MOST = 24  # of them while there is room
TURN = 0.05  # seconds between two looks whether somebody still waits for the answer
_REMEMBERED = 1000  # people


class QueueEntry:
    """One work's place at one device. `queued`: seconds it has waited, pauses included."""

    def __init__(self, person: str, number: int) -> None:
        self.person = person
        self.number = number
        self.started = False
        self.queued = 0.0


class FairScheduler:
    """The turns of one device. For many threads: each work calls from its own."""

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
        """A place at the end of the queue."""
        with self._changed:
            self._tickets += 1
            ticket = QueueEntry(person, self._tickets)
            self._waiting.append(ticket)
            return ticket

    def wait(self, ticket: QueueEntry, look: Callable[[], None]) -> None:
        """Return when it is the ticket's turn. `look` is called now and then; whatever it raises gives the place up."""
        began, taken = time.monotonic(), False
        try:
            while not (taken := self._take(ticket)):
                look()
        finally:
            ticket.queued += time.monotonic() - began
            if not taken:
                self.leave(ticket)

    def pause(self, ticket: QueueEntry, look: Callable[[], None]) -> bool:
        """Hand over if the slice is used up and somebody else can go on; return when it is the ticket's turn again."""
        with self._changed:
            if self._holder is not ticket or time.monotonic() - self._since < self._slice or not self._ready():
                return False
            self._holder = None
            self._waiting.append(ticket)
            self._changed.notify_all()
        self.wait(ticket, look)
        return True

    def leave(self, ticket: QueueEntry) -> None:
        """Give up the turn, or the place in the queue."""
        with self._changed:
            if self._holder is ticket:
                self._holder = None
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            self._begun.discard(ticket)
            self._changed.notify_all()

    def place(self, ticket: QueueEntry) -> int:
        """Where the ticket stands in the queue, from 1; 0 when it is its turn or it has none."""
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
        """Those that may go on: the begun ones, and new ones while there is room."""
        begun = len(self._begun)
        room = begun < STARTED or (begun < MOST and self._room())
        return [ticket for ticket in self._waiting if ticket.started or room]

    def _rank(self, ticket: QueueEntry) -> tuple[int, int]:
        return self._served.get(ticket.person, 0), ticket.number
