"""Preprocessing, scores, sites, and the user's own modules."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import get_model_weights

import vizapp
from tests.errors import refuses
from vizapp.engine.receptive_field.field import receptive_fields
from vizapp.engine.trace.sites import Footprint, Site
from vizapp.errors import VizError
from vizapp.zoo import network as network_module
from vizapp.zoo.preprocessing import Preprocessing


def photo(height: int, width: int) -> np.ndarray:
    rough = np.random.default_rng(height * width).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(300, 401), (500, 333), (64, 100), (256, 256)])
@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "mobilenet_v2", "efficientnet_b0", "regnet_y_400mf", "shufflenet_v2_x0_5"]
)
def test_prepare_equals_torchvisions_own_transforms_bit_for_bit(name: str, size: tuple[int, int]) -> None:
    pixels = photo(*size)
    network = vizapp.load(name, weights="none", device="cpu")
    theirs = get_model_weights(name).DEFAULT.transforms()(Image.fromarray(pixels))
    assert torch.equal(network.prepare(vizapp.open_picture(pixels))[0], theirs)


def test_seen_and_display_are_the_picture_before_normalisation() -> None:
    network = vizapp.load("squeezenet1_1", weights="none", device="cpu")
    picture = vizapp.open_picture(photo(300, 401))
    seen = network.seen(picture)
    assert seen.shape == (224, 224, 3)
    assert seen.dtype == np.uint8
    assert np.array_equal(network.display(network.prepare(picture)), seen)
    assert np.array_equal(network.display(network.prepare(picture)[0]), seen)
    assert network.batch(np.stack([seen, seen])).shape == (2, 3, 224, 224)


def test_grey_networks_see_luminance_as_pillow_computes_it() -> None:
    pixels = photo(32, 40)
    shape = Preprocessing(1, 32, 40, 32, "bilinear", (0.0,), (1.0,))
    grey = shape.normalize([pixels], torch.device("cpu"), torch.float32)[0, 0] * 255
    assert np.array_equal(grey.round().numpy().astype(np.uint8), np.asarray(Image.fromarray(pixels).convert("L")))
    shown = shape.denormalize(shape.normalize([pixels], torch.device("cpu"), torch.float32))
    assert shown.shape == (32, 40, 3)
    assert np.ptp(shown, axis=2).max() == 0


def test_a_resize_of_height_and_width_squeezes_the_whole_photo() -> None:
    pixels = photo(64, 128)
    squeezed = Preprocessing(3, 32, 32, (32, 32)).seen(pixels)
    assert np.array_equal(squeezed, np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("bad", [{"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}, {"height": 0}])
def test_impossible_preprocessing_is_answered_with_a_sentence(bad: dict[str, Any]) -> None:
    with pytest.raises(vizapp.VizError):
        Preprocessing(**{"channels": 3, "height": 8, "width": 8, "resize": 8} | bad)


def small(classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes)
    )


class Viewing(nn.Module):
    """Flattens by `view`, which channels-last feature maps do not bear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x.view(x.shape[0], -1)[:, :5]


def test_wrap_freezes_the_module_that_was_given() -> None:
    module = small()
    network = vizapp.wrap(module, input_size=(3, 16, 20))
    assert network.module is module
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())
    assert network.categories == ("class 0", "class 1", "class 2", "class 3")
    assert network.name == "Sequential"
    assert network.input_size == (3, 16, 20)
    assert [site.name for site in network.sites] == ["0", "1", "2", "3", "4"]
    assert network.scores(network.prepare(vizapp.open_picture(photo(64, 80)))).shape == (1, 4)


