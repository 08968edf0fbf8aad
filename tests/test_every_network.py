"""Every network of torchvision and every classic one is asked for feature maps, every classifier for projections, on random
weights."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest
import torch
import torchvision

import vizapp
from tests.oracles import fields_by_backward, with_positive_weights
from tests.zoo import variants
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import Deconvnet
from vizapp.engine.receptive_field.field import receptive_fields
from vizapp.engine.trace.recording import Recording, record
from vizapp.engine.trace.sites import Site
from vizapp.zoo import bundled, classics
from vizapp.zoo.network import Network
from vizapp.zoo.registry import describe

NETWORKS = [name for name in vizapp.list_networks() if name.startswith(("torchvision/", "vizapp/"))]
CLASSIFIERS = {f"torchvision/{name}" for name in torchvision.models.list_models(module=torchvision.models)}
CLASSIFIERS |= {f"vizapp/{name}" for name in bundled.names() if not name.startswith("shapes-")}
PICTURE = vizapp.open_picture(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
# Where the cells are regrouped for attention the field is given as the whole picture, also before cells are mixed.
ATTENTIVE = ("torchvision/vit", "torchvision/swin", "torchvision/maxvit")
HUGE = 200e6  # parameters


def small_input(name: str) -> int | None:
    """A side that the network accepts and that is quick; None for its own."""
    source, family = name.split("/")
    if source == "vizapp":
        return classic_input(family)
    if family.startswith(("vit", "maxvit", "swin")):
        return None
    return 96 if family.startswith(("inception", "googlenet")) else 64


def classic_input(name: str) -> int | None:
    """Those that end in linear layers of a fixed size, and those that halve their maps five times, take their own."""
    if name.endswith("-cifar"):
        return None if name.startswith(("fractalnet", "deeply-supervised-companions")) else 16
    if name in classics.FROM_TIMM:
        return 96
    return 64 if name.startswith(("vgg", "inception", "resnet", "densenet")) or name == "googlenet-2014" else None


def built(name: str) -> Network:
    """The network on random weights, at a small input; skips what is too large for these machines."""
    card = describe(name)
    if card.parameters and card.parameters > HUGE:
        pytest.skip("too large for these machines; smaller variants are tested")
    network = vizapp.load(name, weights="none", device="cpu")
    if name.startswith("torchvision/vit"):  # torchvision begins their heads with zeros
        torch.nn.init.normal_(network.module.heads.head.weight, generator=torch.Generator().manual_seed(0))
    if hasattr(network.module, "transform"):  # detectors enlarge what they are given to 800 pixels
        network.module.transform.min_size = (128,)
    if hasattr(network.module, "rpn"):  # and look at 1,000 boxes; the maps of the backbone do not depend on them
        network.module.rpn._post_nms_top_n = {"training": 10, "testing": 10}
    side = small_input(name)
    return network if side is None else vizapp.wrap(network.module, input_size=(3, side, side), name=name)


def maps_of(network: Network) -> list[Site]:
    """The maps of the whole picture; a detector's heads work on what its backbone found."""
    maps = [site for site in network.sites if site.is_map]
    return [site for site in maps if site.name.startswith("backbone.")] or maps


@pytest.mark.parametrize("name", variants.parameters(NETWORKS))
def test_maps_and_projections(name: str) -> None:
    network = built(name)
    maps = maps_of(network)
    thirds = [maps[0], maps[len(maps) // 2], maps[-1]]  # an early, a middle and a late site
    strongest = check_maps(network, thirds)
    if describe(name).name in CLASSIFIERS:
        top = vizapp.ask("predict", network, PICTURE).table[0]["class"]
        check_projections(network, [*strongest, vizapp.class_unit(network, top)], name.startswith(ATTENTIVE))
    del network
    gc.collect()


def check_maps(network: Network, chosen: list[Site]) -> list[vizapp.Unit]:
    """The maps of some sites and the outputs have the shapes of their sites; the strongest channel of each of the maps."""
    sites = network.sites
    assert len({site.name for site in sites}) == len(sites)
    assert any(site.kind == "convolution" for site in sites)
    strongest = []
    for site in (*chosen, *([sites[-1]] if len(network.categories) == sites[-1].channels else [])):
        result = vizapp.ask("activations", network, PICTURE, unit=vizapp.Unit(site.name, site.channels - 1))
        values = result.arrays["activations"]
        assert values.shape == site.shape
        assert np.isfinite(values).all()
        assert len(result.table) == site.channels
        strongest.append(vizapp.Unit(site.name, result.table[0]["channel"]))
    return strongest[: len(chosen)]


def check_projections(network: Network, units: list[vizapp.Unit], attentive: bool) -> None:
    """Projections count the operations on their way, and end at the border of what their unit sees."""
    batch = network.prepare(PICTURE)
    fields = receptive_fields(network.module, batch)
    tape = record(network.module, batch, {unit.site for unit in units}, Deconvnet())
    cells = {}
    for unit in units:
        (down,) = project(network.module, batch, [unit], network.sites, seed="one")
        values, certificate = down.values[0], down.certificate
        assert values.isfinite().all(), unit
        assert values.any(), unit
        assert certificate.nonlinearities + certificate.switches + certificate.gates == nonlinear_between(
            tape, unit.site
        ), unit
        cell = down.cells[0]
        if cell is not None:
            cells[unit.site] = [cell]
            outside = torch.ones(values.shape[1:], dtype=torch.bool)
            box = fields[unit.site].inside(cell)
            outside[box[0] : box[2], box[1] : box[3]] = False
            assert not values[:, outside].any(), "a unit gets nothing from where it cannot see"
    if not attentive:
        for site, boxes in fields_by_backward(with_positive_weights(network.module), batch, cells).items():
            assert boxes == {cell: fields[site].inside(cell) for cell in cells[site]}, site


def nonlinear_between(tape: Recording, site: str) -> int:
    """Non-linear operations, max pools and gates that the site depends on, by a walk of its own over the tape.

    What only makes a gate counts with the gate: the held gate lets no signal into it.
    """
    reached, count = {tape.values[site][0]}, 0
    for step in reversed(tape.steps):
        if not reached.intersection(step.outputs):
            continue
        inputs, operation = list(step.inputs), step.operation.rstrip("_")
        if operation == "mul" and len(inputs) == 2:
            sizes = [math.prod(tape.shapes[value]) for value in inputs]
            made = [squashed_at(tape, value) for value in inputs]
            if sizes[0] != sizes[1]:
                inputs = [inputs[sizes.index(max(sizes))]]
            elif made[0] != made[1]:  # a gate as large as what it gates
                inputs = [inputs[made.index(False)]]
            count += 1
        elif operation in {"matmul", "bmm", "einsum"}:
            count += len(inputs) > 1
        else:
            count += operation in NONLINEAR
        reached.update(inputs)
    return count


def squashed_at(tape: Recording, value: int) -> bool:
    """Whether a value is a sigmoid, or one minus that."""
    step = next((step for step in tape.steps if value in step.outputs), None)
    if step is None:
        return False
    if step.operation.rstrip("_") == "sub" and len(step.inputs) == 1:
        return squashed_at(tape, step.inputs[0])
    return step.operation.rstrip("_") in {"sigmoid", "hardsigmoid"}


NONLINEAR = frozenset({
    "relu", "hardtanh", "relu6", "silu", "gelu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softmax", "layer_norm",
    "max_pool2d", "adaptive_max_pool2d", "scaled_dot_product_attention", "multi_head_attention_forward", "normalize",
    "square",
})  # fmt: skip
