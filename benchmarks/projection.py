"""Deconvnet projections of 64 units of a layer on one photo, compared with Captum's NeuronDeconvolution and
NeuronGuidedBackprop.

The bound: for each unit the peer runs a full forward pass and one backward pass over whole maps. We run forward once, up to
the layer, and send each signal back through the window that its unit sees. `bound` is the ratio of these multiply-adds, for
convolutions and linear layers only.

Without Captum only our own time is measured.

    python benchmarks/projection.py [--units 64] [--networks alexnet vgg16 resnet50]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import warnings
from pathlib import Path

import torch
import torchvision
from timing import median_time
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import RULES, Deconvnet, Rule, rule_named
from vizapp.engine.projection.windowed_signal import Signal, WindowedSignal
from vizapp.engine.trace.recording import record
from vizapp.engine.trace.sites import Unit, survey

LAYERS = {
    "alexnet": ["features.4", "features.7", "features.11"],
    "vgg16": ["features.15", "features.22", "features.29"],
    "resnet50": ["layer1.2.relu_2", "layer2.3.relu_2", "layer4.2.relu_2"],
}
PEERS = {"deconvnet": "NeuronDeconvolution", "guided": "NeuronGuidedBackprop"}  # in Captum


class Work:
    """The counts of a counting rule."""

    spent = 0  # multiply-adds of the convolutions on the way back
    widest = 0  # bytes of the largest signal, which the chunks keep small


def counting(name: str) -> Rule:
    """The rule of that name, with counts of its work."""

    class Counting(RULES[name]):  # type: ignore[misc]
        def backward(self, step, signals, shapes):  # type: ignore[no-untyped-def]
            if step.operation == "conv2d" and isinstance(signals[0], WindowedSignal):
                units, _, h, w = signals[0].values.shape
                Work.spent += units * h * w * step.args[1].numel()
            Work.widest = max(Work.widest, *(_size(signal) for signal in signals if signal is not None))
            return super().backward(step, signals, shapes)

    return Counting()


def _size(signal: Signal) -> int:
    values = signal.values if isinstance(signal, WindowedSignal) else signal
    return values.numel() * values.element_size()


def forward_work(module: nn.Module, picture: torch.Tensor, site: str) -> int:
    """Multiply-adds of the convolutions and linear layers up to a site."""
    recording = record(module, picture, {site}, Deconvnet())
    total = 0
    for step in recording.steps:
        if step.operation in {"conv2d", "linear"}:
            shape = recording.shapes[step.outputs[0]]
            total += step.args[1].numel() * (shape[2] * shape[3] if len(shape) == 4 else 1)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument(
        "--peer-units", type=int, default=6, help="units the peer is timed on; it repeats the same work"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {options.units} units, 224 x 224, float32, random weights")
    print(
        f"{'network':9} {'layer':16} {'field':>6} {'rule':10} {'ours':>8} {'peer':>8} {'ratio':>6} {'bound':>6} {'of it':>6} "
        f"{'deviation':>9} {'signal':>8}"
    )
    for network in options.networks:
        torch.manual_seed(0)
        module = torchvision.models.get_model(network, weights=None).eval().requires_grad_(False).to(device)
        picture = torch.randn(1, 3, 224, 224, device=device)
        sites = survey(module, picture)
        for layer in LAYERS[network]:
            compare(module, network, layer, picture, sites, options)


def compare(module, network, layer, picture, sites, options) -> None:  # type: ignore[no-untyped-def]
    from vizapp.engine.receptive_field.field import receptive_fields

    site = next(site for site in sites if site.name == layer)
    field = receptive_fields(module, picture)[layer].size[0]
    step = max(1, site.channels // options.units)
    units = [Unit(layer, channel) for channel in range(0, step * options.units, step)]
    target = module.get_submodule(layer.rpartition("_")[0] if layer.rpartition("_")[2].isdigit() else layer)
    for rule, peer in PEERS.items():
        Work.spent = Work.widest = 0
        project(module, picture, units, sites, counting(rule), seed="one")
        ours_work = forward_work(module, picture, layer) + Work.spent
        peer_work = options.units * (
            forward_work(module, picture, sites[-1].name) + forward_work(module, picture, layer)
        )
        found = project(module, picture, units, sites, rule_named(rule), seed="one")[0]
        ours = median_time(lambda rule=rule: project(module, picture, units, sites, rule_named(rule), seed="one"), 3)
        if importlib.util.find_spec("captum") is None:
            print(f"{network:9} {layer:16} {field:6} {rule:10} {ours:7.3f}s", flush=True)
            continue
        tool = getattr(importlib.import_module("captum.attr"), peer)(module, target)
        chosen = list(zip(units, found.cells, strict=True))[: options.peer_units]

        def ask_peer(tool=tool, chosen=chosen):  # type: ignore[no-untyped-def]
            return [tool.attribute(picture.clone().requires_grad_(), (unit.channel, *cell)) for unit, cell in chosen]

        answers = ask_peer()
        theirs = median_time(ask_peer, 2) / len(chosen) * options.units
        deviation = max(
            float((found.values[i] - a[0]).abs().max() / a.abs().max().clamp_min(1e-30)) for i, a in enumerate(answers)
        )
        # In Captum, a module that is called several times in one pass (torchvision's ResNets) cannot be selected.
        agreed = f"{deviation:9.1e}" if module_calls(layer) == 1 else f"{'(reused)':>9}"
        ratio, bound = theirs / ours, peer_work / ours_work
        print(
            f"{network:9} {layer:16} {field:6} {rule:10} {ours:7.2f}s {theirs:7.2f}s {ratio:6.1f} {bound:6.1f} "
            f"{ratio / bound:6.0%} {agreed} {Work.widest / 1e6:6.1f}MB",
            flush=True,
        )


def module_calls(layer: str) -> int:
    return 3 if layer.endswith("_2") else 1


if __name__ == "__main__":
    main()
