"""The reductions for GPUs: right, few, and the same as those on a CPU. They are run on the CPU here."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.networks import Branching, seeded
from vizapp.engine.statistics import reduction, top_activations
from vizapp.engine.statistics.map_reduction import fused_kernel, reduce_maps, reduce_with_torch
from vizapp.engine.statistics.top_activations import State, TopKTracker
from vizapp.engine.trace.sites import survey

ROOT = Path(__file__).resolve().parents[3]
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
SHAPES = ((2, 3, 1, 1), (2, 5, 7, 7), (1, 70, 9, 11), (2, 2, 40, 40), (3, 33, 6, 6))
NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def hard_maps(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> Tensor:
    """Halves with ties and zeros of both signs; one map is infinite, one map has a cell that is no number."""
    maps = torch.randint(-6, 6, shape, generator=torch.Generator().manual_seed(0)).to(dtype) / 2
    maps[0, 0], maps[0, 1] = -1, 0
    maps[0, 1, 0, 0] = -0.0
    maps[-1, 0] = -math.inf
    maps[-1, -1, -1, -1] = math.nan
    return maps.contiguous(memory_format=torch.channels_last) if last else maps


def check(reduce: Callable[[Tensor, torch.dtype], tuple[Tensor, ...]], device: str = "cpu") -> None:
    """Compare with loops over the values of each map."""
    for dtype in DTYPES:
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        for shape in SHAPES:
            for last in (False, True):
                maps = hard_maps(shape, dtype, last)
                found = [part.cpu() for part in reduce(maps.to(device).flatten(2), kind)]
                assert [part.dtype for part in found] == [kind, kind, kind, torch.int64]
                for n in range(shape[0]):
                    for c in range(shape[1]):
                        values = maps[n, c].flatten().tolist()
                        peak, total, active, cell = (float(part[n, c]) for part in found)
                        assert active == sum(value != 0 for value in values)
                        if any(map(math.isnan, values)):
                            assert math.isnan(peak)
                            assert math.isnan(total)
                        else:
                            assert (peak, total, cell) == (max(values), sum(values), values.index(max(values)))


def test_operations_of_torch_find_what_a_loop_finds() -> None:
    check(reduce_with_torch)


@NEEDS_TRITON
@pytest.mark.slow
def test_the_kernel_finds_what_a_loop_finds() -> None:
    """In Triton's interpreter, which must be chosen before Triton is imported."""
    code = (
        "from tests.engine.statistics.test_map_reduction import check\n"
        "from vizapp.engine.statistics.triton_reduction import reduce_fused\n"
        "check(reduce_fused)"
    )
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@NEEDS_TRITON
@pytest.mark.parametrize("dtype", ["fp32", "fp64", "bf16"])
@pytest.mark.parametrize("one", ["cells", "channel_stride", "cell_stride"])
def test_the_kernel_compiles_for_gpus(dtype: str, one: str) -> None:
    """Compiling needs no GPU. Triton makes a constant of an argument that is 1."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vizapp.engine.statistics.triton_reduction import _reduce

    kind = "fp64" if dtype == "fp64" else "fp32"
    pointers = {"maps": f"*{dtype}", "peaks": f"*{kind}", "sums": f"*{kind}", "counts": f"*{kind}", "places": "*i64"}
    numbers = ("channels", "cells", "image_stride", "channel_stride", "cell_stride")
    constants = {one: 1, "LANES": 32, "WIDTH": 32}
    signature = pointers | dict.fromkeys(numbers, "i32") | dict.fromkeys(constants, "constexpr")
    made = triton.compile(ASTSource(_reduce, signature, constants), target=GPUTarget("cuda", 80, 32))
    assert "ld.global" in made.asm["ptx"]


class _Calls(TorchDispatchMode):
    """Counts the calls of aten operations, views included."""

    count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduces on the CPU as on other devices."""
    monkeypatch.setattr(top_activations, "is_on_cpu", lambda tensor: False)
    monkeypatch.setattr(reduction, "is_on_cpu", lambda tensor: False)


def passed(network: nn.Module, photos: Tensor, parts: int) -> State:
    tracker = TopKTracker(survey(network, photos[:1]), 4)
    for first in range(0, len(photos), 10):
        batch = photos[first : first + 10]
        tracker.update([tracker.observe(network, part) for part in batch.split(parts)], torch.arange(first, first + 10))
    return tracker.state()


@pytest.mark.parametrize("parts", [10, 4])
def test_the_state_is_that_of_the_reductions_on_a_cpu(parts: int, request: pytest.FixtureRequest) -> None:
    photos = torch.randn(60, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    photos[1::4], photos[7::20], photos[9::20] = photos[0::4], 0, 1  # equal images, black ones, and equal cells
    photos[11, 0, 0, 0], photos[13, 0, 0, 0] = math.nan, math.inf
    network = seeded(Branching())
    expected = passed(network, photos, parts)
    request.getfixturevalue("elsewhere")
    found = passed(network, photos, parts)
    for name in ("values", "pictures", "cells", "counts", "histogram"):
        assert torch.equal(found[name], expected[name]), name
    sums, right = (top_activations.from_limbs(state["sums"]) for state in (found, expected))
    torch.testing.assert_close(sums, right, rtol=1e-5, atol=1e-4)  # float32 sums over at most 480 cells


def test_a_batch_takes_at_most_six_operations_a_site_whatever_its_size(elsewhere: None) -> None:
    """Beside the network's own. Each is a kernel to launch on a GPU, or a view."""
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet50().eval()
    photos = torch.randn(5, 3, 64, 64)
    sites = [site for site in survey(network, photos[:1]) if site.kind == "convolution"]
    assert len(sites) == 53
    tracker = TopKTracker(sites, 9)
    extra = []
    for part in photos.split((2, 3)):
        tracker.update([tracker.observe(network, part)], torch.arange(len(part)))  # makes what is made once
        with torch.no_grad(), _Calls() as bare:
            network(part)
        with _Calls() as calls:
            tracker.update([tracker.observe(network, part)], torch.arange(len(part)))
        extra.append(calls.count - bare.count)
    assert extra[0] == extra[1]
    assert extra[0] <= 6 * len(sites)


@pytest.mark.gpu
def test_the_gpu_reduces_maps_right_with_and_without_the_kernel() -> None:
    check(reduce_maps, "cuda")
    check(reduce_with_torch, "cuda")


@pytest.mark.gpu
@NEEDS_TRITON
def test_the_gpu_uses_the_kernel() -> None:
    assert fused_kernel(torch.device("cuda:0")) is not None
