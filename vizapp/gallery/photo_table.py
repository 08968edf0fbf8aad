"""A table with a row per photo of a folder, on disk as one Parquet file: what collectors gave in one resumable pass.

`pandas.read_parquet(folder)` and DuckDB's `read_parquet('folder/*.parquet')` read it. Columns: `picture` (its number), `path`,
`label` (its class in the folder, or null), `digest` (sha256 of its file), and those of the collectors.
What collectors sum up over all photos, such as the top activations, is in `state.safetensors` beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from safetensors import SafetensorError
from safetensors.torch import load, save

from vizapp.engine.statistics.top_activations import State
from vizapp.errors import VizError
from vizapp.files import atomic_file, atomic_write, file_digest, read_file, remove_leftovers
from vizapp.gallery.checkpoint import LEFTOVER, Checkpoint, load_checkpoint, remove_checkpoints
from vizapp.gallery.collectors import Collector, Rows
from vizapp.gallery.folder_pass import FolderPass, Input, PassOptions, Watch, identity_of
from vizapp.gallery.row_parts import read_parts, to_arrow
from vizapp.gallery.shards import connect_shards
from vizapp.gallery.store import MANIFEST, WORK
from vizapp.media.source import Source
from vizapp.settings import VERSION
from vizapp.zoo.network import Network

FORMAT, FILE, STATE = "photos 1", "photos.parquet", "state.safetensors"
_GROUP_BYTES, _GROUP_ROWS = 2**24, 4096  # the most of a row group: what a reader holds at once


@dataclass(frozen=True, eq=False)
class PhotoTable:
    """A finished table. `folder`: its files. `manifest`: its origin; `manifest["identity"]` is what it depends on."""

    folder: Path
    manifest: dict[str, Any]

    def __len__(self) -> int:
        """The number of rows: photos that could be read."""
        return int(self.manifest["rows"])

    @property
    def unreadable(self) -> list[dict[str, Any]]:
        """`picture`, `path` and `reason` of each unreadable photo."""
        return list(self.manifest["unreadable"])

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns, with a row per photo in the folder's order; lists of fixed length are not split.

        Raises:
            VizError: the file is missing or damaged.
        """
        return self._read(columns).to_pandas()

    def matrix(self, column: str) -> np.ndarray:
        """A column of numbers `[n]`, or of lists of fixed length `[n F]`. Raises as `frame`."""
        return _numbers(self._read([column]))

    def parts(self, column: str) -> Iterator[np.ndarray]:
        """The rows of `matrix` in consecutive parts, one in memory at a time. Raises as `frame`."""
        try:
            with parquet.ParquetFile(self.folder / FILE) as file:
                for number in range(file.num_row_groups):
                    yield _numbers(file.read_row_group(number, [column]))
        except (OSError, pa.ArrowException, MemoryError) as error:
            raise self._damaged(error) from None

    def state(self) -> State:
        """The state that the collectors had after the last photo; see `Collector.state`. Raises as `frame`."""
        try:
            return load(read_file(self.folder / STATE))
        except (OSError, SafetensorError) as error:
            raise self._damaged(error, STATE) from None

    def _read(self, columns: Sequence[str]) -> pa.Table:
        try:
            return parquet.read_table(self.folder / FILE, columns=list(columns))
        except (OSError, pa.ArrowException, MemoryError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: BaseException, file: str = FILE) -> VizError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return VizError(
            f"{file} in {self.folder} cannot be read ({reason}); delete that folder and ask again.",
            code="table-damaged",
        )


def _numbers(table: pa.Table) -> np.ndarray:
    """The only column of a table, `[n]` or `[n F]`."""
    found = table.column(0).combine_chunks()
    if isinstance(found.type, pa.FixedSizeListType):
        return np.asarray(found.flatten().to_numpy(zero_copy_only=False).reshape(len(found), found.type.list_size))
    return np.asarray(found.to_numpy(zero_copy_only=False))


