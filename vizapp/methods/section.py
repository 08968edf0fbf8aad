"""A result as a section of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vizapp.errors import without_folders
from vizapp.methods.provenance import Provenance
from vizapp.report.section import Section

# The facts without which a result misleads, and those that are told among what was asked.
CAUTIONS = ("caution", "rough", "silent", "not finite", "extended", "detached", "custom", "no switches")
_ASKED = ("network", "picture", "channels", "interventions", "target")


class _Panel(Protocol):
    @property
    def title(self) -> str: ...
    @property
    def pixels(self) -> np.ndarray: ...


class Answer(Protocol):
    """What a section is made of: `methods.base.Result`."""

    @property
    def method(self) -> str: ...
    @property
    def panels(self) -> Sequence[_Panel]: ...
    @property
    def facts(self) -> Mapping[str, str]: ...
    @property
    def table(self) -> tuple[dict[str, Any], ...]: ...
    @property
    def provenance(self) -> Provenance | None: ...


def section(result: Answer, title: str, remark: str, link: str) -> Section:
    """The section of a result: see `Result.section`."""
    asked, facts = result.provenance, {name: without_folders(fact) for name, fact in result.facts.items()}
    named = result.method if asked is None else asked.title
    subject = "" if asked is None else asked.picture or asked.folder
    return Section(
        title=title or (f"{named} · {subject}" if subject else named),
        source="" if asked is None else asked.source,
        about=facts if asked is None else {},
        cautions=tuple(facts[name] for name in CAUTIONS if name in facts),
        pictures={panel.title: panel.pixels for panel in result.panels},
        table=result.table,
        facts={name: fact for name, fact in facts.items() if name not in (*CAUTIONS, *_ASKED)},
        command="" if asked is None else asked.command,
        link=link or ("" if asked is None else asked.link),
        remark=remark,
    )
