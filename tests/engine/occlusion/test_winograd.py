"""Convolutions with fewer products give what the definition gives, rounded as well, whatever the size of the maps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.engine.occlusion.test_repeated_passes import by_hand, pictures
from tests.networks import seeded
from vizapp.engine.occlusion import winograd
from vizapp.engine.occlusion.fused_convolutions import FusedConvolution
from vizapp.engine.occlusion.repeated_passes import RepeatedPasses
from vizapp.engine.occlusion.winograd import WinogradConvolution, pays
from vizapp.engine.trace.sites import survey


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at_once", [1, 3, 256])
@pytest.mark.parametrize(
    ("count", "size", "padding"),
    [(1, (3, 3), (0, 0)), (5, (4, 9), (1, 1)), (2, (14, 7), (1, 1)), (3, (5, 18), (0, 2)), (2, (1, 1), (6, 1)),
     (2, (13, 30), (7, 9))],
)  # fmt: skip
def test_it_is_the_convolution_in_double_precision(
    monkeypatch: pytest.MonkeyPatch, at_once: int, count: int, size: tuple[int, int], padding: tuple[int, int]
) -> None:
    monkeypatch.setattr(winograd, "_TILES", at_once)
    x, weight, bias = noise(count, 5, *size, seed=0), noise(6, 5, 3, 3, seed=1), noise(6, seed=2)
    plain = F.conv2d(x.double(), weight.double(), padding=padding)
    added = noise(*plain.shape, seed=3)
    convolution = WinogradConvolution(weight)
    turned = x.mT.contiguous().mT  # neither layout
    for given in (x, x.contiguous(memory_format=torch.channels_last), turned):
        for expected, found in (
            (plain, convolution(given, None, padding, None, (None, None))),
            ((plain + bias.double()[:, None, None]).clamp_min(0), convolution(given, bias, padding, None, (0.0, None))),
            ((plain + added).clamp(0, 6), convolution(given, None, padding, added, (0.0, 6.0))),
        ):
            assert found.is_contiguous(memory_format=torch.channels_last)
            atol = 1e-5 * float(plain.abs().max())  # sums of few products: rounding of sums of inputs counts
            torch.testing.assert_close(found.double(), expected, atol=atol, rtol=0)


def test_rounding_is_that_of_the_definition() -> None:
    """The points that are usual give errors of 8e-6 here, four times as much as these."""
    x, weight = noise(1, 256, 24, 24, seed=0).relu(), noise(64, 256, 3, 3, seed=1) * math.sqrt(2 / (9 * 256))
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    found = WinogradConvolution(weight)(x, None, (1, 1), None, (None, None))
    assert float((found - expected).abs().max() / expected.abs().max()) < 4e-6


@pytest.mark.parametrize(
    ("weight", "stride", "dilation", "groups", "made", "expected"),
    [
        ((128, 64, 3, 3), 1, 1, 1, (28, 28), True),
        ((64, 64, 3, 3), 1, 1, 1, (28, 28), False),
        ((512, 48, 3, 3), 1, 1, 1, (28, 28), False),
        ((512, 512, 3, 3), 1, 1, 1, (7, 7), True),  # 4 tiles: 144 products for what the definition makes of 441
        ((512, 512, 3, 3), 1, 1, 1, (5, 5), False),  # 144 products and 225
        ((512, 512, 3, 3), 2, 1, 1, (28, 28), False),
        ((512, 512, 3, 3), 1, 2, 1, (28, 28), False),
        ((512, 512, 3, 3), 1, 1, 2, (28, 28), False),
        ((512, 512, 1, 3), 1, 1, 1, (28, 28), False),
        ((512, 512, 5, 5), 1, 1, 1, (28, 28), False),
    ],
)
def test_wide_plain_convolutions_of_maps_that_tiles_fit_use_it(
    weight: tuple[int, ...], stride: int, dilation: int, groups: int, made: tuple[int, int], expected: bool
) -> None:
    found = pays(torch.empty(weight, device="meta"), [stride] * 2, [dilation] * 2, groups, (1, weight[0], *made))
    assert found is expected


class Wide(nn.Module):
    """A stem, and a block as ResNets have it, of 128 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (
            nn.Conv2d(3, 64, 3, 2),
            nn.Conv2d(64, 128, 3),
            nn.Conv2d(128, 128, 3, padding=1),
        )
        self.third, self.norm, self.head = nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128), nn.Linear(128, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem(x).relu(), (1, 2, 0, 1))
        x = F.relu6(self.first(x))
        x = F.relu(self.norm(self.third(F.relu(self.second(x)))) + x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("threads", [1, 2])
def test_repeated_passes_of_wide_convolutions_are_plain_passes(threads: int) -> None:
    module, batch, before = seeded(Wide()), pictures(5, 27), torch.get_num_threads()
    site = survey(module, batch[:1])[-1]
    expected = by_hand(module, batch, site.name)
    torch.set_num_threads(threads)
    try:
        passes = RepeatedPasses(module, batch[:2], site)
        found, again = passes.activations(batch), passes.activations(batch)
    finally:
        torch.set_num_threads(before)
    assert passes._steps is not None
    fused = [step.function for step in passes._steps._plan.steps if isinstance(step.function, FusedConvolution)]
    assert [convolution._winograd is not None for convolution in fused] == [False, True, True, True]
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert torch.equal(found, again)
