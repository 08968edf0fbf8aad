"""The rounding of products is set for a block, and other threads' blocks do not change it. It also works without a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from vizapp.engine import precision as engine_precision
from vizapp.engine.precision import Precision, arithmetic, others_may_compute

FIRST, SECOND, CPU = torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA is not available")


def settings() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def as_before() -> Iterator[tuple[bool, bool]]:
    shared = engine_precision._TF32
    with shared._changed:  # a thread of an earlier test may still compute
        assert shared._changed.wait_for(lambda: not shared._holders, 60)
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


def together(*works: Callable[[], None]) -> None:
    """Run each in a thread of its own, to its end."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads), "they wait for each other"


@pytest.mark.parametrize("precision", ["exact", "tf32"])
def test_threads_that_want_the_same_are_inside_together(precision: Precision, as_before: tuple[bool, bool]) -> None:
    both = threading.Barrier(2, timeout=10)
    seen = []

    def work(device: torch.device, last: bool) -> None:
        with arithmetic(device, precision):
            both.wait()
            if last:
                one_has_left.wait(10)
            seen.append(settings())
        one_has_left.set()

    one_has_left = threading.Event()
    together(lambda: work(FIRST, False), lambda: work(SECOND, True))
    assert seen == [(precision == "tf32",) * 2] * 2, "also after the other one has left"
    assert settings() == as_before


def test_two_threads_that_each_want_another_rounding_inside_do_not_wait_for_each_other() -> None:
    both = threading.Barrier(2, timeout=10)
    seen = []

    def work(device: torch.device) -> None:
        with arithmetic(device, "exact"):
            both.wait()  # each holds what the other one waits for, unless it gives it up
            with arithmetic(device, "tf32"):
                seen.append(settings())
            seen.append(settings())

    together(lambda: work(FIRST), lambda: work(SECOND))
    assert sorted(seen) == [(False, False)] * 2 + [(True, True)] * 2


def test_who_waits_is_not_overtaken_by_those_who_want_what_is_set() -> None:
    order, waits = [], threading.Event()

    def rounded() -> None:
        waits.set()
        with arithmetic(SECOND, "tf32"):
            order.append("tf32")

    def late() -> None:
        with arithmetic(FIRST, "exact"):
            order.append("exact")

    threads = [threading.Thread(target=work, daemon=True) for work in (rounded, late)]
    with arithmetic(FIRST, "exact"):
        threads[0].start()
        assert waits.wait(10)
        threads[0].join(0.1)  # long enough for it to be the first in the queue
        threads[1].start()
        threads[1].join(0.1)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == ["tf32", "exact"]


def test_a_thread_that_reports_lets_others_in_and_has_its_own_back_after_it(as_before: tuple[bool, bool]) -> None:
    seen = []

    def other() -> None:
        with arithmetic(SECOND, "tf32"):
            seen.append(settings())

    with arithmetic(FIRST, "exact"):
        with others_may_compute():
            together(other)
        with pytest.raises(KeyError), others_may_compute():
            raise KeyError  # as a tick does when its user has left
        assert settings() == (False, False)
    assert seen == [(True, True)]
    with others_may_compute():
        assert settings() == as_before


@pytest.mark.parametrize("device", [CPU, FIRST])
def test_exact_is_exact_whatever_the_caller_has_set(device: torch.device) -> None:
    """Torch has two interfaces for it, and refuses to read one of them while they contradict each other."""

    def precisions() -> list[str]:
        backends = torch.backends
        kinds = (
            backends.cudnn.conv,
            backends.cudnn.rnn,
            backends.cuda.matmul,
            backends.mkldnn.conv,
            backends.mkldnn.matmul,
        )
        return [kind.fp32_precision for kind in kinds]

    first, as_they_were = precisions(), torch.get_float32_matmul_precision()
    try:
        for change in (
            lambda: torch.set_float32_matmul_precision("medium"),
            lambda: setattr(torch.backends, "fp32_precision", "tf32"),
            lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
            lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        ):
            change()
            before = precisions()
            with arithmetic(device, "exact"):
                assert precisions() == ["ieee"] * 5
                assert settings() == (False, False)
            with arithmetic(device, "tf32"):
                assert precisions()[:3] == ["ieee" if device is CPU else "tf32"] * 3
                assert settings() == (device is not CPU,) * 2
            assert precisions() == before
    finally:
        torch.backends.fp32_precision = "none"
        torch.set_float32_matmul_precision(as_they_were)
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.rnn.fp32_precision = first[:2]
        torch.backends.cuda.matmul.fp32_precision = first[2]
        torch.backends.mkldnn.conv.fp32_precision = first[3]
        torch.backends.mkldnn.matmul.fp32_precision = first[4]
