"""Occlusion maps compared with Captum's `Occlusion` and with whole passes, as a careful user would run them.

`first` and `next` are whole calls of `vizapp.ask("occlusion", …)`: planning, trial, positions, projection and panels. `first`
is the first call with this network and these positions, `next` the median of further calls, each with another photo. `sweep`
is the engine alone: the plan, and the class scores at all positions. `coarse` is the time to its first coarse map.

The peers get the same network in the same memory layout (channels-last) and precision, and their best batch of several
sizes. They compute class scores alone. `whole` are plain passes over occluded pictures. Both do the same work for each
position, so on a CPU they are timed on some positions and scaled. All sides take turns; medians count, with the spread in
parentheses as a share of the median.

`bound`: multiply-adds of a whole pass divided by those of the cells that an occluder changes, on average: no exact method
without other arithmetic can be faster than whole passes by more than that. `deviation`: the largest difference of our
probabilities from those of whole passes. `effect`: the largest change that an occluder causes; the random weights of the last
layer are scaled so that there is one to measure. `calls`: torch operations (aten) of a sweep; on a GPU each costs a launch.

    python benchmarks/occlusion.py [--networks squeezenet1_0 resnet50 vgg16] [--strides 8 16 32] [--precision exact]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from timing import timed

import vizapp
from vizapp.engine.occlusion.sweep import Answers, Sweep
from vizapp.methods.occlusion.occluder import Positions, coarse_to_fine, positions
from vizapp.zoo.network import Network

WINDOW, SIDE = 32, 224
BATCHES = {"cpu": (4, 8, 16, 32, 64), "cuda": (4, 16, 64, 128, 256, 512)}
PEER_POSITIONS = 49  # on a CPU; at least one batch


class Count(TorchDispatchMode):
    """Counts aten calls."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def network_of(name: str, device: str) -> Network:
    torch.manual_seed(0)
    network = vizapp.load(f"torchvision/{name}", weights="none", device=device)
    last = [part for part in network.module.modules() if isinstance(part, (nn.Linear, nn.Conv2d))][-1]
    with torch.no_grad():
        spread = network.module(torch.randn(1, 3, SIDE, SIDE, device=device)).std()
        last.weight.mul_(3 / spread)  # otherwise all classes are about equally probable
    return network


