"""A gallery on the disk: a Parquet file per site, and what belongs to it under names that begin with `_`.

`pandas.read_parquet(folder)` and DuckDB's `read_parquet('folder/*.parquet')` read the whole as it is, because pyarrow
passes names over that begin with `_`. `docs/gallery.md` describes the columns.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from vizapp.errors import VizError
from vizapp.gallery.checkpoint import write_bytes

MANIFEST, UNITS, WORK, RESULT = "_manifest.json", "_units.arrow", "_work", "_result"
FORMAT = 1
_KEYS = {"network", "data", "sites", "top", "unreadable", "identity"}  # of a manifest


def file_of(number: int, site: str) -> str:
    """The name of a site's Parquet file; the number keeps the sites in running order and their files apart."""
    return f"{number:03d}-{re.sub(r'[^A-Za-z0-9.-]+', '_', site).strip('._')}.parquet"


def write_gallery(
    folder: Path, tables: Iterable[tuple[str, pd.DataFrame]], units: pd.DataFrame, manifest: dict[str, Any]
) -> None:
    """Write everything; the manifest last, so that a gallery with a manifest is whole.

    Each site's rows are written while those of the next one are put together.
    """
    wanted, writing = set(), []
    with ThreadPoolExecutor(1, "vizapp-write") as aside:
        for number, (site, table) in enumerate(tables):
            name = file_of(number, site)
            wanted.add(name)
            writing.append(aside.submit(_write_rows, folder / name, table))
        content = _arrow(units)
        for one in writing:
            one.result()
    write_bytes(folder / UNITS, content)  # all of them are there before the manifest is
    for path in folder.glob("*.parquet"):
        if path.name not in wanted:
            path.unlink()
    write_bytes(folder / MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None where there is none that can be read."""
    with suppress(OSError, ValueError):
        manifest = json.loads((folder / MANIFEST).read_text())
        if isinstance(manifest, dict) and manifest.get("format") == FORMAT and manifest.keys() >= _KEYS:
            return manifest
    return None


def read_rows(folder: Path, file: str, **options: Any) -> pd.DataFrame:
    """The rows of one site. Raises VizError where the file is gone or damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(folder / file, partitioning=None, **options).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise VizError(f"{file} of the gallery in {folder} cannot be read ({_reason(error)}); build it anew.") from None


def read_units(folder: Path) -> pd.DataFrame:
    """The statistics, a row per unit. Raises VizError where they are gone or damaged."""
    import pyarrow as pa
    from pyarrow import feather

    try:
        return feather.read_table(folder / UNITS).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise VizError(
            f"{UNITS} of the gallery in {folder} cannot be read ({_reason(error)}); build it anew."
        ) from None


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _write_rows(path: Path, table: pd.DataFrame) -> None:
    write_bytes(path, _parquet(table), last=False)


def _parquet(table: pd.DataFrame) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    stream = io.BytesIO()
    whole = pa.Table.from_pandas(table, preserve_index=False)
    parquet.write_table(whole, stream, compression="zstd")
    return stream.getvalue()


def _arrow(table: pd.DataFrame) -> bytes:
    import pyarrow as pa
    from pyarrow import feather

    stream = io.BytesIO()
    feather.write_feather(pa.Table.from_pandas(table, preserve_index=False), stream, compression="zstd")
    return stream.getvalue()
