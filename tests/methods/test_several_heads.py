"""Every method answers for the head that was chosen, as the bare module's own tuple has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import vizapp
from tests.errors import refuses
from tests.networks import seeded
from vizapp.engine.occlusion.fused_convolutions import FusedConvolution
from vizapp.gallery import open_gallery
from vizapp.media.picture import open_picture
from vizapp.methods.base import Question
from vizapp.methods.occlusion.method import OcclusionParams
from vizapp.methods.occlusion.sweep import Occlusion
from vizapp.zoo.network import Network

PHOTO = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
HEADS = ("output", "auxiliary after 1", "auxiliary after 2")
CLASSES = 6


class Supervised(nn.Module):
    """Three stages, of which the first two have an auxiliary head; all have the same classes."""

    head_names = HEADS

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()) for inputs in (3, 8, 8)
        )
        self.aside = nn.ModuleList(
            nn.Sequential(
                nn.AvgPool2d(4), nn.Flatten(), nn.Linear(8 * side * side, 12), nn.ReLU(), nn.Linear(12, CLASSES)
            )
            for side in (7, 3)
        )
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = []
        for stage, aside in zip(self.stages, (*self.aside, None), strict=True):
            x = stage(x)
            if aside is not None:
                found.append(aside(x))
        return (self.last(x.mean((2, 3))), *found)


@pytest.fixture(scope="module")
def network() -> Network:
    module = seeded(Supervised())
    network = vizapp.wrap(module, (3, 64, 64))
    with torch.no_grad():
        for layer, scores in zip(
            (module.last, *(aside[-1] for aside in module.aside)), module(network.prepare(PHOTO)), strict=True
        ):
            layer.weight *= 2 / (scores - layer.bias).std()  # so that the classes differ
            layer.bias.zero_()
    return network


def chosen(network: Network, head: str, way: str, class_: int = 2) -> tuple[Network, vizapp.Unit]:
    """What to ask: the network with that head, or the network as it is with a unit of that head."""
    if way == "unit":
        return network, vizapp.class_unit(network, class_, head=head)
    other = network.with_output(head)
    return other, vizapp.class_unit(other, class_)


def bare(network: Network, head: str, pixels: Any) -> Tensor:
    """The module's own scores `[N classes]` of crops."""
    with torch.no_grad():
        return network.module(network.batch(pixels))[HEADS.index(head)]


each = pytest.mark.parametrize("head", HEADS)
both = pytest.mark.parametrize("way", ["output", "unit"])


@each
def test_predict(network: Network, head: str) -> None:
    result = vizapp.ask("predict", network.with_output(head), PHOTO)
    np.testing.assert_allclose(result.arrays["logits"], bare(network, head, [PHOTO])[0], rtol=1e-5)
    assert f"'{head}', one of 3 outputs" in result.facts["output"]
    chances = [bare(network, one, [PHOTO])[0].softmax(0) for one in HEADS]
    assert result.arrays["heads"].tolist() == list(HEADS)
    assert result.arrays["head_classes"].tolist() == [int(chance.argmax()) for chance in chances]
    np.testing.assert_allclose(result.arrays["head_probabilities"], [chance.max() for chance in chances], rtol=1e-5)


@each
@both
def test_gradient_methods(network: Network, head: str, way: str) -> None:
    asked, unit = chosen(network, head, way)
    x = network.prepare(PHOTO).requires_grad_()
    score = network.module(x)[HEADS.index(head)][0, 2]
    (gradient,) = torch.autograd.grad(score, x)
    score = score.detach()
    for method, more in (("projection", {"seed": "one"}), ("sanity", {})):
        result = vizapp.ask(method, asked, PHOTO, unit=unit, rule="gradient", **more)
        np.testing.assert_allclose(result.arrays["projection"], gradient[0].movedim(0, 2), rtol=1e-3, atol=1e-6)
        if method == "projection":
            assert float(result.arrays["activation"]) == pytest.approx(float(score), rel=1e-5)
            assert "class class 2" in result.facts["unit"]
    summed = vizapp.ask("attribution", asked, PHOTO, unit=unit, kind="integrated_gradients", steps=200)
    rise = float(score) - float(network.module(torch.zeros_like(x))[HEADS.index(head)][0, 2])
    assert float(summed.arrays["attribution"].sum()) == pytest.approx(rise, rel=0.02)
    ideal = vizapp.ask("ideal", asked, unit=unit, steps=2)
    assert ideal.facts["unit"].endswith("maximized: its class score")


