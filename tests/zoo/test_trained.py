"""Trained networks are as accurate as claimed."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vizapp
from tests.zoo.shared import shared
from vizapp.zoo import describe
from vizapp.zoo.network import Network

ROOT = Path(__file__).resolve().parents[2]


def test_lenet_answers_its_held_out_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.model_selection import train_test_split

    from vizapp.media.samples import digit_pixels

    digits = datasets.load_digits()
    # the split of training/lenet5_digits.py
    _, held_out = train_test_split(np.arange(1797), test_size=0.25, random_state=0, stratify=digits.target)
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    scores = network.scores(
        network.batch([network.seen(vizapp.open_picture(digit_pixels(digits.images[i]))) for i in held_out])
    )
    accuracy = 100 * float((scores.argmax(1).numpy() == digits.target[held_out]).mean())
    assert accuracy >= 98.5
    claimed = describe("vizapp/lenet5-digits").accuracy
    assert claimed is not None
    assert abs(accuracy - claimed) < 0.01
    assert network.categories == tuple("0123456789")


def test_zfnet_mini_is_small_and_its_card_claims_enough() -> None:
    card = describe("vizapp/zfnet-mini")
    assert card.accuracy is not None, "its card assets/zfnet-mini.md is missing, or tells no accuracy"
    network = vizapp.load("vizapp/zfnet-mini", device="cpu")
    assert card.accuracy >= 65
    assert card.size_mb is not None
    assert card.size_mb <= 10
    assert len(network.categories) == 101
    assert "class 0" not in network.categories


def top_1(network: Network, crops: list[np.ndarray], answers: list[int]) -> float:
    """Share of right answers, in percent."""
    right = 0
    for start in range(0, len(crops), 50):
        given = network.scores(network.batch(crops[start : start + 50])).argmax(1).tolist()
        right += sum(a == b for a, b in zip(given, answers[start : start + 50], strict=True))
    return 100 * right / len(crops)


@pytest.mark.slow
def test_zfnet_mini_answers_its_test_photos_as_its_card_claims() -> None:
    """The test photos of training/zfnet_mini.py, through the public loader.

    72.38 % is claimed, with OpenCV's crops as in training (they give it to the digit); the loader's crops, as torchvision
    makes them, give 72.28 %: three photos less.
    """
    folder = shared("data/caltech101/test")
    network = vizapp.load("vizapp/zfnet-mini", device="cpu")
    assert sorted(path.name for path in folder.iterdir()) == list(network.categories)
    photos = [(path, index) for index, name in enumerate(network.categories) for path in (folder / name).glob("*.jpg")]
    accuracy = top_1(network, [network.seen(vizapp.open_picture(path)) for path, _ in photos], [i for _, i in photos])
    claimed = describe("vizapp/zfnet-mini").accuracy
    print(f"zfnet-mini: {accuracy:.2f} % of {len(photos)}; claimed: {claimed} %")
    assert len(photos) == 2893
    assert claimed is not None
    assert abs(accuracy - claimed) < 0.3  # eight photos


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "least"),
    [
        ("torchvision/squeezenet1_0", "squeezenet1_0-imagenet-decompressed.pth", 61.0),
        ("torchvision/mobilenet_v2", "mobilenet_v2-imagenet-dequantized.pth", 82.0),
        ("vizapp/efficientnet-lite0", "", 85.0),
    ],
)
def test_imagenet_networks_answer_photos_through_the_public_loader(name: str, file: str, least: float) -> None:
    network = vizapp.load(name, weights=shared(f"weights/{file}") if file else "default", device="cpu")
    folder = shared("data/imagenet-sample")
    with (folder / "labels.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    crops = [network.seen(vizapp.open_picture(folder / "images" / row["file"])) for row in rows]
    accuracy = top_1(network, crops, [int(row["class_index"]) for row in rows])
    print(f"{name}: {accuracy:.1f} % of {len(rows)}")
    assert len(rows) == 750
    assert accuracy >= least


@pytest.mark.slow
def test_a_cifar_resnet_saved_from_data_parallel_loads() -> None:
    network = vizapp.load("vizapp/resnet20-cifar", weights=shared("weights/cifar10_resnet20.th"), device="cpu")
    assert (network.parameters, network.categories[6], network.weights) == (269_722, "frog", "cifar10_resnet20.th")


@pytest.mark.slow
def test_a_cifar_resnet_knows_most_of_the_pictures() -> None:
    """88 % was hoped for; 81.0 % is what is left, because the pictures are not those that it was trained on.

    91.7 % is published for the lossless pictures. These were saved as JPEG of quality 75 with colours at half resolution,
    all 10,000 of them; the next test shows what that alone does. Decoders agree to the last bit, other normalisations,
    colour decoding and smoothing give 70 to 82.7 %, statistics of the batch 79 %, both mirror images 83.0 %. A quarter of the
    pictures is asked here.
    """
    network = vizapp.load("vizapp/resnet20-cifar", weights=shared("weights/cifar10_resnet20.th"), device="cpu")
    crops, answers, tables = [], [], set()
    with tarfile.open(shared("data/cifar10/test.tar")) as archive:
        files = [member for member in archive if member.isfile()]
        for member in files[::4]:
            file = archive.extractfile(member)
            if file is not None:
                content = file.read()
                with Image.open(io.BytesIO(content)) as image:
                    tables.add((tuple(image.quantization[0]), image.layer[0][1:3]))  # type: ignore[attr-defined]
                crops.append(network.seen(vizapp.open_picture(content)))
                answers.append(network.categories.index(member.name.split("/")[1]))
    assert tables == {(tuple(_saved(crops[0], 75).quantization[0]), (2, 2))}
    assert len(crops) == 2_500
    accuracy = top_1(network, crops, answers)
    print(f"resnet20: {accuracy:.2f} %")
    assert accuracy >= 81.0


def _saved(pixels: np.ndarray, quality: int) -> Any:
    """A picture after it was saved as such a JPEG, with colours at half resolution."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
    return Image.open(buffer)


@pytest.mark.slow
def test_jpeg_of_that_quality_alone_turns_a_fifth_of_sure_answers() -> None:
    """Lossless photos of 32 pixels and the same as JPEG: of those answered with more than 99 %, 23 % get another answer.

    (Measured: quality 100: 0.6 %, 95: 2.6 %, 90: 7.7 %, 85: 14.4 %, 75: 23.0 %, 60: 28.6 %, 50: 32.2 %.)
    """
    network = vizapp.load("vizapp/resnet20-cifar", weights=shared("weights/cifar10_resnet20.th"), device="cpu")
    photos = []
    for path in sorted(shared("data/caltech101").glob("*/*/*.jpg"))[::9]:
        with Image.open(path) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            photos.append(np.asarray(square.resize((32, 32), Image.Resampling.LANCZOS)))
    with torch.no_grad():
        shares = network.scores(network.batch(photos)).softmax(1)
        sure = shares.amax(1) > 0.99
        turned = []
        for quality in (100, 75):
            saved = network.scores(network.batch([np.asarray(_saved(photo, quality)) for photo in photos]))
            turned.append(100 * float((saved.argmax(1) != shares.argmax(1))[sure].double().mean()))
    print(f"turned by JPEG: {turned[0]:.1f} % at quality 100, {turned[1]:.1f} % at 75, of {int(sure.sum())}")
    assert int(sure.sum()) > 300
    assert turned[0] < 2
    assert 15 < turned[1] < 30
