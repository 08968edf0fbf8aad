"""A network as a table: output shape, kernel, parameters, operations and time of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from vizapp.engine.layers.sliding_window import SlidingWindow
from vizapp.engine.layers.summary import (
    Layer,
    fold_pointwise_layers,
    group_by_module,
    layers,
    measure_times,
    pass_seconds,
)
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.tables import to_csv, to_markdown

COLUMNS = (
    "channels", "height", "width", "kernel height", "kernel width", "stride", "padding height", "padding width", "dilation",
    "groups", "parameters", "operations", "field height", "field width", "field stride", "milliseconds",
)  # fmt: skip


@dataclass(frozen=True)
class ArchitectureParams(Params):
    """How the network is divided into rows, and how operations are counted."""

    rows: Literal["layers", "operations", "modules"] = knob(
        "layers", "Layers with their norms and activations, single operations, or sums over modules"
    )
    depth: int = knob(1, "Depth of the module names, when rows are modules", low=1, high=12)
    count: Literal["multiply-adds", "operations"] = knob(
        "multiply-adds",
        "Multiply-adds of convolutions and linear layers, as papers count; or all arithmetic operations",
    )
    repeats: int = knob(3, "Forward passes to time; the median is taken; 0: no times", low=0, high=100)


def rows_of(found: Sequence[Layer], params: ArchitectureParams) -> tuple[Layer, ...]:
    """The rows of all operations, grouped according to the parameters."""
    if params.rows == "modules":
        return group_by_module(found, params.depth)
    return fold_pointwise_layers(found) if params.rows == "layers" else tuple(found)


def architecture(question: Question, params: ArchitectureParams, job: Job) -> Result:
    """The layers of the network with output size, kernel, stride, parameters, operations, receptive field and time.

    `arrays`: `table` float64 `[rows 16]`, with the columns of the facts (NaN for missing values; operations counted by
    `count`). `table`: the same as text, with the kind and the inputs of each row. A weight that is used several times counts
    once, at its first use. Also saved as CSV and Markdown. Receptive fields are in pixels and not clipped to the picture.
    "output size" is O = ⌊(2P + I − K)/S⌋ + 1 with the numbers of each convolution and pool: P cells of padding on each side,
    I cells of input, kernel K (with dilation D, D·(K − 1) + 1 for K), stride S; ⌈ ⌉ for a pool that rounds up, and
    O = (I − 1)·S − 2P + K + A for a transposed convolution that adds A cells. The padding in `table` is half the sum of both
    ends. Padding by an operation of its own is part of I.
    """
    network = question.network.clean  # interventions leave the layers as they are
    if question.picture is not None:
        batch = network.prepare(question.picture)
    else:
        batch = torch.zeros(1, *network.input_size, dtype=network.dtype, device=network.device)
    network.check_visible()
    found = layers(network.module, batch)
    job.report(0.2)
    if params.repeats:
        found = measure_times(network.module, batch, found, params.repeats, lambda share: job.report(0.2 + 0.6 * share))
    rows = rows_of(found, params)
    facts = _totals(found, network.parameters)
    if params.repeats:
        seconds = pass_seconds(network.module, batch, params.repeats)
        facts["one pass"] = (
            f"{1000 * seconds:.4g} ms as a whole; {_milliseconds(found):.4g} ms as the sum of its operations, timed one by one"
        )
    facts["columns"] = ", ".join(COLUMNS)
    table = tuple(_row(row, params.count) for row in rows)
    documents = {"architecture.csv": to_csv(table), "architecture.md": to_markdown(table)}
    return Result("architecture", {"table": _numbers(rows, params.count)}, (), facts, table, documents=documents)


def operations(row: Layer, count: str) -> int:
    """The operations of a row, as `count` says."""
    return row.multiply_adds if count == "multiply-adds" else row.arithmetic


def _totals(found: Sequence[Layer], parameters: int) -> dict[str, str]:
    used = sum(row.parameters for row in found)
    weights = f"{parameters:,}"
    if used < parameters:
        weights += f"; {parameters - used:,} of them are not used by this forward pass"
    sums, kinds = sum(row.multiply_adds for row in found), {row.kind for row in found}
    left_out = ", ".join(dict.fromkeys(row.operation for row in found if not row.counted))
    return {
        "parameters": weights,
        "multiply-adds": f"{sums:,} ({sums / 1e9:.3g} × 10⁹)" + (f"; not counted: {left_out}" if left_out else ""),
        "operations": f"{sum(row.arithmetic for row in found):,} multiplications, additions and function evaluations",
        "layers": f"{sum(row.kind in {'convolution', 'linear'} for row in found)} convolutions and linear layers, "
        f"{len(found)} operations of {len(kinds)} kinds",
    }


def _milliseconds(found: Sequence[Layer]) -> float:
    return 1000 * sum(row.seconds or 0.0 for row in found)


def _row(row: Layer, count: str) -> dict[str, Any]:
    return {
        "layer": row.name,
        "kind": row.kind,
        "output": _by(row.shape),
        "kernel": _by(row.kernel or ()),
        "stride": _side(row.stride),
        "padding": _padding(row.window),
        "dilation": _side(row.window.dilation if row.window else None),
        "groups": str(row.window.groups or "") if row.window else "",
        "output size": row.window.equation if row.window else "",
        "parameters": row.parameters,
        count: operations(row, count),
        "field": _by(row.field_size or ()),
        "field stride": _side(row.field_stride),
        "milliseconds": None if row.seconds is None else 1000 * row.seconds,
        "from": ", ".join(row.inputs) or "picture",
    }


def _by(sides: Sequence[int]) -> str:
    return " × ".join(map(str, sides))


def _side(sides: tuple[int, int] | None) -> str:
    if sides is None:
        return ""
    return str(sides[0]) if sides[0] == sides[1] else _by(sides)


def _padding(window: SlidingWindow | None) -> str:
    """`1`, down and across where they differ, both ends where these do: `1 + 2`."""
    if window is None:
        return ""
    ends = (f"{a}" if a == b else f"{a} + {b}" for a, b in zip(window.before, window.after, strict=True))
    return " × ".join(dict.fromkeys(ends))


def _numbers(rows: Sequence[Layer], count: str) -> np.ndarray:
    """`[rows 16]`, in the order of `COLUMNS`."""
    nothing = (np.nan, np.nan)
    return np.array(
        [
            [
                *(tuple(row.shape) + (np.nan,) * 3)[:3],
                *(row.kernel or nothing),
                (row.stride or nothing)[0],
                *_sliding(row.window),
                row.parameters,
                operations(row, count),
                *(row.field_size or nothing),
                (row.field_stride or nothing)[0],
                np.nan if row.seconds is None else 1000 * row.seconds,
            ]
            for row in rows
        ],
        np.float64,
    ).reshape(len(rows), len(COLUMNS))


def _sliding(window: SlidingWindow | None) -> tuple[float, float, float, float]:
    """Padding down and across, dilation and groups."""
    if window is None:
        return (np.nan,) * 4
    down, across = ((a + b) / 2 for a, b in zip(window.before, window.after, strict=True))
    return down, across, window.dilation[0], np.nan if window.groups is None else window.groups


METHOD = Method(
    key="architecture",
    title="Architecture",
    source="He et al. 2015, Table 1; Szegedy et al. 2014, Table 1; Canziani et al. 2016",
    params=ArchitectureParams,
    run=architecture,
    needs=frozenset(),
    optional_inputs=frozenset({"picture"}),
    shows=(Output("table", "table"),),
)
