"""A gallery on disk: a Parquet file per site, and other files whose names begin with `_`.

`pandas.read_parquet(folder)` and DuckDB's `read_parquet('folder/*.parquet')` read all rows, because pyarrow ignores names
that begin with `_`. `docs/gallery.md` describes the columns.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import feather, parquet

from vizapp.errors import VizError
from vizapp.files import atomic_write, read_file
from vizapp.gallery.tables import ROW_COLUMNS, UNIT_COLUMNS

MANIFEST, UNITS, WORK = "_manifest.json", "_units.arrow", "_work"
FORMAT = 2
EARLIER = range(1, FORMAT)  # formats of earlier versions, which could miss top pictures in a batch that was not full


def file_name(number: int, site: str) -> str:
    """The name of a site's Parquet file. The number keeps names unique and in running order."""
    return f"{number:03d}-{re.sub(r'[^A-Za-z0-9.-]+', '_', site).strip('._')}.parquet"


def write_gallery(
    folder: Path, tables: Iterable[tuple[str, pd.DataFrame]], units: pd.DataFrame, manifest: dict[str, Any]
) -> None:
    """Write all files, the manifest last: a gallery with a manifest is complete. The manifest gets the files' checksums.

    Each site's rows are written while the next table is computed.
    """
    writing = {}
    with ThreadPoolExecutor(1, "vizapp-write") as aside:
        for number, (site, table) in enumerate(tables):
            name = file_name(number, site)
            writing[name] = aside.submit(_write_rows, folder / name, table)
        stream = io.BytesIO()
        feather.write_feather(pa.Table.from_pandas(units, preserve_index=False), stream, compression="zstd")
        sums = {name: one.result() for name, one in writing.items()}
    atomic_write(folder / UNITS, stream.getvalue(), sync="folder")  # before the manifest exists
    for path in folder.glob("*.parquet"):
        if path.name not in writing:
            path.unlink()
    complete = manifest | {"checksums": sums | {UNITS: _checksum(stream.getvalue())}}
    complete["checksums"][MANIFEST] = _own_checksum(complete)
    atomic_write(folder / MANIFEST, _manifest_file(complete), sync="folder")


def read_manifest(folder: Path, formats: Container[int] = (FORMAT,)) -> dict[str, Any] | None:
    """The manifest, or None if it is missing, damaged or of none of these formats."""
    with suppress(OSError, ValueError, RecursionError):
        content = read_file(folder / MANIFEST)
        manifest = json.loads(content)
        if _matches(manifest, _MANIFEST) and manifest["format"] in formats and manifest["sites"]:
            if manifest["format"] != FORMAT or "checksums" not in manifest:  # by an earlier version
                return manifest
            whole = manifest["checksums"].get(MANIFEST) == _own_checksum(manifest)
            return manifest if whole and content == _manifest_file(manifest) else None
    return None


def is_intact(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether all files of the gallery are as they were written. Reads all of them."""
    try:
        for name in (UNITS, *(site["file"] for site in manifest["sites"])):
            _read_checked(folder, name, manifest)
    except (OSError, ValueError):
        return False
    return True


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _manifest_file(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def _own_checksum(manifest: Mapping[str, Any]) -> str:
    """The checksum of the manifest without its own checksum."""
    sums = {name: value for name, value in manifest["checksums"].items() if name != MANIFEST}
    return _checksum(json.dumps(dict(manifest) | {"checksums": sums}, sort_keys=True).encode())


def _read_checked(folder: Path, file: str, manifest: Mapping[str, Any]) -> bytes:
    content = read_file(folder / file)
    if manifest.get("checksums", {}).get(file, expected := _checksum(content)) != expected:  # older ones have none
        raise ValueError("its checksum is wrong")
    return content


def _matches(value: Any, wanted: Any) -> bool:
    """Whether a JSON value matches a schema: a type, a predicate, {key: schema}, or [schema] for all items."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(_matches(value.get(key), part) for key, part in wanted.items())
    if isinstance(wanted, list):
        return isinstance(value, list) and all(_matches(item, wanted[0]) for item in value)
    return wanted(value) if callable(wanted) and not isinstance(wanted, type) else isinstance(value, wanted)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_own_file(value: Any) -> bool:
    """Whether it names a file in the gallery's own folder. Manifests are untrusted."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]+\.parquet", value) is not None


# What readers rely on.
_MANIFEST = {
    "format": _is_count, "network": {"name": str, "digest": str}, "top": _is_count, "identity": dict,
    "data": {"name": str, "pictures": _is_count, "listing": str, "classes": [str]},
    "sites": [{"name": str, "file": _is_own_file}], "unreadable": [{"path": str, "reason": str}],
    "checksums": lambda value: value is None or isinstance(value, dict),
}  # fmt: skip


def read_rows(folder: Path, file: str, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of one site. Raises VizError where the file is missing or damaged."""
    return _read(parquet.read_table, ROW_COLUMNS, folder, file, manifest)


def read_units(folder: Path, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """The statistics, a row per unit. Raises VizError where the file is missing or damaged."""
    wanted = (*UNIT_COLUMNS, "site", "channel", "histogram")
    return _read(feather.read_table, wanted, folder, UNITS, manifest)


def _read(
    read: Callable[[pa.BufferReader], pa.Table],
    wanted: Iterable[str],
    folder: Path,
    file: str,
    manifest: Mapping[str, Any],
) -> pd.DataFrame:
    try:
        table = read(pa.BufferReader(_read_checked(folder, file, manifest))).to_pandas()
    except (OSError, ValueError, pa.ArrowException, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise VizError(
            f"{file} of the gallery in {folder} cannot be read ({reason}); build it again.", code="gallery-damaged"
        ) from None
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise VizError(
            f"{file} of the gallery in {folder} has no column {missing[0]}; build it again.",
            code="gallery-column-missing",
        )
    return table


def _write_rows(path: Path, table: pd.DataFrame) -> str:
    """Write the file; returns its checksum."""
    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(table, preserve_index=False), stream, compression="zstd")
    atomic_write(path, stream.getvalue(), sync="file")
    return _checksum(stream.getvalue())
