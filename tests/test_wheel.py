"""A wheel that is installed into an empty folder works from anywhere: the command, Python and the app.

The other packages are those of the tests' environment.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.check import wait_for
from tests.test_readme import README, SMALL, blocks, write_photos
from vizapp.settings import VERSION

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("assets", ".streamlit", "streamlit_app.py")
PRELUDE = f"""
import torch, vizapp
small, original = {SMALL!r}, vizapp.ask
vizapp.ask = lambda method, *args, **params: original(method, *args, **params | small.get(method, {{}}))
module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 7, 8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
names = ("a", "b")
"""


def pins() -> dict[str, str]:
    """The versions of requirements.lock by package."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.partition(" ")[0].split("==") for line in lines if not line.lstrip().startswith("#"))


def requirements(*files: str) -> list[Requirement]:
    """The lines of requirements files."""
    text = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    return [Requirement(line) for line in re.sub(r"#.*", "", text).splitlines() if line.strip()]


def versions(wanted: list[Requirement]) -> dict[str, str]:
    """The versions that may be taken, by package."""
    return {canonicalize_name(one.name): str(one.specifier) for one in wanted}


def test_the_lock_pins_everything_that_is_installed_to_run_and_to_test() -> None:
    pinned, seen = pins(), set()
    wanted = requirements("requirements.txt", "tests/requirements.txt", "docs/requirements.txt")
    while wanted:
        one = wanted.pop()
        name = canonicalize_name(one.name)
        if (one.marker is not None and not one.marker.evaluate({"extra": ""})) or name in seen:
            continue
        seen.add(name)
        assert name in pinned, f"{name} is not in requirements.lock: make lock"
        assert one.specifier.contains(pinned[name], prereleases=True), f"{one}, but {pinned[name]} in requirements.lock"
        wanted += [Requirement(line) for line in importlib.metadata.requires(name) or []]
    assert {"torch", "streamlit", "timm"} <= seen


def test_readme_and_image_name_the_torch_of_the_lock() -> None:
    for text in (README, (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")):
        (pair,) = re.findall(r"torch==(\S+) torchvision==(\S+)", text)
        assert pair == (pins()["torch"], pins()["torchvision"])


def test_the_lock_names_no_host() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], check=True
    )
    return folder / "site"


@pytest.fixture
def elsewhere(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of somebody's own, with photos, in which only the installed package is found."""
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.chdir(tmp_path)
    write_photos()
    return tmp_path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_what_lies_beside_it_and_nothing_else(site: Path) -> None:
    (wheel,) = site.parent.glob("*.whl")
    assert wheel.name == f"vizapp-{VERSION}-py3-none-any.whl"
    tree = [path for top in ("vizapp", *SHARED) for path in [ROOT / top, *(ROOT / top).rglob("*")] if path.is_file()]
    names = {str(path.relative_to(ROOT)) for path in tree if "__pycache__" not in path.parts}
    expected = {name if name.startswith("vizapp/") else f"vizapp/share/{name}" for name in names}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    (distribution,) = importlib.metadata.distributions(path=[str(site)])
    needed = [one for one in map(Requirement, distribution.requires or []) if one.marker is None]
    assert versions(needed) == versions(requirements("requirements.txt"))
    assert set(distribution.metadata.get_all("Provides-Extra")) == {"timm", "hf", "onnx", "notebook"}


@pytest.mark.slow
def test_the_command_and_the_python_of_the_readme_run(site: Path, elsewhere: Path) -> None:
    (block,) = blocks(README, "python")
    command = ["predict", "--network", "vizapp/zfnet-mini", "--picture", "photo.jpg"]
    code = f"{PRELUDE}{block}\nfrom vizapp.__main__ import main\nassert main({command}) == 0\nprint(vizapp.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Motorbikes" in done.stdout
    assert done.stdout.splitlines()[-1] == str(site / "vizapp" / "__init__.py")
    assert (elsewhere / "out" / "arrays.npz").is_file()


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.slow
def test_the_app_is_served_on_another_port_if_the_first_is_busy(site: Path, elsewhere: Path, busy: int) -> None:
    command = [sys.executable, str(site / "bin" / "vizapp"), "app", "--port", str(busy), "--server.headless=true"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"NO_COLOR": "1"}) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "Starting vizapp …\n"
            told = server.stdout.readline()
            port = int(re.fullmatch(rf"Port {busy} is busy\. vizapp uses port (\d+)\.\n", told)[1])  # type: ignore[index]
            shown = "".join(iter(server.stdout.readline, f"  URL: http://localhost:{port}\n"))
            assert "Loading" in shown  # the network, before the address is printed
            wait_for(f"http://127.0.0.1:{port}")
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0
        finally:
            server.kill()
