"""Tests use their own home, cache and settings: nothing of the developer's is read or changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import OWN, PERSONS_CACHE, PERSONS_HOME, ROOT, written_outside
from vizapp.settings import settings


def test_home_cache_and_settings_are_the_workers_own(worker_id: str) -> None:
    assert Path.home() == OWN / "home" != Path(PERSONS_HOME)
    assert settings().cache == OWN / "cache"
    assert {name for name in os.environ if name.startswith("VIZAPP_")} <= {"VIZAPP_CACHE", "VIZAPP_SHARED"}
    assert worker_id in OWN.name or worker_id == "master"


def test_processes_that_tests_start_have_the_same() -> None:
    code = "from vizapp.settings import settings; from pathlib import Path; print(Path.home(), settings(), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    home, told = done.stdout.splitlines()
    assert home == str(OWN / "home")
    assert told == str(settings())


def test_a_worker_takes_no_setting_of_the_person(tmp_path: Path) -> None:
    """Tests run in a home and with settings that would make them fail, and leave the home as it was."""
    (tmp_path / ".cache" / "vizapp").mkdir(parents=True)
    (tmp_path / ".cache" / "vizapp" / "networks.json").write_text("{")
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("VIZAPP_", "PYTEST_"))}
    surroundings |= {
        "HOME": str(tmp_path),
        "VIZAPP_DEVICE": "nowhere",
        "VIZAPP_CACHE": "/dev/null",
        "VIZAPP_MODE": "no",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "own", "tests/test_isolation.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=surroundings)
    assert done.returncode == 0, done.stdout
    assert [path.name for path in tmp_path.rglob("*")] == [".cache", "vizapp", "networks.json"]
    assert (tmp_path / ".cache" / "vizapp" / "networks.json").read_text() == "{"


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("x"),
        lambda path: os.open(path, os.O_CREAT | os.O_WRONLY),
        lambda path: path.mkdir(),
        lambda path: path.unlink(),
        lambda path: (OWN / "home").rename(path),
        lambda path: path.symlink_to(OWN),
    ],
)
def test_a_file_outside_is_noted(change) -> None:
    path = ROOT / "no such folder" / "file"
    with pytest.raises(OSError, match="No such file"):
        change(path)
    assert written_outside == [str(path)]
    written_outside.clear()


def test_the_persons_cache_is_not_even_read() -> None:
    path = Path(PERSONS_CACHE) / "no such file"
    with pytest.raises(OSError, match="No such file"):
        path.open()
    assert written_outside == [str(path)]
    written_outside.clear()


OFFENDERS = """
import os, subprocess
from pathlib import Path
from tests.conftest import PERSONS_CACHE, ROOT

def test_reads_a_gallery_of_the_person():
    (Path(PERSONS_CACHE) / "manifest.json").read_text()

def test_writes_into_the_cache_of_the_person():
    (Path(PERSONS_CACHE) / "written").write_text("x")

def test_writes_beside_the_checkout():
    try:
        (ROOT / "no such folder" / "file").write_text("x")
    except OSError:
        pass

def test_lets_a_process_write():
    subprocess.run(["touch", f"{PERSONS_CACHE}/touched"], check=True)

def test_is_harmless(tmp_path):
    (tmp_path / "file").write_text("x")
"""


def test_a_test_that_uses_the_persons_cache_fails(tmp_path: Path) -> None:
    """The guards in a run of their own: each offender fails."""
    cache_folder = tmp_path / "persons cache"
    cache_folder.mkdir()
    (cache_folder / "manifest.json").write_text("{}")
    (tmp_path / "test_offenders.py").write_text(OFFENDERS)
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    surroundings |= {"HOME": str(tmp_path), "VIZAPP_CACHE": str(cache_folder)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.conftest",
        "-p",
        "no:xdist",
        "-q",
        "-rA",
    ]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, env=surroundings)
    outcomes = dict(
        line.split()[:2][::-1] for line in done.stdout.splitlines() if "::test_" in line and line[0] in "PEF"
    )
    failed = {name.split("::")[1] for name, outcome in outcomes.items() if outcome in ("ERROR", "FAILED")}
    assert failed == {
        "test_reads_a_gallery_of_the_person",
        "test_writes_into_the_cache_of_the_person",
        "test_writes_beside_the_checkout",
    }
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "left files behind" in done.stderr
    assert str(cache_folder / "touched") in done.stderr


def test_files_of_its_own_are_not_noted(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "folder" / "file").rename(tmp_path / "file")
    assert not written_outside
