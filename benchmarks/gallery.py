"""A gallery pass compared with a bare forward pass fed by the same loader, its peak memory, and zennit-crp if installed.

The bound: a pass has to read each activation once, which a forward pass also does if the next layer reads it. ResNet-50's
convolutions produce 44 MB per image. The maximum reads them from memory (1.5 to 2.2 ms at 20 to 30 GB/s); the sum and the
search for zeros read them from the caches (2 to 3 ms). With about 35 ms of forward pass on two CPU cores, the ratio is 0.87
to 0.9, without the cost of entering the top list, which falls with the logarithm of the number of images. VGG-16 produces
54 MB at 15.5 billion multiply-adds (about 0.95), AlexNet 2 MB at 0.7 billion (0.97). Memory is a number per image of a batch
and unit, and about 1.1 KB per unit, so it is the same for 1,000 and 10,000 images, except for their paths.

Our pass also reuses the memory of activations (`engine/memory/reuse.py`), which a plain script does not: glibc maps large
blocks anew, and the system clears them. So the bare pass is timed as a script runs it, which is the comparison, and with the
same reuse, which shows what the reductions cost.

Measured on two CPU cores with nothing else running: ResNet-50 over 388 crops 0.96 and 0.95 of the bare pass of a script (two
rounds), 0.99 and 0.97 without the end; 0.76 of a bare pass that reuses memory. Over 96 crops, where the end weighs more, 0.85
(three rounds, 0.81 to 0.87). Before memory was reused: ResNet-50 0.75 to 0.77 over 128 crops, AlexNet 0.92 over 388, VGG-16
0.91 over 96, peak memory +0.7 %. zennit-crp 0.6.0 on AlexNet over 48 crops took 12 times as long with relevance and 11 times
without (its pass timed once, ours the better of two). On a GPU none of `map_reduction.py` has been timed yet.

The ratio is that of the whole pass with checkpoints and files; the cost of the end is listed separately. Both sides decode
the same files in the same worker processes, in the same batches, memory layout and precision (that of float32). The bare pass
is the network alone, without a trace, up to its last convolution. The first round, in which both sides allocate and choose
kernels, is printed apart from the median of the later ones.

    python benchmarks/gallery.py [--pictures 388] [--networks resnet50 alexnet vgg16] [--folder samples] [--memory]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
import vizapp
from vizapp.engine.memory.reuse import reused_memory
from vizapp.engine.precision import arithmetic
from vizapp.gallery.build import GalleryOptions, build
from vizapp.gallery.folder_pass import Progress
from vizapp.media.loading import batches
from vizapp.methods.gallery import chosen_sites

ROOT = Path(__file__).resolve().parents[1]
SMALL = """
import sys, vizapp
from pathlib import Path
from vizapp.gallery.build import GalleryOptions, build
network = vizapp.load("vizapp/lenet5-digits")
source = vizapp.open_folder(sys.argv[1])
build(network, source, network.sites, Path(sys.argv[2]), GalleryOptions(workers=1))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def bare(network, source, last, options: argparse.Namespace) -> float:  # type: ignore[no-untyped-def]
    """Seconds of forward passes up to the convolution `last` over all images, without keeping anything."""
    batch, workers = options.batch, options.workers
    started = time.perf_counter()
    numbers = range(-(-len(source) // batch))
    ending = network.module.get_submodule(last.name).register_forward_hook(_end)
    try:
        with torch.no_grad():
            for loaded in batches(source, network.preprocessing.view, numbers, batch, workers):
                if loaded.pictures:
                    with suppress(_Ended):
                        network.module(network.batch(loaded.pixels))
    finally:
        ending.remove()
    if network.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


class _Ended(Exception):
    """Ends a pass behind the last layer that is needed."""


def _end(*_: object) -> None:
    raise _Ended


def ours(network, source, sites, plan: GalleryOptions) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Seconds of the whole gallery with checkpoints and Parquet files, and of the part after the last image."""
    seen = 0.0

    def watch(progress: Progress) -> None:
        nonlocal seen
        seen = time.perf_counter()

    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        with reused_memory():  # as `vizapp.ask` runs it
            build(network, source, sites, Path(out) / "gallery", plan, watch)
        return time.perf_counter() - started, time.perf_counter() - seen


def compare(name: str, options: argparse.Namespace) -> None:
    """Print the ratio for the whole pass, and for the pass without its end, of the first round and of the later ones."""
    network = vizapp.load(name, weights="none")
    source = some(vizapp.open_folder(options.folder), options.pictures)
    sites = chosen_sites(network, ["convolution"])
    plan = GalleryOptions(batch=options.batch, workers=options.workers)
    network.digest  # noqa: B018  computed once and kept
    rounds = []
    with arithmetic(network.device, "exact"):
        for number in range(1 + options.rounds):  # the sides alternate, so that a drift of the machine favours neither
            early = None if number % 2 else bare(network, source, sites[-1], options)
            whole_pass = ours(network, source, sites, plan)
            late = early or bare(network, source, sites[-1], options)
            with reused_memory():
                reusing = bare(network, source, sites[-1], options)
            rounds.append((late, *whole_pass, reusing))
    count, channels = len(source), sum(site.channels for site in sites)
    print(f"{name}: {len(sites)} convolutions, {channels} units, {count} pictures")
    for title, part in (("first", rounds[:1]), ("later", rounds[1:])):
        whole = [a / b for a, b, _, _ in part]
        steady = statistics.median(a / (b - end) for a, b, end, _ in part)
        reductions = statistics.median(kept / b for _, b, _, kept in part)
        pace, own, end, _ = (statistics.median(column) for column in zip(*part, strict=True))
        print(
            f"  {title}: bare {count / pace:6.1f}/s  ours {count / own:6.1f}/s  ratio {statistics.median(whole):.2f} "
            f"({min(whole):.2f} to {max(whole):.2f}; bar 0.90), {steady:.2f} without the {end:.1f} s of its end, "
            f"{reductions:.2f} of a bare pass that reuses memory",
            flush=True,
        )
    if max(kept / b for _, b, _, kept in rounds) > 1.02:
        print("  A pass cannot be faster than the part of it that is bare: the machine was disturbed, measure again.")


def peer(name: str, options: argparse.Namespace) -> None:
    """Print seconds of zennit-crp over the same crops, layers and batches, without decoding: activation and relevance in one
    pass, as published, and activations alone, without the backward pass."""
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.visualization import FeatureVisualization

    network = vizapp.load(name, weights="none")
    source = some(vizapp.open_folder(options.folder), options.peer_pictures)
    sites = chosen_sites(network, ["convolution"])
    crops = network.batch(np.stack([network.seen(source.open(number)).copy() for number in range(len(source))]))
    data = [(crop, 0) for crop in crops]
    seconds = []
    for forward_only in (False, True):
        attribution = CondAttribution(network.module, no_param_grad=True)
        with tempfile.TemporaryDirectory() as out:
            layers = {site.name: ChannelConcept() for site in sites}
            collector = FeatureVisualization(attribution, data, layers, max_target="max", abs_norm=False, path=out)
            if forward_only:
                collector.attribution = _Forward(network.module)
            started = time.perf_counter()
            collector.run(None, 0, len(data), options.batch)
            seconds.append(time.perf_counter() - started)
    times = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as out:
            started = time.perf_counter()
            build(network, source, sites, Path(out) / "gallery", GalleryOptions(batch=options.batch, workers=0))
            times.append(time.perf_counter() - started)
    own = min(times)
    print(
        f"{name:10} {len(data)} pictures: zennit-crp {seconds[0]:.1f} s (activation and relevance), {seconds[1]:.1f} s "
        f"(activation alone), ours {own:.1f} s with decoding: {seconds[0] / own:.1f} and {seconds[1] / own:.1f} times "
        "as fast (bar 3)",
        flush=True,
    )


class _Forward:
    """Replaces the attribution by a forward pass alone, in which the activations are collected."""

    MODEL_OUTPUT_NAME = "y"

    def __init__(self, module: torch.nn.Module) -> None:
        self.model = module

    def __call__(self, batch: torch.Tensor, *rest: object, **more: object) -> None:
        with torch.no_grad():
            self.model(batch)


def some(source, count: int):  # type: ignore[no-untyped-def]
    """The first images of a data set."""
    from dataclasses import replace

    return replace(source, labels=tuple(source.labels)[:count])


def memory() -> None:
    """Peak memory for 1,000 and 10,000 images, each in its own process."""
    with tempfile.TemporaryDirectory() as place:
        names = [f"{Path(place).as_posix()}/{number}.png" for number in range(1000)]
        source = vizapp.open_folder("digits")
        for number, name in enumerate(names):
            Path(name).write_bytes(vizapp.media.drawing.to_png(source.open(number).pixels))  # type: ignore[attr-defined]
        peaks = []
        for times in (1, 10):
            listing = Path(place) / f"{times}.csv"
            listing.write_text("path\n" + "\n".join(names * times) + "\n")
            command = [sys.executable, "-c", SMALL, str(listing), f"{place}/out{times}"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            peaks.append(int(done.stdout) / 1024)
        print(
            f"peak memory: 1,000 pictures {peaks[0]:.0f} MB, 10,000 pictures {peaks[1]:.0f} MB, "
            f"{100 * (peaks[1] / peaks[0] - 1):+.1f} % (bar ±5 %)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=388)
    parser.add_argument("--peer-pictures", type=int, default=48)
    parser.add_argument("--networks", nargs="*", default=["resnet50", "alexnet", "vgg16"])
    parser.add_argument("--folder", default="samples", help="a folder, zip or CSV of photos")
    parser.add_argument("--batch", type=int, default=64 if torch.cuda.is_available() else 16)
    parser.add_argument("--workers", type=int, default=max(1, min(8, (os.cpu_count() or 1) // 2)))
    parser.add_argument("--rounds", type=int, default=3, help="after the first one")
    parser.add_argument("--memory", action="store_true", help="measure peak memory, too")
    options = parser.parse_args()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}, batches of {options.batch}, {options.workers} decoding processes")
    for name in options.networks:
        compare(name, options)
    if options.memory:
        memory()
    if importlib.util.find_spec("crp") is None:
        print("zennit-crp is not installed here: no figure against it.")
    else:
        peer("alexnet", options)


if __name__ == "__main__":
    main()
