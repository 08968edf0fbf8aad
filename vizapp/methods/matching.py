"""Matching units of two networks, or of two versions of one, by their activations over a folder of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from vizapp.engine.memory.chunks import in_chunks
from vizapp.engine.statistics.correlation import BestMatches, Correlation
from vizapp.engine.trace.observe import observe
from vizapp.errors import VizError, plural
from vizapp.media.source import Source
from vizapp.methods.base import Job, Result
from vizapp.zoo.network import Network

AT_ONCE = 16  # pictures
MOST_CORRELATIONS = 2**26  # in an array: 256 MB
FEWEST = 3  # pictures: two points are always perfectly correlated
Pool = Literal["mean", "maximum"]


def match_units(
    networks: tuple[Network, Network],
    sites: tuple[str, str],
    folder: Source,
    job: Job,
    pool: Pool = "mean",
    most: int = 500,
) -> Result:
    """For each unit of a layer of the first network, the most correlated unit of a layer of the second.

    `arrays`: `correlation` `[C1 C2]` (Pearson; NaN for a unit with constant, infinite or NaN activations), omitted if it
    has more than 2²⁶ numbers; `matches` `[K 2]`, the best first. `table`: the matches with their correlations. Unreadable
    pictures are skipped and counted.

    Args:
        networks: The two networks.
        sites: A layer of each.
        folder: The pictures.
        job: For progress.
        pool: The activation of a unit on a picture is the mean or the maximum of its map.
        most: Largest number of pictures, evenly spaced.

    Raises:
        VizError: fewer than three pictures can be read, or a network has no such layer.
    """
    found = Correlation()
    chosen = [network.site(name) for network, name in zip(networks, sites, strict=True)]
    numbers = np.unique(np.linspace(0, len(folder) - 1, min(most, len(folder))).astype(int)).tolist()

    def run(part: Sequence[int]) -> int:
        pictures = [picture for _, picture in folder.open_readable(part)]
        if pictures:
            answers = []
            for network, site in zip(networks, chosen, strict=True):
                batch = network.batch([network.crop(picture) for picture in pictures])
                values = observe(network.module, batch, [site])[site.name]
                if values.ndim == 4:
                    values = values.mean((2, 3), dtype=torch.float64) if pool == "mean" else values.amax((2, 3))
                answers.append(values.double().cpu().numpy())
            found.add(*answers)
        return len(pictures)

    most_at_once = min(network.batch_limit(AT_ONCE) for network in networks)
    for _ in in_chunks(numbers, run, most_at_once, lambda share: job.report(0.9 * share)):
        pass
    if found.pictures < FEWEST:
        raise VizError(
            f"{plural(found.pictures, 'photo')} of {folder.name} can be read; at least {FEWEST} are needed to correlate.",
            code="too-few-pictures",
        )
    unread = len(numbers) - found.pictures
    facts = {
        "pictures": f"{found.pictures} of {len(folder)} in {folder.name}" + (f", {unread} unreadable" * bool(unread))
    }
    shape, best = tuple(site.channels for site in chosen), BestMatches()
    correlation = np.empty(shape, np.float32) if math.prod(shape) <= MOST_CORRELATIONS else None
    for rows, block in found.blocks():
        best.add(block)
        if correlation is not None:
            correlation[rows] = block
        job.report(0.9 + 0.1 * rows.stop / shape[0])
    matches, values = best.sorted()
    arrays = {"matches": matches}
    if correlation is None:
        facts["correlation"] = f"of the matches alone; all {shape[0]:,} × {shape[1]:,} would be too many"
    else:
        arrays = {"correlation": correlation} | arrays
    table = tuple(
        {"first": int(a), "second": int(b), "correlation": float(value)}
        for (a, b), value in zip(matches, values, strict=True)
    )
    return Result("matching", arrays, (), facts, table)
