"""Hundreds of bad inputs: each gives a clear message and status 2, without traceback or stray file, under 2 s and 1 GB."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vizapp
from tests import corpus
from tests.corpus import Case
from vizapp.__main__ import main, read_unit
from vizapp.errors import VizError
from vizapp.media.picture import open_picture
from vizapp.zoo import pickled
from vizapp.zoo.labels import read_labels

NET = "vizapp/lenet5-digits"
SECONDS, BYTES = 2.0, 10**9
LONGEST = 700  # characters of a sentence
FEW = 4  # one of so many is also given to the command line
_watched: list[tuple[Path, ...]] = []  # folders in which files may be changed, while somebody looks
_strays: list[str] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _watched:
        return
    if event == "open":
        path, _, flags = arguments
        changes = (
            isinstance(path, str) and isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        )
    else:
        path = arguments[0] if arguments else None
        changes = event in {
            "os.mkdir",
            "os.remove",
            "os.rename",
            "os.symlink",
            "os.link",
            "os.system",
            "subprocess.Popen",
        }
    if changes and not any(str(path).startswith(str(folder)) for folder in (*_watched[-1], "/dev/null")):
        _strays.append(f"{event} {path}")


sys.addaudithook(_audit)


@contextmanager
def limits(*folders: Path) -> Iterator[None]:
    """Inside, less than 2 s and 1 GB may be used, and files be changed in these folders alone."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, hard))
    _strays.clear()
    _watched.append(folders)
    began = time.process_time()  # not by the clock: others may use the machine, too
    try:
        yield
    finally:
        took = time.process_time() - began
        _watched.pop()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert took < SECONDS
    assert not _strays
    assert not Path(corpus.WITNESS).exists()


def is_sentence(text: str) -> bool:
    """Whether a person could be told this: one line, no control characters, not endless, no name of a Python error."""
    return (
        bool(text) and text.isprintable() and len(text) < LONGEST and "Traceback" not in text and "Error(" not in text
    )  # fmt: skip


