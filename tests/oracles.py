"""Slow, plain re-implementations, as close to the definitions as possible."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vizapp.engine.tap import Tap


class _PositiveAndUngated(TorchFunctionMode):
    """Rectifiers let everything through, a maximum depends on its whole window, a gate on both factors."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        name = func.__name__.rstrip("_")
        if name in {"relu", "hardtanh", "silu", "gelu", "hardswish", "sigmoid"}:
            return args[0] * 1.0
        if name == "batch_norm":
            return args[0] * 1.0
        if name == "mul" and all(isinstance(arg, Tensor) for arg in args):
            return args[0] + args[1]  # depends on both as a product does; products of many gates would underflow
        if name == "layer_norm":  # every number depends on all of those that are normalised together
            shape = args[1] if len(args) > 1 else kwargs["normalized_shape"]
            return args[0] + args[0].mean(tuple(range(-len(shape), 0)), keepdim=True)
        if name == "max_pool2d":
            return _sum_of_windows(*args, **kwargs)
        if name == "adaptive_max_pool2d":
            return F.adaptive_avg_pool2d(args[0], args[1])
        return func(*args, **kwargs)


def _sum_of_windows(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, **_):  # type: ignore[no-untyped-def]
    pair = lambda value: (value, value) if isinstance(value, int) else tuple(value)  # noqa: E731
    kernel, stride, padding, dilation = pair(kernel_size), pair(stride or kernel_size), pair(padding), pair(dilation)
    shape = F.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode).shape
    need = [(shape[2 + i] - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - padding[i] for i in range(2)]
    extra = [max(0, need[i] - x.shape[2 + i]) for i in range(2)]
    x = F.pad(x, (padding[1], extra[1], padding[0], extra[0]))
    ones = torch.ones(x.shape[1], 1, *kernel, dtype=x.dtype)
    return F.conv2d(x, ones, stride=stride, dilation=dilation, groups=x.shape[1])[:, :, : shape[2], : shape[3]]


Box = tuple[int, ...]


def with_positive_weights(module: nn.Module) -> nn.Module:
    """A copy in float64 whose weights are all positive, for `fields_by_backward`."""
    module = copy.deepcopy(module).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0 / max(1, parameter[0].numel()))
    return module


def fields_by_backward(
    module: nn.Module, batch: Tensor, cells: Mapping[str, Iterable[tuple[int, int]]]
) -> dict[str, dict[tuple[int, int], Box | None]]:
    """(top, left, bottom, right) of the input pixels with a non-zero gradient from all channels of each cell of each site.

    None for a cell that no pixel reaches (a cell of a padded border). The module is one `with_positive_weights`.
    """
    picture = torch.ones_like(batch, dtype=torch.float64).requires_grad_()
    with _PositiveAndUngated(), Tap(module, set(cells)) as tap:
        module(picture)
    found: dict[str, dict[tuple[int, int], Box | None]] = {}
    for site, chosen in cells.items():
        value, found[site] = tap.kept[site], {}
        for row, column in chosen:
            target = value[:, :, row, column].sum() if value.ndim == 4 else value.sum()
            (gradient,) = torch.autograd.grad(target, picture, retain_graph=True)
            found[site][row, column] = _box_of(gradient)
    return found


def _box_of(gradient: Tensor) -> Box | None:
    seen = gradient[0].abs().sum(0) > 0
    rows, columns = torch.nonzero(seen.any(1)).flatten(), torch.nonzero(seen.any(0)).flatten()
    if len(rows) == 0:
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


# ------------------------------------------------------------------------------------------------------- projections


def explicit_projection(
    layers: list[nn.Module], picture: Tensor, channel: int, rule: str, seed: str = "value"
) -> Tensor:
    """Zeiler & Fergus's section 2.1 written out for a sequence of layers: `[3 H W]` from the last one's strongest cell.

    Linear layers are taken as convolutions that cover the map. `rule` is deconvnet, guided or gradient.
    """
    forward: list[tuple[nn.Module, Tensor, Tensor, Tensor | None]] = []
    x = picture
    for layer in layers:
        switches = None
        before = x
        if isinstance(layer, nn.MaxPool2d):
            x, switches = F.max_pool2d(
                x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
            )
        elif isinstance(layer, nn.ReLU):
            x = x.clamp(min=0)
        else:
            x = layer(x)
        forward.append((layer, before, x, switches))
    signal = torch.zeros_like(x)
    flat = int(x[0, channel].argmax())
    value = x[0, channel].flatten()[flat] if seed == "value" else torch.ones((), dtype=x.dtype)
    signal[0, channel].view(-1)[flat] = value
    for layer, before, after, switches in reversed(forward):
        if isinstance(layer, nn.ReLU):
            gate = (after > 0).to(signal.dtype)
            signal = {
                "deconvnet": signal.clamp(min=0),
                "guided": signal.clamp(min=0) * gate,
                "gradient": signal * gate,
            }[rule]
        elif isinstance(layer, nn.MaxPool2d):
            assert switches is not None
            below = torch.zeros_like(before).flatten(2)
            for place in range(signal.shape[2] * signal.shape[3]):  # one region after the other: overlaps sum
                at = switches.flatten(2)[:, :, place : place + 1]
                below.scatter_add_(2, at, signal.flatten(2)[:, :, place : place + 1])
            signal = below.view_as(before)
        elif isinstance(layer, nn.Conv2d):
            size = [
                before.shape[2 + i]
                - ((signal.shape[2 + i] - 1) * layer.stride[i] - 2 * layer.padding[i]
                   + layer.dilation[i] * (layer.kernel_size[i] - 1) + 1)
                for i in range(2)
            ]  # fmt: skip
            signal = F.conv_transpose2d(
                signal, layer.weight, None, layer.stride, layer.padding, tuple(size), layer.groups, layer.dilation
            )
        elif isinstance(layer, nn.Linear):
            signal = signal @ layer.weight
        elif isinstance(layer, nn.BatchNorm2d):
            scale = layer.weight / (layer.running_var + layer.eps).sqrt()
            signal = signal * scale[None, :, None, None]
        elif isinstance(layer, (nn.Flatten,)):
            signal = signal.view_as(before)
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            assert before.shape == after.shape, "written out for pools that change nothing"
        elif not isinstance(layer, (nn.Dropout, nn.LocalResponseNorm)):  # both are identities
            raise TypeError(layer)
    return signal[0]


