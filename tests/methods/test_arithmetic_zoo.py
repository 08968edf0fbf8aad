"""Every convolution and linear layer of torchvision's classifiers and of the classic networks is the sum of its parts."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import vizapp
from tests.test_every_network import CLASSIFIERS, HUGE, small_input
from vizapp.engine.arithmetic.operands import record_operands
from vizapp.engine.arithmetic.origins import Origins
from vizapp.engine.arithmetic.parts import parts_of
from vizapp.engine.operations import WEIGHTED
from vizapp.engine.tap import Tap
from vizapp.engine.trace.recording import Recording
from vizapp.zoo.registry import describe

PLACES = 3  # of each layer
FAST = [
    "vizapp/lenet5-digits",
    "torchvision/mobilenet_v3_small",
    "torchvision/squeezenet1_1",
    "torchvision/shufflenet_v2_x0_5",
]
# One of each kind of design; the others take minutes together.
SLOW = {
    "torchvision/densenet121", "torchvision/efficientnet_b0", "torchvision/googlenet", "torchvision/mnasnet0_5",
    "torchvision/mobilenet_v2", "torchvision/regnet_y_400mf", "torchvision/resnet18", "torchvision/swin_t",
    "vizapp/deeply-supervised-cifar", "vizapp/fractalnet-cifar", "vizapp/highway19-cifar", "vizapp/lenet5-1998",
    "vizapp/network-in-network-cifar", "vizapp/resnet20-cifar", "vizapp/zfnet-mini",
}  # fmt: skip
CLASSIC = [name for name in vizapp.list_networks() if name.startswith("vizapp/")]


def built(name: str) -> tuple[nn.Module, Tensor]:
    """The network on random weights, and an input of the smallest side that it takes."""
    generator = torch.Generator().manual_seed(0)
    if (describe(name).parameters or 0) > HUGE:  # its own initialisation takes minutes
        with pytest.MonkeyPatch.context() as patch:
            for init in (
                "normal_",
                "trunc_normal_",
                "uniform_",
                "kaiming_uniform_",
                "kaiming_normal_",
                "xavier_uniform_",
            ):
                patch.setattr(torch.nn.init, init, lambda tensor, *args, **kwargs: tensor)
            module = torchvision.models.get_model(name.split("/")[1]).eval()
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                value.data.uniform_(-0.02, 0.04, generator=generator)
        for norm in (part for part in module.modules() if getattr(part, "running_var", None) is not None):
            norm.running_var.fill_(1.0)
        size = (224, 224) if "vit" in name else (64, 64)
    else:
        network = vizapp.load(name, weights="none", device="cpu")
        module, side = network.module, small_input(name)
        size = network.input_size[1:] if side is None else (side, side)
        if network.input_size[0] == 1:
            return module, torch.rand(1, 1, *size, generator=generator)
    return module, torch.rand(1, 3, *size, generator=generator)


def weighted(module: nn.Module, batch: Tensor) -> set[str]:
    """The names of the convolutions and linear layers that a pass runs."""
    own = batch.clone()
    with torch.no_grad(), Recording(module, own, set(), None) as recording:
        module(own)
    return {step.name for step in recording.steps if step.operation in WEIGHTED}


def check(module: nn.Module, batch: Tensor, tolerance: float) -> int:
    """Compare some numbers of each layer with the sum of their parts; the number of layers."""
    names = weighted(module, batch)
    recording = record_operands(module, batch, names)
    origins = Origins(recording, {})
    steps = {step.name: step for step in recording.steps if step.name in names and step.operation in WEIGHTED}
    with torch.no_grad(), Tap(module, names) as tap:
        module(batch.clone())
    random = np.random.default_rng(0)
    for name, step in steps.items():
        (value,) = step.outputs
        numbers = recording.numbers[value]
        assert torch.equal(numbers, tap.kept[name]), name  # bit for bit what the page of feature maps shows
        for place in random.integers(0, numbers.numel(), PLACES).tolist():
            parts = parts_of(origins, step, value, place)
            products = parts.weights * parts.patch
            missed = abs(products.sum() + parts.bias - float(numbers.flatten()[place]))
            size = np.abs(products).sum() + abs(parts.bias)
            assert missed <= tolerance * size, (name, parts.words)
    return len(steps)


@pytest.mark.parametrize("name", FAST)
def test_the_parts_sum_to_the_number(name: str) -> None:
    module, batch = built(name)
    layers = sum(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules())
    assert check(module, batch, 1e-5) >= layers
    assert check(module.double(), batch.double(), 1e-12) >= layers


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.families)
        for name in sorted({*CLASSIFIERS, *CLASSIC} - set(FAST))
    ],
)
def test_the_parts_sum_to_the_number_in_the_whole_zoo(name: str) -> None:
    module, batch = built(name)
    assert check(module, batch, 1e-5)
    del module
    gc.collect()
