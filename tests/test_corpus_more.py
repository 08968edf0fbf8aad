"""More bad inputs: galleries, options of every method, parsers of links."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vizapp
from tests import corpus
from tests.corpus import Case
from tests.media.files import noise, saved
from tests.test_corpus import NET, cache, is_sentence, limits, placed, refused, warm
from vizapp.__main__ import main
from vizapp.errors import VizError, plain_name
from vizapp.media.sources import open_folder
from vizapp.methods import methods
from vizapp.methods.params import build, knobs

__all__ = ["cache", "warm"]  # fixtures
LAYER = "features.1"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def warmer() -> None:
    """The list of all networks and what Captum imports are not counted either."""
    main(["predict", "--network", "no such network", "--picture", "digit 3"])
    picture = vizapp.open_picture(saved(noise(28, 28)))
    vizapp.ask("attribution", vizapp.load(NET, device="cpu"), picture, unit=vizapp.Unit("features.0", 0))


# Galleries


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole gallery of 12 digits."""
    out = tmp_path_factory.mktemp("gallery")
    for number in range(12):
        place = out / "photos" / str(number % 2) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(saved(noise(28, 28, seed=number)))
    network, photos = vizapp.load(NET, device="cpu"), vizapp.open_folder(out / "photos")
    vizapp.ask("gallery", network, folder=photos, sites=LAYER, workers=0, out=str(out / "whole"))
    return out


def damaged(gallery: Path, case: Case, folder: Path) -> Path:
    """A copy of the gallery in which the case is in the place of a file; a begun one for checkpoints."""
    shutil.copytree(gallery / "whole", folder)
    file = case.name.rpartition("/")[0]
    if file.startswith("_work"):
        for path in folder.iterdir():
            path.unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(case.content)
    return folder


