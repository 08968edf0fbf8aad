"""The packages depend on each other in one direction only, and importing vizapp is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BELOW = {
    "engine": {"errors", "settings"},
    "media": {"errors", "settings"},
    "zoo": {"engine", "media", "errors", "settings"},
    "gallery": {"zoo", "engine", "media", "errors", "settings"},
    "methods": {"gallery", "zoo", "engine", "media", "errors", "settings"},
    "service": {"engine", "errors", "settings"},
    "ui": {"service", "methods", "gallery", "zoo", "engine", "media", "errors", "settings"},
}
ONLY_IN = {"streamlit": "ui", "cv2": "media", "PIL": "media", "plotly": "ui"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", BELOW)
def test_packages_import_only_what_is_below_them(package: str) -> None:
    files = list((ROOT / "vizapp" / package).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "vizapp" and len(parts) > 1:
                assert parts[1] in BELOW[package] | {package}, f"{path.name} imports {name}"


def test_libraries_stay_inside_their_package() -> None:
    for path in (ROOT / "vizapp").rglob("*.py"):
        package = path.relative_to(ROOT / "vizapp").parts[0]
        for name in imports(path):
            home = ONLY_IN.get(name.split(".")[0], package)
            assert home == package, f"{path.name} imports {name}"


def test_the_unexpected_is_caught_in_one_place() -> None:
    places = [
        path.name
        for path in (ROOT / "vizapp").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
    ]
    assert len(places) <= 1, places


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, vizapp; print([m for m in ('torch', 'cv2', 'streamlit', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_promised_names_are_there() -> None:
    import vizapp

    for name in vizapp.__all__:
        assert getattr(vizapp, name) is not None
    assert set(vizapp.methods()) >= {"predict", "activations"}
