"""Passes under interventions against copies with zeroed weights, and against the same change written by hand."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, fx, nn
from torchvision.models import VisionTransformer

from tests.errors import refuses
from tests.networks import Aliasing, Branching, Choosing, seeded
from vizapp.engine.fully_convolutional.convert import plan_conversion
from vizapp.engine.fully_convolutional.forward import dense_scores
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.statistics.top_activations import TopKTracker
from vizapp.engine.tap import Tap
from vizapp.engine.trace.flow import gradients_at
from vizapp.engine.trace.interventions import Change, branches, intervene
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, Unit, survey

# A site of each network, and the layers whose rows of that channel silence it.
NETWORKS = {
    "alexnet": ("features.3", ["features.3"]),
    "vgg11": ("features.3", ["features.3"]),
    "resnet18": ("layer2.0.bn1", ["layer2.0.conv1", "layer2.0.bn1"]),
    "densenet121": (
        "features.denseblock2.denselayer3.norm2",
        ["features.denseblock2.denselayer3.conv1", "features.denseblock2.denselayer3.norm2"],
    ),
    "googlenet": ("inception4a.branch2.0.bn", ["inception4a.branch2.0.conv", "inception4a.branch2.0.bn"]),
    "mobilenet_v2": ("features.5.conv.0.1", ["features.5.conv.0.0", "features.5.conv.0.1"]),
    "transformer": ("encoder.layers.encoder_layer_1.mlp.0", ["encoder.layers.encoder_layer_1.mlp.0"]),
}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "transformer":
        module: nn.Module = VisionTransformer(64, 16, 2, 2, 32, 48, num_classes=7)
        nn.init.normal_(module.heads.head.weight)
    elif name in ("alexnet", "vgg11"):  # with small linear layers, which are most of their time
        with torch.device("meta"):
            whole = torchvision.models.get_model(name, weights=None, num_classes=7)
        module = Sequential(copy.deepcopy(whole.features), whole.avgpool)
        for part in module.features.to_empty(device="cpu"):
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
                nn.init.normal_(part.bias, std=0.1)
    else:
        more = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        module = torchvision.models.get_model(name, weights=None, num_classes=7, **more)
    return module.eval().requires_grad_(False)


class Sequential(nn.Module):
    """AlexNet and VGG, with fewer units in their linear layers."""

    def __init__(self, features: nn.Module, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.features, self.avgpool = features, pool
        inputs = [part for part in features if isinstance(part, nn.Conv2d)][-1].out_channels * pool.output_size[0] ** 2
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(inputs, 32), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(inplace=True),
            nn.Linear(32, 7),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class _Seen(Tap):
    """A tap that counts the functions that run under the name."""

    calls = 0

    def operate(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        output = super().operate(name, function, args, kwargs)
        self.calls += name in self._wanted
        return output


def site_of(module: nn.Module, name: str, x: Tensor) -> Site:
    """The site as a survey describes it, from one pass that ends there: its shape and the axis of its channels."""
    with torch.no_grad(), _Seen(module, {name}) as tap:
        module(x)
    shape = tuple(tap.kept[name].shape)[1:]
    if len(shape) == 2:
        return Site(name, "linear", (shape[1], 4, 4), "tokens", "linear", prefix_tokens=1, calls=tap.calls)
    return Site(name, "other", shape, "chw" if len(shape) == 3 else "vector", "", calls=tap.calls)


def zeroed(module: nn.Module, layers: list[str], channel: int) -> nn.Module:
    """A copy whose kernel rows, biases and norms of the channel are zero."""
    module = copy.deepcopy(module)
    for layer in layers:
        part = module.get_submodule(layer)
        part.weight[channel] = 0
        if part.bias is not None:
            part.bias[channel] = 0
    return module


def state_hash(module: nn.Module) -> str:
    answer = hashlib.sha256()
    for name, value in module.state_dict().items():
        answer.update(name.encode() + value.numpy().tobytes())
    return answer.hexdigest()


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("densenet121", "googlenet", "vgg11"))) for n in NETWORKS]
)
@torch.no_grad()
def test_silencing_equals_zeroed_weights_and_factor_one_changes_no_bit(name: str) -> None:
    module, x = built(name), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    site_name, layers = NETWORKS[name]
    site, before, clean = site_of(module, site_name, x), state_hash(module), module(x)
    maps = observe_raw(module, site_name, x)
    unit = int((maps.mean((0, 1)) if site.layout == "tokens" else maps.mean((0, 2, 3))).argmax())
    expected = zeroed(module, layers, unit)(x)
    silenced = intervene(module, [Change(site, (unit,), "scale", 0.0)])
    assert difference(silenced(x), expected) < 1e-6
    assert difference(expected, clean) > 1e-5
    assert torch.equal(intervene(module, [Change(site, None, "scale", 1.0)])(x), clean)
    frozen = intervene(module, [Change(site, None, "replace", observe_raw(module, site_name, x[:1]))])
    assert torch.equal(traced(frozen, x[:1]), traced(module, x[:1]))
    assert torch.equal(module(x), clean)
    assert state_hash(module) == state_hash(silenced) == before


def traced(module: nn.Module, x: Tensor) -> Tensor:
    """The answer under a trace, with which torch's attention takes the way of many operations also without a change."""
    with Tap(module, set(), stop=False):
        return module(x)


