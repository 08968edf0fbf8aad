"""What goes wrong because of what was asked, as sentences a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from unicodedata import bidirectional, category

LONGEST = 255  # characters of a name: what file systems allow
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_MARKS = "\u200e\u200f\u061c"


class VizError(Exception):
    """Something the user can put right: what was asked, what was found, what to do. One line, no jargon.

    Names in it may come from files and links of strangers: what would break the line or colour a terminal becomes `?`.
    """

    def __init__(self, sentence: str = "", *, code: str = "") -> None:
        super().__init__(one_line(sentence))
        self.code = code  # short, stable and hyphenated, such as "no-such-network": what scripts and tests compare


def one_line(text: str) -> str:
    """The text on one line, without characters that do something instead of being shown."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def plain_name(text: str, longest: int = LONGEST) -> str:
    """The name of a class, a file or a label, from wherever it came, as it may be shown and written.

    Bytes that are no text, control characters and those that turn the direction of writing become `?`, what is beyond
    `longest` characters is cut. Spaces of all kinds stay, so that it is the name that the disk has wherever that can be.
    """
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return cut if cut.isascii() and cut.isprintable() else "".join("?" if _acts(c) else c for c in cut)


def _acts(character: str) -> bool:
    """Whether it is no text, or does something instead of being shown."""
    return category(character) in {"Cc", "Cs", "Zl", "Zp"} or bidirectional(character) in _TURNS or character in _MARKS


def nearest(wrong: str, known: Iterable[str], count: int = 3) -> str:
    """`" Did you mean A, B or C?"`, or an empty string when nothing known is similar to `wrong`."""
    by_lower = {name.lower(): name for name in known}
    longer = sorted((name for name in by_lower if len(wrong) > 2 and wrong.lower() in name), key=len)
    close = difflib.get_close_matches(wrong.lower(), by_lower, n=count, cutoff=0.5)
    names = [by_lower[name] for name in dict.fromkeys([*longer[:count], *close])][:count]
    if not names:
        return ""
    return f" Did you mean {' or '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)}?"
