"""Feature visualization of 16 units of a layer in one batch, compared with Lucent (torch-lucent), which takes one at a time.

Both use the same network, weights, layer, image size, parametrization (Fourier, decorrelated colours), optimizer (Adam) and
random transformations (shift, zoom, rotation). Ours has batches that fit the CPU caches, channels-last layout, batch norms
inside convolutions, a gradient by the picture that is computed for blocks of pixels, and passes that end at the layer.

The bound is the network. On two CPU cores 85 to 90 % of a step of ResNet-18 to layer4.1 is the network's (83 to 88 of 94 to 98
ms of processor time, at about 90 billion operations per second and core, which is what the processor can do). So the ratio
cannot exceed 1.5 to 1.7 there: Lucent computes little more of that network, and few cheaper operations remain. Images, their
transformations and Adam take 9 to 13 ms.

Lucent is optional; without it, only our own one-unit-at-a-time run is measured. It needs kornia and decorator:

    python -m pip install --no-deps torch-lucent kornia kornia_rs decorator
    python benchmarks/filters.py [--units 16] [--layers resnet18:layer2.1 …]
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import median_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
import vizapp
from vizapp.engine.optimize.activation_maximization import OptimizationConfig, Target, maximize
from vizapp.engine.optimize.image_parametrization import ImageParam
from vizapp.methods.ideal import normaliser
from vizapp.zoo.network import Network

LAYERS = ["squeezenet1_0:features.7", "resnet18:layer2.1", "resnet18:layer4.1", "vgg16:features.15"]
SIZE, JITTER, ZOOM, TURN = 224, 8, 0.1, 10


def ours(network: Network, layer: str, channels: list[int], steps: int, together: bool = True) -> None:
    site = network.site(layer)
    canvas = ImageParam(3, SIZE, SIZE, jitter=JITTER, zoom=ZOOM, turn=TURN)
    targets = [Target(vizapp.Unit(site.name, channel)) for channel in channels]
    for part in [targets] if together else [[target] for target in targets]:
        maximize(
            network.module, normaliser(network), part, network.sites, canvas, OptimizationConfig(steps=steps), network.device,
            network.dtype,
        )  # fmt: skip


def lucents(module: torch.nn.Module, layer: str, channels: list[int], steps: int) -> None:
    import kornia
    from lucent.optvis import objectives, param, render, transform

    for name in ("get_rotation_matrix2d", "warp_affine"):  # where they were when Lucent was written
        if not hasattr(kornia, name):
            setattr(kornia, name, getattr(kornia.geometry.transform, name))
    transforms = [
        transform.jitter(2 * JITTER),
        transform.random_scale([1 + (i - 5) * ZOOM / 5 for i in range(11)]),
        transform.random_rotate(list(range(-TURN, TURN + 1))),
    ]
    for channel in channels:
        render.render_vis(
            module, objectives.channel(layer.replace(".", "_"), channel), lambda: param.image(SIZE),
            transforms=transforms, thresholds=(steps,), progress=False, show_image=False, fixed_image_size=SIZE,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--peer-units", type=int, default=4, help="units the peer is timed on; it repeats the same work"
    )
    options = parser.parse_args()
    peer = importlib.util.find_spec("lucent") is not None
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {options.units} units, {SIZE} x {SIZE}, float32, random weights")
    print("steps per second: one step of one unit counts one")
    if not peer:
        print("The peer, torch-lucent, is not installed: compared with our own, one unit after the other.")
    print(f"{'layer':28} {'together':>9} {'one by one':>11} {'lucent':>8} {'ratio':>6}")
    for chosen in options.layers:
        compare(chosen, device, peer, options)


def rate(work: Callable[[int], None], units: int, options: argparse.Namespace) -> float:
    """Steps per second, without start and end, which hardly matter in a real run of hundreds of steps."""
    work(1)  # the first passes choose algorithms
    short = median_time(lambda: work(1), options.repeats)
    return units * options.steps / (median_time(lambda: work(1 + options.steps), options.repeats) - short)


def compare(chosen: str, device: str, peer: bool, options: argparse.Namespace) -> None:
    name, layer = chosen.split(":")
    torch.manual_seed(0)
    network = vizapp.load(f"torchvision/{name}", weights="none", device=device)
    channels = list(range(options.units))
    few = channels[: options.peer_units]
    together = rate(lambda steps: ours(network, layer, channels, steps), len(channels), options)
    single = rate(lambda steps: ours(network, layer, few, steps, False), len(few), options)
    theirs = 0.0
    if peer:
        module = vizapp.load(f"torchvision/{name}", weights="none", device=device).module
        module = module.to(memory_format=torch.contiguous_format)
        lucents(module, layer, few[:1], 1)
        theirs = (
            len(few) * options.steps / median_time(lambda: lucents(module, layer, few, options.steps), options.repeats)
        )
    ratio = together / (theirs or single)
    print(f"{chosen:28} {together:9.2f} {single:11.2f} {theirs or float('nan'):8.2f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
