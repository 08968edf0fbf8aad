"""A twin of a module: the same parts and weights, but another forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn


def override_forward(
    module: nn.Module, forward: Callable[..., Any], again: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """A twin of the root module of a network. The module itself stays as it is.

    It has the class, the parts, the parameters and the attributes of the module, and any trace names its operations alike.

    Args:
        module: The module; it may be a twin.
        forward: The twin's pass, of the twin, the module's own pass (to be called with the input), and the input.
        again: Makes the twin of a copy of the module, where the twin is copied.
    """
    twin = object.__new__(type(module))
    own_forward = module.__dict__.get("forward")
    twin.__dict__.update(module.__dict__)
    twin.__dict__.pop("_intervened", None)

    def run(*args: Any, **kwargs: Any) -> Any:
        return type(twin).forward(twin, *args, **kwargs) if own_forward is None else own_forward(*args, **kwargs)

    def own_pass(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return forward(self, run, *args, **kwargs)

    def deep_copy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
        return again(copy.deepcopy(module, memo))

    twin.__dict__ |= {"forward": MethodType(own_pass, twin), "__deepcopy__": MethodType(deep_copy, twin)}
    return twin
