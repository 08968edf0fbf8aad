"""Networks that do not fit together are opened one after another; small ones need not wait; too large ones are refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import vizapp
from tests.errors import refuses
from vizapp.engine.memory.budget import MemoryBudget
from vizapp.engine.memory.chunks import DoesNotFit
from vizapp.zoo import registry

CPU = torch.device("cpu")


class Machine:
    """Memory of 100 bytes, of which whoever has room takes what was promised, and gives it back."""

    def __init__(self) -> None:
        self.used, self.most = 0, 0
        self.order: list[str] = []
        self.room = MemoryBudget(lambda device: 100 - self.used)
        self._lock = threading.Lock()

    def open(self, name: str, size: int, leave: threading.Event, begun: threading.Event) -> threading.Thread:
        """Open something in a thread of its own; it ends when `leave` is set."""

        def work() -> None:
            with self.room.reserve({CPU: size}, name):
                with self._lock:
                    self.used += size
                    self.most = max(self.most, self.used)
                    self.order.append(name)
                begun.set()
                assert leave.wait(20)
                with self._lock:
                    self.used -= size

        thread = threading.Thread(target=work)
        thread.start()
        return thread


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_does_not_fit_together_waits_and_what_is_small_passes_by() -> None:
    machine, leave, later, begun = Machine(), threading.Event(), threading.Event(), threading.Event()
    threads = [machine.open("large", 40, leave, begun)]
    assert begun.wait(10)
    second, third = threading.Event(), threading.Event()
    threads.append(machine.open("as large", 70, later, second))
    assert not second.wait(0.3), "40 are promised and taken, and 70 do not fit beside them"
    threads.append(machine.open("small", 10, leave, third))
    assert third.wait(10), "it passes by"
    leave.set()
    assert second.wait(10)
    later.set()
    for thread in threads:
        thread.join()
    assert machine.order == ["large", "small", "as large"]
    assert machine.most <= 100


def test_many_threads_never_take_more_than_there_is() -> None:
    machine, begun = Machine(), threading.Event()
    leaves = [threading.Event() for _ in range(24)]
    threads = [
        machine.open(str(i), 1 + 13 * i % 49, leave, begun) for i, leave in enumerate(leaves)
    ]  # of 1 to 49 bytes: two always fit
    for leave in leaves:
        time.sleep(0.005)
        leave.set()
    for thread in threads:
        thread.join(30)
    assert len(machine.order) == 24
    assert machine.most <= 100
    assert machine.used == 0


def test_what_cannot_fit_at_all_is_told_with_its_size_and_what_is_free() -> None:
    room = MemoryBudget(lambda device: 3 * 2**30)
    with (
        refuses("out-of-memory", "CPU", "opening x", "4 GB", "3 GB"),
        room.reserve({CPU: 4 * 2**30}, "opening x"),
    ):
        pass
    with room.reserve({CPU: 3 * 2**30}, "opening y"):
        pass


def test_it_is_told_after_the_others_have_ended() -> None:
    machine, leave, begun = Machine(), threading.Event(), threading.Event()
    thread = machine.open("first", 60, leave, begun)
    assert begun.wait(10)
    told: list[DoesNotFit] = []

    def ask() -> None:
        try:
            with machine.room.reserve({CPU: 150}, "it"):
                raise AssertionError
        except DoesNotFit as error:
            told.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.3)
    assert not told
    leave.set()
    thread.join()
    asking.join(10)
    assert told[0].free >= 40


def test_it_is_known_who_waits() -> None:
    machine, leave, begun, second = Machine(), threading.Event(), threading.Event(), threading.Event()
    first = machine.open("first", 60, leave, begun)
    assert begun.wait(10)
    waiting = machine.open("second", 60, leave, second)
    eventually(lambda: machine.room.is_waited_for(waiting.ident or 0))
    assert not machine.room.is_waited_for(first.ident or 0)
    leave.set()
    assert second.wait(10)
    assert not machine.room.is_waited_for(waiting.ident or 0)
    for thread in (first, waiting):
        thread.join()
    third, fourth = (machine.room.reserve({CPU: 60}, name, _left) for name in ("third", "fourth"))
    with third, pytest.raises(RuntimeError), fourth:
        pass
    assert not machine.room.is_waited_for(threading.get_ident()), "who has left waits no more"


def _left(share: float) -> None:
    raise RuntimeError


def test_who_waits_can_leave_and_errors_give_the_room_back() -> None:
    class Leave(BaseException):
        pass

    def leave(share: float) -> None:
        raise Leave

    room = MemoryBudget(lambda device: 100)
    with room.reserve({CPU: 80}, "a"), pytest.raises(Leave), room.reserve({CPU: 80}, "b", leave):
        pass
    with pytest.raises(ZeroDivisionError), room.reserve({CPU: 100}, "c"):
        raise ZeroDivisionError
    with room.reserve({CPU: 100}, "d"):
        pass


def test_every_device_counts_by_itself() -> None:
    free = {"cpu": 100, "cuda": 50}
    room, gpu = MemoryBudget(lambda device: free[device.type]), torch.device("cuda")
    with room.reserve({CPU: 90, gpu: 40}, "a"):
        with pytest.raises(ZeroDivisionError), room.reserve({CPU: 5, gpu: 20}, "b", lambda share: 1 // 0):  # type: ignore[arg-type, return-value]
            pass
        with room.reserve({CPU: 5, gpu: 5}, "c"):
            pass
    with refuses("out-of-memory", "GPU for d"), room.reserve({CPU: 5, gpu: 60}, "d"):
        pass


@pytest.fixture
def promised(monkeypatch: pytest.MonkeyPatch) -> list[dict[torch.device, int]]:
    """What networks were promised as they were opened."""
    found: list[dict[torch.device, int]] = []
    room = MemoryBudget()
    reserved = room.reserve

    def noted(wanted: dict[torch.device, int], what: str, tick: object = None) -> object:
        found.append(wanted)
        return reserved(wanted, what)

    monkeypatch.setattr(room, "reserve", noted)
    monkeypatch.setattr(registry, "memory_budget", lambda: room)
    return found


def test_opening_is_promised_what_the_card_or_the_file_says(
    promised: list[dict[torch.device, int]], tmp_path: Path
) -> None:
    net = vizapp.load("vizapp/resnet20-cifar", weights="none", device="cpu")
    assert promised == [{CPU: 4 * 269_722}]
    path = tmp_path / "net.pth"
    torch.save(net.module.state_dict(), path)
    vizapp.load("vizapp/resnet20-cifar", weights=path, device="cpu")
    assert promised[1][CPU] == int(registry._WHILE_OPENING * path.stat().st_size)
    vizapp.load("vizapp/lenet5-digits", device="cpu")
    assert promised[2][CPU] >= 2 * 4 * 44_426


def test_a_network_that_cannot_fit_is_told_before_its_memory_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    from vizapp.zoo import describe

    describe("torchvision/vgg16")  # what is imported for it is no part of it
    monkeypatch.setenv("VIZAPP_MEMORY_GB", str((psutil.Process().memory_info().rss + 300 * 2**20) / 2**30))
    monkeypatch.setattr(registry, "build_random", lambda *_: pytest.fail("begun"))
    with refuses("out-of-memory", "opening torchvision/vgg16", "0.52 GB", " free"):
        vizapp.load("torchvision/vgg16", weights="none", device="cpu")


MEASURED = """
import sys
import psutil, torch, torchvision.models, vizapp
from vizapp.zoo import describe
describe("torchvision/alexnet")
vizapp.load("lenet5-digits", device="cpu")
before = psutil.Process().memory_info().rss
net = vizapp.load("torchvision/alexnet", weights=sys.argv[1], device="cpu")
# Not ru_maxrss, which a process has from the one that started it.
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")) - before
size = sum(t.numel() * t.element_size() for t in net.module.state_dict().values())
print(peak / size)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "file"])
def test_the_promise_is_what_opening_takes(kind: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[3]
    if kind == "file":
        net = vizapp.load("torchvision/alexnet", weights="none", device="cpu")
        torch.save(net.module.state_dict(), tmp_path / "alexnet.pth")
        del net
    given = "none" if kind == "none" else str(tmp_path / "alexnet.pth")
    done = subprocess.run([sys.executable, "-c", MEASURED, given], cwd=root, capture_output=True, text=True, check=True)
    times = float(done.stdout)
    promise = 1.0 if kind == "none" else registry._WHILE_OPENING
    assert 0.6 * promise <= times <= 1.15 * promise, times
