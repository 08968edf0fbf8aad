"""What MkDocs does beside its usual work: pages made from the program, links that lead on GitHub and on the site alike."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import pages  # noqa: E402  found from any folder

_CODE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_ALONE = re.compile(r"^\[[^\]]*\]\([^)\s]*\)$", re.MULTILINE)  # a link with a line of its own
_TO_PAGE = re.compile(r'(href="(?!\w+:)[^"#]+)\.(?:md|ipynb)(?=["#])')
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


class _ShortIndent(Extension):
    """Two spaces continue the item of a list, as on GitHub; Markdown's own rule is four."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.tab_length = 2


def on_config(config: MkDocsConfig) -> None:
    """Fill the lists of the navigation that are empty."""
    config.markdown_extensions.append(_ShortIndent())  # type: ignore[arg-type]
    notebooks = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    config.nav = _filled(
        config.nav,
        {
            "Methods": ["methods/index.md", *({title: uri} for uri, title in pages.method_titles().items())],
            "Python reference": ["reference/index.md", *({title: uri} for uri, title in pages.topic_titles().items())],
            "Notebooks": [f"notebooks/{path.name}" for path in notebooks],
        },
    )


def _filled(nav: Any, lists: dict[str, list[Any]]) -> Any:
    if isinstance(nav, list):
        return [filled for entry in nav if (filled := _filled(entry, lists)) is not None]
    if isinstance(nav, dict):
        ((title, entry),) = nav.items()
        entry = lists[title] if entry == [] else _filled(entry, lists)
        return {title: entry} if entry else None
    return nav


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that are made from the README, the changelog, the methods and the command line."""
    for uri, text in pages.made().items():
        files.append(File.generated(config, uri, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to their pages, and give a guide the link to its method."""
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta["hide"] = ["navigation", "toc"]
        markdown = _ALONE.sub(r"\g<0>{ .md-button }", markdown)
    base = "" if page.file.generated_by else posixpath.join("docs", posixpath.dirname(uri))

    def led(found: re.Match[str]) -> str:
        mark, words, link = found.groups()
        if re.match(r"[a-z]+:|#", link):
            return found[0]
        path, _, anchor = link.partition("#")
        place = posixpath.normpath(posixpath.join(base, path))
        there = pages.page_of(place, anchor)
        if there is not None:
            there, _, anchor = there.partition("#")
            link = posixpath.relpath(there, posixpath.dirname(uri) or ".")
            return f"{mark}[{words}]({link}{anchor and f'#{anchor}'})"
        if place.startswith("docs/") or not (ROOT / place).exists():
            return found[0]  # MkDocs knows it, or warns
        return f"[{words}]({config.repo_url.rstrip('/')}/blob/main/{place})" if config.repo_url else words

    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(led, part) for part in parts[::2]]
    key = uri.removesuffix(".md")
    if key in pages.methods():
        parts.append(f"\n\nParameters and arrays: [{key}](methods/{key}.md).\n")
    return "".join(parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of notebooks to pages, which MkDocs does for Markdown alone, and offer the file of a notebook."""
    name = posixpath.basename(page.file.src_uri)
    if not name.endswith(".ipynb"):
        return html
    return f'<p><a href="{name}" download>Download this notebook</a></p>' + _TO_PAGE.sub(r"\1.html", html)
