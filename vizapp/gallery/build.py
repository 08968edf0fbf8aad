"""Build a gallery: one resumable pass of all pictures through the network, on one or several processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vizapp.engine.memory.chunks import in_chunks
from vizapp.engine.statistics.top_activations import BatchStatistics, TopKTracker, merge_states
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError
from vizapp.files import atomic_write, remove_leftovers
from vizapp.gallery.checkpoint import LEFTOVER, Checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint
from vizapp.gallery.reader import Gallery, open_gallery
from vizapp.gallery.shards import Shards, connect_shards
from vizapp.gallery.store import EARLIER, FORMAT, MANIFEST, WORK, file_name, is_intact, read_manifest, write_gallery
from vizapp.gallery.tables import digest_pictures, row_tables, unit_table
from vizapp.media.loading import DecodedBatch, Tick, batches, worker_count
from vizapp.media.source import Source
from vizapp.settings import VERSION
from vizapp.zoo.network import Network

_EARLY_CHECKPOINTS = (1, 4)  # rounds with an early checkpoint, so that there is soon something to see


@dataclass(frozen=True)
class GalleryOptions:
    """How to build a gallery. `workers`: decoding processes, None: automatic. `every`: batches between checkpoints."""

    top: int = 9
    batch: int = 16
    workers: int | None = None
    every: int = 32


@dataclass(frozen=True)
class Progress:
    """Progress of a pass. `seconds_left` is None while unknown; `note` is a message for the user, or empty."""

    pictures: int
    of: int
    per_second: float = 0.0
    seconds_left: float | None = None
    unreadable: int = 0
    note: str = ""

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.pictures / max(1, self.of)


Watch = Callable[[Progress], None]


def identity(network: Network, source: Source, sites: Sequence[Site], plan: GalleryOptions) -> dict[str, Any]:
    """Everything that a gallery's numbers depend on, as JSON. Passes with equal identities can resume each other."""
    known = {
        "network": network.name,
        "digest": network.digest,
        "device": network.device.type,
        "preprocessing": _preprocessing(network),
        "data": source.listing_digest(),
        "pictures": len(source),
        "sites": [site.name for site in sites],
        "top": plan.top,
        "batch": plan.batch,
    }
    return dict(json.loads(json.dumps(known)))  # tuples become lists, as in a file


def _preprocessing(network: Network) -> dict[str, Any]:
    """The preprocessing as JSON, without later options that are not used: galleries made before these stay valid."""
    chosen = network.preprocessing
    values = {field.name: (getattr(chosen, field.name), field) for field in fields(chosen)}
    return {name: value for name, (value, field) in values.items() if field.repr or value != field.default}


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
                _Pass(network, source, sites, out, plan, wanted, shards, watch).run(found, begun, note)
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


