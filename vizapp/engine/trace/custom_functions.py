"""Custom autograd functions (`torch.autograd.Function`) of a network: their calls, and whether they differentiate truly."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx, FunctionMeta, _is_setup_context_defined
from torch.utils.checkpoint import CheckpointFunction

from vizapp.engine.call_arguments import map_leaves, tensors_in

# What autograd and custom functions raise.
FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)

# Gets the function, its forward pass, the arguments, and whether gradients were enabled at the call.
Handler = Callable[[type[Function], Callable[..., Any], tuple[Any, ...], bool], Any]
_lock, _thread = threading.Lock(), threading.local()
_blocks = 0  # that are open now, in all threads


@contextmanager
def custom_functions(handle: Handler | None) -> Iterator[None]:
    """A block in which `handle` answers the forward passes of custom functions on this thread; torch adds the backward pass.

    A network may have stored `apply`, which is compiled. It asks the class for `_backward_cls`, disables gradients, and asks
    for `forward`. Both questions go to the metaclass.
    """
    global _blocks
    outer, _thread.handle = getattr(_thread, "handle", None), handle
    with _lock:
        _blocks += 1
        FunctionMeta.__getattribute__ = _attribute  # type: ignore[method-assign]
    try:
        yield
    finally:
        _thread.handle = outer
        with _lock:
            _blocks -= 1
            if not _blocks:
                del FunctionMeta.__getattribute__


def _attribute(function: Any, name: str) -> Any:
    found = type.__getattribute__(function, name)
    handle = getattr(_thread, "handle", None)
    if name == "_backward_cls" and handle is not None:
        _thread.called = function, torch.is_grad_enabled()
    elif name == "forward" and handle is not None:
        called, enabled = getattr(_thread, "called", (None, False))
        if called is function:
            _thread.called = None, False
            return functools.partial(_answer, handle, function, found, enabled)
    return found


def _answer(handle: Handler, function: Any, forward: Callable[..., Any], enabled: bool, *args: Any) -> Any:
    if not _is_setup_context_defined(function.setup_context):
        forward, args = functools.partial(forward, args[0]), args[1:]
    return handle(function, forward, args, enabled)


def differentiates_truly(function: type[Function], args: tuple[Any, ...], inputs: list[Tensor]) -> bool:
    """Whether the backward pass of a custom function is the derivative of its forward pass by `inputs`, at these numbers.

    Both are compared on a signal of small and large numbers of both signs. They differ where one of them fails.
    """
    if issubclass(function, CheckpointFunction):  # runs a part of the network a second time on the way back
        return True
    try:
        with custom_functions(None):
            own, true = (_sent_back(run, args, inputs) for run in (function.apply, _forward(function)))
    except FAILURES:
        return False
    return all(torch.allclose(a, b, 1e-3, 1e-4 * float(b.abs().max())) for a, b in zip(own, true, strict=True))


def _forward(function: Any) -> Callable[..., Any]:
    """The forward pass of a custom function, open to autograd."""
    ctx: Any = FunctionCtx()
    ctx.needs_input_grad = _Always()
    forward: Callable[..., Any] = function.forward
    return forward if _is_setup_context_defined(function.setup_context) else functools.partial(forward, ctx)


class _Always:
    def __getitem__(self, place: int) -> bool:
        return True


def _sent_back(run: Callable[..., Any], args: tuple[Any, ...], inputs: list[Tensor]) -> list[Tensor]:
    leaves = {id(tensor): tensor.detach().clone().requires_grad_() for tensor in inputs}

    def copied(leaf: Any) -> Any:  # functions may write into their inputs
        return leaves.get(id(leaf), leaf).clone() if isinstance(leaf, Tensor) else leaf

    with torch.enable_grad():
        results = [result for result in tensors_in(run(*map_leaves(args, copied))) if result.requires_grad]
        signals = [torch.linspace(-10, 10, result.numel()).pow(3).to(result).view_as(result) for result in results]
        zeros = [torch.zeros_like(leaf) for leaf in leaves.values()]
        found = torch.autograd.grad(results, list(leaves.values()), signals, allow_unused=True) if results else zeros
    return [zero if one is None else one for zero, one in zip(zeros, found, strict=True)]
