"""Commands, code, links and files in README and docs are valid."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vizapp
from vizapp import __main__ as command_line
from vizapp.media.samples import open_sample, sample_names
from vizapp.methods.params import build
from vizapp.settings import settings
from vizapp.zoo.intervention_text import read_intervention

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = {"photo.jpg", "photos", "photos.zip"}  # of the reader's own
SMALL: dict[str, dict[str, Any]] = {  # fewer squares and steps where README's take long
    "occlusion": {"stride": 80}, "dense": {"stride": "native"}, "ideal": {"steps": 2, "restarts": 1}
}  # fmt: skip
SCRIPTS = [*sorted((ROOT / "training").glob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
SCRIPTS = [path for path in SCRIPTS if "__main__" in path.read_text(encoding="utf-8")]

# Runs each script as `python SCRIPT` does, with the libraries imported once; our own modules anew for each. Prints what each
# would take: its description, and the default of each option.
ASK_ALL = """
import argparse, json, runpy, sys
from pathlib import Path

class Known(Exception):
    pass

def know(parser, *_):
    raise Known({"text": parser.format_help(), "defaults": {a.option_strings[0]: a.default for a in parser._actions}})

argparse.ArgumentParser.parse_args = know
clean, libraries = [entry for entry in sys.path if entry], None
for script in sys.argv[1:]:
    sys.path[:] = [str(Path(script).parent), *clean]
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except Known as known:
        print(json.dumps([script, known.args[0]], default=str))
    ours = ("vizapp", "card", "timing", "app", "people", "relevance")
    for name in [name for name in sys.modules if name.split(".")[0] in ours]:
        del sys.modules[name]
"""


def blocks(text: str, language: str = "") -> list[str]:
    """The code blocks of a page in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for named, block in found if named == language]


def lines(pattern: str) -> list[str]:
    """The lines of README's and the pages' blocks without a language that match."""
    return [
        line
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"))
        for line in block.splitlines()
        if re.search(pattern, line)
    ]


def write_photos() -> None:
    """The photos that README names, small, in the current folder."""
    for name, sample in (
        ("photo.jpg", "motorcycle"),
        ("photos/moped/a.png", "motorcycle"),
        ("photos/tabby/b.png", "chelsea"),
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        with Image.fromarray(open_sample(sample).pixels) as image:
            image.resize((256, 224)).save(name)


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return command_line.parser()


COMMANDS = lines(r"-m vizapp ")


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 15
    assert {path.name for path in SCRIPTS} >= {"lenet5_digits.py", "zfnet_mini.py", "projection.py", "app.py"}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line: str, parser: argparse.ArgumentParser) -> None:
    options = vars(parser.parse_args(shlex.split(line.partition("-m vizapp ")[2], comments=True)))
    if "method" in options:
        given = {name[6:]: value for name, value in options.items() if name.startswith("param_") and value is not None}
        given.pop("parts", None)  # a file of the reader's own
        build(options["method"].params, given, line)
    if options.get("picture"):
        assert options["picture"] in {*sample_names(), *PLACEHOLDERS}
    if options.get("folder"):
        assert options["folder"] in {"digits", "samples", *PLACEHOLDERS}
    if not options.get("network"):
        return
    network = vizapp.load(options["network"], weights="none", device="cpu")
    if options.get("unit"):
        unit = command_line.read_unit(options["unit"])
        assert unit.channel < network.site(unit.site).channels
    for text in options.get("set") or []:
        given = read_intervention(text)
        assert max(given.channels or [0]) < network.site(given.site).channels
    if options.get("class_"):
        vizapp.class_unit(network, options["class_"])
    if options.get("param_sites"):
        from vizapp.methods.gallery import chosen_sites

        assert chosen_sites(network, tuple(options["param_sites"].split(",")))


