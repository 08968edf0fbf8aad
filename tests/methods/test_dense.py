"""The method `dense`: arrays, facts, panels and error messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import vizapp
from tests.errors import refuses
from tests.networks import Branching, seeded
from vizapp.errors import VizError
from vizapp.methods import dense as method
from vizapp.zoo.classic.lenet import LeNet5
from vizapp.zoo.network import Network

CLASSES = ("cat", "dog", "coffee cup", "rocket", "flower")


def photo(height: int, width: int, seed: int = 0) -> vizapp.media.picture.Picture:  # type: ignore[name-defined]
    return vizapp.open_picture(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, 32, 32), categories=CLASSES)


@pytest.fixture(scope="module")
def lenet() -> Network:
    return vizapp.wrap(seeded(LeNet5()), input_size=(1, 28, 28), mean=(0.5,), std=(0.5,))


def crop_scores(network: Network, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The network's scores on crops, one after the other: `[h w classes]`."""
    rows = [
        [network.scores(network.batch([pixels[top:bottom, left:right]]))[0].numpy() for top, left, bottom, right in row]
        for row in boxes
    ]
    return np.array(rows)


@pytest.mark.parametrize("stride", ["native", 2, "1"])
def test_each_cell_is_the_crop_in_its_box(lenet: Network, stride: str | int) -> None:
    picture = photo(45, 52)
    result = vizapp.ask("dense", lenet, picture, stride=stride)
    step = 4 if stride == "native" else int(stride)
    scores, boxes = result.arrays["scores"], result.arrays["boxes"]
    assert scores.shape == (10, (45 - 28) // step + 1, (52 - 28) // step + 1)
    assert boxes.shape == (*scores.shape[1:], 4)
    assert boxes[1, 2].tolist() == [step, 2 * step, step + 28, 2 * step + 28]
    expected = crop_scores(lenet, picture.pixels, boxes)
    np.testing.assert_allclose(scores.transpose(1, 2, 0), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(result.arrays["label"], scores.argmax(0))
    np.testing.assert_allclose(result.arrays["prediction"], expected.mean((0, 1)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.arrays["vote"], expected.max((0, 1)), rtol=1e-4, atol=1e-4)
    assert result.arrays["difference"].max() < 1e-4
    assert "up to rounding" in result.facts["padding error"]
    assert sum(row["share"] for row in result.table) == pytest.approx(1)


def test_the_crop_is_one_cell_that_predict_gives(network: Network) -> None:
    picture = photo(90, 70)
    result = vizapp.ask("dense", network, picture, input="crop")
    assert result.arrays["scores"].shape == (5, 1, 1)
    logits = vizapp.ask("predict", network, picture).arrays["logits"]
    np.testing.assert_allclose(result.arrays["scores"][:, 0, 0], logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.arrays["prediction"], logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(90, 70), (64, 200), (33, 33)])
def test_the_box_of_the_crop_is_its_place_in_the_photo(size: tuple[int, int]) -> None:
    """A network that answers with the mean colour of its crop, on a photo whose colours say where they are."""
    rows, columns = np.indices(size)
    pixels = np.stack([255 * rows / (size[0] - 1), 255 * columns / (size[1] - 1), 0 * rows], 2).astype(np.uint8)
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    network = vizapp.wrap(module, input_size=(3, 32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    result = vizapp.ask("dense", network, vizapp.open_picture(pixels), input="crop")
    top, left, bottom, right = result.arrays["boxes"][0, 0]
    assert 0 <= top < bottom <= size[0]
    assert 0 <= left < right <= size[1]
    colour = pixels[top:bottom, left:right].mean((0, 1)) / 255
    np.testing.assert_allclose(result.arrays["prediction"], colour, atol=0.01)


def test_zoom_lays_out_the_photo_at_another_size(network: Network) -> None:
    picture = photo(64, 96)
    result = vizapp.ask("dense", network, picture, zoom=0.5)
    smaller = vizapp.media.transforms.resize(picture.pixels, 32, 48)
    expected = vizapp.ask("dense", network, vizapp.open_picture(smaller))
    np.testing.assert_array_equal(result.arrays["scores"], expected.arrays["scores"])
    np.testing.assert_array_equal(result.arrays["boxes"], 2 * expected.arrays["boxes"])


@pytest.mark.parametrize("vote", ["max", "mean"])
def test_scales_and_flips_vote(network: Network, vote: str) -> None:
    picture = photo(60, 80)
    result = vizapp.ask("dense", network, picture, scales=6, flips=True, vote=vote, check=0)
    assert result.arrays["votes"].shape == (12, 5)
    row = 0
    for step in (24, 60, 96, 168, 204, 240):  # pixels more than the crop, of OverFeat's stride of 36
        zoom = (32 + round(4 * step / 36)) / 60
        pixels = vizapp.media.transforms.resize(picture.pixels, round(60 * zoom), round(80 * zoom))
        for version in (pixels, np.ascontiguousarray(pixels[:, ::-1])):
            scores = vizapp.ask("dense", network, vizapp.open_picture(version)).arrays["scores"]
            said = scores.max((1, 2)) if vote == "max" else scores.mean((1, 2))
            np.testing.assert_allclose(result.arrays["votes"][row], said, rtol=1e-4, atol=1e-5)
            row += 1
    np.testing.assert_allclose(result.arrays["vote"], result.arrays["votes"].mean(0), rtol=1e-5, atol=1e-6)
    assert sum(panel.title.startswith("scale-") for panel in result.panels) == 6
    two = vizapp.ask("dense", network, picture, scales=2, vote=vote, check=0)
    np.testing.assert_array_equal(two.arrays["votes"], result.arrays["votes"][[0, 2]])


def test_the_padding_error_is_the_difference_to_the_crops(network: Network) -> None:
    picture = photo(70, 90)
    result = vizapp.ask("dense", network, picture, check=5)
    where, boxes = result.arrays["checked"], result.arrays["boxes"]
    assert len({tuple(cell) for cell in where}) == 5
    alone = crop_scores(network, picture.pixels, boxes)
    for (row, column), difference in zip(where, result.arrays["difference"], strict=True):
        expected = np.abs(alone[row, column] - result.arrays["scores"][:, row, column]).mean()
        assert difference == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert result.arrays["difference"].max() > 1e-4
    assert "pad each crop" in result.facts["padding error"]
    assert len(vizapp.ask("dense", network, picture, check=0).arrays["checked"]) == 0


@pytest.mark.parametrize("few", [False, True], ids=["all classes", "few classes"])
def test_exactly_each_cell_is_its_crop_although_the_network_pads(
    network: Network, monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    picture, told = photo(70, 60), list[float]()
    fast = vizapp.ask("dense", network, picture, check=64)
    if few:
        monkeypatch.setattr(method, "LARGEST", 4 * fast.arrays["label"].size * 2.5)
    result = vizapp.ask("dense", network, picture, exact=True, flips=not few, tick=told.append)
    arrays = result.arrays
    alone = crop_scores(network, picture.pixels, arrays["boxes"])  # [h w classes]
    np.testing.assert_array_equal(arrays["boxes"], fast.arrays["boxes"])
    assert len(arrays["scores"]) == (2 if few else 5)
    kept = arrays.get("classes", np.arange(5))
    np.testing.assert_allclose(arrays["scores"].transpose(1, 2, 0), alone[..., kept], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(arrays["label"], alone.argmax(-1))
    np.testing.assert_allclose(arrays["prediction"], alone.mean((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(arrays["peak"], alone.max((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(arrays["log_sum"], np.log(np.exp(alone).sum(-1)), rtol=1e-4, atol=1e-5)
    assert np.abs(fast.arrays["prediction"] - arrays["prediction"]).max() > 1e-4, "the network pads"
    assert len(arrays["agrees"]) == len(arrays["checked"]) == 0
    assert "by itself" in result.facts["padding error"]
    assert "by itself" in result.facts["passes"]
    assert len(set(told)) > 3
    where = tuple(fast.arrays["checked"].T)
    np.testing.assert_array_equal(fast.arrays["agrees"], (fast.arrays["label"] == arrays["label"])[where])
    if not few:
        mirrored = vizapp.ask("dense", network, np.ascontiguousarray(picture.pixels[:, ::-1]), exact=True)
        np.testing.assert_allclose(arrays["votes"][1], mirrored.arrays["peak"], rtol=1e-4, atol=1e-5)


def test_of_a_large_map_the_strongest_classes_are_kept(lenet: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = photo(60, 60)
    whole = vizapp.ask("dense", lenet, picture, stride=2)
    monkeypatch.setattr(method, "LARGEST", 4 * 17 * 17 * 3.5)
    some = vizapp.ask("dense", lenet, picture, stride=2)
    classes = some.arrays["classes"]
    native = vizapp.ask("dense", lenet, picture).arrays["scores"].max((1, 2))
    assert len(classes) == 3
    assert some.arrays["scores"].shape == (3, 17, 17)
    np.testing.assert_allclose(some.arrays["scores"], whole.arrays["scores"][classes], rtol=1e-5, atol=1e-6)
    for name in ("label", "prediction", "peak"):
        np.testing.assert_allclose(some.arrays[name], whole.arrays[name], rtol=1e-5, atol=1e-6)
    assert set(classes.tolist()) == set(np.argsort(-native)[:3].tolist())
    assert "3 strongest of 10" in some.facts["classes"]
    assert "classes" not in whole.arrays


def test_the_label_map_is_drawn_where_the_crops_centres_are(lenet: Network) -> None:
    result = vizapp.ask("dense", lenet, photo(60, 80))
    labels = next(panel for panel in result.panels if panel.title == "labels")
    changed = (labels.pixels != photo(60, 80).pixels).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    # 9 × 14 cells of 4 pixels, the first one's centre at 14
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (12, 12 + 36 - 1, 12, 12 + 56 - 1)


def test_a_network_that_passes_rows_faster_than_columns() -> None:
    module = seeded(nn.Sequential(nn.Conv2d(3, 6, 3, (4, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 7, 5)))
    own, picture = vizapp.wrap(module, input_size=(3, 16, 16), categories=CLASSES), photo(33, 29)
    result = vizapp.ask("dense", own, picture)
    boxes = result.arrays["boxes"]
    assert boxes[1, 1].tolist() == [4, 2, 20, 18]
    assert boxes.shape == (5, 7, 4)
    expected = crop_scores(own, picture.pixels, boxes)
    np.testing.assert_allclose(result.arrays["scores"].transpose(1, 2, 0), expected, rtol=1e-4, atol=1e-4)
    assert "2 × 4 pixels apart" in result.facts["map"]
    assert "up to rounding" in result.facts["padding error"]


def test_progress_and_leaving(network: Network) -> None:
    shares: list[float] = []
    vizapp.ask("dense", network, photo(70, 90), tick=shares.append, scales=2, flips=True)
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"stride": 3}, "stride is '3'; the map of .* can have \"native\" \\(4 pixels\\), or 2, 1 pixels."),
        ({"stride": 8}, "stride is '8'"),
        ({"stride": "fine"}, "stride is 'fine'"),
        ({"stride": "²"}, "stride is '²'"),
        ({"stride": 0}, "stride is '0'"),
        ({"zoom": 0.4}, "smaller than the 32 × 32"),
        ({"input": "crop", "scales": 2}, 'take input="photo"'),
        ({"scales": 7}, "from 1 to 6"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(network: Network, params: dict, sentence: str) -> None:
    with pytest.raises(VizError, match=sentence) as caught:
        vizapp.ask("dense", network, photo(60, 60), **params)
    assert "\n" not in str(caught.value)


def test_a_photo_smaller_than_the_crop_and_a_refused_network(network: Network) -> None:
    with refuses("picture-too-small", "40 × 31", "32 × 32"):
        vizapp.ask("dense", network, photo(31, 40))
    vit = vizapp.wrap(torchvision.models.VisionTransformer(32, 16, 1, 1, 8, 8), input_size=(3, 32, 32))
    with refuses("not-convolutional"):
        vizapp.ask("dense", vit, photo(64, 64))


class Headed(nn.Module):
    """A convolution, whatever `head` makes of its map `[N 8 h w]`, and a linear layer."""

    def __init__(self, head: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.fc = nn.Conv2d(3, 8, 3, 2), head, nn.LazyLinear(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.head(torch.relu(self.conv(x))))


def with_coordinates(x: torch.Tensor) -> torch.Tensor:
    rows = torch.linspace(-1, 1, x.shape[2])[None, None, :, None].expand(len(x), 1, *x.shape[2:])
    return torch.cat([x, rows], 1).mean((2, 3))


POOLED = {
    "sum by size": lambda x: x.sum((2, 3)) / (x.shape[2] * x.shape[3]),
    "sum by a tensor of the size": lambda x: x.sum((2, 3)) / torch.tensor(float(x.shape[2] * x.shape[3])),
    "division by a side": lambda x: (x / x.shape[2]).sum((2, 3)),
    "view": lambda x: x.view(x.shape[0], 8, -1).mean(2),
    "flatten": lambda x: x.flatten(2).mean(-1),
    "flatten and length": lambda x: x.flatten(2).sum(-1) / x.flatten(2).shape[-1],
    "axis by axis": lambda x: x.mean(3).mean(2),
    "maximum axis by axis": lambda x: x.max(3)[0].max(2)[0],
    "pool of its size": lambda x: F.avg_pool2d(x, x.shape[2:]).flatten(1),
    "generalized mean": lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
    "standard deviation": lambda x: x.std((2, 3)),
    "soft maximum": lambda x: x.logsumexp((2, 3)),
    "attention pooling": lambda x: (x.flatten(2).softmax(-1) * x.flatten(2)).sum(-1),
    "weights of positions": lambda x: x.flatten(2) @ torch.linspace(0, 1, 15 * 15),
    "middle": lambda x: x[:, :, 2:-2, 1:-1].mean((2, 3)),
}


@pytest.mark.parametrize("name", POOLED)
def test_spellings_of_pooling_equal_the_crops(name: str) -> None:
    module = Headed(POOLED[name])
    module(torch.zeros(1, 3, 32, 32))
    network = vizapp.wrap(seeded(module), input_size=(3, 32, 32))
    picture = photo(45, 52)
    result = vizapp.ask("dense", network, picture, stride=1)
    boxes = result.arrays["boxes"][::4, ::5]
    expected = crop_scores(network, picture.pixels, boxes)
    np.testing.assert_allclose(result.arrays["scores"][:, ::4, ::5].transpose(1, 2, 0), expected, rtol=1e-4, atol=1e-5)
    assert "up to rounding" in result.facts["padding error"]
    assert "gates" not in result.facts


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (lambda x: (x / x.norm(dim=(2, 3), keepdim=True)).amax((2, 3)), "whole map"),
        (lambda x: (x / x.var((2, 3), keepdim=True)).mean((2, 3)), "whole map"),
        (lambda x: F.normalize(x, dim=2).mean((2, 3)), "whole map"),
        (lambda x: x.softmax(2).mean((2, 3)), "whole map"),
        (lambda x: F.instance_norm(x).amax((2, 3)), "whole map"),
        (with_coordinates, "fixed values for each position"),
        (lambda x: (x + torch.linspace(-1, 1, x.shape[2])[:, None]).mean((2, 3)), "fixed values for each position"),
        (lambda x: x[:, :, x.shape[2] // 2, x.shape[3] // 2], "cannot slide"),
    ],
)
def test_what_depends_on_the_size_is_refused_with_its_reason(head: Callable[..., torch.Tensor], why: str) -> None:
    module = Headed(head)
    module(torch.zeros(1, 3, 32, 32))
    with refuses("not-convolutional", why):
        vizapp.ask("dense", vizapp.wrap(seeded(module), input_size=(3, 32, 32)), photo(45, 52))


def test_a_difference_without_padding_and_gates_is_a_refusal(lenet: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    real = method._map

    def wrong(*given: Any, **options: Any) -> Any:
        found = real(*given, **options)
        return replace(found, scores=found.scores + 1)

    monkeypatch.setattr(method, "_map", wrong)
    with refuses("not-convolutional", "no gates"):
        vizapp.ask("dense", lenet, photo(45, 52))


def test_without_a_check_the_answer_says_so(lenet: Network) -> None:
    assert vizapp.ask("dense", lenet, photo(45, 52), check=0).facts["padding error"].startswith("Not checked")
