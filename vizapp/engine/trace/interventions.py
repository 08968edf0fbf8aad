"""Passes with changed activations: units scaled, shifted or replaced at some sites, and all that follows computed from that.

Zhou, Sun, Bau & Torralba 2018 (arXiv 1806.02891) and Morcos et al. 2018 silence units and look at what a network then answers;
activation patching replaces values by those of another picture.

No module is changed. `intervene` gives a twin of the root module, which shares all its parts and weights, and whose passes run
under a mode that changes results. That mode is the innermost one: any other trace (a `Tap`, a recording) sees the changes as
operations of the pass, under the name of the site, and sends signals back through them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vizapp.engine.operations import IDENTITIES
from vizapp.engine.tap import Trace, check_computed, first_tensor, run_as
from vizapp.engine.trace.cells import CHANNEL_AXIS
from vizapp.engine.trace.forward_override import override_forward
from vizapp.engine.trace.recording import Recording, Step, may_write
from vizapp.engine.trace.sites import Site, as_laid_out
from vizapp.errors import VizError

_ADDITIONS = frozenset({"add", "iadd"})
_CHANGE_SHAPE = frozenset(
    {"squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_"}
)  # and write no values


@dataclass(frozen=True, eq=False)
class Change:
    """What happens to some channels of a site: they are scaled by `value`, it is added to them, or it takes their place.

    `channels`: indices, or None for all. `cells`: (row, column) of each changed cell; None for the whole channel, special
    tokens included. `value`: a number, a number per changed channel `[k]`, or a whole activation of one picture `[1 …]` as
    the site's operation lays it out.
    """

    site: Site
    channels: tuple[int, ...] | None
    operation: Literal["scale", "add", "replace"]
    value: float | Tensor
    cells: tuple[tuple[int, int], ...] | None = None


def intervene(module: nn.Module, changes: Sequence[Change]) -> nn.Module:
    """A twin of the module whose passes go on with changed activations. The module itself stays as it is.

    Changes of one site apply in the order given, each to the result of the one before. Operations in place write the changed
    value, so others that hold that memory see it, too. A view (a slice, a chunk) is changed alone, not what it is a view of.

    The twin has the class, the parts, the parameters and the attributes of the module. A pass raises a VizError if it does not
    produce one of the sites, or gives it another shape than the change has.
    """
    earlier = module.__dict__.get("_intervened")
    if earlier is not None:
        module, changes = earlier[0], (*earlier[1], *changes)
    sites = {change.site.name: change.site for change in changes}
    compiled = {
        name: _SiteChange(site, [change for change in changes if change.site.name == name])
        for name, site in sites.items()
    }

    def forward(self: nn.Module, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not any(
            change.acts for change in compiled.values()
        ):  # under a mode, torch's attention rounds in another way
            return run(*args, **kwargs)
        with _ChangedPass(self, compiled) as changed:
            output = run(*args, **kwargs)
        check_computed(compiled, changed.done)
        return output

    twin = override_forward(module, forward, lambda copied: intervene(copied, changes))
    twin.__dict__["_intervened"] = (module, tuple(changes))
    return twin


def branches(module: nn.Module, batch: Tensor) -> tuple[str, ...]:
    """The sites of a pass over `batch` `[1 C H W]` whose result goes into additions and nowhere else: residual branches."""
    batch = batch.clone()
    with torch.no_grad(), Recording(module, batch, set(), None) as recording:
        module(batch)
    readers = defaultdict[int, list[Step]](list)
    for step in recording.steps:
        for value in set(step.reads):
            readers[value].append(step)

    def adds(value: int) -> bool:
        return bool(readers[value]) and all(
            len(set(step.reads)) > 1
            if step.operation.rstrip("_") in _ADDITIONS
            else _passes(step) and adds(step.outputs[0])
            for step in readers[value]
        )

    last = {step.name: step.outputs[0] for step in recording.steps if step.name}
    return tuple(name for name, value in last.items() if adds(value))


def _passes(step: Step) -> bool:
    return step.operation.rstrip("_") in IDENTITIES and len(step.reads) == 1


class _ChangedPass(Trace):
    """Runs the operations of one pass, and those that changes add to it. `done`: the sites that were changed."""

    def __init__(self, module: nn.Module, changes: Mapping[str, _SiteChange]) -> None:
        super().__init__(module)
        self.done: set[str] = set()
        self._changes = changes
        self._calls = Counter[str]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = self._name(func), kwargs or {}
        change = self._changes.get(name)
        if change is None:
            return func(*args, **kwargs)
        self._calls[name] += 1
        if self._calls[name] != change.site.calls:
            return func(*args, **kwargs)
        output = change.run(func, args, kwargs)
        self.done.add(name)
        return output


class _SiteChange:
    """All changes of one site, as at most three operations: times a factor, plus a shift, and what takes the value's place.

    `acts`: whether anything is left to do.
    """

    def __init__(self, site: Site, changes: Sequence[Change]) -> None:
        self.site = site
        rest = [1] * site.rank
        rest[CHANNEL_AXIS[site.layout]] = site.channels
        factor, shift = torch.ones(rest, dtype=torch.float64), torch.zeros(rest, dtype=torch.float64)
        given, replaced = torch.zeros(rest, dtype=torch.float64), torch.zeros(rest, dtype=torch.bool)
        for change in changes:
            mask, value = self._mask(change), self._value(change)
            if change.operation == "replace":
                given, replaced = torch.where(mask, value, given), replaced | mask
            elif change.operation == "add":
                given, shift = (torch.where(mask, values + value, values) for values in (given, shift))
            else:
                given, shift, factor = (torch.where(mask, values * value, values) for values in (given, shift, factor))
        factor, shift = factor.masked_fill(replaced, 1), shift.masked_fill(replaced, 0)
        self._factor = None if bool((factor == 1).all()) else factor
        self._shift = None if bool((shift == 0).all()) else shift
        self._given = (replaced, given) if bool(replaced.any()) else None
        self.acts = any(one is not None for one in (self._factor, self._shift, self._given))
        self._ready: dict[tuple[torch.device, torch.dtype], list[Any]] = {}

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The output of the site's operation, changed.

        An operation in place runs on a copy, because autograd may have saved what it gave: nothing may write over that.
        """
        writes = bool(args) and isinstance(args[0], Tensor) and (may_write(function) or bool(kwargs.get("inplace")))
        writes = writes and getattr(function, "__name__", "") not in _CHANGE_SHAPE
        held = args[0] if writes else kwargs.get("out")
        if writes:
            args = (run_as(self.site.name, torch.clone, held), *args[1:])
        output = function(*args, **kwargs)
        tensor = first_tensor(output)
        if tensor is None:
            raise _other_shape(self.site)
        changed = self._changed(tensor)
        if isinstance(held, Tensor):
            changed = run_as(self.site.name, Tensor.copy_, held, changed)
        return changed if tensor is output else _with_first(output, tensor, changed)

    def _changed(self, tensor: Tensor) -> Tensor:
        name, (factor, shift, given) = self.site.name, self._constants(tensor)
        if factor is not None:
            tensor = run_as(name, torch.mul, tensor, factor)
        if shift is not None:
            tensor = run_as(name, torch.add, tensor, shift)
        return tensor if given is None else run_as(name, torch.where, given[0], given[1], tensor)

    def _constants(self, tensor: Tensor) -> list[Any]:
        """Factor, shift and what takes the value's place, on the device and of the type of a tensor.

        Raises:
            VizError: they are of another shape.
        """
        with torch._C.DisableTorchFunction():  # so that no trace sees these operations
            shape, key = tuple(tensor.shape), (tensor.device, tensor.dtype)
            if key not in self._ready:
                factor, shift = (None if one is None else one.to(*key) for one in (self._factor, self._shift))
                given = None if self._given is None else (self._given[0].to(key[0]), self._given[1].to(*key))
                self._ready[key] = [factor, shift, given]
            for one in (self._factor, self._shift, *(self._given or ())):
                if one is None:
                    continue
                if one.ndim != len(shape) or any(n not in (1, m) for n, m in zip(one.shape, shape, strict=True)):
                    raise _other_shape(self.site)
            return self._ready[key]

    def _mask(self, change: Change) -> Tensor:
        """Which numbers change, in the layout of the site."""
        chosen = torch.zeros(self.site.channels)
        chosen[slice(None) if change.channels is None else list(change.channels)] = 1
        if change.cells is None:
            return self._by_channel(chosen) > 0
        cells = torch.zeros(self.site.shape[1:])
        cells[tuple(zip(*change.cells, strict=True))] = 1
        return as_laid_out((chosen[:, None, None] * cells)[None], self.site) > 0

    def _value(self, change: Change) -> Tensor:
        """The value of a change, in the layout of the site."""
        value = torch.as_tensor(change.value).detach().cpu().double()
        if value.ndim != 1:
            return value
        every = torch.zeros(self.site.channels, dtype=torch.float64)
        every[slice(None) if change.channels is None else list(change.channels)] = value
        return self._by_channel(every)

    def _by_channel(self, values: Tensor) -> Tensor:
        return values.unflatten(0, [-1 if n == CHANNEL_AXIS[self.site.layout] else 1 for n in range(self.site.rank)])


def _other_shape(site: Site) -> VizError:
    return VizError(
        f"Layer {site.name!r} is changed at the cells that it has at the network's own input size, and this input has another "
        "size; change all cells of the layer instead.",
        code="other-cells",
    )


def _with_first(output: Any, tensor: Tensor, changed: Tensor) -> Any:
    """A tuple or list with its first tensor replaced."""
    items = [changed if item is tensor else item for item in output]
    return output._make(items) if hasattr(output, "_make") else type(output)(items)