def pass_identity(
    network: Network, source: Source, collectors: Sequence[Collector[Any]], options: PassOptions, input: Input | None = None
) -> dict[str, Any]:  # fmt: skip
    """Everything that the table depends on, as JSON. Passes with equal identities can resume each other.

    Args:
        network: The network.
        source: The photos.
        collectors: What to collect.
        options: Of the pass; only `batch` and `crops` count.
        input: How photos enter the network, if not as their centre crop.
    """
    known = identity_of(network, source) | {
        "input": input.name if input else "", "batch": options.batch,
        "collected": [one.identity() for one in collectors],
    }  # fmt: skip
    crops = {} if options.crops is None else {"crops": options.crops}
    return dict(json.loads(json.dumps(known | crops)))  # tuples become lists, as in a file


def collect(
    network: Network,
    source: Source,
    collectors: Sequence[Collector[Any]],
    out: Path,
    options: PassOptions,
    watch: Watch | None = None,
    input: Input | None = None,
) -> str:
    """Fill the table in the folder `out` by one pass, or resume that. A complete one is kept.

    Under torchrun, all processes call this with equal arguments, and the leader writes.

    Args:
        network: The network.
        source: The photos.
        collectors: What to collect; each adds its columns.
        out: The folder of the table, which no other table may use.
        options: Of the pass.
        watch: Called with the progress several times a second; it may raise to stop the pass, which can be resumed.
        input: How photos enter the network, if not as their centre crop.

    Returns:
        A message about what was found in `out`, or an empty string.

    Raises:
        VizError: `out` holds something else or cannot be written, or no photo can be read.
    """
    wanted = pass_identity(network, source, collectors, options, input)
    try:
        with connect_shards(network.device) as shards:
            found, note = _find(out, wanted) if shards.is_leader else (None, "")
            begun, note, whole = shards.broadcast((found.batches if found else 0, note, _manifest(out) is not None))
            if not whole:
                over = FolderPass(
                    network, source, collectors, out / WORK, options, wanted, shards, watch,
                    lambda: _manifest(out) is not None, input,
                )  # fmt: skip
                over.run(found, begun, note, lambda state: _write(source, out, network, state))
                if shards.is_leader:
                    remove_checkpoints(out / WORK)
                    remove_leftovers(out, LEFTOVER)
    except OSError as error:
        raise VizError(f"Cannot write to {out}: {error.strerror or error}.", code="unwritable") from None
    return note


def open_table(out: Path) -> PhotoTable:
    """The finished table in that folder.

    Raises:
        VizError: there is none, or it is damaged.
    """
    manifest = _manifest(out)
    if manifest is None:
        raise VizError(f"{out} holds no finished table of photos; ask again.", code="table-damaged")
    return PhotoTable(out, manifest)


def derive(
    tables: Sequence[PhotoTable], rows: Iterable[Rows], source: Source, out: Path, identity: dict[str, Any]
) -> PhotoTable:
    """A table computed from finished tables of the same photos; if it is there already, no row is computed.

    Args:
        tables: The finished tables.
        rows: The rows in the folder's order, in blocks; `picture` and `digest` come first.
        source: The photos.
        out: The folder of the table, which no other table may use.
        identity: What the table depends on, as JSON.

    Raises:
        VizError: `out` holds another table or cannot be written.
    """
    try:
        _find(out, identity)  # checks that nothing else is there
        if _manifest(out) is None:
            count = _write_file(source, out, (to_arrow(block) for block in rows))
            lost = {one["picture"]: one for table in reversed(tables) for one in table.unreadable}
            about = tables[0].manifest | {"rows": count, "unreadable": [lost[number] for number in sorted(lost)]}
            _write_manifest(out, about | {"checksum": file_digest(out / FILE), "identity": identity})
    except OSError as error:
        raise VizError(f"Cannot write to {out}: {error.strerror or error}.", code="unwritable") from None
    return open_table(out)


