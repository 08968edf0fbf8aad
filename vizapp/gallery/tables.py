"""Turn the state of a pass into tables: a row per unit and rank, and a row per unit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vizapp.engine.statistics.top_activations import State, read_statistics
from vizapp.engine.trace.sites import Site
from vizapp.media.source import Source

ROW_COLUMNS = (
    "site", "channel", "rank", "activation", "picture", "row", "column", "top", "left", "bottom", "right",
)  # fmt: skip
UNIT_COLUMNS = (
    "mean", "maximum", "mean_maximum", "zero_pictures", "zero_positions", "not_finite", "selectivity", "dead", "always_on",
)  # fmt: skip


def cell_boxes(site: Site, size: tuple[int, int], cells: np.ndarray) -> tuple[np.ndarray, ...]:
    """(row, column) of flat cells `[n]` and (top, left, bottom, right) of their receptive fields; each `[n]`, int64.

    Where all cells see the whole input (classes, attention), the box is `size` = (height, width).
    """
    row, column = np.divmod(cells, site.shape[2] if site.is_map else 1)
    field = site.receptive_field
    assert field is not None  # known for each site of a network
    if not site.is_map or field.rows.axis is None:
        same = [np.full(len(cells), side) for side in (0, 0, *size)]
        return row, column, *same
    (top, bottom), (left, right) = (
        np.array([span.unclipped(i) for i in range(len(span.low))], np.int64)[index].T
        for span, index in ((field.rows, row), (field.columns, column))
    )
    return row, column, top, left, bottom, right


def unit_table(state: State, sites: Sequence[Site]) -> pd.DataFrame:
    """A row per unit: `site`, `channel`, the `UNIT_COLUMNS` and `histogram` (its bins' counts, as a list).

    `selectivity` compares the top pictures with all pictures as Morcos et al. 2018 compare classes: (a - b) / (a + b), a
    the mean activation of the top pictures, b the mean of all pictures' maxima, both clipped at 0. It is 0 if all pictures
    activate the unit equally, near 1 if only the top pictures do. `dead`: never above zero. `always_on`: above zero in
    every picture.
    """
    columns: dict[str, Any] = {
        "site": np.repeat([site.name for site in sites], [site.channels for site in sites]),
        "channel": np.concatenate([np.arange(site.channels) for site in sites]),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        columns |= read_statistics(state, sites)
        values = state["values"].double().numpy()
        taken = (state["pictures"].numpy() >= 0) & np.isfinite(values)
        top = np.where(taken, values, 0).sum(1) / taken.sum(1)
        a, b = top.clip(min=0), np.maximum(columns["mean_maximum"], 0)
        columns["selectivity"] = np.where(a + b > 0, np.clip((a - b) / (a + b), 0, 1), 0.0)
    below = columns.pop("never_positive")
    columns["dead"], columns["always_on"] = below == 1, below == 0
    table = pd.DataFrame(columns)
    table["histogram"] = list(state["histogram"].numpy())
    return table


def row_tables(
    state: State, sites: Sequence[Site], size: tuple[int, int], units: pd.DataFrame, source: Source
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each site's name and table: a row per unit and rank with `ROW_COLUMNS`, `path`, `label` and `UNIT_COLUMNS`.

    Args:
        state: of the pass.
        sites: all sites of the pass, in order.
        size: height and width of the network's input.
        units: the table from `unit_table`.
        source: the pictures, for paths and labels.
    """
    start = 0
    for site in sites:
        place = slice(start, start + site.channels)
        start = place.stop
        pictures, cells = state["pictures"][place].numpy(), state["cells"][place].numpy()
        channel, rank = np.nonzero(pictures >= 0)
        numbers = pictures[channel, rank]
        found: dict[str, Any] = {
            "site": np.repeat(site.name, len(channel)),
            "channel": channel,
            "rank": rank,
            "activation": state["values"][place].numpy()[channel, rank],
            "picture": numbers,
        }
        names = ("row", "column", "top", "left", "bottom", "right")
        found |= dict(zip(names, cell_boxes(site, size, cells[channel, rank]), strict=True))
        table = pd.DataFrame(found)
        different, place_of = np.unique(numbers, return_inverse=True)
        paths, labels = [source.path(int(n)) for n in different], [source.labels[int(n)] for n in different]
        table["path"] = pd.array(paths, dtype="str").take(place_of)
        table["label"] = pd.array(labels, dtype="str").take(place_of)
        for name in UNIT_COLUMNS:
            table[name] = units[name].to_numpy()[place][channel]
        yield site.name, table


def digest_pictures(pictures: Sequence[int], digests: Sequence[str]) -> int:
    """An additive digest of pictures and their digests: those of two parts of a collection sum up, modulo 2^256."""
    whole = 0
    for picture, digest in zip(pictures, digests, strict=True):
        whole += int.from_bytes(hashlib.sha256(f"{picture} {digest}".encode()).digest())
    return whole % 2**256