def photo(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@contextlib.contextmanager
def peers_precision(device: torch.device, precision: str) -> Iterator[None]:
    """The precision that a careful user would set for the peers."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def whole_passes(module: nn.Module, picture: Tensor, boxes: Sequence[tuple[int, ...]], batch: int) -> None:
    """The scores at some positions by whole passes over batches of occluded pictures."""
    for start in range(0, len(boxes), batch):
        part = boxes[start : start + batch]
        pictures = picture.expand(len(part), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        for one, (top, left, bottom, right) in zip(pictures, part, strict=True):
            one[:, max(top, 0) : bottom, max(left, 0) : right] = 0
        module(pictures)


def captums(module: nn.Module, picture: Tensor, stride: int, batch: int) -> int:
    """Captum's map with this stride; the number of its positions."""
    from captum.attr import Occlusion

    step = (3, stride, stride)
    Occlusion(module).attribute(picture, (3, WINDOW, WINDOW), step, 0.0, target=0, perturbations_per_eval=batch)
    return (-(-(SIDE - WINDOW) // stride) + 1) ** 2


class Sides:
    """What is timed for one network and one stride: a function per side, and how many positions it answers."""

    def __init__(self, network: Network, stride: int, precision: str) -> None:
        self.network, self.stride, self.precision = network, stride, precision
        self.device = network.device
        self.where: Positions = positions((SIDE, SIDE), (WINDOW, WINDOW), stride)
        self.boxes = [tuple(box) for box in self.where.boxes.reshape(-1, 4).tolist()]
        self.picture = network.batch([network.seen(vizapp.open_picture(photo(0)))])
        self.photos = iter(range(1, 1000))

    def ask(self) -> None:
        """A whole call, with a photo that has not been asked about before."""
        shown = vizapp.open_picture(photo(next(self.photos)))
        vizapp.ask("occlusion", self.network, shown, stride=self.stride, precision=self.precision)

    def sweep(self) -> tuple[Sweep, list[Answers], float]:
        """The engine alone: its answers, and the seconds to the first coarse map."""
        start, answers, coarse = time.perf_counter(), [], 0.0
        patch = torch.zeros_like(self.picture)
        module, precision = self.network.module, self.precision
        sweep = Sweep(module, self.network.scores, self.picture, patch, self.boxes, precision=precision)  # type: ignore[arg-type]
        for turn in coarse_to_fine(self.where.shape):
            answers += sweep.batches(sweep.arranged(turn))
            if not coarse:
                answers[-1].scores.cpu()
                coarse = time.perf_counter() - start
        return sweep, answers, coarse

    def whole(self, batch: int) -> float:
        """Seconds for all positions by whole passes."""
        boxes = self.boxes if self.device.type == "cuda" else self.boxes[: max(batch, PEER_POSITIONS)]
        with peers_precision(self.device, self.precision):
            seconds = timed(lambda: whole_passes(self.network.module, self.picture, boxes, batch))
        return seconds / len(boxes) * len(self.boxes)

    def captum(self, batch: int) -> float:
        """Seconds for all positions by Captum."""
        stride = self.stride if self.device.type == "cuda" else WINDOW
        count = 0

        def work() -> None:
            nonlocal count
            count = captums(self.network.module, self.picture, stride, batch)

        with peers_precision(self.device, self.precision):
            seconds = timed(work)
        return seconds / count * len(self.boxes)


def told(times: list[float]) -> str:
    middle = statistics.median(times)
    return f"{middle:8.3f} ({(max(times) - min(times)) / middle:4.0%})"


def compare(name: str, stride: int, options: argparse.Namespace, device: str) -> None:
    sides = Sides(network_of(name, device), stride, options.precision)
    sides.whole(BATCHES[sides.device.type][0])  # the first convolutions of a process are slow
    first = timed(sides.ask)
    sizes = BATCHES[sides.device.type]
    best = min(sizes, key=sides.whole)
    has_captum = importlib.util.find_spec("captum") is not None
    captums_best = min(sizes, key=sides.captum) if has_captum else 0
    times: dict[str, list[float]] = {"next": [], "sweep": [], "whole": [], "captum": []}
    coarse = []
    for _ in range(options.repeats):
        times["next"].append(timed(sides.ask))
        start = time.perf_counter()
        sweep, answers, seconds = sides.sweep()
        times["sweep"].append(time.perf_counter() - start)
        coarse.append(seconds)
        times["whole"].append(sides.whole(best))
        if has_captum:
            times["captum"].append(sides.captum(captums_best))
    with Count() as count:
        sides.sweep()
    deviation, effect = accuracy(sweep, answers)
    middle = {side: statistics.median(found) for side, found in times.items() if found}
    ratios = [f"{middle[peer] / middle['next']:6.2f}" if peer in middle else "     –" for peer in ("captum", "whole")]
    captum = f"{told(times['captum'])} at {captums_best:3}" if has_captum else f"{'–':>22}"
    print(
        f"{name:13} {len(sides.boxes):5} {first:8.3f} {told(times['next'])} {told(times['sweep'])} "
        f"{statistics.median(coarse):7.3f} {told(times['whole'])} at {best:3} {captum} {ratios[0]} {ratios[1]} "
        f"{middle['whole'] / middle['sweep']:6.2f} {sweep.bound:6.2f} {deviation:9.1e} {effect:8.1e} {count.calls:7}",
        flush=True,
    )


def accuracy(sweep: Sweep, answers: list[Answers]) -> tuple[float, float]:
    """The largest difference of probabilities from those of whole passes, and the largest change by an occluder."""
    scores = {place: row for found in answers for place, row in zip(found.positions, found.scores, strict=True)}
    tried = list(range(0, len(sweep), max(1, len(sweep) // 32)))
    parts = [tried[start : start + 8] for start in range(0, len(tried), 8)]
    expected = torch.cat([sweep.answer_by_whole_passes(part).scores for part in parts]).softmax(1)
    ours = torch.stack([scores[place] for place in tried]).softmax(1)
    return float((expected - ours).abs().max()), float((expected - sweep.clean_scores.softmax(1)).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["squeezenet1_0", "resnet50", "vgg16"])
    parser.add_argument("--strides", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=["exact", "tf32", "bf16"], default="exact")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{name}, torch {torch.__version__}, {SIDE} x {SIDE}, a square of {WINDOW}, {options.precision}, random weights"
    )
    print("seconds; ratios: Captum and whole passes to our next call, whole passes to our sweep")
    print(
        f"{'network':13} {'where':>5} {'first':>8} {'next':>15} {'sweep':>15} {'coarse':>7} {'whole':>22} {'Captum':>22} "
        f"{'Captum':>6} {'whole':>6} {'sweep':>6} {'bound':>6} {'deviation':>9} {'(effect)':>8} {'calls':>7}"
    )
    for network in options.networks:
        for stride in options.strides:
            compare(network, stride, options, device)


if __name__ == "__main__":
    main()