class _Pass:
    """One run over this process's batches."""

    def __init__(
        self, network: Network, source: Source, sites: Sequence[Site], out: Path, plan: GalleryOptions,
        wanted: dict[str, Any], shards: Shards, watch: Watch | None,
    ) -> None:  # fmt: skip
        self.network, self.source, self.sites, self.out, self.plan = network, source, sites, out, plan
        self.identity, self.shards, self.watch = wanted, shards, watch
        self.strongest = TopKTracker(sites, plan.top)
        self.digest, self.failed = 0, list[tuple[int, str]]()
        self.count = -(-len(source) // plan.batch)
        self.fitting = network.batch_limit(plan.batch)  # pictures per forward pass
        self.done = 0  # pictures in this run, for the speed
        self.left = False  # whether the watcher stopped the pass; the state is then that after the last complete batch
        self.started = time.monotonic()

    def run(self, found: Checkpoint | None, begun: int, note: str) -> None:
        """Run from batch `begun` to the end; `found`: the checkpoint that the leader resumes from."""
        if found is not None:
            self.strongest.load(found.state, self.network.device)
            self.digest, self.failed = found.digest, list(found.failed)
        self._report(begun, note)
        between, at = False, begun  # whether the state is exactly that of the first `at` batches

        def tick(share: float) -> None:
            self._report(at, "")

        try:
            for number, loaded in enumerate(self._decoded_batches(begun, tick), 1):
                between = False
                if loaded is not None:
                    self._observe(loaded, at)
                at, between = min(begun + number * self.shards.world, self.count), True
                due = number % max(1, self.plan.every // self.shards.world) == 0 or number in _EARLY_CHECKPOINTS
                if due and at < self.count:
                    if self._is_finished_elsewhere():
                        between = False
                        remove_checkpoints(self.out / WORK)
                        return
                    self._save(at)
                self._report(at, note)
            between = False
            self._finish()
        finally:
            if (between or self.left) and self.shards.world == 1:  # stopped between batches
                self._save(at)

    def _decoded_batches(self, begun: int, tick: Tick) -> Iterator[DecodedBatch | None]:
        """This process's batches, one per round; None in the last round if none is left."""
        world, rank = self.shards.world, self.shards.rank
        numbers = range(begun + rank, self.count, world)
        workers = worker_count(len(self.source), world) if self.plan.workers is None else self.plan.workers
        yield from batches(self.source, self.network.preprocessing.view, numbers, self.plan.batch, workers, tick)
        rounds = -(-(self.count - begun) // world)
        yield from [None] * (rounds - len(numbers))

    def _observe(self, loaded: DecodedBatch, at: int) -> None:
        count = len(loaded.pictures)

        def observe(part: Sequence[int]) -> BatchStatistics:
            batch = self.network.batch(loaded.pixels[[min(place, count - 1) for place in part]])
            pictures = sum(place < count for place in part)
            return self.strongest.observe(self.network.module, batch, pictures, lambda: self._report(at, ""))

        if count:
            # All passes have equally many pictures (the last one is repeated if necessary): rounding depends on the batch
            # size, and equal pictures in different batches must get equal activations.
            size = min(self.fitting, len(self.source))
            parts = list(in_chunks(range(count + -count % size), observe, size))
            # Only now, when the watcher can no longer raise: a saved state must hold complete batches.
            self.strongest.update(parts, torch.tensor(loaded.pictures))
            fitting = max(len(part.peaks) for part in parts)
            self.fitting = fitting if fitting < size else self.fitting
        self.digest = (self.digest + digest_pictures(loaded.pictures, loaded.digests)) % 2**256
        self.failed += loaded.failed
        self.done += len(loaded.pictures) + len(loaded.failed)

    def _gather_state(self, batches: int) -> Checkpoint | None:
        """The merged state of all processes after the first `batches` batches; None except on the leader."""
        parts = self.shards.gather((self.strongest.state(), self.digest, self.failed))
        if not parts:
            return None
        failed = sorted(failure for part in parts for failure in part[2])
        state = merge_states([part[0] for part in parts]) if len(parts) > 1 else parts[0][0]
        digest = sum(part[1] for part in parts) % 2**256
        return Checkpoint(self.identity, batches, state, digest, tuple(failed))

    def _is_finished_elsewhere(self) -> bool:
        """Whether an unrelated process has finished the same gallery in the meantime."""
        return self.shards.world == 1 and read_manifest(self.out) is not None

    def _save(self, batches: int) -> None:
        checkpoint = self._gather_state(batches)
        if checkpoint is None or self._is_finished_elsewhere():
            return
        try:
            save_checkpoint(self.out / WORK, checkpoint)
        except FileNotFoundError:  # another process has just finished and removed the folder
            if not self._is_finished_elsewhere():
                raise

    def _report(self, batches: int, note: str) -> None:
        if self.watch is None or not self.shards.is_leader:
            return
        pictures = min(batches * self.plan.batch, len(self.source))
        spent = time.monotonic() - self.started
        speed = self.shards.world * self.done / spent if self.done else 0.0
        left = (len(self.source) - pictures) / speed if speed else None
        self.left = True  # unless the watcher returns
        self.watch(Progress(pictures, len(self.source), speed, left, len(self.failed), note))
        self.left = False

    def _finish(self) -> None:
        whole = self._gather_state(self.count)
        if whole is not None:
            if len(whole.failed) == len(self.source):
                raise VizError(
                    f"None of the {len(self.source)} photos in {self.source.name} can be read: {whole.failed[0][1]}",
                    code="no-readable-picture",
                )
            units, tables, manifest = describe_checkpoint(self.network, self.source, self.sites, whole)
            write_gallery(self.out, tables, units, manifest)
            remove_checkpoints(self.out / WORK)
            remove_leftovers(self.out, LEFTOVER)


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
        "preprocessing": _preprocessing(network),
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
