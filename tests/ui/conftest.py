"""The app under test: a new session, empty caches, no files outside the test's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.scriptrunner.script_cache import ScriptCache
from streamlit.testing.v1 import AppTest, app_test, local_script_runner
from streamlit.testing.v1.local_script_runner import LocalScriptRunner, require_widgets_deltas
from streamlit.util import calc_hash

from tests.ui.app import ROOT, Open
from vizapp.ui.inputs import networks
from vizapp.ui.pages.occlusion import sweep_runs
from vizapp.ui.session import progress
from vizapp.zoo.network import Network


@pytest.fixture(autouse=True, scope="session")
def packages_and_scripts_are_read_once() -> Iterator[None]:
    """As in a server. AppTest reads the metadata of every package for each session, and compiles the scripts for each run."""
    scripts = ScriptCache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        for module in (app_test, local_script_runner):
            patch.setattr(module, "ScriptCache", lambda: scripts)
        patch.setattr(local_script_runner, "require_widgets_deltas", _await_end)
        yield


@pytest.fixture(autouse=True, scope="session")
def small_networks_are_loaded_once() -> Iterator[None]:
    """Their weights and what is measured in them are the same in every test; nothing changes a network in place."""
    known: dict[tuple[object, ...], Network] = {}

    def load(name: str | Path, weights: str = "default", device: str = "auto", **options: Any) -> Network:
        key = (name, weights, device, options.get("rename"))
        if key not in known:
            network = load_network(name, weights=weights, device=device, **options)
            if not str(name).startswith("vizapp/") or weights not in ("default", "none") or network.parameters > 5e6:
                return network
            known[key] = network
        return known[key]

    load_network = networks.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "load", load)
        yield


def _await_end(runner: LocalScriptRunner, timeout: float) -> None:
    """Wait without looking every millisecond, as AppTest does."""
    assert runner._script_thread is not None
    runner._script_thread.join(timeout)
    if not runner.script_stopped():
        require_widgets_deltas(runner, 0)  # stops it and raises


@pytest.fixture(autouse=True)
def fresh_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stores survive between AppTests of one process unless they are emptied."""
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIZAPP_DEVICE", "cpu")
    monkeypatch.setattr("vizapp.ui.pages.probe.probe_runs.STARTS", ())  # a probe takes many seconds
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture
def open_app() -> Open:
    """`open_app("feature_maps", layer="features.1")`: the page as a link with these choices shows it."""

    def opened(page: str = "predict", **address: str) -> AppTest:
        app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60)
        for name, value in ({"network": "vizapp/lenet5-digits"} | address).items():
            app.query_params[name] = value
        if page != "start":
            app._page_hash = calc_hash(page)  # as a browser opens a link, without the start page before it
        app.run()
        return app

    return opened


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sweeps of Occlusion begin by themselves and are finished when the page is looked at."""
    monkeypatch.setattr(progress, "QUIET", 60.0)
    monkeypatch.setattr(sweep_runs, "QUICK", 1000.0)
    monkeypatch.setattr(sweep_runs, "COARSE", 1000.0)
    monkeypatch.setattr(sweep_runs, "FIRST", 1000.0)