@each
@both
def test_cams(network: Network, head: str, way: str) -> None:
    asked, unit = chosen(network, head, way)
    site = ("stages.2.3", "aside.0.0", "aside.1.0")[HEADS.index(head)]
    kept: list[Tensor] = []
    handle = network.module.get_submodule(site).register_forward_hook(lambda *args: kept.append(args[2]))
    x = network.prepare(PHOTO).requires_grad_()
    score = network.module(x)[HEADS.index(head)][0, 2]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    maps = kept[0].detach()

    def heat(weights: Tensor) -> Tensor:
        return nn.functional.interpolate((weights * maps).sum(1, True).relu(), (64, 64), mode="bilinear")[0, 0]

    grad_cam = vizapp.ask("attribution", asked, PHOTO, unit=unit, kind="gradcam")
    assert grad_cam.facts["layer"] == site
    np.testing.assert_allclose(grad_cam.arrays["attribution"], heat(gradient.mean((2, 3), True)), rtol=1e-3, atol=1e-6)
    score_cam = vizapp.ask("attribution", asked, PHOTO, unit=unit, kind="scorecam")
    masks = nn.functional.interpolate(maps, (64, 64), mode="bilinear")[0]
    low, high = masks.amin((1, 2), True), masks.amax((1, 2), True)
    with torch.no_grad():
        masked = network.module(x * ((masks - low) / (high - low).clamp_min(1e-9))[:, None])[HEADS.index(head)][:, 2]
    weights = torch.where(high.flatten() > low.flatten(), masked, -torch.inf).softmax(0)
    np.testing.assert_allclose(
        score_cam.arrays["attribution"], heat(weights[None, :, None, None]), rtol=1e-3, atol=1e-6
    )


