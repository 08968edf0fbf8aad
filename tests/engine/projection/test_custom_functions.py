"""Custom autograd functions in projections, against float64 autograd of the network itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionMeta, once_differentiable
from torch.utils.checkpoint import checkpoint

from tests.errors import refuses
from tests.networks import seeded
from tests.oracles import rectified
from vizapp.engine.projection.project import Certificate, Projections, project
from vizapp.engine.projection.rules import RULES, rule_named
from vizapp.engine.trace.sites import Unit, survey

PICTURE = torch.randn(1, 3, 8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class StraightThrough(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class Reversal(Function):
    """Returns its input itself; `strength` is no tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * g, None


class Quantized(Function):
    """In the newer style, with a saved mask; the gradient is clipped."""

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return (x.clamp(low, high) * 4).round() / 4

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, low, high = inputs
        ctx.save_for_backward((x >= low) & (x <= high))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return (g * inside).clamp(-1e-3, 2e-3), None, None


class Product(Function):
    """Several inputs and outputs; what it computes for an input depends on `needs_input_grad`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(x, y, weight)
        index = (x > y).long()
        ctx.mark_non_differentiable(index)
        return x * y, index, F.conv2d(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor, h: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight = ctx.saved_tensors
        down = 0.5 * g * y + F.conv_transpose2d(h, weight)
        return down if ctx.needs_input_grad[0] else None, -g * x if ctx.needs_input_grad[1] else None, None


class InPlace(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * g


class Outer(Function):
    """Calls another custom function, whose backward pass autograd never runs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Reversal.apply(x, 1.0) * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 5 * g


class DataDependent(Function):
    """A backward pass that torch cannot run on a batch of signals."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g / float(g.norm()) if float(g.abs().max()) > 0 else g


class OfNumpy(Function):
    """A forward pass that torch does not see."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy().round())

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 0.5 * g


stored: Callable[..., Any] = StraightThrough.apply  # before any projection, as networks do


def product(x: Tensor) -> Tensor:
    one, index, two = Product.apply(x, x.flip(1), torch.linspace(-1, 1, 16, dtype=x.dtype).view(4, 4, 1, 1))
    return one + two * index


def overwritten(x: Tensor) -> Tensor:
    y = x * 1
    view = y[:, :2]
    InPlace.apply(y)
    return torch.cat([view, y[:, 2:]], 1)


OWN: dict[str, Callable[[Tensor], Tensor]] = {
    "straight through": StraightThrough.apply,
    "stored": stored,
    "reversal": lambda x: Reversal.apply(x, 0.7),
    "beside its input": lambda x: 3 * Reversal.apply(x, 0.7) + x.abs(),
    "quantized": lambda x: Quantized.apply(x, -1.0, 1.0),
    "several": product,
    "in place": lambda x: InPlace.apply(x * 1),
    "in place, seen through a view": overwritten,
    "nested": Outer.apply,
    "of numpy": lambda x: x + OfNumpy.apply(x),
    "of a weight": lambda x: (
        x * StraightThrough.apply(nn.Parameter(torch.linspace(-1, 1, 7, dtype=x.dtype))) + Outer.apply(x)
    ),
    "twice": lambda x: Reversal.apply(Outer.apply(x), 2.0),
}


class Net(nn.Module):
    def __init__(self, operation: Callable[[Tensor], Tensor], relu: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.operation, self.relu = operation, relu
        self.first, self.last, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation(self.relu(self.first(x)) - 0.3)
        return self.head(self.relu(self.last(x)).mean((2, 3)))


def net(operation: Callable[[Tensor], Tensor], relu: Callable[[Tensor], Tensor] = F.relu) -> Net:
    return seeded(Net(operation, relu)).double()


def projected(module: nn.Module, site: str, rule: str, channels: tuple[int, ...] = (1, 2)) -> Projections:
    units = [Unit(site, channel) for channel in channels]
    (found,) = project(module, PICTURE, units, survey(module, PICTURE), rule_named(rule), seed="one")
    return found


def by_autograd(module: nn.Module, channel: int) -> Tensor:
    pictures = torch.cat([PICTURE, PICTURE.flip(3)]).requires_grad_()
    return torch.autograd.grad(module(pictures)[0, channel], pictures)[0][0]


@pytest.mark.parametrize("name", OWN)
def test_the_signal_passes_a_custom_function_by_its_own_backward_pass(name: str) -> None:
    """Under each rule: what the rules do at rectifiers is put into the judge's backward pass."""
    for rule in RULES:
        relu = F.relu if rule == "gradient" else lambda x, rule=rule: rectified(x, F.relu(x), rule)
        found = projected(net(OWN[name]), "head", rule)
        for values, channel in zip(found.values, (1, 2), strict=True):
            expected = by_autograd(net(OWN[name], relu), channel)
            assert float(expected.abs().max()) > 0
            torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)
        assert found.certificate.custom == (2 if name == "twice" else 1), rule