def test_wrap_leaves_the_layout_of_the_users_weights_alone() -> None:
    network = vizapp.wrap(Viewing(), input_size=(3, 8, 8))
    pictures = np.stack([photo(8, 8), photo(8, 8)])
    assert network.scores(network.batch(pictures)).shape == (2, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_wrap_keeps_the_precision_of_the_module(dtype: torch.dtype) -> None:
    network = vizapp.wrap(small().to(dtype), input_size=(3, 16, 16))
    assert network.scores(network.batch([photo(16, 16)])).dtype == dtype
    assert len(network.digest) == 64


def test_wrap_takes_modules_without_weights_and_grey_ones() -> None:
    pool = vizapp.wrap(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), input_size=(1, 8, 8), name="pool")
    assert (pool.name, pool.parameters, pool.preprocessing.mean) == ("pool", 0, (0.0,))
    assert pool.scores(pool.prepare(vizapp.open_picture(np.full((8, 8, 3), 255, np.uint8)))).tolist() == [[1.0] * 4]


def test_wrap_looks_into_data_parallel() -> None:
    module = small()
    assert vizapp.wrap(nn.DataParallel(module), input_size=(3, 16, 16)).module is module


class Quantised(nn.Module):
    """Stands for a layer of torch's quantised packages, which not every machine can run."""


Quantised.__module__ = "torch.ao.nn.quantized.modules.conv"


class Compiled(nn.Module):
    """Looks as what torch.compile returns."""

    def __init__(self) -> None:
        super().__init__()
        self._orig_mod = small()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: torch.jit.script(small()), "unsupported-module"),
        (lambda: torch.jit.trace(small().eval(), torch.zeros(1, 3, 16, 16)), "unsupported-module"),  # type: ignore[no-untyped-call]
        (Compiled, "unsupported-module"),
        (lambda: torch.compile(small()), "unsupported-module"),
        (lambda: nn.Sequential(Quantised()), "unsupported-module"),
        (lambda: small().to("meta"), "module-without-weights"),
        (lambda: "resnet50", "not-a-module"),
        (lambda: nn.Linear(7, 3), "bad-input-size"),
        (lambda: nn.Conv2d(1, 4, 3), "bad-input-size"),
    ],
)
def test_modules_that_cannot_be_looked_into_are_answered_with_a_sentence(make: Any, code: str) -> None:
    with refuses(code):
        vizapp.wrap(make(), input_size=(3, 16, 16))


@pytest.mark.parametrize(
    "options",
    [
        {"input_size": (224, 224)},
        {"input_size": (3, 0, 16)},
        {"categories": ["a"]},
        {"mean": (1, 2)},
        {"device": "tpu9"},
    ],
)
def test_wrong_options_of_wrap_are_answered_with_a_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(vizapp.VizError):
        vizapp.wrap(small(), **{"input_size": (3, 16, 16)} | options)


def test_gradients_flow_to_the_picture_and_not_to_the_weights() -> None:
    network = vizapp.wrap(small(), input_size=(3, 16, 16))
    batch = torch.rand(1, 3, 16, 16, requires_grad=True)
    network.scores(batch)[0, 1].backward()  # type: ignore[no-untyped-call]
    assert batch.grad is not None
    assert batch.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.module.parameters())


