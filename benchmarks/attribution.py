"""Attribution maps compared with the packages that people use, as a careful user would run them.

Score-CAM and RISE make a pass for each mask, so all sides are timed per mask, on 64 masks. A call has as many as channels (512
of VGG-16, 2048 of ResNet-50; 1000 for RISE); what our side does once (recording and checking the passes, some three of them) is
included. `pytorch-grad-cam` and `TorchCAM` run their own Score-CAM on the same channels of the same layer. Neither has RISE:
`reference` is the algorithm of its authors, written plainly. The peers get the network as torchvision builds it; `channels
last` are the same peers on a network whose memory layout the user has changed. Each runs at its best batch of `--batches`. All
sides take turns, medians count. With `--threads 1`, times are processor seconds, which other work on the machine changes less.

Bound, written down before measuring: a core of a Xeon with AVX-512 multiplies matrices at about 130 GFLOP/s, runs VGG-16 as
torchvision builds it at 95 and ResNet-50 at 68. Without other arithmetic than the definition of convolutions, no exact method
can be more than 1.4 times as fast on VGG-16, and 1.9 times on ResNet-50, as passes at the best batch. With Winograd's algorithm
(`vizapp/engine/occlusion/winograd.py`), VGG-16 takes 2.8 times fewer products and ResNet-50 1.2 times. 2 is asked for.

`off`: the largest difference of our scores from plain passes, in parts of the largest score.

LRP's rows come from `relevance.py`, which says what they are compared with.

    python benchmarks/attribution.py [--networks vgg16 resnet50] [--masks 64] [--batches 2 4 8 16] [--units 64] [--threads 1]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout

from relevance import relevance_rows

import vizapp
from vizapp.engine.memory.reuse import reused_memory
from vizapp.engine.memory.trim import give_back
from vizapp.engine.trace.observe import observe
from vizapp.methods.attribution.layer import RecordedLayer
from vizapp.methods.attribution.masked import MaskedPasses
from vizapp.methods.attribution.masks import ScoreCam
from vizapp.methods.attribution.params import AttributionParams
from vizapp.methods.attribution.perturbations import RandomMasks, Rise
from vizapp.methods.attribution.request import Request
from vizapp.methods.base import Job
from vizapp.zoo.network import Network

SIDE, CLASS = 224, 281
LAYERS = {"vgg16": "features.29", "resnet50": "layer4"}
CLOCKS = {True: time.process_time, False: time.perf_counter}
Side = Callable[[int], object]  # runs all masks in batches of that size


class Case:
    """A network, a photo, and the maps of the layer that is explained, cut to some channels."""

    def __init__(self, name: str, masks: int) -> None:
        torch.manual_seed(0)
        self.network: Network = vizapp.load(f"torchvision/{name}", weights="none", device="cpu")
        self.plain = vizapp.load(f"torchvision/{name}", weights="none", device="cpu").module.to(
            memory_format=torch.contiguous_format
        )
        self.plain.load_state_dict(self.network.module.state_dict())
        pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        self.batch, self.masks = self.network.prepare(pixels), masks
        site, unit = self.network.site(LAYERS[name]), vizapp.class_unit(self.network, CLASS)
        maps = observe(self.network.module, self.batch, [site])[site.name]
        varying = (maps.amax((2, 3)) > maps.amin((2, 3)))[0]
        self.maps = maps[:, varying][:, :masks].contiguous()
        own = self.network.site(unit.site)
        self.request = Request(self.network, own, unit, self.batch, 0.0, AttributionParams(masks=masks), Job())
        self.layer = RecordedLayer(self.request, site, self.maps, None)

    def modules(self) -> dict[str, tuple[nn.Module, Tensor]]:
        """The network and the photo in both memory layouts."""
        return {"plain": (self.plain, self.batch.contiguous()), "channels last": (self.network.module, self.batch)}


def grad_cam(case: Case, layout: str) -> Side:
    """The weights of pytorch-grad-cam's Score-CAM."""
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module, batch = case.modules()[layout]
    cam = ScoreCAM(module, [module])
    activations = case.maps.numpy()

    def run(size: int) -> object:
        cam.batch_size = size
        return cam.get_cam_weights(batch, None, [ClassifierOutputTarget(CLASS)], activations, None)

    return run


def torch_cam(case: Case, layout: str) -> Side:
    """The weights of TorchCAM's Score-CAM."""
    from torchcam.methods import ScoreCAM

    module, batch = case.modules()[layout]
    cam: Any = ScoreCAM(
        module, case.layer.site.name.split(".add")[0].rsplit(".relu", 1)[0], input_shape=(3, SIDE, SIDE)
    )
    with torch.no_grad():
        module(batch)

    def run(size: int) -> object:
        cam.hook_a = [case.maps]  # anew: passes of the other sides are recorded, too
        cam.bs = size
        return cam._get_weights(CLASS)

    return run


