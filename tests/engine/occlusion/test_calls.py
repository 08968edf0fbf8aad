"""How often a sweep calls torch: on a GPU each call is a kernel to launch, and each upload a wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engine.occlusion.test_sweep import grid, noise
from tests.networks import seeded
from vizapp.engine.occlusion import planner
from vizapp.engine.occlusion.batching import OccluderBatches
from vizapp.engine.occlusion.incremental_plan import BatchState, IncrementalPlan
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.engine.trace.sites import survey


class Calls(TorchDispatchMode):
    """Counts calls of aten. Convolutions give zeros: numbers of calls do not depend on values, and it saves the time."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[function.overloadpacket._qualified_op_name.removeprefix("aten::")] += 1
        if function is torch.ops.aten.convolution.default:
            like = F.conv2d(args[0].to("meta"), args[1].to("meta"), None, *args[3:6], args[8])
            return args[0].new_zeros(like.shape).contiguous(memory_format=torch.channels_last)
        if function is torch.ops.mkldnn._convolution_pointwise.default:
            weight = torch.empty(args[1].shape, device="meta")
            like = F.conv2d(args[0].to("meta"), weight, None, args[4], args[3], args[5], args[6])
            return args[0].new_zeros(like.shape).contiguous(memory_format=torch.channels_last)
        if function is torch.ops.mkldnn._convolution_pointwise.binary:
            return torch.zeros_like(args[1])
        return function(*args, **(kwargs or {}))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Counter[str], list[int]]]:
    """Calls of aten and of what makes tensors from numbers of the host, and the number of steps of each run."""
    runs: list[int] = []
    run = IncrementalPlan.run

    def counting(plan: IncrementalPlan, state: BatchState, first: int = 0, last: int | None = None) -> None:
        runs.append((len(plan.steps) if last is None else last) - first)
        run(plan, state, first, last)

    calls = Calls()

    def noted(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def instead(*args: Any, **kwargs: Any) -> Tensor:
            calls.counts[name] += 1
            return function(*args, **kwargs)

        return instead

    with monkeypatch.context() as patch, calls:
        patch.setattr(IncrementalPlan, "run", counting)
        for name in ("from_numpy", "tensor", "as_tensor"):
            patch.setattr(torch, name, noted(f"torch.{name}", getattr(torch, name)))
        yield calls.counts, runs


def aten(counts: Counter[str]) -> int:
    return sum(count for name, count in counts.items() if not name.startswith("torch."))


def uploads(counts: Counter[str]) -> int:
    made = sum(count for name, count in counts.items() if name.startswith("torch."))
    return max(made, counts["lift_fresh"]) + counts["_to_copy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_a_whole_sweep_needs_few_calls_and_uploads(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)
    clean = noise(1, 3, 224, 224, dtype=torch.float32)
    boxes = [(top, left, top + 32, left + 32) for top in range(-12, 212, 8) for left in range(-12, 212, 8)]
    with Calls():
        sweep = Sweep(module, module, clean, torch.zeros_like(clean), boxes)
    assert len(sweep) == 784
    assert "Only what an occluder touches" in sweep.facts["evaluation"]
    with counted(monkeypatch) as (counts, runs):
        answers = list(sweep.batches())
    assert aten(counts) <= 20_000
    assert aten(counts) <= 12 * sum(runs)
    assert uploads(counts) <= len(runs) + len(answers)
    assert sum(len(part.positions) for part in answers) == 784


class Varied(nn.Module):
    """Strides, borders that are padded in several ways, an average with several divisors, a residual, joined channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mirrored = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.pool, self.average = nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.short, self.long = nn.Conv2d(4, 4, 1, 2), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mirrored(self.stem(x).relu())
        x = torch.cat([self.average(x), self.pool(F.interpolate(x, scale_factor=2.0))], 1)[:, :4] + x
        x = self.long(x) + self.short(x)
        return x.mean((2, 3))


def alike(batches: OccluderBatches) -> Sequence[int]:
    """Most positions whose windows are of one size class."""
    rows, columns = batches.plans._classes
    kinds: dict[tuple[int, int], list[int]] = {}
    for position, (row, column) in enumerate(batches.plans._cells):
        kinds.setdefault((rows[row], columns[column]), []).append(position)
    return max(kinds.values(), key=len)


@pytest.mark.parametrize("pictures", [1, 2])
def test_the_number_of_calls_does_not_grow_with_the_occluders(monkeypatch: pytest.MonkeyPatch, pictures: int) -> None:
    module = seeded(Varied()).double()
    clean, patch = noise(pictures, 3, 95, 91), noise(pictures, 3, 95, 91, seed=1)
    site = next(site for site in survey(module, clean[:1]) if site.name == "long")
    sweep = Sweep(module, module, clean, patch, grid((95, 91), (9, 9), 5), site)
    batches = sweep._batches
    assert batches is not None
    chosen = alike(batches)
    chosen = [position + picture * len(sweep.boxes) for position in chosen for picture in range(pictures)]
    assert len(chosen) >= 32
    found = []
    for count in (32, 8, 32):  # the first one makes the plan
        with counted(monkeypatch) as (counts, runs), torch.no_grad():
            batches.answer(chosen[:count], 1, 32)
        found.append((aten(counts), uploads(counts), len(runs)))
    assert found[1] == found[2]
    calls, uploaded, _ = found[1]
    assert calls <= 12 * len(batches.plans._planner.steps)
    assert uploaded <= 2


def test_weights_are_rounded_once_and_to_what_autocast_makes_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [
        nn.Conv2d(3, 4, 3, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, 1, 1),
    ]
    module = seeded(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 5)))
    clean, patch = noise(1, 3, 64, 64, dtype=torch.float32), noise(1, 3, 64, 64, seed=1, dtype=torch.float32)

    def swept() -> tuple[Tensor, int]:
        sweep = Sweep(module, module, clean, patch, grid((64, 64), (9, 9), 5), precision="bf16")
        assert "Only what an occluder touches" in sweep.facts["evaluation"]
        scores = sweep.answer(range(32)).scores
        with counted(monkeypatch) as (counts, runs):
            sweep.answer(range(32))
        return scores, counts["_to_copy"] / len(runs)

    once, casts = swept()
    assert casts <= 3, "the pictures, and what goes to float32 and back around the mean"
    monkeypatch.setattr(planner, "round_weights", lambda steps, dtype: steps)
    each, more = swept()
    assert more >= casts + 4, "two of each layer"
    assert torch.equal(once, each)
