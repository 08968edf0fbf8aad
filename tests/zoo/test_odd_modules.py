"""Modules that cannot be used are refused in a sentence; odd ones that can are answered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizapp
from tests.errors import refuses

PHOTO = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def small(convolution: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    convolution = convolution or nn.Conv2d(3, 4, 3)
    return nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def compiled() -> nn.Module:
    module = small()
    module[0].compile(backend="eager")
    return module


ODD = {
    "exported": (
        lambda: torch.export.export(small().eval(), (torch.zeros(1, 3, 16, 16),)).module(),
        "unsupported-module",
    ),
    "compiled": (compiled, "unsupported-module"),
    "lazy": (lambda: small(nn.LazyConv2d(4, 3)), "module-without-weights"),
}


@pytest.mark.parametrize("name", ODD)
def test_modules_that_cannot_be_used_are_refused(name: str) -> None:
    make, code = ODD[name]
    module = make()
    with refuses(code):
        vizapp.wrap(module, input_size=(3, 16, 16))


class Frozen(nn.Module):
    """A head on a backbone that is computed without gradients."""

    def __init__(self, context) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.body, self.fc, self.context = small()[:4], nn.Linear(4, 2), context

    def forward(self, x: Tensor) -> Tensor:
        with self.context():
            x = self.body(x)
        return self.fc(x * 1.0)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_frozen_backbone_is_projected_through_and_has_no_ideal_input(context) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    frozen = Frozen(context)
    network = vizapp.wrap(frozen, input_size=(3, 16, 16))
    unit = vizapp.class_unit(network, 1)
    found = vizapp.ask("projection", network, PHOTO, unit=unit, rule="gradient", seed="one").arrays["projection"]
    pixels = network.prepare(PHOTO).requires_grad_()
    (expected,) = torch.autograd.grad(frozen.fc(frozen.body(pixels))[0, 1], pixels)
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0).numpy(), atol=1e-7)
    with refuses("detached-unit", "torch.no_grad"):
        vizapp.ask("ideal", network, unit=unit, steps=2)
    for kind in ("integrated_gradients", "smoothgrad", "deeplift"):
        with refuses("detached-unit", "torch.no_grad"):
            vizapp.ask("attribution", network, PHOTO, unit=unit, kind=kind)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ideal_inputs_of_networks_in_half_precision(dtype: torch.dtype) -> None:
    answers = []
    for kind in (torch.float32, dtype):
        network = vizapp.wrap(small().to(dtype).to(kind), input_size=(3, 16, 16))
        answers.append(vizapp.ask("ideal", network, unit=vizapp.class_unit(network, 1), steps=8).arrays)
    shown = [next(value for value in arrays.values() if value.ndim >= 3).astype(float) for arrays in answers]
    assert np.isfinite(shown[1]).all()
    assert np.corrcoef(shown[0].ravel(), shown[1].ravel())[0, 1] > 0.99
