"""Build the galleries that vizapp ships in `assets/galleries`: those of the sample photos for the networks below.

    python training/galleries.py --out assets/galleries

They are what the page Gallery would build on a CPU. Galleries in `--out` that are not among them any more are removed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from vizapp.gallery import build
from vizapp.media.sources import open_folder
from vizapp.methods.base import Question
from vizapp.methods.gallery import GalleryParams, chosen_sites, place_for, plan_of
from vizapp.zoo import load

NETWORKS = ("vizapp/efficientnet-lite0", "vizapp/zfnet-mini")


def main() -> None:
    """Build all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("assets/galleries"))
    out, kept = parser.parse_args().out, set()
    source = open_folder("samples")
    for name in NETWORKS:
        network = load(name, device="cpu")
        sites, plan = chosen_sites(network, ()), plan_of(network, GalleryParams())
        place = out / place_for(network, Question(network, folder=source), sites, plan).name
        print(name, place, build(network, source, sites, place, plan))
        kept.add(place)
    for place in set(out.glob("*")) - kept:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
