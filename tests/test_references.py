"""Every citation leads to a paper: it is listed in docs/references.md, and the app links it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from vizapp import references
from vizapp.methods import methods

ROOT = Path(__file__).resolve().parents[1]
LISTED = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r'^- <a id="([\w-]+)"></a>(.*?)(?=^- |^#|\Z)', LISTED, re.MULTILINE | re.DOTALL))
NO_AUTHORS = {"jpeg-2000"}  # a capital and a year, and yet no citation


def citations() -> Iterator[tuple[str, str]]:
    """The place and the key of each citation in the code and on the pages."""
    code = [path for folder in ("vizapp", "training") for path in sorted((ROOT / folder).rglob("*.py"))]
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "assets").glob("*.md"))]
    for path in [*code, *pages]:
        if path.name == "references.md":
            continue
        text = re.sub(r"\n\s*#?\s*", " ", path.read_text(encoding="utf-8"))  # citations may be broken over lines
        for found in references.CITATION.finditer(text):
            if references.key(found) not in NO_AUTHORS:
                yield str(path.relative_to(ROOT)), references.key(found)


def test_every_citation_is_listed_and_everything_listed_is_cited() -> None:
    cited = list(citations())
    assert {(place, key) for place, key in cited if key not in ENTRIES} == set()
    assert set(ENTRIES) - {key for _, key in cited} == set()
    assert len(cited) > 80


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_has_authors_a_title_a_year_and_an_address_that_the_app_uses(key: str) -> None:
    entry = " ".join(ENTRIES[key].split())
    first, year = key.rsplit("-", 1)
    heading = re.match(r"\*\*(.+?)\.\*\* (.+?)\. \*(.+?)\*", entry)
    assert heading is not None
    assert heading[1].lower().startswith(first)
    assert heading[1].endswith(year)
    assert first in heading[2].lower()
    addresses = re.findall(r"\[(?:arXiv|doi):(\S+)\]\(https://(?:arxiv\.org/abs|doi\.org)/(\S+?)\)", entry)
    assert all(shown == linked for shown, linked in addresses)
    assert ("No DOI found." in entry) == (not addresses)
    assert (key in references.LINKS) == bool(addresses)
    if addresses:
        assert references.LINKS[key].endswith(addresses[0][1])


@pytest.mark.parametrize("key", list(methods()))
def test_a_method_cites_papers_and_no_lectures(key: str) -> None:
    source = methods()[key].source
    assert any(references.key(found) in ENTRIES for found in references.CITATION.finditer(source)), source
    assert "lecture" not in source.lower()


def test_no_university_lecture_stands_for_a_paper() -> None:
    for path in (ROOT / "vizapp").rglob("*.py"):
        assert not re.search(r"EE-?559|lecture \d", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("so it is (Nie 2018, Adebayo et al. 2018, Sixt 2020).", ["nie-2018", "adebayo-2018", "sixt-2020"]),
        ("Olah, Mordvintsev & Schubert 2017; Zeiler & Fergus 2013, section 4", ["olah-2017", "zeiler-2013"]),
        ('Lin et al., "Network In Network", 2013', ["lin-2013"]),
        ("He et al. 2015b", ["he-2015b"]),
        ("Nobody 2018 and photo_2019.png", []),
    ],
)
def test_a_text_is_split_where_it_cites(text: str, keys: list[str]) -> None:
    pieces = references.split(text)
    assert "".join(piece for piece, _ in pieces) == text
    assert [url for _, url in pieces if url] == [references.LINKS[key] for key in keys]


def _caution() -> None:
    from vizapp.ui.session import messages

    messages.info("It *hardly* depends on later layers (Nie 2018).")


def test_cautions_of_the_app_link_to_the_paper_and_show_the_rest_as_it_is() -> None:
    (caption,) = AppTest.from_function(_caution).run().caption
    assert caption.value == r"It \*hardly\* depends on later layers ([Nie 2018](https://arxiv.org/abs/1805.07039))."


def test_the_about_page_links_the_papers_behind_each_method() -> None:
    app = AppTest.from_file(str(ROOT / "vizapp" / "ui" / "pages" / "about.py"), default_timeout=60).run()
    assert not app.exception
    shown = "\n".join(each.value for each in app.markdown)
    for method in methods().values():
        assert method.title in shown
        assert all(f"]({url})" in shown for _, url in references.split(method.source) if url)