def _find(out: Path, wanted: dict[str, Any]) -> tuple[Checkpoint | None, str]:
    """The checkpoint to resume from, if any, and a message. Checks that `out` holds nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    manifest = _manifest(out)
    if manifest is not None:
        _check_identity(manifest["identity"], wanted, out)
        sums = {FILE: manifest["checksum"]} | ({STATE: manifest["state"]} if "state" in manifest else {})
        if all((out / name).is_file() and file_digest(out / name) == digest for name, digest in sums.items()):
            return None, ""
        atomic_write(out / MANIFEST, b"")
        return None, "The table that was there was damaged; the pass began anew."
    found, note = load_checkpoint(out / WORK)
    if found is not None:
        _check_identity(found.identity, wanted, out)
        note = note or f"Resumed after {found.batches} batches."
    elif not note and any(path.name != FILE for path in out.glob("*.parquet")):
        raise VizError(f"{out} holds other Parquet files; use another folder.", code="folder-holds-other-files")
    return found, note


def _check_identity(there: dict[str, Any], wanted: dict[str, Any], out: Path) -> None:
    different = [name for name in wanted if there.get(name) != wanted[name]]
    if different:
        raise VizError(
            f"{out} holds the table of another pass (other {', '.join(different)}); delete it or use another folder.",
            code="folder-holds-other-gallery",
        )


def _manifest(out: Path) -> dict[str, Any] | None:
    """The manifest, or None if it is missing, damaged or of something else."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(read_file(out / MANIFEST))
        if isinstance(found, dict) and found.get("format") == FORMAT and isinstance(found.get("identity"), dict):
            return found
    return None


def _write(source: Source, out: Path, network: Network, state: Checkpoint) -> None:
    """Write the table, then the manifest. The bytes do not depend on time, place, processes or interruptions."""
    rows = _write_file(source, out, read_parts(out / WORK, state.parts))
    if state.state:
        atomic_write(out / STATE, save(state.state), sync="file")
    manifest = {
        "format": FORMAT,
        "vizapp": VERSION,
        "network": {"name": network.name, "weights": network.weights, "digest": network.digest},
        "data": {
            "name": source.name,
            "pictures": len(source),
            "digest": f"{state.digest:064x}",
            "classes": list(source.classes),
        },
        "rows": rows,
        "unreadable": [
            {"picture": number, "path": source.path(number), "reason": reason.replace(f"{source.root}/", "")}
            for number, reason in state.failed
        ],
        "checksum": file_digest(out / FILE),
        "identity": state.identity,
    } | ({"state": file_digest(out / STATE)} if state.state else {})  # fmt: skip
    _write_manifest(out, manifest)


def _write_file(source: Source, out: Path, tables: Iterable[pa.Table]) -> int:
    """Write the Parquet file; returns its number of rows."""
    rows = 0
    with atomic_file(out / FILE, sync="file") as file:
        writer = None
        try:
            for table in _groups(tables):
                whole = _with_names(table, source)
                writer = writer or parquet.ParquetWriter(file, whole.schema, compression="zstd")
                writer.write_table(whole, row_group_size=len(whole))
                rows += len(whole)
        finally:
            if writer is not None:
                writer.close()
    return rows


def _write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    atomic_write(out / MANIFEST, text.encode("utf-8", "surrogateescape"), sync="folder")


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of all tables in groups of a size that depends on their columns alone."""
    waiting: pa.Table | None = None
    size = 0
    for table in tables:
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        size = size or max(1, min(_GROUP_ROWS, _GROUP_BYTES // sum(map(_width, table.schema.types))))
        while len(waiting) >= size:
            yield waiting.slice(0, size).combine_chunks()
            waiting = waiting.slice(size)
    if waiting is not None and len(waiting):
        yield waiting.combine_chunks()


def _width(kind: pa.DataType) -> int:
    """Bytes of a value, about."""
    return 4 * kind.list_size if isinstance(kind, pa.FixedSizeListType) else 64


def _with_names(table: pa.Table, source: Source) -> pa.Table:
    """The table with `path` and `label` behind `picture`."""
    numbers = table.column("picture").to_pylist()
    paths = pa.array([source.path(number) for number in numbers], pa.string())
    labels = pa.array([source.labels[number] for number in numbers], pa.string())
    return table.add_column(1, "path", paths).add_column(2, "label", labels)
