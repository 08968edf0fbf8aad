"""The method `ideal` maximizes the requested units at a suitable size, on bundled and real networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import vizapp
from tests.errors import refuses
from tests.networks import Branching, Detectors, seeded
from tests.zoo.shared import shared
from vizapp.engine.optimize.activation_maximization import OptimizationConfig
from vizapp.engine.optimize.image_parametrization import ImageParam
from vizapp.errors import VizError
from vizapp.methods import ideal as method
from vizapp.zoo.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, 64, 64), categories=("a", "b", "c", "d", "e"))


def correlation(picture: np.ndarray, kernel: torch.Tensor) -> float:
    return float(np.corrcoef(picture.astype(float).transpose(2, 0, 1).ravel(), kernel.numpy().ravel())[0, 1])


@pytest.mark.slow
def test_with_the_defaults_too_the_pattern_of_a_known_unit_comes_out() -> None:
    module = Detectors()
    own = vizapp.wrap(module, input_size=(3, 40, 40), mean=0.5, std=0.25)
    for channel in (0, 1):
        result = vizapp.ask("ideal", own, unit=vizapp.Unit("see", channel, (12, 12)))
        assert result.arrays["field"].tolist() == [12, 12, 27, 27]
        assert correlation(result.arrays["pictures"][0, 12:27, 12:27], module.see.weight[channel]) >= 0.9
    exact = vizapp.ask(
        "ideal",
        own,
        unit=vizapp.Unit("see", 0, (12, 12)),
        jitter=0,
        zoom=0,
        turn=0,
        parameters="pixels",
        colours="plain",
    )
    assert correlation(exact.arrays["pictures"][0, 12:27, 12:27], module.see.weight[0]) >= 0.95


def test_arrays_panels_and_table_agree(network) -> None:
    result = vizapp.ask("ideal", network, unit=vizapp.Unit("head", 1), channels="3", steps=8, restarts=2, size=48)
    assert result.arrays["pictures"].shape == (4, 48, 48, 3)
    assert result.arrays["pictures"].dtype == np.uint8
    assert result.arrays["channel"].tolist() == [1, 1, 3, 3]
    assert result.arrays["curve"].shape == (8, 4)
    assert result.arrays["stages"].shape == (len(result.arrays["stage_steps"]), 4, 48, 48, 3)
    assert [panel.title for panel in result.panels] == ["sheet", "b (1)", "b (2)", "d (1)", "d (2)"]
    np.testing.assert_array_equal(result.panels[1].pixels, result.arrays["pictures"][0])
    assert [row["activation"] for row in result.table] == result.arrays["activation"].tolist()
    json.dumps(result.summary(), allow_nan=False)


def test_the_activation_told_is_that_of_the_picture(network) -> None:
    result = vizapp.ask("ideal", network, unit=vizapp.class_unit(network, "c"), steps=20)
    picture = vizapp.open_picture(result.arrays["pictures"][0], "ideal")
    logits = vizapp.ask("predict", network, picture).arrays["logits"]
    assert logits[2] == pytest.approx(result.arrays["activation"][0], rel=0.02)  # pixels are rounded to whole numbers
    assert result.arrays["activation"][0] > result.arrays["begun"][0]


def test_low_layers_get_small_pictures_and_others_the_networks_own_size(network) -> None:
    for unit, side in (
        (vizapp.Unit("stem", 0), 48),
        (vizapp.Unit("stem", 0, (1, 1)), 64),
        (vizapp.Unit("head", 0), 64),
    ):
        assert vizapp.ask("ideal", network, unit=unit, steps=1).arrays["pictures"].shape == (1, side, side, 3)


def test_a_size_that_the_network_cannot_take_is_told() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))
    own = vizapp.wrap(module, input_size=(3, 32, 32))
    with refuses("bad-size", "40 x 40", "32 x 32"):
        vizapp.ask("ideal", own, unit=vizapp.Unit("2", 0), size=40, steps=1)


def test_a_module_name_stands_for_its_last_layer(network) -> None:
    by_name = vizapp.ask("ideal", vizapp.load("vizapp/lenet5-digits"), unit=vizapp.Unit("features", 3), steps=2)
    assert by_name.arrays["pictures"].shape[0] == 1


def test_grey_networks_get_grey_pictures() -> None:
    digits = vizapp.load("vizapp/lenet5-digits")
    result = vizapp.ask("ideal", digits, unit=vizapp.class_unit(digits, 7), steps=60)
    picture = result.arrays["pictures"][0]
    assert (picture[..., 0] == picture[..., 2]).all()
    assert vizapp.ask("predict", digits, vizapp.open_picture(picture, "seven")).table[0]["class"] == 7


@pytest.mark.slow
def test_the_embedded_network_knows_its_ideal_inputs() -> None:
    mini = vizapp.load("vizapp/zfnet-mini")
    classes = [mini.categories.index(name) for name in ("Motorbikes", "Leopards")]
    result = vizapp.ask(
        "ideal", mini, unit=vizapp.Unit(mini.sites[-1].name, classes[0]), channels=str(classes[1]), steps=40
    )
    for picture, number in zip(result.arrays["pictures"], classes, strict=True):
        found = vizapp.ask("predict", mini, vizapp.open_picture(picture, "ideal")).table[0]
        assert found["class"] == number
        assert found["probability"] > 0.5


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"channels": "1, x"}, "channels is '1, x'"),
        ({"channels": "99"}, "channels 0 to 4, not 99"),
        ({"direction": "1:a"}, "direction is '1:a'"),
        ({"direction": "1:0"}, "direction is '1:0'"),
        ({"direction": "7:1"}, "channels 0 to 4, not 7"),
        ({"direction": "1:1", "channels": "2"}, "Give channels or a direction, not both."),
    ],
)
def test_what_cannot_be_read_is_told(network, params: dict[str, str], sentence: str) -> None:
    with pytest.raises(VizError) as caught:
        vizapp.ask("ideal", network, unit=vizapp.Unit("head", 0), steps=1, **params)
    assert sentence in str(caught.value)


def test_every_parameter_reaches_its_place(network, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def reach(module, normalise, targets, sites, canvas, ascent, *rest):  # type: ignore[no-untyped-def]
        raise Reached(targets, canvas, ascent, normalise(torch.full((1, 3, 2, 2), 0.5)))

    monkeypatch.setattr(method, "maximize", reach)
    asked = {
        "steps": 9, "rate": 0.3, "extent": "cell", "restarts": 2, "diversity": 0.7, "variation": 0.1, "l2": 0.2, "seed": 11,
        "size": 60, "parameters": "pixels", "colours": "plain", "contrast": 0.4, "jitter": 0.5, "zoom": 0.25, "turn": 20.0,
    }  # fmt: skip
    with pytest.raises(Reached) as caught:
        vizapp.ask("ideal", network, unit=vizapp.Unit("stem", 0), channels="0, 3", **asked)
    targets, canvas, ascent, grey = caught.value.args
    assert [target.unit.channel for target in targets] == [0, 3]
    assert ascent == OptimizationConfig(9, 0.3, "cell", 2, 0.7, 0.1, 0.2, 11)
    assert canvas == ImageParam(3, 60, 60, "pixels", False, 0.4, 0.5 * 5, 0.25, 20.0), "the stem sees 5 pixels"
    how = network.preprocessing
    expected = [(0.5 - mean) / std for mean, std in zip(how.mean, how.std, strict=True)]
    assert grey[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_field_of_a_cell_at_the_edge_ends_there(network) -> None:
    found = vizapp.ask("ideal", network, unit=vizapp.Unit("stem", 0, (0, 0)), steps=1).arrays["field"]
    assert found[:2].tolist() == [0, 0]
    assert (found[2:] > 0).all()
    middle = vizapp.ask("ideal", network, unit=vizapp.Unit("stem", 0), extent="cell", steps=1, size=48).arrays["field"]
    assert middle.tolist() == [22, 22, 27, 27]  # of a 5 × 5 window at a stride of 2 about cell 12,12


def test_a_dead_unit_is_told() -> None:
    module = Detectors()
    module.see.weight.zero_()
    module.see.bias.fill_(-1.0)
    own = vizapp.wrap(module, input_size=(3, 40, 40))
    result = vizapp.ask("ideal", own, unit=vizapp.Unit("relu", 0), steps=3)
    assert result.facts["silent"].startswith("1 of 1 pictures do not activate their unit")


def test_terms_of_one_channel_in_a_direction_are_added() -> None:
    assert method.read_direction("3:1, 7:-0.5, 3:0.5") == ((3, 1.5), (7, -0.5))


def test_a_direction_is_named_by_its_terms(network) -> None:
    result = vizapp.ask("ideal", network, unit=vizapp.Unit("cat", 0), direction="1:0.5, 3:-1", steps=2)
    assert result.arrays["channel"].tolist() == [-1]
    assert result.table[0]["unit"] == "cat: 0.5 x 1, -1 x 3"


@pytest.mark.slow
def test_squeezenets_classes_are_recognised_by_another_network() -> None:
    """What is painted for SqueezeNet is seen by MobileNet, which had no part in it, far above chance (rank 500 of 1,000).

    Rounding decides which of several pictures of a class the steps reach, so single ranks differ between processors.
    """
    painter = vizapp.load(
        "torchvision/squeezenet1_0", weights=str(shared("weights/squeezenet1_0-imagenet-decompressed.pth"))
    )
    judge = vizapp.load(
        "torchvision/mobilenet_v2", weights=str(shared("weights/mobilenet_v2-imagenet-dequantized.pth"))
    )
    classes = [130, 340, 920, 985]
    unit = vizapp.Unit(painter.sites[-1].name, classes[0])
    result = vizapp.ask("ideal", painter, unit=unit, channels=",".join(map(str, classes[1:])), steps=96, size=128)
    ranks = []
    for picture, number in zip(result.arrays["pictures"], classes, strict=True):
        table = vizapp.ask("predict", judge, vizapp.open_picture(picture, "ideal"), top=1000).table
        ranks.append(1 + [row["class"] for row in table].index(number))
    assert (result.arrays["activation"] > 5 * np.abs(result.arrays["begun"])).all()
    assert np.median(ranks) <= 50, ranks
    assert max(ranks) <= 250, ranks
