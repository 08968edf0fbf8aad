"""Matching units of two networks, or of two versions of one, by their activations over a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from vizapp.engine.memory.chunks import in_chunks
from vizapp.engine.statistics.correlation import Correlation, best_matches
from vizapp.engine.trace.observe import observe
from vizapp.errors import VizError
from vizapp.media.source import Source
from vizapp.methods.base import Job, Result
from vizapp.zoo.network import Network

AT_ONCE = 16  # pictures
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

    `arrays`: `correlation` `[C1 C2]` (Pearson; NaN for a unit with constant, infinite or NaN activations); `matches`
    `[K 2]`, the best first. `table`: the matches with their correlations. Unreadable pictures are skipped and counted.

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
                batch = network.batch([network.seen(picture) for picture in pictures])
                values = observe(network.module, batch, [site])[site.name]
                if values.ndim == 4:
                    values = values.mean((2, 3), dtype=torch.float64) if pool == "mean" else values.amax((2, 3))
                answers.append(values.double().cpu().numpy())
            found.add(*answers)
        return len(pictures)

    for _ in in_chunks(numbers, run, min(network.batch_limit(AT_ONCE) for network in networks), job.report):
        pass
    if found.pictures < FEWEST:
        raise VizError(
            f"{found.pictures} photos of {folder.name} can be read; at least {FEWEST} are needed to correlate.",
            code="too-few-pictures",
        )
    unread = len(numbers) - found.pictures
    correlation = found.matrix()
    matches = best_matches(correlation)
    table = tuple({"first": int(a), "second": int(b), "correlation": float(correlation[a, b])} for a, b in matches)
    facts = {
        "pictures": f"{found.pictures} of {len(folder)} in {folder.name}" + (f", {unread} unreadable" * bool(unread))
    }
    return Result("matching", {"correlation": correlation.astype(np.float32), "matches": matches}, (), facts, table)
