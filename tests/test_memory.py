"""What does not fit into memory is split; if even one item does not fit, a sentence says what would. Limits are artificial."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vizapp.engine import chunks
from vizapp.engine.chunks import chunk_size, free_memory, memory_told
from vizapp.errors import VizError
from vizapp.ui.networks import _Networks

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]

LIMITED = """
import resource, sys
import psutil, torch
import vizapp
from vizapp.engine.chunks import in_chunks
from vizapp.engine.sites import Unit

torch.manual_seed(0)
net = vizapp.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(8)), (3, 256, 256))
pictures = torch.rand(32, 3, 256, 256)
sizes = []

def run(part):
    sizes.append(len(part))
    with torch.no_grad():
        return net.module(pictures[list(part)])

free = torch.cat(list(in_chunks(range(32), run, 8)))
limit = psutil.Process().memory_info().vms + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sizes.clear()
try:
    tight = torch.cat(list(in_chunks(range(32), run, 8)))
except vizapp.VizError as error:
    print("told:", error)
else:
    print("same" if torch.allclose(free, tight, rtol=1e-5, atol=1e-6) else "different", sizes[:3])
"""


def limited(megabytes: int) -> str:
    """What a process tells whose network takes 33 MB a picture, eight at a time, with so much memory left."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_question_that_does_not_fit_is_split_and_gives_the_same() -> None:
    assert limited(120).startswith("same [8, 4")


@pytest.mark.slow
def test_a_question_of_which_not_one_item_fits_is_told_with_what_would() -> None:
    told = limited(12)
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
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool(x.any()):
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes."
                )
            return x.mean((2, 3))

    net = vizapp.wrap(Greedy(), (3, 8, 8))
    with pytest.raises(VizError, match="3 GB more are needed"):
        vizapp.ask("predict", net, vizapp.open_picture(np.full((8, 8, 3), 9, np.uint8)))


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_told():
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
    with pytest.raises(VizError, match=wanted), memory_told():
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
    assert free_memory(CPU) == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) > 1_500_000


def test_networks_leave_by_size_and_are_not_moved_meanwhile() -> None:
    shelf = _Networks(1000)
    first, second, third = (torch.nn.Linear(2, 2) for _ in range(3))
    for name, module in (("1", first), ("2", second)):
        shelf.put((name,), module, 500)  # type: ignore[arg-type]
    assert shelf.nbytes == 1000
    shelf.put(("3",), third, 800)  # type: ignore[arg-type]
    assert len(shelf) == 1
    assert first.weight.device == CPU
    assert bool(first(torch.ones(1, 2)).isfinite().all())  # somebody may still be using it


@pytest.mark.gpu
def test_a_question_too_large_for_the_gpu_is_told() -> None:
    with pytest.raises(VizError, match="not enough memory on the GPU"), memory_told():
        torch.empty(2**50, device="cuda")
    assert free_memory(torch.device("cuda")) > 0
