"""A visitor of a running app without a browser: what a tab sends over the WebSocket, and what it is shown."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def serving(cache: Path, log: Path, **environment: str) -> Iterator[tuple[str, psutil.Process]]:
    """A running app in server mode: its address (`127.0.0.1:PORT`) and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        sys.executable, "-m", "streamlit", "run", str(ROOT / "streamlit_app.py"), f"--server.port={address[10:]}",
        "--server.address=127.0.0.1", "--server.headless=true",
    ]  # fmt: skip
    own = {"VIZAPP_MODE": "server", "VIZAPP_DEVICE": "cpu", "VIZAPP_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    with (
        log.open("wb") as written,
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | own | environment, stdout=written, stderr=written
        ) as server,
    ):
        try:
            deadline = time.monotonic() + 60
            while health(address) is None:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.1)
            yield address, psutil.Process(server.pid)
        finally:
            server.kill()


def health(address: str, timeout: float = 30) -> float | None:
    """The seconds that the health check takes; None where it fails."""
    began = time.monotonic()
    try:
        with urllib.request.urlopen(f"http://{address}/_stcore/health", timeout=timeout) as answer:
            return time.monotonic() - began if answer.status == 200 else None
    except OSError:
        return None


class Watch:
    """Inside, the health check is asked for five times a second.

    `longest`: seconds that it took; `busy`: processor seconds of the server in such a time, which other processes do not
    lengthen; `added`: bytes at the peak.
    """

    def __init__(self, address: str, process: psutil.Process) -> None:
        self.address, self.process = address, process
        self.longest, self.busy, self.failed, self.probes, self.added = 0.0, 0.0, 0, 0, 0
        self._before, self._over = process.memory_info().rss, threading.Event()
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._weigh)]

    def _ask(self) -> None:
        while not self._over.wait(0.2):
            before = sum(self.process.cpu_times()[:2])
            took = health(self.address)
            self.busy = max(self.busy, sum(self.process.cpu_times()[:2]) - before)
            self.probes += 1
            self.failed += took is None
            self.longest = max(self.longest, took or 30.0)

    def _weigh(self) -> None:
        while not self._over.wait(0.05):
            with contextlib.suppress(psutil.Error):
                self.added = max(self.added, self.process.memory_info().rss - self._before)

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


