"""The queue of a device: one job at a time, users take turns, long jobs run in slices, nobody starves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace

import pytest

from vizapp.service.jobs import Abandoned, JobRunner, Tick
from vizapp.service.runs import describe, ordinal
from vizapp.service.scheduler import STARTED, FairScheduler, QueueEntry

STEP = 0.005  # seconds of a step of pretended work
PATIENCE = 60  # seconds: a bound for work that hangs, not a measure of speed


def steps(count: int, done: list[str] | None = None, name: str = "") -> Callable[[Tick], str]:
    """Work of that many steps, which notes its name after each."""

    def run(tick: Tick) -> str:
        for number in range(count):
            time.sleep(STEP)
            if done is not None:
                done.append(name)
            tick(number / count)
        return name

    return run


def until_set(event: threading.Event, name: str = "") -> Callable[[Tick], str]:
    """Work that goes on until the event is set."""

    def run(tick: Tick) -> str:
        while not event.is_set():
            time.sleep(STEP)
            tick(0.5)
        return name

    return run


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def shortest_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work hands over at every tick when somebody else can go on, however fast the machine is."""
    monkeypatch.setattr("vizapp.service.jobs.FairScheduler", partial(FairScheduler, slice_=0.0))


def test_a_short_question_is_not_starved_by_a_long_one() -> None:
    office, release = JobRunner(), threading.Event()
    with office.waiting(("long",), until_set(release, "long"), "cpu", "ann") as long:
        until(lambda: long.share > 0)
        with office.waiting(("short",), steps(2, name="short"), "cpu", "bob") as short:
            assert short.future.result(timeout=PATIENCE) == "short"
        release.set()
        assert long.future.result(timeout=PATIENCE) == "long"
        assert long.queued > STEP


def test_work_hands_over_when_its_slice_is_used_up_and_not_before() -> None:
    now = [100.0]
    turns = FairScheduler(slice_=0.3, clock=lambda: now[0])
    long, short = turns.enqueue("ann"), turns.enqueue("bob")
    turns.wait(long, lambda: None)
    now[0] += 0.25
    assert not turns.pause(long, lambda: None)
    now[0] += 0.1
    thread = threading.Thread(target=lambda: paused.append(turns.pause(long, lambda: None)))
    paused: list[bool] = []
    thread.start()
    turns.wait(short, lambda: None)
    assert turns.place(long) == 1
    now[0] += 2
    turns.leave(short)
    thread.join(PATIENCE)
    assert paused == [True]
    assert long.queued == pytest.approx(2)


def test_a_short_question_is_not_starved_by_many_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizapp.service.jobs.FairScheduler", partial(FairScheduler, slice_=0.05))
    office, release = JobRunner(has_room=lambda device: True), threading.Event()
    long = [office.waiting(("long", str(n)), until_set(release), "cpu", f"person {n}") for n in range(STARTED + 2)]
    works = [one.__enter__() for one in long]
    until(lambda: all(one.share > 0 for one in works))
    with office.waiting(("short",), steps(2, name="short"), "cpu", "zoe") as short:
        assert short.future.result(timeout=PATIENCE) == "short"
    release.set()
    for one in long:
        one.__exit__(None, None, None)


def test_one_computes_at_a_time_and_everybody_ends() -> None:
    office, inside, most = JobRunner(), [0], [0]

    def run(tick: Tick) -> str:
        for _ in range(12):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(STEP)
            inside[0] -= 1
            tick(0.5)
        return "done"

    works = [office.waiting((str(n),), run, "cpu", f"person {n % 3}") for n in range(9)]
    entered = [work.__enter__() for work in works]
    assert all(work.future.result(timeout=PATIENCE) == "done" for work in entered)
    assert most[0] == 1
    for work in works:
        work.__exit__(None, None, None)


