"""The mean of the probabilities of several networks, as a table with a row per photo."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vizapp.gallery.collectors import Rows, class_columns
from vizapp.gallery.photo_table import PhotoTable, derive
from vizapp.media.source import Source

_TOGETHER = 2**22  # probabilities of a network that are averaged at a time


def mean_table(tables: Sequence[PhotoTable], source: Source, folder: Path) -> PhotoTable:
    """The table of the mean probabilities, in a sub-folder of `folder`; from there if it was computed before.

    The tables are those of `Predictions(…, whole=True)` by networks with the same classes. Photos that one of them could not
    read are left out. Raises as `derive`.
    """
    identity = {"mean of": [table.manifest["identity"] for table in tables]}
    out = folder / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    return derive(tables, _mean_rows(tables), source, out, identity)


def _mean_rows(tables: Sequence[PhotoTable]) -> Iterator[Rows]:
    """The rows of the mean, of the photos that all networks could read."""
    common = tables[0].matrix("picture")
    for table in tables[1:]:
        common = np.intersect1d(common, table.matrix("picture"))
    rows = max(1, _TOGETHER // next(tables[0].parts("every_probability")).shape[1])
    columns = "picture", "digest", "true", "every_probability"
    for blocks in zip(*(_common_blocks(table, columns, common, rows) for table in tables), strict=True):
        mean = sum(block["every_probability"].astype(np.float64) for block in blocks) / len(blocks)
        start = {name: blocks[0][name] for name in ("picture", "digest")}
        yield start | class_columns(mean, blocks[0]["true"])


def _common_blocks(table: PhotoTable, columns: Sequence[str], common: np.ndarray, rows: int) -> Iterator[Rows]:
    """The rows of some photos in blocks of exactly `rows`, the last one of what is left."""
    waiting: Rows = {}
    for values in zip(*map(table.parts, columns), strict=True):
        block = dict(zip(columns, values, strict=True))
        keep = np.isin(block["picture"], common)
        part = {name: column[keep] for name, column in block.items()}
        waiting = {name: np.concatenate([waiting[name], part[name]]) for name in columns} if waiting else part
        while len(waiting["picture"]) >= rows:
            yield {name: values[:rows] for name, values in waiting.items()}
            waiting = {name: values[rows:] for name, values in waiting.items()}
    if waiting and len(waiting["picture"]):
        yield waiting
