"""What class names mean: WordNet's names, numbers and hypernyms of ImageNet's classes ("dog" -> 118 breeds).

`assets/imagenet.wordnet.txt` holds them; `training/wordnet.py` writes it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from vizapp.settings import ASSETS
from vizapp.zoo.labels import imagenet_categories

_FILE = ASSETS / "imagenet.wordnet.txt"
_NUMBER = re.compile(r"n\d{8}")
_MANY = 100  # labels that are all names of ImageNet are then taken for its classes
_ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""))  # of plurals, and of their singulars


@dataclass(frozen=True)
class Synset:
    """A meaning: its number ("n02084071"), its names, the usual one first, and the numbers of its direct hypernyms."""

    number: str
    names: tuple[str, ...]
    above: tuple[str, ...]


@cache
def synsets() -> dict[str, Synset]:
    """ImageNet's 1,000 classes in the order of networks, then all their hypernyms, by number."""
    found = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            number, above, names = line.split(" ", 2)
            found[number] = Synset(number, tuple(names.split(", ")), () if above == "-" else tuple(above.split(",")))
    return found


@cache
def _classes() -> frozenset[str]:
    """The numbers of the 1,000 classes, which have no kinds."""
    return frozenset(list(synsets())[: len(imagenet_categories())])


@cache
def hypernyms(number: str) -> frozenset[str]:
    """The numbers of everything that a meaning is a kind of, itself included."""
    return frozenset({number}).union(*(hypernyms(above) for above in synsets()[number].above))


def meanings(text: str) -> tuple[str, ...]:
    """The numbers of the meanings with this name, in the singular or plural, or with this number; none if it is unknown."""
    if _NUMBER.fullmatch(text):
        return (text,) if text in synsets() else ()
    known = _by_name()
    return next((known[name] for name in _singulars(_plain(text)) if name in known), ())


def from_near_to_far(text: str) -> list[str]:
    """The numbers of everything that `text` is a kind of, the nearest first; none if WordNet's part does not know it."""
    found = list(meanings(text))
    for number in found:  # grows
        found += [above for above in synsets()[number].above if above not in found]
    return found


def matches(text: str, labels: Sequence[str]) -> list[int]:
    """The places of the labels that a search for `text` means.

    Where `text` is a kind of thing or the usual name of a class, and WordNet knows the label too, the label is meant if it is
    that or a kind of it: "golden_retriever" is a dog, "hotdog" is not. Otherwise, a label is also meant if it, or another name
    of it, has the words of `text` among its own: "my dogs" for "dog", "Siberian husky" for "husky".
    """
    wanted, words = set(meanings(text)), _plain(text).split()
    usual = text in wanted or any(
        number not in _classes() or _plain(synsets()[number].names[0]) in _singulars(_plain(text)) for number in wanted
    )
    found = []
    for place, (label, own) in enumerate(zip(labels, _meanings_of(labels), strict=True)):
        means = any(wanted & hypernyms(number) for number in own)
        names = () if usual and own else (label, *(name for number in own for name in synsets()[number].names))
        if means or any(_has_words(_plain(name).split(), words) for name in names):
            found.append(place)
    return found


def groups(labels: Sequence[str]) -> dict[str, int]:
    """Groups of at least two of the labels, as numbers of WordNet, with how many labels each has; the largest first.

    Without those of more than half of the labels, and of those with equal labels only the most special one.
    """
    members = defaultdict[str, list[int]](list)
    for place, own in enumerate(_meanings_of(labels)):
        for number in frozenset[str]().union(*map(hypernyms, own)):
            members[number].append(place)
    found: dict[tuple[int, ...], str] = {}
    for number, places in members.items():
        if 2 <= len(places) <= len(labels) / 2:
            before = found.get(tuple(places))
            if before is None or before in hypernyms(number):
                found[tuple(places)] = number
    return {number: len(places) for places, number in sorted(found.items(), key=lambda item: (-len(item[0]), item[1]))}


def texts(labels: Sequence[str]) -> list[str]:
    """What to search for to find one of these labels each: without commas, and as a number of WordNet if it is ambiguous."""
    own = _meanings_of(labels)
    return [
        number[0] if len(number) == 1 and meanings(label) not in (number, ()) else label.replace(",", " ").lstrip("- ")
        for label, number in zip(labels, own, strict=True)
    ]


def _meanings_of(labels: Sequence[str]) -> list[tuple[str, ...]]:
    """The meanings of each label. Where all are ImageNet's own names, each has one: "crane" is the machine."""
    exact = dict(zip(imagenet_categories(), synsets(), strict=False))
    if len(labels) >= _MANY and exact.keys() >= set(labels):
        return [(exact[label],) for label in labels]
    return [meanings(label) for label in labels]


@cache
def _by_name() -> dict[str, tuple[str, ...]]:
    """The numbers of the meanings of each name, in plain form; also those of ImageNet's own names, such as "crane bird"."""
    found = defaultdict[str, dict[str, None]](dict)
    for number, synset in synsets().items():
        for name in synset.names:
            found[_plain(name)][number] = None
    for name, number in zip(imagenet_categories(), synsets(), strict=False):
        if _plain(name) not in found:
            found[_plain(name)][number] = None
    return {name: tuple(numbers) for name, numbers in found.items()}


def _plain(text: str) -> str:
    """A name for comparing: small letters, single spaces for all that is no letter or digit."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def _singulars(name: str) -> list[str]:
    """The name itself, then what it may be the plural of."""
    return [
        name, *(name[: -len(many)] + one for many, one in _ENDINGS if name.endswith(many) and len(name) > len(many) + 1)
    ]  # fmt: skip


def _has_words(label: Sequence[str], words: Sequence[str]) -> bool:
    """Whether these words follow each other in the label, in the singular or plural."""
    if not words:
        return False
    wanted = {" ".join(words), *_singulars(" ".join(words))}
    runs = (" ".join(label[start : start + len(words)]) for start in range(len(label) - len(words) + 1))
    return any(wanted & set(_singulars(run)) for run in runs)
