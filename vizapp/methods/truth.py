"""The true class of a picture, from the name of its folder or the column of a list."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from unicodedata import normalize

from vizapp.errors import VizError, nearest, read_index
from vizapp.zoo.labels import imagenet_synonyms
from vizapp.zoo.network import Network
from vizapp.zoo.wordnet import synsets

_NUMBER = re.compile(r"n\d{8}(?!\d)")


def true_class(network: Network, label: str | None) -> int | None:
    """The class index for a label; None if the network has no such class, or several.

    Case and the way accents are encoded are ignored, and `_`, `-` and spaces are equal; a class of exactly that name comes
    first. If a label such as "tench, Tinca tinca" is not a class, its first name is tried. ImageNet's classes may be given by
    their number in WordNet ("n01440764"). A number that is not a class name is a class index.
    """
    if label is None or not label.strip():
        return None
    exact, folded = _places(network.categories)
    for text in (label, label.split(",")[0], *_names_in_wordnet(label)):
        for known, wanted in ((exact, normalize("NFC", text.strip())), (folded, fold(text))):
            if wanted in known:
                return known[wanted][0] if len(known[wanted]) == 1 else None
    number = read_index(label.strip())
    return number if number is not None and number < len(network.categories) else None


def is_class_number(network: Network, label: str) -> bool:
    """Whether `true_class` takes the label as the number of a class, not as a name."""
    number = read_index(label.strip())
    return (
        number is not None
        and true_class(network, label) == number
        and fold(label) not in _places(network.categories)[1]
    )


def true_classes(network: Network, labels: Sequence[str | None]) -> list[int | None]:
    """`true_class` of each label."""
    known = {label: true_class(network, label) for label in set(labels)}
    return [known[label] for label in labels]


def asked_class(network: Network, label: str) -> int:
    """The class index for a label that the user gave.

    Raises:
        VizError: the network has no such class, or several of that name.
    """
    found = true_class(network, label)
    if found is None:
        count = len(network.categories)
        raise VizError(
            f"label is {label!r}; {network.name} has no single class of that name. Give its name or its number, 0 to "
            f"{count - 1}.{nearest(label, network.categories)}",
            code="no-such-class",
        )
    return found


def fold(name: str) -> str:
    """A name without what does not count when names are compared: case, encoding of accents, `_` and `-` for spaces."""
    return normalize("NFC", " ".join(normalize("NFC", name).casefold().replace("_", " ").replace("-", " ").split()))


@lru_cache(maxsize=8)
def _places(categories: tuple[str, ...]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The class indices of each name, as it is and folded."""
    exact, folded = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for number, name in enumerate(categories):
        exact[normalize("NFC", name)].append(number)
        folded[fold(name)].append(number)
    return dict(exact), dict(folded)


def _names_in_wordnet(label: str) -> Iterator[str]:
    """What networks call the ImageNet class whose WordNet number the label begins with: its name, or all of its names."""
    found = _NUMBER.match(label.strip())
    names = _imagenet().get(found[0]) if found else None
    if names is not None:
        yield names[0]
        yield ", ".join(filter(None, names))


@lru_cache(maxsize=1)
def _imagenet() -> dict[str, tuple[str, str]]:
    """Name and other names of each class of ImageNet-1k, by its number in WordNet."""
    return dict(zip(synsets(), imagenet_synonyms().items(), strict=False))
