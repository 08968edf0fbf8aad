"""Errors that users can fix, and text that is safe to show."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from unicodedata import bidirectional, category

LONGEST = 255  # characters of a name: what file systems allow
LONGEST_SENTENCE, _LONGEST_WORD = 4000, 300  # characters; of what is longer, beginning and end are kept
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")
_FOLDERS = re.compile(r"""(?<![^\s'"(\[{=:,;<‘“])/(?!/)(?:[^\s/'",;]+/)*(?=[^\s/])""")  # of an absolute path
_MARKS = "\u200e\u200f\u061c"


class VizError(Exception):
    """An error that the user can fix. One line: what was requested, what was found, what to do.

    Names in the message may be untrusted: line breaks and terminal control characters become `?`, and what is too long is
    shortened in the middle: words, and the message itself (`LONGEST_SENTENCE`).
    """

    def __init__(self, sentence: str = "", *, code: str = "") -> None:
        words = _LONG_WORD.sub(lambda found: _shortened(found[0], _LONGEST_WORD), _shortened(sentence, 10**6))
        super().__init__(_shortened(one_line(words), LONGEST_SENTENCE))
        self.code = code  # short, stable and hyphenated, such as "no-such-network"; for scripts and tests


def plural(count: int, one: str, many: str = "") -> str:
    """`1 photo`, `1,797 photos`; `many` where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def _shortened(text: str, most: int) -> str:
    """The text, without its middle if it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most - most // 10 - 1]}…{text[-(most // 10) :]}"


def one_line(text: str) -> str:
    """The text on one line, without control characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def showable(name: str) -> str:
    """The name on one line and encodable: file systems allow line breaks and invalid text."""
    return one_line(name.encode("utf-8", "replace").decode())


def plain_name(text: str, longest: int = LONGEST) -> str:
    """An untrusted name of a class, a file or a label, made safe to show and write.

    Undecodable bytes, control characters and bidirectional overrides become `?`. Names are cut to `longest` characters.
    White space is kept, so that the name still matches the one on disk.
    """
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return cut if cut.isascii() and cut.isprintable() else "".join("?" if _acts(c) else c for c in cut)


def _acts(character: str) -> bool:
    """Whether it is a control, surrogate, line-separator or bidirectional character."""
    return category(character) in {"Cc", "Cs", "Zl", "Zp"} or bidirectional(character) in TURNS or character in _MARKS


def without_folders(sentence: str) -> str:
    """The sentence with the last name alone of each absolute path (`…/name`), for readers on other machines.

    Paths are recognized by their form. If only this machine's own folders were replaced, users could guess them.
    """
    return _FOLDERS.sub("…/", sentence)


def quoted(value: object) -> str:
    """The value as Python writes it, cut to `LONGEST` characters."""
    try:
        return plain_name(repr(value))
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"


def read_index(text: str) -> int | None:
    """The number that the text consists of, of at most nine ASCII digits; else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def nearest(wrong: str, known: Iterable[str], count: int = 3) -> str:
    """`" Did you mean A, B or C?"`, or an empty string if no known name is similar to `wrong`."""
    wrong = wrong[:LONGEST]
    by_lower = {name.lower(): name for name in known}
    longer = sorted((name for name in by_lower if len(wrong) > 2 and wrong.lower() in name), key=len)
    close = difflib.get_close_matches(wrong.lower(), by_lower, n=count, cutoff=0.5)
    names = [by_lower[name] for name in dict.fromkeys([*longer[:count], *close])][:count]
    if not names:
        return ""
    return f" Did you mean {' or '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)}?"
