"""Repeated passes give what plain passes give, whatever is folded into the convolutions of a network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from tests.networks import Aliasing, Branching, Choosing, seeded
from vizapp.engine.occlusion import fused_convolutions, repeated_passes
from vizapp.engine.occlusion.repeated_passes import RepeatedPasses
from vizapp.engine.trace.sites import survey


class Norms(nn.Module):
    """Batch norms in every place: after a convolution, as a function, after a shared one, before an addition, alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.grouped, self.dilated = nn.Conv2d(8, 8, 3, 1, 1, groups=4), nn.Conv2d(8, 8, 3, 1, 2, dilation=2)
        self.twice, self.shared = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.wide, self.up = nn.Conv2d(8, 8, (1, 5), padding="same"), nn.ConvTranspose2d(8, 8, 2, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y = self.grouped(x)
        y = F.batch_norm(y, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
        y = F.relu6(y + x)
        z = self.twice(y)
        y = torch.relu(self.shared(z)) + self.twice(z)  # z is read twice, and so is its convolution
        y = F.relu(x + self.shared(self.dilated(y)), inplace=True)
        y = self.shared(self.up(self.wide(y)))
        return self.head(y.clamp_min(0).mean((2, 3)))


class Residual(nn.Module):
    """A block as ResNets have it, in place, with a convolution on the short cut, and one of several uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.short, self.norms = nn.Conv2d(3, 6, 1), nn.ModuleList(nn.BatchNorm2d(6) for _ in range(3))
        self.relu, self.last = nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[1](self.second(self.relu(self.norms[0](self.first(x)))))
        y += self.norms[2](self.short(x))
        y = self.relu(y)
        z = self.second(y)
        z = z + z
        z = torch.add(self.second(z), y, alpha=2)
        z = z + z.mean((2, 3), keepdim=True)
        return self.last(self.second(z) + z.mean((2, 3), keepdim=True)).flatten(1)


class BatchStatistics(nn.Module):
    """A batch norm that takes its mean from the pictures of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), None, None, training=True).mean((2, 3))


def drawn(module: nn.Module) -> nn.Module:
    """With random weights, and norms that change what they get."""
    module, generator = seeded(module), torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.running_mean, part.running_var, part.weight.data, part.bias.data):
                tensor.uniform_(0.3, 1.3, generator=generator)
    return module


def pictures(count: int, side: int = 24, seed: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_hand(module: nn.Module, batch: Tensor, site: str) -> Tensor:
    """The activations of a site, one picture after the other, as `observe` sees them."""
    network = vizapp.wrap(module, input_size=tuple(batch.shape[1:]))
    return torch.cat(
        [vizapp.engine.trace.observe.observe(module, one, [network.site(site)])[site] for one in batch.split(1)]
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "norms": Norms, "residual": Residual, "branching": Branching, "aliasing": Aliasing,
    "sequential": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), nn.ReLU6(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, groups=6),
        nn.LeakyReLU(), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7), nn.ReLU(),
        nn.Linear(7, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_every_site_has_the_activations_of_plain_passes(name: str) -> None:
    module = drawn(NETWORKS[name]())
    batch, some = pictures(7), pictures(2, seed=3)
    used = 0
    for site in survey(module, batch[:1]):
        passes = RepeatedPasses(module, some, site)
        expected = by_hand(module, batch, site.name)
        found = passes.activations(batch)
        assert found.shape == expected.shape
        error = float((found - expected).abs().max() / expected.abs().max())
        assert error <= 1e-5, site.name
        told = passes.facts["evaluation"]
        assert "Checked on 2 photos" in told or told.endswith(
            (": few of its multiply-adds are in convolutions.", "writes what it sees into a buffer of its own.")
        )
        used += "Checked" in told
    assert used >= 3


def test_norms_sums_and_rectifiers_run_inside_the_convolutions() -> None:
    """Of a ResNet's block nothing but convolutions is left."""
    module = drawn(Residual())
    module.last = nn.Identity()
    recorded = repeated_passes._Steps(
        module, pictures(1), next(s for s in survey(module, pictures(1)) if s.name == "relu_1")
    )
    assert [step.name for step in recorded._plan.steps] == ["relu", "norms.2", "relu_1"]


def test_pictures_run_in_groups_that_fit_the_caches_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = drawn(Branching()), pictures(9)
    site = survey(module, batch[:1])[-1]
    expected = by_hand(module, batch, site.name)
    for bytes_ in (1, 40_000, 1e9):
        monkeypatch.setattr(repeated_passes, "CACHE", bytes_)
        found = RepeatedPasses(module, batch[:1], site).activations(batch)
        torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("module", [Choosing(), BatchStatistics()])
def test_a_network_that_may_not_be_recorded_runs_picture_by_picture(module: nn.Module) -> None:
    module, batch = drawn(module), pictures(4)
    site = survey(module, batch[:1])[-1]
    passes = RepeatedPasses(module, batch[:2], site)
    assert passes.facts["evaluation"].startswith("Plain passes: ")
    torch.testing.assert_close(passes.activations(batch), by_hand(module, batch, site.name), atol=1e-6, rtol=0)


def test_a_wrong_fusion_is_noticed_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused_convolutions._CLAMPS, "relu", ("hardtanh", [0.0, 0.01]))
    module, batch = drawn(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))), pictures(4)
    site = survey(module, batch[:1])[-1]
    passes = RepeatedPasses(module, batch[:2], site)
    assert "off by" in passes.facts["evaluation"]
    expected = by_hand(module, batch, site.name)
    torch.testing.assert_close(passes.activations(batch), expected, atol=1e-6 * float(expected.abs().max()), rtol=0)


def test_networks_of_other_types_and_of_matrix_products_keep_plain_passes() -> None:
    double = drawn(Branching()).double()
    batch = pictures(3).double()
    site = survey(double, batch[:1])[-1]
    found = RepeatedPasses(double, batch[:1], site).activations(batch)
    torch.testing.assert_close(found, by_hand(double, batch, site.name), atol=1e-12, rtol=1e-12)
    linear = seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 4)))
    passes = RepeatedPasses(linear, pictures(1), survey(linear, pictures(1))[-1])
    assert passes.facts["evaluation"] == "Plain passes: few of its multiply-adds are in convolutions."
