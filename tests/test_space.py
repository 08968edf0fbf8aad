"""A Hugging Face Space: its settings, its image, and the frame that it is shown in."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from deploy import space
from deploy.check import instructions
from vizapp.ui.app.headers import HEADERS, headers

ROOT = space.ROOT


def variables(found: list[tuple[str, str]]) -> dict[str, str]:
    """The environment that an image sets."""
    return dict(word.split("=", 1) for name, rest in found if name == "ENV" for word in shlex.split(rest))


def test_the_sites_of_the_setting_may_frame_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIZAPP_FRAMES", raising=False)
    assert headers() == HEADERS
    monkeypatch.setenv("VIZAPP_FRAMES", "https://a.example https://b.example")
    given = headers()
    policy = {part.split()[0]: part.split()[1:] for part in given["Content-Security-Policy"].split(";")}
    assert policy["frame-ancestors"] == ["'self'", "https://a.example", "https://b.example"]
    assert "X-Frame-Options" not in given, "it would forbid all other sites"
    assert set(given) == set(HEADERS) - {"X-Frame-Options"}
    before = {part.split()[0]: part.split()[1:] for part in HEADERS["Content-Security-Policy"].split(";")}
    assert policy | {"frame-ancestors": ["'self'"]} == before


def test_a_space_has_the_settings_that_hugging_face_reads(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    space.lay_out(tmp_path)
    _, head, _ = (tmp_path / "README.md").read_text().split("---\n", 2)
    given = yaml.safe_load(head)
    # https://huggingface.co/docs/hub/spaces-config-reference
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert set(given) == {"title", "emoji", "colorFrom", "colorTo", "sdk", "app_port", "license", "short_description"}
    assert given["sdk"] == "docker"
    assert {given["colorFrom"], given["colorTo"]} <= colours
    assert len(given["short_description"]) <= 60
    licence = (ROOT / "LICENSE").read_text().split()[0].lower()
    assert given["license"] == licence
    found = instructions(tmp_path / "Dockerfile")
    environment = variables(found)
    assert str(given["app_port"]) == environment["STREAMLIT_SERVER_PORT"] == dict(found)["EXPOSE"]
    assert environment["VIZAPP_FRAMES"] == "https://huggingface.co"
    assert environment["STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION"] == "false"
    assert any("--uid 1000" in rest for name, rest in found if name == "RUN"), "the user that Spaces run"


def test_a_space_holds_what_its_image_copies_and_the_image_stays_as_it_is(tmp_path: Path) -> None:
    space.lay_out(tmp_path)
    for name, rest in instructions(tmp_path / "Dockerfile"):
        for source in shlex.split(rest)[:-1] if name == "COPY" else ():
            assert (tmp_path / source).exists(), source
    assert (tmp_path / "vizapp" / "settings.py").read_bytes() == (ROOT / "vizapp" / "settings.py").read_bytes()
    assert not list(tmp_path.rglob("__pycache__"))
    assert variables(instructions())["VIZAPP_FRAMES"] == "", "of the image of a server"


def test_a_dockerfile_without_an_argument_of_a_space_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "DEFAULTS", {"PORTS": "7860"})
    with pytest.raises(ValueError, match="has 0 arguments PORTS"):
        space.lay_out(tmp_path)
