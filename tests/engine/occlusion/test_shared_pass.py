"""The pass that a sweep records serves projections of its site as a pass of their own would."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn

from tests.engine import random_networks as drawn
from tests.networks import Aliasing, Branching, seeded
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.engine.projection.project import project, project_recording
from vizapp.engine.projection.rules import Deconvnet, GuidedBackprop, Rule
from vizapp.engine.trace.recording import Recording
from vizapp.engine.trace.sites import Site, Unit, survey
from vizapp.errors import VizError

BOXES = [(top, left, top + 12, left + 12) for top in (0, 10, 20) for left in (0, 14)]


def check(module: nn.Module, clean: Tensor, rule: Rule) -> None:
    """At each site: the same answers with and without the rule, and the same projections along either pass."""
    apart = copy.deepcopy(module)
    for site in [site for site in survey(module, clean) if site.is_map]:
        plain = Sweep(apart, apart, clean, torch.zeros_like(clean), BOXES, site)
        sweeps = [Sweep(module, module, clean, torch.zeros_like(clean), BOXES, site, rule=rule) for _ in range(2)]
        for sweep in sweeps:  # with a plan of its own, then with the kept one
            for one, other in zip(sweep.batches(channel=0), plain.batches(channel=0), strict=True):
                assert torch.equal(one.scores, other.scores)
                assert torch.equal(one.sums, other.sums)
            (recording,) = sweep.recordings
            assert recording is not None
            same_projections(recording, site, module, clean, rule)


def same_projections(recording: Recording, site: Site, module: nn.Module, clean: Tensor, rule: Rule) -> None:
    units = [Unit(site.name, 0)]
    try:
        (expected,) = project(module, clean, units, [site], rule, extent="map")
    except VizError as error:
        with pytest.raises(VizError, match=re.escape(str(error))):
            project_recording(recording, site, units, rule, "value", "map", None)
        return
    found = project_recording(recording, site, units, rule, "value", "map", None)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.activations, expected.activations)
    assert (found.certificate, found.ends) == (expected.certificate, expected.ends)


@pytest.mark.parametrize("rule", [Deconvnet(), GuidedBackprop()], ids=["deconvnet", "guided"])
@pytest.mark.parametrize("made", [Branching, Aliasing])
def test_known_networks(made: type[nn.Module], rule: Rule) -> None:
    check(seeded(made()), torch.randn(1, 3, 32, 30, generator=torch.Generator().manual_seed(1)), rule)


@pytest.mark.parametrize("index", range(4))
def test_blocks_of_networks(index: int) -> None:
    torch.manual_seed(index)
    block = [drawn.Residual(3, 2), drawn.Concatenation(2), drawn.Gate(), drawn.Shuffle()][index]
    body = [nn.MaxPool2d(3, 2), nn.ReLU(inplace=True), block, nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True)]
    module = drawn.Drawn(body, "pool", (32, 30)).double().eval().requires_grad_(False)
    check(module, torch.randn(1, 3, 32, 30, dtype=torch.float64), Deconvnet())
