"""The tap sees every operation under torchvision's names and does not change the network."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import get_graph_node_names

from tests.networks import Aliasing, Branching, Breaking, Choosing, seeded
from vizapp.engine.tap import Tap, Trace
from vizapp.engine.trace.sites import survey

SAME_AS_FX = [
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "googlenet", "densenet121", "inception_v3", "squeezenet1_1",
    "mnasnet0_5",
]  # fmt: skip
FINER_THAN_FX = ["shufflenet_v2_x0_5"]


def network(name: str) -> nn.Module:
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None, **options).eval().requires_grad_(False)


def fx_names(module: nn.Module) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_graph_node_names(module)[1]


@pytest.mark.parametrize("name", SAME_AS_FX)
def test_site_names_are_torchvisions_node_names_in_the_same_order(name: str) -> None:
    module = network(name)
    names = [site.name for site in survey(module, torch.rand(1, 3, 96, 96))]
    assert names == [node for node in fx_names(module) if node != "x"]


@pytest.mark.parametrize("name", FINER_THAN_FX)
def test_nodes_that_are_no_activation_are_left_out(name: str) -> None:
    module = network(name)
    names, nodes = [site.name for site in survey(module, torch.rand(1, 3, 64, 64))], fx_names(module)
    assert set(names) <= set(nodes)
    left_out = {node.split(".")[-1].split("_")[0] for node in set(nodes) - set(names)}
    assert left_out <= {"x", "size", "getitem", "floordiv", "view", "transpose", "chunk", "getattr", "contiguous"}


def test_names_of_functions_methods_and_operators() -> None:
    names = [site.name for site in survey(seeded(Branching()), torch.rand(1, 3, 32, 32))]
    assert names == [
        "stem", "relu", "pool", "left", "relu_1", "right", "relu_2", "cat", "body", "add", "relu_3", "mean", "head",
    ]  # fmt: skip
    # fx counts the module `relu` and the function `relu` at the root together, too.
    assert names == [node for node in fx_names(Branching()) if node != "x"]


def test_a_module_named_like_a_second_call_keeps_its_own_site() -> None:
    names = [site.name for site in survey(seeded(Choosing()), torch.rand(1, 3, 16, 16))]
    assert "conv" in names
    assert "conv_1" in names
    assert len(names) == len(set(names))


def test_a_reused_module_gives_one_site_per_call() -> None:
    module = network("resnet50")
    sites = {site.name: site.shape[0] for site in survey(module, torch.rand(1, 3, 64, 64))}
    assert [sites[f"layer4.2.relu{end}"] for end in ("", "_1", "_2")] == [512, 512, 2048]


def test_an_in_place_relu_cannot_rewrite_what_was_kept() -> None:
    module, batch = network("squeezenet1_1"), torch.randn(1, 3, 64, 64)
    with torch.no_grad(), Tap(module, {"features.0", "features.1"}) as tap:
        module(batch)
    before, after = tap.kept["features.0"], tap.kept["features.1"]
    assert before.min() < 0
    assert torch.equal(before, module.features[0](batch))
    assert torch.equal(after, before.clamp(min=0))


def test_the_output_is_that_of_the_plain_network() -> None:
    for module in (seeded(Aliasing()), seeded(Branching()), network("resnet18"), network("googlenet")):
        batch = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            plain = module(batch)
            with Tap(module, {"no such site"}, stop=False):
                tapped = module(batch)
        assert torch.equal(plain, tapped)


def test_the_pass_ends_above_the_last_wanted_site() -> None:
    ran: list[str] = []

    class Spy(Tap):
        def operate(self, name, function, args, kwargs):  # type: ignore[no-untyped-def]
            output = super().operate(name, function, args, kwargs)
            ran.append(name)
            return output

    module, batch = seeded(Branching()), torch.rand(1, 3, 32, 32)
    with torch.no_grad(), Spy(module, {"stem", "left"}) as tap:
        module(batch)
    assert ran == ["stem", "relu", "pool", "left"]
    assert tap.kept.keys() == {"stem", "left"}


def test_gradients_flow_through_what_was_kept() -> None:
    module, batch = seeded(Branching()), torch.rand(1, 3, 32, 32, requires_grad=True)
    with Tap(module, {"cat"}) as tap:
        module(batch)
    (gradient,) = torch.autograd.grad(tap.kept["cat"].sum(), batch)
    assert gradient.abs().sum() > 0


def trail(module: nn.Module) -> tuple[object, ...]:
    """Everything that a careless interceptor leaves on a module."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    parts = tuple((len(getattr(m, hook)), m.training) for m in module.modules() for hook in hooks)
    state = tuple((k, v._version, v.requires_grad) for k, v in module.state_dict(keep_vars=True).items())
    own = tuple(tuple(vars(m)) for m in module.modules())
    return parts, state, own, torch.overrides._get_current_function_mode_stack(), torch.is_grad_enabled()


class Leave(BaseException):
    """What Streamlit raises to stop a script is a BaseException, too."""


def test_nothing_is_left_behind_after_success_failure_and_leaving() -> None:
    fine, broken = seeded(Branching()), seeded(Breaking())
    before = trail(fine), trail(broken)
    tap = Tap(fine, {"pool"})
    with torch.no_grad(), tap:
        fine(torch.rand(1, 3, 32, 32))
    assert tap._call is None
    with pytest.raises(ValueError, match="on purpose"), torch.no_grad(), Tap(broken, {"relu"}):
        broken(torch.rand(1, 3, 32, 32))

    class Leaving(Trace):
        def operate(self, name, function, args, kwargs):  # type: ignore[no-untyped-def]
            if name == "pool":
                raise Leave
            return function(*args, **kwargs)

    with pytest.raises(Leave), torch.no_grad(), Leaving(fine):
        fine(torch.rand(1, 3, 32, 32))
    assert (trail(fine), trail(broken)) == before


def test_threads_that_share_a_network_get_the_serial_answers() -> None:
    module = network("googlenet")
    batches = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    wanted = [{"inception3a.cat"}, {"maxpool2"}, {"inception4a.branch2.1.relu", "fc"}] * 2

    def look(i: int) -> dict[str, torch.Tensor]:
        with torch.no_grad(), Tap(module, wanted[i]) as tap:
            module(batches[i])
        return tap.kept

    serial = [look(i) for i in range(6)]
    parallel: list[dict[str, torch.Tensor]] = [{} for _ in range(6)]

    def work(i: int) -> None:
        for _ in range(3):
            parallel[i] = look(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for alone, together in zip(serial, parallel, strict=True):
        assert alone.keys() == together.keys()
        assert all(torch.equal(alone[name], together[name]) for name in alone)


def test_what_a_pass_that_was_ended_held_is_free_at_once() -> None:
    """Not when Python next looks for cycles: until then every pass would take as much again."""
    import gc

    from vizapp.engine.layers.kernels import kernels_of
    from vizapp.engine.projection.rules import Deconvnet
    from vizapp.engine.trace.observe import observe
    from vizapp.engine.trace.recording import record
    from vizapp.engine.trace.sites import survey

    module = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU())
    batch = torch.zeros(1, 3, 64, 64)
    sites = [site for site in survey(module, batch) if site.name == "2"]

    def large() -> int:
        return sum(type(thing) is torch.Tensor and thing.numel() >= 32 * 60 * 60 for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = large()
        for _ in range(3):
            observe(module, batch, sites)
            record(module, batch, {"2"}, Deconvnet())
            kernels_of(module, batch, "2")
        assert large() == before
    finally:
        gc.enable()
