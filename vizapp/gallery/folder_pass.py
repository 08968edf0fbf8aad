"""One pass of a folder's photos through a network, for any collectors: streamed, resumable, on one or several processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.chunks import in_chunks
from vizapp.engine.statistics.top_activations import State
from vizapp.engine.trace.observe import observe_together
from vizapp.errors import VizError
from vizapp.gallery.checkpoint import Checkpoint, save_checkpoint
from vizapp.gallery.collectors import Collector, Observation, Rows, joined_rows
from vizapp.gallery.row_parts import Part, write_part
from vizapp.gallery.shards import Shards
from vizapp.gallery.tables import digest_pictures
from vizapp.media.loading import Crop, DecodedBatch, Tick, batches, worker_count
from vizapp.media.source import Source
from vizapp.zoo.network import Network

_EARLY_CHECKPOINTS = (1, 4)  # rounds with an early checkpoint, so that there is soon something to see


@dataclass(frozen=True)
class PassOptions:
    """How to read a folder. `workers`: decoding processes, None: automatic. `every`: batches between checkpoints.

    `batch`: photos in a batch. `crops`: crops of a forward pass, None: as many as there are photos in a batch.
    """

    batch: int = 16
    workers: int | None = None
    every: int = 32
    crops: int | None = None


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


@dataclass(frozen=True)
class Input:
    """How photos enter the network, if not as their centre crop.

    `crop` takes `[H W 3]` from a photo, or several crops `[n H W 3]`; `name` describes it in the identity of the pass.
    `scores`: class scores `[1 classes]` of what `crop` took of one photo, uint8 `[H W 3]` of any size; None: those of the
    network, whose input size the crops have. `count`: crops of a photo.
    """

    crop: Crop
    name: str
    scores: Callable[[np.ndarray], Tensor] | None = None
    count: int = 1


def preprocessing_of(network: Network) -> dict[str, Any]:
    """The preprocessing as JSON, without later options that are not used: passes made before these stay valid."""
    chosen = network.preprocessing
    values = {field.name: (getattr(chosen, field.name), field) for field in fields(chosen)}
    return {name: value for name, (value, field) in values.items() if field.repr or value != field.default}


def identity_of(network: Network, source: Source) -> dict[str, Any]:
    """What the numbers of any pass of this network over these photos depend on; with what is collected it is the whole."""
    return {
        "network": network.name,
        "digest": network.digest,
        "device": network.device.type,
        "preprocessing": preprocessing_of(network),
        "data": source.listing_digest(),
        "pictures": len(source),
    }


class FolderPass:
    """One run over this process's batches.

    Args:
        network: The network.
        source: The photos.
        collectors: What to collect.
        work: The folder of the checkpoints.
        options: Batches, decoding processes, checkpoints; numbers depend on `batch` and `crops` alone.
        identity: What the numbers depend on; kept in the checkpoints.
        shards: The processes that share the pass.
        watch: Called with the progress several times a second; it may raise to stop the pass.
        is_finished: Whether an unrelated process has finished the same pass in the meantime.
        input: How photos enter the network; by default as their centre crop.
    """

    def __init__(
        self, network: Network, source: Source, collectors: Sequence[Collector[Any]], work: Path, options: PassOptions,
        identity: dict[str, Any], shards: Shards, watch: Watch | None = None, is_finished: Callable[[], bool] = bool,
        input: Input | None = None,
    ) -> None:  # fmt: skip
        self.network, self.source, self.collectors, self.work = network, source, tuple(collectors), work
        self.options, self.identity, self.shards, self.watch, self.input = options, identity, shards, watch, input
        self._is_finished = is_finished
        self._photos = list[Rows]()  # number and digest of each photo, for the rows
        self._parts, self._written = list[Part](), 0  # rows on disk, of so many batches
        self.digest, self.failed = 0, list[tuple[int, str]]()
        self.count = -(-len(source) // options.batch)
        self.fitting = (
            1 if input and input.scores else network.batch_limit(options.crops or options.batch)
        )  # crops per forward pass
        self.done = 0  # pictures in this run, for the speed
        self.left = False  # whether the watcher stopped the pass; the state is then that after the last complete batch
        self.started = time.monotonic()

    def run(self, found: Checkpoint | None, begun: int, note: str, finish: Callable[[Checkpoint], None]) -> None:
        """Run from batch `begun` to the end.

        Args:
            found: The checkpoint that the leader resumes from.
            begun: Its number of batches.
            note: A message for the user.
            finish: Called on the leader with the complete state.

        Raises:
            VizError: No photo can be read, or the network does not compute what is to be collected.
        """
        self._written = begun
        if found is not None:
            for collector in self.collectors:
                collector.load(found.state, self.network.device)
            self.digest, self.failed, self._parts = found.digest, list(found.failed), list(found.parts)
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
                due = number % max(1, self.options.every // self.shards.world) == 0 or number in _EARLY_CHECKPOINTS
                if due and at < self.count:
                    if self._is_finished_elsewhere():
                        between = False
                        return
                    self._save(at)
                self._report(at, note)
            between = False
            self._finish(finish)
        finally:
            if (between or self.left) and self.shards.world == 1:  # stopped between batches
                self._save(at)

    def _decoded_batches(self, begun: int, tick: Tick) -> Iterator[DecodedBatch | None]:
        """This process's batches, one per round; None in the last round if none is left."""
        world, rank = self.shards.world, self.shards.rank
        numbers = range(begun + rank, self.count, world)
        workers = worker_count(len(self.source), world) if self.options.workers is None else self.options.workers
        crop = self.input.crop if self.input else self.network.preprocessing.view
        yield from batches(self.source, crop, numbers, self.options.batch, workers, tick)
        rounds = -(-(self.count - begun) // world)
        yield from [None] * (rounds - len(numbers))

    def _observe(self, loaded: DecodedBatch, at: int) -> None:
        crops = [crop for pixels in loaded.pixels for crop in (pixels if pixels.ndim == 4 else [pixels])]
        count, scores = len(crops), self.input.scores if self.input else None

        def observe(part: Sequence[int]) -> list[Observation]:
            chosen = [crops[min(place, count - 1)] for place in part]
            batch = self.network.batch(chosen) if scores is None else torch.empty(1)
            real = sum(place < count for place in part)
            seen = [one.start(batch, real, lambda: self._report(at, "")) for one in self.collectors]
            if scores is not None:
                found = scores(chosen[0])
            else:
                wanted = any(one.needs_scores for one in self.collectors)
                run = self.network.scores if wanted else self.network.module
                found = observe_together(self.network.module, run, batch, seen, stop=not wanted)
            for each in seen:
                each.join(found)
            return seen

        if count:
            # All passes have equally many crops (the last one is repeated if necessary): rounding depends on the batch
            # size, and equal photos in different batches must get equal numbers.
            size = min(self.fitting, len(self.source) * (count // len(loaded.pictures)))
            parts = list(in_chunks(range(count + -count % size), observe, size))
            # Only now, when the watcher can no longer raise: a saved state must hold complete batches.
            for collector, seen in zip(self.collectors, zip(*parts, strict=True), strict=True):
                collector.update(seen, loaded.pictures)
            fitting = max(len(part[0]) for part in parts)
            self.fitting = fitting if fitting < size else self.fitting
        photos, digests = np.array(loaded.pictures, np.int64), np.array(loaded.digests, object)
        self._photos.append({"picture": photos, "digest": digests})
        self.digest = (self.digest + digest_pictures(loaded.pictures, loaded.digests)) % 2**256
        self.failed += loaded.failed
        self.done += len(loaded.pictures) + len(loaded.failed)

    def _take_rows(self) -> Rows:
        """The rows since the last call; empty if the collectors have none."""
        photos, self._photos = joined_rows(self._photos), []
        columns = [one.take_rows() for one in self.collectors]
        return {name: values for part in (photos, *columns) for name, values in part.items()} if any(columns) else {}

    def _gather_state(self, batches: int) -> Checkpoint | None:
        """The merged state of all processes after the first `batches` batches; None except on the leader."""
        states = [one.state() for one in self.collectors]
        parts = self.shards.gather((states, self.digest, self.failed, self._take_rows()))
        if not parts:
            return None
        failed = sorted(failure for part in parts for failure in part[2])
        state: State = {}
        for collector, several in zip(self.collectors, zip(*(part[0] for part in parts), strict=True), strict=True):
            state |= collector.merge(several)
        rows = joined_rows([part[3] for part in parts if part[3]])
        if rows:
            order = np.argsort(rows["picture"], kind="stable")
            rows = {name: values[order] for name, values in rows.items()}
            self._parts.append(write_part(self.work, self._written, batches, rows))
            self._written = batches
        digest = sum(part[1] for part in parts) % 2**256
        return Checkpoint(self.identity, batches, state, digest, tuple(failed), tuple(self._parts))

    def _is_finished_elsewhere(self) -> bool:
        return self.shards.world == 1 and self._is_finished()

    def _save(self, batches: int) -> None:
        checkpoint = self._gather_state(batches)
        if checkpoint is None or self._is_finished_elsewhere():
            return
        try:
            save_checkpoint(self.work, checkpoint)
        except FileNotFoundError:  # another process has just finished and removed the folder
            if not self._is_finished_elsewhere():
                raise

    def _report(self, batches: int, note: str) -> None:
        if self.watch is None or not self.shards.is_leader:
            return
        pictures = min(batches * self.options.batch, len(self.source))
        spent = time.monotonic() - self.started
        speed = self.shards.world * self.done / spent if self.done else 0.0
        left = (len(self.source) - pictures) / speed if speed else None
        self.left = True  # unless the watcher returns
        self.watch(Progress(pictures, len(self.source), speed, left, len(self.failed), note))
        self.left = False

    def _finish(self, finish: Callable[[Checkpoint], None]) -> None:
        whole = self._gather_state(self.count)
        if whole is not None:
            if len(whole.failed) == len(self.source):
                raise VizError(
                    f"None of the {len(self.source)} photos in {self.source.name} can be read: {whole.failed[0][1]}",
                    code="no-readable-picture",
                )
            finish(whole)
