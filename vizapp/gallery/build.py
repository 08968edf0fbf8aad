"""Build a gallery: one resumable pass of all pictures through the network, on one or several processes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError
from vizapp.files import atomic_write, remove_leftovers
from vizapp.gallery.checkpoint import LEFTOVER, Checkpoint, load_checkpoint, remove_checkpoints
from vizapp.gallery.collectors import TopActivations
from vizapp.gallery.folder_pass import FolderPass, PassOptions, Watch, identity_of, preprocessing_of
from vizapp.gallery.reader import Gallery, open_gallery
from vizapp.gallery.shards import connect_shards
from vizapp.gallery.store import EARLIER, FORMAT, MANIFEST, WORK, file_name, is_intact, read_manifest, write_gallery
from vizapp.gallery.tables import row_tables, unit_table
from vizapp.media.source import Source
from vizapp.settings import VERSION
from vizapp.zoo.network import Network


@dataclass(frozen=True)
class GalleryOptions:
    """How to build a gallery. `workers`: decoding processes, None: automatic. `every`: batches between checkpoints."""

    top: int = 9
    batch: int = 16
    workers: int | None = None
    every: int = 32

    @property
    def of_pass(self) -> PassOptions:
        """The options of its pass."""
        return PassOptions(self.batch, self.workers, self.every)


def identity(network: Network, source: Source, sites: Sequence[Site], plan: GalleryOptions) -> dict[str, Any]:
    """Everything that a gallery's numbers depend on, as JSON. Passes with equal identities can resume each other."""
    known = identity_of(network, source) | {
        "sites": [site.name for site in sites],
        "top": plan.top,
        "batch": plan.batch,
    }
    return dict(json.loads(json.dumps(known)))  # tuples become lists, as in a file


def build(
    network: Network,
    source: Source,
    sites: Sequence[Site],
    out: Path,
    plan: GalleryOptions = GalleryOptions(),
    watch: Watch | None = None,
) -> str:
    """Build a gallery, or resume it. A complete one is kept.

    Under torchrun, all processes call this with equal arguments, and the leader writes.

    Args:
        network: the network.
        source: the pictures.
        sites: the layers to include.
        out: the gallery's folder.
        plan: options; a pass can be resumed only with the same `top` and `batch`.
        watch: called with the progress several times a second; it may raise to stop the pass, which can be resumed.

    Returns:
        A message about what was found in `out`, or an empty string.

    Raises:
        VizError: `out` holds something else or cannot be written, or no picture can be read.
    """
    wanted = identity(network, source, sites, plan)
    try:
        with connect_shards(network.device) as shards:
            found, note = _find_checkpoint(out, wanted) if shards.is_leader else (None, "")
            begun, note, whole = shards.broadcast((found.batches if found else 0, note, read_manifest(out) is not None))
            if whole:
                note = "The gallery was there already."
            else:
                tops, work = [TopActivations(sites, plan.top)], out / WORK
                over = FolderPass(
                    network,
                    source,
                    tops,
                    work,
                    plan.of_pass,
                    wanted,
                    shards,
                    watch,
                    lambda: read_manifest(out) is not None,
                )
                over.run(found, begun, note, lambda whole: _finish(network, source, sites, out, whole))
                if shards.is_leader:  # finished, here or by an unrelated process
                    remove_checkpoints(work)
                    remove_leftovers(out, LEFTOVER)
    except OSError as error:
        raise VizError(f"Cannot write the gallery to {out}: {error.strerror or error}.", code="unwritable") from None
    return note


def _find_checkpoint(out: Path, wanted: dict[str, Any]) -> tuple[Checkpoint | None, str]:
    """The checkpoint to resume from, if any, and a message. Checks that `out` holds nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(out)
    if manifest is not None:
        _check_identity(manifest["identity"], wanted, out)
        if is_intact(out, manifest):
            return None, ""
        atomic_write(out / MANIFEST, b"")  # otherwise the gallery counts as complete
    outdated = read_manifest(out, EARLIER)
    if outdated is not None:
        _check_identity(outdated["identity"], wanted, out)
    found, note = load_checkpoint(out / WORK)
    if found is not None:
        _check_identity(found.identity, wanted, out)
        note = note or f"Resumed after {found.batches} batches."
    elif outdated is not None:
        note = "The gallery that was there was built by an earlier version, which could miss top photos; it was built again."
    elif (out / MANIFEST).exists():
        note = note or "The gallery that was there was damaged; the pass began anew."
    elif not note and not (out / WORK).exists():
        own = {file_name(number, name) for number, name in enumerate(wanted["sites"])}  # left by an interrupted finish
        if any(path.name not in own for path in out.glob("*.parquet")):
            raise VizError(f"{out} holds other Parquet files; use another folder.", code="folder-holds-other-files")
    return found, note


def _check_identity(there: dict[str, Any], wanted: dict[str, Any], out: Path) -> None:
    words = {
        "network": "of another network", "digest": "of other weights", "device": "of another kind of device",
        "preprocessing": "with other preprocessing", "data": "of other photos", "pictures": "of other photos",
        "sites": "of other layers", "top": "with another top", "batch": "with another batch size",
    }  # fmt: skip
    for name, what in words.items():
        if there.get(name) != wanted[name]:
            raise VizError(
                f"{out} holds a gallery {what} ({_short(there.get(name))}, not {_short(wanted[name])}); delete it or use "
                "another folder.",
                code="folder-holds-other-gallery",
            )


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:36]} …"


def _finish(network: Network, source: Source, sites: Sequence[Site], out: Path, whole: Checkpoint) -> None:
    units, tables, manifest = describe_checkpoint(network, source, sites, whole)
    write_gallery(out, tables, units, manifest)


def describe_checkpoint(
    network: Network, source: Source, sites: Sequence[Site], checkpoint: Checkpoint
) -> tuple[pd.DataFrame, Iterator[tuple[str, pd.DataFrame]], dict[str, Any]]:
    """The table of units, the tables of rows by site, and the manifest of a gallery after that checkpoint.

    They do not depend on time, place or the number of processes.
    """
    units = unit_table(checkpoint.state, sites)
    rows = row_tables(checkpoint.state, sites, network.input_size[1:], units, source)
    manifest = {
        "format": FORMAT,
        "vizapp": VERSION,
        "network": {"name": network.name, "weights": network.weights, "digest": network.digest},
        "input": list(network.input_size),
        "preprocessing": preprocessing_of(network),
        "data": {
            "name": source.name,
            "pictures": len(source),
            "digest": f"{checkpoint.digest:064x}",
            "listing": checkpoint.identity["data"],
            "classes": list(source.classes),
        },
        "sites": [
            {"name": site.name, "kind": site.kind, "shape": list(site.shape), "file": file_name(number, site.name)}
            for number, site in enumerate(sites)
        ],
        "top": checkpoint.identity["top"],
        "unreadable": [
            {"picture": number, "path": source.path(number), "reason": reason.replace(f"{source.root}/", "")}
            for number, reason in checkpoint.failed
        ],
        "identity": checkpoint.identity,
    }
    return units, rows, manifest


def open_partial_gallery(network: Network, source: Source, sites: Sequence[Site], out: Path) -> Gallery | None:
    """The gallery in `out`, complete or as of its last checkpoint; None before the first checkpoint."""
    found = load_checkpoint(out / WORK)[0] if read_manifest(out) is None else None
    if found is None:
        return open_gallery(out) if (out / MANIFEST).exists() else None
    units, rows, manifest = describe_checkpoint(network, source, sites, found)
    seen = min(found.batches * found.identity["batch"], len(source))
    return Gallery(out, manifest, units, dict(rows), seen)