def observe_raw(module: nn.Module, name: str, x: Tensor) -> Tensor:
    with torch.no_grad(), Tap(module, {name}) as tap:
        module(x)
    return tap.kept[name]


@torch.no_grad()
def test_before_a_global_average_a_silenced_unit_takes_its_mean_times_its_weight_from_each_logit() -> None:
    module, x = built("resnet18"), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    site = site_of(module, "layer4.1.relu_1", x)
    maps = observe(module, x, [site])[site.name]
    unit = int(maps.mean((0, 2, 3)).argmax())
    change = intervene(module, [Change(site, (unit,), "scale", 0.0)])(x) - module(x)
    expected = -module.fc.weight[None, :, unit] * maps[:, unit].mean((1, 2))[:, None]
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------------------------- written by hand

SIZE = (1, 3, 32, 32)
NAMES = [
    "stem", "relu", "pool", "left", "relu_1", "right", "relu_2", "cat", "body", "add", "relu_3", "mean", "head",
]  # fmt: skip


def picture(count: int = 1) -> Tensor:
    return torch.randn(count, *SIZE[1:], generator=torch.Generator().manual_seed(3))


class Written(nn.Module):
    """`Branching` with a function at the site `relu_3`, which is in place and reused, or at another one."""

    def __init__(self, network: Branching, at: str, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.at, self.change = network, at, change

    def forward(self, x: Tensor) -> Tensor:
        net = self.network

        def site(name: str, value: Tensor) -> Tensor:
            return self.change(value) if name == self.at else value

        x = site("pool", net.pool(site("relu", F.relu(site("stem", net.stem(x))))))
        left = site("relu_1", F.relu(site("left", net.left(x))))
        right = site("relu_2", site("right", net.right(x)).relu())
        x = site("cat", torch.cat([left, right], 1))
        y = site("add", site("body", net.body(x)) + x)
        return site("head", net.head(site("mean", site("relu_3", F.relu(y)).mean([2, 3]))))


@pytest.fixture(scope="module")
def branching() -> Branching:
    return seeded(Branching())  # type: ignore[return-value]


@pytest.fixture(scope="module")
def sites(branching: Branching) -> dict[str, Site]:
    return {site.name: site for site in survey(branching, torch.zeros(SIZE))}


@pytest.mark.parametrize("name", NAMES)
def test_each_change_at_each_site_is_that_written_by_hand(
    name: str, branching: Branching, sites: dict[str, Site]
) -> None:
    """Functional, in place, reused: the answer, and the gradient by the pixels, of scale, then add, then replace."""
    site, x = sites[name], picture(2)
    axis = (slice(None), None, None) if site.is_map else slice(None)

    def change(value: Tensor) -> Tensor:
        factor, shift = torch.ones(site.channels), torch.zeros(site.channels)
        factor[[0, 2]], shift[[2, 3]] = 2.5, torch.tensor([-0.5, 0.25])
        changed = value * factor[axis] + shift[axis]
        return torch.cat([changed[:, :1], torch.full_like(changed[:, 1:2], 0.7) * 2, changed[:, 2:]], 1)

    changes = [
        Change(site, (0, 2), "scale", 2.5), Change(site, (2, 3), "add", torch.tensor([-0.5, 0.25])),
        Change(site, (1,), "replace", 0.7), Change(site, (1,), "scale", 2.0),
    ]  # fmt: skip
    results = []
    for module in (intervene(branching, changes), Written(branching, name, change)):
        given = x.clone().requires_grad_()
        answer = module(given)
        (gradient,) = torch.autograd.grad(answer.square().sum(), given) if answer.requires_grad else (None,)
        results.append((answer.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(results[0][0], branching(x), atol=1e-3)


class InPlace(nn.Module):
    """Rectifies in place, and gives back what was rectified by one name or the other."""

    def __init__(self, returns: str) -> None:
        super().__init__()
        self.conv, self.returns = nn.Conv2d(3, 4, 3), returns

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = x.relu_() if self.returns != "functional" else F.relu(x, inplace=True)
        return x if self.returns == "held" else x + y


@pytest.mark.parametrize("returns", ["held", "both", "functional"])
def test_what_an_operation_in_place_has_written_is_changed_for_all_who_hold_it(returns: str) -> None:
    module = seeded(InPlace(returns))
    name = "relu" if returns == "functional" else "relu_"
    (site,) = [site for site in survey(module, torch.zeros(SIZE)) if site.name == name]
    twin = intervene(module, [Change(site, (1,), "scale", 3.0)])
    x = picture(2).requires_grad_()
    changed = F.relu(module.conv(x)) * torch.tensor([1.0, 3, 1, 1])[:, None, None]
    expected = changed if returns == "held" else changed * 2
    found = twin(x)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(
        torch.autograd.grad((found * weight).sum(), x), torch.autograd.grad((expected * weight).sum(), x)
    )


def test_of_a_layer_that_runs_twice_only_the_named_call_changes(branching: Branching, sites: dict[str, Site]) -> None:
    x = picture()
    twin = intervene(branching, [Change(sites["relu_3"], None, "replace", 1.0)])
    kept = {}
    for name, module in (("clean", branching), ("changed", twin)):
        with torch.no_grad(), Tap(module, {"relu", "relu_3"}) as tap:
            module(x)
        kept[name] = tap.kept
    assert torch.equal(kept["clean"]["relu"], kept["changed"]["relu"])
    assert kept["changed"]["relu_3"].eq(1).all()


def test_a_module_with_the_name_of_a_second_call_keeps_its_name() -> None:
    module, x = seeded(Choosing()), picture()
    (site,) = [site for site in survey(module, torch.zeros(SIZE)) if site.name == "conv_1"]
    twin = intervene(module, [Change(site, (2,), "replace", 4.0)])
    assert float(twin(x)[0, 2]) == 4.0


class Attending(nn.Module):
    """A layer of torch that runs several functions in one call, of which the last gives its result."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 8, 8)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))


def test_a_layer_of_several_functions_is_changed_once_at_its_end() -> None:
    module, x = seeded(Attending()), picture(2)
    (site,) = [site for site in survey(module, torch.zeros(SIZE)) if site.name == "attention"]
    assert site.calls > 1
    tokens = module.patch(x).flatten(2).transpose(1, 2)
    attended = module.attention(tokens, tokens, tokens)[0] + torch.tensor([0, 0.5, 0, 0, 0, 0])
    found = intervene(module, [Change(site, (1,), "add", 0.5)])(x)
    torch.testing.assert_close(found, module.head(attended.mean(1)), rtol=1e-5, atol=1e-6)


def test_cells_of_maps_and_of_tokens_behind_special_ones_change_alone(
    sites: dict[str, Site], branching: Branching
) -> None:
    x = picture(2)
    twin = intervene(branching, [Change(sites["body"], (3, 5), "replace", torch.tensor([1.0, 2.0]), ((1, 2), (0, 0)))])
    found, clean = (observe_raw(module, "body", x) for module in (twin, branching))
    expected = clean.clone()
    expected[:, 3, [1, 0], [2, 0]], expected[:, 5, [1, 0], [2, 0]] = 1, 2
    assert torch.equal(found, expected)
    transformer, site_name = built("transformer"), NETWORKS["transformer"][0]
    x = torch.randn(2, 3, 64, 64)
    site = Site(site_name, "linear", (48, 4, 4), "tokens", "linear", prefix_tokens=1)
    twin = intervene(transformer, [Change(site, (3,), "replace", 9.0, ((2, 1),))])
    found, expected = (observe_raw(module, site_name, x) for module in (twin, transformer))
    expected[:, 1 + 2 * 4 + 1, 3] = 9
    assert torch.equal(found, expected)


# ------------------------------------------------------------------------------------------------ every other method


def test_every_name_stays_and_every_value_is_the_changed_one(branching: Branching, sites: dict[str, Site]) -> None:
    changes = [Change(sites[name], (1,), "add", 0.5) for name in ("relu", "body", "add", "relu_3", "mean")]
    twin = intervene(branching, changes)
    assert [site.name for site in survey(twin, torch.zeros(SIZE))] == list(sites)
    kinds = (type(branching), isinstance(twin, Branching), dict(twin.named_modules()).keys())
    assert kinds == (type(twin), True, dict(branching.named_modules()).keys())


def test_an_earlier_trace_of_a_twin_may_be_copied_and_changed_again(
    branching: Branching, sites: dict[str, Site]
) -> None:
    x = picture(2)
    once = intervene(branching, [Change(sites["body"], (1,), "add", 0.5)])
    twice = intervene(once, [Change(sites["body"], (1,), "scale", 0.0), Change(sites["pool"], (2,), "scale", 2.0)])
    both = intervene(branching, [Change(sites["body"], (1,), "scale", 0.0), Change(sites["pool"], (2,), "scale", 2.0)])
    assert torch.equal(twice(x), both(x))
    copied = copy.deepcopy(twice)
    copied.head.weight.mul_(0)
    assert torch.equal(twice(x), both(x))
    assert torch.equal(copied(x), branching.head.bias.expand(2, -1))


def test_graph_modules_and_forward_methods_of_an_instance(branching: Branching, sites: dict[str, Site]) -> None:
    x, change = picture(), Change(sites["body"], (1,), "add", 0.5)
    expected = intervene(branching, [change])(x)
    graph = fx.symbolic_trace(branching)
    twin = intervene(graph, [change])
    assert torch.equal(twin(x), expected)
    assert torch.equal(copy.deepcopy(twin)(x), expected)
    assert torch.equal(graph(x), branching(x))
    doubled = copy.deepcopy(branching)
    inner = doubled.forward
    doubled.forward = lambda x: inner(x) * 2  # type: ignore[method-assign]
    assert torch.equal(intervene(doubled, [change])(x), expected * 2)


def test_the_gradient_at_a_changed_site_is_that_by_the_value_that_goes_on(
    branching: Branching, sites: dict[str, Site]
) -> None:
    x = picture(2)
    for name in ("relu_3", "add", "cat"):
        twin = intervene(branching, [Change(sites[name], None, "scale", 3.0)])
        _, gradients = gradients_at(twin, x, lambda kept: kept["head"][:, 1].sum(), {name, "head"})
        with torch.enable_grad():
            value = (observe_raw(branching, name, x) * 3).requires_grad_()
            y = value
            if name == "cat":
                y = branching.body(value) + value
            y = y if name == "relu_3" else F.relu(y)
            (expected,) = torch.autograd.grad(branching.head(y.mean([2, 3]))[:, 1].sum(), value)
        torch.testing.assert_close(gradients[name], expected)


def many(name: str, channels: tuple[int, ...], module: nn.Module, x: Tensor) -> list[Change]:
    site = site_of(module, name, x)
    return [Change(site, channels[:1], "scale", 0.0), Change(site, channels[1:], "replace", 0.2)]


def test_windows_of_occluders_give_what_whole_passes_give() -> None:
    """A rectifier in place, a convolution and a linear layer of VGG-11: windows do not end at the changes."""
    module = built("vgg11")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    names = ("features.1", "features.6", "classifier.4")
    twin = intervene(module, [change for name in names for change in many(name, (0, 1, 2), module, x)])
    boxes = [(top, left, top + 12, left + 12) for top in range(-4, 64, 20) for left in range(-4, 64, 20)]
    sweeps = [Sweep(each, each, x, torch.zeros_like(x), boxes) for each in (twin, module)]
    places = list(range(len(boxes)))
    found, whole = sweeps[0].answer(places).scores, sweeps[0].answer_by_whole_passes(places).scores
    assert difference(found, whole) < 1e-5
    assert difference(whole, sweeps[1].answer(places).scores) > 1e-3
    assert sweeps[0].facts["evaluation"].partition(":")[0] == sweeps[1].facts["evaluation"].partition(":")[0]
    assert sweeps[0].bound == pytest.approx(sweeps[1].bound)


@pytest.mark.parametrize(
    "rule", ["deconvnet", *(pytest.param(r, marks=pytest.mark.slow) for r in ("guided", "gradient"))]
)
def test_projections_are_those_of_zeroed_weights(rule: str) -> None:
    module, x = built("vgg11"), torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    channels, sites = (0, 3, 7), survey(module, torch.zeros(1, 3, 64, 64))
    copied = module
    for channel in channels:
        copied = zeroed(copied, ["features.6"], channel)
    (site,) = [site for site in sites if site.name == "features.7"]  # the rectifier in place
    twin = intervene(module, [Change(site, channels, "scale", 0.0)])
    units = [Unit("features.13", channel) for channel in (2, 9)]
    found, expected, clean = (
        project(each, x, units, sites, rule_named(rule))[0].values for each in (twin, copied, module)
    )
    assert difference(found, expected) < 1e-5
    assert difference(found, clean) > 1e-3


def test_dense_maps_are_those_of_zeroed_weights() -> None:
    module = built("alexnet")
    x = torch.randn(1, 3, 64, 64)
    large = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    copied = zeroed(zeroed(module, ["features.8"], 3), ["classifier.4"], 5)
    changes = [
        Change(site_of(module, "features.9", x), (3,), "scale", 0.0),
        Change(site_of(module, "classifier.5", x), (5,), "scale", 0.0),
    ]
    twin = intervene(module, changes)
    found, expected, clean = (dense_scores(each, plan_conversion(each, x), large) for each in (twin, copied, module))
    assert found.shape == expected.shape
    assert difference(found, expected) < 1e-5
    assert not torch.allclose(found, clean, atol=1e-4)


def test_the_statistics_of_a_gallery_are_those_of_the_changed_units(
    branching: Branching, sites: dict[str, Site]
) -> None:
    chosen = [sites["relu_3"], sites["body"]]
    twin = intervene(branching, [Change(site, (1,), "replace", 3.0) for site in chosen])
    found = TopKTracker(chosen, 2).observe(twin, picture(4), 4)
    assert found.peaks[:, [1, 9]].eq(3).all()
    clean = TopKTracker(chosen, 2).observe(branching, picture(4), 4)
    assert torch.equal(found.peaks[:, [0, 2, 8, 10]], clean.peaks[:, [0, 2, 8, 10]])


# --------------------------------------------------------------------------------------------------------- and the rest


def test_threads_with_different_interventions_give_the_serial_answers(
    branching: Branching, sites: dict[str, Site]
) -> None:
    x, clean = picture(2), branching(picture(2))
    names = ["relu", "relu_1", "right", "cat", "body", "add", "relu_3", "mean"]
    twins = [intervene(branching, [Change(sites[name], (1,), "scale", 2.0)]) for name in names]
    serial = [twin(x) for twin in twins]

    def ask(number: int) -> Tensor:
        return [twins[number % 8](x) for _ in range(3)][-1]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(24)))
    assert all(torch.equal(answer, serial[number % 8]) for number, answer in enumerate(found))
    assert torch.equal(branching(x), clean)


def test_a_pass_without_the_site_and_an_input_of_another_size_are_refused(
    branching: Branching, sites: dict[str, Site]
) -> None:
    absent = Site("left_1", "convolution", (4, 9, 9), "chw", "conv2d")
    with refuses("layer-not-computed"):
        intervene(branching, [Change(absent, None, "scale", 0.0)])(picture())
    larger = torch.zeros(1, 3, 48, 48)
    intervene(branching, [Change(sites["body"], (1,), "scale", 0.0)])(larger)
    with refuses("other-cells"):
        intervene(branching, [Change(sites["body"], (1,), "scale", 0.0, ((0, 0),))])(larger)
    frozen: Any = observe_raw(branching, "body", picture())
    with refuses("other-cells"):
        intervene(branching, [Change(sites["body"], (1,), "replace", frozen)])(larger)


def test_a_trace_that_ends_the_pass_before_the_site_ends_it(branching: Branching, sites: dict[str, Site]) -> None:
    twin = intervene(branching, [Change(sites["mean"], (1,), "scale", 0.0)])
    assert torch.equal(observe_raw(twin, "pool", picture()), observe_raw(branching, "pool", picture()))


def test_branches_are_what_goes_into_additions_alone() -> None:
    resnet = branches(built("resnet18"), torch.zeros(1, 3, 64, 64))
    blocks = [f"layer{layer}.{block}" for layer in range(1, 5) for block in range(2)]
    shortcuts = {f"layer{layer}.0.downsample.1" for layer in (2, 3, 4)}
    assert set(resnet) == {f"{block}.bn2" for block in blocks} | shortcuts
    assert branches(seeded(Aliasing()), torch.zeros(SIZE)) == ()