class Visitor:
    """A session of the app. Elements are those of the current run, by their places."""

    def __init__(self, address: str, query: str = "", timeout: float = 60) -> None:
        self.address, self.query, self.timeout = address, query, timeout
        self.states: dict[str, WidgetState] = {}
        self.elements: dict[tuple[int, ...], Any] = {}
        self.session = self.page = ""
        self._known: dict[str, bytes] = {}
        self._drawn: set[tuple[int, ...]] = set()  # in this run
        self._socket = connect(f"ws://{address}/_stcore/stream", max_size=None, subprotocols=["streamlit"])  # type: ignore[list-item]

    def __enter__(self) -> Visitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, page: str | None = None) -> None:
        """Ask for a run with the current states of widgets. The answer is not waited for."""
        message = BackMsg()
        message.rerun_script.query_string = self.query
        message.rerun_script.page_script_hash = self.page
        if page is not None:
            message.rerun_script.page_name = page
            message.rerun_script.page_script_hash = ""
        message.rerun_script.widget_states.widgets.extend(self.states.values())
        self._socket.send(message.SerializeToString())

    def run(self, page: str | None = None) -> Visitor:
        """Ask for a run, and wait for its end and those of the runs that it asks for."""
        self.send(page)
        return self.wait()

    def wait(self, until: Any = None) -> Visitor:
        """Wait for the end of the run, or until `until` holds."""
        deadline = time.monotonic() + self.timeout
        while True:
            message = self._receive(max(0.0, deadline - time.monotonic()))
            kind = message.WhichOneof("type")
            if (
                kind == "script_finished"
                and until is None
                and message.script_finished != message.FINISHED_EARLY_FOR_RERUN
            ):
                break
            if until is not None and until(self):
                break
        for state in list(self.states.values()):
            if state.WhichOneof("value") == "trigger_value":
                del self.states[state.id]
        return self

    def _receive(self, timeout: float) -> ForwardMsg:
        data: Any = self._socket.recv(timeout=timeout)
        message = ForwardMsg.FromString(data)
        if message.WhichOneof("type") == "ref_hash":
            metadata, known = message.metadata, self._known[message.ref_hash]
            message = ForwardMsg.FromString(known)
            message.metadata.CopyFrom(metadata)
        elif message.metadata.cacheable:
            self._known[message.hash] = data
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.session = message.new_session.initialize.session_id or self.session
            self._drawn = set()
        elif kind == "script_finished" and message.script_finished == message.FINISHED_SUCCESSFULLY:
            self.elements = {place: one for place, one in self.elements.items() if place in self._drawn}
        elif kind == "navigation":
            self.page = message.navigation.page_script_hash
        elif kind == "page_info_changed":
            self.query = message.page_info_changed.query_string
        elif kind == "delta":
            place = tuple(message.metadata.delta_path)
            for below in [other for other in self.elements if other[: len(place)] == place]:
                del self.elements[below]
            if message.delta.WhichOneof("type") == "new_element":
                self.elements[place] = message.delta.new_element
                self._drawn.add(place)
        return message

    def sentences(self) -> str:
        """All notices that are shown."""
        told = [e.alert.body for e in self.elements.values() if e.WhichOneof("type") == "alert"]
        return " ".join(told).replace("\\", "")

    def texts(self) -> str:
        """All texts that are shown, with those of buttons and progress bars."""
        told = []
        for e in self.elements.values():
            kind = e.WhichOneof("type")
            one = getattr(e, kind)
            told += [str(getattr(one, name)) for name in ("body", "label", "text") if hasattr(one, name)]
        return " ".join(told).replace("\\", "")

    def find(self, key: str) -> Any:
        """The widget with this key."""
        ends = re.compile(rf"-{re.escape(key)}$")
        for e in self.elements.values():
            one = getattr(e, e.WhichOneof("type"))
            if ends.search(getattr(one, "id", "")):
                return one
        raise KeyError(key)

    def has(self, name: str) -> bool:
        """Whether there is a widget with this key, or a button with this label."""
        shown = [getattr(e, e.WhichOneof("type")) for e in self.elements.values()]
        ids, labels = [getattr(one, "id", "") for one in shown], [getattr(one, "label", "") for one in shown]
        return name in labels or any(f"-{name}" in identity for identity in ids)

    def press(self, label: str) -> Visitor:
        """Press the button with this label; the run is not asked for."""
        button = next(
            e.button for e in self.elements.values() if e.WhichOneof("type") == "button" and e.button.label == label
        )
        self.states[button.id] = WidgetState(id=button.id, trigger_value=True)
        return self

    def put(self, key: str, **value: Any) -> Visitor:
        """Set a widget: `string_value="x"`, `trigger_value=True`, `string_array_value=[…]` …"""
        state = WidgetState(id=self.find(key).id)
        for name, given in value.items():
            if name.endswith("array_value"):
                getattr(state, name).data.extend(given)
            else:
                setattr(state, name, given)
        self.states[state.id] = state
        return self

    def upload(self, key: str, name: str, content: bytes) -> Visitor:
        """Send a file and put it into an uploader; the run is not asked for."""
        message = BackMsg()
        message.file_urls_request.request_id = "1"
        message.file_urls_request.file_names.append(name)
        message.file_urls_request.session_id = self.session
        self._socket.send(message.SerializeToString())
        while (answer := self._receive(self.timeout)).WhichOneof("type") != "file_urls_response":
            pass
        urls: FileURLs = answer.file_urls_response.file_urls[0]
        self.post(urls.upload_url, name, content)
        state = WidgetState(id=self.find(key).id)
        info = state.file_uploader_state_value.uploaded_file_info.add()
        info.name, info.size, info.file_id = name, len(content), urls.file_id
        info.file_urls.CopyFrom(urls)
        self.states[state.id] = state
        return self

    def post(self, url: str, name: str, content: bytes) -> None:
        """PUT a file to where the server has said."""
        mark = "4b1d4b1d4b1d4b1d"
        quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{quoted}"; filename="{quoted}"\r\n\r\n'
        with urllib.request.urlopen(f"http://{self.address}/_stcore/health", timeout=30) as answer:
            cookie = next((part for part in (answer.headers.get_all("Set-Cookie") or []) if "xsrf" in part), "")
        token = cookie.partition("=")[2].partition(";")[0]
        request = urllib.request.Request(
            f"http://{self.address}{url}", method="PUT",
            data=head.encode("utf-8", "replace") + content + f"\r\n--{mark}--\r\n".encode(),
            headers={
                "Content-Type": f"multipart/form-data; boundary={mark}",
                "Cookie": cookie.partition(";")[0], "X-Xsrftoken": token.strip('"'),
            },
        )  # fmt: skip
        urllib.request.urlopen(request, timeout=self.timeout).close()