def refused(ask: Callable[[], object], case: Case, *folders: Path) -> str:
    """The sentence; the case may be accepted if that is right, and anything but a VizError goes through."""
    with limits(*folders), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ask()
        except VizError as error:
            told = str(error)
        else:
            assert not case.fails, f"{case.name} was accepted"
            return ""
    assert is_sentence(told), told
    return told


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("VIZAPP_WEIGHTS", "VIZAPP_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIZAPP_DEVICE", "cpu")
    # What is read in a process of its own is read in this one, where its time and memory are measured.
    monkeypatch.setattr(pickled, "call", lambda function, arguments, limits, tick: function(*arguments))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache"


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What is imported and built once is not counted."""
    vizapp.load(NET, device="cpu").sites  # noqa: B018
    with pytest.raises(SystemExit):
        main(["predict", "--help"])


def placed(case: Case, folder: Path) -> Path:
    """A file of the case: its name where a file system takes it, else one like it."""
    name = case.name.replace("/", "_").replace("\0", "_")
    path = folder / (name if len(name.encode()) < 250 else name[-40:])
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(case.content)
    return path


def test_there_are_enough() -> None:
    kinds = (
        corpus.pictures(), corpus.checkpoints(), corpus.zips(), corpus.tables(), corpus.addresses(), corpus.galleries(),
        corpus.other_files(), corpus.garbled_zips(),
    )  # fmt: skip
    found = [str(one.made) if isinstance(one, Case) else str(one) for kind in kinds for one in kind]
    assert len(set(found)) >= 1000  # by what is in them: some have several names
    assert all(len(kind) >= 40 for kind in kinds)


# Python


@pytest.mark.parametrize("case", [*corpus.pictures(), *corpus.zips()], ids=repr)
def test_a_picture_file_is_opened_or_refused_with_a_sentence(case: Case, tmp_path: Path) -> None:
    told = refused(lambda: open_picture(case.content, case.name), case, tmp_path)
    path = placed(case, tmp_path / "files")
    assert bool(refused(lambda: open_picture(path), case, tmp_path)) is bool(told)


@pytest.mark.parametrize("case", corpus.checkpoints(), ids=repr)
def test_a_checkpoint_is_loaded_or_refused_with_a_sentence(case: Case, tmp_path: Path) -> None:
    path = placed(case, tmp_path / "files")
    refused(lambda: vizapp.load(NET, weights=path, device="cpu"), case, tmp_path)


@pytest.mark.parametrize("case", corpus.tables(), ids=repr)
def test_a_file_of_labels_is_read_or_refused_with_a_sentence(case: Case, tmp_path: Path) -> None:
    path = placed(case, tmp_path / "files")
    told = refused(lambda: read_labels(path), case, tmp_path)
    if not told:
        vizapp.load(NET, weights="none", device="cpu", classes=path)


@pytest.mark.parametrize("case", [*corpus.zips(), *corpus.tables()], ids=repr)
def test_a_collection_is_listed_or_refused_with_a_sentence_and_so_is_each_picture_of_it(
    case: Case, tmp_path: Path
) -> None:
    path = placed(case, tmp_path / "files")
    readable, told = [0], list[str]()

    def look() -> None:
        found = vizapp.open_folder(path)
        for index in range(min(len(found), 25)):
            try:
                found.open(index)
                readable[0] += 1
            except VizError as error:
                told.append(str(error))
        if not readable[0]:
            raise VizError("Nothing of it can be read.")

    refused(look, case, tmp_path)
    assert all(map(is_sentence, told)), told
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "files", path]  # nothing was unpacked


def test_files_of_other_kinds_are_refused_with_a_sentence(tmp_path: Path) -> None:
    for case in corpus.other_files():
        path = tmp_path / "file"
        path.write_bytes(case.content)
        path = path.rename(tmp_path / f"a.{case.name.rpartition('.')[2]}")
        if path.suffix in (".pth", ".safetensors"):
            refused(lambda path=path: vizapp.load(NET, weights=path, device="cpu"), case, tmp_path)
        else:
            refused(lambda path=path: open_picture(path), case, tmp_path)
        path.unlink()


def test_garbled_members_of_zip_files_are_refused_with_a_sentence(tmp_path: Path) -> None:
    for case in corpus.garbled_zips():
        path = tmp_path / "a.zip"
        path.write_bytes(case.content)
        told = refused(lambda path=path: vizapp.open_folder(path).open(0), case, tmp_path)
        assert "\\" not in told


# The command line


def complained(capsys: pytest.CaptureFixture[str], case: Case, folder: Path, *arguments: str) -> None:
    with limits(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        status = main([*arguments])
    out, err = capsys.readouterr()
    assert status == (2 if case.fails or err else 0)
    if status:
        assert out == ""
        assert err.startswith("vizapp: ")
        assert err.endswith("\n")
        assert is_sentence(err[8:-1]), err


@pytest.mark.parametrize("case", [*corpus.pictures(), *corpus.zips()][::FEW], ids=repr)
def test_the_command_line_tells_of_a_bad_picture_in_one_line(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = placed(case, tmp_path / "files")
    complained(capsys, case, tmp_path, "predict", "--network", NET, "--picture", str(path))


@pytest.mark.parametrize("case", corpus.checkpoints()[::FEW], ids=repr)
def test_the_command_line_tells_of_a_bad_checkpoint_in_one_line(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = placed(case, tmp_path / "files")
    complained(capsys, case, tmp_path, "predict", "--network", NET, "--picture", "digit 3", "--weights", str(path))


@pytest.mark.parametrize("case", corpus.tables(), ids=repr)
def test_the_command_line_tells_of_bad_labels_in_one_line(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = placed(case, tmp_path / "files")
    asked = ("predict", "--network", NET, "--picture", "digit 3", "--classes", str(path))
    complained(capsys, Case(case.name, b"", True), tmp_path, *asked)  # none of them has ten names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bomb.png", "system in a zip.pth"])
def test_as_a_process_of_its_own_too(name: str, tmp_path: Path) -> None:
    case = next(case for case in (*corpus.pictures(), *corpus.checkpoints()) if case.name == name)
    path = placed(case, tmp_path / "files")
    asked = ["--picture", str(path)] if name.endswith("png") else ["--picture", "digit 3", "--weights", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "vizapp", "predict", "--network", NET, *asked],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert not Path(corpus.WITNESS).exists()


# Parsers


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=200) | st.from_regex(r"[a-z.]{0,9}:-?\d{0,30}(@-?\d{0,9},-?\d{0,9})?", fullmatch=True))
@pytest.mark.slow
def test_any_text_names_a_unit_or_is_refused(text: str) -> None:
    try:
        unit = read_unit(text)
    except VizError as error:
        told = str(error)
    else:
        assert text.startswith(f"{unit.site}:")
        return
    assert is_sentence(told)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@pytest.mark.parametrize("ending", ["txt", "json", "csv"])
def test_any_labels_file_gives_names_or_is_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"labels.{ending}"
    path.write_bytes(content)
    try:
        names = read_labels(path)
    except VizError as error:
        told = str(error)
    else:
        assert names
        assert all(isinstance(name, str) for name in names)
        return
    assert is_sentence(told)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.binary(max_size=200), body=st.binary(max_size=64), ending=st.sampled_from(["safetensors", "pth", "pt"])
)
def test_any_bytes_are_a_checkpoint_or_refused(tmp_path: Path, header: bytes, body: bytes, ending: str) -> None:
    path = tmp_path / f"net.{ending}"
    prefix = len(header).to_bytes(8, "little") if ending == "safetensors" else b"\x80\x02"
    path.write_bytes(prefix + header + body)
    with pytest.raises(VizError) as caught:
        vizapp.load(NET, weights=path, device="cpu")
    assert is_sentence(str(caught.value))
