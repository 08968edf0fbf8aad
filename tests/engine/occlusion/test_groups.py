"""Batches of occluders waste as little work as batches of neighbours in their order can."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.engine.occlusion.test_sweep import grid, noise
from tests.networks import Branching, seeded
from vizapp.engine.occlusion.occluder_plans import PARTS, OccluderPlans
from vizapp.engine.occlusion.sweep import Sweep

TOGETHER = 8


def plans() -> OccluderPlans:
    module = seeded(Branching()).double()
    clean, patch = noise(1, 3, 37, 45), noise(1, 3, 37, 45, seed=1)
    batches = Sweep(module, module, clean, patch, grid((37, 45), (9, 6), 9))._batches
    assert batches is not None
    return batches.plans


def work(found: OccluderPlans, positions: list[int]) -> float:
    """Multiply-adds of a batch on windows that hold what any of its rows and any of its columns changes."""
    rows, columns = (sorted({int(found._cells[position][axis]) for position in positions}) for axis in (0, 1))
    total = 0.0
    for step, each in zip(found._planner.steps, found._planner.work, strict=True):
        affected = found.affected.get(step.outputs[0])
        cells = None if affected is None else affected.cells()[rows][:, columns].max()
        total += each if cells is None else each * cells / (affected.length[0] * affected.length[1])
    return len(positions) * total


def divisions(count: int, least: int) -> Iterator[list[int]]:
    """All ways to cut some positions in their order into batches of `least` to `TOGETHER`, as lengths."""
    if count == 0:
        yield []
    for length in range(least, min(count, TOGETHER) + 1):
        for rest in divisions(count - length, least):
            yield [length, *rest]


def test_batches_hold_each_position_once_and_are_of_the_sizes_asked_for() -> None:
    found = plans()
    everything = list(range(len(found._cells)))
    groups = found.groups(everything, TOGETHER)
    assert sorted(n for group in groups for n in group) == everything
    assert all(TOGETHER // PARTS["cpu"] <= len(group) <= TOGETHER for group in groups)
    assert found.groups([3], TOGETHER) == [[0]]
    assert sorted(map(len, found.groups(everything[:3], 1))) == [1, 1, 1]


def test_no_other_division_of_the_order_takes_less_work() -> None:
    found = plans()
    order = found.arranged(torch.randperm(len(found._cells), generator=torch.Generator().manual_seed(0)).tolist()[:14])

    def total(groups: list[list[int]]) -> float:
        return sum(
            len(group) * max(found._class_work[found._kind(a)[0], found._kind(b)[1]] for a in group for b in group)
            for group in groups
        )

    chosen = [[order[n] for n in group] for group in found.groups(order, TOGETHER)]
    assert [position for group in chosen for position in group] == order
    every = []
    for lengths in divisions(len(order), TOGETHER // PARTS["cpu"]):
        ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
        every.append(total([order[end - length : end] for end, length in zip(ends, lengths, strict=True)]))
    assert total(chosen) == min(every) < max(every)
    assert sum(work(found, group) for group in chosen) < work(found, order)
