"""Work that does not fit into memory is split; if even one item does not fit, a message says what would."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch

from tests.watched import Block
from vizapp.engine.memory import chunks
from vizapp.engine.memory.chunks import DoesNotFit, chunk_size, convert_out_of_memory, free_memory
from vizapp.errors import VizError
from vizapp.service.lru_cache import ByteBoundedCache, evict_all
from vizapp.ui.session import memory
from vizapp.ui.session.memory import empty_caches, retry_after_eviction

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]

LIMITED = """
import resource, sys
import psutil, torch
import vizapp
from vizapp.engine.memory.chunks import in_chunks
from vizapp.engine.trace.sites import Unit

torch.manual_seed(0)
net = vizapp.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(8)), (3, 384, 384))
pictures = torch.rand(16, 3, 384, 384)
sizes = []

def run(part):
    sizes.append(len(part))
    with torch.no_grad():
        return net.module(pictures[list(part)])

free = torch.cat(list(in_chunks(range(16), run, 8)))
limit = psutil.Process().memory_info().vms + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sizes.clear()
try:
    tight = torch.cat(list(in_chunks(range(16), run, 8)))
except vizapp.VizError as error:
    print("told:", error)
else:
    print("same" if torch.allclose(free, tight, rtol=1e-5, atol=1e-6) else "different", sizes[:3])
