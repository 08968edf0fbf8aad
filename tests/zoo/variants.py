"""Which networks of the zoo are tested in every run, and which only with `pytest -m families`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from vizapp.zoo.registry import describe

LARGE = 80e6  # parameters
SMALLEST = ("vgg", "overfeat", "zfnet", "vit_b")  # families whose smallest members are as large


def parameters(names: Iterable[str], side: int | None = None) -> list[object]:
    """The names as parameters of a slow test; a large variant of a family repeats what its smaller ones do.

    Large are also networks whose input is longer than `side`.
    """
    found = []
    for name in names:
        card = describe(name)
        large = (card.parameters or 0) > LARGE and not name.split("/")[1].startswith(SMALLEST)
        wide = side is not None and max(card.input_size[1:]) > side
        found.append(pytest.param(name, marks=pytest.mark.families if large or wide else pytest.mark.slow))
    return found
