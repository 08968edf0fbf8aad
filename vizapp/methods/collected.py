"""Tables of a folder's photos for methods: collected in one pass, kept in the cache folder, and used again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vizapp.gallery import shipped
from vizapp.gallery.collectors import Collector
from vizapp.gallery.folder_pass import Input, PassOptions, Progress
from vizapp.gallery.photo_table import PhotoTable, collect, open_table, pass_identity
from vizapp.gallery.shards import rank_and_world_size
from vizapp.media.source import Source
from vizapp.methods.base import Job
from vizapp.settings import settings
from vizapp.zoo.network import Network

BATCH = {"cpu": 16, "cuda": 64}  # on two cores ResNet-50 ran a third faster with 16 than with 32


def folder_table(
    network: Network,
    source: Source,
    collectors: Sequence[Collector[Any]],
    job: Job,
    share: tuple[float, float] = (0.0, 0.98),
    workers: int = -1,
    input: Input | None = None,
) -> tuple[PhotoTable | None, str]:
    """The table of a folder's photos, shipped, from the cache, or by a pass that resumes where an earlier one was left.

    Args:
        network: The network.
        source: The photos.
        collectors: What to collect.
        job: Gets the progress.
        share: The progress at the beginning and at the end of the pass.
        workers: Processes that decode photos; -1: automatic.
        input: How photos enter the network, if not as their centre crop.

    Returns:
        The table, or None in the processes of torchrun that are not the leader; and a message, or an empty string.

    Raises:
        VizError: no photo can be read, or the table cannot be written.
    """
    options = _options(network, input, None if workers < 0 else workers)
    place = passes_of(source) / table_name(network, source, collectors, input)
    shipped.copy_to(place)

    def watch(progress: Progress) -> None:
        job.report(share[0] + (share[1] - share[0]) * progress.share)

    note = collect(network, source, collectors, place, options, watch, input)
    return (None if rank_and_world_size()[0] else open_table(place)), note


def table_name(
    network: Network, source: Source, collectors: Sequence[Collector[Any]], input: Input | None = None
) -> str:
    """The name of the table's folder: a digest of all that its numbers depend on. Arguments are those of `folder_table`."""
    text = json.dumps(pass_identity(network, source, collectors, _options(network, input), input), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _options(network: Network, input: Input | None, workers: int | None = None) -> PassOptions:
    most, count = BATCH.get(network.device.type, 16), input.count if input else 1
    photos = max(1, min(most, 10 * most // count))  # no more than 10 · most crops are in memory at a time
    return PassOptions(photos, workers, crops=most if photos < most else None)


def passes_of(source: Source) -> Path:
    """The folder of the tables of these photos: for an uploaded zip file the one that is deleted with it."""
    cache = settings().cache
    uploaded = source.root.parent == cache / "uploads"
    return source.root.with_suffix(".galleries") if uploaded else cache / "passes"
