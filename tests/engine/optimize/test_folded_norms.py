"""Passes with folded batch norms, against plain passes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.networks import seeded
from vizapp.engine.optimize.folded_norms import FoldingTap, fold_norms
from vizapp.engine.tap import Tap


class Normed(nn.Module):
    """Convolutions with a norm: alone, read twice, without bias, called twice, and with statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 1)
        self.norm_one, self.norm_two, self.norm_three = (nn.BatchNorm2d(4) for _ in range(3))
        self.loose = nn.BatchNorm2d(4, track_running_stats=False)
        for norm in (self.norm_one, self.norm_two, self.norm_three):
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(values, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm_one(self.one(x)))
        twice = self.two(x)
        x = self.norm_two(twice) + twice
        x = self.norm_three(self.three(x))
        return self.loose(self.three(x)).flatten(1)


def test_what_a_pass_computes_and_its_gradient_stay() -> None:
    module = seeded(Normed()).double()
    pictures = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = ["norm_one", "norm_three", "flatten"]
    norms = fold_norms(module, pictures[:1], wanted)
    assert {convolution: norm.name for convolution, norm in norms.items()} == {"one": "norm_one", "three": "norm_three"}
    kept, gradients = [], []
    for tap in (Tap(module, wanted), FoldingTap(module, wanted, norms)):
        shown = pictures.clone().requires_grad_()
        with tap:
            module(shown)
        kept.append(tap.kept)
        gradients += torch.autograd.grad(tap.kept["flatten"].square().sum() + tap.kept["norm_one"].sum(), shown)
    torch.testing.assert_close(kept[1], kept[0])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_folded_norm_does_not_run() -> None:
    module = seeded(Normed())
    norms = fold_norms(module, torch.rand(1, 3, 12, 12), ["norm_two"])
    module.norm_one.running_mean.fill_(torch.nan)  # type: ignore[operator, union-attr]
    with FoldingTap(module, ["norm_two"], norms) as tap:
        module(torch.rand(2, 3, 12, 12))
    assert tap.kept["norm_two"].isfinite().all()


def test_a_wanted_convolution_and_one_with_new_weights_stay_without_norm() -> None:
    module, picture = seeded(Normed()), torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    assert not fold_norms(module, picture, ["one", "norm_one"])
    norms = fold_norms(module, picture, ["norm_one"])
    module.one.weight = nn.Parameter(2 * module.one.weight)
    expected = module.norm_one(module.one(picture))
    with FoldingTap(module, ["norm_one"], norms) as tap:
        module(picture)
    torch.testing.assert_close(tap.kept["norm_one"], expected)


def test_rounded_weights_are_not_rounded_again() -> None:
    assert not fold_norms(seeded(Normed()).bfloat16(), torch.rand(1, 3, 12, 12).bfloat16(), ["norm_one"])
