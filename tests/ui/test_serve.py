"""`vizapp app`: the port that it takes, what it passes to Streamlit, and what is loaded before anybody comes."""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit import config

from tests.ui.app import went_well
from vizapp.__main__ import main
from vizapp.errors import VizError
from vizapp.ui.app import serve
from vizapp.ui.inputs import networks


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `streamlit run` was given, in place of a server."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(serve, "warm_up", lambda: None)
    monkeypatch.setattr(config, "_main_script_path", None)
    monkeypatch.setattr(config, "_config_options", copy.deepcopy(config.get_config_options()))
    monkeypatch.setattr(serve.cli.main_run, "callback", lambda **options: given.append(options))
    return given


def test_a_free_port_is_taken(run: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert main(["app", "--port", str(port), "--server.headless", "true", "--server.baseUrlPath=lab"]) == 0
    (given,) = run
    assert Path(given["target"]).is_file()
    assert (given["server_port"], given["server_address"]) == (port, None)  # the address is that of `.streamlit`
    assert config.get_option("server.address") == "localhost"
    assert (given["server_headless"], given["server_baseUrlPath"]) == (True, "lab")
    assert capsys.readouterr().out == ""


def test_the_port_after_a_busy_one_is_taken_and_printed(
    run: list[dict[str, Any]], busy: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["app", f"--server.port={busy}", "--address", "127.0.0.1"]) == 0
    (given,) = run
    assert busy < given["server_port"] < busy + 100
    assert given["server_address"] == "127.0.0.1"
    assert capsys.readouterr().out == f"Port {busy} is busy. vizapp uses port {given['server_port']}.\n"


def test_settings_of_the_environment_hold(run: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", "8765")
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "127.0.0.1")
    assert main(["app"]) == 0
    assert run[0]["server_address"] == "127.0.0.1"
    assert 8765 <= run[0]["server_port"] < 8865


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"], ["--port", "x"], ["--address", "203.0.113.7"], ["--server.prot=8501"],
        ["--server.headless=perhaps"], ["photo.jpg"],
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_one_line(
    arguments: list[str], run: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] != "--port":
        arguments = [*arguments, "--port", "0"]
    assert main(["app", *arguments]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert run == []


def test_ctrl_c_ends_it(
    run: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.cli.main_run, "callback", interrupted)
    assert main(["app", "--port", "0"]) == 0
    assert capsys.readouterr().err == "vizapp: stopped.\n"


def test_the_default_network_is_loaded_before_the_first_visit(
    open_app: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve.warm_up()
    assert serve.state.NETWORK.default in capsys.readouterr().out

    def load(*args: Any, **options: Any) -> Any:
        raise AssertionError("loaded again")

    monkeypatch.setattr(networks, "load", load)
    assert went_well(open_app("predict", network=serve.state.NETWORK.default))


def test_a_network_that_is_missing_is_told_and_the_app_still_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*args: Any, **options: Any) -> Any:
        raise VizError("There are no weights.", code="no-weights")

    monkeypatch.setattr(networks, "load", load)
    serve.warm_up()
    assert capsys.readouterr().out.endswith("vizapp: There are no weights.\n")
