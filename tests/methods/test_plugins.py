"""A method of another package is available in Python, the command line and the app; a broken one gives a message."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import streamlit as st

import vizapp
from tests.ui.app import offered, sentences, went_well
from tests.ui.conftest import open_app
from vizapp.__main__ import main
from vizapp.errors import VizError
from vizapp.methods import methods, problems

__all__ = ["open_app"]
BRIGHTNESS = '''
import numpy as np
from dataclasses import dataclass
from vizapp.methods.base import Method, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob

@dataclass(frozen=True)
class BrightnessParams(Params):
    factor: float = knob(1.0, "What the brightness is multiplied by", low=0, high=10)

def brightness(question, params, job):
    """How bright each pixel is."""
    seen = question.network.seen(question.require_picture()).astype(np.float32)
    return Result("brightness", {"brightness": params.factor * seen.mean(2)}, facts={"factor": f"{params.factor:g}"})

METHOD = Method("brightness", "Brightness", "Nobody 2026", BrightnessParams, brightness,
                shows=(Output("brightness", "heat map", over_photo=True),))
'''
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install("name", code, "key = module:METHOD")`: a package as an installer leaves it, on `sys.path`."""
    before = set(sys.modules)
    site = tmp_path / "site-packages"

    def installed(name: str, code: str, *entries: str) -> None:
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(code)
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join(["[vizapp.methods]", *entries]) + "\n")
        if str(site) in sys.path:
            sys.path.remove(str(site))
        monkeypatch.syspath_prepend(site)

    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIZAPP_DEVICE", "cpu")
    st.cache_resource.clear()
    yield installed
    st.cache_resource.clear()
    for module in set(sys.modules) - before:
        if module.partition(".")[0] in {"bright", "broken", "clash"}:
            del sys.modules[module]


def test_python_and_the_command_line_have_the_method(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "brightness" not in methods()
    install("bright", BRIGHTNESS, "brightness = bright:METHOD")
    assert vizapp.methods()["brightness"].summary == "How bright each pixel is."
    network, picture = vizapp.load("vizapp/lenet5-digits", device="cpu"), np.full((28, 28, 3), 100, np.uint8)
    result = vizapp.ask("brightness", network, picture=picture, factor=2)
    np.testing.assert_array_equal(result.arrays["brightness"], np.full((28, 28), 200, np.float32))
    assert [panel.title for panel in result.panels] == ["seen", "brightness", "brightness-over-photo"]
    asked = ["brightness", "--network", "vizapp/lenet5-digits", "--picture", "digit 3", "--factor", "3", "--json"]
    assert main([*asked, "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["factor"] == "3"
    assert (tmp_path / "out" / "brightness.png").is_file()
    assert problems() == ()


def test_the_app_has_a_page_and_a_link_for_it(install: Install, open_app) -> None:
    install("bright", BRIGHTNESS, "brightness = bright:METHOD")
    app = open_app("brightness", picture="digit 3", **{"brightness.factor": "4.0"})
    assert went_well(app)
    assert sentences(app) == ""
    assert {"Brightness PNG", "Brightness over photo PNG", "Arrays NPZ", "Facts JSON"} == set(offered(app))
    assert "**Factor:** 4" in [caption.value for caption in app.caption]
    assert "Nobody 2026" in [caption.value for caption in app.caption]


@pytest.mark.parametrize(
    ("code", "entry", "told"),
    [
        ("raise RuntimeError('not today')", "broken = broken:METHOD", "cannot be loaded (RuntimeError: not today)"),
        ("METHOD = 3", "broken = broken:METHOD", "names a int, not a vizapp.methods.base.Method"),
        ("", "broken = broken:METHOD", "cannot be loaded (AttributeError"),
        ("", "broken = no_such_module:METHOD", "cannot be loaded (ModuleNotFoundError"),
        (
            BRIGHTNESS.replace('Method("brightness"', 'Method("Bright/ness"'),
            "broken = broken:METHOD",
            "its key 'Bright/ness'",
        ),
    ],
)
def test_a_method_that_cannot_be_used_is_a_sentence_and_the_others_stay(
    install: Install, capsys: pytest.CaptureFixture[str], code: str, entry: str, told: str
) -> None:
    before = list(methods())
    install("broken", code, entry)
    assert list(methods()) == before
    (problem,) = problems()
    assert problem.startswith("The method 'broken' of the package broken is not available: ")
    assert told in problem
    with pytest.raises(VizError) as caught:
        vizapp.ask("broken", vizapp.load("vizapp/lenet5-digits", device="cpu"))
    assert caught.value.code == "no-such-method"
    assert problem in str(caught.value)
    assert main(["methods"]) == 0
    out, err = capsys.readouterr()
    assert problem in err
    assert "predict: " in out


def test_a_key_that_is_a_command_stays_a_command(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("clash", BRIGHTNESS.replace('Method("brightness"', 'Method("sites"'), "sites = clash:METHOD")
    assert "sites" not in methods()
    assert "its key 'sites' is a command" in problems()[0]
    assert main(["sites", "vizapp/lenet5-digits"]) == 0
    assert "features" in capsys.readouterr().out


def test_a_key_that_is_taken_stays_with_its_owner(install: Install) -> None:
    ours = methods()["predict"]
    install("clash", BRIGHTNESS.replace('Method("brightness"', 'Method("predict"'), "predict = clash:METHOD")
    assert methods()["predict"] is ours
    assert "there is already a method 'predict'" in problems()[0]
