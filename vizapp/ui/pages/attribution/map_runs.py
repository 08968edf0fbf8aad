"""Maps and their numbers in the app: first all maps, then the numbers of each, kept one by one."""

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
from vizapp.methods.base import Result
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.service.runs import RunRequest
from vizapp.ui.pages.attribution.verdict import BASELINES, LITTLE
from vizapp.ui.session import compute, forms, progress
from vizapp.ui.session.compute import Keep, Refusal
from vizapp.zoo.network import Network

Item = tuple[str, str]  # "map" or "numbers", and the kind
_OF_A_MAP = 0.05  # of the time that its numbers take
# Kinds of about one pass: their maps are there before their numbers. A slow one comes with its numbers, computed once.
QUICK = (
    "gradcam",
    "gradcam++",
    "hirescam",
    "layercam",
    "eigencam",
    "guided",
    "guided_gradcam",
    "lrp",
    "random",
    "edges",
)


@dataclass(frozen=True, eq=False)
class MapsRequest:
    """The maps of some kinds that explain one unit on one photo, and some measures of each."""

    network: Network
    picture: Picture
    unit: Unit
    kinds: tuple[str, ...]
    measures: tuple[str, ...]
    seed: int

    @property
    def keys(self) -> dict[Item, Key]:
        """The cache key of each map and of its numbers, in the order in which they are computed: what is to be beaten first."""
        alone = [kind for kind in self.kinds if kind in QUICK or not self.measures]
        rest = sorted(self.kinds, key=lambda kind: (kind not in BASELINES, kind not in QUICK)) if self.measures else []
        return {("map", kind): self.map_key(kind) for kind in alone} | {
            ("numbers", kind): self._key("trust", **self._numbers(kind)) for kind in rest
        }

    @property
    def key(self) -> Key:
        """The key of the run that computes all of them."""
        return ("attribution.all", self.network.digest, *(part for key in self.keys.values() for part in key[3:]))

    def map_key(self, kind: str) -> Key:
        """The cache key of a map."""
        return self._key("attribution", **self._map(kind))

    def _key(self, method: str, **params: Any) -> Key:
        return compute.key_of(method, self.network, self.picture, None, self.unit, **params)

    def _map(self, kind: str) -> dict[str, Any]:
        return {name: choice.default for name, choice in forms.choices("attribution").items()} | {
            "kind": kind,
            "seed": self.seed,
        }

    def _numbers(self, kind: str) -> dict[str, Any]:
        return {"kinds": (kind,), "measures": self.measures, "seed": self.seed}

    def there(self) -> dict[Item, Result | Refusal]:
        """What is in the cache."""
        return {item: found for item, key in self.keys.items() if (found := compute.answers().get(key)) is not None}

    @property
    def is_whole(self) -> bool:
        """Whether everything is in the cache."""
        return len(self.there()) == len(self.keys)

    def follow(self, draw: Callable[[], None]) -> bool:
        """Compute what is missing, and draw the progress and `draw`: see `progress.follow`."""
        work = compute.keeping_each(self.keys, list(self.keys), self._make)
        request = RunRequest(self.key, work, str(self.network.device), lambda: self.is_whole)

        def detail(watched: object) -> str:
            known = [item for item, _ in self.there()]
            return f"numbers of {known.count('numbers')} of {len(self.kinds)} maps"

        return progress.follow([request], "Computing", "attribution.cancel", draw, detail)

    def _make(self, tick: Tick, items: Sequence[Item], keep: Keep[Item]) -> None:
        """Compute and keep each item; a kind that is not defined for the network is kept as a sentence."""
        missing = {kind: found for (what, kind), found in self.there().items() if isinstance(found, Refusal)}
        weights = [_OF_A_MAP if what == "map" and self.measures else 1 for what, _ in items]
        for number, item in enumerate(items):

            def report(share: float, number: int = number) -> None:
                tick((sum(weights[:number]) + share * weights[number]) / sum(weights))

            what, kind = item
            try:
                if kind not in missing:
                    keep(item, self._ask(what, kind, report))
            except DoesNotFit:
                raise
            except VizError as error:
                missing[kind] = Refusal(str(error))
            if kind in missing:
                keep(item, missing[kind])

    def _ask(self, what: str, kind: str, tick: Tick) -> Result:
        method, params = ("attribution", self._map(kind)) if what == "map" else ("trust", self._numbers(kind))
        return methods.ask(method, self.network, self.picture, unit=self.unit, tick=tick, **params)


@dataclass(frozen=True, eq=False)
class Found:
    """What is known so far: maps `[H W]`, numbers and curves by kind; and why others are missing."""

    maps: dict[str, np.ndarray]
    scores: dict[str, dict[str, float]]
    curves: dict[str, dict[str, np.ndarray]]
    missing: dict[str, str]
    facts: dict[str, dict[str, str]]

    @property
    def is_weak(self) -> bool:
        """Whether blurring the whole photo leaves most of the score."""
        curves = [known[name] for known in self.curves.values() for name in ("deletion", "insertion") if name in known]
        return any(min(curve[0], curve[-1]) > LITTLE * max(curve[0], curve[-1]) for curve in curves)


def found(asked: MapsRequest) -> Found:
    """What the cache has of a request."""
    now = Found({}, {}, {}, {}, {})
    for (what, kind), one in asked.there().items():
        if isinstance(one, Refusal):
            now.missing[kind] = one.sentence
        elif what == "map":
            now.maps[kind] = one.arrays["attribution"]
            now.facts[kind] = one.facts | now.facts.get(kind, {})
        else:
            now.maps.setdefault(kind, one.arrays["maps"][0])
            now.scores[kind] = dict(zip(asked.measures, one.arrays["scores"][0].tolist(), strict=True))
            now.curves[kind] = {
                name: curve
                for name, curve in zip(asked.measures, one.arrays["curves"][0], strict=True)
                if np.isfinite(curve).all()
            }
            now.facts[kind] = now.facts.get(kind, {}) | one.facts
    return now