def test_sites_are_surveyed_once_even_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    surveys: list[int] = []

    def measured(module: nn.Module, batch: Tensor) -> tuple[tuple[Site, ...], Footprint]:
        surveys.append(1)
        return (Site("a", "other", (3,), "vector", "relu"),), Footprint(12, 12)

    monkeypatch.setattr(network_module, "measured", measured)
    network = vizapp.wrap(small(), input_size=(3, 16, 16))
    threads = [threading.Thread(target=lambda: network.sites) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert surveys == [1]


def test_receptive_fields_are_kept_for_the_own_size_and_computed_for_others() -> None:
    network = vizapp.load("squeezenet1_1", weights="none", device="cpu")
    known = receptive_fields(network.module, torch.zeros(1, *network.input_size))
    for site in network.sites:
        kept = network.receptive_field(site, *network.input_size[1:])
        assert kept is site.receptive_field
        for a, b in ((kept.rows, known[site.name].rows), (kept.columns, known[site.name].columns)):
            assert (a.axis, a.start, a.size, a.step) == (b.axis, b.start, b.size, b.step)
            assert (a.low == b.low).all()
            assert (a.high == b.high).all()
    last = network.site("features.12")
    assert last.shape[1:] == (13, 13)
    assert len(network.receptive_field(last, 96, 128).columns.low) == 7


def test_an_unknown_site_is_answered_with_the_nearest_names() -> None:
    network = vizapp.load("squeezenet1_1", weights="none", device="cpu")
    assert network.site("features.0").shape == (64, 111, 111)
    with refuses("no-such-layer", "Did you mean features.1"):
        network.site("feature.1")


def test_the_digest_tells_weights_structures_and_preprocessing_apart() -> None:
    changed = small()
    with torch.no_grad():
        changed[0].weight[0, 0, 0, 0] += 1  # type: ignore[index, operator]
    strided = small()
    strided[0].stride = (2, 2)  # type: ignore[assignment]
    networks = [vizapp.wrap(module, (3, 16, 16)) for module in (small(), small(), changed, strided)]
    networks.append(vizapp.wrap(small(), (3, 16, 16), mean=0.0))
    digests = [network.digest for network in networks]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v2"])
def test_channels_last_changes_scores_by_rounding_only(name: str) -> None:
    network = vizapp.load(name, weights="none", device="cpu")
    batch = network.batch([photo(64, 64)])
    assert batch.is_contiguous(memory_format=torch.channels_last)
    scores = network.scores(batch)
    network.module.to(memory_format=torch.contiguous_format)
    # sums of a few thousand products in another order: a few units in the last of 24 bits
    torch.testing.assert_close(scores, network.scores(batch.contiguous()), rtol=1e-4, atol=1e-5)


def _scaled(forward, **attributes):  # type: ignore[no-untyped-def]
    """A network of a class that prints the same for every `forward` and all attributes."""
    kind = type("Scaled", (torch.nn.Module,), {"forward": forward, "__module__": "__main__"})
    module = kind()
    module.conv = torch.nn.Conv2d(3, 2, 1, bias=False)
    torch.nn.init.ones_(module.conv.weight)
    vars(module).update(attributes)
    return vizapp.wrap(module, input_size=(3, 4, 4))


def test_another_forward_or_attribute_is_another_network() -> None:
    """As after an edit in a notebook: name, structure and weights are the same, the numbers are not."""
    networks = [
        _scaled(lambda self, x: self.conv(x) * 2), _scaled(lambda self, x: self.conv(x) * 3),
        _scaled(lambda self, x: self.conv(x).abs() * 2), _scaled(lambda self, x, gain=2: self.conv(x) * gain),
        _scaled(lambda self, x, gain=3: self.conv(x) * gain), _scaled(lambda self, x: self.conv(x) * self.gain, gain=2.0),
        _scaled(lambda self, x: self.conv(x) * self.gain, gain=3.0),
        _scaled(lambda self, x: self.conv(x) * self.gains[1], gains=(1, 2)),
        _scaled(lambda self, x: self.conv(x) * self.gains[1], gains=(1, 3)),
    ]  # fmt: skip
    assert len({repr(network.module) for network in networks}) == 1
    assert len({network.digest for network in networks}) == len(networks)
    again = _scaled(lambda self, x: self.conv(x) * self.gain, gain=3.0, other=object())
    assert again.digest == _scaled(lambda self, x: self.conv(x) * self.gain, gain=3.0, other=object()).digest


def test_a_module_that_refuses_evaluation_mode_is_refused_and_not_changed() -> None:
    class Stays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(self.norm(x)).mean((2, 3))

        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            self.norm.train(True)
            return self

    module = Stays()
    module.drop.eval()
    statistics = module.norm.running_mean.clone()
    with pytest.raises(VizError) as error:
        vizapp.wrap(module, input_size=(3, 16, 16))
    assert error.value.code == "stays-in-training-mode"
    assert (module.training, module.norm.training, module.drop.training) == (True, True, False)
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(module.norm.running_mean, statistics)
