"""Write `assets/imagenet.wordnet.txt`: WordNet's numbers, names and hypernyms of ImageNet's 1,000 classes.

    python training/wordnet.py --nouns /usr/share/wordnet/data.noun

`data.noun` is of WordNet 3.0, from whose places in this file ImageNet's numbers come (Debian: `wordnet-base`). The numbers of
the classes, in the order of networks, are those of timm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo

_HEADER = """\
A part of WordNet 3.0: ImageNet's 1,000 classes in the order of networks, then all their hypernyms. A line has a number, the
numbers of the direct hypernyms with commas (or -), and the names. WordNet's licence:"""


def read_licence(path: Path) -> list[str]:
    """The licence at the top of `data.noun`, which all copies must have."""
    lines = path.read_text(encoding="ascii").splitlines()
    return [line.strip().partition(" ")[2] for line in lines if line.startswith(" ")]


def read_nouns(path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Names and numbers of the direct hypernyms, by number, from `data.noun` (its format: wndb(5WN))."""
    found = {}
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields = line.partition(" | ")[0].split()
        count = int(fields[3], 16)
        names = [name.replace("_", " ") for name in fields[4 : 4 + 2 * count : 2]]
        pointers = fields[5 + 2 * count :]
        above = [
            f"n{pointers[place + 1]}" for place in range(0, len(pointers) - 3, 4) if pointers[place] in ("@", "@i")
        ]
        found[f"n{fields[0]}"] = names, above
    return found


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nouns", type=Path, default=Path("/usr/share/wordnet/data.noun"))
    parser.add_argument("--out", type=Path, default=Path("assets/imagenet.wordnet.txt"))
    options = parser.parse_args()
    nouns, wanted = read_nouns(options.nouns), list(ImageNetInfo("imagenet-1k").label_names())
    for number in wanted:  # grows
        wanted += [above for above in nouns[number][1] if above not in wanted]
    lines = [f"{number} {','.join(nouns[number][1]) or '-'} {', '.join(nouns[number][0])}" for number in wanted]
    header = [f"# {line}".rstrip() for line in (*_HEADER.splitlines(), *read_licence(options.nouns))]
    options.out.write_text("\n".join([*header, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
