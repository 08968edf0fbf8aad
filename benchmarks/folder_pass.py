"""Evaluating and collecting features, against the bare passes over the same photos with the same loader; and their memory.

    python benchmarks/folder_pass.py --network vizapp/zfnet-mini --photos 1000 --repeats 3
    python benchmarks/folder_pass.py --memory

The first prints the share of the bare passes' speed that is kept; the runs take turns, so that other work disturbs all alike.
The second prints the peak memory of a process that evaluates 1,000 photos, and of one that evaluates 10,000. The photos are
random, 240 × 180 pixels.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import timed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
import vizapp
from vizapp.gallery.collectors import Collector, Features, Predictions
from vizapp.gallery.folder_pass import PassOptions
from vizapp.gallery.photo_table import collect
from vizapp.media.drawing import to_jpeg
from vizapp.media.loading import batches, worker_count
from vizapp.media.source import Source
from vizapp.methods.collected import BATCH
from vizapp.zoo.network import Network


def write_photos(folder: Path, count: int, files: int = 1000) -> Path:
    """A list of so many photos with the numbers of classes as labels; the files repeat."""
    rows = ["path,label"]
    for number in range(count):
        place = folder / f"{number % files}.jpg"
        if not place.exists():
            small = np.random.default_rng(number).integers(0, 256, (24, 18, 3), dtype=np.uint8)
            place.write_bytes(to_jpeg(np.kron(small, np.ones((10, 10, 1), np.uint8))))
        rows.append(f"{place},{number % 10}")
    (folder / f"{count}.csv").write_text("\n".join(rows) + "\n")
    return folder / f"{count}.csv"


def bare(network: Network, source: Source, batch: int) -> None:
    """The class scores of all photos, and nothing else."""
    numbers = range(-(-len(source) // batch))
    for loaded in batches(source, network.preprocessing.view, numbers, batch, worker_count(len(source))):
        with torch.no_grad():
            network.scores(network.batch(loaded.pixels)).cpu()


def speed(network: Network, photos: int, repeats: int, folder: Path) -> None:
    """Print the share of the bare passes' speed that each pass keeps."""
    source = vizapp.open_folder(write_photos(folder, photos))
    batch, last = BATCH.get(network.device.type, 16), network.last_hidden_layer() or network.sites[-1]
    true = [int(label or 0) for label in source.labels]
    kinds: dict[str, Callable[[], list[Collector]]] = {
        "evaluate": lambda: [Predictions(network, true)],
        "features": lambda: [Features([last])],
    }
    bare(network, source, batch)  # warms up
    times: dict[str, list[float]] = {name: [] for name in ("bare", *kinds)}
    for repeat in range(repeats):
        times["bare"].append(timed(lambda: bare(network, source, batch)))
        for name, make in kinds.items():
            out = folder / f"{name}-{repeat}"
            times[name].append(
                timed(lambda make=make, out=out: collect(network, source, make(), out, PassOptions(batch)))
            )
    for name, each in times.items():
        share = statistics.median(first / other for first, other in zip(times["bare"], each, strict=True))
        print(f"{name:10} {statistics.median(each):6.2f} s   {share:.3f} of the speed of the bare passes")


def memory(name: str, folder: Path) -> None:
    """Print the peak memory of a process that evaluates 1,000 and 10,000 photos."""
    code = (
        "import sys, vizapp\n"
        "vizapp.ask('evaluate', vizapp.load(sys.argv[1], device='cpu'), folder=sys.argv[2])\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    peaks = []
    for count in (1000, 10_000):
        environment = os.environ | {"VIZAPP_CACHE": str(folder / "cache")}
        command = [sys.executable, "-c", code, name, str(write_photos(folder, count))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
        print(f"{count:6,} photos: {peaks[-1]:.0f} MiB")
    print(f"{100 * (peaks[1] / peaks[0] - 1):+.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="vizapp/zfnet-mini")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if options.memory:
            memory(options.network, Path(place))
        else:
            speed(vizapp.load(options.network, device="cpu"), options.photos, options.repeats, Path(place))


if __name__ == "__main__":
    main()
