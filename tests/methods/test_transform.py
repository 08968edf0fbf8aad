"""Curves of transformed photos against a loop of single passes, and where the answer is known by hand."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from tests.networks import Branching, seeded
from vizapp.engine.tap import Tap
from vizapp.media.distortions import FAMILIES, ResizedPhoto, resized_photo
from vizapp.media.samples import open_sample
from vizapp.methods.base import Result
from vizapp.methods.transform import chosen_sites
from vizapp.zoo.network import Network

PHOTO = noise(90, 120, seed=5)
SIDE = 64


def narrow(make: Callable[[], nn.Module], inputs: int) -> nn.Module:
    """The network with hidden layers of 64 units in place of 4096, whose weights would take seconds to draw."""
    with patch.object(nn.Linear, "reset_parameters"):
        network = make()
    hidden = [
        nn.Linear(inputs, 64),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(64, 7),
    ]
    network.classifier = nn.Sequential(*hidden)
    return network


NETWORKS = {
    "alexnet": lambda: narrow(models.alexnet, 9216),
    "vgg11": lambda: narrow(lambda: models.vgg11(init_weights=False), 25088),
    "resnet18": lambda: models.resnet18(num_classes=7),
    "densenet121": lambda: models.densenet121(num_classes=7),
    "googlenet": lambda: models.googlenet(num_classes=7, init_weights=False, aux_logits=False),
    "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=7),
    "vit": lambda: models.VisionTransformer(SIDE, 16, 2, 2, 32, 64, num_classes=7),
}
LAST_HIDDEN = {
    "alexnet": "classifier.4", "vgg11": "classifier.4", "resnet18": "flatten", "densenet121": "flatten", "googlenet": "flatten",
    "mobilenet_v2": "flatten", "vit": "getitem",
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), (3, 64, 56), categories=list("abcde"), resize=72)


def by_single_passes(network: Network, result: Result, kind: str, sites: list[str]) -> dict[str, np.ndarray]:
    """The arrays by a plain pass per picture, in float64 where it is summed."""
    photo = resized_photo(network.preprocessing.view, PHOTO)

    def passed(pixels: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        with torch.no_grad(), Tap(network.module, set(sites), stop=False) as tap:
            scores = network.module(network.batch([pixels]))[0].double()
        kept = [tap.kept[name].double() for name in sites]
        layout = {site.name: site for site in network.sites}
        kept = [one[:, layout[name].prefix_tokens :] if layout[name].layout == "tokens" else one
                for name, one in zip(sites, kept, strict=True)]  # fmt: skip
        return [one.numpy().ravel() for one in kept], scores.softmax(0).numpy()

    clean, _ = passed(network.seen(PHOTO))
    distance, probability = [], []
    for amount in result.arrays["amounts"]:
        values, shares = passed(photo.transformed(kind, float(amount)))
        distance.append([np.sqrt(((value - before) ** 2).sum()) for value, before in zip(values, clean, strict=True)])
        probability.append(shares)
    raw, norm = np.array(distance).T, np.array([np.sqrt((value**2).sum()) for value in clean])
    return {"distance_raw": raw, "distance": raw / norm[:, None], "probability": np.array(probability)}


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_over_all_pictures_equals_single_passes_on(name: str) -> None:
    torch.manual_seed(0)
    network = vizapp.wrap(NETWORKS[name]().double(), (3, SIDE, SIDE), resize=72)
    amounts = [0.0, 45.0, 180.0]
    result = vizapp.ask("transform", network, PHOTO, amounts=amounts)
    sites = [text.split(" ")[0] for text in result.facts["layers"].split(", ")]
    assert sites[-1] == LAST_HIDDEN[name]
    assert sites[1] == network.last_feature_map().name
    expected = by_single_passes(network, result, "rotate", sites)
    assert set(result.arrays) == {"amounts", "distance", "distance_raw", "probability", "label"}
    for array, values in expected.items():
        np.testing.assert_allclose(result.arrays[array], values, rtol=1e-6, atol=1e-6)
    assert np.array_equal(result.arrays["label"], expected["probability"].argmax(1))
    assert (result.arrays["distance"][:, 1:] > 1e-4).all()


def test_a_network_that_averages_class_maps_has_no_hidden_layer_to_compare() -> None:
    network = vizapp.wrap(models.squeezenet1_1(num_classes=5), (3, SIDE, SIDE))
    assert network.last_hidden_layer() is None
    assert [site.name for site in chosen_sites(network, ())] == ["features.1", network.last_feature_map().name]


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_clean_amount_is_exactly_the_clean_photo(network: Network, kind: str) -> None:
    """Also among others in a batch, whose sums torch may order in another way."""
    clean = FAMILIES[kind].clean
    amounts = [*(a for a in FAMILIES[kind].amounts[-5:] if a != clean), clean]
    result = vizapp.ask("transform", network, PHOTO, kind=kind, amounts=amounts)
    assert (result.arrays["distance"][:, -1] == 0).all()
    assert (result.arrays["distance_raw"][:, :-1] > 0).all()
    alone = vizapp.ask("transform", network, PHOTO, kind=kind, amounts=[clean])
    np.testing.assert_allclose(result.arrays["probability"][-1], alone.arrays["probability"][0], atol=1e-6)
    told = vizapp.ask("predict", network, PHOTO)
    np.testing.assert_allclose(alone.arrays["probability"][0], told.arrays["probabilities"], atol=1e-6)


def test_a_shift_by_the_stride_moves_the_map_of_a_network_without_padding_by_a_cell() -> None:
    layers = [nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(6, 4, 3)]
    network = vizapp.wrap(seeded(nn.Sequential(*layers)), (3, 63, 63), resize=80)
    photo = resized_photo(network.preprocessing.view, noise(80, 100))
    with torch.no_grad():
        before, across, down = (
            network.module(network.batch([pixels]))[0]
            for pixels in (photo.crop, photo.transformed("shift-x", 4), photo.transformed("shift-y", 4))
        )
    torch.testing.assert_close(across[:, :, 1:], before[:, :, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(down[:, 1:], before[:, :-1], rtol=0, atol=1e-5)
    assert (across - before).abs().max() > 0.1


class Circular(nn.Module):
    """Convolutions that wrap around the border, and their average over all cells."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(6, 8, 5, padding=2, padding_mode="circular")
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


