"""Parts run on threads of their own, in order, and leave torch's number of threads as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from vizapp.engine.occlusion.parallel import side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.usefixtures("two_threads")
def test_two_parts_run_at_once_on_one_thread_each_and_without_gradients() -> None:
    both = threading.Barrier(2, timeout=60)

    def work(part: int) -> tuple[int, int, bool]:
        both.wait()
        return part, torch.get_num_threads(), torch.is_grad_enabled()

    assert side_by_side(work, [3, 4, 5, 6]) == [(part, 1, False) for part in (3, 4, 5, 6)]
    assert torch.get_num_threads() == threads_of_a_new_thread() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_failure_is_raised_after_all_parts_have_ended() -> None:
    ended = []

    def work(part: int) -> None:
        if part == 0:
            raise ValueError("the first")
        ended.append(part)

    with pytest.raises(ValueError, match="the first"):
        side_by_side(work, range(5))
    assert sorted(ended) == [1, 2, 3, 4]


def test_one_part_stays_on_the_thread_of_the_caller() -> None:
    assert side_by_side(lambda part: threading.current_thread(), [0]) == [threading.current_thread()]
