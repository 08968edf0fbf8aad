"""The kinds of attribution: what all have, and the two that know nothing of the network."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import vizapp
from tests.networks import seeded
from vizapp.methods.attribution import KINDS, AttributionParams
from vizapp.methods.params import knobs
from vizapp.references import CITATION, LINKS, key

PICTURE = np.random.default_rng(3).integers(0, 256, (60, 50, 3), dtype=np.uint8)


def small() -> vizapp.Network:
    layers = [nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return vizapp.wrap(seeded(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4))), input_size=(3, 24, 40))


def test_the_parameter_takes_exactly_the_kinds_in_their_order() -> None:
    assert tuple(knobs(AttributionParams)["kind"].choices) == tuple(KINDS)
    assert all(name == kind.key for name, kind in KINDS.items())


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_names_its_paper_and_a_caution_with_a_paper(name: str) -> None:
    kind = KINDS[name]
    for text in (kind.source, kind.caution):
        assert any(key(found) in LINKS for found in CITATION.finditer(text)), text
    assert kind.caution.endswith(".")


@pytest.mark.parametrize("name", KINDS)
def test_a_map_has_the_size_of_the_input_the_signs_that_it_declares_and_is_repeated_bit_for_bit(name: str) -> None:
    network = small()
    found = [
        vizapp.ask(
            "attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), kind=name, steps=4, masks=8
        )
        for class_ in (0, 1, 2, 3, 0)
    ]
    maps = [each.arrays["attribution"] for each in found]
    assert all((values.shape, values.dtype) == ((24, 40), np.float32) for values in maps)
    assert all(np.isfinite(values).all() for values in maps)
    assert any(values.any() for values in maps)
    assert min(values.min() for values in maps) < 0 if KINDS[name].signed else all((v >= 0).all() for v in maps)
    np.testing.assert_array_equal(maps[0], maps[4])
    assert found[0].facts["limits"] == KINDS[name].caution


def test_random_numbers_are_uniform_and_follow_the_seed_alone() -> None:
    network = small()
    units = [vizapp.class_unit(network, 0), vizapp.Unit("1", 2)]
    maps = [
        vizapp.ask("attribution", network, PICTURE, unit=unit, kind="random", seed=seed).arrays["attribution"]
        for seed in (0, 1) for unit in units
    ]  # fmt: skip
    np.testing.assert_array_equal(maps[0], maps[1])
    assert abs(float(np.corrcoef(maps[0].ravel(), maps[2].ravel())[0, 1])) < 0.1
    for values in maps:
        assert 0 <= values.min() < 0.02
        assert 0.98 < values.max() < 1
        counts = np.histogram(values, 10, (0, 1))[0]
        assert ((counts - 96) ** 2 / 96).sum() < 27.9, "chi-square with 9 degrees of freedom, 0.1 %"


def test_edges_are_the_sobel_gradient_of_the_photo_that_the_network_sees() -> None:
    network = small()
    seen = network.seen(PICTURE).astype(float) / 255
    grey = np.pad(seen @ np.array([0.299, 0.587, 0.114]), 1, mode="edge")
    expected = np.zeros((24, 40))
    for row in range(24):
        for column in range(40):
            cell = grey[row : row + 3, column : column + 3]
            across = (cell[:, 2] - cell[:, 0]) @ [1, 2, 1]
            down = (cell[2] - cell[0]) @ [1, 2, 1]
            expected[row, column] = np.hypot(across, down)
    result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 1), kind="edges")
    np.testing.assert_allclose(result.arrays["attribution"], expected, atol=0.02)  # levels are rounded on the way
    flat = vizapp.ask(
        "attribution", network, np.full((50, 50, 3), 90, np.uint8), unit=vizapp.Unit("1", 0), kind="edges"
    )
    assert not flat.arrays["attribution"].any()
