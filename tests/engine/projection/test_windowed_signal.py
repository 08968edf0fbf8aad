"""Windows of signals against loops over units, and the calls of torch that 64 projected units take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch.utils._python_dispatch import TorchDispatchMode

from vizapp.engine.projection import project as projecting
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.projection.windowed_signal import WindowedSignal, merge
from vizapp.engine.trace.sites import Unit, survey

LAYOUTS = (torch.contiguous_format, torch.channels_last)
MAP = (7, 6)
# Windows inside, over each border, beyond it, all at one place, and larger than the map.
CASES = {
    "inside": ((3, 2), [0, 4, 2], [1, 4, 0]),
    "over the borders": ((3, 4), [-2, 5, 1], [-1, 3, 4]),
    "outside": ((2, 2), [-3, 8, 1], [0, 7, -2]),
    "one place": ((3, 2), [-1, -1, -1], [5, 5, 5]),
    "larger": ((9, 8), [-1, 0, -2], [-2, 0, -1]),
    "larger, one place": ((9, 8), [-1, -1, -1], [-2, -2, -2]),
}


def windows(case: str, layout: torch.memory_format = torch.contiguous_format) -> WindowedSignal:
    size, top, left = CASES[case]
    values = torch.randn(3, 5, *size, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    return WindowedSignal(values, np.array(top), np.array(left))


def number_by_number(signal: WindowedSignal) -> torch.Tensor:
    whole = torch.zeros(3, 5, *MAP)
    for k, channel, y, x in np.ndindex(*signal.values.shape):
        row, column = int(signal.top[k]) + y, int(signal.left[k]) + x
        if 0 <= row < MAP[0] and 0 <= column < MAP[1]:
            whole[k, channel, row, column] = signal.values[k, channel, y, x]
    return whole


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_windows_are_put_on_the_map_cut_at_its_border_and_added(case: str, layout: torch.memory_format) -> None:
    signal = windows(case, layout)
    expected = number_by_number(signal)
    assert torch.equal(signal.dense(*MAP), expected)
    other = windows("over the borders").clipped(*MAP)
    clipped = signal.with_values(signal.values.clone()).clipped(*MAP)
    inside = number_by_number(clipped)
    assert torch.equal(inside, expected)
    assert clipped.values.count_nonzero() == expected.count_nonzero(), "zero beyond the border"
    assert torch.equal(merge(clipped, other).dense(*MAP), expected + number_by_number(other))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [MAP, (1, MAP[1]), (MAP[0], 1)])
def test_windows_are_cut_out_of_a_map(case: str, layout: torch.memory_format, shape: tuple[int, int]) -> None:
    signal = windows(case)
    quantity = torch.randn(1, 5, *shape).contiguous(memory_format=layout)
    height, width = (n if side > 1 else 1 for n, side in zip(signal.values.shape[2:], shape, strict=True))
    expected = torch.full((3, 5, height, width), 9.0)
    for k, channel, y, x in np.ndindex(*expected.shape):
        row = y + int(signal.top[k]) if shape[0] > 1 else 0
        column = x + int(signal.left[k]) if shape[1] > 1 else 0
        if 0 <= row < shape[0] and 0 <= column < shape[1]:
            expected[k, channel, y, x] = quantity[0, channel, row, column]
    assert torch.equal(signal.crop(quantity, 9), expected)


class Calls(TorchDispatchMode):
    """Counts the calls of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.number += 1
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("resnet18", "relu"), ("resnet18", "layer2.1.relu_1"), ("resnet18", "layer4.1.relu_1"),
        ("squeezenet1_1", "features.3.cat"), ("squeezenet1_1", "features.12.cat"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_64_units_take_few_calls_and_as_many_as_16(
    name: str, site: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, each call takes longer than what it computes. As many units go back at once here as there."""
    monkeypatch.setattr(projecting, "_BEST_CHUNK", {"cpu": projecting._BEST_CHUNK["cuda"]})
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)
    picture = torch.randn(1, 3, 64, 64)
    sites = survey(module, picture)
    corners = [(0, 0), (1, 0)]  # the first four units have all kinds of places, as the others have
    steps, counts = list[int](), list[int]()
    record = projecting.record

    def recording(*args):  # type: ignore[no-untyped-def]
        found = record(*args)
        steps.append(len(found.steps))
        return found

    monkeypatch.setattr(projecting, "record", recording)
    for number in (16, 64):
        units = [Unit(site, k, corners[k % 2]) for k in range(number)]
        with Calls() as calls:
            project(module, picture, units, sites, rule_named(rule), seed="one")
        counts.append(calls.number)
    assert counts[0] == counts[1]
    assert counts[1] <= 30 * steps[1]
