"""Parts of a pass that cannot be traced are refused wherever they are; similar parts that can be traced are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import vizapp
from tests.errors import refuses
from tests.networks import seeded
from vizapp.errors import VizError


@torch.jit.script
def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@torch.jit.script
def ramp(count: int) -> Tensor:
    return torch.arange(count) / count


class Own(torch.autograd.Function):
    """Its forward is run by torch in the open."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient


def forward_mode(x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(torch.sin(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


class Branch(nn.Module):
    """A trunk with something beside it."""

    def __init__(self, beside: nn.Module) -> None:
        super().__init__()
        self.trunk, self.beside, self.head = nn.Conv2d(3, 4, 3, padding=1), beside, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        return self.head((x + self.beside(x)).relu().mean((2, 3)))


class Call(nn.Module):
    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def wrapped(beside: nn.Module) -> vizapp.zoo.network.Network:  # type: ignore[name-defined]
    return vizapp.wrap(seeded(Branch(beside)), input_size=(3, 12, 12), categories=["a", "b"])


def test_a_scripted_function_on_a_branch_is_refused() -> None:
    with pytest.raises(VizError, match=r"\(sigmoid …\)"):
        _ = wrapped(Call(swish)).sites


@pytest.mark.parametrize("made", [torch.jit.script, lambda part: torch.jit.trace(part, torch.zeros(1, 4, 12, 12))])
def test_a_scripted_part_is_refused(made) -> None:
    with pytest.raises(VizError, match="TorchScript"):
        wrapped(made(nn.Conv2d(4, 4, 1)))
    with pytest.raises(VizError, match="TorchScript"):
        wrapped(nn.Sequential(nn.ReLU(), made(nn.Conv2d(4, 4, 1))))


@pytest.mark.parametrize(
    "function",
    [lambda x: x * ramp(12), Own.apply, lambda x: torch.ops.aten.relu(x) * 2],
    ids=["constant", "own", "aten"],
)
def test_what_does_not_hide_the_picture_is_not_refused(function) -> None:
    sites = wrapped(Call(function)).sites
    assert sites[-1].name == "head"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.vmap(lambda one: one.flip(1))(x),
        lambda x: torch.vmap(torch.vmap(torch.sigmoid, in_dims=1), in_dims=1)(x).movedim(1, 2),
        lambda x: torch.func.grad(lambda y: (y**3).sum())(x),
        lambda x: torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))[1],
        lambda x: torch.func.jvp(torch.sin, (torch.ones(1, 4, 12, 12),), (x,))[1],
        lambda x: torch.func.vjp(torch.sin, x)[1](torch.ones_like(x))[0],
        lambda x: x * torch.func.jacrev(torch.sin)(x.mean()),
        forward_mode,
    ],
    ids=["vmap", "nested", "grad", "jvp", "tangent", "vjp", "jacrev", "forward mode"],
)
def test_what_runs_under_torch_func_is_refused(function) -> None:
    with refuses("hidden-operation"):
        _ = wrapped(Call(function)).sites


@pytest.mark.parametrize(
    "function",
    [
        torch.vmap(torch.sin),
        lambda ones: torch.func.jvp(torch.sin, (ones,), (ones,))[1],
        lambda ones: forward_mode(ones),
    ],
)
def test_torch_func_of_weights_alone_is_not_refused(function) -> None:
    sites = wrapped(Call(lambda x: x * function(torch.ones(4, 1, 1)))).sites
    assert sites[-1].name == "head"


@pytest.mark.parametrize("backward", [True, False])
def test_a_gradient_inside_of_the_forward_pass_is_refused_by_projections(backward: bool) -> None:
    def energy(x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            if backward:
                (y**3).sum().backward()
                return y.grad
            return torch.autograd.grad((y**3).sum(), y)[0]

    network, picture = wrapped(Call(energy)), torch.zeros(20, 20, 3, dtype=torch.uint8).numpy()
    with refuses("no-derivative", "inside its forward pass"):
        vizapp.ask("projection", network, picture, unit=vizapp.class_unit(network, 1))
    assert vizapp.ask("activations", network, picture, unit=vizapp.Unit("head", 1)).arrays


def test_every_question_about_such_a_network_gets_the_sentence() -> None:
    network = wrapped(Call(swish))
    picture = vizapp.open_picture(torch.zeros(20, 20, 3, dtype=torch.uint8).numpy())
    for method in ("projection", "architecture", "dense", "occlusion"):
        unit = vizapp.Unit("head", 1) if method == "projection" else None
        with pytest.raises(VizError, match="cannot be observed"):
            vizapp.ask(
                method, network, picture, unit=unit, **({"window": 4, "stride": 4} if method == "occlusion" else {})
            )
    assert len(vizapp.ask("predict", network, picture).table) == 2
