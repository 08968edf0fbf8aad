"""Several users at once in real browsers get the results of a single user, bit for bit, without unexpected errors."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import PATIENCE

pytestmark = pytest.mark.browser
IMPATIENT = """
import sys
import vizapp.ui.inputs.uploads
vizapp.ui.inputs.uploads.GRACE = 1.0
from streamlit.web import cli
sys.argv = ["streamlit", "run", "streamlit_app.py", "--server.address=127.0.0.1", "--server.headless=true", *sys.argv[1:]]
cli.main()
"""
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))


def apart(work: Coroutine[Any, Any, Any]) -> Any:
    """What the work gives, in a thread of its own: the other browser tests keep a loop of events running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def test_everybody_gets_what_a_person_alone_gets(tmp_path: Path) -> None:
    pytest.importorskip("playwright.async_api")
    import many_users

    if many_users.PROGRAM is None:
        pytest.skip("no Chromium on this machine")

    # With this seed they begin with the digits, an upload, three pages of the same photo and two of others.
    seen, curve = apart(many_users.crowd(4, 8, 5, tmp_path / "log", least=4, rest=0))
    assert seen.wrong == []
    assert seen.looks >= 4
    assert many_users.longest_wait(tmp_path / "log")[0] < many_users.LONGEST_WAIT
    single = apart(many_users.alone(sorted(seen.files)[:4], tmp_path / "single"))
    assert len(single.files) == min(4, len(seen.files))
    assert many_users.compared(seen, single) == []
    assert max(megabytes for _, megabytes in curve) < 4000
    assert "failed" not in many_users.queues(tmp_path / "log")[-1]


def test_an_upload_goes_when_its_page_was_closed(tmp_path: Path, browser: Any) -> None:
    import app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    environment = os.environ | {"VIZAPP_LOG": str(log), "VIZAPP_DEVICE": "cpu"}
    command = [sys.executable, "-c", IMPATIENT, f"--server.port={port}"]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            app.wait_for(f"http://127.0.0.1:{port}")
            page = browser.new_page(reduced_motion="reduce")
            page.set_default_timeout(PATIENCE)
            page.goto(f"http://127.0.0.1:{port}/predict?network=vizapp/lenet5-digits")
            page.locator(".bars li").first.wait_for()
            page.get_by_role("radio", name="Upload").or_(
                page.get_by_role("button", name="Upload", exact=True)
            ).first.click()
            photo = io.BytesIO()
            Image.new("RGB", (30, 30), "red").save(photo, "PNG")
            field = page.locator('[data-testid="stFileUploaderDropzoneInput"]')
            field.set_input_files({"name": "mine.png", "mimeType": "image/png", "buffer": photo.getvalue()})
            page.get_by_text("mine.png").first.wait_for()
            page.wait_for_timeout(1500)
            assert not _released(log)
            page.close()
            deadline = time.monotonic() + 20
            while not _released(log):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert _released(log) == ["picture"]
        finally:
            server.terminate()


def _released(log: Path) -> list[str]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["what"] for line in lines if line["event"] == "released"]
