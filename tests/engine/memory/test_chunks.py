"""Work is split to fit into memory, keeps its order, and never crashes because memory is short."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tests.errors import refuses
from vizapp.engine.memory.chunks import chunk_size, free_memory, in_chunks

CPU = torch.device("cpu")


class Machine:
    """Runs parts of at most `room` items, like a device with little memory."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error, self.sizes = room, error, []  # type: ignore[var-annotated]

    def __call__(self, part: Sequence[int]) -> list[int]:
        self.sizes.append(len(part))
        if len(part) > self.room:
            raise self.error
        return [item * 10 for item in part]


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_part_that_does_not_fit_is_halved_and_the_order_kept(error: Exception) -> None:
    machine, shares = Machine(3, error), []  # type: ignore[var-annotated]
    answers = list(in_chunks(range(10), machine, 8, shares.append))
    assert [item for part in answers for item in part] == [item * 10 for item in range(10)]
    assert machine.sizes == [8, 4, 2, 2, 2, 2, 2], "the smaller size is kept"
    assert shares == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_one_item_that_does_not_fit_is_told_in_a_sentence() -> None:
    with refuses("out-of-memory"):
        list(in_chunks(range(3), Machine(0, ERRORS[0]), 2))


def test_other_errors_and_leaving_pass_through() -> None:
    class Leave(BaseException):
        pass

    def leave(share: float) -> None:
        raise Leave

    with pytest.raises(RuntimeError, match="shapes"):
        list(in_chunks(range(3), Machine(0, RuntimeError("shapes do not match")), 2))
    with pytest.raises(Leave):
        list(in_chunks(range(3), Machine(9, ERRORS[0]), 1, leave))


def test_real_allocations_that_are_too_large_are_recognised() -> None:
    def run(part: Sequence[int]) -> int:
        return torch.empty(2**50 if len(part) > 1 else 1).numel()

    assert list(in_chunks(range(2), run, 2)) == [1, 1]


def test_sizes_follow_the_free_memory() -> None:
    assert free_memory(CPU) > 2**20
    assert chunk_size(1, CPU, most=16) == 16
    assert chunk_size(2**60, CPU) == 1
    some = chunk_size(free_memory(CPU) // 8, CPU)
    assert 2 <= some <= 4
