"""An occlusion sweep compared with our own whole passes and with Captum's `Occlusion`: same positions, same network.

`bound`: multiply-adds of a whole pass divided by those of the cells that an occluder touches, on average. The slower sides
do the same work for each position, so they are timed on some positions and scaled. The best time of each side counts: of
several batch sizes for the slower ones, of `--repeats` whole sweeps for ours. `cores`: processor seconds per second of that
best sweep; if it is much less than the number of threads, something else was running and the row is unreliable.
`deviation`: the largest difference of our probabilities from those of whole passes. `effect`: the largest change that an
occluder causes; the random weights of the last layer are scaled so that there is a change to measure.

    python benchmarks/occlusion.py [--network vgg16 …] [--window 32] [--stride 8] [--places 64]
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from captum.attr import Occlusion
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from vizapp.engine.occlusion.sweep import Answers, Sweep
from vizapp.methods.occlusion.occluder import coarse_to_fine, positions

NETWORKS = ["vgg16", "squeezenet1_0", "alexnet", "resnet50", "resnet18", "googlenet"]
BATCHES = (4, 16, 32)  # for Captum and for our whole passes


def built(name: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    module = torchvision.models.get_model(name, weights=None, **options).eval().requires_grad_(False)
    last = [part for part in module.modules() if isinstance(part, (nn.Linear, nn.Conv2d))][-1]
    last.weight.mul_(3 / module(torch.randn(1, 3, 224, 224)).std())  # otherwise all classes are about equally probable
    return module.to(device)


def timed(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def captums(module: nn.Module, picture: Tensor, window: int, device: torch.device) -> tuple[float, int]:
    """Captum's seconds per position at its best `perturbations_per_eval`, on adjacent occluders."""
    tool, places = Occlusion(module), (-(-(picture.shape[2] - window) // window) + 1) ** 2
    found = {}
    for size in BATCHES:
        work = lambda size=size: tool.attribute(  # noqa: E731
            picture, (3, window, window), (3, window, window), 0.0, target=0, perturbations_per_eval=size
        )
        found[size] = timed(work, device) / places
    best = min(found, key=lambda size: found[size])
    return found[best], best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=NETWORKS)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--places", type=int, default=64, help="places that the whole passes are timed on")
    parser.add_argument("--repeats", type=int, default=3, help="of our sweep")
    parser.add_argument("--precision", choices=["exact", "tf32", "bf16"], default="exact")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    square = f"square {options.window}, stride {options.stride}, {options.precision}"
    print(f"{name}, torch {torch.__version__}, 224 x 224, {square}, float32, random weights")
    print(
        f"{'network':14} {'ours':>8} {'coarse':>7} {'cores':>5} {'whole':>9} {'Captum':>9} {'(at)':>4} "
        f"{'bound':>6} {'ratio':>6} {'of it':>6} {'to Captum':>9} {'deviation':>9} {'(effect)':>8}"
    )
    for network in options.network:
        compare(network, options, device)


class Swept(NamedTuple):
    """The time of a sweep with its plan. `cores`: processor seconds per second."""

    sweep: Sweep
    answers: list[Answers]
    seconds: float
    coarse: float
    cores: float


def swept(make: Callable[[], Sweep], turns: list[list[int]], device: torch.device) -> Swept:
    found: list[Answers] = []
    started, worked = time.perf_counter(), time.process_time()
    sweep = make()
    for number, turn in enumerate(turns):
        found += sweep.batches(turn)
        if number == 0:
            if device.type == "cuda":
                torch.cuda.synchronize()
            coarse = time.perf_counter() - started
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return Swept(sweep, found, seconds, coarse, (time.process_time() - worked) / seconds)


def compare(name: str, options: argparse.Namespace, device: torch.device) -> None:
    plain = built(name, device)
    module = built(name, device).to(memory_format=torch.channels_last)  # the layout that `vizapp.load` uses
    picture = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)
    own = picture.contiguous(memory_format=torch.channels_last)
    where = positions((224, 224), (options.window, options.window), options.stride)
    boxes = [tuple(box) for box in where.boxes.reshape(-1, 4).tolist()]
    turns = coarse_to_fine(where.shape)

    def make() -> Sweep:
        return Sweep(module, module, own, torch.zeros_like(own), boxes, precision=options.precision)

    with torch.no_grad():
        module(own.expand(8, -1, -1, -1))
        list(make().batches(turns[0]))  # the first convolutions of a process are slow
    sweeps = [swept(make, turns, device) for _ in range(options.repeats)]
    sweep, found, ours, coarse, cores = min(sweeps, key=lambda each: each.seconds)

    step = max(1, len(boxes) // options.places)
    tried = list(range(0, len(boxes), step))[: options.places]
    by_size = {}
    for size in BATCHES:
        parts = [tried[start : start + size] for start in range(0, len(tried), size)][:2]
        seconds = timed(lambda parts=parts: [sweep.answer_by_whole_passes(part) for part in parts], device)
        by_size[size] = seconds / sum(map(len, parts))
    whole = min(by_size.values()) * len(boxes)
    with torch.no_grad():
        captum, best = captums(plain, picture, options.window, device)
    captum *= len(boxes)

    scores = {place: row for answers in found for place, row in zip(answers.positions, answers.scores, strict=True)}
    parts = [tried[start : start + 8] for start in range(0, len(tried), 8)]
    expected = torch.cat([sweep.answer_by_whole_passes(part).scores for part in parts]).softmax(1)
    ours_there = torch.stack([scores[place] for place in tried]).softmax(1)
    deviation = float((expected - ours_there).abs().max())
    effect = float((expected - sweep.clean_scores.softmax(1)).abs().max())
    ratio = whole / ours
    print(
        f"{name:14} {ours:7.2f}s {coarse:6.2f}s {cores:5.2f} {whole:8.1f}s {captum:8.1f}s {best:4} "
        f"{sweep.bound:6.2f} {ratio:6.2f} {ratio / sweep.bound:6.0%} {captum / ours:9.2f} {deviation:9.1e} {effect:8.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
