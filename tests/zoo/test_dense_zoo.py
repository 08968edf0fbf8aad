"""Every classifier of torchvision is made fully convolutional or refused with a reason; a trained one labels mosaics."""

from __future__ import annotations

import csv
import gc
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import vizapp
from tests.errors import refuses
from tests.zoo import variants
from tests.zoo.shared import shared
from vizapp.media.transforms import centre_crop

CLASSIFIERS = [f"torchvision/{name}" for name in torchvision.models.list_models(module=torchvision.models)]
ATTENTIVE = ("torchvision/vit", "torchvision/swin", "torchvision/maxvit")
PICTURE = vizapp.open_picture(np.random.default_rng(0).integers(0, 256, (300, 340, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", variants.parameters(CLASSIFIERS, side=400))
def test_one_cell_is_the_classifier_at_its_training_size(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    network = vizapp.load(name, weights="none", device="cpu")
    if name.startswith(ATTENTIVE):
        with refuses("not-convolutional") as caught:
            vizapp.ask("dense", network, PICTURE, input="crop", check=0)
        with capsys.disabled():
            print(f"\nrefused: {name}: {caught.value}")
    else:
        result = vizapp.ask("dense", network, PICTURE, input="crop", check=0)
        with torch.no_grad():
            logits = network.scores(network.prepare(PICTURE))[0].numpy()
        assert result.arrays["scores"].shape == (1000, 1, 1)
        for found in (result.arrays["scores"][:, 0, 0], result.arrays["prediction"]):
            assert np.abs(found - logits).max() <= 1e-5 * max(1, np.abs(logits).max())
    del network
    gc.collect()


SIDE = 256  # the photos' short side


def sample_photos() -> list[tuple[np.ndarray, int]]:
    """The middle of each photo, uint8 `[SIDE SIDE 3]`, and its class, in a fixed order."""
    folder = shared("data/imagenet-sample")
    with (folder / "labels.csv").open() as file:
        rows = [(row["file"], int(row["class_index"])) for row in csv.DictReader(file)]
    found = []
    for name, label in rows[:200]:
        pixels = vizapp.open_picture(folder / "images" / Path(name).name).pixels
        found.append((centre_crop(pixels, SIDE, SIDE), label))
    order = np.random.default_rng(0).permutation(len(found) // 4 * 4)
    return [found[i] for i in order]


@pytest.mark.slow
def test_the_label_map_of_a_mosaic_names_the_class_of_each_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    weights = shared("weights/squeezenet1_0-imagenet-decompressed.pth")
    network = vizapp.load("torchvision/squeezenet1_0", weights=weights, device="cpu")
    photos = sample_photos()
    whole, centred, alone = [], [], 0
    for start in range(0, len(photos), 12):
        four = photos[start : start + 4]
        pixels = np.vstack([np.hstack([four[0][0], four[1][0]]), np.hstack([four[2][0], four[3][0]])])
        arrays = vizapp.ask("dense", network, vizapp.open_picture(pixels), check=0).arrays
        corners, ends = arrays["boxes"][..., :2], arrays["boxes"][..., 2:]
        for number, (photo, right) in enumerate(four):
            low = np.array(divmod(number, 2)) * SIDE
            inside = (corners >= low).all(2) & (ends <= low + SIDE).all(2)
            whole.append(float((arrays["label"][inside] == right).mean()))
            near = ((corners + ends) / 2 >= low).all(2) & ((corners + ends) / 2 < low + SIDE).all(2)
            centred.append(float((arrays["label"][near] == right).mean()))
            alone += vizapp.ask("predict", network, vizapp.open_picture(photo)).table[0]["class"] == right
    with capsys.disabled():
        print(
            f"\n{len(whole)} quarters: right in {np.mean(whole):.1%} of the cells whose crop lies inside, in "
            f"{np.mean(centred):.1%} of those whose centre does; {np.mean(np.array(whole) > 0.5):.1%} of the quarters have "
            f"the right class in most cells inside; the photo alone is classified right in {alone / len(whole):.1%}"
        )
    assert np.mean(whole) > 0.5
    assert np.mean(np.array(whole) > 0.5) > 0.5
