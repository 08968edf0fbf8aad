"""The sliding kernel of the page Feature maps: what the browser is given leads to the numbers of the map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks import seeded
from tests.ui.app import Open, components, floats, rgba, shown, went_well
from vizapp.engine.layers.convolution_call import convolution_call
from vizapp.ui.pages.feature_maps.sliding_kernel import data_of


def sums(data: dict) -> np.ndarray:
    """The map by a loop over what the component is given, as its script does it."""
    given, kernel = floats(data["given"], data["size"]), floats(data["kernel"], (data["size"][0], *data["reach"]))
    (sy, sx), (dy, dx), (rows, columns) = data["stride"], data["dilation"], data["cells"]
    found = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            for u in range(data["reach"][0]):
                for v in range(data["reach"][1]):
                    found[row, column] += given[:, row * sy + u * dy, column * sx + v * dx] @ kernel[:, u, v]
    return found + data["bias"]


@pytest.mark.parametrize("cell", [(0, 0), (9, 30), (19, 38)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_numbers_around_a_cell_sum_to_the_map(cell: tuple[int, int], dilation: int) -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 4, (5, 3), stride=(2, 1), padding=(2, 1), dilation=dilation)))
    call = convolution_call(network, torch.rand(1, 3, 40, 41, generator=torch.manual_seed(1)), "0")
    assert call is not None
    rows, columns = call.output.shape[1:]
    cell = min(cell[0], rows - 1), min(cell[1], columns - 1)
    data = data_of(call, 2, cell)
    (top, left), (at, beside) = data["first"], data["at"]
    assert (top + at, left + beside) == cell
    shape = tuple(data["cells"])
    assert shape == (14, 14)
    found = floats(data["map"], shape)
    np.testing.assert_array_equal(found, call.output[2, top : top + 14, left : left + 14])
    np.testing.assert_allclose(sums(data), found, rtol=1e-4, atol=1e-5)
    given = floats(data["given"], data["size"])
    outside = np.zeros(data["size"][1:], bool)
    outside.flat[data["outside"]] = True
    assert not given[:, outside].any(), "padding is zero"
    assert outside.any() == (cell != (9, 30))
    assert (rgba(data["photo"])[outside] == 128).all()


def test_it_is_shown_with_the_first_convolution_and_what_follows_it(open_app: Open) -> None:
    for layer in ("features.0", "features.1"):
        app = open_app("feature_maps", picture="digit 3", layer=layer, channel="4", cell="7,8")
        assert went_well(app)
        data = shown(app, "maps.kernel")
        assert data["names"] == ["Grey"]
        assert [data["first"][axis] + data["at"][axis] for axis in (0, 1)] == [7, 8]
        np.testing.assert_allclose(sums(data), floats(data["map"], tuple(data["cells"])), rtol=1e-4, atol=1e-5)
    for link in ({"layer": "features.3"}, {"layer": "features.2"}, {"layer": "features.0", "view": "numbers"}):
        assert "maps.kernel" not in components(open_app("feature_maps", picture="digit 3", **link), "maps")
