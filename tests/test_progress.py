"""In a notebook, long calls draw a bar; everywhere else, and where somebody else reports, nothing is drawn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
import tqdm.auto
from tqdm.notebook import tqdm_notebook

import vizapp
from tests.errors import refuses
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.params import Params
from vizapp.progress import bar, notebook_progress
from vizapp.zoo.network import Network


class Drawn(list[str]):
    """The bars that were drawn: their titles when they open, `end` or `failed` when they close."""


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """A process that an IPython kernel runs; its bars are noted."""
    drawn = Drawn()

    class Noted:
        def __init__(self, total: float, desc: str, **options: object) -> None:
            self.n, self.total = 0.0, total
            drawn.append(desc)

        def update(self, n: float) -> None:
            self.n += n
            drawn.append(f"{self.n:.0f}")

        def __enter__(self) -> Noted:
            return self

        def __exit__(self, *error: object) -> None:
            drawn.append("end" if self.n == self.total else "failed")

    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(tqdm.auto, "tqdm", Noted)
    return drawn


def method(run: object) -> Method:
    return Method("half", "Half", "Zeiler & Fergus 2013", Params, run, needs=frozenset())  # type: ignore[arg-type]


@contextmanager
def known(monkeypatch: pytest.MonkeyPatch, run: object) -> Iterator[Network]:
    monkeypatch.setattr("vizapp.methods._bundled", lambda: {"half": method(run)})
    yield vizapp.load("vizapp/lenet5-digits", device="cpu", tick=lambda share: None)


def half(question: Question, params: Params, job: Job) -> Result:
    job.report(0.5)
    return Result("half", {})


def test_ask_draws_one_bar_that_ends(kernel: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    with known(monkeypatch, half) as network:
        assert kernel == []
        vizapp.ask("half", network)
    assert kernel == ["Half", "0", "50", "100", "end"]


def test_a_call_within_another_draws_nothing(kernel: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    def outer(question: Question, params: Params, job: Job) -> Result:
        vizapp.load("vizapp/lenet5-digits", device="cpu")
        return half(question, params, job)

    with known(monkeypatch, outer) as network:
        vizapp.ask("half", network)
        assert kernel == ["Half", "0", "50", "100", "end"]
        kernel.clear()
        vizapp.ask("half", network, tick=lambda share: None)
        assert kernel == []
        vizapp.ask("half", network)  # the next call draws again
        assert kernel[0] == "Half"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_and_an_error_pass_through_and_close_the_bar(
    error: type[BaseException], kernel: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(question: Question, params: Params, job: Job) -> Result:
        job.report(0.5)
        raise error

    with known(monkeypatch, stopped) as network:
        with pytest.raises(error):
            vizapp.ask("half", network)
        assert kernel == ["Half", "0", "50", "failed"]
        kernel.clear()
        with pytest.raises(error):  # and the call after it draws a bar again
            vizapp.ask("half", network)
        assert kernel[0] == "Half"


def test_load_draws_a_bar_while_it_downloads(kernel: Drawn, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    def download(recipe: object, tick: object) -> None:
        assert callable(tick)
        tick(0.25)
        raise vizapp.VizError("no network here", code="offline")

    monkeypatch.setattr("vizapp.zoo.registry.find_weights", download)
    with refuses("offline"):
        vizapp.load("vizapp/lenet5-digits", device="cpu")
    assert kernel == ["Opening vizapp/lenet5-digits", "25", "failed"]


def test_outside_of_notebooks_there_is_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    with notebook_progress(None, "x") as tick:
        assert tick is None
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: None  # type: ignore[attr-defined]  # imported, as by another library
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    with notebook_progress(None, "x") as tick:
        assert tick is None
    ipython.get_ipython = lambda: SimpleNamespace()  # type: ignore[attr-defined]  # IPython in a terminal
    with notebook_progress(None, "x") as tick:
        assert tick is None


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_the_widget_of_tqdm_appears_after_the_delay_and_is_closed(
    delay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tqdm's own bar for notebooks: hidden when the work is done, red where it stopped, never shown if it was short."""
    monkeypatch.setattr("vizapp.progress._DELAY", delay or 1e-9)
    shown: list[object] = []
    monkeypatch.setattr("tqdm.notebook.display", shown.append)
    with bar(tqdm_notebook, "Half", mininterval=0) as tick:
        tick(0.5)
    assert len(shown) == (0 if delay else 1)
    if shown:
        assert shown[0].layout.visibility == "hidden"  # type: ignore[attr-defined]

    def stopped() -> None:
        with bar(tqdm_notebook, "Half", mininterval=0) as tick:
            tick(0.5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert len(shown) == (0 if delay else 2)
    if shown:
        assert shown[1].children[1].bar_style == "danger"  # type: ignore[attr-defined]
