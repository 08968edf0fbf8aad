"""The rounding of products is set for a block, and other threads' blocks do not change it. It also works without a GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from vizapp.engine.occlusion.precision import Precision, arithmetic

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA is not available")


def settings() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def as_before() -> Iterator[tuple[bool, bool]]:
    before = settings()
    yield before
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize(("one", "other"), [("exact", "tf32"), ("tf32", "exact"), ("tf32", "bf16")])
def test_work_on_one_gpu_keeps_its_rounding_while_another_gpu_has_another(
    as_before: tuple[bool, bool], one: Precision, other: Precision
) -> None:
    inside, begun, seen = threading.Event(), threading.Event(), list[tuple[bool, bool]]()

    def work() -> None:
        begun.set()
        with arithmetic(SECOND, other):
            inside.set()
            seen.append(settings())

    thread = threading.Thread(target=work, daemon=True)
    with arithmetic(FIRST, one):
        thread.start()
        assert begun.wait(10)
        inside.wait(0.2)  # long enough for it to change the settings, if nothing kept it from doing so
        assert settings() == (one == "tf32",) * 2
    thread.join(10)
    assert seen == [(other == "tf32",) * 2]
    assert settings() == as_before


def test_a_block_inside_another_of_the_same_thread_sets_its_own_and_the_outer_one_is_back_after_it() -> None:
    entered = []

    def work() -> None:
        with arithmetic(FIRST, "tf32"):
            with arithmetic(FIRST, "exact"):
                entered.append(settings())
            entered.append(settings())

    thread = threading.Thread(target=work, daemon=True)  # which would wait for itself for ever without the right lock
    thread.start()
    thread.join(10)
    assert entered == [(False, False), (True, True)]


def test_what_fails_inside_lets_the_others_in(as_before: tuple[bool, bool]) -> None:
    with pytest.raises(KeyError), arithmetic(FIRST, "tf32"):
        raise KeyError
    assert settings() == as_before
    entered = threading.Event()

    def work() -> None:
        with arithmetic(SECOND, "exact"):
            entered.set()

    threading.Thread(target=work, daemon=True).start()
    assert entered.wait(10)