def test_signals_of_several_units_go_one_by_one() -> None:
    """A function that normalizes its signal: the pictures of both units are those of each alone."""
    module = net(DataDependent.apply)
    found = projected(module, "head", "gradient")
    pixels = PICTURE.clone().requires_grad_()
    for values, channel in zip(found.values, (1, 2), strict=True):  # one picture: the norm is of a whole batch
        torch.testing.assert_close(values, torch.autograd.grad(module(pixels)[0, channel], pixels)[0][0])


def test_the_result_of_a_custom_function_is_a_unit() -> None:
    """Autograd's derivative of the function's result, although the site's operation ran inside of it."""
    module = net(StraightThrough.apply)
    row, column = divmod(int(module.first(PICTURE)[0, 2].argmax()), 7)  # where the rectifier below is active
    unit = Unit("sign", 2, (row, column))
    (found,) = project(module, PICTURE, [unit], survey(module, PICTURE), rule_named("gradient"), seed="one")
    pixels = torch.cat([PICTURE, PICTURE]).requires_grad_()
    value = module.operation(module.relu(module.first(pixels)) - 0.3)[0, 2, row, column]
    expected = torch.autograd.grad(value, pixels)[0][0]
    assert expected.any()
    torch.testing.assert_close(found.values[0], expected)


class Rectifier(Function):
    """Its backward pass is the derivative of its forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.relu()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return g * (y > 0)


@pytest.mark.parametrize(
    "operation", [Rectifier.apply, lambda x: checkpoint(F.relu, x, use_reentrant=True)], ids=["own", "checkpoint"]
)
def test_a_function_that_differentiates_truly_gets_the_rules_of_its_operations(
    operation: Callable[..., Tensor],
) -> None:
    for rule in RULES:
        own, plain = projected(net(operation), "head", rule), projected(net(F.relu), "head", rule)
        torch.testing.assert_close(own.values, plain.values)
        assert own.certificate == plain.certificate
    assert own.certificate == Certificate(differentiated=3)


class Clipped(Function):
    """The identity; only large gradients show that it is not differentiated truly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.clamp(-100, 100)


def test_functions_that_clip_large_gradients_are_found() -> None:
    assert projected(net(Clipped.apply), "head", "deconvnet").certificate.custom == 1


class WithoutBackward(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2


class Failing(WithoutBackward):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        raise ValueError("for training only\nsecond line")


@pytest.mark.parametrize(("function", "reason"), [(WithoutBackward, "backward"), (Failing, "for training only")])
def test_a_backward_pass_that_fails_is_told(function: type[Function], reason: str) -> None:
    module = net(lambda x: x + function.apply(x))
    with refuses("custom-backward", function.__name__, reason):
        projected(module, "head", "gradient")
    projected(module, "first", "gradient")  # below the function


def test_torch_is_left_as_it_was() -> None:
    assert "__getattribute__" not in vars(FunctionMeta)
    module, started, done, other = (
        net(lambda x: (started.set(), done.wait(5), Outer.apply(x))[2]),
        threading.Event(),
        threading.Event(),
        [],
    )
    started_by = threading.Thread(target=lambda: other.append(projected_alone()))

    def projected_alone() -> Any:
        started.wait(5)
        result = projected(net(StraightThrough.apply), "head", "gradient")  # opens and closes while the other pass runs
        done.set()
        return result

    sites = (done.set(), survey(module, PICTURE))[1]
    started.clear(), done.clear()
    started_by.start()
    (found,) = project(module, PICTURE, [Unit("head", 1)], sites, rule_named("gradient"), seed="one")
    started_by.join()
    assert found.certificate.custom == other[0].certificate.custom == 1
    assert "__getattribute__" not in vars(FunctionMeta)
