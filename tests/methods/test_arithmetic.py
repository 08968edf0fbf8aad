"""Arithmetic of a cell: what the method answers, beside the engine's own tests."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import vizapp
from tests.media.files import noise
from tests.networks import Branching, seeded
from vizapp.errors import VizError
from vizapp.zoo.network import Network

PICTURE = noise(48, 48, seed=3)


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), (3, 48, 48), categories=list("abcde"))


def test_every_layer_is_answered_with_the_number_that_activations_shows(network: Network) -> None:
    for site in network.sites:
        channel = site.channels - 1
        maps = vizapp.ask("activations", network, PICTURE, unit=vizapp.Unit(site.name, channel)).arrays["activations"]
        found = vizapp.ask("arithmetic", network, PICTURE, unit=vizapp.Unit(site.name, channel))
        assert found.arrays["value"] == maps[channel].max(), site.name  # bit for bit
        assert found.arrays["error"] < 1e-6
        stages = found.arrays["stages"]
        end = stages[-1, 1] if len(stages) else found.arrays["sum"]
        assert np.float32(end) == found.arrays["value"]
        cell = (0,) * (len(site.shape) - 1) or None
        found = vizapp.ask("arithmetic", network, PICTURE, unit=vizapp.Unit(site.name, 0, cell))
        assert found.arrays["value"] == maps[(0, *(cell or ()))]
        np.testing.assert_array_equal(found.arrays["contributions"], found.arrays["products"].sum((1, 2)))


def test_the_table_lists_the_largest_contributions_first_and_where_to_go_on(network: Network) -> None:
    found = vizapp.ask("arithmetic", network, PICTURE, unit=vizapp.Unit("body", 3, (4, 5)))
    maps = vizapp.ask("activations", network, PICTURE, unit=vizapp.Unit("cat", 0)).arrays["activations"]
    rows, arrays = found.table, found.arrays
    weight, patch = network.module.body.weight[3].double().numpy(), maps[:, 3:6, 4:7].astype(np.float64)
    expected = (weight * patch).sum((1, 2))
    bias = float(network.module.body.bias[3])
    order = np.argsort(-np.abs(expected), kind="stable")
    assert [row["index"] for row in rows] == [row["channel"] for row in rows] == order.tolist()
    np.testing.assert_allclose([row["contribution"] for row in rows], expected[order], rtol=1e-12)
    scale = np.abs(expected).sum() + abs(bias)
    np.testing.assert_allclose([row["share"] for row in rows], expected[order] / scale, rtol=1e-12)
    for row in rows:
        assert row["layer"] == "cat"
        assert row["value"] == maps[row["channel"], row["row"], row["column"]]
        assert arrays["strongest"][row["index"]].tolist() == [row["row"], row["column"]]
    assert arrays["bias"] == bias
    equation = f"{bias:.4g} + Σ {expected.sum():.4g} = {bias + expected.sum():.4g}".replace("-", "−")
    assert found.facts["equation"] == equation
    assert found.facts["layer below"] == "cat; 8 channels, 3 × 3 cells"
    assert [panel.title for panel in found.panels] == ["contributions", "patch", "weights", "products"]


def test_the_first_layer_ends_at_the_pixels_and_a_cell_at_the_border_has_padding(network: Network) -> None:
    found = vizapp.ask("arithmetic", network, PICTURE, unit=vizapp.Unit("relu", 2, (0, 0)))
    photo = network.prepare(PICTURE)[0].numpy()
    assert {row["layer"] for row in found.table} == {None}
    for row in found.table:
        assert row["value"] == photo[row["channel"], row["row"], row["column"]]
    assert found.facts["layer below"].startswith("the photo; 3 channels, 5 × 5")
    assert found.arrays["padded"].sum() == 25 - 9
    assert not found.arrays["products"][:, found.arrays["padded"]].any()


def test_the_equation_of_a_pool_names_its_winner() -> None:
    network = vizapp.wrap(nn.Sequential(nn.MaxPool2d(2)), (3, 48, 48))
    found = vizapp.ask("arithmetic", network, PICTURE, unit=vizapp.Unit("0", 1, (2, 3)))
    winner = float(network.prepare(PICTURE)[0, 1, 4:6, 6:8].max())
    assert found.facts["equation"] == f"max pool of 4 = {winner:.4g}".replace("-", "−")


def test_interventions_are_part_of_what_is_taken_apart(network: Network) -> None:
    unit, silent = vizapp.Unit("body", 3, (4, 5)), [vizapp.Intervention("cat", [2], "scale", 0.0)]
    clean, found = (vizapp.ask("arithmetic", network, PICTURE, unit=unit, interventions=one) for one in ((), silent))
    expected = clean.arrays["contributions"].copy()
    expected[2] = 0
    np.testing.assert_array_equal(found.arrays["contributions"], expected)
    np.testing.assert_allclose(
        found.arrays["value"], clean.arrays["value"] - clean.arrays["contributions"][2], rtol=1e-5
    )


def test_a_walk_leads_from_the_class_to_the_pixels(network: Network) -> None:
    unit = vizapp.class_unit(network, "c")
    found = vizapp.ask("arithmetic", network, PICTURE, unit=unit, walk=30)
    plain = vizapp.ask("arithmetic", network, PICTURE, unit=unit)
    np.testing.assert_array_equal(found.arrays["products"], plain.arrays["products"])
    rows = found.table
    assert (rows[0]["layer"], rows[0]["channel"], rows[0]["contribution"]) == (unit.site, unit.channel, None)
    assert rows[-1]["layer"] is None
    assert rows[-1]["value"] == network.prepare(PICTURE)[0, rows[-1]["channel"], rows[-1]["row"], rows[-1]["column"]]
    for above, row in itertools.pairwise(rows):
        cell = None if above["row"] is None else (above["row"], above["column"])
        its = vizapp.ask("arithmetic", network, PICTURE, unit=vizapp.Unit(above["layer"], above["channel"], cell))
        assert its.arrays["value"] == above["value"]
        (same,) = (one for one in its.table if (one["layer"], one["channel"]) == (row["layer"], row["channel"]))
        assert (same["contribution"], same["share"]) == (row["contribution"], row["share"])
    assert found.facts["walk"] == f"{len(rows) - 1} steps, to the photo at {rows[-1]['row']},{rows[-1]['column']}, " + (
        f"channel {rows[-1]['channel']}."
    )
    assert len(vizapp.ask("arithmetic", network, PICTURE, unit=unit, walk=2).table) == 3


def test_half_precision_and_double_are_answered() -> None:
    for dtype, error in ((torch.bfloat16, 1e-2), (torch.float64, 1e-14)):
        network = vizapp.wrap(seeded(Branching()).to(dtype), (3, 48, 48), categories=list("abcde"))
        found = vizapp.ask("arithmetic", network, PICTURE, unit=vizapp.Unit("head", 1))
        assert found.arrays["error"] < error
        assert found.arrays["value"].dtype == (np.float64 if dtype == torch.float64 else np.float32)


def test_a_cell_that_does_not_exist_is_a_sentence(network: Network) -> None:
    with pytest.raises(VizError, match="has cells 0,0 to 11,11, not 12,0"):
        vizapp.ask("arithmetic", network, PICTURE, unit=vizapp.Unit("body", 3, (12, 0)))
