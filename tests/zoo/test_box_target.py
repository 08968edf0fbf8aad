"""Boxes as targets: D-RISE on a detector whose maps are known by hand, and on those of torchvision against a direct loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vizapp
from tests.detectors import KINDS, BrightSquares, picture, small
from vizapp.engine.detection.boxes import match, target_of
from vizapp.engine.projection.relevance import relevance
from vizapp.engine.projection.relevance_rule import Relevance
from vizapp.errors import VizError
from vizapp.media.picture import open_picture
from vizapp.zoo.target import toward


def squares() -> tuple[vizapp.Network, np.ndarray]:
    """A red square at rows 8 to 16, columns 24 to 32, a green one at rows 16 to 24, columns 8 to 16, and the rest black."""
    pixels = np.zeros((32, 40, 3), np.uint8)
    pixels[8:16, 24:32, 0], pixels[16:24, 8:16, 1] = 204, 255
    return _wrapped(BrightSquares(), ["red", "green"], (32, 40)), pixels


def _wrapped(module: nn.Module, names: list[str], size: tuple[int, int]) -> vizapp.Network:
    return vizapp.wrap(module, input_size=(3, *size), resize=min(size), categories=names, mean=(0, 0, 0), std=(1, 1, 1))


def detector(kind: str) -> tuple[vizapp.Network, np.ndarray]:
    pixels = (picture()[0].permute(1, 2, 0) * 255).byte().numpy()
    return _wrapped(small(kind), ["background", "a", "b", "c"], (48, 40)), pixels


def test_hiding_the_square_of_the_box_hides_all_of_its_match_and_nothing_else_does() -> None:
    network, pixels = squares()
    assert network.task == "boxes"
    target = vizapp.Target(box=(8, 24, 16, 32))
    result = vizapp.ask("occlusion", network, picture=pixels, target=target, window=8, stride=8, fill="black")
    expected = np.full((4, 5), 0.8, np.float32)
    expected[1, 3] = 0
    places = result.arrays["positions"]
    values = {
        tuple(map(int, at)): value for at, value in zip(places.reshape(-1, 4), result.arrays["logit"].flat, strict=True)
    }
    for row in range(4):
        for column in range(5):
            box = (8 * row, 8 * column, 8 * row + 8, 8 * column + 8)
            assert values[box] == pytest.approx(expected[row, column], abs=1e-6)
    assert result.facts["target"] == "box 8,24,16,32 as red"


def test_the_number_of_a_detection_is_its_box_and_class() -> None:
    network, pixels = squares()
    result = vizapp.ask("knockout", network, picture=pixels, target=vizapp.Target(box=0), site="conv")
    assert result.facts["target"] == "box 16,8,24,16 as green"  # the highest score comes first
    assert result.arrays["clean_logits"].tolist() == [1]
    assert result.arrays["logit_change"].tolist() == [0, -1]  # silent green squares match no longer


@pytest.mark.parametrize("kind", ["fcos", "fasterrcnn"])
def test_occlusion_toward_a_box_is_the_loop_over_windows(kind: str) -> None:
    network, pixels = detector(kind)
    target = vizapp.Target(box=0)
    result = vizapp.ask("occlusion", network, picture=pixels, target=target, window=16, stride=16)
    own = network.detector
    assert own is not None
    (found,), (proposals,) = own.found(network.prepare(pixels)), own.proposals(network.prepare(pixels))
    from_clean = target_of(found, 0, proposals)
    for (top, left, bottom, right), value in zip(
        result.arrays["positions"].reshape(-1, 4).astype(int), result.arrays["logit"].flat, strict=True
    ):
        hidden = pixels.copy()
        hidden[max(top, 0) : bottom, max(left, 0) : right] = 128
        scored = own.proposals(network.batch([hidden]))[0]
        assert value == pytest.approx(float(match(scored, from_clean)), abs=1e-4)


@pytest.mark.parametrize("kind", ["retinanet", "maskrcnn"])
def test_signals_go_down_from_the_class_logit_of_the_best_proposal(kind: str) -> None:
    network, pixels = detector(kind)
    result = vizapp.ask("projection", network, picture=pixels, target=vizapp.Target(box=0), rule="gradient", seed="one")
    own = network.detector
    assert own is not None
    batch = network.prepare(pixels)
    (found,), (proposals,) = own.found(batch), own.proposals(batch)
    module = own.signal(batch, target_of(found, 0, proposals))
    pixels_in = batch.clone().requires_grad_()
    (slope,) = torch.autograd.grad(module(pixels_in).sum(), pixels_in)
    given = torch.from_numpy(result.arrays["projection"]).permute(2, 0, 1)
    assert float((given - slope[0]).abs().max()) < 1e-4 * float(slope.abs().max())
    assert float(slope.abs().max()) > 0


def test_interventions_go_on_in_a_pass_toward_a_box() -> None:
    network, pixels = detector("ssd")
    silent = vizapp.Intervention("backbone.first", None, "scale", 0.0)
    clean, changed = (
        vizapp.ask("transform", network, picture=pixels, target=vizapp.Target(box=0), amounts=[0], interventions=given)
        for given in ([], [silent])
    )
    assert clean.arrays["probability"][0, 0] == pytest.approx(1, abs=1e-4)
    assert changed.arrays["probability"][0, 0] < 0.99


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"box": (0, 0, 8, 8)}, "nearest detection is number 0: green at 16,8,24,16"),
        ({"box": (0, 0, 8, 8), "class_": "red"}, "No proposal"),
        ({"box": 2}, "detections 0 to 1 on this photo, not 2"),
        ({"box": (8, 8, 8, 16)}, "empty or outside"),
        ({"box": (0, 0, 10**400, 5)}, "give (top"),
        ({"box": True}, "give (top"),
        ({"box": (1, 2, 3)}, "give (top, left, bottom, right)"),
        ({"box": 0, "class_": "blue"}, "no class 'blue'"),
    ],
)
def test_a_box_that_is_not_there_is_refused_in_words(target: dict[str, Any], words: str) -> None:
    network, pixels = squares()
    with pytest.raises(VizError) as caught:
        vizapp.ask("occlusion", network, picture=pixels, target=vizapp.Target(**target))
    assert words in str(caught.value)


def test_a_classifier_has_no_boxes() -> None:
    network = _wrapped(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), ["a", "b"], (4, 4))
    with pytest.raises(VizError, match="returns no boxes"):
        vizapp.ask("predict", network, picture=np.zeros((4, 4, 3), np.uint8), target=vizapp.Target(box=0))


@pytest.mark.parametrize("method", ["architecture", "arithmetic", "transform", "knockout"])
def test_methods_answer_about_a_box_of_a_network_with_two_stages(method: str) -> None:
    network, pixels = detector("fasterrcnn")
    given = {"transform": {"amounts": [0, 90]}}.get(method, {})
    target = vizapp.Target(box=0)
    assert vizapp.ask(method, network, picture=pixels, target=target, **given).arrays  # type: ignore[arg-type]


@pytest.mark.slow
def test_targets_that_score_otherwise_have_other_digests() -> None:
    """A detection compares with its own class scores, a given box with its class alone; classes may share a name."""
    network, pixels = detector("fcos")
    network = replace(network, categories=("background", "N/A", "N/A", "c"))
    photo = open_picture(pixels)
    found, _ = toward(network, vizapp.Target(box=0), photo)
    label = int(network.detector.found(network.prepare(photo))[0].labels[0])  # type: ignore[union-attr]
    sides = tuple(map(float, network.detector.found(network.prepare(photo))[0].boxes[0]))  # type: ignore[union-attr]
    others = [toward(network, vizapp.Target(number, box=sides), photo)[0] for number in (1, 2)]  # type: ignore[arg-type]
    same = toward(network, vizapp.Target(label, box=sides), photo)[0]  # type: ignore[arg-type]
    assert len({one.digest for one in (network, found, *others)} | {same.digest}) == (4 if label in (1, 2) else 5)
    assert found.signal is not None
    assert found.signal.digest != found.digest


def test_vectors_with_an_entry_per_proposal_are_no_features_of_the_photo() -> None:
    network, pixels = detector("fasterrcnn")
    assert any(not site.is_map for site in network.sites)
    aimed, _ = toward(network, vizapp.Target(box=0), vizapp.open_picture(pixels))
    assert network.last_hidden_layer() is None
    assert aimed.last_hidden_layer() is None


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"fcos"}))  # whose group norms LRP takes at a constant spread
def test_relevance_without_stabiliser_is_the_gradient_times_the_input(kind: str) -> None:
    """As in any network of rectifiers; what only moves boxes gets none, and may be written in any way."""
    network, pixels = detector(kind)
    aimed, unit = toward(network, vizapp.Target(box=0), open_picture(pixels))
    assert unit is not None
    batch = aimed.prepare(pixels)
    found = relevance(aimed.smooth.module, batch, [unit], aimed.smooth.sites, Relevance(composite="zero"))
    own = batch.clone().requires_grad_()
    logit = aimed.smooth.module(own)[0, 0]
    (slope,) = torch.autograd.grad(logit, own)
    wanted = slope[0] * batch[0]
    assert wanted.abs().max() > 0
    torch.testing.assert_close(found.values[0], wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    assert float(found.gap[0]) < 1e-4


def test_the_relevance_of_a_returned_box_is_its_own_brightness() -> None:
    """The score of a square is its mean red, so each of its 64 pixels has its red's share of it."""
    network, _ = squares()
    pixels = np.random.default_rng(0).integers(0, 90, (32, 40, 3), np.uint8)
    pixels[8:16, 16:24, 0] = np.arange(190, 254).reshape(8, 8)
    result = vizapp.ask("attribution", network, pixels, target=vizapp.Target(box=0), kind="lrp")
    assert result.facts["target"] == "box 8,16,16,24 as red"
    wanted = np.zeros((32, 40))
    wanted[8:16, 16:24] = pixels[8:16, 16:24, 0] / 255 / 64
    np.testing.assert_allclose(result.arrays["attribution"], wanted, atol=1e-6)
