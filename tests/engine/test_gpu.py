"""On a GPU the engine gives what it gives on the CPU. `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

import pytest
import torch
import torchvision

from tests.networks import Branching, seeded
from vizapp.engine.chunks import chunk_size, free_memory
from vizapp.engine.observe import observe
from vizapp.engine.project import project
from vizapp.engine.rules import Rule
from vizapp.engine.sites import Unit, survey

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
        rule = Rule(method)  # type: ignore[arg-type]
        (expected,) = project(module, picture, units, sites, rule, seed="one")
        (found,) = project(module.to(CUDA), picture.to(CUDA), units, sites, rule, seed="one")
        torch.testing.assert_close(found.values.cpu(), expected.values, rtol=1e-8, atol=1e-12)


def test_free_memory_of_the_device_decides_the_chunk() -> None:
    free = free_memory(CUDA)
    assert 0 < free <= torch.cuda.mem_get_info(CUDA)[1]
    assert chunk_size(free, CUDA) == 1
