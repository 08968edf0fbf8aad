"""Dense prediction of a photo at the native stride, compared with classifying every crop.

The peer is the network on all crops at the same stride, at the fastest of several batch sizes; some batches are timed and
scaled to all crops. `bound`: the time of one pass of the convolutional layers over the photo plus the layers of the head on
as many cells, both by the network's own modules. `arithmetic`: multiply-adds of all crops divided by ours.

    python benchmarks/dense.py [--side 1024] [--networks vgg16 resnet50] [--crops 48]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
import torchvision
from timing import median_time
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from vizapp.engine.fully_convolutional.convert import plan_conversion
from vizapp.engine.fully_convolutional.forward import dense_scores

BATCHES = {"cpu": (8, 16, 24), "cuda": (64, 128, 256)}


def parts(name: str, module: nn.Module) -> tuple[nn.Module, nn.Module, int]:
    """The convolutional layers, the head of a cell, and its number of inputs."""
    if name.startswith("vgg"):
        return module.features, module.classifier, 512 * 49
    return nn.Sequential(*list(module.children())[:-2]), module.fc, module.fc.in_features


def multiply_adds(module: nn.Module, batch: Tensor) -> int:
    """Multiply-adds of convolutions and linear layers."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * output.numel() // output.shape[1]

    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    module(batch)
    for hook in hooks:
        hook.remove()
    return total


def crops(photo: Tensor, side: int, stride: int, count: int, start: int = 0) -> Tensor:
    """Crops `start` to `start + count` of the photo, `[count C side side]`, in its memory format; after the last, the first."""
    down, across = ((photo.shape[axis] - side) // stride + 1 for axis in (2, 3))
    places = [divmod(number % (down * across), across) for number in range(start, start + count)]
    cut = [photo[:, :, y * stride : y * stride + side, x * stride : x * stride + side] for y, x in places]
    return torch.cat(cut).contiguous(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet50"])
    parser.add_argument("--crops", type=int, default=48, help="crops that the peer is timed on")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {options.side} x {options.side}, float32, random weights, channels-last")
    print("network    crops   dense  crop by crop (batch)  ratio  arithmetic   bound  of bound  deviation")
    for network in options.networks:
        with torch.no_grad():
            compare(network, options, device)


def compare(network: str, options: argparse.Namespace, device: torch.device) -> None:
    torch.manual_seed(0)
    module = torchvision.models.get_model(network, weights=None).eval().requires_grad_(False)
    module = module.to(device).to(memory_format=torch.channels_last)
    photo = torch.randn(1, 3, options.side, options.side, device=device).contiguous(memory_format=torch.channels_last)
    side = 224
    made = plan_conversion(module, photo[:, :, :side, :side])
    stride = made.stride[0]
    answer = dense_scores(module, made, photo)
    cells = answer.shape[2] * answer.shape[3]
    trunk, head, width = parts(network, module)
    wide = torch.randn(cells, width, device=device)
    trunk(photo), head(wide)  # warm
    # Interleaved, so that other load on the machine affects all of them.
    times: dict[str, list[float]] = {"dense": [], "trunk": [], "head": []}
    for _ in range(3):
        times["dense"].append(median_time(lambda: dense_scores(module, made, photo), 1))
        times["trunk"].append(median_time(lambda: trunk(photo), 1))
        times["head"].append(median_time(lambda: head(wide), 1))
    ours, bound = statistics.median(times["dense"]), sum(statistics.median(times[k]) for k in ("trunk", "head"))
    peer, batch = min(
        (crop_by_crop(module, photo, side, stride, size, options.crops) * cells, size) for size in BATCHES[device.type]
    )
    work = multiply_adds(module, photo[:, :, :side, :side]) * cells
    whole = multiply_adds(trunk, photo) + multiply_adds(head, wide[:1]) * cells
    last = stride * (answer.shape[2] - 1)
    alone = module(photo[:, :, last:, last:])[0]
    deviation = float((answer[0, :, -1, -1] - alone).abs().mean() / alone.std())
    print(
        f"{network:9} {cells:6} {ours:6.2f}s {peer:12.1f}s ({batch:3})     {peer / ours:5.1f}x {work / whole:9.1f}x "
        f"{bound:7.2f}s {ours / bound:8.2f} {deviation:10.2f}",
        flush=True,
    )


def crop_by_crop(module: nn.Module, photo: Tensor, side: int, stride: int, batch: int, count: int) -> float:
    """Seconds per crop, from `count` crops (at least two batches)."""
    runs = max(2, count // batch)
    batches = [crops(photo, side, stride, batch, batch * number) for number in range(runs)]
    module(batches[0])  # warm
    return statistics.median(median_time(lambda part=part: module(part), 1) for part in batches) / batch


if __name__ == "__main__":
    main()