@pytest.mark.parametrize("case", corpus.galleries(), ids=repr)
def test_a_damaged_gallery_is_read_or_refused_with_a_sentence(
    case: Case, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vizapp.gallery import open_gallery

    folder = damaged(gallery, case, tmp_path / "gallery")

    def look() -> None:
        found = open_gallery(folder)
        for site in found.sites:
            found.rows(site), found.unit(site, 0), found.histogram(site, 0), found.classes(site, 0)
        assert found.pictures
        assert found.unreadable == []

    refused(look, case, tmp_path)
    asked = ["filters", "--network", NET, "--unit", "features.0:0", "--gallery", str(folder)]
    with limits(tmp_path):
        status = main(asked)
    out, err = capsys.readouterr()
    assert status == (2 if err else 0)
    assert not err or (out == "" and is_sentence(err.removeprefix("vizapp: ").strip()))


@pytest.mark.parametrize("case", corpus.galleries(), ids=repr)
def test_a_damaged_gallery_is_built_anew_or_refused(case: Case, gallery: Path, tmp_path: Path) -> None:
    folder = damaged(gallery, case, tmp_path / "gallery")
    network, photos = vizapp.load(NET, device="cpu"), vizapp.open_folder(gallery / "photos")
    ask = lambda: vizapp.ask("gallery", network, folder=photos, sites=LAYER, workers=0, out=str(folder))  # noqa: E731
    refused(ask, Case(case.name, b"", False), tmp_path)


# The command line: a value for every option of every method

_VALUES = [text for text in corpus.ODD if "\0" not in text and len(text) < 2_000]


@pytest.mark.parametrize("key", list(methods()))
def test_every_option_takes_a_value_or_refuses_it_in_one_line(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a network that is not there: options are checked before a network is opened."""
    monkeypatch.chdir(tmp_path)
    needs = {"picture": ("--picture", "digit 3"), "folder": ("--folder", "digits"), "unit": ("--unit", "features.0:0")}
    method = methods()[key]
    rest = [text for need in sorted(method.needs) for text in needs[need]]
    for number, knob in enumerate(knobs(method.params)):
        refusing = []
        for value in _VALUES:
            try:
                build(method.params, {knob: value}, f"method {key!r}")
            except VizError as error:
                refusing.append(value)
                assert_sentence(str(error), value)
        value = (refusing or _VALUES)[number % len(refusing or _VALUES)]
        with limits(tmp_path):
            status = main([key, "--network", "no such network", *rest, f"--{knob.replace('_', '-')}={value}"])
        out, err = capsys.readouterr()
        assert (status, out) == (2, ""), value
        assert ("no such network" in err) is not bool(refusing)
        assert_sentence(err.removeprefix("vizapp: ").strip(), value)
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "cache"])


def assert_sentence(told: str, about: object) -> None:
    assert is_sentence(told) or len(str(about)) > 200, (about, told)


_TEXTS = {
    "attribution": ["layer"], "ideal": ["channels", "direction"], "occlusion": ["site", "fill"], "filters": ["gallery"],
    "gallery": ["sites"], "dense": ["stride"],
}  # fmt: skip


@pytest.mark.parametrize(("key", "knob"), [(key, name) for key, names in _TEXTS.items() for name in names])
@pytest.mark.parametrize(
    "value", ["nothing", "../..", "1e400", "9" * 400, ",", "1:nan", "<script>", "\u202e", "a:b", "-1", "٣"]
)
def test_texts_that_mean_nothing_are_refused_by_the_method(key: str, knob: str, value: str, tmp_path: Path) -> None:
    network = vizapp.load(NET, device="cpu")
    method = methods()[key]
    given: dict[str, object] = (
        {"picture": vizapp.open_picture(saved(noise(28, 28)))} if "picture" in method.needs else {}
    )
    if "unit" in method.needs | method.optional_inputs:
        given["unit"] = vizapp.Unit("features.0", 0)
    if "folder" in method.needs:
        place = tmp_path / "photos" / "a.png"
        place.parent.mkdir()
        place.write_bytes(saved(noise(28, 28)))
        given["folder"] = vizapp.open_folder(place.parent)
    options = {"steps": 2} if key == "ideal" else {"window": 14, "stride": 14} if key == "occlusion" else {}
    ask = lambda: vizapp.ask(key, network, **given, **options, **{knob: value})  # noqa: E731
    refused(ask, Case(value, b"", False), tmp_path)


# Parsers

_CELLS = ["path", "label", "../x.png", "/etc/passwd", "a.png"]
_MEMBERS = ["../a.png", "/a.png", "a/../b.png", "__MACOSX/a.png", "a//b.png", "C:a.png", "./a.png", "a/b/c.png"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=60)
    | st.sampled_from(corpus.ODD)
    | st.from_regex(r"-?\d{0,12}([.,]-?\d{0,9})?", fullmatch=True)
)
def test_any_text_of_an_address_is_read_or_refused(text: str) -> None:
    from vizapp.ui.session import forms, state

    pages = [
        choice
        for key in ("projection", "occlusion", "dense", "filters", "architecture")
        for choice in forms.choices(key).values()
    ]
    for choice in [*state.CHOICES.values(), *pages]:
        try:
            value = choice.read(text)
        except VizError as error:
            assert_sentence(str(error), text)
        else:
            assert value == value or not isinstance(value, float), choice.name


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(st.text(max_size=12) | st.sampled_from(_CELLS), max_size=4), max_size=6))
def test_any_list_of_pictures_is_read_and_names_none_outside(tmp_path: Path, rows: list[list[str]]) -> None:
    import csv

    listed = tmp_path / "in" / "list.csv"
    listed.parent.mkdir(exist_ok=True)
    stream = io.StringIO()
    csv.writer(stream).writerows([[cell.encode("utf-8", "replace").decode() for cell in row] for row in rows])
    listed.write_text(stream.getvalue(), encoding="utf-8", newline="")
    try:
        found = vizapp.open_folder(listed)
        within = open_folder(listed, listed.parent)
    except VizError as error:
        assert_sentence(str(error), "")
        return
    assert len(within) <= len(found)
    for index in range(len(within)):
        place = Path(within.image_ref(index).path)  # type: ignore[attr-defined]
        assert place.resolve().is_relative_to(listed.parent.resolve()) or "\0" in str(place)
        assert within.path(index) == plain_name(within.path(index), 4096)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.text(max_size=30).map(lambda name: f"{name}.png") | st.text(max_size=30) | st.sampled_from(_MEMBERS),
        max_size=6,
    )
)
def test_any_names_in_a_zip_file_are_listed_or_passed_over(tmp_path: Path, names: list[str]) -> None:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name.encode("utf-8", "replace").decode()
            archive.writestr(info, b"")
    path = tmp_path / "a.zip"
    path.write_bytes(stream.getvalue())
    try:
        found = vizapp.open_folder(path)
    except VizError as error:
        assert_sentence(str(error), "")
        return
    for index in range(len(found)):
        assert ".." not in found.path(index).split("/")
        assert found.path(index).encode()
        label = found.labels[index]
        assert label is None or (label == plain_name(label) and label in found.classes)
    assert found.listing_digest()


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_names_can_be_shown_written_and_are_what_they_were_where_they_can_be(text: str) -> None:
    name = plain_name(text)
    assert len(name) <= 255
    assert len(name.encode()) >= len(name)
    assert plain_name(name) == name
    assert not set(name) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200e\u200f\n\r\0\x1b")
    if text.isprintable():
        assert name == text or len(text) > 255


# A process of its own, with limits, in a home and a temporary folder that are looked at before and after


@pytest.mark.slow
def test_nothing_around_is_touched_and_little_is_taken(tmp_path: Path) -> None:
    """What is counted: seconds from the call, after the imports; memory above that of a process that has imported torch."""
    homes = {name: tmp_path / name.lower() for name in ("HOME", "TMPDIR", "VIZAPP_CACHE", "work", "files")}
    for folder in homes.values():
        folder.mkdir()
    cases = [*corpus.pictures()[::9], *corpus.zips()[::5]]
    asked = [["predict", "--network", NET, "--picture", str(placed(case, homes["files"]))] for case in cases]
    for case in [*corpus.tables()[::5], *corpus.zips()[::5]]:
        asked.append(["gallery", "--network", NET, "--folder", str(placed(case, homes["files"])), "--out", "out"])
    for case in corpus.checkpoints()[::9]:
        path = str(placed(case, homes["files"]))
        asked.append(["predict", "--network", NET, "--picture", "digit 3", "--weights", path])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    program = (
        "import json, resource, sys, time, vizapp\n"
        "from vizapp.__main__ import main\n"
        f"main(['predict', '--network', {NET!r}, '--picture', 'digit 3'])\n"
        "peak = lambda: next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if 'VmHWM' in line)\n"
        "begun, told = peak(), []\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 10**9,) * 2)\n"
        "for asked in json.load(sys.stdin):\n"
        "    clock = time.process_time()\n"
        "    status = main(asked)\n"
        "    told.append([status, time.process_time() - clock, peak() - begun])\n"
        "open(sys.argv[1], 'w').write(json.dumps(told))\n"
    )
    environment = os.environ | {name: str(homes[name]) for name in ("HOME", "TMPDIR", "VIZAPP_CACHE")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "VIZAPP_DEVICE": "cpu"}
    report = tmp_path / "report"
    done = subprocess.run(
        [sys.executable, "-c", program, str(report)], input=json.dumps(asked), capture_output=True, text=True,
        cwd=homes["work"], env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    told = json.loads(report.read_text())
    assert len(told) == len(asked) >= 40
    for command, (status, seconds, nbytes) in zip(asked, told, strict=True):
        assert status in (0, 2), command
        assert seconds < 2, command
        assert nbytes < 10**9, command
    assert sum(status == 2 for status, _, _ in told) > len(told) // 2
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    allowed = (str(homes["VIZAPP_CACHE"]), str(homes["work"]), str(report), str(tmp_path))
    changed = [path for path, stamp in after.items() if before.get(path) != stamp]
    assert not [path for path in changed if not str(path).startswith(allowed[:3]) and path != tmp_path]
    assert not [path for path in before if path not in after]