def reference_rise(case: Case, layout: str) -> Side:
    """The algorithm of RISE's authors: all masks, all masked photos, batches, and a weighted sum."""
    module, batch = case.modules()[layout]
    cell = -(-SIDE // 7)

    @torch.no_grad()
    def run(size: int) -> object:
        grids = (torch.rand(case.masks, 1, 7, 7) < 0.5).float()
        masks = torch.empty(case.masks, 1, SIDE, SIDE)
        for number, grid in enumerate(grids):
            y, x = np.random.randint(0, cell, 2)
            resized = F.interpolate(grid[None], ((7 + 1) * cell,) * 2, mode="bilinear")
            masks[number] = resized[0, :, y : y + SIDE, x : x + SIDE]
        stack = masks * batch
        if layout == "channels last":
            stack = stack.contiguous(memory_format=torch.channels_last)
        scores = torch.cat([module(stack[i : i + size]) for i in range(0, case.masks, size)])
        return scores.T @ masks.view(case.masks, -1) / case.masks / 0.5

    return run


def timed(work: Callable[[], object]) -> float:
    """Seconds of `work`; of the processor, if there is one thread."""
    clock = CLOCKS[torch.get_num_threads() == 1]
    start = clock()
    work()
    return clock() - start


def reusing(work: Callable[[], object]) -> None:
    """Run `work` as `vizapp.ask` does; then return the memory, so that the next side has its own."""
    with reused_memory():
        work()
    give_back()


def best_batch(run: Side, sizes: Sequence[int]) -> int:
    """The size at which all masks take least."""
    return min(sizes, key=lambda size: timed(lambda: run(size)))


def measure(kind: str, name: str, case: Case, ours: Callable[[], object], peers: dict[str, Any], options: Any) -> None:
    """Time all sides by turns, and print a row: milliseconds per mask, and the ratios."""
    sides = {(peer, layout): make(case, layout) for peer, make in peers.items() for layout in case.modules()}
    ours()
    best = {key: best_batch(run, options.batches) for key, run in sides.items()}
    times: dict[Any, list[float]] = {"ours": [], **{key: [] for key in sides}}
    for _ in range(options.repeats):
        times["ours"].append(timed(lambda: reusing(ours)))
        for key, run in sides.items():
            times[key].append(timed(lambda run=run, key=key: run(best[key])))
    middle = {key: 1000 * statistics.median(found) / case.masks for key, found in times.items()}
    told = [f"{kind:9} {name:9} {case.masks:5} {middle['ours']:8.1f}"]
    for layout in case.modules():
        peer = min((key for key in sides if key[1] == layout), key=middle.__getitem__)
        told.append(f"{middle[peer]:8.1f} {peer[0]:>16} at {best[peer]:2} {middle[peer] / middle['ours']:6.2f}")
    print(" | ".join(told), f"| {off(case):8.1e}", flush=True)


def off(case: Case) -> float:
    """The largest difference of our scores for eight masks from plain passes, in parts of the largest score."""
    masks = RandomMasks((SIDE, SIDE), 8, 0)
    found = torch.cat([values for values, _ in MaskedPasses(case.request, masks.of, 8).answers()])
    with torch.no_grad():
        expected = case.plain(case.batch * masks.of(range(8))[:, None])[:, CLASS]
    return float((found - expected).abs().max() / expected.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet50"], choices=sorted(LAYERS))
    parser.add_argument("--masks", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--units", type=int, default=64, help="units of LRP at once; 0: without LRP")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"  # pytorch-grad-cam draws a bar for each photo
    print(
        f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, {SIDE} x {SIDE}, random weights; ms per mask"
    )
    print(
        f"{'kind':9} {'network':9} {'masks':>5} {'ours':>8} | {'best peer':>31} {'ratio':>6} | "
        f"{'channels last':>31} {'ratio':>6} | {'off':>8}"
    )
    packages = {"pytorch-grad-cam": ("pytorch_grad_cam", grad_cam), "TorchCAM": ("torchcam", torch_cam)}
    peers = {name: make for name, (package, make) in packages.items() if importlib.util.find_spec(package)}
    for name in options.networks:
        case = Case(name, options.masks)
        measure("Score-CAM", name, case, lambda case=case: ScoreCam().weights(case.layer, 8), peers, options)
        measure(
            "RISE", name, case, lambda case=case: Rise().pixels(case.request, 8), {"reference": reference_rise}, options
        )
        if options.units:
            relevance_rows(name, SIDE, options.units, options.repeats)


if __name__ == "__main__":
    main()
