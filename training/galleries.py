"""Build the galleries that vizapp ships in `assets/galleries`: those of the sample photos for the networks below.

    python training/galleries.py --out assets/galleries
    python training/galleries.py --imagenet FOLDER

They are what the page Gallery would build on a CPU. Galleries in `--out` that are not among them any more are removed. Beside
them go what the page "During training" shows first, the strongest digit of each unit at each bundled checkpoint of LeNet-5, and
what "Neighbours" and "What each layer knows" show first: the features of the sample photos in the default network, and a probe.

With `--imagenet`, a folder of ImageNet photos named by WordNet's number of their class (n02099601.jpg), write instead which
classes the strongest of them have for each unit of the default network, to `assets/strongest`: what the search for classes
needs. The photos may not be shipped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from vizapp.gallery import build, open_gallery, shipped
from vizapp.gallery.collectors import Predictions, TopActivations
from vizapp.gallery.search import store_classes, top_classes
from vizapp.media.sources import open_folder
from vizapp.methods import shipped_probe
from vizapp.methods.base import Job, Question
from vizapp.methods.collected import table_name
from vizapp.methods.evolution import chosen_site
from vizapp.methods.evolution_columns import SHIPPED, classes_of_photos, pass_sites, top_photos
from vizapp.methods.gallery import GalleryParams, chosen_sites, place_for, plan_of
from vizapp.methods.photo_features import default_site, folder_features
from vizapp.methods.probe import ProbeParams, probe, shipped_file
from vizapp.zoo import load
from vizapp.zoo.labels import imagenet_categories
from vizapp.zoo.series import at_checkpoint, bundled_series, open_series
from vizapp.zoo.untrained import untrained
from vizapp.zoo.wordnet import synsets

NETWORKS = ("vizapp/efficientnet-lite0", "vizapp/zfnet-mini")
PAGE = ProbeParams(photos=8, curve=(5.0, 15.0, 30.0))  # what the page asks of the sample photos
STRONGEST = 32  # photos per unit in the file of the search


def main() -> None:
    """Build all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("assets/galleries"))
    parser.add_argument("--imagenet", type=Path)
    options = parser.parse_args()
    if options.imagenet is not None:
        write_strongest(options.imagenet)
        return
    out, kept = options.out, set()
    source = open_folder("samples")
    for name in NETWORKS:
        network = load(name, device="cpu")
        sites, plan = chosen_sites(network, ()), plan_of(network, GalleryParams())
        place = out / place_for(network, Question(network, folder=source), sites, plan).name
        print(name, place, build(network, source, sites, place, plan))
        kept.add(place)
    for place in set(out.glob("*")) - kept:
        shutil.rmtree(place)
    write_training(SHIPPED)
    write_features(shipped.TABLES)
    write_probe(PAGE)


def write_probe(params: ProbeParams) -> None:
    """Write the probe of the default network on the sample photos."""
    network, source = load(NETWORKS[0], device="cpu"), open_folder("samples")
    shutil.rmtree(shipped_probe.FOLDER, ignore_errors=True)
    found = probe(Question(network, folder=source), params, Job())
    shipped_probe.write_result(found, shipped_file(network, untrained(network, params.seed)[0], source, params))


def write_features(out: Path) -> None:
    """Write the table of the sample photos for the default network: pooled features of its last hidden layer, and answers."""
    network, source = load(NETWORKS[0], device="cpu"), open_folder("samples")
    shutil.rmtree(out, ignore_errors=True)
    found = folder_features(network, source, default_site(network), 1, Job())
    assert found is not None
    shutil.copytree(found.table.folder, out / found.table.folder.name, copy_function=shutil.copyfile)


def write_training(path: Path) -> None:
    """Write the strongest digit of each unit at each checkpoint of the bundled series, and the accuracy."""
    network, source = load("vizapp/lenet5-digits", device="cpu"), open_folder("digits")
    path.unlink(missing_ok=True)
    classes, site = classes_of_photos(network, source), chosen_site(network, "")
    names, found = [], []
    for file in open_series(bundled_series(network.name) or "").files:
        there = at_checkpoint(network, file)
        sites = pass_sites(there, site)
        names.append(table_name(there, source, [TopActivations(sites, 1), Predictions(there, classes)]))
        found.append(top_photos(there, source, sites, classes, Job()))
    columns = {
        key: np.stack([getattr(one, key) for one in found]) for key in ("values", "pictures", "cells", "accuracy")
    }
    np.savez_compressed(path, names=np.array(names), **columns)  # type: ignore[arg-type]


def write_strongest(folder: Path) -> None:
    """Write the classes of the strongest photos of a folder for the default network."""
    network, source = load(NETWORKS[0], device="cpu"), open_folder(folder)
    sites, plan = chosen_sites(network, ()), plan_of(network, GalleryParams(top=STRONGEST))
    numbers = dict(zip(synsets(), imagenet_categories(), strict=False))
    labels = [numbers[Path(source.path(index)).stem] for index in range(len(source))]
    with tempfile.TemporaryDirectory() as place:
        build(network, source, sites, Path(place), plan)
        gallery = open_gallery(place)
        for site in gallery.sites:  # read, and named by the numbers of their files
            rows = gallery.rows(site)
            rows["label"] = [labels[picture] for picture in rows["picture"]]
        print(store_classes(top_classes(gallery, labels), network.digest))


if __name__ == "__main__":
    main()
