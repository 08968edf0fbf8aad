"""The report: a title, remarks, and sections in order, as one HTML file."""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vizapp.components import sources
from vizapp.errors import VizError
from vizapp.files import atomic_write, local_path
from vizapp.report.markup import as_json, section_html, text
from vizapp.report.section import Section
from vizapp.settings import ASSETS, TOP, VERSION

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, eq=False)
class Report:
    """A report. It opens without network and under a strict content security policy, which it brings along."""

    sections: tuple[Section, ...] = ()
    title: str = "vizapp report"
    remark: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the file, before it is made. The first time, this encodes the pictures, which takes most of the time."""
        return sum(map(len, _document(self)))

    def to_html(self) -> str:
        """The report as one HTML document."""
        return "".join(_document(self))

    def save(self, path: str | Path) -> Path:
        """Write the report into a file, and return its path.

        Raises:
            VizError: the file cannot be written, or its name does not end in .html or .htm.
        """
        file = report_file(path)
        try:
            atomic_write(file, self.to_html().encode())
        except OSError as error:
            raise VizError(f"Cannot write to {str(file)!r}: {error.strerror or error}.", code="unwritable") from None
        return file


def report_file(path: str | Path) -> Path:
    """The path of a file for a report.

    Raises:
        VizError: its name does not end in .html or .htm, by which browsers know what it is.
    """
    file = local_path(path, "report")
    if file.suffix.lower() not in (".html", ".htm"):
        raise VizError(f"A report is an HTML file: {str(path)!r} must end in .html or .htm.", code="bad-file-name")
    return file


def _document(report: Report) -> Iterator[str]:
    # The section of a single answer needs no heading of its own if the report is named like it, or not at all.
    title, alone = report.title, len(report.sections) == 1 and report.title in (Report.title, report.sections[0].title)
    title = report.sections[0].title if alone else title
    components = sorted({view.component for section in report.sections for view in section.views})
    script, style = _script(components), _style()
    policy = {
        "default-src": "'none'", "img-src": "data:", "style-src": _hash(style), "script-src": _hash(script),
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    rules = "; ".join(f"{name} {value}" for name, value in policy.items())
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{rules}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta name="generator" content="vizapp {VERSION}">'
    yield f'<title>{text(title)}</title><link rel="icon" href="{_icon()}"><style>{style}</style></head><body><main>'
    yield f"<header><h1>{text(title)}</h1>"
    yield f'<p class="remark">{text(report.remark)}</p>' if report.remark else ""
    yield "</header>"
    names = [f"section-{number}" for number in range(1, len(report.sections) + 1)]
    if len(names) > 1:
        listed = zip(names, report.sections, strict=True)
        entries = (f'<li><a href="#{name}">{text(section.title)}</a></li>' for name, section in listed)
        yield f'<nav aria-label="Contents"><ol>{"".join(entries)}</ol></nav>'
    for name, section in zip(names, report.sections, strict=True):
        yield from section_html(section, name, alone)
    yield f"<footer>Made with vizapp {VERSION}.</footer></main><script>{script}</script></body></html>\n"


def _script(components: list[str]) -> str:
    """The components and what mounts them; nothing that could end the script element."""
    styles = as_json({name: sources.style(name) for name in components})
    parts = (f"const STYLES = {styles};", sources.bundle(components), _read("report.js"))
    return "(() => {\n" + "\n".join(parts) + "\n})();"


@cache
def _style() -> str:
    """The style of reports, with the colours and fonts of the app as Streamlit names them."""
    theme = tomllib.loads((TOP / ".streamlit" / "config.toml").read_text("utf-8"))["theme"]
    light, dark = (_variables(theme[scheme]) for scheme in ("light", "dark"))
    fonts = _variables({name: theme[name] for name in ("font", "codeFont")})
    schemes = f":root {{ {fonts} {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    return schemes + _read("report.css") + f"@media print {{ :root {{ {light} }} }}\n"


def _variables(options: dict[str, object]) -> str:
    named = ((re.sub("[A-Z]", lambda found: f"-{found[0].lower()}", name), value) for name, value in options.items())
    return " ".join(f"--st-{name}: {value};" for name, value in named if isinstance(value, str))


@cache
def _icon() -> str:
    return "data:image/svg+xml;base64," + base64.b64encode((ASSETS / "icon.svg").read_bytes()).decode()


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


@cache
def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")