class Steered(TorchFunctionMode):
    """Any network under autograd, with the rule of the rectifiers put into its backward pass: slow, whole, one by one."""

    EXTENDED = frozenset(
        {"hardtanh", "relu6", "silu", "gelu", "hardswish", "sigmoid", "hardsigmoid", "leaky_relu", "tanh"}
    )

    OF_GATES = frozenset({
        "sub", "rsub", "neg", "__rsub", "expand_as", "expand", "view_as", "view", "reshape", "repeat", "unsqueeze", "squeeze",
        "chunk", "split",
    })  # fmt: skip

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.rule = rule

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        name = func.__name__.rstrip("_")
        if name == "local_response_norm" and self.rule != "gradient":  # its own value, the derivative of the identity
            return args[0] + (func(*args, **kwargs) - args[0]).detach()
        if name == "mul" and self.rule != "gradient" and all(isinstance(a, Tensor) for a in args):
            a, b = args
            shape = torch.broadcast_shapes(a.shape, b.shape)
            if a.requires_grad and b.requires_grad and (a.shape == shape) != (b.shape == shape):
                return (
                    a * b.detach() if a.shape == shape else a.detach() * b
                )  # if both are broadcast, neither is a gate
            opens = [hasattr(factor, "opens") for factor in args]
            if a.requires_grad and b.requires_grad and opens[0] != opens[1]:
                return a * b.detach() if opens[1] else a.detach() * b
        varying = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
        varying = varying[:1] if name.endswith("_as") else varying  # takes the second one's shape
        if name in self.OF_GATES and varying and all(hasattr(a, "opens") for a in varying):
            answer = func(*args, **kwargs)  # 1 - gate is a gate, and so is a gate that was expanded
            for part in answer if isinstance(answer, (tuple, list)) else (answer,):
                part.opens = True
            return answer
        if name == "softmax":
            answer = func(*args, **kwargs)
            answer.opens = True
            return answer
        rectifies = name == "relu" or (name in self.EXTENDED and self.rule != "gradient")
        if not rectifies or not args[0].requires_grad:
            return func(*args, **kwargs)
        kwargs.pop("inplace", None)  # F.relu(x, inplace=True): right for networks that do not count on the writing
        if self.rule == "gradient":
            return F.relu(args[0])
        value = F.relu(args[0]) if name == "relu" else func(*args, **kwargs)
        answer = rectified(args[0], value, self.rule)
        if name in {"sigmoid", "hardsigmoid"}:
            answer.opens = True
        return answer


def rectified(x: Tensor, value: Tensor, rule: str) -> Tensor:
    """`value`, a function of `x`, whose backward pass is that of a rectifier under deconvnet or guided backpropagation."""
    answer: Tensor = _Rectify.apply(x, value.detach(), rule)
    return answer


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value, rule):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(value)
        ctx.rule = rule
        return value.clone()

    @staticmethod
    def backward(ctx, above):  # type: ignore[no-untyped-def]
        (value,) = ctx.saved_tensors
        above = above.clamp(min=0)
        return (above * (value > 0) if ctx.rule == "guided" else above), None, None


def out_of_place(module: nn.Module) -> nn.Module:
    """A copy whose activations do not write into their inputs (right for networks that do not count on that)."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    return module


def steered_projection(module: nn.Module, picture: Tensor, site: str, index: tuple[int, ...], rule: str) -> Tensor:
    """`[3 H W]` sent down with seed 1 from element `index` of the site's own tensor (batch axis left out)."""
    return steered_projections(module, picture, site, [index], rule)[0]


def steered_projections(
    module: nn.Module, picture: Tensor, site: str, indices: Iterable[tuple[int, ...]], rule: str
) -> list[Tensor]:
    """The same for several elements, of one forward pass."""
    picture = picture.clone().requires_grad_()
    with Steered(rule), Tap(module, {site}) as tap:
        module(picture)
    value = tap.kept[site]
    return [torch.autograd.grad(value[(0, *index)], picture, retain_graph=True)[0][0] for index in indices]
