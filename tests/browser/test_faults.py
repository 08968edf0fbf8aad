"""After a server is killed while it builds a gallery, the next one resumes it, and the files are byte-identical."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import vizapp
from deploy.check import free_port, wait_for
from tests.browser.conftest import ROOT, open_page, settle, went_well
from vizapp.gallery.checkpoint import NAME, load_checkpoint
from vizapp.gallery.store import MANIFEST, WORK

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PAGE = "gallery?network=vizapp/lenet5-digits&data=digits"


@contextmanager
def serving(cache: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A running app with that cache folder: its address and its process."""
    port = free_port()
    command = [
        sys.executable, "-m", "streamlit", "run", str(ROOT / "streamlit_app.py"), f"--server.port={port}",
        "--server.address=127.0.0.1", "--server.headless=true",
    ]  # fmt: skip
    environment = {**os.environ, "VIZAPP_DEVICE": "cpu", "VIZAPP_CACHE": str(cache)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}", server
        finally:
            server.kill()


def opened(browser: Any, address: str) -> Any:
    page = open_page(browser)
    page.goto(f"{address}/{PAGE}")
    page.locator(".vz-title").wait_for()
    return page


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_killed_server_loses_no_gallery(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    with serving(cache) as (address, server):
        page = opened(browser, address)
        page.get_by_role("button", name="Build").click()
        deadline = time.monotonic() + 120
        while not (begun := list(cache.glob(f"galleries/*/{WORK}/{NAME}"))):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        server.kill()
        server.wait()
        page.context.close()
    folder = begun[0].parent.parent
    assert not (folder / MANIFEST).exists(), "it was killed in the middle"
    found, _ = load_checkpoint(folder / WORK)
    assert found is not None
    assert found.batches > 0

    with serving(cache) as (address, _):
        page = opened(browser, address)
        page.get_by_role("button", name="Continue").wait_for()
        settle(page)
        page.locator(".card").first.wait_for()  # what was seen before is shown
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="Gallery Parquet").wait_for(timeout=240_000)
        settle(page)
        went_well(page)
        page.context.close()
    gone_on = files(folder)

    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "other"))
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    result = vizapp.ask("gallery", network, folder=vizapp.open_folder("digits"))
    assert result.store is not None
    assert result.store.name == folder.name
    assert gone_on == files(result.store)
