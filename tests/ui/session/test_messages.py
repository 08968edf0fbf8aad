"""Numbers in words."""

from __future__ import annotations

import numpy as np

from vizapp.engine.arithmetic.stages import signed
from vizapp.ui.widgets import charts


def test_numbers_below_zero_have_a_minus_sign() -> None:
    assert [signed(value) for value in (-0.87514, 12345.6, 0.0)] == ["−0.8751", "1.235e+04", "0"]
    assert charts.texts(np.array([-0.875, 1e-9, 0.004, np.inf])) == ["−0.875", "0", "0.004", "∞"]
    assert charts.texts(np.array([-np.inf])) == ["−∞"]
