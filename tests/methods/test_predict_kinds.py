"""Predict for networks that are no plain classifiers: every number is known by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import vizapp
from tests.errors import refuses
from tests.networks import MeanColour, TwoShapes, shapes_photo
from vizapp.__main__ import main
from vizapp.methods.base import Result
from vizapp.methods.scores import in_words
from vizapp.zoo.network import Network

SIDE = 24
PHOTO = (shapes_photo(SIDE).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
NAMES = ["ground", "square", "plus"]


def wrapped(module: nn.Module, categories: list[str] | None = None, **options: Any) -> Network:
    """A network that sees the pixels of a photo of its size as they are, from 0 to 1."""
    return vizapp.wrap(module, (3, SIDE, SIDE), categories, mean=(0, 0, 0), std=(1, 1, 1), **options)


def flat(red: int, green: int, blue: int) -> np.ndarray:
    """A photo of one colour."""
    return np.full((SIDE, SIDE, 3), (red, green, blue), np.uint8)


@pytest.fixture(scope="module")
def segmented() -> Result:
    return vizapp.ask("predict", wrapped(TwoShapes(), NAMES), PHOTO)


def test_the_logits_of_a_class_map_are_template_matches(segmented: Result) -> None:
    white = np.pad(PHOTO[..., 0] / 255, 2)
    plus = -np.ones((5, 5))
    plus[2], plus[:, 2] = 1, 1
    for row in range(SIDE):
        for column in range(SIDE):
            around = white[row : row + 5, column : column + 5]
            expected = [0, 3 * around.sum() - 70, 3 * (around * plus).sum() - 24]
            np.testing.assert_allclose(segmented.arrays["scores"][:, row, column], expected, atol=1e-4)
    np.testing.assert_array_equal(segmented.arrays["classes"], [0, 1, 2])


def test_each_shape_is_labelled_at_its_middle_alone(segmented: Result) -> None:
    expected = np.zeros((SIDE, SIDE), int)
    expected[5, 6], expected[14, 16] = 1, 2
    np.testing.assert_array_equal(segmented.arrays["label"], expected)
    chance = segmented.arrays["probability"]
    assert chance[5, 6] == pytest.approx(1 / (1 + math.exp(-5) + math.exp(-50)), abs=1e-6)
    assert chance[14, 16] == pytest.approx(1 / (1 + math.exp(-3) + math.exp(-46)), abs=1e-6)
    np.testing.assert_allclose(segmented.arrays["area"], np.array([574, 1, 1]) / 576)


def test_what_the_method_declares_of_a_class_map_is_there(segmented: Result) -> None:
    declared = {output.array: output.kind for output in vizapp.methods()["predict"].shows if output.kind != "table"}
    assert declared == {"label": "label map", "scores": "per-class map"}
    assert segmented.arrays["label"].dtype.kind == "i"
    assert (segmented.arrays["scores"].dtype, segmented.arrays["scores"].shape) == (np.float32, (3, SIDE, SIDE))


def test_the_table_has_a_row_for_each_class_that_is_there_the_largest_first(segmented: Result) -> None:
    assert [(row["class"], row["name"]) for row in segmented.table] == [(0, "ground"), (1, "square"), (2, "plus")]
    assert [row["area"] for row in segmented.table] == pytest.approx([574 / 576, 1 / 576, 1 / 576])
    chance, label = segmented.arrays["probability"], segmented.arrays["label"]
    assert segmented.table[0]["mean probability"] == pytest.approx(chance[label == 0].mean(), abs=1e-6)
    assert segmented.table[1]["mean probability"] == pytest.approx(chance[5, 6])
    assert segmented.facts["answer"] == "ground 99.7 %, square 0.2 %, plus 0.2 %"
    assert "24 × 24 cells" in segmented.facts["output"]
    assert "softmax" in segmented.facts["output"]
    only = vizapp.ask("predict", wrapped(TwoShapes(), NAMES), PHOTO, top=1)
    assert [row["name"] for row in only.table] == ["ground"]


def test_the_mean_of_the_class_map_is_the_classifier_with_a_global_average(segmented: Result) -> None:
    classifier = vizapp.ask("predict", wrapped(TwoShapes(pooled=True), NAMES), PHOTO)
    np.testing.assert_allclose(segmented.arrays["scores"].mean((1, 2)), classifier.arrays["logits"], atol=1e-4)


def test_panels_colour_the_classes_apart_and_name_them(segmented: Result) -> None:
    panels = {panel.title: panel.pixels for panel in segmented.panels}
    assert set(panels) == {"seen", "label", "label-over-photo", "classes"}
    zoom = 7  # 24 cells to at least 160 pixels
    shown = panels["label"][: SIDE * zoom : zoom, ::zoom]
    colours = [tuple(shown[cell]) for cell in ((0, 0), (5, 6), (14, 16))]
    assert len(set(colours)) == 3
    assert {tuple(colour) for colour in shown.reshape(-1, 3)} == set(colours)
    legend = panels["label"][SIDE * zoom :]
    for line, colour in enumerate(colours):
        assert (legend[24 * line + 12, 10] == colour).all()
    assert legend.shape[0] == 3 * 24


class Masks(nn.Module):
    """Sigmoids of 8 r - 4 and 8 g - 4 at each pixel, or with `classes=1` of the first alone, behind a `key`."""

    def __init__(self, classes: int, key: str = "") -> None:
        super().__init__()
        self.mask, self.key = nn.Conv2d(3, classes, 1), key
        self.mask.weight.data = 8 * torch.eye(3)[:classes, :, None, None]
        self.mask.bias.data = torch.full((classes,), -4.0)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        chance = self.mask(x).sigmoid()
        return {self.key: chance, "features": torch.relu(x)} if self.key else chance


@pytest.mark.parametrize("key", ["", "out"])
def test_masks_that_do_not_exclude_each_other_leave_cells_without_a_class(key: str) -> None:
    photo = np.zeros((SIDE, SIDE, 3), np.uint8)
    photo[:6, :, 0] = photo[:3, :, 1] = photo[6:9, :, 1] = 255  # red 6 rows, of which 3 yellow; then 3 green
    photo[:3, :, 0] = 204  # the green is stronger
    found = vizapp.ask("predict", wrapped(Masks(2, key), ["red", "green"]), photo)
    expected = np.repeat([1, 0, 1, -1], [3, 3, 3, 15])
    np.testing.assert_array_equal(found.arrays["label"], np.repeat(expected[:, None], SIDE, 1))
    np.testing.assert_allclose(found.arrays["area"], [3 / 24, 6 / 24])
    assert [row["name"] for row in found.table] == ["green", "red"]
    assert found.arrays["probability"][0, 0] == pytest.approx(1 / (1 + math.exp(-4)), abs=1e-5)
    np.testing.assert_allclose(found.arrays["scores"][0, 0], 8 * 0.8 - 4, atol=1e-3)
    assert "has no class (-1 in the label map)" in found.facts["output"]


def test_a_map_of_one_class_is_a_mask() -> None:
    photo = flat(0, 255, 0)
    photo[:, :8] = 255
    found = vizapp.ask("predict", wrapped(Masks(1), ["road"]), photo)
    expected = np.where(np.arange(SIDE) < 8, 0, -1)
    np.testing.assert_array_equal(found.arrays["label"], np.repeat(expected[None], SIDE, 0))
    assert found.facts["answer"] == "road 33.3 %"
    nothing = vizapp.ask("predict", wrapped(Masks(1), ["road"]), flat(0, 0, 0))
    assert nothing.facts["answer"] == "no class anywhere"
    assert nothing.table == ()


@pytest.mark.parametrize(
    ("red", "answer"), [(204, "boat: yes (probability 76.9 %)"), (51, "boat: no (probability 23.1 %)")]
)
def test_one_logit_is_a_yes_or_a_no(red: int, answer: str) -> None:
    found = vizapp.ask("predict", wrapped(MeanColour("one"), ["boat"]), flat(red, 0, 0))
    assert found.arrays["logits"] == pytest.approx([4 * red / 255 - 2], abs=1e-5)
    assert found.arrays["probabilities"] == pytest.approx([1 / (1 + math.exp(2 - 4 * red / 255))], abs=1e-5)
    assert found.facts["answer"] == answer
    assert "classes" not in found.facts


def test_several_labels_at_once_are_told_the_likely_ones_first() -> None:
    network = wrapped(MeanColour("several"), ["sky", "sea", "sand"])
    found = vizapp.ask("predict", network, flat(153, 0, 255))
    assert [row["name"] for row in found.table] == ["sand", "sky", "sea"]
    assert [row["probability"] for row in found.table] == pytest.approx(
        [1 / (1 + math.exp(-t)) for t in (2, 0.4, -2)], abs=1e-5
    )
    assert found.facts["answer"] == "sand (88.1 %), sky (59.9 %)"
    assert "do not exclude each other" in found.facts["classes"]
    assert "2 of 3" in found.facts["classes"]
    dark = vizapp.ask("predict", network, flat(0, 51, 0)).facts
    assert dark["answer"] == "no class above 50 %; the most probable is sea (23.1 %)"


@pytest.mark.parametrize("answer", ["tuple", "dict", "record"])
def test_heads_are_named_as_the_network_names_them(answer: str) -> None:
    network = wrapped(MeanColour(answer), ["red", "green", "blue"])
    found = vizapp.ask("predict", network, flat(0, 255, 102)).arrays
    assert found["heads"].tolist() == (["0", "1"] if answer == "tuple" else ["colour", "bright"])
    assert found["head_classes"].tolist() == [1, 0]
    np.testing.assert_allclose(found["logits"], [0, 8, 8 * 0.4], atol=1e-4)
    of_colour = math.exp(8) / (math.exp(8) + 1 + math.exp(3.2))
    of_bright = 1 / (1 + math.exp(2 * 1.4 - 3))
    np.testing.assert_allclose(found["head_probabilities"], [of_colour, of_bright], atol=1e-5)


def test_an_embedding_tells_the_nearest_photos_of_a_folder(tmp_path: Path) -> None:
    colours = {"a-red": (200, 0, 0), "b-pink": (200, 100, 100), "c-green": (0, 50, 0), "d-orange": (100, 10, 0)}
    for name, colour in colours.items():
        Image.fromarray(flat(*colour)).save(tmp_path / f"{name}.png")
    found = vizapp.ask("predict", wrapped(MeanColour("embedding")), flat(250, 0, 0), folder=tmp_path, top=3)
    np.testing.assert_allclose(found.arrays["embedding"], [1, 0, 0], atol=1e-6)
    assert [row["path"] for row in found.table] == ["a-red.png", "d-orange.png", "b-pink.png"]
    cosines = [1, 10 / math.hypot(10, 1), 2 / math.sqrt(6)]
    np.testing.assert_allclose(found.arrays["distances"], 1 - np.array(cosines), atol=1e-6)
    np.testing.assert_allclose([row["cosine"] for row in found.table], cosines, atol=1e-6)
    np.testing.assert_array_equal(found.arrays["indices"], [0, 3, 1])
    assert found.facts["answer"] == "most like a-red.png, d-orange.png, b-pink.png"
    assert [panel.title for panel in found.panels] == ["photo", "neighbours"]


def test_a_cosine_is_told_as_a_number_with_its_sign() -> None:
    network, other = wrapped(MeanColour("embedding")), flat(0, 250, 0)
    found = vizapp.ask("predict", network, flat(250, 0, 0), target=vizapp.Target(embedding=other))
    value = float(found.arrays["probabilities"][0])
    assert value == pytest.approx(0, abs=1e-6), "the mean colours are at right angles"
    assert found.facts["answer"] in ("cosine (0.000)", "cosine (−0.000)")
    assert in_words(SimpleNamespace(quantity="cosine"), -0.1844) == "−0.184"


def test_an_embedding_without_a_folder_is_compared_with_the_bundled_photos() -> None:
    found = vizapp.ask("predict", wrapped(MeanColour("embedding")), flat(90, 120, 60), top=2)
    assert "sample photos" in found.facts["search"]
    assert len(found.arrays["distances"]) == 2
    assert found.arrays["distances"][0] <= found.arrays["distances"][1]


def test_several_crops_of_a_map_or_an_embedding_are_refused() -> None:
    for network in (wrapped(TwoShapes(), NAMES), wrapped(MeanColour("embedding"))):
        with refuses("one-crop-only", "crops"):
            vizapp.ask("predict", network, PHOTO, crops="ten")


def test_a_folder_alone_is_no_photo(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "one.png")
    with refuses("does-not-fit-method", "photo"):
        vizapp.ask("predict", wrapped(MeanColour("embedding")), folder=tmp_path)


class Texts(nn.Module):
    """Returns numbers that are no scores of classes, cells or photos."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0].argmax(1)


def test_what_says_nothing_that_can_be_read_is_refused_in_a_sentence() -> None:
    with refuses("no-prediction", "class map"):
        vizapp.ask("predict", wrapped(Texts().eval()), PHOTO)


def test_a_class_map_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--network", "shapes-segmenter", "--picture", "shapes 1", "--out", str(tmp_path), "--json"]
    assert main(["predict", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in told["table"]} >= {"background", "square"}
    assert (tmp_path / "label-over-photo.png").is_file()
    assert np.load(tmp_path / "arrays.npz")["label"].shape == (96, 96)