class Device:
    """A device that many people use, and a clock that only the running job moves, in steps of 0.1 s."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = FairScheduler(room=lambda: True, clock=lambda: self.now)
        self.arriving: list[tuple[float, str, float]] = []  # when, who, seconds of computing
        self.waited: dict[str, float] = {}  # seconds in the queue of a finished job, by its person
        self.longest: dict[str, float] = {}  # the longest of the waits between two turns
        self.steps: list[str] = []
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        """Run all jobs to their ends."""
        self._let_in()
        while self._threads:
            self._threads.pop(0).join(PATIENCE)
            if self.arriving and not self._threads:
                self.now = self.arriving[0][0]
                self._let_in()

    def _let_in(self) -> None:
        came = []
        while self.arriving and self.arriving[0][0] <= self.now:
            _, person, seconds = self.arriving.pop(0)
            came.append((self.turns.enqueue(person), seconds))
        for ticket, seconds in came:
            self._threads.append(threading.Thread(target=self._compute, args=(ticket, seconds)))
            self._threads[-1].start()

    def _compute(self, ticket: QueueEntry, seconds: float) -> None:
        longest = before = 0.0
        self.turns.wait(ticket, lambda: None)
        for _ in range(round(seconds * 10)):
            longest, before = max(longest, ticket.queued - before), ticket.queued
            self.now += 0.1
            self.steps.append(ticket.person)
            self._let_in()
            self.turns.pause(ticket, lambda: None)
        self.turns.leave(ticket)
        self.waited[ticket.person], self.longest[ticket.person] = ticket.queued, longest


def test_a_short_question_waits_for_one_slice_however_many_sweeps_there_are() -> None:
    device = Device()
    device.arriving = [(0.0, f"sweep {n}", 8.0) for n in range(8)] + [(20.0, "short", 2.0)]
    device.run()
    # Eight share the device, so each has used 1.8 s at most (0.5 ** (t / 15) / 8 s, added up), and one slice more.
    assert device.waited["short"] <= 0.4 + 2 * 8 * 0.4, "one slice, and at most two rounds for the end of it"
    assert device.steps[200:202] != ["short", "short"]
    assert device.steps[204:].index("short") == 0
    assert all(device.waited[f"sweep {n}"] <= 66 - 8 for n in range(8))


def test_sweeps_of_several_people_advance_together() -> None:
    device = Device()
    device.arriving = [(0.0, name, 6.0) for name in ("ann", "bob", "cleo")]
    device.run()
    half = device.steps[:90]
    assert max(abs(half.count(name) - 30) for name in ("ann", "bob", "cleo")) <= 6, "two slices"


def test_who_computed_much_is_answered_soon_beside_the_sweep_of_somebody_new() -> None:
    device = Device()
    device.arriving = [(0.0, "busy", 40.0), (40.0, "new", 60.0), (40.5, "busy", 1.0)]
    device.run()
    # Of 40 s the integral remembers 21.6 * (1 - 2 ** (-40 / 15)) = 18.2 s. After t more seconds it is 18.2 * 2 ** (-t / 15),
    # less t / 8 for the wait; the sweep has used 21.6 * (1 - 2 ** (-t / 15)). They are equal at t = 12.0.
    assert device.longest["busy"] == pytest.approx(12, abs=0.5)


def test_a_stream_of_new_people_delays_nobody_for_long() -> None:
    device = Device()
    device.arriving = [(0.0, "sweep", 20.0), *((1.0 + 0.3 * n, f"new {n}", 0.3) for n in range(400))]
    device.run()
    # At most 21.6 * 0.5 ** (t / 15) = t / 8: the wait makes up for all use before 36 s.
    assert max(device.longest.values()) <= 36
    assert device.longest["sweep"] > 3, "the new ones do go first"


def test_two_jobs_of_a_person_alternate() -> None:
    device = Device()
    device.arriving = [(0.0, "ann", 10.0), (3.0, "ann", 1.0), (3.0, "bob", 10.0)]
    device.run()
    assert device.waited["ann"] < 15
    turns, long = FairScheduler(slice_=0.3, clock=lambda: device.now), None
    long, short = turns.enqueue("ann"), turns.enqueue("ann")
    turns.wait(long, lambda: None)
    device.now += 0.4
    thread = threading.Thread(target=turns.pause, args=(long, lambda: None))
    thread.start()
    turns.wait(short, lambda: None)
    device.now += 0.4
    assert turns.place(long) == 1
    turns.leave(short)
    thread.join(PATIENCE)
    assert turns.place(long) == 0


def test_a_job_goes_on_after_its_slice_if_nobody_else_is_next() -> None:
    now = [0.0]
    turns = FairScheduler(slice_=0.3, clock=lambda: now[0])
    busy, new = turns.enqueue("busy"), turns.enqueue("new")
    turns.wait(busy, lambda: None)
    now[0] += 10
    turns.leave(busy)
    waiting = turns.enqueue("busy")
    turns.wait(new, lambda: None)
    for _ in range(6):
        now[0] += 0.31
        assert not turns.pause(new, lambda: None)
    assert turns.place(waiting) == 1
    turns.leave(new)
    turns.wait(waiting, lambda: None)


def test_who_cancels_while_waiting_leaves_the_order_of_the_others() -> None:
    now = [0.0]
    turns = FairScheduler(slice_=0.3, clock=lambda: now[0])
    holder, cancelled, last = (turns.enqueue(person) for person in ("ann", "bob", "cleo"))
    turns.wait(holder, lambda: None)

    def cancel() -> None:
        raise Abandoned

    with pytest.raises(Abandoned):
        turns.wait(cancelled, cancel)
    assert [turns.place(ticket) for ticket in (holder, cancelled, last)] == [0, 0, 1]
    now[0] += 5
    turns.leave(holder)
    again = turns.enqueue("bob")  # who has used nothing, but came after cleo
    assert [turns.place(ticket) for ticket in (last, again)] == [1, 2]
    turns.wait(last, lambda: None)


def test_people_take_turns_and_not_questions() -> None:
    turns, order, release = FairScheduler(slice_=0.0), [], threading.Event()

    def ask(person: str, number: int) -> None:
        ticket = turns.enqueue(person)
        ready.append(ticket)
        turns.wait(ticket, lambda: None)
        order.append(f"{person}{number}")
        release.wait(PATIENCE)
        turns.leave(ticket)

    ready: list[object] = []
    asked = [("busy", 0), ("busy", 1), ("busy", 2), ("other", 0)]
    threads = []
    for person, number in asked:
        thread = threading.Thread(target=ask, args=(person, number))
        thread.start()
        threads.append(thread)
        until(lambda: len(ready) == len(threads))
    until(lambda: len(order) == 1)
    release.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert order == ["busy0", "other0", "busy1", "busy2"]


def test_the_place_in_the_queue_is_known() -> None:
    turns = FairScheduler()
    holder, second, third = (turns.enqueue(person) for person in ("a", "b", "c"))
    turns.wait(holder, lambda: None)
    assert [turns.place(ticket) for ticket in (holder, second, third)] == [0, 1, 2]
    turns.leave(second)
    assert turns.place(third) == 1
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "111th",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "paused", "memory", "told"),
    [
        (0, False, False, "Computing"),
        (2, False, False, "Waiting, 2nd in the queue"),
        (1, True, False, "Computing, taking turns with others"),
        (0, False, True, "Waiting for memory that other work holds"),
    ],
)
def test_who_waits_is_told_where_they_stand(place: int, paused: bool, memory: bool, told: str) -> None:
    work = SimpleNamespace(place=place, paused=paused, wants_memory=memory, future=Future())
    assert describe(work, "Computing") == told  # type: ignore[arg-type]


@pytest.mark.usefixtures("shortest_slices")
@pytest.mark.parametrize(("room", "held"), [(False, STARTED), (True, STARTED + 3)])
def test_no_more_than_a_few_hold_memory_unless_there_is_room(room: bool, held: int) -> None:
    office, everybody = JobRunner(has_room=lambda device: room), threading.Event()
    begun, ended, most = [0], [0], [0]

    def run(tick: Tick) -> None:
        begun[0] += 1
        most[0] = max(most[0], begun[0] - ended[0])
        everybody.wait(PATIENCE)
        for _ in range(12):
            tick(0.5)
        ended[0] += 1

    works = [office.waiting((str(n),), run, "cpu", str(n)) for n in range(STARTED + 3)]
    entered = [work.__enter__() for work in works]
    until(lambda: begun[0] and sum(work.place > 0 for work in entered) == len(entered) - 1)
    everybody.set()
    for work in entered:
        work.future.result(timeout=PATIENCE)
    assert most[0] == held
    for work in works:
        work.__exit__(None, None, None)


def test_who_leaves_while_paused_or_queued_gives_the_place_up() -> None:
    office, release = JobRunner(), threading.Event()

    def holds(tick: Tick) -> str:
        release.wait(PATIENCE)
        return "held"

    with office.waiting(("long",), steps(1000), "cpu", "ann", grace=0.1) as long:
        until(lambda: long.share > 0)
        with office.waiting(("holds",), holds, "cpu", "bob") as holder:
            until(lambda: long.paused)
            with office.waiting(("queued",), steps(1), "cpu", "cleo", grace=0.1) as queued:
                until(lambda: queued.place > 0)
            with pytest.raises(Abandoned):
                queued.future.result(timeout=PATIENCE)
            long.leave("ann")
            with pytest.raises(Abandoned):
                long.future.result(timeout=PATIENCE)
            long.join("ann")
            release.set()
            assert holder.future.result(timeout=PATIENCE) == "held"
        with office.waiting(("next",), steps(1, name="next"), "cpu", "dan") as following:
            assert following.future.result(timeout=PATIENCE) == "next"


def test_work_that_fails_lets_the_next_one_in() -> None:
    office = JobRunner()

    def fails(tick: Tick) -> None:
        raise ValueError("on purpose")

    with office.waiting(("fails",), fails, "cpu", "ann") as failing:
        with pytest.raises(ValueError, match="on purpose"):
            failing.future.result(timeout=PATIENCE)
        with office.waiting(("next",), steps(1, name="next"), "cpu", "ann") as following:
            assert following.future.result(timeout=PATIENCE) == "next"


def test_hundreds_who_wait_do_not_block_one_another() -> None:
    office = JobRunner()
    works = [office.waiting((str(n),), lambda tick: "done", "cpu", str(n)) for n in range(600)]
    entered = [work.__enter__() for work in works]
    assert all(work.future.result(timeout=PATIENCE) == "done" for work in entered)
    for work in works:
        work.__exit__(None, None, None)
