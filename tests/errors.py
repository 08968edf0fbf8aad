"""Assertions about errors by code and by what they mention. The full messages are in `sentences.txt`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vizapp.errors import VizError


@contextmanager
def refuses(code: str, *names: str) -> Iterator[pytest.ExceptionInfo[VizError]]:
    """The block must raise a VizError with this code, whose one-line sentence contains all `names`."""
    with pytest.raises(VizError) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    assert "\n" not in str(caught.value)
    for name in names:
        assert name in str(caught.value)
