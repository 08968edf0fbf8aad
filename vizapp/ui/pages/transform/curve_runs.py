"""The curves of a transform in the app: computed from coarse to fine, and kept in the cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from vizapp import methods
from vizapp.errors import plural
from vizapp.media.distortions import is_clean
from vizapp.media.picture import Picture
from vizapp.methods.base import Result
from vizapp.methods.provenance import changed
from vizapp.methods.tables import to_csv
from vizapp.methods.transform import TransformParams
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.service.runs import RunRequest
from vizapp.ui.session import compute, memory, progress
from vizapp.zoo.network import Network

_STRIDES = (6, 2, 1)  # every sixth amount comes first, then every second, then the rest
_FEW = 12  # amounts that are not worth a coarse curve
_ALONG = ("distance", "distance_raw")  # arrays whose amounts are their last axis


@dataclass(frozen=True)
class CurveRequest:
    """The curves of one photo in one network; `params` have amounts, and the one that changes nothing is among them."""

    network: Network
    picture: Picture
    params: TransformParams

    @property
    def key(self) -> Key:
        """The cache key."""
        return compute.key_of("transform", self.network, self.picture, **asdict(self.params))

    @property
    def partial_key(self) -> Key:
        """The cache key of the curves at some of the amounts."""
        return ("transform.partial", *self.key)

    @property
    def clean(self) -> int:
        """The place of the amount that changes nothing."""
        kind = self.params.kind
        return next(n for n, amount in enumerate(self.params.amounts) if is_clean(kind, amount))

    @property
    def answer(self) -> Result | None:
        """The finished curves, if they are in the cache."""
        return compute.answers().get(self.key)

    @property
    def so_far(self) -> Result | None:
        """The finished curves, or those at some of the amounts, if there are any in the cache."""
        return self.answer or compute.answers().get(self.partial_key)


def coarse_to_fine(count: int, clean: int) -> list[np.ndarray]:
    """The numbers from 0 to `count` - 1 in groups, coarse to fine; `clean` is in the first."""
    if count <= _FEW:
        return [np.arange(count)]
    groups, done = [], np.zeros(count, bool)
    for stride in _STRIDES:
        wanted = ((np.arange(count) - clean) % stride == 0) & ~done
        groups.append(np.flatnonzero(wanted))
        done |= wanted
    return groups


def joined(params: TransformParams, parts: Sequence[tuple[np.ndarray, Result]]) -> Result:
    """The curves at the amounts of all parts, in the order of `params`; each part has the places of its amounts there."""
    places = np.concatenate([places for places, _ in parts])
    order, results = np.argsort(places), [result for _, result in parts]
    arrays = {}
    for name in results[0].arrays:
        axis = 1 if name in _ALONG else 0
        arrays[name] = np.concatenate([result.arrays[name] for result in results], axis).take(order, axis)
    rows = [row for result in results for row in result.table]
    table = tuple(rows[n] for n in order)
    told = replace(results[0].provenance, params=changed(params)) if results[0].provenance else None
    return replace(
        results[0], arrays=arrays, table=table, panels=(), documents={"table.csv": to_csv(table)}, provenance=told
    )


def run(asked: CurveRequest, tick: Tick) -> Result:
    """Compute the curves, and keep what is there after each stage."""

    def go_on() -> Result:
        began = time.perf_counter()
        parts: list[tuple[np.ndarray, Result]] = []
        count, done = len(asked.params.amounts), 0
        for places in coarse_to_fine(count, asked.clean):
            some = replace(asked.params, amounts=tuple(asked.params.amounts[n] for n in places))

            def report(share: float, done: int = done, more: int = len(places)) -> None:
                tick((done + share * more) / count)

            parts.append((places, methods.ask("transform", asked.network, asked.picture, tick=report, **asdict(some))))
            done += len(places)
            now = joined(asked.params, parts)
            compute.answers().put(asked.key if done == count else asked.partial_key, now, now.nbytes)
        compute.answers().put(_pace_key(asked), (time.perf_counter() - began) / count, 8)
        return now

    with compute.logged(asked.key, asked.key) as entry:
        result = memory.retry_after_eviction(go_on)
        entry.nbytes = result.nbytes
    compute.answers().drop(asked.partial_key)
    return result


def _pace_key(asked: CurveRequest) -> Key:
    return ("transform.pace", asked.network.digest)


def seconds(asked: Sequence[CurveRequest]) -> float | None:
    """The expected seconds of these curves, at the pace of the latest ones; None if a network has had none yet."""
    total = 0.0
    for one in asked:
        pace = compute.answers().get(_pace_key(one))
        if pace is None:
            return None
        total += pace * len(one.params.amounts)
    return total


def follow(asked: Sequence[CurveRequest], draw: Callable[[], None]) -> bool:
    """Compute the curves that are missing and draw the progress and `draw`: see `progress.follow`."""
    requests = [
        RunRequest(one.key, partial(run, one), str(one.network.device), partial(_is_finished, one)) for one in asked
    ]
    count = plural(sum(len(one.params.amounts) for one in asked), "picture")
    return progress.follow(
        requests, "Computing", "transform.cancel", draw, lambda watched: f"{100 * watched.share:.0f} % of {count}"
    )


def _is_finished(asked: CurveRequest) -> bool:
    return asked.answer is not None
