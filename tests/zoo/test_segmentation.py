"""torchvision's segmentation networks toward a cell: each method answers, or says in a sentence why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models import segmentation

import vizapp
from vizapp.errors import VizError
from vizapp.methods import methods
from vizapp.zoo.network import Network
from vizapp.zoo.target import Target

SIDE = 64
PHOTO = vizapp.open_picture(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
# Methods of one photo; those of folders read layers, which the target leaves alone.
ASKED = {
    "activations": {}, "architecture": {"repeats": 0}, "arithmetic": {}, "attribution": {"kind": "gradcam"}, "dense": {},
    "knockout": {}, "occlusion": {"window": 32, "stride": 32}, "predict": {}, "projection": {},
    "transform": {"kind": "shift-x", "amounts": (0, 4)},
    "trust": {"kinds": "random", "measures": "pointing", "box": (4, 4, 9, 9)},
}  # fmt: skip
REFUSED = {"dense": "cannot be made convolutional"}
LARGE = ["fcn_resnet50", "deeplabv3_resnet50", "fcn_resnet101", "deeplabv3_resnet101"]
NAMES = [
    "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large",
    *(pytest.param(name, marks=pytest.mark.families) for name in LARGE),
]  # fmt: skip


def built(name: str) -> Network:
    torch.manual_seed(0)
    module = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5)
    return vizapp.wrap(module.eval(), (3, SIDE, SIDE), name=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_method_answers_toward_a_cell_or_says_why_not(name: str) -> None:
    network = built(name)
    assert (network.task, network.class_maps[0].shape, network.class_maps[0].head.key) == (
        "class map",
        (5, SIDE, SIDE),
        "out",
    )
    logits = network.module(network.prepare(PHOTO))["out"][0, :, 20, 40]
    assert set(ASKED) <= set(methods())
    for key, options in ASKED.items():
        more = {"site": network.sites[2].name} if key == "knockout" else {}
        try:
            found = vizapp.ask(key, network, picture=PHOTO, target=Target(3, cell=(20, 40)), **options | more)
        except VizError as error:
            refused = str(error)
            assert REFUSED.get(key, "nothing") in refused, f"{key}: {refused}"
            continue
        assert found.facts["target"] == "cell 20,40"
        if key in ("occlusion", "knockout"):
            given = found.arrays["clean_logit" if key == "occlusion" else "clean_logits"]
            right = logits[3] if key == "occlusion" else logits
            torch.testing.assert_close(torch.from_numpy(given), right, rtol=1e-4, atol=1e-5)
