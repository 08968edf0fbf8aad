"""The true class of a picture, from the name of its folder or the column of a list."""

from __future__ import annotations

from unicodedata import normalize

from vizapp.errors import VizError, nearest, read_index
from vizapp.zoo.network import Network


def true_class(network: Network, label: str | None) -> int | None:
    """The class index for a label; None if the network has no such class, or several.

    Case and the way accents are encoded are ignored, and `_`, `-` and spaces are equal.
    If a label such as "tench, Tinca tinca" is not a class, its first name is tried. A number that is not a class name is a
    class index.
    """
    if label is None or not label.strip():
        return None
    names = [_plain(name) for name in network.categories]
    for wanted in dict.fromkeys((_plain(label), _plain(label.split(",")[0]))):
        same = [number for number, name in enumerate(names) if name == wanted]
        if same:
            return same[0] if len(same) == 1 else None
    number = read_index(label.strip())
    return number if number is not None and number < len(names) else None


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


def _plain(name: str) -> str:
    return " ".join(normalize("NFC", name).lower().replace("_", " ").replace("-", " ").split())
