"""The container files can be parsed and agree in files, options and sizes; nginx accepts its configuration."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import streamlit.config

from deploy.check import instructions
from vizapp.ui.app.headers import HEADERS, SecurityHeaders

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
INSTRUCTIONS = {"FROM", "ARG", "WORKDIR", "RUN", "COPY", "USER", "VOLUME", "ENV", "EXPOSE", "HEALTHCHECK", "CMD"}


def test_the_image_is_made_of_files_that_exist_and_never_runs_as_root() -> None:
    found = instructions()
    assert {name for name, _ in found} <= INSTRUCTIONS
    assert found[0][0] == "FROM"
    for name, rest in found:
        if name == "COPY":
            *sources, _ = shlex.split(rest)
            assert all((ROOT / source).exists() for source in sources), rest
    names = [name for name, _ in found]
    assert names.index("USER") < names.index("CMD")
    assert dict(found)["USER"] != "root"


def test_the_image_holds_all_that_the_app_imports() -> None:
    copied = " ".join(rest for name, rest in instructions() if name == "COPY").split()
    for needed in ("vizapp", "assets", ".streamlit", "streamlit_app.py", "requirements.txt"):
        assert needed in copied
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"vizapp", "assets", ".streamlit"} & set(ignored)


def test_the_image_installs_what_the_tests_have() -> None:
    locked = (ROOT / "requirements.lock").read_text().split()
    first, second = (shlex.split(rest) for name, rest in instructions() if name == "RUN" and "pip install" in rest)
    pair = [word for word in first if word.startswith("torch")]
    assert [word.partition("==")[0] for word in pair] == ["torch", "torchvision"]
    assert set(pair) <= set(locked)
    assert "-c requirements.lock -r requirements.txt timm" in shlex.join(second)


def test_the_command_of_the_image_names_options_that_streamlit_has() -> None:
    command = json.loads(dict(instructions())["CMD"])
    assert command[:4] == ["python", "-m", "streamlit", "run"]
    assert (ROOT / command[4]).is_file()
    known = streamlit.config._config_options_template
    options = [argument.removeprefix("--").partition("=")[0] for argument in command[5:]]
    assert options
    assert all(option in known for option in options)
    assert "--server.address=0.0.0.0" in command
    assert "VIZAPP_MODE=server" in dict(instructions())["ENV"]


def test_the_variables_that_are_set_are_settings() -> None:
    text = DOCKERFILE + (ROOT / "deploy" / "compose.yaml").read_text() + (ROOT / "docs" / "server.md").read_text()
    known = (ROOT / "vizapp" / "settings.py").read_text()
    named = set(re.findall(r"VIZAPP_[A-Z_]+", text))
    assert named
    assert all(name in known for name in named)


def test_the_compose_file_mounts_what_is_there_and_shares_the_cache() -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    app, proxy = compose["services"]["app"], compose["services"]["proxy"]
    assert (
        ROOT / "deploy" / app["build"]["context"] / app["build"]["dockerfile"]
    ).resolve() == ROOT / "deploy" / "Dockerfile"
    assert "cache:/cache" in app["volumes"]
    assert "cache" in compose["volumes"]
    assert "ports" not in app  # only the proxy is reached from outside
    for volume in proxy["volumes"]:
        assert (ROOT / "deploy" / volume.split(":")[0]).is_file()
    assert app["read_only"] is True
    for service in (app, proxy):
        assert service["cap_drop"] == ["ALL"]


def test_what_the_app_keeps_fits_into_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    from vizapp.settings import settings
    from vizapp.ui.inputs import datasets, galleries, images
    from vizapp.ui.pages.occlusion import sweep_runs

    yaml = pytest.importorskip("yaml")
    app = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["app"]
    given = app["environment"]
    fixed = (sweep_runs.CAPACITY + images.CAPACITY + datasets._CAPACITY + galleries.CAPACITY) / 2**30
    kept = fixed + float(given["VIZAPP_NETWORK_GB"]) + float(given["VIZAPP_ANSWER_MB"]) / 1024
    memory, most = float(given["VIZAPP_MEMORY_GB"]), float(app["mem_limit"].removesuffix("g"))
    temporary = float(re.search(r"/tmp:size=(\d+)g", app["tmpfs"][0])[1])  # type: ignore[index]
    assert kept + 1 <= memory, "a gigabyte for the libraries"
    assert memory + temporary < most
    told = (ROOT / "docs" / "server.md").read_text()
    monkeypatch.delenv("VIZAPP_NETWORK_GB", raising=False)
    monkeypatch.delenv("VIZAPP_ANSWER_MB", raising=False)
    usual = fixed + settings().network_gb + settings().answer_mb / 1024
    assert f"**{usual:.1f} GB** by default, **{kept:.1f} GB** with `deploy/compose.yaml`" in told
    for what, capacity in (
        ("photos", images.CAPACITY), ("running occlusion sweeps", sweep_runs.CAPACITY),
        ("listings of photo collections", datasets._CAPACITY), ("galleries", galleries.CAPACITY),
    ):  # fmt: skip
        size = f"{capacity >> 30} GB" if capacity >= 2**30 else f"{capacity >> 20} MB"
        assert f"| {what} | {size} |" in told


def accepted(tmp_path: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """What nginx says of its configuration, run by the command `before`; skipped where nginx is missing."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("no nginx on this machine")
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    text = text.replace("app:8501", "127.0.0.1:8501").replace("/tmp/", f"{tmp_path}/")
    (tmp_path / "nginx.conf").write_text(text)
    command = [*before, program, "-t", "-c", str(tmp_path / "nginx.conf")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_proxy_accepts_its_configuration(tmp_path: Path) -> None:
    done = accepted(tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_proxy_may_do_what_its_master_does_as_root() -> None:
    yaml = pytest.importorskip("yaml")
    proxy = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["proxy"]
    # port 80; the temporary folders are given to the workers; these change their user
    assert set(proxy["cap_add"]) == {"NET_BIND_SERVICE", "CHOWN", "SETUID", "SETGID"}


def test_the_proxy_starts_with_the_privileges_that_it_is_left(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("only root can give up privileges with setpriv")
    proxy = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["proxy"]
    left = ",".join(["-all", *(f"+{name.lower()}" for name in proxy["cap_add"])])
    tmp_path.chmod(0o1777)
    done = accepted(tmp_path, "setpriv", f"--bounding-set={left}", "--inh-caps=-all", "--no-new-privs")
    assert done.returncode == 0, done.stderr


def test_the_page_may_run_the_one_script_inside_it() -> None:
    page = (Path(streamlit.__file__).parent / "static" / "index.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    told = re.findall(r"'sha256-([^']+)'", HEADERS["Content-Security-Policy"])
    assert told == [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    scripts = HEADERS["Content-Security-Policy"].split("script-src")[1].split(";")[0].split()
    assert not {"'unsafe-inline'", "'unsafe-eval'"}.intersection(scripts)


def test_the_proxy_sets_the_headers_of_the_app_and_hides_those_that_it_gets() -> None:
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    policy = "".join(part.removeprefix("$csp") for part in re.findall(r'set \$csp "([^"]+)";', text))
    set_ = dict(re.findall(r"add_header (\S+) (.+) always;", text))
    assert set_.pop("Set-Cookie")
    assert {name: value.replace("$csp", policy) for name, value in set_.items()} == HEADERS
    assert set(re.findall(r"proxy_hide_header (\S+);", text)) == HEADERS.keys()


@pytest.mark.parametrize("mode", ["server", "local"])
def test_the_app_sets_headers_on_every_response_in_server_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_MODE", mode)
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 404, "headers": [(b"x-frame-options", b"DENY"), (b"age", b"1")]}
        )
        await send({"type": "http.response.body", "body": b""})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(SecurityHeaders(app)({"type": "http"}, None, send))  # type: ignore[arg-type]
    got = sorted((name.decode(), value.decode()) for name, value in sent[0]["headers"])
    own = {"server": HEADERS, "local": {"x-frame-options": "DENY"}}[mode]
    assert got == sorted({**own, "age": "1"}.items())
    assert sent[1]["type"] == "http.response.body"


def test_the_proxy_lets_through_what_the_app_accepts() -> None:
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    assert text.count("{") == text.count("}")
    most = int(re.search(r"client_max_body_size (\d+)m", text)[1])  # type: ignore[index]
    assert most >= streamlit.config.get_option("server.maxUploadSize") >= 25
    assert "$connection_upgrade" in text
    assert "hash $visitor consistent" in text
