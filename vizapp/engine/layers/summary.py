"""Layer summary of any network from one pass, functional operations and branches included, with costs and times."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.layers.costs import ProductCounter, arithmetic
from vizapp.engine.layers.sliding_window import SlidingWindow, Window, sliding_window
from vizapp.engine.operations import SHAPE_ONLY
from vizapp.engine.receptive_field.interval import ReceptiveField
from vizapp.engine.tap import Trace, first_tensor, operation_name
from vizapp.engine.trace.cells import CellsTrace
from vizapp.engine.trace.sites import Kind, kind_of, site_of


@dataclass(frozen=True)
class Layer:
    """One row: an operation, a layer with the operations folded into it, or a module. Costs are those of `costs.py`."""

    name: str
    kind: Kind
    operation: str
    inputs: tuple[str, ...]  # names of the rows it reads; empty: the image
    shape: tuple[int, ...]  # of the output: channels first for a `Site`, otherwise (in attention) all axes
    kernel: Window | None
    stride: Window | None
    parameters: int  # counted in the first row that uses them
    multiply_adds: int  # for one image
    counted: bool  # whether those are all
    arithmetic: int
    field: ReceptiveField | None
    window: SlidingWindow | None = None  # with the sizes of this row: None of a module of several windows
    seconds: float | None = None  # None: not measured

    @property
    def field_size(self) -> Window | None:
        """Height and width in pixels of the unclipped receptive field; None if unknown."""
        return None if self.field is None else self.field.size

    @property
    def field_stride(self) -> Window | None:
        """Pixels between the fields of neighbouring cells; None if there are none, or they are irregular."""
        stride = None if self.field is None else self.field.stride
        return stride if stride is not None and all(stride) else None


def layers(module: nn.Module, batch: Tensor) -> tuple[Layer, ...]:
    """Every operation that depends on `batch` `[1 C H W]`, in execution order. Works on torch's meta device.

    Parameters count through values computed from them (a masked or reshaped weight). Shared parameters count once, at the
    first operation.
    """
    batch = batch.clone()
    counter = ProductCounter()
    with torch.no_grad(), counter, _LayerTrace(module, batch, counter) as trace:
        module(batch)
    return tuple(trace.found.values())


class _LayerTrace(CellsTrace):
    """Collects a `Layer` per name; operations with the same name (those of one call of a torch layer) add up."""

    def __init__(self, module: nn.Module, batch: Tensor, counter: ProductCounter) -> None:
        super().__init__(module, batch)
        self._counter = counter
        self.found: dict[str, Layer] = {}
        self._makers = WeakTensorKeyDictionary()  # tensor -> name of the layer that computed it
        self._learned = WeakTensorKeyDictionary()  # tensor computed from parameters alone -> their ids
        self._sizes = {id(parameter): parameter.numel() for parameter in module.parameters()}
        self._counted: set[int] = set()

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = operation_name(function)
        given = list(tensors_in((args, kwargs)))
        makers = [maker for tensor in given if (maker := self._makers.get(tensor)) is not None]
        shows = any(self.of(tensor) is not None for tensor in given) and operation not in SHAPE_ONLY
        learned: set[int] = set()
        for tensor in given if operation not in SHAPE_ONLY else ():
            learned |= {id(tensor)} if id(tensor) in self._sizes else self._learned.get(tensor, set())
        self._counter.multiply_adds = self._counter.uncounted = 0
        output = super().operate(name, function, args, kwargs)
        results = list(tensors_in(args[0] if operation == "setitem" else output))
        if not shows:
            for result in results:
                self._learned[result] = learned | self._learned.get(result, set())
            return output
        for result in results:
            self._makers[result] = name
        made = first_tensor(results)
        if made is not None and (made.is_floating_point() or made.is_complex()):
            fresh = learned - self._counted
            self._counted |= fresh
            self._add(name, operation, args, kwargs, makers, made, sum(self._sizes[i] for i in fresh))
        return output

    def _add(
        self, name: str, operation: str, args: Any, kwargs: Any, makers: list[str], made: Tensor, parameters: int
    ) -> None:
        field = self.of(made)
        site = None if field is None else site_of(name, operation, tuple(made.shape), field, self.arrangement(made))
        shape = tuple(made.shape) if site is None else site.shape
        window = sliding_window(operation, args, kwargs, made)
        kernel, stride = (None, None) if window is None else (window.kernel, window.stride)
        products = self._counter.multiply_adds
        layer = Layer(
            name, kind_of(operation), operation, tuple(dict.fromkeys(makers)), shape, kernel, stride,
            parameters, products, not self._counter.uncounted, arithmetic(operation, args, kwargs, made, products), field,
            window,
        )  # fmt: skip
        before = self.found.pop(name, None)
        self.found[name] = layer if before is None else _sum(before, layer, layer.shape, layer.kind)


def _sum(a: Layer, b: Layer, shape: tuple[int, ...], kind: Kind) -> Layer:
    """Two consecutive rows as one, with the output of the second and without `inputs` from each other."""
    inputs = tuple(name for name in dict.fromkeys((*a.inputs, *b.inputs)) if name not in {a.name, b.name})
    seconds = None if a.seconds is None or b.seconds is None else a.seconds + b.seconds
    return Layer(
        a.name, kind, a.operation if kind == a.kind else b.operation, inputs, shape,
        a.kernel or b.kernel, a.stride or b.stride, a.parameters + b.parameters, a.multiply_adds + b.multiply_adds,
        a.counted and b.counted, a.arithmetic + b.arithmetic, b.field, a.window or b.window, seconds,
    )  # fmt: skip


_FOLDED = frozenset({"norm", "activation", "identity", "reshape", "add", "multiply"})


def fold_pointwise_layers(rows: Sequence[Layer]) -> tuple[Layer, ...]:
    """Fold norms, activations and the like into the layer before them, as in the tables of papers.

    A row is folded if it reads one row, nothing else reads that row, and it keeps its shape or reshapes. After a reshape
    the row still shows the shape before it.
    """
    takers = Counter(name for row in rows for name in row.inputs)
    hosts: dict[str, str] = {}  # row -> the row into which it was folded
    ends: dict[str, str] = {}  # row -> the last row folded into it
    found: dict[str, Layer] = {}
    for row in rows:
        row = replace(row, inputs=tuple(dict.fromkeys(hosts.get(name, name) for name in row.inputs)))
        host = found.get(row.inputs[0]) if len(row.inputs) == 1 else None
        reshape = row.kind == "reshape"
        folds = host is not None and row.kind in _FOLDED and takers[ends[host.name]] == 1
        if host is not None and folds and (reshape or row.shape == host.shape):
            total = _sum(host, row, host.shape, host.kind)
            found[host.name] = replace(total, field=host.field) if reshape else total
            hosts[row.name], ends[host.name] = host.name, row.name
        else:
            found[row.name] = row
            hosts[row.name] = ends[row.name] = row.name
    return tuple(found.values())


def group_by_module(rows: Sequence[Layer], depth: int) -> tuple[Layer, ...]:
    """Merge consecutive rows of the same module, at most `depth` names deep."""
    homes: dict[str, str] = {}
    found: list[Layer] = []
    for prefix, group in groupby(rows, key=lambda row: ".".join(row.name.split(".")[:depth])):
        members = list(group)
        name = prefix if prefix not in homes.values() else f"{prefix} ({members[0].name})"
        total = replace(members[0], name=name)
        for row in members[1:]:
            total = replace(_sum(total, row, row.shape, _main_kind(total.kind, row.kind)), name=name)
        homes |= {row.name: name for row in members}
        windows = {(row.kernel, row.stride) for row in members if row.kernel is not None}
        kernel, stride = windows.pop() if len(windows) == 1 else (None, None)
        sizes = [row.window for row in members if row.window is not None]
        window = sizes[0] if len(sizes) == 1 else None
        inputs = tuple(n for n in dict.fromkeys(homes[i] for row in members for i in row.inputs) if n != name)
        found.append(replace(total, inputs=inputs, kernel=kernel, stride=stride, window=window))
    return tuple(found)


def _main_kind(a: Kind, b: Kind) -> Kind:
    kinds: tuple[Kind, ...] = ("convolution", "linear", "attention", "pool")
    return next((kind for kind in kinds if kind in (a, b)), a)


class _Stopwatch(Trace):
    """Adds up the time per operation name; synchronizes the device before and after each operation."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__(module)
        self.seconds: dict[str, float] = {}
        self._device = device

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        synchronize(self._device)
        started = time.perf_counter()
        output = function(*args, **kwargs)
        synchronize(self._device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        return output


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_times(
    module: nn.Module, batch: Tensor, rows: Sequence[Layer], repeats: int, tick: Callable[[float], None]
) -> tuple[Layer, ...]:
    """The rows with the median time of each operation, after one warm-up pass.

    The device is synchronized after each operation, so on a GPU the sum exceeds the time of an undisturbed pass.

    Args:
        module: The network.
        batch: Its input `[1 C H W]`.
        rows: The rows returned by `layers`.
        repeats: Number of timed passes.
        tick: Called with the completed fraction after each pass.
    """
    times: list[dict[str, float]] = []
    for number in range(repeats + 1):
        with torch.no_grad(), _Stopwatch(module, batch.device) as watch:
            module(batch.clone())
        if number:
            times.append(watch.seconds)
        tick((number + 1) / (repeats + 1))
    return tuple(
        replace(row, seconds=statistics.median(seconds.get(row.name, 0.0) for seconds in times)) for row in rows
    )


def pass_seconds(module: nn.Module, batch: Tensor, repeats: int = 3) -> float:
    """Seconds of the fastest of `repeats` undisturbed passes, after one warm-up pass."""
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            given = batch.clone()
            synchronize(batch.device)
            started = time.perf_counter()
            module(given)
            synchronize(batch.device)
            times.append(time.perf_counter() - started)
    return min(times[1:])
