"""Do the images work? Runs the steps of the Dockerfile one by one in a fresh folder, without Docker.

    python deploy/check.py

It does the same for a Hugging Face Space, in the folder that `space.py` lays out, at the same time.

It copies what the image copies, checks that the installed packages are those that the image installs, and starts the image's
command with the image's environment, as the image's user where this is possible. Then it runs the health check of the image,
asks for the first page, and checks that the app wrote to the cache folder only. Where nginx is installed, the same is asked
through the proxy, with its headers. With a running Docker daemon it builds the image as well.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from string import Template
from typing import Any

try:
    from deploy import space
except ImportError:  # run as a file
    import space  # type: ignore[no-redef]

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120  # seconds until a server answers: twice what Streamlit gives a script
_INSTALLED: list[list[str]] = []  # what was checked already
HEADERS = (
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "Referrer-Policy",
    "Permissions-Policy",
)


def instructions(dockerfile: Path = ROOT / "deploy" / "Dockerfile") -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and what they are given, with continued lines joined and arguments at their defaults."""
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]
    defaults = dict(rest.split("=", 1) for name, rest in found if name == "ARG")
    return [(name, Template(rest).safe_substitute(defaults)) for name, rest in found]


class ImageFolder:
    """A folder with the files of the image, and the environment, user and commands of the image.

    Args:
        folder: An empty folder; `/app` and `/cache` of the image become folders inside.
        source: The folder that the image is built from.
        dockerfile: Its Dockerfile.
    """

    def __init__(self, folder: Path, source: Path = ROOT, dockerfile: Path = ROOT / "deploy" / "Dockerfile") -> None:
        self.root, self._source, self.port = folder, source, free_port()  # the last replaces the port of the image
        self.workdir = folder
        self.user: int | None = None
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home")}
        self.command: list[str] = []
        self.health: list[str] = []
        (folder / "home").mkdir()
        for name, rest in instructions(dockerfile):
            getattr(self, f"_{name.lower()}", lambda rest: None)(rest)
        self.files = self._listing()

    def run(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a command in the folder, as the user and with the environment of the image."""
        return subprocess.Popen(command, cwd=self.workdir, env=self.environment, user=self.user, group=self.user)

    def written(self) -> list[str]:
        """The files of the app that have been changed or added."""
        return sorted(str(path) for path, _ in self._listing() ^ self.files)

    def _listing(self) -> set[tuple[Path, int]]:
        return {(path, path.stat().st_mtime_ns) for path in self.workdir.rglob("*")}

    def _workdir(self, rest: str) -> None:
        self.workdir = self._inside(rest)
        self.workdir.mkdir(parents=True)

    def _copy(self, rest: str) -> None:
        *sources, target = shlex.split(rest)
        ignored = [line.removeprefix("**/") for line in (self._source / ".dockerignore").read_text().split()]
        for source in sources:
            path, to = self._source / source, self.workdir / target
            if path.is_dir():
                shutil.copytree(path, to, ignore=shutil.ignore_patterns(*ignored), dirs_exist_ok=True)
            else:
                to.mkdir(exist_ok=True)
                shutil.copy(path, to)

    def _run(self, rest: str) -> None:
        for part in rest.split("&&"):
            words = shlex.split(part)
            if words[:2] == ["pip", "install"]:
                index = words.index("--index-url") if "--index-url" in words else len(words)
                wanted = [word for word in words[2:index] + words[index + 2 :] if word != "--no-cache-dir"]
                if wanted not in _INSTALLED:
                    _INSTALLED.append(wanted)
                    _check(
                        [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-index", *wanted],
                        self.workdir,
                    )
            elif words[0] == "useradd":
                self.user = int(words[words.index("--uid") + 1])
            elif words[0] == "mkdir":
                self._inside(words[-1]).mkdir()
            elif words[0] == "chown":
                self._inside(words[-1]).chmod(0o777)
            else:
                raise ValueError(f"{part}: teach {__file__} this step.")

    def _user(self, rest: str) -> None:
        """Keep the user where this process may become it and the user may read Python's packages."""
        self.root.chmod(0o755)
        (self.root / "home").chmod(0o777)
        try:
            done = subprocess.run([sys.executable, "-c", "import streamlit"], user=self.user, capture_output=True)
            allowed = done.returncode == 0
        except PermissionError:
            allowed = False
        self.user = self.user if allowed else None
        print(f"user: {rest if allowed else 'this one'}")

    def _env(self, rest: str) -> None:
        for word in shlex.split(rest):
            name, _, value = word.partition("=")
            self.environment[name] = str(self._inside(value)) if value.startswith("/") else value
        self.environment["STREAMLIT_SERVER_PORT"] = str(self.port)

    def _healthcheck(self, rest: str) -> None:
        self.health = self._words(rest[rest.index("[") :])

    def _cmd(self, rest: str) -> None:
        self.command = self._words(rest)

    def _words(self, text: str) -> list[str]:
        return [sys.executable if word == "python" else word for word in json.loads(text)]

    def _inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")


def _check(command: list[str], folder: Path) -> None:
    print("$", shlex.join(command), flush=True)
    subprocess.run(command, cwd=folder, check=True)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(address: str) -> None:
    """Return as soon as the server answers its health check."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=4):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def proxied(port: int, folder: Path) -> Iterator[str]:
    """The address of nginx in front of the app on that port, configured as in `deploy/`, on another port and folder."""
    mine = free_port()
    text = (
        (ROOT / "deploy" / "nginx.conf")
        .read_text()
        .replace("/tmp/", f"{folder}/")
        .replace("app:8501", f"127.0.0.1:{port}")
    )
    (folder / "nginx.conf").write_text(text.replace("listen 80;", f"listen 127.0.0.1:{mine};"))
    command = ["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", "daemon off; user root;"]
    with subprocess.Popen(command) as nginx:
        try:
            wait_for(f"http://127.0.0.1:{mine}")
            yield f"http://127.0.0.1:{mine}"
        finally:
            nginx.terminate()


def _opened(address: str) -> Any:
    """The answer of an address. A busy machine may be late with the first run of a script; the second finds results kept."""
    try:
        return urllib.request.urlopen(address, timeout=PATIENCE)
    except OSError:
        return urllib.request.urlopen(address, timeout=PATIENCE)


def _ask(address: str, framed_by: str = "") -> None:
    """The health check, a run of the first page's script, and the page itself with its first script.

    `framed_by`: a site that may show the app in a frame, and the only one.
    """
    for path in ("/_stcore/health", "/_stcore/script-health-check", "/"):
        with _opened(address + path) as answer:
            body = answer.read().decode()
            missing = [
                name
                for name in HEADERS
                if len(answer.headers.get_all(name, [])) != (not framed_by or name != "X-Frame-Options")
            ]
            assert not missing, f"{path} has no {missing}, or has them twice"
            frames = re.search("frame-ancestors ([^;]*)", answer.headers["Content-Security-Policy"])
            assert frames is not None
            assert frames[1].split() == ["'self'", *framed_by.split()], frames[0]
            print(f"{path}: {answer.status} {body[:20]!r}")
    script = re.search(r'src="\.(/static/[^"]+\.js)"', body)
    assert script, "the page names no script"
    with urllib.request.urlopen(address + script[1], timeout=PATIENCE) as answer:
        assert answer.status == 200


def main() -> None:
    """Run the check; raises an error at the first thing that does not work."""
    began = time.monotonic()
    if shutil.which("docker") and not subprocess.run(["docker", "info"], capture_output=True).returncode:
        _check(["docker", "build", "-f", "deploy/Dockerfile", "-t", "vizapp", "."], ROOT)
        _check(["docker", "run", "--rm", "vizapp", "python", "-m", "vizapp", "methods"], ROOT)
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))) for _ in range(4)]
        space.lay_out(folders[0])
        both = {"": ImageFolder(folders[1]), space.SITE: ImageFolder(folders[2], folders[0], folders[0] / "Dockerfile")}
        for image in both.values():
            server = stack.enter_context(image.run([*image.command, "--server.scriptHealthCheckEnabled=true"]))
            stack.callback(server.terminate)
        for site, image in both.items():
            wait_for(f"http://127.0.0.1:{image.port}")
            assert image.run(image.health).wait(PATIENCE) == 0, "the health check of the image fails"
            _ask(f"http://127.0.0.1:{image.port}", site)
        if shutil.which("nginx"):
            address = stack.enter_context(proxied(both[""].port, folders[3]))
            _ask(address)
            with urllib.request.urlopen(f"{address}/healthz", timeout=PATIENCE) as answer:
                assert answer.status == 200
        else:
            print("no nginx on this machine")
        for image in both.values():
            assert not image.written(), f"written beside the cache folder: {image.written()}"
    print(f"The steps of the image and of the Space work ({time.monotonic() - began:.0f} s).")


if __name__ == "__main__":
    main()