class Counted(TorchFunctionMode):
    """Counts the convolutions with a bias, torch's and fused ones."""

    def __init__(self, bias: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.bias, self.count = bias, 0
        run = FusedConvolution.__call__

        def counted(*args: Any, **kwargs: Any) -> Tensor:
            self.count += args[3] is self.bias
            return run(*args, **kwargs)

        monkeypatch.setattr(FusedConvolution, "__call__", counted)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") == "conv2d" and args[2] is self.bias
        return func(*args, **(kwargs or {}))


@each
@both
def test_occlusion_computes_nothing_behind_the_head(
    network: Network, head: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, unit = chosen(network, head, way)
    question = Question(asked.about(unit), open_picture(PHOTO), unit=unit)
    work = Occlusion(question, OcclusionParams(window=16, stride=16, fill="black"))
    assert "Only what an occluder touches" in str(work.sweep.facts)
    counted = Counted(network.module.stages[2][0].bias, monkeypatch)
    with counted:
        for _ in work.run():
            pass
    assert (counted.count > 0) == (head == "output")
    assert work.site is not None
    assert work.site.name == f"stages.{(2, 0, 1)[HEADS.index(head)]}.3"
    swept = vizapp.ask("occlusion", asked, PHOTO, unit=unit, window=16, stride=16, fill="black").arrays
    np.testing.assert_array_equal(swept["logit"], work.maps()["logit"])
    hidden = []
    for top, left, bottom, right in swept["positions"].reshape(-1, 4).clip(0, 64):
        hidden.append(PHOTO.copy())
        hidden[-1][top:bottom, left:right] = 0
    np.testing.assert_allclose(swept["logits"].reshape(-1, CLASSES), bare(network, head, hidden), rtol=1e-4, atol=1e-5)


@each
def test_dense_and_transform(network: Network, head: str) -> None:
    asked = network.with_output(head)
    dense = vizapp.ask("dense", asked, PHOTO, zoom=1.5, check=4)
    assert len(dense.arrays["difference"]) == 4
    assert dense.arrays["difference"].max() < 1e-3
    crop = vizapp.ask("dense", asked, PHOTO, input="crop")
    np.testing.assert_allclose(crop.arrays["prediction"], bare(network, head, [PHOTO])[0], rtol=1e-4, atol=1e-5)
    turned = vizapp.ask("transform", asked, PHOTO, kind="rotate", amounts=[0.0, 90.0]).arrays
    clean = bare(network, head, [PHOTO])[0].softmax(0)
    np.testing.assert_allclose(turned["probability"][0], clean, rtol=1e-4, atol=1e-6)
    assert np.abs(turned["probability"][1] - clean.numpy()).max() > 1e-3


@each
@both
def test_knockout(network: Network, head: str, way: str) -> None:
    asked, unit = chosen(network, head, way)
    result = vizapp.ask("knockout", asked, PHOTO, unit=unit)
    layer = network.module.stages[(2, 0, 1)[HEADS.index(head)]][3]
    clean = bare(network, head, [PHOTO])[0, 2]
    for channel in (1, 5):
        handle = layer.register_forward_hook(
            lambda module, args, out, channel=channel: out * (torch.arange(8) != channel)[:, None, None]
        )
        change = bare(network, head, [PHOTO])[0, 2] - clean
        handle.remove()
        assert result.arrays["logit_change"][channel] == pytest.approx(float(change), rel=1e-3, abs=1e-5)
    assert int(result.arrays["class"]) == 2


@each
def test_folders(network: Network, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    asked, photos = network.with_output(head), []
    for number in range(6):
        photos.append(np.random.default_rng(number).integers(0, 60 + 30 * number, (64, 64, 3), np.uint8))
        place = tmp_path / "photos" / f"class {number % 3}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photos[-1]).save(place)
    logits = bare(network, head, photos)
    right = logits.argmax(1) == torch.arange(6) % 3
    found = vizapp.ask("evaluate", asked, folder=tmp_path / "photos", workers=0)
    assert found.arrays["top1"] == pytest.approx(1 - float(right.float().mean()))
    built = vizapp.ask("gallery", asked, folder=tmp_path / "photos", workers=0, top=1)
    assert built.store is not None
    rows = open_gallery(built.store).rows(asked.class_site.name, 2)
    assert rows["activation"].iloc[0] == pytest.approx(float(logits[:, 2].max()), rel=1e-4)


def test_a_network_with_another_head_is_the_same_network(network: Network) -> None:
    early = network.with_output("1")
    assert early.head.name == HEADS[1], "a key names it, too"
    assert early.module is network.module
    assert network.with_output("1") is early
    assert len({network.digest, early.digest, network.with_output(HEADS[2]).digest}) == 3
    assert early.sites is network.sites
    fresh = vizapp.wrap(network.module, (3, 64, 64), output="1")
    assert fresh.digest == early.digest
    assert early.last_feature_map().name == "stages.0.3"
    assert early.last_hidden_layer().name == "aside.0.3"
    assert network.last_hidden_layer().name == "mean", "not the hidden layer of an auxiliary head"
    silenced = vizapp.zoo.interventions.under(network, [vizapp.Intervention("stages.0.3", None, "scale", 0.0)])
    other = silenced.with_output(HEADS[1])
    assert len({silenced.digest, other.digest, early.digest}) == 3
    changed = vizapp.ask("predict", other, PHOTO).arrays["logits"]
    with torch.no_grad():
        expected = network.module.aside[0](torch.zeros(1, 8, 29, 29))[0]
    np.testing.assert_allclose(changed, expected, rtol=1e-5)


def test_heads_that_are_not_there(network: Network) -> None:
    with refuses("no-such-output", "'output', 'auxiliary after 1', 'auxiliary after 2'"):
        vizapp.class_unit(network, 2, head="auxiliary after 3")
    alone = vizapp.wrap(
        seeded(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())), (3, 16, 16)
    )
    with refuses("no-such-output", "it has one output"):
        alone.with_output("auxiliary")


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("googlenet-2014-auxiliary", ("output", "auxiliary after 4a", "auxiliary after 4d")),
        ("deeply-supervised-companions-cifar", ("output", "companion 1", "companion 2", "companion 3")),
    ],
)
def test_the_classics_name_their_heads(name: str, heads: tuple[str, ...]) -> None:
    network = vizapp.load(name, weights="none", device="cpu", classes=5)
    assert tuple(head.name for head in network.answers) == heads
    with torch.no_grad():
        expected = network.module(network.prepare(PHOTO))
    arrays = vizapp.ask("predict", network, PHOTO).arrays
    assert arrays["heads"].tolist() == list(heads)
    assert arrays["head_classes"].tolist() == [int(scores.argmax()) for scores in expected]
    if name.startswith("deeply"):
        assert network.last_hidden_layer() is None, "vectors are in the companions alone"
    last = network.with_output(heads[-1])
    np.testing.assert_allclose(vizapp.ask("predict", last, PHOTO).arrays["logits"], expected[-1][0], rtol=1e-4)


class TwoHeads(nn.Module):
    """Two linear heads on a mean, returned as a function of these three says."""

    def __init__(self, returned: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.a, self.b, self.returned = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), nn.Linear(8, 5), returned

    def forward(self, x: Tensor) -> Any:
        mean = self.first(x).relu().mean((2, 3))
        return self.returned(mean, self.a(mean), self.b(mean))


@pytest.mark.parametrize(
    ("returned", "heads"),
    [
        (lambda mean, a, b: {"fused": (a + b) / 2, "first": a, "second": b}, {"fused", "first", "second"}),
        (lambda mean, a, b: (a, b, a + 0), {"0", "1", "2"}),
        (lambda mean, a, b: (a, a.softmax(1)), {"0"}),
        (lambda mean, a, b: (a, mean), {"0"}),
    ],
    ids=["averaged", "read by another", "probabilities", "features"],
)
def test_heads_that_others_are_made_of_answer_and_features_and_probabilities_do_not(
    returned: Any, heads: set[str]
) -> None:
    network = vizapp.wrap(seeded(TwoHeads(returned)), (3, 16, 16))
    assert {head.name for head in network.answers} == heads
