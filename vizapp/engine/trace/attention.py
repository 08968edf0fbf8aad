"""The attention of a pass: who looks at whom, however the network writes it, and which cells of the picture these are.

Three ways are known: a softmax over keys whose result multiplies the values; `F.scaled_dot_product_attention`, whose softmax is
hidden inside and is written out here; and torch's `MultiheadAttention`, which is asked for its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.operations import IDENTITIES, canonical_name
from vizapp.engine.tap import Tap, check_computed, check_differentiable, qualified_name
from vizapp.engine.trace.cells import CellIndex, CellsTrace

_PRODUCTS = frozenset({"matmul", "bmm", "einsum"})


@dataclass(eq=False)
class Attention:
    """One attention: `weights` `[… queries keys]`, whose rows sum to one, and the gradient of a number there.

    `cells` says which cell of the picture each key is, as tokens `[1 keys 1]`; None if that is not known.
    """

    name: str
    weights: Tensor
    gradient: Tensor | None = None
    cells: CellIndex | None = None

    def note(self, gradient: Tensor) -> None:
        """Keep the gradient, in the form of the weights."""
        self.gradient = gradient.detach().reshape(self.weights.shape)


class AttentionTap(Tap):
    """A Tap that also keeps the attention of the pass, in running order, and its gradients once a backward pass has run."""

    def __init__(self, module: nn.Module, site: str) -> None:
        super().__init__(module, {site})
        self.attention: list[Attention] = []
        self._softmax = WeakTensorKeyDictionary()  # tensors that are the result of one, over the last axis

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation, and keep its attention."""
        operation = canonical_name(qualified_name(function)).rstrip("_")

        def attend(*given: Any, **named: Any) -> Tensor:
            weights, values = attention_weights(*given, **named)
            self._keep(name, weights)
            return weights @ values

        def attend_by_heads(*given: Any, **named: Any) -> Any:
            wanted = named.get("need_weights", True)
            averaged = named.get("average_attn_weights", True)
            output, weights = function(*given, **named | {"need_weights": True, "average_attn_weights": False})
            self._keep(name, weights)
            return output, (weights.mean(-3) if averaged else weights) if wanted else None

        if operation in _PRODUCTS:
            factors = list(tensors_in((args, kwargs)))
            if factors and factors[0] in self._softmax and len(factors) == 2:
                self._keep(name, factors[0])
        replaced = {"scaled_dot_product_attention": attend, "multi_head_attention_forward": attend_by_heads}
        output = super().operate(name, replaced.get(operation, function), args, kwargs)
        if operation == "softmax" and isinstance(output, Tensor) and output.ndim > 2:
            axis = argument(args, kwargs, 1, "dim", None)
            if axis is not None and axis % output.ndim == output.ndim - 1:
                self._softmax[output] = True
        elif operation in IDENTITIES and args and isinstance(args[0], Tensor) and args[0] in self._softmax:
            self._softmax[output] = True
        return output

    def _keep(self, name: str, weights: Tensor) -> None:
        found = Attention(name, weights.detach())
        self.attention.append(found)
        if not weights.requires_grad:
            return
        node = weights.grad_fn
        if self._is_view_of_softmax(node):  # the weights that were used are those before they were given a new form
            assert node is not None
            node.next_functions[0][0].register_prehook(lambda gradients: found.note(gradients[0]))  # type: ignore[union-attr]
        else:
            weights.register_hook(found.note)

    @staticmethod
    def _is_view_of_softmax(node: Any) -> bool:
        return "View" in type(node).__name__ and "Softmax" in type(node.next_functions[0][0]).__name__


class KeysTrace(CellsTrace):
    """Finds the cells of the keys of attentions, by the names of these."""

    def __init__(self, module: nn.Module, batch: Tensor, names: Collection[str]) -> None:
        super().__init__(module, batch)
        self.keys: dict[str, CellIndex] = {}
        self._attentions = names

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation, and keep the cells of its keys."""
        if name in self._attentions:
            cells = self._of_keys(canonical_name(qualified_name(function)).rstrip("_"), args, kwargs)
            if cells is not None:
                self.keys[name] = cells
        return super().operate(name, function, args, kwargs)

    def _of_keys(self, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CellIndex | None:
        axis = -2
        if operation == "multi_head_attention_forward":  # [keys 1 C]
            tensor, axis = argument(args, kwargs, 1, "key", None), 0
        elif operation == "scaled_dot_product_attention":
            tensor = argument(args, kwargs, 2, "value", None)
        elif operation in _PRODUCTS and len(factors := list(tensors_in((args, kwargs)))) == 2:
            tensor = factors[1]
            if operation == "einsum":
                first, second = args[0].replace(" ", "").partition("->")[0].split(",")
                axis = second.find(first[-1])
        else:
            return None
        cells = self.cells(tensor)
        if cells is None:
            return None
        keys = cells.index.movedim(axis, 0).flatten(1)
        return CellIndex(keys[:, 0].view(1, -1, 1), cells.located) if bool((keys == keys[:, :1]).all()) else None


def attention_weights(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The weights that `F.scaled_dot_product_attention` gives each key, and the values `[… keys C]` that they multiply.

    Args:
        query: `[… queries C]`.
        key: `[… keys C]`.
        value: `[… keys C]`.
        attn_mask: True, or a number to add, where a query may look at a key.
        dropout_p: Not used: the network is in evaluation mode.
        is_causal: Whether a query looks at itself and earlier keys alone.
        scale: What the products are multiplied with; one over the root of C if None.
        enable_gqa: Whether several heads of queries share one of keys and values.
    """
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1), value


def attention_up_to(
    module: nn.Module, batch: Tensor, site: str, value: Callable[[dict[str, Tensor]], Tensor]
) -> list[Attention]:
    """The attention of a pass over `batch` `[1 C H W]` that leads to a number at a site, in running order, with its gradient.

    `value` computes the number from the activation of the site.

    Raises:
        VizError: the pass does not compute the site, or autograd does not follow the number from the pixels.
    """
    picture = batch.detach().clone().requires_grad_()
    with torch.enable_grad(), AttentionTap(module, site) as tap:
        module(picture.clone())
    check_computed([site], tap.kept)
    with torch.enable_grad():
        number = value(tap.kept)
    check_differentiable(number)
    torch.autograd.grad(number, picture, allow_unused=True)
    found = [one for one in tap.attention if one.gradient is not None]
    source = batch.detach().clone()
    with torch.no_grad(), KeysTrace(module, source, {one.name for one in found}) as trace:
        module(source)
    for one in found:
        one.cells = trace.keys.get(one.name)
    return found