"""


def limited(megabytes: int) -> str:
    """What a process tells whose network takes 75 MB a picture, eight at a time, with so much memory left.

    Each map takes 37 MB: above 32 MB the C library maps every block anew, so nothing that was freed before can serve.
    """
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_question_that_does_not_fit_is_split_and_gives_the_same() -> None:
    assert limited(270).startswith("same [8, 4")


@pytest.mark.slow
def test_a_question_of_which_not_one_item_fits_is_told_with_what_would() -> None:
    told = limited(27)
    assert told.startswith("told: There is not enough memory on the CPU")
    assert "are free" in told
    assert "vizapp/zfnet-mini" in told


def test_a_network_that_does_not_fit_is_told() -> None:
    import vizapp
    from vizapp.zoo import describe

    describe("torchvision/vgg16")  # imports what the limit would forbid
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20, hard))
    try:
        with pytest.raises(VizError, match=r"not enough memory on the CPU .* more are needed"):
            vizapp.load("torchvision/vgg16", weights="none", device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_method_that_runs_out_of_memory_tells_so() -> None:
    import numpy as np

    import vizapp

    class Greedy(torch.nn.Module):
        full = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.full:
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes."
                )
            return x.mean((2, 3))

    module = Greedy()
    net = vizapp.wrap(module, (3, 8, 8))
    module.full = True
    with pytest.raises(VizError, match="3 GB more are needed"):
        vizapp.ask("predict", net, vizapp.open_picture(np.full((8, 8, 3), 9, np.uint8)))


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"), convert_out_of_memory():
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes.", "3 GB more"),
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has", "2.5 GB more"),
        ("CUDA out of memory. Tried to allocate 512.00 MiB.", "0.5 GB more"),
        ("not enough memory", "There is not enough memory"),
    ],
)
def test_how_much_was_wanted_is_read_from_torch(text: str, wanted: str) -> None:
    with pytest.raises(VizError, match=wanted), convert_out_of_memory():
        raise torch.OutOfMemoryError(text)


def test_the_owners_limit_makes_chunks_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    rss = psutil.Process().memory_info().rss
    monkeypatch.setenv("VIZAPP_MEMORY_GB", str((rss + 2**28) / 2**30))
    assert 2**27 < free_memory(CPU) <= 2**28 + 2**24
    assert chunk_size(2**25, CPU) <= 4
    monkeypatch.setenv("VIZAPP_MEMORY_GB", "0.001")
    assert free_memory(CPU) == 0
    assert chunk_size(2**25, CPU) == 1


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_CONTAINER", tmp_path)
    (tmp_path / "memory.max").write_text("2000000\n")
    (tmp_path / "memory.current").write_text("500000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\nfile 200000\ninactive_file 100000\nactive_file 100000\n")
    assert free_memory(CPU) == 1_600_000  # files that were read once make way
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) > 1_600_000


class Held:
    """Says when it has been let go of."""

    def __init__(self, size: int = 1) -> None:
        self.module = torch.nn.Linear(size, size)


def test_networks_leave_by_size_and_what_is_in_use_goes_on_and_is_freed_afterwards() -> None:
    shelf = ByteBoundedCache[Held](1000, on_evict=empty_caches)
    first, second, third = (Held() for _ in range(3))
    gone = weakref.ref(first)
    for name, network in (("1", first), ("2", second)):
        shelf.put((name,), network, 500)
    assert shelf.nbytes == 1000
    begun, leave, answers = threading.Event(), threading.Event(), list[torch.Tensor]()

    def use(network: Held) -> None:
        begun.set()
        assert leave.wait(10)
        answers.append(network.module(torch.ones(1, 1)))

    thread = threading.Thread(target=use, args=(first,))
    del first, network
    thread.start()
    assert begun.wait(10)
    shelf.put(("3",), third, 800)
    assert len(shelf) == 1
    assert shelf.get(("1",)) is None
    assert gone() is not None, "somebody is using it"
    assert gone().module.weight.device == CPU  # type: ignore[union-attr]
    leave.set()
    thread.join()
    del thread
    gc.collect()
    assert bool(answers[0].isfinite().all())
    assert gone() is None, "its memory is free"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_memory_of_networks_that_left_is_free(device: str) -> None:
    """Ten networks of 64 MB pass through a store of 200 MB."""
    where = torch.device(device)

    def taken() -> int:
        import psutil

        return psutil.Process().memory_info().rss if device == "cpu" else torch.cuda.memory_reserved()

    shelf, begun = ByteBoundedCache[torch.Tensor](200 * 2**20, on_evict=empty_caches), taken()
    for number in range(10):
        network = torch.ones(2**24, device=where)
        shelf.put((str(number),), network, 64 * 2**20)
        assert taken() - begun < 5 * 64 * 2**20
    del network
    assert len(shelf) == 3
    assert evict_all(of_all=True)
    assert taken() - begun < 64 * 2**20


def test_answers_leave_by_size_and_stores_let_go_when_memory_is_short() -> None:
    answers, networks, uploads = (
        ByteBoundedCache[str](100),
        ByteBoundedCache[str](100, min_kept_under_pressure=1),
        ByteBoundedCache[str](100, min_kept_under_pressure=None),
    )
    for shelf in (answers, networks, uploads):
        for number in range(20):
            shelf.put((str(number),), "", 9)
            assert shelf.nbytes <= 100
    assert [len(shelf) for shelf in (answers, networks, uploads)] == [11, 11, 11]
    assert [shelf.evictable_bytes for shelf in (answers, networks, uploads)] == [99, 90, 0]
    assert evict_all()
    assert [shelf.evictable_bytes for shelf in (answers, networks, uploads)] == [0, 0, 0]
    assert [len(shelf) for shelf in (answers, networks, uploads)] == [0, 1, 11]
    assert networks.get(("19",)) is not None, "the one used last"
    evict_all(of_all=True)
    assert [len(shelf) for shelf in (answers, networks, uploads)] == [0, 0, 11]


def test_what_caches_can_give_back_is_room_for_one_more_job(monkeypatch: pytest.MonkeyPatch) -> None:
    evict_all(of_all=True)
    monkeypatch.setattr(memory, "free_memory", lambda device: memory.ROOM - 100)
    shelf = ByteBoundedCache[str](1000)
    assert not memory.has_room("cpu")
    shelf.put(("large",), "", 101)
    assert memory.has_room("cpu")


def test_what_does_not_fit_is_tried_once_more_without_what_the_stores_hold() -> None:
    evict_all(of_all=True)
    shelf, tries = ByteBoundedCache[bytes](2**30), list[int]()
    shelf.put(("kept",), bytes(9), 9)

    def work() -> str:
        tries.append(len(shelf))
        if len(shelf):
            raise MemoryError
        return "answer"

    assert retry_after_eviction(work) == "answer"
    assert tries == [1, 0]
    tries.clear()

    def never() -> str:
        tries.append(1)
        raise MemoryError

    with pytest.raises(DoesNotFit, match="There is not enough memory on the CPU for this question"):
        retry_after_eviction(never)
    assert tries == [1], "nothing was let go, so that it would be in vain"


RUN_OUT = """
from vizapp.ui.session import messages

def page():
    raise {error}

messages.guard(page)
"""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("MemoryError()", "not enough memory on the CPU"),
        ('RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 9 bytes")', "are free"),
        ("OSError(28, 'No space left on device', '/x/y')", "No space left on device"),
        ("PermissionError(13, 'Permission denied', '/x/y')", "Permission denied"),
    ],
)
def test_on_a_page_want_of_memory_or_room_is_a_calm_sentence(error: str, sentence: str) -> None:
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_string(RUN_OUT.format(error=error)).run(timeout=30)
    assert not page.exception
    assert sentence in page.warning[0].value
    assert "unexpected" not in page.warning[0].value


@pytest.mark.gpu
def test_a_question_too_large_for_the_gpu_is_told() -> None:
    with pytest.raises(VizError, match="not enough memory on the GPU"), convert_out_of_memory():
        torch.empty(2**50, device="cuda")
    assert free_memory(torch.device("cuda")) > 0


def test_what_pages_run_reuses_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block()
    monkeypatch.setattr(memory, "reused_memory", block)
    assert retry_after_eviction(lambda: block.active)
    assert not block.active
