"""The data that the browser draws, and the downloads."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

from tests.ui.app import pixels
from vizapp.ui.session import downloads
from vizapp.ui.session.messages import escaped
from vizapp.ui.widgets import charts, maps


def test_the_tiles_of_a_sheet_lie_in_the_order_asked_for() -> None:
    values = np.stack([np.full((4, 6), level, np.float32) for level in (0.0, 1.0, 0.5)])
    numbers = {name: np.zeros(3) for name in ("max", "mean", "zeros")}
    data = maps.sheet_data(values, np.array([1, 2, 0]), "layer", numbers)
    sprite = pixels(data["sprite"])
    assert data["items"] == [1, 2, 0]
    assert (data["columns"], data["tile"]) == (2, [4, 6])
    brightness = [int(sprite[r, c].sum()) for r, c in ((0, 0), (0, 6), (4, 0))]
    assert brightness == sorted(brightness, reverse=True)
    assert brightness[0] > brightness[1] > brightness[2]


def test_a_scale_per_channel_shows_weak_channels_too() -> None:
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    one, per = (maps.tiles(np.stack([ramp, ramp * 0.01]), scale) for scale in ("layer", "channel"))
    assert (per[0] == per[1]).all()
    assert one[1].max() < one[0].max()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_break_nothing(bad: float) -> None:
    values = np.zeros((2, 3, 3), np.float32)
    values[0, 1, 1] = bad
    assert len(maps.tiles(values, "layer")) == len(maps.tiles(values, "channel")) == 2
    data = maps.map_data(np.zeros((8, 8, 3), np.uint8), values[0], None, None)
    assert np.isfinite([data["low"], data["high"]]).all()


def test_large_maps_are_made_smaller_for_the_sheet() -> None:
    assert max(maps.tiles(np.random.default_rng(0).random((1, 300, 200)).astype(np.float32), "layer")[0].shape) <= 112


def test_the_browser_gets_the_values_themselves() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    data = maps.map_data(np.zeros((10, 14, 3), np.uint8), values, (1, 2), (-3, 0, 4, 9))
    assert (np.frombuffer(base64.b64decode(data["values"]), "<f4").reshape(5, 7) == values).all()
    assert data["cells"] == [5, 7]
    assert data["field"] == [-3, 0, 4, 9]


def test_downloads_hold_the_arrays_exactly() -> None:
    arrays = {"logits": np.array([1.5, -2.0], np.float32), "label": np.eye(3, dtype=np.int64)}
    with np.load(io.BytesIO(downloads.npz(arrays))) as back:
        assert all((back[name] == array).all() and back[name].dtype == array.dtype for name, array in arrays.items())


def test_file_names_hold_no_paths() -> None:
    assert downloads.file_name("torchvision/resnet50", "../../a b", "ü") == "torchvision-resnet50-..-..-a-b"


def test_file_names_have_one_extension() -> None:
    assert (
        downloads.file_name("transform", "timm/xception41.tf_in1k", "my.cat.JPG")
        == "transform-timm-xception41.tf_in1k-my.cat"
    )


def test_names_are_shown_as_they_are() -> None:
    assert escaped("layer1.0_[x]*") == r"layer1.0\_\[x\]\*"
    figure = charts.value_bars(np.array([1.0, 2.0]), np.array([1, 0]), 0, ["<b>a</b>", "b"])
    assert figure.data[0].customdata[0][1] == " · &lt;b&gt;a&lt;/b&gt;"
