"""The kind "lrp": what its facts say of the engine's answer."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizapp
from tests.networks import Branching, seeded
from vizapp.errors import VizError

PICTURE = np.random.default_rng(3).integers(0, 256, (60, 50, 3), dtype=np.uint8)


def wrapped(module: nn.Module) -> vizapp.Network:
    return vizapp.wrap(seeded(module), input_size=(3, 24, 40))


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", text)]


@pytest.mark.parametrize("rule", ["composite", "depth", "plus", "epsilon", "zero"])
def test_pixels_biases_and_stabilisers_add_up_to_the_unit(rule: str) -> None:
    network = wrapped(Branching())
    res = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 3), kind="lrp", rule=rule)
    with torch.no_grad():
        logit = float(network.module(network.prepare(vizapp.open_picture(PICTURE)))[0, 3])
    pixels, value, biases, stabilisers, gap = numbers(res.facts["conservation"])
    assert value == pytest.approx(logit, rel=1e-3)
    assert pixels == pytest.approx(float(res.arrays["attribution"].sum()), rel=1e-3)
    assert pixels + biases + stabilisers == pytest.approx(logit, abs=1e-3 * max(abs(pixels), abs(biases)))
    assert gap < 1e-5
    assert "caution" not in res.facts


def test_the_certificate_counts_what_the_relevance_passed() -> None:
    network = wrapped(Branching())
    res = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 3), kind="lrp")
    assert res.facts["certificate"] == (
        "layers: 1 by box, 3 by gamma, 1 by epsilon; 2 sums, means and pools in proportion; 4 rectifiers; "
        "1 max pools to their switches."
    )


class Logarithm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.logsumexp(self.conv(x), (2, 3)))


def test_an_operation_without_a_rule_is_refused_by_name() -> None:
    network = wrapped(Logarithm())
    with pytest.raises(VizError, match="no rule for 'logsumexp'"):
        vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 3), kind="lrp")
