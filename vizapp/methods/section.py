"""A result as a section of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vizapp.errors import without_folders
from vizapp.methods.provenance import Provenance
from vizapp.methods.views import views
from vizapp.methods.words import in_words
from vizapp.report.section import Section

# The facts without which a result misleads, and those that are told among what was asked.
CAUTIONS = ("caution", "rough", "silent", "not finite", "extended", "detached", "custom", "no switches", "limits")
_OF_LAYER = ("activations", "filters")  # methods that show all channels of the unit's layer
# Parameters that a fact tells.
_SAID_BY = {"square": ("window", "stride", "width", "fill", "inverse"), "transform": ("kind",)}
_ASKED = ("network", "picture", "channels", "interventions", "target", "folder", "square", "transform", "certificate")


class _Panel(Protocol):
    @property
    def title(self) -> str: ...
    @property
    def pixels(self) -> np.ndarray: ...
    @property
    def caption(self) -> str: ...


class Answer(Protocol):
    """What a section is made of: `methods.base.Result`."""

    @property
    def method(self) -> str: ...
    @property
    def arrays(self) -> Mapping[str, np.ndarray]: ...
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
    if asked is None:
        asked = Provenance(result.method, result.method, "", facts.get("network", ""), "", repeatable=False)
    own = () if asked.views is None else asked.views(result)
    shown = own or tuple(views(asked, result.arrays))
    subject = asked.picture or asked.folder
    # What a view shows is not shown again: the map alone, the map over the photo, and the photo below it.
    told = {still for view in shown for still in view.stills}
    told |= {output.array for output in asked.shows if f"{output.array}-over-photo" in told}
    told |= {"seen"} if any(view.stills for view in shown) else set()
    panels = [panel for panel in result.panels if panel.title not in told]
    left_out = "" if link or not asked.link else in_words(asked.not_in_link)
    # The paper that predict follows is about ten crops.
    source = "" if asked.method == "predict" and asked.params.get("crops") != "ten" else asked.source
    return Section(
        title=title or (f"{asked.title} · {subject}" if subject else asked.title),
        source=source,
        about=_about(asked, facts),
        cautions=tuple(facts[name] for name in CAUTIONS if name in facts),
        views=shown,
        pictures={panel.title: panel.pixels for panel in panels},
        captions={panel.title: without_folders(panel.caption) for panel in panels},
        # The colour of a class is in the legend of its view.
        table=tuple({name: _plain(value) for name, value in row.items() if name != "colour"} for row in result.table),
        facts={name: fact for name, fact in facts.items() if name not in (*CAUTIONS, *_ASKED)},
        command=asked.command,
        link=link or asked.link,
        note=left_out and f"The link leaves out what the page does not take: {left_out}.",
        remark=remark,
    )


def _about(asked: Provenance, facts: Mapping[str, str]) -> dict[str, str]:
    """What was asked, and what certifies the answer."""
    of_layer = asked.method in _OF_LAYER
    said = {name for fact, names in _SAID_BY.items() if fact in facts for name in names}
    params = {name: text for name, text in asked.params.items() if name not in said}
    told = {
        "network": facts.get("network", asked.network),
        "photo": facts.get("picture", asked.picture),
        "photos": asked.folder,
        "layer": asked.unit.site if asked.unit is not None and of_layer else "",
        "explained": "" if of_layer or not (asked.unit or asked.explained_class) else asked.subject,
        "target": facts.get("target", ""),
        "changed": facts.get("interventions", ""),
        "channels": facts.get("channels", ""),
        "transform": facts.get("transform", ""),
        "square": facts.get("square", ""),
        "parameters": in_words(params),
        "certificate": facts.get("certificate", ""),
    }
    return {name: text for name, text in told.items() if text}


def _plain(value: Any) -> Any:
    return without_folders(value) if isinstance(value, str) else value