def test_an_average_behind_circular_padding_does_not_see_circular_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    network = vizapp.wrap(seeded(Circular()).double(), (3, 32, 32))

    def circular(self: ResizedPhoto, pixels: int, axis: int, edge: str) -> np.ndarray:
        return np.roll(self.crop, pixels, axis)

    monkeypatch.setattr(ResizedPhoto, "_shifted", circular)
    result = vizapp.ask("transform", network, PHOTO, kind="shift-x", amounts=[-9, 4, 0], sites="relu,relu_1,mean")
    assert (result.arrays["distance"][:2, :2] > 0.1).all(), "the maps move"
    np.testing.assert_allclose(result.arrays["distance"][2], 0, atol=1e-12)
    np.testing.assert_allclose(np.ptp(result.arrays["probability"], 0), 0, atol=1e-6)


def test_any_batch_gives_the_same(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = [30, 90, 0, 200, 330, 90]
    whole = vizapp.ask("transform", network, PHOTO, amounts=amounts)
    shares: list[float] = []
    monkeypatch.setattr("vizapp.methods.transform._batch_size", lambda network, sites: 2)
    parts = vizapp.ask("transform", network, PHOTO, amounts=amounts, tick=shares.append)
    assert whole.arrays["amounts"].tolist() == amounts
    for name, values in whole.arrays.items():
        np.testing.assert_allclose(parts.arrays[name], values, rtol=1e-5, atol=1e-7)
    assert (whole.arrays["distance"][:, 1] == whole.arrays["distance"][:, 5]).all()
    assert shares == sorted(shares)
    assert len(shares) >= 4, "after each batch"


def test_a_folder_gives_the_curves_of_each_photo_and_their_means(network: Network, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(saved(noise(60, 70, seed=number)))
    (tmp_path / "1.png").write_bytes(b"no picture")
    result = vizapp.ask("transform", network, folder=str(tmp_path), kind="scale", amounts=[1, 1.4])
    alone = [vizapp.ask("transform", network, noise(60, 70, seed=n), kind="scale", amounts=[1, 1.4]) for n in (0, 2)]
    assert result.arrays["picture"].tolist() == [0, 2]
    for name in ("distance", "distance_raw", "probability"):
        each = np.stack([one.arrays[name] for one in alone])
        np.testing.assert_allclose(result.arrays[f"{name}_each"], each, rtol=1e-6)
        np.testing.assert_allclose(result.arrays[name], each.mean(0), rtol=1e-6)
    assert result.arrays["label"].tolist() == result.arrays["probability"].argmax(1).tolist()
    assert result.arrays["label_each"].tolist() == [one.arrays["label"].tolist() for one in alone]
    own = result.arrays["class_each"]
    followed = np.mean([one.arrays["probability"][:, c] for one, c in zip(alone, own, strict=True)], 0)
    np.testing.assert_allclose([row["probability"] for row in result.table], followed, rtol=1e-6)
    assert "1.png" in result.facts["unreadable"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"no picture")
    with refuses("no-readable-pictures"):
        vizapp.ask("transform", network, folder=str(tmp_path / "empty"))


def test_the_table_is_a_csv_file_beside_the_arrays(network: Network, tmp_path: Path) -> None:
    result = vizapp.ask("transform", network, PHOTO, kind="blur", sites=["stem", "body"])
    folder = result.save(tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert [float(row["amount"]) for row in rows] == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose([float(row["distance body"]) for row in rows], result.arrays["distance"][1])
    clean = int(result.arrays["label"][0])
    np.testing.assert_allclose(
        [float(row["probability"]) for row in rows], result.arrays["probability"][:, clean], rtol=1e-6
    )


def test_a_network_without_classes_gives_distances_alone() -> None:
    network = vizapp.wrap(seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), (3, 32, 32))
    result = vizapp.ask("transform", network, PHOTO, kind="jpeg")
    assert set(result.arrays) == {"amounts", "distance", "distance_raw"}
    assert "distances only" in result.facts["note"]
    assert "probability" not in result.table[0]


def test_features_that_are_zero_are_told(network: Network) -> None:
    class Dead(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 0).relu().mean((2, 3))

    dead = vizapp.wrap(Dead(), (3, 32, 32))
    result = vizapp.ask("transform", dead, PHOTO, kind="noise")
    assert "zero on the clean photo" in result.facts["silent"]
    assert (result.arrays["distance_raw"] == 0).all()
    assert (result.arrays["distance"] == 0).all()


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"sites": "bodi"}, "no-such-layer", "Did you mean body"),
        ({"amounts": ["much"]}, "bad-value", "much"),
        ({"amounts": [10, float("nan")]}, "bad-value", "finite"),
        ({"amounts": "1,inf"}, "bad-value", "finite"),
        ({"amounts": [True]}, "bad-value", "True"),
        ({"amounts": 5}, "bad-value", "list"),
        ({"amounts": []}, "no-amounts", "degrees"),
        ({"amounts": [400]}, "bad-value", "-360 to 360"),
        ({"kind": "scale", "amounts": [0]}, "bad-value", "0.5 to 4"),
        ({"kind": "shift-x", "amounts": [65]}, "bad-value", "-64 to 64"),
        ({"kind": "shift-y", "amounts": [1.5]}, "bad-value", "whole number"),
        ({"kind": "blur", "amounts": [6]}, "bad-value", "0 to 5"),
        ({"kind": "blur", "amounts": [2.5]}, "bad-value", "whole number"),
        ({"kind": "turn"}, "no-such-choice", "rotate"),
        ({"edge": "gray"}, "no-such-choice", "Did you mean grey"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(network: Network, given: dict, code: str, words: str) -> None:
    with refuses(code, words):
        vizapp.ask("transform", network, PHOTO, **given)


def test_texts_and_numbers_give_the_same_amounts(network: Network) -> None:
    first, second = (
        vizapp.ask("transform", network, PHOTO, amounts=given).arrays["amounts"]
        for given in ("10, 20,-30.5", [10, 20, -30.5])
    )
    assert first.tolist() == second.tolist() == [10, 20, -30.5]


def test_a_class_that_the_target_names_is_the_one_that_is_followed() -> None:
    network, photo = vizapp.load("vizapp/shapes-segmenter", device="cpu"), open_sample("shapes 1")
    target = vizapp.Target(class_="disc", region="whole")
    found = vizapp.ask("transform", network, photo, target=target, kind="rotate", amounts=(0.0, 10.0))
    disc = network.categories.index("disc")
    assert found.arrays["probability"].argmax(1).tolist() != [disc, disc]
    assert [row["probability"] for row in found.table] == pytest.approx(found.arrays["probability"][:, disc], abs=1e-6)
    assert found.facts["class"].startswith("disc (")
