"""On a GPU the engine gives the results of the CPU. Run with `pytest -m gpu` on a machine with a GPU."""

from __future__ import annotations

import pytest
import torch
import torchvision

from tests.networks import Branching, seeded
from vizapp.engine.memory.chunks import chunk_size, free_memory
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.engine.optimize.activation_maximization import OptimizationConfig, Target, maximize
from vizapp.engine.optimize.image_parametrization import ImageParam
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Unit, survey

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def exact_arithmetic():
    """TF32 would round the products to ten bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_sites_and_activations_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    module = torchvision.models.googlenet(weights=None, init_weights=False).eval().requires_grad_(False)
    picture = torch.randn(2, 3, 64, 64)
    sites = survey(module, picture[:1])
    chosen = [site for site in sites if site.name in {"conv1.conv", "inception4a.cat", "fc"}]
    expected = observe(module, picture, chosen)
    module.to(CUDA)
    assert survey(module, picture[:1].to(CUDA)) == sites
    for name, found in observe(module, picture.to(CUDA), chosen).items():
        assert found.device == CUDA
        torch.testing.assert_close(found.cpu(), expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["deconvnet", "guided", "gradient"])
def test_projections_are_those_of_the_cpu(method: str) -> None:
    for module, site in ((seeded(Branching()), "add"), (torchvision.models.resnet18(weights=None), "layer3.1.conv2")):
        module = module.double().eval().requires_grad_(False)  # so that rounding picks no other switch
        picture = torch.randn(1, 3, 64, 64, dtype=torch.float64)
        sites = survey(module, picture)
        units = [Unit(site, channel, (1, 1)) for channel in range(8)]
        rule = rule_named(method)  # type: ignore[arg-type]
        (expected,) = project(module, picture, units, sites, rule, seed="one")
        (found,) = project(module.to(CUDA), picture.to(CUDA), units, sites, rule, seed="one")
        torch.testing.assert_close(found.values.cpu(), expected.values, rtol=1e-8, atol=1e-12)


def test_dense_scores_are_those_of_the_cpu_and_stay_below_the_memory_bound() -> None:
    from vizapp.engine.fully_convolutional.convert import plan_conversion
    from vizapp.engine.fully_convolutional.tiles import dense_map

    torch.manual_seed(0)
    photo = torch.randn(1, 3, 700, 900)
    for build in (torchvision.models.alexnet, torchvision.models.resnet18, torchvision.models.mobilenet_v3_small):
        module = build(weights=None).eval().requires_grad_(False)
        made = plan_conversion(module, photo[:, :, :224, :224])
        for memory in (None, 600_000_000):
            maps = []
            for device in (torch.device("cpu"), CUDA):
                module, there = module.to(device), photo.to(device)
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                maps.append(
                    dense_map(
                        module,
                        made,
                        lambda top, left, bottom, right, there=there: there[:, :, top:bottom, left:right],
                        700,
                        900,
                        device,
                        memory=memory,
                    )
                )
                if memory is not None and device == CUDA:
                    assert torch.cuda.max_memory_allocated() - before < memory
            expected, found = maps[0].scores, maps[1].scores
            assert abs(found - expected).max() <= 1e-4 * abs(expected).max()


def test_free_memory_of_the_device_decides_the_chunk() -> None:
    free = free_memory(CUDA)
    assert 0 < free <= torch.cuda.mem_get_info(CUDA)[1]
    assert chunk_size(free, CUDA) == 1


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "googlenet", "convnext_tiny"])
def test_sweeps_are_those_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    module = torchvision.models.get_model(name, weights=None, **options).eval().double().requires_grad_(False)
    clean, patch = torch.randn(1, 3, 128, 128, dtype=torch.float64), torch.zeros(1, 3, 128, 128, dtype=torch.float64)
    boxes = [(top, left, top + 16, left + 16) for top in range(-8, 128, 24) for left in range(-8, 128, 24)]
    expected = Sweep(module, module, clean, patch, boxes).answer(range(len(boxes))).scores
    sweep = Sweep(module.to(CUDA), module, clean.to(CUDA), patch.to(CUDA), boxes)
    assert "Only what an occluder touches" in sweep.facts["evaluation"]
    torch.testing.assert_close(sweep.answer(range(len(boxes))).scores.cpu(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("precision", "most"), [("exact", 1e-5), ("tf32", 1e-2), ("bf16", 5e-2)])
def test_rounded_sweeps_state_their_error(precision: str, most: float) -> None:
    torch.manual_seed(0)
    module = torchvision.models.resnet18(weights=None).eval().requires_grad_(False).to(CUDA)
    clean, patch = torch.randn(1, 3, 128, 128, device=CUDA), torch.zeros(1, 3, 128, 128, device=CUDA)
    boxes = [(top, left, top + 16, left + 16) for top in range(-8, 128, 24) for left in range(-8, 128, 24)]
    sweep = Sweep(module, module, clean, patch, boxes, precision=precision)  # type: ignore[arg-type]
    places = range(len(boxes))
    error = (
        (sweep.answer(places).scores.float().softmax(1) - sweep.answer_by_whole_passes(places).scores.softmax(1))
        .abs()
        .max()
    )
    assert error <= most
    assert ("precision" in sweep.facts) == (precision != "exact")


def test_ideal_inputs_are_those_of_the_cpu() -> None:
    module = seeded(Branching()).double()
    sites = survey(module, torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    targets, canvas = [Target(Unit("cat", channel)) for channel in range(5)], ImageParam(3, 32, 32, jitter=2, turn=5)
    ascent = OptimizationConfig(steps=12, restarts=2, diversity=0.5)
    expected = maximize(module, lambda p: p, targets, sites, canvas, ascent, dtype=torch.float64)
    found = maximize(module.to(CUDA), lambda p: p, targets, sites, canvas, ascent, CUDA, torch.float64)
    torch.testing.assert_close(found.pictures.cpu(), expected.pictures, rtol=0, atol=1e-5)
