"""The numbers of several photos in the app: of each photo and each kind of map, kept one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vizapp import methods
from vizapp.engine.memory.chunks import DoesNotFit
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.media.picture import Picture
from vizapp.methods.trust.interval import mean_interval, wins
from vizapp.methods.trust.params import merit
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.service.runs import RunRequest
from vizapp.ui.pages.attribution.verdict import LITTLE
from vizapp.ui.session import compute, progress, state
from vizapp.ui.session.compute import Keep, Refusal
from vizapp.zoo.network import Network

Item = tuple[int, str]  # the number of the photo, and the kind
_PATIENCE = 1.0  # seconds that an update waits for more


@dataclass(frozen=True, eq=False)
class Numbers:
    """The numbers `[measures]` of one kind on one photo, and the scores of the photo and of the blurred one (NaN: unknown)."""

    values: np.ndarray
    clean: float
    blurred: float

    @property
    def nbytes(self) -> int:
        """Approximate memory."""
        return 500 + self.values.nbytes


@dataclass(frozen=True, eq=False)
class SeveralRequest:
    """Some measures of some kinds of maps on several photos. `unit`: None explains the answer of each photo."""

    network: Network
    photos: Sequence[Picture]
    unit: Unit | None
    kinds: tuple[str, ...]
    measures: tuple[str, ...]
    seed: int

    @property
    def keys(self) -> dict[Item, Key]:
        """The cache key of each kind on each photo, photo after photo."""
        return {
            (number, kind): compute.key_of(
                "attribution.photo", self.network, photo, None, self.unit, **self._params(number, kind)
            )
            for number, photo in enumerate(self.photos)
            for kind in self.kinds
        }

    @property
    def key(self) -> Key:
        """The key of the run that computes all of them."""
        return ("attribution.several", self.network.digest, state.name_of(list(self.keys.values())))

    def _params(self, number: int, kind: str) -> dict[str, Any]:
        return {"kinds": (kind,), "measures": self.measures, "about": "answer", "seed": self.seed + number}

    def _ends(self, curves: np.ndarray) -> tuple[float, float]:
        """The scores of the photo and of the blurred photo."""
        for name, ends in (("deletion", (0, -1)), ("insertion", (-1, 0))):
            if name in self.measures:
                curve = curves[self.measures.index(name)]
                return float(curve[ends[0]]), float(curve[ends[1]])
        return float("nan"), float("nan")

    def there(self) -> dict[Item, Numbers | Refusal]:
        """What is in the cache."""
        return {item: found for item, key in self.keys.items() if (found := compute.answers().get(key)) is not None}

    def follow(self, draw: Callable[[], None]) -> bool:
        """Compute what is missing, and draw the progress and `draw`: see `progress.follow`."""
        keys = self.keys
        work = compute.keeping_each(keys, list(keys), self._make)
        request = RunRequest(self.key, work, str(self.network.device), lambda: len(self.there()) == len(keys))
        detail = f"of {len(keys)} maps of {len(self.photos)} photos"
        return progress.follow(
            [request],
            "Measuring",
            "attribution.several.cancel",
            draw,
            lambda _: f"{len(self.there())} {detail}",
            _PATIENCE,
        )

    def _make(self, tick: Tick, items: Sequence[Item], keep: Keep[Item]) -> None:
        for done, item in enumerate(items):
            number, kind = item

            def report(share: float, done: int = done) -> None:
                tick((done + share) / len(items))

            try:
                result = methods.ask(
                    "trust",
                    self.network,
                    self.photos[number],
                    unit=self.unit,
                    tick=report,
                    **self._params(number, kind),
                )
                keep(item, Numbers(result.arrays["scores"][0], *self._ends(result.arrays["curves"][0])))
            except DoesNotFit:
                raise
            except VizError as error:
                keep(item, Refusal(str(error)))


@dataclass(frozen=True, eq=False)
class Means:
    """Means over the photos with the ends of their 95 % intervals, each `[kinds measures]`, of the kinds that are defined.

    `per_photo`: `[photos kinds measures]`, NaN where it is not there. `missing`: why kinds are not defined.
    `weak`: the blurred photos keep most of the score.
    """

    kinds: tuple[str, ...]
    per_photo: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    missing: dict[str, str]
    weak: bool

    def better(self, kind: str, measure: int, name: str) -> tuple[int, int] | None:
        """On how many photos a kind beats the random map by a measure, of how many; None without a random map."""
        if "random" not in self.kinds or kind == "random":
            return None
        mine, its = (self._merits(one, measure, name) for one in (kind, "random"))
        won, of = wins(mine, its)
        return int(won), int(of)

    def beats(self, kind: str, other: str, measure: int, name: str) -> bool:
        """Whether the 95 % interval of the difference on the same photos lies on the better side of 0."""
        mine, its = (self._merits(one, measure, name) for one in (kind, other))
        return bool(mean_interval(mine - its)[1] > 0)

    def _merits(self, kind: str, measure: int, name: str) -> np.ndarray:
        """How good the numbers `[photos]` of a kind are: higher is better."""
        return merit(name, self.per_photo[:, self.kinds.index(kind), measure])


def means(asked: SeveralRequest) -> Means:
    """What the cache has of a request."""
    there = asked.there()
    missing = {kind: one.sentence for (_, kind), one in there.items() if isinstance(one, Refusal)}
    kinds = tuple(
        kind for kind in asked.kinds if any(isinstance(there.get((n, kind)), Numbers) for n in range(len(asked.photos)))
    )
    values = np.full((len(asked.photos), len(kinds), len(asked.measures)), np.nan)
    for (number, kind), one in there.items():
        if isinstance(one, Numbers):
            values[number, kinds.index(kind)] = one.values
    ends = [(one.clean, one.blurred) for one in there.values() if isinstance(one, Numbers) and np.isfinite(one.clean)]
    weak = sum(blurred for _, blurred in ends) > LITTLE * sum(clean for clean, _ in ends)
    undefined = {kind: why for kind, why in missing.items() if kind not in kinds}
    return Means(kinds, values, *mean_interval(values), undefined, weak)
