"""One answer in a report: its pictures, table and facts, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class View:
    """A component of the app with its data, alive in the report. `heading`: the words over it; `caption`: those below."""

    component: str
    data: Mapping[str, Any]
    heading: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One answer as a report shows it. Holds text, pictures and numbers only: no network, no path of the machine.

    `about`: what was asked (network, photo, what is explained), by name. `cautions`: what a reader must know, as sentences.
    `pictures`: uint8 `[H W 3]` by title, for those parts that no view shows. `command` and `link`: what makes it again.
    """

    title: str
    source: str
    about: Mapping[str, str] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    views: tuple[View, ...] = ()
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    table: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    link: str = ""
    remark: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes that the section takes in the file; pictures count as if they did not compress."""
        return 4 * sum(pixels.nbytes for pixels in self.pictures.values()) // 3
