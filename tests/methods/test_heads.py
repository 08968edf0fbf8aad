"""All methods mean the same output of a network, and its probabilities are those that the network means."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizapp
from tests.errors import refuses
from tests.networks import seeded
from vizapp.__main__ import main
from vizapp.methods.gallery import chosen_sites
from vizapp.zoo.network import Network

PHOTO = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.animal, self.colour = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 10), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.stem(x)).mean((2, 3))
        return self.animal(x), self.colour(x)


class Squashed(nn.Module):
    def __init__(self, squash: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.fc, self.squash = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 5), squash

    def forward(self, x: Tensor) -> Tensor:
        return self.squash(self.fc(torch.relu(self.stem(x)).mean((2, 3))))


SINGLE = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))


def wrapped(module: nn.Module, **options: Any) -> Network:
    return vizapp.wrap(seeded(module), input_size=(3, 32, 32), **options)


@pytest.mark.parametrize("output", [None, "0", "animal", "1", "colour"])
def test_one_head_in_every_method(output: str | None) -> None:
    network = wrapped(TwoHeads(), output=output)
    index = 1 if output in ("1", "colour") else 0
    with torch.no_grad():
        logits = network.module(network.prepare(PHOTO))[index][0]
    predicted = vizapp.ask("predict", network, PHOTO)
    np.testing.assert_allclose(predicted.arrays["logits"], logits, rtol=1e-5)
    assert "one of 2 outputs" in predicted.facts["output"]
    best = int(logits.argmax())
    unit = vizapp.class_unit(network, best)
    assert unit.site == ("animal", "colour")[index]
    projected = vizapp.ask("projection", network, PHOTO, unit=unit)
    assert float(projected.arrays["activation"]) == pytest.approx(float(logits.max()), rel=1e-5)
    swept = vizapp.ask("occlusion", network, PHOTO, unit=unit, window=8, stride=16)
    assert float(swept.arrays["clean_logit"]) == pytest.approx(float(logits.max()), rel=1e-5)
    dense = vizapp.ask("dense", network, PHOTO, input="crop")
    np.testing.assert_allclose(dense.arrays["prediction"], logits, rtol=1e-4, atol=1e-6)
    assert network.class_names(network.site(unit.site)) == network.categories
    assert network.class_names(network.site(("colour", "animal")[index])) == ()
    assert chosen_sites(network, ())[-1].name == unit.site
    assert vizapp.wrap(network.module, (3, 32, 32)).digest != network.digest or output is None


def test_the_head_with_a_score_per_category_is_the_default() -> None:
    module = TwoHeads()
    module.colour = nn.Linear(8, 3)
    assert wrapped(module).head.name == "0"
    network = wrapped(module, categories=["red", "green", "blue"])
    assert network.head.name == "1"
    assert vizapp.class_unit(network, "blue") == vizapp.Unit("colour", 2)
    with refuses("class-count-mismatch"):
        wrapped(module, categories=["red", "green", "blue"], output="animal")


def test_an_output_that_is_not_there_is_refused_with_those_that_are() -> None:
    with refuses("no-such-output", "'0', '1'"):
        wrapped(TwoHeads(), output="shape")
    with refuses("bad-probabilities"):
        wrapped(TwoHeads(), probabilities="argmax")
    with refuses("no-class-scores"):
        wrapped(nn.Conv2d(3, 4, 3), output="0")


def test_one_logit_is_told_by_its_sigmoid() -> None:
    network = wrapped(SINGLE, categories=["sick"])
    with torch.no_grad():
        logit = float(network.module(network.prepare(PHOTO)))
    right = 1 / (1 + np.exp(-logit))
    predicted = vizapp.ask("predict", network, PHOTO)
    assert predicted.arrays["probabilities"] == pytest.approx(right, rel=1e-5)
    said = "yes" if right > 0.5 else "no"
    assert predicted.facts["answer"] == f"sick: {said} (probability {100 * right:.1f} %)"
    swept = vizapp.ask("occlusion", network, PHOTO, window=8, stride=8)
    logits = swept.arrays["logit"].astype(float)
    np.testing.assert_allclose(swept.arrays["probability"], 1 / (1 + np.exp(-logits)), rtol=1e-5)
    np.testing.assert_allclose(swept.arrays["probabilities"][..., 0], swept.arrays["probability"], rtol=1e-5)
    assert np.ptp(logits) > 0
    assert float(swept.arrays["clean_probability"]) == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize(
    "squash",
    [
        lambda x: (20 * x).softmax(1),
        lambda x: (20 * x).softmax(1).clamp(min=1e-4),
        lambda x: (20 * x).softmax(1).flip(1)[:, :3],
        lambda x: torch.sigmoid(20 * x),
        lambda x: 1 - 1 / (1 + torch.exp(20 * x)),
        lambda x: (20 * x).log_softmax(1).exp(),
    ],
)
def test_probabilities_of_the_network_stay_as_they_are(squash: Callable[[Tensor], Tensor]) -> None:
    network = wrapped(Squashed(squash))
    with torch.no_grad():
        right = network.module(network.prepare(PHOTO))[0].numpy()
    for crops in ("one", "ten"):
        predicted = vizapp.ask("predict", network, PHOTO, crops=crops).arrays["probabilities"]
        if crops == "one":
            np.testing.assert_allclose(predicted, right, rtol=1e-4)
    unit = vizapp.class_unit(network, int(right.argmax()))
    assert float(vizapp.ask("projection", network, PHOTO, unit=unit).arrays["activation"]) == pytest.approx(right.max())
    swept = vizapp.ask("occlusion", network, PHOTO, window=8, stride=16)
    np.testing.assert_allclose(swept.arrays["clean_probabilities"], right, rtol=1e-4)
    for row, column in ((0, 0), (1, 1)):
        top, left, bottom, right_edge = np.clip(swept.arrays["positions"][row, column], 0, 32)
        hidden = network.seen(PHOTO).copy()
        hidden[top:bottom, left:right_edge] = 128
        with torch.no_grad():
            alone = network.module(network.batch([hidden]))[0].numpy()
        np.testing.assert_allclose(swept.arrays["probabilities"][row, column], alone, rtol=1e-3, atol=1e-6)
    dense = vizapp.ask("dense", network, PHOTO, stride="native", check=4)
    assert dense.arrays["difference"].max() < 1e-3
    top, left, bottom, right_edge = dense.arrays["boxes"][2, 1]
    with torch.no_grad():
        alone = network.module(network.batch([PHOTO[top:bottom, left:right_edge]]))[0]
    head = network.head
    shown = head.probabilities(torch.from_numpy(dense.arrays["scores"][:, 2, 1])[None])[0]
    torch.testing.assert_close(shown, alone, rtol=1e-3, atol=1e-6)


def test_labels_that_do_not_exclude_each_other_can_be_said() -> None:
    module = Squashed(nn.Identity())
    network = wrapped(module, probabilities="sigmoid")
    predicted = vizapp.ask("predict", network, PHOTO)
    logits = predicted.arrays["logits"].astype(float)
    np.testing.assert_allclose(predicted.arrays["probabilities"], 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert "each class by itself" in predicted.facts["output"]
    assert network.digest != wrapped(module).digest


class WithProbabilities(Squashed):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.stem(x)).mean((2, 3))
        return {"feat": features, "logits": self.fc(features), "prob": self.squash(self.fc(features))}


def test_probabilities_beside_their_logits_can_be_chosen() -> None:
    module = WithProbabilities(lambda x: torch.sigmoid(x).clamp(min=1e-6))
    networks = {name: wrapped(module, output=name) for name in (None, "logits", "prob")}
    assert [networks[name].head.name for name in networks] == ["logits", "logits", "prob"]
    with torch.no_grad():
        right = module(networks[None].prepare(PHOTO))["prob"][0]
    for network in networks.values():
        predicted = vizapp.ask("predict", network, PHOTO)
        np.testing.assert_allclose(predicted.arrays["probabilities"], right, rtol=1e-5)
    assert "'prob', one of 3 outputs: 5 classes: probabilities as the network returns them" in predicted.facts["output"]


def test_scores_can_be_declared_to_be_probabilities() -> None:
    module = Squashed(lambda x: nn.functional.normalize(x.exp()))  # between 0 and 1, but so are features
    network = wrapped(module, probabilities="none")
    with torch.no_grad():
        right = module(network.prepare(PHOTO))[0]
    predicted = vizapp.ask("predict", network, PHOTO)
    np.testing.assert_allclose(predicted.arrays["probabilities"], right, rtol=1e-5)
    assert "probabilities as the network returns them" in predicted.facts["output"]
    swept = vizapp.ask("occlusion", network, PHOTO, window=8, stride=16)
    np.testing.assert_allclose(swept.arrays["clean_probabilities"], right, rtol=1e-4)
    assert wrapped(module).head.scale == "logits"
    assert len({network.digest, wrapped(module).digest}) == 2
    with refuses("contradicting-probabilities", "scores from -"):
        vizapp.ask("predict", wrapped(Squashed(lambda x: 20 * x - 1), probabilities="none"), PHOTO)


@pytest.mark.parametrize(
    ("squash", "declared"),
    [
        (lambda x: x.softmax(1), "sigmoid"),
        (torch.sigmoid, "softmax"),
        (lambda x: x.log_softmax(1), "none"),
        (lambda x: x.log_softmax(1), "sigmoid"),
        (lambda x: x[:, :1], "softmax"),
    ],
)
def test_probabilities_that_contradict_the_network_are_refused(
    squash: Callable[[Tensor], Tensor], declared: str
) -> None:
    with refuses("contradicting-probabilities"):
        wrapped(Squashed(squash), probabilities=declared)


@pytest.mark.parametrize(("squash", "declared"), [(lambda x: x.softmax(1), "softmax"), (torch.sigmoid, "sigmoid")])
def test_probabilities_that_are_declared_as_found_stay(squash: Callable[[Tensor], Tensor], declared: str) -> None:
    for given in (declared, "none"):
        assert wrapped(Squashed(squash), probabilities=given).head == wrapped(Squashed(squash)).head


def test_output_and_probabilities_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["predict", "--network", "lenet5-digits", "--picture", "digit 3", "--json"]
    assert main([*line, "--probabilities", "sigmoid"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "their sigmoid" in told["facts"]["output"]
    assert main([*line, "--probabilities", "none"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "contradicting-probabilities"
    assert main([*line, "--output", "colour"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "no-such-output"


def test_a_large_dense_map_keeps_the_probabilities_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    network = wrapped(Squashed(lambda x: 9 * x))
    whole = vizapp.ask("dense", network, PHOTO).panels[1].pixels
    monkeypatch.setattr("vizapp.methods.dense.LARGEST", 2 * 4 * 9 * 5)
    part = vizapp.ask("dense", network, PHOTO)
    assert len(part.arrays["classes"]) == 2
    np.testing.assert_array_equal(part.panels[1].pixels, whole)
