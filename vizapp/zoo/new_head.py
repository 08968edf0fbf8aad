"""A network with another last layer: linear scores of the last hidden features, for classes that it was not trained on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import is_out_of_memory
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError
from vizapp.zoo.network import Network

_CLASSES = 3  # of the trial that shows whether a layer can be replaced
_ROUNDING = 1e-4  # of the largest score: the products of a layer are summed in another order


@dataclass(frozen=True)
class LastLayer:
    """The layer that computes the class scores: a linear layer, or a 1 × 1 convolution whose maps are averaged.

    `path`: of the module. `features`: the site whose activations are its input (maps are averaged over their cells).
    `activations`: paths of the activation functions behind it, which a new layer does without.
    """

    path: str
    features: Site
    activations: tuple[str, ...] = ()


def find_last_layer(network: Network) -> LastLayer:
    """The layer whose replacement gives linear scores of the last hidden features; tried out on a random picture.

    Raises:
        VizError: the network has no class scores, or they are not computed so.
    """
    path, *behind = network.head.layers
    part = _module_at(network.module, path)
    convolution = isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1
    features = None
    if isinstance(part, nn.Linear):
        features = network.last_hidden_layer()
    elif convolution:
        before = network.sites[: [site.name for site in network.sites].index(path)]
        maps = [site for site in before if site.is_map and site.kind != "identity"]
        features = maps[-1] if maps else None
    if features is not None:
        kinds = {site.name: site.kind for site in network.sites}
        activations = tuple(
            name for name in behind if kinds.get(name) == "activation" and _module_at(network.module, name) is not None
        )
        found = LastLayer(path, features, activations)
        if _is_linear(network, found):
            return found
    raise VizError(
        f"{network.name} cannot be taught new classes: its class scores are not those of one linear layer behind its last "
        f"hidden features ({path!r}).",
        code="no-linear-head",
    )


def with_head(module: nn.Module, layer: LastLayer, weight: np.ndarray, bias: np.ndarray) -> nn.Module:
    """A copy of the module with a new last layer of weight `[classes F]` and bias `[classes]`; all other weights are shared."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    changed = copy.deepcopy(module, shared)
    old = changed.get_submodule(layer.path)
    like = next(old.parameters())
    count, width = weight.shape
    new: nn.Module = nn.Conv2d(width, count, 1) if isinstance(old, nn.Conv2d) else nn.Linear(width, count)
    new = new.to(like.device, like.dtype)
    with torch.no_grad():
        values = torch.from_numpy(weight)
        new.get_parameter("weight").copy_(values[..., None, None] if isinstance(new, nn.Conv2d) else values)
        new.get_parameter("bias").copy_(torch.from_numpy(bias))
    if isinstance(new, nn.Conv2d) and like.is_contiguous(memory_format=torch.channels_last):
        new = new.to(memory_format=torch.channels_last)
    changed.set_submodule(layer.path, new)
    for path in layer.activations:
        changed.set_submodule(path, nn.Identity())
    return changed.eval().requires_grad_(False)


def _module_at(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:  # an operation of a function
        return None


def _is_linear(network: Network, layer: LastLayer) -> bool:
    """Whether a random new layer gives the scores that its weights and the features of a random picture say."""
    part = network.module.get_submodule(layer.path)
    width = layer.features.channels
    if width != (part.in_channels if isinstance(part, nn.Conv2d) else getattr(part, "in_features", None)):
        return False
    random = np.random.default_rng(0)
    weight = random.normal(size=(_CLASSES, width)).astype(np.float32)
    bias = random.normal(size=_CLASSES).astype(np.float32)
    height, side = network.input_size[1:]
    batch = network.batch(random.integers(0, 256, (1, height, side, network.input_size[0]), np.uint8))
    run: Callable[[Tensor], Any] = with_head(network.module, layer, weight, bias)
    try:
        with torch.no_grad():
            scores = network.head.pick(run(batch.clone()))
    except (RuntimeError, ValueError, TypeError, LookupError) as error:  # its code expects as many classes as it had
        if is_out_of_memory(error):
            raise
        return False
    if scores is None or scores.numel() != _CLASSES:
        return False
    features = observe(network.module, batch, [layer.features])[layer.features.name].double().cpu()
    expected = (features if features.ndim == 2 else features.mean((2, 3))).numpy() @ weight.T + bias
    apart = np.abs(scores.reshape(1, _CLASSES).double().cpu().numpy() - expected).max()
    return bool(apart <= _ROUNDING * max(1.0, np.abs(expected).max()))
