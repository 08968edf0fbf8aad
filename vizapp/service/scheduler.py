"""A fair scheduler for a device: one job runs at a time, long jobs run in time slices, short questions come before them.

The user who has used the device least in the last seconds is next, so a short question waits for about one slice however
many long jobs there are. Waiting makes up for use, so that a stream of new users delays nobody for long.

At the end of its slice a job yields at its next tick if another one is next, and continues at its next turn. Meanwhile it
keeps its memory. Therefore more than `STARTED` jobs are started only while the device has room, and never more than `MOST`.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

SLICE = 0.3  # seconds after which a job yields if another one is next
STARTED = 4  # started jobs of a device: one runs, the others keep their memory
MOST = 24  # started jobs while there is room
TURN = 0.05  # seconds between two checks whether the job is still watched
HALF_LIFE = 15.0  # seconds after which half of a user's use is forgotten
WAIT_PER_USE = 8.0  # seconds of waiting that make up for one second of use
_LIFE = HALF_LIFE / math.log(2)
_REMEMBERED = 1000  # users


class QueueEntry:
    """The entry of a job in the queue of a device. `queued`: seconds of waiting, pauses included."""

    def __init__(self, person: str, number: int, since: float) -> None:
        self.person = person
        self.number = number
        self.since = since  # when it began to wait, or to run
        self.started = False
        self.queued = 0.0


class FairScheduler:
    """The queue of one device. Thread-safe: each job calls from its own thread."""

    def __init__(
        self,
        slice_: float = SLICE,
        room: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slice, self._room, self._clock = slice_, room, clock
        self._changed = threading.Condition()
        self._waiting: list[QueueEntry] = []
        self._begun: set[QueueEntry] = set()
        self._holder: QueueEntry | None = None
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()  # person -> seconds of use, at what time
        self._tickets = 0

    def enqueue(self, person: str) -> QueueEntry:
        """Add an entry to the queue."""
        with self._changed:
            self._tickets += 1
            ticket = QueueEntry(person, self._tickets, self._clock())
            self._waiting.append(ticket)
            return ticket

    def wait(self, ticket: QueueEntry, look: Callable[[], None]) -> None:
        """Return when it is the turn of the entry. `look` is called regularly; if it raises, the entry leaves the queue."""
        began, taken = self._clock(), False
        try:
            while not (taken := self._take(ticket)):
                look()
        finally:
            ticket.queued += self._clock() - began
            if not taken:
                self.leave(ticket)

    def pause(self, ticket: QueueEntry, look: Callable[[], None]) -> bool:
        """Yield if the slice is over and another job is next; return at the next turn of the entry."""
        with self._changed:
            if self._holder is not ticket or self._clock() - ticket.since < self._slice or not self._ready():
                return False
            self._release(ticket)
            self._waiting.append(ticket)
            if self._is_next(ticket):
                self._hold(ticket)
                return False
            self._changed.notify_all()
        self.wait(ticket, look)
        return True

    def leave(self, ticket: QueueEntry) -> None:
        """Release the device, or leave the queue."""
        with self._changed:
            if self._holder is ticket:
                self._release(ticket)
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            self._begun.discard(ticket)
            self._changed.notify_all()

    def place(self, ticket: QueueEntry) -> int:
        """Position of the entry in the queue, from 1; 0 if it has the device or is not in the queue."""
        with self._changed:
            order = sorted(self._waiting, key=self._rank())
            return order.index(ticket) + 1 if ticket in order else 0

    def _take(self, ticket: QueueEntry) -> bool:
        with self._changed:
            if not self._is_next(ticket):
                self._changed.wait(TURN)
            if not self._is_next(ticket):
                return False
            self._hold(ticket)
            return True

    def _hold(self, ticket: QueueEntry) -> None:
        self._waiting.remove(ticket)
        self._begun.add(ticket)
        self._holder, ticket.since, ticket.started = ticket, self._clock(), True

    def _release(self, ticket: QueueEntry) -> None:
        now = self._clock()
        held = _LIFE * (1 - math.exp((ticket.since - now) / _LIFE))  # the integral of what is remembered of each second
        self._used[ticket.person] = self._use(ticket.person, now) + held, now
        self._used.move_to_end(ticket.person)
        if len(self._used) > _REMEMBERED:
            self._used.popitem(last=False)
        self._holder, ticket.since = None, now

    def _use(self, person: str, now: float) -> float:
        """Seconds that the user has had the device; older ones count less."""
        used, at = self._used.get(person, (0.0, now))
        return used * math.exp((at - now) / _LIFE)

    def _is_next(self, ticket: QueueEntry) -> bool:
        ready = self._ready() if self._holder is None else []
        return bool(ready) and min(ready, key=self._rank()) is ticket

    def _ready(self) -> list[QueueEntry]:
        """The entries that may run: the started ones, and new ones while there is room."""
        begun = len(self._begun)
        room = begun < STARTED or (begun < MOST and self._room())
        return [ticket for ticket in self._waiting if ticket.started or room]

    def _rank(self) -> Callable[[QueueEntry], tuple[float, int]]:
        """The order of the entries now: by the use of their users less what their waiting makes up for."""
        now = self._clock()
        return lambda ticket: (self._use(ticket.person, now) - (now - ticket.since) / WAIT_PER_USE, ticket.number)