def test_samples_that_are_named_are_there() -> None:
    named = re.search(r"takes the name of a sample \((.*?)\)", README)
    assert named is not None
    assert all(name.strip('`"') in sample_names() for name in named[1].split(", "))


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, on small pictures."""
    asked = []

    def ask(method: str, *args: Any, **params: Any) -> Any:
        inputs = ("unit", "folder", "interventions")
        build(vizapp.methods()[method].params, {k: v for k, v in params.items() if k not in inputs}, method)
        asked.append(method)
        return original(method, *args, **params | SMALL.get(method, {}))

    original = vizapp.ask
    monkeypatch.setattr(vizapp, "ask", ask, raising=False)
    monkeypatch.chdir(tmp_path)
    write_photos()
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 2, 7, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    known: dict[str, Any] = {"module": module, "names": ("a", "b")}
    (block,) = blocks(README, "python")
    exec(compile(block, "README.md", "exec"), known)
    methods = {
        "predict",
        "activations",
        "projection",
        "occlusion",
        "transform",
        "dense",
        "architecture",
        "filters",
        "ideal",
    }
    assert methods == set(asked)
    assert set(known["answer"].table[0]) == {"class", "name", "probability", "logit"}
    c, h, w = known["maps"].arrays["activations"].shape
    assert (c, known["down"].arrays["projection"].shape) == (
        known["net"].site("blocks.10.project_conv").channels,
        (224, 224, 3),
    )
    assert known["down"].facts["certificate"]
    assert known["hidden"].arrays["probability"].shape == known["hidden"].arrays["label"].shape
    assert known["many"].arrays["probability"].shape == (2, *known["hidden"].arrays["probability"].shape)
    assert len(known["many"].table) == 2
    assert known["near"].facts["others"].startswith("From a pass over 2 of the 2 photos of photos.")
    assert known["dense"].arrays["boxes"].shape == (*known["dense"].arrays["label"].shape, 4)
    assert known["dense"].arrays["scores"].shape == (1000, *known["dense"].arrays["label"].shape)
    assert known["ideal"].arrays["pictures"].dtype == np.uint8
    assert (tmp_path / "out" / "arrays.npz").is_file()
    assert (tmp_path / "out" / "result.json").is_file()
    assert h * w > 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_the_pages_names_what_there_is(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = __import__(str(node.module), fromlist=["_"])
                assert all(hasattr(module, alias.name) for alias in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vizapp":
                assert hasattr(vizapp, node.attr)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "gallery":
                from vizapp.gallery.reader import Gallery

                assert hasattr(Gallery, node.attr)


class Watched(dict[str, str]):
    """An environment that knows what it was asked for."""

    def __init__(self) -> None:
        super().__init__({"HOME": "/home/somebody"})
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def test_the_readme_names_all_settings_and_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(os, "environ", watched)
    usual = settings()
    read = {name for name in watched.asked if name.startswith("VIZAPP_")}
    told = README.partition("## Settings")[2].partition("\n## ")[0]
    assert set(re.findall(r"VIZAPP_[A-Z_]+", told)) == read
    for page in PAGES:
        assert set(re.findall(r"VIZAPP_[A-Z_]+", page.read_text(encoding="utf-8"))) <= read | {"VIZAPP_SHARED"}
    numbers = re.findall(r"`VIZAPP_([A-Z_]+)`\s\((\d+)\)", told)
    assert len(numbers) == 5
    for name, number in numbers:
        assert float(number) == getattr(usual, name.lower())
    assert usual.cache == Path("/home/somebody/.cache/vizapp")
    assert "`VIZAPP_CACHE` (folder, `~/.cache/vizapp`)" in told


def test_the_manual_of_the_server_has_a_row_for_each_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(os, "environ", watched)
    usual = settings()
    table = (ROOT / "docs" / "server.md").read_text(encoding="utf-8").partition("## Settings")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(VIZAPP_[A-Z_]+)` \| (.*?) \|", table, re.MULTILINE))
    assert set(rows) == {name for name in watched.asked if name.startswith("VIZAPP_")}
    numbers = {name: shown for name, shown in rows.items() if shown.isdigit()}
    assert len(numbers) == 5
    for name, shown in numbers.items():
        assert float(shown) == getattr(usual, name.removeprefix("VIZAPP_").lower())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_pictures_and_files_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert link.startswith("http") or (page.parent / link).is_file(), link
    for name in re.findall(r"`([\w./-]+(?:\.(?:py|md|conf|yaml)|Dockerfile|/))(?::\d+)?`", text):
        below = [
            folder / name
            for folder in (ROOT, page.parent, ROOT / "vizapp", ROOT / "deploy", ROOT / "vizapp" / "methods")
        ]
        assert any(path.exists() for path in below), name


def test_targets_of_make_are_there() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"app", "test", "check"} <= named <= targets


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each script tells of itself, from a folder that is not the checkout."""
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-W", "ignore", "-c", ASK_ALL, *map(str, SCRIPTS)]
    place = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(command, cwd=place, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {Path(name).name: told for name, told in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("script", [path.name for path in SCRIPTS])
@pytest.mark.slow
def test_scripts_start_and_show_the_defaults_that_they_have(script: str, scripts: dict[str, dict[str, Any]]) -> None:
    text, defaults = scripts[script]["text"], scripts[script]["defaults"]
    (path,) = (path for path in SCRIPTS if path.name == script)
    assert _options(path) == set(defaults) - {"-h"}
    usage = re.search(rf"^    python (?:training|benchmarks)/{re.escape(script)}(.*)$", text, re.MULTILINE)
    assert usage is not None
    named = set(re.findall(r"(--[a-z-]+)", usage[1]))
    assert named <= set(defaults)
    for option, shown in re.findall(r"\[(--[a-z-]+) ([^\]]+)\]", usage[1]):
        values = shown.removesuffix(" …").split()
        default = defaults[option] if isinstance(defaults[option], list) else [defaults[option]]
        found = [str(value) for value in default]
        assert (values == found) if not shown.endswith("…") else set(values) <= set(found), option


def _options(path: Path) -> set[str]:
    """The options that a script adds to its parser, read and not run."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    added = [
        call.args[0] for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
    ]
    return {first.value for first in added if isinstance(first, ast.Constant)}


def test_scripts_that_pages_name_take_these_options() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    calls = re.findall(r"(?:training|benchmarks)/(\w+\.py)((?: --?[\w-]+(?: [\w.]+)?)*)", text)
    assert {name for name, _ in calls} >= {"lenet5_digits.py", "zfnet_mini.py", "many_users.py", "gallery.py"}
    options = {path.name: _options(path) for path in SCRIPTS}
    for name, called in calls:
        assert set(re.findall(r"--[a-z-]+", called)) <= options[name]
