"""Tests of the zoo do not use the internet, the real caches, or the developer's settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; returns the folder in which weights would be cached."""
    for name in ("VIZAPP_WEIGHTS", "VIZAPP_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "hub"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    return folder / "checkpoints"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of `test_families`: which families agreed, which were refused and with which code."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    for verdict in sorted(
        str(value)
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "verdict" and report.when == "call"
    ):
        terminalreporter.write_line(verdict)
