"""Which layers carry everything that a unit sees of the picture, and the gradient of a unit at some layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vizapp.engine.tap import Tap, first_tensor

_Node = Any  # a node of autograd's graph


class _NodeTrace(Tap):
    """A Tap that also notes the node of autograd's graph that made each of some sites."""

    def __init__(self, module: nn.Module, keep: Collection[str], noted: Collection[str]) -> None:
        super().__init__(module, keep)
        self.nodes: dict[str, _Node] = {}
        self._noted = frozenset(noted)

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = super().operate(name, function, args, kwargs)
        tensor = first_tensor(output) if name in self._noted else None
        if tensor is not None:
            self.nodes[name] = tensor.grad_fn
        return output


def sites_on_every_path(module: nn.Module, batch: Tensor, unit_site: str, sites: Sequence[str]) -> list[str]:
    """Those of `sites` through which every path from the picture `[1 C H W]` to `unit_site` passes, in running order.

    A branch of a block is not among them, the sum or concatenation of the branches is. Paths are those of gradients: parts
    that run without gradients do not count.
    """
    picture = batch.detach().clone().requires_grad_()
    with torch.enable_grad(), _NodeTrace(module, {unit_site}, sites) as trace:
        module(picture.clone())  # a network may write into its input
    order = _reached(trace.kept[unit_site].grad_fn) if unit_site in trace.kept else []
    place = {node: number for number, node in enumerate(order)}
    from_picture: dict[_Node, int] = {}  # the last of the nodes that read a node
    cuts: set[_Node] = set()
    furthest = -1  # of all nodes that read an earlier node
    for node in order:
        read = [other for other, _ in node.next_functions if other in from_picture]
        if read or getattr(node, "variable", None) is picture:
            from_picture[node] = -1
        for other in read:
            from_picture[other] = place[node]
    for node, reader in from_picture.items():
        if furthest <= place[node]:
            cuts.add(node)
        furthest = max(furthest, reader)
    return [name for name, node in trace.nodes.items() if node in cuts]


def _reached(end: _Node) -> list[_Node]:
    """The nodes that lead to `end`, each after those that it reads."""
    order: list[_Node] = []
    done: set[_Node] = set()
    todo = [(end, False)]
    while todo:
        node, expanded = todo.pop()
        if node is None or (node in done and not expanded):
            continue
        if expanded:
            order.append(node)
            continue
        done.add(node)
        todo.append((node, True))
        todo += [(other, False) for other, _ in node.next_functions]
    return order


class _GradientTap(Tap):
    """A Tap that also collects the gradient at its sites, once a backward pass has run."""

    def __init__(self, module: nn.Module, keep: Collection[str]) -> None:
        super().__init__(module, keep)
        self.gradients: dict[str, Tensor] = {}

    def keep(self, name: str, tensor: Tensor) -> None:
        """Keep a clone, and a hook on the value as it is now, before a later in-place operation."""
        super().keep(name, tensor)
        kept = self.kept[name]

        def note(gradient: Tensor) -> None:
            if self.kept[name] is kept:  # the last of the operations of that name
                self.gradients[name] = gradient

        if tensor.requires_grad:
            tensor.register_hook(note)


def gradients_at(
    module: nn.Module, batch: Tensor, value: Callable[[dict[str, Tensor]], Tensor], sites: Collection[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Activations of the sites on a batch, and at each the gradient of a number; both as the operations lay them out.

    `value` computes the number from the activations. A site on which it does not depend has no gradient.
    """
    picture = batch.detach().clone().requires_grad_()
    with torch.enable_grad(), _GradientTap(module, sites) as tap:
        module(picture.clone())
    with torch.enable_grad():
        number = value(tap.kept)
    if number.requires_grad:
        torch.autograd.grad(number, picture, allow_unused=True)
    return {name: kept.detach() for name, kept in tap.kept.items()}, tap.gradients
