"""The documentation as a site: it builds without a warning, and everything public is in it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pytest
import yaml

import vizapp
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.params import Params, knob, knobs

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


class _AnyTag(yaml.SafeLoader):
    """Reads what MkDocs' own tags are on as None."""


_AnyTag.add_multi_constructor("", lambda loader, suffix, node: None)


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _AnyTag)


@pytest.fixture(scope="module")
def made_pages() -> ModuleType:
    return _module("pages")


def _module(name: str) -> ModuleType:
    """A file of docs/site."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _listed(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _listed(entry)


def test_each_page_is_in_the_navigation_once(configuration: dict[str, Any]) -> None:
    listed = list(_listed(configuration["nav"]))
    assert len(listed) == len(set(listed))
    assert set(PAGES) - set(listed) == set(), "list them in mkdocs.yml, under nav"


def test_the_reference_has_each_public_name(made_pages: ModuleType) -> None:
    named = {name for *_, names in made_pages.TOPICS.values() for name in names}
    assert set(vizapp.__all__) - {"methods", "__version__"} <= named
    assert "methods.methods" in named


@pytest.mark.parametrize("page", ["../README.md", *PAGES])
def test_each_picture_is_described(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert all(len(words) > 10 for words in re.findall(r"!\[(.*?)\]\(", text, re.DOTALL))
    assert all('alt="' in tag for tag in re.findall(r"<img[^>]*>", text))


@dataclass(frozen=True)
class _Settings(Params):
    side: int = knob(4, "Side | of a square", low=1, high=9000, unit="pixels")
    share: float = knob(0.5, "A share", low=0)
    kind: Literal["a", "b"] = knob("b", "Which")
    alone: bool = knob(False, "Alone")
    layers: tuple[str, ...] = knob((), "Layers")
    angles: tuple[float, ...] = knob((0.0, 1.5), "Angles")


def _run(question: Question, params: _Settings, job: Job) -> Result:
    """What it shows.

    How it is computed (see `docs/engine.md`).

    `arrays`: `one` `[h w]`, the first (a; `b`; c); `two` float32, its
    square. `three`: more; of less. `table`: a row per cell.

    Raises:
        VizError: no such layer, or
            no photo.
    """
    raise AssertionError


def test_the_page_of_a_method_says_what_it_takes_and_gives(made_pages: ModuleType) -> None:
    method = Method(
        "knockout", "A method", "Zeiler & Fergus 2013, figure 7", _Settings, _run, frozenset({"unit", "picture"})
    )
    page = made_pages._method(method)
    for line in (
        "# A method",
        "- **Needs:** a photo and a unit",
        "- **Source:** [Zeiler & Fergus 2013](https://arxiv.org/abs/1311.2901), figure 7",
        '    result = vizapp.ask("knockout", network, picture, unit=unit)',
        "    vizapp knockout --picture photo.jpg --class tabby --out out",
        r"| `side` | whole number, 1 to 9,000 pixels | `4` | Side \| of a square |",
        "| `share` | number, at least 0 | `0.5` | A share |",
        "| `kind` | `a`, `b` | `b` | Which |",
        "| `alone` | yes or no | no | Alone |",
        "| `layers` | list of texts |  | Layers |",
        "| `angles` | list of numbers | `0.0,1.5` | Angles |",
        "How it is computed (see [engine](docs/engine.md)).",
        "- `one` `[h w]`, the first (a; `b`; c)",
        "- `two` float32, its square.",
        "- `three`: more; of less.",
        "- `table`: a row per cell.",
        "Raises [`VizError`](reference/errors.md): no such layer, or no photo.",
    ):
        assert line in page.splitlines()


@pytest.fixture(scope="module")
def hooks(made_pages: ModuleType) -> Iterator[ModuleType]:
    pytest.importorskip("mkdocs")
    path = list(sys.path)
    yield _module("hooks")
    sys.path[:] = path


@pytest.mark.parametrize(
    ("link", "repository", "led"),
    [
        ("[a](../README.md#command-line)", "", "[a](start/command-line.md)"),
        ("[a](../README.md#documentation)", "", "[a](index.md)"),
        ("[a](../CHANGELOG.md)", "", "[a](changelog.md)"),
        ("[a](../vizapp/methods/occlusion/method.py)", "", "[a](methods/occlusion.md)"),
        ("[a](../vizapp/settings.py)", "https://host/o/n", "[a](https://host/o/n/blob/main/vizapp/settings.py)"),
        ("[a](../vizapp/settings.py)", "", "a"),
        ("![a photo](start.png)", "", "![a photo](start.png)"),
        ("[a](engine.md#precision)", "", "[a](engine.md#precision)"),
        ("[a](gone.md) [b](#here) [c](https://host)", "", "[a](gone.md) [b](#here) [c](https://host)"),
        ("```\n[a](../CHANGELOG.md)\n```", "", "```\n[a](../CHANGELOG.md)\n```"),
    ],
)
def test_links_of_the_repository_lead_to_pages_of_the_site(
    hooks: ModuleType, link: str, repository: str, led: str
) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="server.md", generated_by=None), meta={})
    assert hooks.on_page_markdown(link, page, SimpleNamespace(repo_url=repository), None) == led


class _Tags(HTMLParser):
    """The ids of a page, what it loads, its links, and the descriptions of its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.loads, self.links, self.alts = set[str](), list[str](), list[str](), list[str | None]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        if tag == "a":
            self.links.append(given.get("href") or "")
        elif tag == "img":
            self.alts.append(given.get("alt"))
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given.get("href") or "")
        self.loads.append(given.get("src") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The built pages, and the files of notebooks, by place."""
    pytest.importorskip("mkdocs")
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = [*place.rglob("*.html"), *place.rglob("*.ipynb")]
    return {path.relative_to(place).as_posix(): path.read_text(encoding="utf-8") for path in files}


@pytest.mark.slow
def test_the_site_has_each_page_method_and_public_name(site: dict[str, str]) -> None:
    assert {page.replace(".md", ".html") for page in PAGES} <= set(site)
    for key, method in vizapp.methods().items():
        page = site[f"methods/{key}.html"]
        assert method.title in unescape(page)
        for parameter in knobs(method.params).values():
            assert f"<td><code>{parameter.name}</code></td>" in page
        for output in method.shows:
            assert f"<code>{output.array}</code>" in page
    ids = {each for name, page in site.items() if name.startswith("reference/") for each in _Tags(page).ids}
    assert {f"vizapp.{name}" for name in vizapp.__all__} - {"vizapp.methods", "vizapp.__version__"} <= ids
    assert {"vizapp.methods.methods", "vizapp.zoo.Network.sites", "vizapp.methods.base.Result.save"} <= ids


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere_and_keeps_to_its_pages(site: dict[str, str]) -> None:
    for name, text in site.items():
        if name.endswith(".ipynb"):
            continue
        tags = _Tags(text)
        files = [Path(name).with_suffix(".ipynb").name] if name.startswith("notebooks/") else []  # to be downloaded
        assert not [address for address in tags.loads if re.match(r"(\w+:)?//", address)], name
        assert not [
            link
            for link in tags.links
            if not re.match(r"\w+:", link) and link.partition("#")[0].endswith((".md", ".ipynb")) and link not in files
        ], name
        # In a notebook, the name of a photo stands over it.
        assert (None not in tags.alts) if name.startswith("notebooks/") else all(tags.alts), name


@pytest.mark.slow
def test_each_notebook_can_be_downloaded_from_its_page(site: dict[str, str]) -> None:
    sources = sorted((DOCS / "notebooks").glob("*.ipynb"))
    assert sources
    for source in sources:
        assert source.name in _Tags(site[f"notebooks/{source.stem}.html"]).links
        assert site[f"notebooks/{source.name}"] == source.read_text(encoding="utf-8")
