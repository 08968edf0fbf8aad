"""What-if questions compared with a plain loop over whole passes, as a careful user would write it.

`knockout` is a whole call of `vizapp.ask("knockout", …)`, which silences every unit of a layer alone: recording, check, scores
of all units, table. `whole` is a loop over whole passes with a forward hook that silences another channel in each item of the
batch, with the same network in the same memory layout (channels-last), at its best batch of 1 to 64. It does the same for each
unit, so it is timed on some units and scaled. Both sides take turns; medians count.

`bound`: multiply-adds of a whole pass divided by those from the layer on; without other arithmetic, only batches that suit the
machine better can make the ratio larger. `live`: units that are not zero everywhere on the photo; others change nothing and are
not computed. `deviation`: the largest difference of our logits from those of the loop, in parts of the largest logit.

| network | layer | units | multiply-adds of a pass, from the layer on (millions) | bound | ratio asked for |
|---|---|---|---|---|---|
| VGG-16 | features.30, the last pool | 512 | 15,470, 124 | 125 | 10 |
| ResNet-18 | layer3, its last rectifier | 256 | 1,814, 412 | 4.4 | 3 |

`transform` is a whole call of `vizapp.ask("transform", …)` over 72 rotations of one photo, three layers and the class scores.
`bare` is the forward pass alone over the same pictures, ready-made as one channels-last tensor, at its best batch of 1 to 64.

Both make as many passes; besides, the method warps and normalises the pictures, and keeps and compares three maps of each.
`bound` is 1 plus the time of that alone, as a share of `bare`; at most 1.2 is asked for.

    python benchmarks/what_if.py [--quick] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from timing import timed

import vizapp
from vizapp.engine.occlusion.ablation import Ablation
from vizapp.engine.trace.observe import observe
from vizapp.media.distortions import resized_photo
from vizapp.methods.transform import chosen_sites
from vizapp.zoo.network import Network

KNOCKOUT = (("vgg16", "features.30"), ("resnet18", "layer3"))
TRANSFORM = ("resnet50", "squeezenet1_0")
BATCHES = (1, 2, 4, 8, 16, 32, 64)
PEER_UNITS = 32  # at least one batch


def network_of(name: str) -> Network:
    torch.manual_seed(0)
    return vizapp.load(f"torchvision/{name}", weights="none", device="cuda:0" if torch.cuda.is_available() else "cpu")


def photo(number: int) -> vizapp.media.picture.Picture:  # type: ignore[name-defined]
    return vizapp.open_picture(np.random.default_rng(number).integers(0, 256, (224, 224, 3), np.uint8))


@torch.no_grad()
def hooked_passes(module: nn.Module, layer: str, picture: Tensor, units: Sequence[int], batch: int) -> Tensor:
    """The logits `[units classes]` by whole passes, each item of a batch with another unit silenced."""
    found = []
    for start in range(0, len(units), batch):
        part = torch.tensor(units[start : start + batch], device=picture.device)

        def silence(layer: nn.Module, given: object, output: Tensor, part: Tensor = part) -> None:
            output[torch.arange(len(part), device=part.device), part] = 0

        handle = module.get_submodule(layer).register_forward_hook(silence)
        pictures = picture.expand(len(part), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        found.append(module(pictures))
        handle.remove()
    return torch.cat(found)


def knockout_row(name: str, layer: str, quick: bool, repeats: int) -> None:
    """Time both sides for all units of a layer of a network with random weights, and print a row."""
    network = network_of(name)
    site, picture = network.site(layer), network.prepare(photo(0))
    count = 8 if quick else PEER_UNITS
    batches = (8,) if quick else BATCHES

    def whole(batch: int) -> float:
        units = list(range(max(batch, count)))
        return timed(lambda: hooked_passes(network.module, layer, picture, units, batch)) / len(units) * site.channels

    def ours(number: int) -> float:
        return timed(lambda: vizapp.ask("knockout", network, photo(number), site=site.name))

    whole(1)  # the first convolutions of a process are slow
    ours(0)
    best = min(batches, key=whole)
    times = [(ours(1 + number), whole(best)) for number in range(repeats)]
    mine, peer = (statistics.median(side) for side in zip(*times, strict=True))
    ablation = Ablation(network.module, network.scores, picture, site, network.footprint)
    units = list(range(count))
    expected = hooked_passes(network.module, layer, picture, units, best)
    found = torch.cat([*ablation.scores(ablation.without(units))])
    deviation = float((found - expected).abs().max() / expected.abs().max())
    print(
        f"{name:10} {site.name:18} {site.channels:5} {len(ablation.live):5} {mine:9.2f} {peer:9.2f} at {best:2} "
        f"{peer / mine:6.1f} {ablation.bound:6.1f} {deviation:9.1e}",
        flush=True,
    )


def transform_row(name: str, quick: bool, repeats: int) -> None:
    """Time the method and bare passes over rotations of a photo in a network with random weights, and print a row."""
    network = network_of(name)
    amounts = tuple(float(amount) for amount in range(0, 360, 45 if quick else 5))
    sites = chosen_sites(network, ())
    with torch.no_grad():
        maps = [value.clone() for value in observe(network.module, network.prepare(photo(0)), sites).values()]

    def pictures(number: int) -> list[np.ndarray]:
        resized = resized_photo(network.preprocessing.view, photo(number).pixels)
        return [resized.transformed("rotate", amount) for amount in amounts]

    ready = network.batch(pictures(0))

    @torch.no_grad()
    def passes(batch: int) -> None:
        for start in range(0, len(ready), batch):
            network.module(ready[start : start + batch])

    def besides() -> None:
        turned = pictures(0)
        for start in range(0, len(turned), 8):
            network.batch(turned[start : start + 8])
        for _ in amounts:
            for value in maps:
                torch.linalg.vector_norm(value.clone().sub_(value), dim=1)

    def ours(number: int) -> float:
        return timed(lambda: vizapp.ask("transform", network, photo(number), amounts=amounts))

    passes(4)
    ours(0)
    best = min((8,) if quick else BATCHES, key=lambda batch: timed(lambda: passes(batch)))
    times = [(ours(1 + number), timed(lambda: passes(best)), timed(besides)) for number in range(repeats)]
    mine, bare, cost = (statistics.median(side) for side in zip(*times, strict=True))
    print(
        f"{name:14} {len(amounts):8} {mine:9.2f} {bare:9.2f} at {best:2} {mine / bare:6.2f} {1 + cost / bare:6.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the loop on 8 units in one batch size, one repeat")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    warnings.simplefilter("ignore")
    kind = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{kind}, torch {torch.__version__}, 224 x 224, random weights; seconds for all units")
    print(
        f"{'network':10} {'layer':18} {'units':>5} {'live':>5} {'knockout':>9} {'whole':>9} {'batch':>5} {'ratio':>6} "
        f"{'bound':>6} {'deviation':>9}"
    )
    for name, layer in KNOCKOUT:
        knockout_row(name, layer, options.quick, repeats)
    print(f"\n{'network':14} {'pictures':>8} {'transform':>9} {'bare':>9} {'batch':>5} {'ratio':>6} {'bound':>6}")
    for name in TRANSFORM:
        transform_row(name, options.quick, repeats)


if __name__ == "__main__":
    main()
