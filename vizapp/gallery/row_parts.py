"""The rows of a pass on disk while it runs: a file for those between two checkpoints, so that memory does not grow."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import feather

from vizapp.files import atomic_write, read_file
from vizapp.gallery.collectors import Rows

Part = tuple[str, str]  # a file's name and sha256
PATTERN = "rows-*.arrow"


def write_part(folder: Path, first: int, end: int, rows: Rows) -> Part:
    """Write the rows of the batches from `first` to `end` (exclusive)."""
    stream = io.BytesIO()
    feather.write_feather(to_arrow(rows), stream, compression="uncompressed")
    name, content = f"rows-{first:08d}-{end:08d}.arrow", stream.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / name, content, sync="file")
    return name, hashlib.sha256(content).hexdigest()


def read_parts(folder: Path, parts: Sequence[Part]) -> Iterator[pa.Table]:
    """The tables of the parts, one at a time.

    Raises:
        OSError: a file is missing or was altered.
    """
    for name, digest in parts:
        content = read_file(folder / name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise OSError(f"{name} was altered")
        yield feather.read_table(pa.BufferReader(content))


def to_arrow(rows: Rows) -> pa.Table:
    """Columns `[n]`, and `[n F]` as lists of fixed length."""
    return pa.table({name: _column(values) for name, values in rows.items()})


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
