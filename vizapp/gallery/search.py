"""Search the units of a gallery by meaning: which units have photos of these classes among their strongest ones.

The score is the average precision at k of information retrieval, with the unit as the search engine and its k strongest
photos as what it returns:

    score = 1 / min(k, n) * sum over i = 1 ... k of hit(i) * (hits among the first i) / i

where hit(i) is 1 if the i-th strongest photo is of the classes, and n is the number of such photos in the collection. It is 1
if the strongest photos are all of the classes (or all of the classes are the strongest), and 0 if none is. Equal scores are
ordered by selectivity, then from early to late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from vizapp.errors import VizError, nearest, quoted
from vizapp.gallery.reader import Gallery
from vizapp.settings import ASSETS
from vizapp.zoo import wordnet
from vizapp.zoo.labels import imagenet_categories

EXCEPT = "-"  # before a text: without these classes
_NONE = -1  # no photo, one without a class, or one that does not excite the unit
_STRONGEST = ASSETS / "strongest"  # of each network that has some: written by training/galleries.py


@dataclass(frozen=True, eq=False)
class TopClasses:
    """The classes of the strongest photos of each unit.

    `units`: a row per unit with `site`, `channel` and `selectivity`, from early to late. `labels`: the classes. `top`:
    `[U k]`, places in `labels` of the classes of the k strongest photos, -1 for what is no photo of a class. `counts`
    `[labels]`: how many photos of the collection have each class. `photos`: how many photos it has; `about` names them.
    """

    units: pd.DataFrame
    labels: tuple[str, ...]
    top: np.ndarray
    counts: np.ndarray
    photos: int
    about: str

    @property
    def nbytes(self) -> int:
        """Approximate memory."""
        return int(self.top.nbytes) + 100 * len(self.units) + 100 * len(self.labels)

    def meant(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """The places of the labels that each text means (see `vizapp.zoo.wordnet.matches`); those of "-dog" are left out."""
        return {text: wordnet.matches(text.removeprefix(EXCEPT), self.labels) for text in texts}

    def share_of_photos(self, places: Sequence[int]) -> float:
        """The share of all photos that are of these labels: what a unit would have that does not care for them."""
        return float(self.counts[list(places)].sum() / max(1, self.photos))

    def classes_of(self, row: int) -> dict[str, int]:
        """How many of the strongest photos of unit number `row` are of each class, the most frequent first."""
        found = Counter(self.labels[place] for place in self.top[row] if place != _NONE)
        return dict(found.most_common())


def top_classes(found: Gallery, labels: Sequence[str | None]) -> TopClasses:
    """The classes of the strongest photos in a gallery; `labels`: those of all photos of its collection, None for some."""
    count = Counter(label for label in labels if label is not None)
    names = tuple(count)
    places = {name: place for place, name in enumerate(names)}
    tops = []
    for site, entry in zip(found.sites, found.manifest["sites"], strict=True):
        rows, units = found.rows(site), found.units_of(site)
        top = np.full((len(units), found.top), _NONE, np.int32)
        excites = rows["label"].notna() & (rows["activation"] != 0)
        if entry.get("kind") != "linear":  # class scores mean the same below zero
            excites &= ~rows["dead"]
        counted = rows[excites]
        top[counted["channel"], counted["rank"]] = counted["label"].map(places)
        tops.append(top[:, : max(1, min(found.top, found.seen))])
    units = found.units[["site", "channel", "selectivity"]].reset_index(drop=True)
    counts = np.array(list(count.values()), np.int64)
    return TopClasses(units, names, np.concatenate(tops), counts, len(labels), f"the {len(labels):,} photos")


@cache
def shipped_classes(digest: str) -> TopClasses | None:
    """The classes of the strongest of 750 ImageNet photos, one of each of 750 classes, for a network that vizapp knows.

    The photos themselves may not be shipped. `digest`: of the network.
    """
    file = _STRONGEST / f"{digest[:32]}.npz"
    if not file.is_file():
        return None
    with np.load(file) as stored:
        sites, channels, numbers = stored["sites"].tolist(), stored["channels"].tolist(), stored["classes"].tolist()
        top, selectivity = stored["top"].astype(np.int32), stored["selectivity"].astype(np.float64)
    units = pd.DataFrame(
        {"site": np.repeat(sites, channels), "channel": np.concatenate([*map(np.arange, channels)]), "selectivity": selectivity}
    )  # fmt: skip
    names = imagenet_categories()
    labels = tuple(names[number] for number in numbers)
    about = f"{len(labels)} ImageNet photos"
    return TopClasses(units, labels, top, np.ones(len(labels), np.int64), len(labels), about)


def store_classes(known: TopClasses, digest: str, folder: Path = _STRONGEST) -> Path:
    """Write what `shipped_classes` reads: of a collection with one photo of each of some ImageNet classes."""
    folder.mkdir(parents=True, exist_ok=True)
    per_site = known.units.groupby("site", sort=False).size()
    file = folder / f"{digest[:32]}.npz"
    np.savez_compressed(
        file, sites=np.array(per_site.index.tolist()), channels=per_site.to_numpy(), top=known.top.astype(np.int16),
        classes=np.array([imagenet_categories().index(label) for label in known.labels], np.int16),
        selectivity=known.units["selectivity"].to_numpy(np.float16),
    )  # fmt: skip
    return file


def search(known: TopClasses, places: Sequence[int]) -> pd.DataFrame:
    """The units with photos of some labels (`places` in `known.labels`) among their strongest, the best first.

    Returns:
        A row per unit: `site`, `channel`, `score` (from 0 to 1, see above), `hits` of `of` strongest photos that are of the
        labels, `selectivity` and `row`, its number in `known.units`.
    """
    hit = np.isin(known.top, np.array(places, np.int64))
    of = known.top.shape[1]
    hits = hit.sum(1)
    possible = max(1, min(of, int(known.counts[list(places)].sum())))
    score = (hit * hit.cumsum(1) / np.arange(1, of + 1)).sum(1) / possible
    table = known.units[["site", "channel"]].assign(
        score=score, hits=hits, of=of, selectivity=known.units["selectivity"], row=np.arange(len(hits))
    )
    order = np.lexsort((table["row"], -table["selectivity"], -score))
    return table.iloc[order[: int((hits > 0).sum())]].reset_index(drop=True)


def require_places(meant: Mapping[str, Sequence[int]], labels: Sequence[str]) -> list[int]:
    """All places that some texts mean, without those of texts that begin with "-".

    Raises:
        VizError: a text means none of the labels, or none is left.
    """
    for text, places in meant.items():
        if not places:
            raise VizError(
                f"None of the {len(labels)} classes of these photos is {quoted(text)} or a kind of it."
                f"{_wider(text, labels) or nearest(text, labels)}",
                code="no-such-class",
            )
    out = {place for text, places in meant.items() if text.startswith(EXCEPT) for place in places}
    left = sorted({place for text, places in meant.items() if not text.startswith(EXCEPT) for place in places} - out)
    if not left:
        raise VizError("No class is left to search for.", code="no-such-class")
    return left


def _wider(text: str, labels: Sequence[str]) -> str:
    """A sentence with the nearest kind of thing above `text` that some of the labels are; else nothing."""
    for number in wordnet.from_near_to_far(text):
        if found := wordnet.matches(number, labels):
            name = wordnet.synsets()[number].names[0]
            return f" Try {name!r}: {len(found)} {'class is one' if len(found) == 1 else 'classes are'}."
    return ""
