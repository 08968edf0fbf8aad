"""One answer in a report: its pictures, table and facts, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from vizapp.components.data import photo_uri, uri


@dataclass(frozen=True, eq=False)
class View:
    """A component of the app with its data, alive in the report.

    `heading`: the words over it; `caption`: those below. `legend`: colours in CSS with their meaning. `stills`: the pictures
    that stand in its place where scripts do not run, uint8 `[H W 3]` by title.
    """

    component: str
    data: Mapping[str, Any]
    heading: str = ""
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    stills: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def images(self) -> dict[str, str]:
        """The stills as data URIs. They are JPEG files: the view itself has the exact colours."""
        return {title: photo_uri(pixels) for title, pixels in self.stills.items()}


@dataclass(frozen=True, eq=False)
class Section:
    """One answer as a report shows it. Holds text, pictures and numbers only: no network, no path of the machine.

    `about`: what was asked (network, photo, what is explained), by name. `cautions`: what a reader must know, as sentences.
    `pictures`: uint8 `[H W 3]` by title, for those parts that no view shows; `captions`: the words below them; `columns`: how
    many stand beside each other, as wide as fits (0: in their size, as many as fit). `command` and `link`: what makes it
    again; `note`: what the link leaves out, as a sentence.
    """

    title: str
    source: str
    about: Mapping[str, str] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    views: tuple[View, ...] = ()
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    table: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    link: str = ""
    note: str = ""
    remark: str = ""
    columns: int = 0

    @cached_property
    def images(self) -> dict[str, str]:
        """The pictures as PNG files in data URIs."""
        return {title: uri(pixels) for title, pixels in self.pictures.items()}
