"""The page Occlusion on a machine that may be busy."""

from __future__ import annotations

import pytest

from vizapp.ui.pages.occlusion import sweep_runs
from vizapp.ui.session import progress


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sweeps begin by themselves and are finished when the page is looked at."""
    monkeypatch.setattr(progress, "QUIET", 60.0)
    monkeypatch.setattr(sweep_runs, "QUICK", 1000.0)
    monkeypatch.setattr(sweep_runs, "COARSE", 1000.0)
    monkeypatch.setattr(sweep_runs, "FIRST", 1000.0)
