"""The page Occlusion on a machine that may be busy."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def finished(patient: None) -> None:
    """Sweeps are finished when the page is looked at."""
