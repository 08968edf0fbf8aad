"""Hiding a part of the picture of any form: the network answers to exactly the picture that is shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vizapp
from vizapp.errors import VizError
from vizapp.media.samples import open_sample
from vizapp.methods.base import Question
from vizapp.methods.by_hand import by_hand, hidden
from vizapp.methods.occlusion import OcclusionParams


def ring() -> np.ndarray:
    """A form that no square has."""
    down, across = np.indices((28, 28)) - 13.5
    radius = np.hypot(down, across)
    return (radius > 5) & (radius < 9)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_network_answers_to_the_picture_with_the_form_filled(inverse: bool) -> None:
    network, picture = vizapp.load("vizapp/lenet5-digits"), open_sample("digit 3")
    mask = ring()
    result = by_hand(Question(network, picture), OcclusionParams(fill="white", inverse=inverse), mask)
    shown = network.seen(picture).copy()
    for row, column in np.ndindex(28, 28):
        if mask[row, column] != inverse:
            shown[row, column] = 255
    assert (result.panels[0].pixels == shown).all()
    logits = network.scores(network.batch([shown, network.seen(picture)]))
    np.testing.assert_allclose(result.arrays["logits"], logits[0].numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.arrays["clean_probabilities"], torch.softmax(logits[1], 0).numpy(), atol=1e-6)
    covered = int((mask != inverse).sum())
    assert result.facts["hidden"] == f"{covered / 784:.0%}"


def test_an_empty_form_hides_nothing_and_a_full_one_everything() -> None:
    seen = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    assert (hidden(seen, np.zeros((6, 5), bool), OcclusionParams()) == seen).all()
    assert (hidden(seen, np.ones((6, 5), bool), OcclusionParams()) == 128).all()


def test_a_form_of_another_size_is_told() -> None:
    with pytest.raises(VizError, match="mask has 3 × 4 pixels and the network sees 6 × 5"):
        hidden(np.zeros((6, 5, 3), np.uint8), np.zeros((3, 4), bool), OcclusionParams())
